//! One run from question to acknowledgement: collect, upload, read the answers, tidy up.

use std::time::Duration;

use jiff::ToSpan;
use ribera_storage::{ErrorKind, ObjectStore};

use crate::agent::Agent;
use crate::report::{Exit, Problem, Report, Stage};
use crate::run::collect::{Collected, Request, RunMode};

mod alarms;
pub mod backfill;
mod blame;
pub mod collect;
pub(crate) mod daily;
pub(crate) mod extract;
pub(crate) mod question;
mod server_zone;
pub(crate) mod session;
mod trial;
mod values_digest;
mod watermark;

/// Pauses between two looks for acknowledgements.
const ACK_PAUSE_FIRST_MS: u64 = 100;
const ACK_PAUSE_LAST_MS: u64 = 2_000;
/// Rounds in one run: what the first round's answers ask for is done in the second.
const ROUNDS_MAX: u32 = 2;

impl<S: ObjectStore> Agent<S> {
    /// Does what is asked and says what came of it. Never fails as a whole: every failure is a
    /// problem in the report.
    pub async fn run(&self, command: &str, request: &Request, ack_wait: Duration) -> Report {
        let mut report = Report::new(command, self.ports.clock.now());
        report.dry_run = self.config.dry_run;
        report.local_only = self.config.local_only;
        let mut request = request.clone();
        for round in 1..=ROUNDS_MAX {
            let epochs_before = report.upload.new_epochs;
            self.round(&request, ack_wait, &mut report).await;
            let renewed = report.upload.new_epochs > epochs_before;
            if !renewed || round == ROUNDS_MAX || report.exit() > Exit::Done {
                break;
            }
            // A new epoch brings everything known again.
            request.ask = RunMode::Cycle;
        }
        if !self.config.dry_run {
            self.tidy(&mut report);
            self.settle_alarms(&request, &mut report);
        }
        report.finish(self.ports.clock.now());
        report
    }

    async fn round(&self, request: &Request, ack_wait: Duration, report: &mut Report) {
        let Collected { datasets, problems } = self.collect(request).await;
        report.datasets.extend(datasets);
        report.problems.extend(problems);
        report.upload.add(&self.sent_meanwhile.take());
        if !self.config.dry_run && !self.config.local_only {
            self.send_and_wait(request, ack_wait, report).await;
        }
    }

    async fn send_and_wait(&self, request: &Request, ack_wait: Duration, report: &mut Report) {
        let refused = match self.upload(&request.stores, &mut report.upload).await {
            Ok(refused) => refused,
            Err(error) => {
                self.log(format!("upload: {error}"));
                let stage = if error.kind() == ErrorKind::Data { Stage::Journal } else { Stage::Upload };
                report.problems.push(Problem::new(stage, &error));
                return;
            }
        };
        for (store, error) in &refused {
            self.log(format!("store {store}: upload: {error}"));
            report.problems.push(Problem::new(Stage::Upload, error).of(store, None));
        }
        let mut waited = Duration::ZERO;
        let mut pause = Duration::from_millis(ACK_PAUSE_FIRST_MS);
        loop {
            match self.read_acks(&request.stores, &mut report.upload).await {
                Ok(problems) => report.problems.extend(problems),
                Err(error) => {
                    self.log(format!("acknowledgements: {error}"));
                    report.problems.push(Problem::new(Stage::Upload, &error));
                    return;
                }
            }
            let open = self.journal.awaiting_ack(&self.served_ids(&request.stores)).map_or(0, |open| open.len());
            if open == 0 || waited >= ack_wait {
                return;
            }
            self.ports.timer.sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(ACK_PAUSE_LAST_MS));
        }
    }

    /// Forgets facts older than the journal keeps, and counts what waits. Only once this clock was compared
    /// with the object store's: one that is a year ahead must not cost a year's facts.
    fn tidy(&self, report: &mut Report) {
        let age = i64::from(self.config.limits.facts_days).saturating_mul(24).hours();
        let now = self.object_store_now().map(|now| now.min(self.ports.clock.now()));
        let before = now.and_then(|now| now.checked_sub(age).ok());
        let tidied = before.map_or(Ok(()), |before| self.journal.forget_units(before));
        match tidied.and_then(|()| self.journal.spool_use(None)) {
            Ok(spool) => report.upload.waiting = spool.batches,
            Err(error) => report.problems.push(Problem::new(Stage::Journal, &error)),
        }
    }
}
