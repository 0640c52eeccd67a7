//! The sweep: the inbox as it is listed, group by group. What calls that died left ready is found
//! on the way, because the inbox still has its manifests.

use std::collections::BTreeSet;

use jiff::Timestamp;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::delta::Table;
use ribera_storage::object::{ObjectMeta, ObjectPath, Owned, list_all, list_by_owner};
use ribera_storage::ports::Ports;
use ribera_storage::{BatchId, ObjectStore, Result, paths};

use super::admit::{self, InboxLookup};
use super::call::{self, quarantined};
use super::failures::Failures;
use super::poison::{CRASHES_MAX, GROUP_MAX, PoisonTracker, mark, unmark};
use super::refusal::Refusal;
use super::types::Source;
use super::{IngestReport, IngestSettings, Item, ManifestOutcome, Outcome, SweepBudget, SweepReport, settle};
use crate::quarantine;

/// Manifests of a store that one sweep looks at. A store with more waits for the next sweep with
/// the rest, and makes no other store wait.
const STORE_MANIFESTS_MAX: usize = 256;

pub async fn sweep<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &IngestSettings,
    budget: &SweepBudget,
) -> Result<SweepReport> {
    let mut sweep = Sweep {
        ports,
        settings,
        budget,
        started_at: ports.clock.now(),
        poison: PoisonTracker::load(ports.objects, ports.clock.now()).await?,
        outcomes: Vec::new(),
        more: false,
    };
    quarantine::finish_replays(ports).await?;
    let set_aside = sweep.inbox().await?;
    sweep.suspected(set_aside).await?;
    sweep.failures().await?;
    sweep.forgotten_records().await?;
    Ok(SweepReport { report: IngestReport { outcomes: sweep.outcomes }, more: sweep.more })
}

struct Sweep<'a, S> {
    ports: Ports<'a, S>,
    settings: &'a IngestSettings,
    budget: &'a SweepBudget,
    started_at: Timestamp,
    poison: PoisonTracker,
    outcomes: Vec<ManifestOutcome>,
    more: bool,
}

impl<S: ObjectStore> Sweep<'_, S> {
    /// Handles the inbox in groups, the stores in turn; returns the manifests to be handled alone.
    /// It begins with another store each time, so that a sweep whose time ends early does not
    /// always end before the same stores.
    async fn inbox(&mut self) -> Result<Vec<ObjectMeta>> {
        let mut stores = list_by_owner(self.ports.objects, "inbox/", STORE_MANIFESTS_MAX).await?;
        if !stores.is_empty() {
            let first = self.ports.random.next_u64() % stores.len() as u64;
            stores.rotate_left(usize::try_from(first).unwrap_or(0));
        }
        let crowded: Vec<String> =
            stores.iter().filter(|store| store.more).map(|store| format!("inbox/{}/", store.owner)).collect();
        let (set_aside, plain): (Vec<_>, Vec<_>) =
            in_turn(stores).into_iter().partition(|meta| self.poison.contains(&meta.path));
        for group in plain.chunks(GROUP_MAX) {
            if self.is_spent() {
                break;
            }
            self.group(group).await;
        }
        // Sweeping again at once helps a crowded store only if some of its manifests are settled.
        let settled =
            |prefix: &String| self.outcomes.iter().any(|one| is_settled(one) && one.path.starts_with(prefix.as_str()));
        self.more |= crowded.iter().any(settled);
        Ok(set_aside)
    }

    /// A group whose definitions cannot be read, or whose marker cannot be put, waits for the next
    /// sweep and holds up no other.
    async fn group(&mut self, group: &[ObjectMeta]) {
        match self.try_group(group).await {
            Ok(outcomes) => self.outcomes.extend(outcomes),
            Err(error) => {
                tracing::warn!(manifests = group.len(), %error, "not handled; the next sweep tries again");
                let failed = group.iter().map(|meta| ManifestOutcome {
                    path: meta.path.to_string(),
                    batch: paths::batch_of("inbox", &meta.path).ok(),
                    outcome: call::failed(&error),
                });
                self.outcomes.extend(failed);
            }
        }
    }

    async fn try_group(&self, group: &[ObjectMeta]) -> Result<Vec<ManifestOutcome>> {
        let paths: Vec<_> = group.iter().map(|meta| meta.path.clone()).collect();
        let marker = mark(self.ports, &paths).await?;
        let outcomes = call::ingest(self.ports, self.settings, items(group)).await;
        unmark(self.ports.objects, &marker).await;
        outcomes
    }

    /// Those whose handling may have killed a call, in smaller groups, the most suspect alone and
    /// last.
    async fn suspected(&mut self, mut set_aside: Vec<ObjectMeta>) -> Result<()> {
        set_aside.sort_by_key(|meta| self.poison.crash_count(&meta.path));
        set_aside.sort_by_key(|meta| std::cmp::Reverse(self.poison.group_size_for(&meta.path)));
        let mut rest = set_aside.as_slice();
        while let Some(first) = rest.first() {
            if self.is_spent() {
                return Ok(());
            }
            let together = self.poison.group_size_for(&first.path);
            let same = rest.iter().take(together).take_while(|meta| self.poison.group_size_for(&meta.path) == together);
            let (group, others) = rest.split_at(same.count());
            rest = others;
            if self.poison.crash_count(&first.path) >= CRASHES_MAX {
                self.give_up(first).await?;
            } else {
                self.group(group).await;
            }
        }
        let settled: BTreeSet<&str> =
            self.outcomes.iter().filter(|one| is_settled(one)).map(|one| one.path.as_str()).collect();
        let waiting: BTreeSet<&str> = set_aside.iter().map(|meta| meta.path.as_str()).collect();
        // What is no longer in the inbox was settled by another call.
        self.poison.clear(self.ports.objects, |path| settled.contains(path) || !waiting.contains(path)).await
    }

    async fn give_up(&mut self, meta: &ObjectMeta) -> Result<()> {
        let batch = paths::batch_of("inbox", &meta.path).ok();
        let detail = format!(
            "file: must be read within the memory and time of a call, got {CRASHES_MAX} calls that died over it"
        );
        let refusal = Refusal::new(QuarantineReason::LimitExceeded, detail);
        let reading = match &batch {
            Some(batch) => admit::read(self.ports.objects, &meta.path, batch, Source::Sweep).await?,
            None => InboxLookup::Absent,
        };
        let outcome = match (reading, &batch) {
            (InboxLookup::Fresh(received), _) => {
                settle::quarantine(self.ports, &received, &refusal, self.started_at).await?;
                quarantined(&refusal)
            }
            (InboxLookup::TooLarge, Some(batch)) => {
                quarantined(&settle::quarantine_too_large(self.ports, &meta.path, batch).await?)
            }
            (_, None) => {
                settle::quarantine_unreadable(self.ports, &meta.path, &refusal.detail).await?;
                quarantined(&refusal)
            }
            _ => Outcome::AlreadyDone,
        };
        self.outcomes.push(ManifestOutcome { path: meta.path.to_string(), batch, outcome });
        Ok(())
    }

    /// Counts what failed, and quarantines what fails in every sweep.
    async fn failures(&mut self) -> Result<()> {
        let failures = Failures::load(self.ports.objects).await?;
        for index in 0..self.outcomes.len() {
            let one = &self.outcomes[index];
            let (Outcome::Failed { message, cause }, Some(batch)) = (&one.outcome, &one.batch) else { continue };
            if !failures.note(self.ports, batch, message, *cause).await? {
                continue;
            }
            let refusal = Refusal::new(QuarantineReason::FailsAlways, format!("in every sweep: {message}"));
            if let Some(outcome) = self.quarantine_failing(&batch.clone(), &refusal).await? {
                self.outcomes[index].outcome = outcome;
            }
        }
        let failing = self.outcomes.iter().filter(|one| matches!(one.outcome, Outcome::Failed { .. }));
        let failing: BTreeSet<&BatchId> = failing.filter_map(|one| one.batch.as_ref()).collect();
        failures.forget_all_but(self.ports, &failing).await
    }

    async fn quarantine_failing(&self, batch: &BatchId, refusal: &Refusal) -> Result<Option<Outcome>> {
        let path = paths::inbox(batch)?;
        let InboxLookup::Fresh(received) = admit::read(self.ports.objects, &path, batch, Source::Sweep).await? else {
            return Ok(None);
        };
        // Nobody is to commit it any more.
        call::delete_ready(self.ports, batch).await?;
        settle::quarantine(self.ports, &received, refusal, self.started_at).await?;
        Ok(Some(quarantined(refusal)))
    }

    /// Deletes ready records whose manifest is no longer in the inbox: their batch was settled by
    /// another call. Nobody would delete them otherwise, and their files would stay for ever.
    async fn forgotten_records(&self) -> Result<()> {
        for meta in list_all(self.ports.objects, "state/ready/", None).await? {
            let Some(batch) = record_of(&meta.path) else { continue };
            if self.ports.objects.head(&paths::inbox(&batch)?).await?.is_none() {
                Table::new(self.ports.objects, batch.dataset.clone()).delete_ready(&batch).await?;
            }
        }
        Ok(())
    }

    /// Whether the budget is used up; then there may be more to do.
    fn is_spent(&mut self) -> bool {
        let elapsed = self.ports.clock.now().duration_since(self.started_at);
        let handled = self.outcomes.iter().filter(|one| one.outcome != Outcome::Waiting).count();
        let spent = handled >= self.budget.manifests_max || elapsed.as_secs() >= i64::from(self.budget.seconds_max);
        self.more |= spent;
        spent
    }
}

fn items(group: &[ObjectMeta]) -> Vec<Item> {
    group.iter().map(|meta| Item { path: meta.path.clone(), source: Source::Sweep }).collect()
}

fn is_settled(one: &ManifestOutcome) -> bool {
    !matches!(one.outcome, Outcome::Waiting | Outcome::Failed { .. })
}

/// The batch of `state/ready/TABLE/STORE~POSITION.json`.
fn record_of(path: &ObjectPath) -> Option<BatchId> {
    let (table, name) = path.as_str().strip_prefix("state/ready/")?.split_once('/')?;
    let (store, position) = name.strip_suffix(".json")?.split_once('~')?;
    Some(BatchId { store: store.parse().ok()?, dataset: table.parse().ok()?, position: position.parse().ok()? })
}

/// The first manifest of every store, then the second of every store that has one, and so on.
fn in_turn(stores: Vec<Owned>) -> Vec<ObjectMeta> {
    let longest = stores.iter().map(|store| store.listed.len()).max().unwrap_or(0);
    (0..longest).flat_map(|turn| stores.iter().filter_map(move |store| store.listed.get(turn).cloned())).collect()
}
