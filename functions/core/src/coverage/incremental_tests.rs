//! Coverage that is brought up to date equals coverage that is computed in full, whatever happened in between.

use futures::executor::block_on;
use jiff::ToSpan;
use proptest::prelude::*;
use ribera_storage::batch::{Differing, DifferingUnit};
use ribera_storage::delta::{MergeOptions, merge_plan};
use ribera_storage::ids::Position;
use ribera_storage::object::{MemoryStore, ObjectPath};
use ribera_storage::ports::Host;
use ribera_storage::{ObjectStore, Unit};

use super::persist::{self, Line, PageStore};
use super::*;
use crate::fixture::*;
use crate::ingest::{self, IngestSettings, SweepBudget};

type World = Host<MemoryStore, FixedClock, SeededRandom>;

const ZONES: [&str; 3] = ["UTC", "America/New_York", "Asia/Tokyo"];

#[derive(Debug, Clone)]
enum Step {
    /// A batch of a store for one day, committed.
    Commit {
        store: usize,
        day: i64,
        rows: i32,
    },
    /// A batch that waits in the inbox.
    Offer {
        store: usize,
        day: i64,
        rows: i32,
    },
    /// Everything in the inbox is decided.
    Sweep,
    Quarantine {
        store: usize,
    },
    Differing {
        store: usize,
        day: i64,
        awaits: u64,
    },
    Unreadable {
        store: usize,
    },
    Merge,
    Checkpoint,
    Foreign {
        store: usize,
    },
    Move {
        seconds: i64,
    },
    Close {
        store: usize,
        day: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (store, day, rows) = (0_usize..3, 0_i64..4, 1_i32..4);
    prop_oneof![
        6 => (store.clone(), day.clone(), rows.clone()).prop_map(|(store, day, rows)| Step::Commit { store, day, rows }),
        2 => (store.clone(), day.clone(), rows).prop_map(|(store, day, rows)| Step::Offer { store, day, rows }),
        1 => Just(Step::Sweep),
        1 => store.clone().prop_map(|store| Step::Quarantine { store }),
        2 => (store.clone(), day.clone(), 1_u64..9)
            .prop_map(|(store, day, awaits)| Step::Differing { store, day, awaits }),
        1 => store.clone().prop_map(|store| Step::Unreadable { store }),
        2 => Just(Step::Merge),
        1 => Just(Step::Checkpoint),
        1 => store.clone().prop_map(|store| Step::Foreign { store }),
        3 => (-3_600_i64..90_000).prop_map(|seconds| Step::Move { seconds }),
        1 => (store, day).prop_map(|(store, day)| Step::Close { store, day }),
    ]
}

struct Chain {
    world: World,
    /// Batches sent so far.
    sequence: u64,
    lists: u64,
}

impl Chain {
    async fn new() -> Self {
        let now = "2026-01-11T12:00:00Z";
        let objects = MemoryStore::new();
        objects.set_now(now.parse().unwrap());
        let world = Host::new(objects, FixedClock::at(now), SeededRandom::default());
        control::publish_dataset(&world.objects, &ventas()).await.unwrap();
        let stores: Vec<StoreDefinition> = (0..3).map(|store| definition(store, "")).collect();
        control::publish_stores(&world.objects, &stores).await.unwrap();
        Self { world, sequence: 0, lists: 0 }
    }

    /// Of several months, behind a checkpoint that is read in parts.
    async fn with_months() -> Self {
        ribera_storage::delta::testing::use_small_bounds();
        let mut chain = Self::new().await;
        for (store, months) in (0..3).cycle().zip(1..13) {
            chain.take(&Step::Commit { store, day: -30 * months, rows: 1 }).await;
        }
        chain.take(&Step::Checkpoint).await;
        chain
    }

    async fn check(mut self, steps: &[Step]) {
        for step in steps {
            self.take(step).await;
            self.assert_kept_is_full(step, &CoverageSettings::default()).await;
        }
    }

    /// Each store has a proven day.
    async fn with_a_day() -> Self {
        let mut chain = Self::new().await;
        for store in 0..3 {
            chain.take(&Step::Commit { store, day: 0, rows: 3 }).await;
        }
        chain
    }

    fn table(&self) -> Table<'_, MemoryStore> {
        Table::new(&self.world.objects, "ventas".parse().unwrap())
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.world.objects.put(&ObjectPath::new(path).unwrap(), bytes.into()).await.unwrap();
    }

    async fn offer(&mut self, store: usize, day: i64, rows: i32) -> ObjectPath {
        self.sequence += 1;
        let (id, day) = (format!("s{store}"), DAY.checked_add(day.days()).unwrap());
        let all = lines(&id, day, rows);
        let file = parquet_of(&all);
        let manifest = manifest(&format!("{id}/ventas/000000-{:010}", self.sequence), &[day], &all, &file);
        let inbox = paths::inbox(&manifest.batch).unwrap();
        self.put(&manifest.file.path, file.to_vec()).await;
        self.put(inbox.as_str(), manifest.to_json().unwrap().to_vec()).await;
        inbox
    }

    async fn take(&mut self, step: &Step) {
        let ports = self.world.ports();
        match step {
            Step::Commit { store, day, rows } => {
                let inbox = self.offer(*store, *day, *rows).await;
                ingest::ingest_event(self.world.ports(), &IngestSettings::default(), &[inbox]).await.unwrap();
            }
            Step::Offer { store, day, rows } => drop(self.offer(*store, *day, *rows).await),
            Step::Sweep => {
                drop(ingest::sweep(ports, &IngestSettings::default(), &SweepBudget::default()).await.unwrap())
            }
            Step::Quarantine { store } => {
                let path = format!("quarantine/s{store}/ventas/000000-{:010}.json", self.sequence);
                self.put(&path, b"{}".to_vec()).await;
            }
            Step::Differing { store, day, awaits } => {
                self.lists += 1;
                let day = DAY.checked_add(day.days()).unwrap();
                let awaits = Position { epoch: 0, sequence: *awaits };
                let list = Differing { units: vec![DifferingUnit { unit: Unit::Day(day), awaits }] };
                let path = format!("agents/s{store}/ventas/differing/{:010}.json", self.lists);
                self.put(&path, serde_json::to_vec(&list).unwrap()).await;
            }
            Step::Unreadable { store } => {
                self.lists += 1;
                let path = format!("agents/s{store}/ventas/differing/{:010}.json", self.lists);
                self.put(&path, b"{".to_vec()).await;
            }
            Step::Merge => self.merge().await,
            Step::Checkpoint => drop(self.table().checkpoint(ports).await.unwrap()),
            Step::Foreign { store } => self.foreign(*store).await,
            Step::Move { seconds } => {
                self.world.clock.advance(*seconds);
                self.world.objects.set_now(ribera_storage::ports::Clock::now(&self.world.clock));
            }
            Step::Close { store, day } => {
                let closed = format!("closed = \"{}\"\n", DAY.checked_add(day.days()).unwrap());
                control::publish_stores(&self.world.objects, &[definition(*store, &closed)]).await.unwrap();
            }
        }
    }

    async fn merge(&self) {
        let Some(snapshot) = self.table().load().await.unwrap() else { return };
        let options = MergeOptions { files_min: 2, ..MergeOptions::default() };
        for group in merge_plan(&snapshot, DAY.checked_add(9.days()).unwrap(), &options) {
            self.table().merge(self.world.ports(), &ventas(), &group).await.unwrap();
        }
    }

    /// An entry of another program, with a file that nobody knows.
    async fn foreign(&self, store: usize) {
        let Some(snapshot) = self.table().load().await.unwrap() else { return };
        let stats = serde_json::json!({"numRecords": 1, "minValues": {"store_id": format!("s{store}")},
            "maxValues": {"store_id": format!("s{store}")}});
        let add = serde_json::json!({"add": {"path": format!("month=2026-01/part-{}.parquet", snapshot.version()),
            "partitionValues": {"month": "2026-01"}, "size": 1, "modificationTime": 1, "dataChange": true,
            "stats": stats.to_string()}});
        let entry = paths::log_entry(snapshot.table(), snapshot.version() + 1).unwrap();
        self.put(entry.as_str(), add.to_string().into_bytes()).await;
    }

    async fn refresh(&self) -> Vec<PageStore> {
        self.refresh_with(&CoverageSettings::default()).await
    }

    async fn refresh_with(&self, settings: &CoverageSettings) -> Vec<PageStore> {
        let refreshed = refresh(self.world.ports(), settings).await.unwrap();
        assert!(refreshed.failed.is_empty(), "{refreshed:?}");
        let lines = self.kept().await.pages.into_iter().flatten();
        lines.map(|line| line.read().unwrap()).collect()
    }

    async fn kept(&self) -> Kept {
        persist::load_kept(&self.world.objects, &"ventas".parse().unwrap()).await.unwrap()
    }

    /// What is kept is what a full computation says, to the last total.
    async fn assert_kept_is_full(&self, what: &impl std::fmt::Debug, settings: &CoverageSettings) {
        let kept = self.refresh_with(settings).await;
        let full = compute(self.world.ports(), &"ventas".parse().unwrap()).await.unwrap();
        let summary = full.summary(settings, None, false);
        let (coverage, summaries): (Vec<_>, Vec<_>) =
            kept.into_iter().map(|store| (store.coverage, store.summary)).unzip();
        assert_eq!(coverage, full.stores, "after {what:?}");
        assert_eq!(summaries.into_iter().flatten().collect::<Vec<_>>(), summary.stores, "after {what:?}");
        let index = self.kept().await.index;
        assert_eq!((index.period, index.totals), (summary.period, summary.totals), "after {what:?}");
    }
}

fn definition(store: usize, more: &str) -> StoreDefinition {
    let zone = ZONES[store];
    StoreDefinition::from_toml(&format!(
        "id = \"s{store}\"\nname = \"s{store}\"\ntime_zone = \"{zone}\"\nopened = \"2026-01-10\"\n{more}"
    ))
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coverage_brought_up_to_date_is_coverage_computed_in_full(steps in prop::collection::vec(step(), 1..24)) {
        block_on(async { Chain::new().await.check(&steps).await });
    }

    #[test]
    fn the_same_of_a_table_of_which_only_what_is_needed_is_read(steps in prop::collection::vec(step(), 1..24)) {
        block_on(async { Chain::with_months().await.check(&steps).await });
    }
}

#[test]
fn a_foreign_file_makes_the_same_stores_doubtful_after_a_checkpoint_as_before() {
    block_on(async {
        let mut chain = Chain::with_a_day().await;
        chain.take(&Step::Foreign { store: 1 }).await;
        for step in [Step::Move { seconds: 1 }, Step::Checkpoint, Step::Move { seconds: 1 }] {
            chain.take(&step).await;
            let full = compute(chain.world.ports(), &"ventas".parse().unwrap()).await.unwrap();
            let doubted: Vec<bool> = full.stores.iter().map(|store| !store.doubts.is_empty()).collect();
            assert_eq!(doubted, [false, true, false], "{step:?}");
        }
    });
}

/// Rows that no store has: whoever judges the store anew loses them.
const MARK: u64 = 777_777;

/// Marks what is kept of every store, then refreshes: the stores whose mark is gone were judged anew.
async fn judged_anew(chain: &Chain) -> Vec<String> {
    let Kept { index, pages } = chain.kept().await;
    for (page, lines) in index.pages.iter().zip(pages) {
        let marked = lines.into_iter().map(|line| {
            let mut coverage = line.read().unwrap().coverage;
            coverage.rows_by_month = [(Month::of(DAY), MARK)].into();
            Line::new(coverage, line.basis, &index.settings, index.period).unwrap()
        });
        chain.put(&page.path, serde_json::to_vec(&marked.collect::<Vec<_>>()).unwrap()).await;
    }
    let stores = chain.refresh().await.into_iter();
    let anew = stores.filter(|store| store.coverage.rows_by_month.values().all(|rows| *rows != MARK));
    anew.map(|store| store.coverage.store.to_string()).collect()
}

#[test]
fn only_stores_of_which_something_changed_are_judged_anew() {
    block_on(async {
        let all = ["s0", "s1", "s2"];
        let cases: [(&str, Vec<Step>, &[&str]); 9] = [
            ("nothing happened", vec![], &[]),
            ("an hour passed", vec![Step::Move { seconds: 60 }], &[]),
            ("a day passed", vec![Step::Move { seconds: 86_400 }], &all),
            ("a batch was committed", vec![Step::Commit { store: 1, day: 0, rows: 2 }], &["s1"]),
            ("files were merged", vec![Step::Merge], &[]),
            ("a batch waits", vec![Step::Offer { store: 2, day: 0, rows: 2 }], &["s2"]),
            ("a difference was published", vec![Step::Differing { store: 0, day: 0, awaits: 9 }], &["s0"]),
            ("a store was closed", vec![Step::Close { store: 1, day: 2 }], &["s1"]),
            ("another program wrote", vec![Step::Foreign { store: 1 }], &all),
        ];
        for (what, steps, expected) in cases {
            let mut chain = Chain::with_a_day().await;
            chain.refresh().await;
            for step in &steps {
                chain.take(step).await;
            }
            assert_eq!(judged_anew(&chain).await, expected, "{what}");
        }
    });
}

#[test]
fn a_store_in_doubt_is_judged_anew_every_time() {
    block_on(async {
        let mut chain = Chain::with_a_day().await;
        chain.take(&Step::Unreadable { store: 1 }).await;
        chain.refresh().await;
        assert_eq!(judged_anew(&chain).await, ["s1"]);
    });
}

#[test]
fn kept_coverage_that_cannot_be_read_is_computed_in_full() {
    block_on(async {
        let mut chain = Chain::new().await;
        chain.take(&Step::Commit { store: 0, day: 0, rows: 3 }).await;
        chain.refresh().await;
        let dataset: DatasetName = "ventas".parse().unwrap();
        let index = persist::load_index(&chain.world.objects, &dataset).await.unwrap().unwrap();
        for damage in [None, Some(b"{".to_vec())] {
            let path = ObjectPath::new(index.pages[0].path.clone()).unwrap();
            match damage {
                None => chain.world.objects.delete(&path).await.unwrap(),
                Some(bytes) => chain.world.objects.put(&path, bytes.into()).await.unwrap(),
            }
            let stores = chain.refresh().await;
            assert_eq!(stores.len(), 3);
            assert_eq!(stores[0].coverage.calendar.state(DAY), DayState::Complete);
        }
    });
}

#[test]
fn other_settings_and_another_period_change_what_is_kept_of_stores_that_stand() {
    block_on(async {
        let mut chain = Chain::with_a_day().await;
        chain.take(&Step::Move { seconds: 3 * 86_400 }).await;
        let mut settings = CoverageSettings::default();
        chain.assert_kept_is_full(&"the first time", &settings).await;
        settings.yellow_percent = 1;
        chain.assert_kept_is_full(&"another bound", &settings).await;
        assert!(
            chain
                .refresh_with(&settings)
                .await
                .iter()
                .all(|store| store.summary.as_ref().unwrap().light == Light::Yellow)
        );
        // One store opened earlier: the days of the others that count are the same, and since when is not.
        let earlier = definition(0, "").to_toml().unwrap().replace("2026-01-10", "2026-01-05");
        let earlier = StoreDefinition::from_toml(&earlier).unwrap();
        control::publish_stores(&chain.world.objects, &[earlier]).await.unwrap();
        chain.assert_kept_is_full(&"another period", &settings).await;
        let kept = chain.refresh_with(&settings).await;
        assert!(kept[1].summary.as_ref().unwrap().since.is_some());
    });
}

#[test]
fn the_text_of_stores_that_stand_is_kept_as_it_is() {
    block_on(async {
        let mut chain = Chain::with_a_day().await;
        chain.refresh().await;
        let before = chain.kept().await;
        chain.take(&Step::Commit { store: 1, day: 0, rows: 2 }).await;
        chain.refresh().await;
        let after = chain.kept().await;
        assert_ne!(after.index.pages, before.index.pages);
        let same: Vec<bool> = before.pages[0].iter().zip(&after.pages[0]).map(|(old, new)| old == new).collect();
        assert_eq!(same, [true, false, true]);
        chain.refresh().await;
        assert_eq!(chain.kept().await.index.pages, after.index.pages, "a page without news is not written again");
    });
}

#[test]
fn pages_of_an_older_layout_count_as_nothing_kept() {
    block_on(async {
        let chain = Chain::with_a_day().await;
        let stores = chain.refresh().await;
        let index = chain.kept().await.index;
        chain.put(&index.pages[0].path, serde_json::to_vec(&stores).unwrap()).await;
        assert!(persist::load_kept(&chain.world.objects, &"ventas".parse().unwrap()).await.is_none());
        chain.assert_kept_is_full(&"an older layout", &CoverageSettings::default()).await;
    });
}
