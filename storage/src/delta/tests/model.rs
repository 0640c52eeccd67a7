//! Any set of batches, in any order, doubled, by concurrent callers, on a store that fails: the
//! table ends as the model says (I1, I2, I3), and every reader on the way sees whole batches (I4).

use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;

use super::*;
use crate::object::MemoryStore;
use crate::object::faulty::{Faults, FaultyStore};

/// What must lie in the table: for each unit the batch of the highest position.
fn replaced(batches: &[TestBatch]) -> BTreeMap<String, Vec<TestRow>> {
    let mut winners: BTreeMap<(u8, i8), (Position, Vec<TestRow>)> = BTreeMap::new();
    for batch in batches {
        for (day, rows) in &batch.days {
            let standing = winners.entry((batch.store, *day)).or_insert((batch.position, rows.clone()));
            if batch.position > standing.0 {
                *standing = (batch.position, rows.clone());
            }
        }
    }
    by_store(winners.into_iter().map(|((store, _), (_, rows))| (store, rows)))
}

fn by_store(units: impl Iterator<Item = (u8, Vec<TestRow>)>) -> BTreeMap<String, Vec<TestRow>> {
    let mut content: BTreeMap<String, Vec<TestRow>> = BTreeMap::new();
    for (store, rows) in units.filter(|(_, rows)| !rows.is_empty()) {
        content.entry(format!("s{store}")).or_default().extend(rows);
    }
    content.values_mut().for_each(|rows| rows.sort());
    content
}

fn days() -> impl Strategy<Value = BTreeMap<i8, Vec<TestRow>>> {
    let rows = prop::collection::btree_map(0_u32..6, -500_i64..500, 0..4);
    prop::collection::btree_map(1_i8..7, rows, 1..4).prop_map(|days| {
        let row = |day: i8| move |(id, cents): (u32, i64)| TestRow { day, id, cents };
        days.into_iter().map(|(day, rows)| (day, rows.into_iter().map(row(day)).collect())).collect()
    })
}

/// Batches with distinct positions in each stream, and how they are offered: an order with
/// repeats.
fn replace_case() -> impl Strategy<Value = (Vec<TestBatch>, Vec<usize>)> {
    let batch = (0_u8..2, 0_u32..3, days());
    prop::collection::vec(batch, 1..12).prop_flat_map(|batches| {
        let batches: Vec<TestBatch> = batches
            .into_iter()
            .enumerate()
            .map(|(index, (store, epoch, days))| TestBatch {
                store,
                position: Position { epoch, sequence: 1 + index as u64 },
                days,
            })
            .collect();
        let count = batches.len();
        let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        let again = prop::collection::vec(0..count, 0..6);
        (Just(batches), order, again).prop_map(|(batches, order, again)| (batches, [order, again].concat()))
    })
}

/// A caller that offers its batches until each is settled; gives up the batch that only waits.
async fn caller<S: ObjectStore>(objects: &S, seed: u64, dataset: &DatasetDefinition, batches: Vec<TestBatch>) {
    let host = Host::new(seed);
    // Merged files keep their facts in objects of their own and have many row groups; checkpoints are read by parts.
    let mut table = Table::new(objects, "pruebas".parse().unwrap());
    table.bounds = testing::small();
    table.bounds.reads.tail_bytes = 8;
    for batch in batches {
        for _ in 0..400 {
            let report = match offer(&table, host.ports(objects), dataset, &batch).await {
                Ok(report) => report,
                Err(error) => {
                    assert!(error.is_retry(), "{error:?}");
                    continue;
                }
            };
            match report.outcome(&batch.id()).expect("the caller's own batch has an outcome") {
                BatchOutcome::Failed(error) => assert!(error.is_retry(), "{error}"),
                BatchOutcome::Expired => panic!("a fresh record has expired"),
                _ => {
                    if let Some(snapshot) = &report.checkpoint_due {
                        let _ = table.checkpoint_of(host.ports(objects), snapshot).await;
                    }
                    if host.next_u64().is_multiple_of(3) {
                        merge(&table, &host, dataset).await;
                    }
                    break;
                }
            }
        }
    }
}

/// Merges whatever there is, across stores.
async fn merge<S: ObjectStore>(table: &Table<'_, S>, host: &Host, dataset: &DatasetDefinition) {
    let options = MergeOptions { files_min: 2, ..MergeOptions::default() };
    let merged = async {
        let Some(snapshot) = table.load().await? else { return Ok(()) };
        for group in merge_plan(&snapshot, jiff::civil::date(2026, 1, 20), &options) {
            let merged = table.merge(host.ports(table.objects), dataset, &group).await?;
            assert!(merged.left_alone.is_empty(), "{merged:?}");
        }
        Ok::<_, crate::Error>(())
    };
    if let Err(error) = merged.await {
        assert!(error.is_retry(), "{error:?}");
    }
}

/// Sweeps until nothing is ready any more.
async fn sweep<S: ObjectStore>(objects: &S, dataset: &DatasetDefinition) {
    let host = Host::new(u64::MAX);
    let table = Table::new(objects, "pruebas".parse().unwrap());
    for _ in 0..4 {
        table.commit_ready(host.ports(objects), dataset, &[]).await.unwrap();
    }
    assert_eq!(table.list_ready().await.unwrap(), [], "settled records are deleted");
}

fn check(
    dataset: &DatasetDefinition,
    (batches, order): (Vec<TestBatch>, Vec<usize>),
    callers: usize,
    seed: u64,
    faults: Faults,
    model: &BTreeMap<String, Vec<TestRow>>,
) {
    block_on(async {
        let memory = MemoryStore::new();
        let faulty = FaultyStore::new(memory.clone(), seed, faults);
        let mut shares = vec![Vec::new(); callers];
        for (turn, index) in order.into_iter().enumerate() {
            shares[turn % callers].push(batches[index].clone());
        }
        let running = shares
            .into_iter()
            .enumerate()
            .map(|(index, share)| caller(&faulty, seed.wrapping_mul(31).wrapping_add(index as u64), dataset, share));
        join_all(running).await;
        faulty.settle().await.unwrap();
        sweep(&memory, dataset).await;
        let table = Table::new(&memory, "pruebas".parse().unwrap());
        let snapshot = table.load().await.unwrap().unwrap();
        assert_eq!(content(&table, dataset, &snapshot).await, *model);
        // Every version a reader could have seen holds whole batches of existing files.
        for version in 1..=snapshot.version() {
            let older = table.load_at(version).await.unwrap();
            content(&table, dataset, &older).await;
        }
        for batch in &batches {
            let settled = table.outcome_of(&snapshot, dataset, &batch.manifest()).await.unwrap();
            assert!(
                matches!(settled, Some(BatchOutcome::Committed { .. } | BatchOutcome::Superseded)),
                "{}: {settled:?}",
                batch.id()
            );
        }
    });
}

const QUIET: Faults = Faults { error_permille: 0, error_after_permille: 0, late_put_permille: 0, yields_max: 0 };
const ROUGH: Faults = Faults { error_permille: 30, error_after_permille: 30, late_put_permille: 60, yields_max: 4 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replace_batches_in_any_order_give_what_the_highest_positions_say(case in replace_case()) {
        let model = replaced(&case.0);
        check(&dataset(), case, 1, 1, QUIET, &model);
    }

    #[test]
    fn concurrent_callers_on_a_failing_store_give_the_same_table(case in replace_case(), seed in any::<u64>(), callers in 2_usize..6) {
        let model = replaced(&case.0);
        check(&dataset(), case, callers, seed, ROUGH, &model);
    }

}

#[test]
fn every_kind_of_fault_fires_in_these_tests() {
    block_on(async {
        let faulty = FaultyStore::new(MemoryStore::new(), 7, ROUGH);
        let batches = (1..20).map(|sequence| TestBatch {
            store: 0,
            position: Position { epoch: 0, sequence },
            days: [(1, vec![TestRow { day: 1, id: 1, cents: 1 }])].into(),
        });
        caller(&faulty, 1, &dataset(), batches.collect()).await;
        let fired = faulty.fired();
        assert!(fired.errors > 0 && fired.errors_after > 0 && fired.late_puts > 0, "{fired:?}");
    });
}
