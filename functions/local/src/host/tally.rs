//! What became of manifests, added up.

use std::collections::BTreeMap;

use ribera_core::ingest::{IngestReport, ManifestOutcome, Outcome};
use serde::Serialize;

/// Outcomes kept one by one at most: those that a person may have to look at.
const NOTABLE_MAX: usize = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub committed: u64,
    pub rows: u64,
    pub superseded: u64,
    pub quarantined: u64,
    /// Their file is not there yet.
    pub waiting: u64,
    /// To be tried again.
    pub failed: u64,
    /// Calls that ended without an answer.
    pub calls_failed: u64,
    /// The latest word on each manifest that is quarantined, waiting or failed, by its path.
    #[serde(serialize_with = "as_list")]
    pub notable: BTreeMap<String, ManifestOutcome>,
}

impl Tally {
    pub fn add(&mut self, report: &IngestReport) {
        for one in &report.outcomes {
            self.add_one(one);
        }
        let count =
            |wanted: fn(&Outcome) -> bool| self.notable.values().filter(|one| wanted(&one.outcome)).count() as u64;
        (self.waiting, self.failed) =
            (count(|outcome| *outcome == Outcome::Waiting), count(|outcome| matches!(outcome, Outcome::Failed { .. })));
    }

    /// Batches that reached their end.
    pub fn settled(&self) -> u64 {
        self.committed + self.superseded + self.quarantined
    }

    fn add_one(&mut self, one: &ManifestOutcome) {
        match &one.outcome {
            Outcome::Committed { rows, .. } => {
                self.committed += 1;
                self.rows += rows;
            }
            Outcome::Superseded => self.superseded += 1,
            Outcome::Quarantined { .. } => self.quarantined += 1,
            Outcome::AlreadyDone | Outcome::Waiting | Outcome::Failed { .. } => {}
        }
        let notable = matches!(one.outcome, Outcome::Quarantined { .. } | Outcome::Waiting | Outcome::Failed { .. });
        if !notable {
            self.notable.remove(&one.path);
        } else if self.notable.len() < NOTABLE_MAX || self.notable.contains_key(&one.path) {
            self.notable.insert(one.path.clone(), one.clone());
        }
    }
}

fn as_list<S: serde::Serializer>(
    notable: &BTreeMap<String, ManifestOutcome>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(notable.values())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(path: &str, outcome: Outcome) -> IngestReport {
        IngestReport { outcomes: vec![ManifestOutcome { path: path.into(), batch: None, outcome }] }
    }

    #[test]
    fn a_manifest_that_waited_and_then_arrived_no_longer_counts_as_waiting() {
        let mut tally = Tally::default();
        tally.add(&report("inbox/a", Outcome::Waiting));
        assert_eq!((tally.waiting, tally.notable.len()), (1, 1));
        tally.add(&report("inbox/a", Outcome::Committed { version: 3, rows: 7 }));
        assert_eq!((tally.waiting, tally.committed, tally.rows, tally.notable.len()), (0, 1, 7, 0));
    }
}
