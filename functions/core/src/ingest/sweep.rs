//! The sweep: the inbox as it is listed, group by group; then what dead calls left behind.

use std::collections::BTreeSet;

use jiff::Timestamp;
use ribera_storage::batch::QuarantineReason;
use ribera_storage::control;
use ribera_storage::delta::{BatchOutcome, Table};
use ribera_storage::object::{LIST_PAGE, ObjectMeta, list_all};
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{ObjectStore, Result, TableName, paths};

use super::admit::{self, Reading};
use super::call::{self, checkpoint, ports, quarantined};
use super::refusal::Refusal;
use super::suspects::{DEATHS_MAX, GROUP, Suspects, mark, unmark};
use super::{
    IngestReport, IngestSettings, Item, ManifestOutcome, Outcome, SweepBudget, SweepReport, quarantine, settle,
};
use crate::Deps;

pub async fn sweep<S: ObjectStore, C: Clock, R: Random>(
    deps: &Deps<S, C, R>,
    settings: &IngestSettings,
    budget: &SweepBudget,
) -> Result<SweepReport> {
    let mut sweep = Sweep {
        deps,
        settings,
        budget,
        started_at: deps.clock.now(),
        suspects: Suspects::load(&deps.store, deps.clock.now()).await?,
        outcomes: Vec::new(),
        more: false,
    };
    quarantine::finish_replays(deps).await?;
    sweep.leftovers().await?;
    let set_aside = sweep.inbox().await?;
    sweep.suspected(set_aside).await?;
    Ok(SweepReport { report: IngestReport { outcomes: sweep.outcomes }, more: sweep.more })
}

struct Sweep<'a, S, C, R> {
    deps: &'a Deps<S, C, R>,
    settings: &'a IngestSettings,
    budget: &'a SweepBudget,
    started_at: Timestamp,
    suspects: Suspects,
    outcomes: Vec<ManifestOutcome>,
    more: bool,
}

impl<S: ObjectStore, C: Clock, R: Random> Sweep<'_, S, C, R> {
    /// Handles the inbox in groups; returns the manifests to be handled alone.
    async fn inbox(&mut self) -> Result<Vec<ObjectMeta>> {
        let mut set_aside = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.deps.store.list("inbox/", after.as_deref(), LIST_PAGE).await?;
            let Some(last) = page.last() else { return Ok(set_aside) };
            after = Some(last.path.to_string());
            let full = page.len() >= LIST_PAGE;
            let (suspected, plain): (Vec<_>, Vec<_>) =
                page.into_iter().partition(|meta| self.suspects.contains(&meta.path));
            set_aside.extend(suspected);
            for group in plain.chunks(GROUP) {
                if self.is_spent() {
                    return Ok(set_aside);
                }
                self.group(group).await;
            }
            if !full {
                return Ok(set_aside);
            }
        }
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
        let marker = mark(self.deps, &paths).await?;
        let outcomes = call::ingest(self.deps, self.settings, items(group)).await;
        unmark(&self.deps.store, &marker).await;
        outcomes
    }

    /// Those whose handling may have killed a call, in smaller groups, the most suspect alone and
    /// last.
    async fn suspected(&mut self, mut set_aside: Vec<ObjectMeta>) -> Result<()> {
        set_aside.sort_by_key(|meta| self.suspects.deaths(&meta.path));
        set_aside.sort_by_key(|meta| std::cmp::Reverse(self.suspects.together(&meta.path)));
        let mut rest = set_aside.as_slice();
        while let Some(first) = rest.first() {
            if self.is_spent() {
                return Ok(());
            }
            let together = self.suspects.together(&first.path);
            let same = rest.iter().take(together).take_while(|meta| self.suspects.together(&meta.path) == together);
            let (group, others) = rest.split_at(same.count());
            rest = others;
            if self.suspects.deaths(&first.path) >= DEATHS_MAX {
                self.give_up(first).await?;
            } else {
                self.group(group).await;
            }
        }
        let settled: BTreeSet<&str> =
            self.outcomes.iter().filter(|one| is_settled(one)).map(|one| one.path.as_str()).collect();
        let waiting: BTreeSet<&str> = set_aside.iter().map(|meta| meta.path.as_str()).collect();
        // What is no longer in the inbox was settled by another call.
        self.suspects.clear(&self.deps.store, |path| settled.contains(path) || !waiting.contains(path)).await
    }

    async fn give_up(&mut self, meta: &ObjectMeta) -> Result<()> {
        let batch = paths::batch_of("inbox", &meta.path).ok();
        let detail = format!(
            "file: must be read within the memory and time of a call, got {DEATHS_MAX} calls that died over it"
        );
        let refusal = Refusal::new(QuarantineReason::LimitExceeded, detail);
        let reading = match &batch {
            Some(batch) => admit::read(&self.deps.store, &meta.path, batch, Some(meta.modified)).await?,
            None => Reading::Absent,
        };
        let outcome = match (reading, &batch) {
            (Reading::Fresh(received), _) => {
                settle::quarantine(self.deps, &received, &refusal, None, self.started_at).await?;
                quarantined(&refusal)
            }
            (_, None) => {
                settle::quarantine_unreadable(self.deps, &meta.path, &refusal.detail).await?;
                quarantined(&refusal)
            }
            _ => Outcome::AlreadyDone,
        };
        self.outcomes.push(ManifestOutcome { path: meta.path.to_string(), batch, outcome });
        Ok(())
    }

    /// Commits what calls that died left ready; the inbox still has their manifests, which are
    /// then found settled.
    async fn leftovers(&mut self) -> Result<()> {
        let listed = list_all(&self.deps.store, "state/ready/", None).await?;
        let tables: BTreeSet<TableName> = listed.iter().filter_map(|meta| table_of(meta.path.as_str())).collect();
        for table in tables {
            // A table that cannot be committed holds up no other.
            if let Err(error) = self.commit(&table).await {
                tracing::warn!(%table, %error, "ready records not committed");
            }
        }
        Ok(())
    }

    async fn commit(&self, table: &TableName) -> Result<()> {
        let dataset = table.as_str().split('.').next().unwrap_or_default().parse()?;
        let Some(dataset) = control::load_dataset(&self.deps.store, &dataset).await? else { return Ok(()) };
        let lake = Table::new(&self.deps.store, table.clone());
        let report = lake.commit_ready(ports(self.deps), &dataset, &[]).await?;
        for (batch, outcome) in &report.outcomes {
            // Its lake file may be gone soon: it is written anew from the inbox.
            if let BatchOutcome::Expired = outcome {
                lake.delete_ready(batch).await?;
            }
        }
        if report.checkpoint_due {
            checkpoint(self.deps, table).await;
        }
        Ok(())
    }

    /// Whether the budget is used up; then there may be more to do.
    fn is_spent(&mut self) -> bool {
        let elapsed = self.deps.clock.now().duration_since(self.started_at);
        let handled = self.outcomes.iter().filter(|one| one.outcome != Outcome::Waiting).count();
        let spent = handled >= self.budget.manifests_max || elapsed.as_secs() >= i64::from(self.budget.seconds_max);
        self.more |= spent;
        spent
    }
}

fn items(group: &[ObjectMeta]) -> Vec<Item> {
    group.iter().map(|meta| Item { path: meta.path.clone(), modified: Some(meta.modified) }).collect()
}

fn is_settled(one: &ManifestOutcome) -> bool {
    !matches!(one.outcome, Outcome::Waiting | Outcome::Failed { .. })
}

/// The table of `state/ready/TABLE/STORE~POSITION.json`.
fn table_of(path: &str) -> Option<TableName> {
    path.strip_prefix("state/ready/")?.split_once('/')?.0.parse().ok()
}
