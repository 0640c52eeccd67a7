//! One call of ingest over some manifests: read, admit, encode, commit once per table, settle.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use ribera_storage::batch::{AckOutcome, Manifest, QuarantineReason};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{BatchOutcome, CommitReport, PartialSnapshot, READY_AGE_MAX, ReadyRecord, Table};
use ribera_storage::ports::Ports;
use ribera_storage::{BatchId, DatasetName, Error, ErrorKind, ObjectStore, Result, paths};

use super::admit::{self, Admitted, InboxLookup, Received};
use super::definitions::Definitions;
use super::encode::{self, Fetched};
use super::refusal::Refusal;
use super::settle::{self, Decision};
use super::types::Source;
use super::validate::CheckWarning;
use super::{FailureCause, IngestSettings, Item, ManifestOutcome, Outcome};

/// Small requests in flight at once.
const CONCURRENCY: usize = 32;

/// Files that are read at once: as many as fit here, one at least.
const WAVE_BYTES_MAX: u64 = 64 << 20;

/// Decides every item; the outcomes are in the items' order.
pub async fn ingest<S: ObjectStore>(
    ports: Ports<'_, S>,
    settings: &IngestSettings,
    items: Vec<Item>,
) -> Result<Vec<ManifestOutcome>> {
    let call = Call { ports, settings, started_at: ports.clock.now() };
    let batches: Vec<Option<BatchId>> = items.iter().map(|item| paths::batch_of("inbox", &item.path).ok()).collect();
    let named: Vec<BatchId> = batches.iter().flatten().cloned().collect();
    let readings = stream::iter(items.iter().zip(&batches))
        .map(|(item, batch)| call.read(item, batch.as_ref()))
        .buffered(CONCURRENCY)
        .collect::<Vec<_>>();
    let (definitions, readings) = futures::join!(Definitions::load(ports.objects, &named), readings);
    let mut definitions = definitions?;
    for (dataset, version) in versions_of(&readings) {
        definitions.load_older(ports.objects, &dataset, version).await;
    }
    let steps: Vec<Step> =
        stream::iter(readings).map(|reading| call.admit(reading, &definitions)).buffered(CONCURRENCY).collect().await;
    let outcomes = call.commit(steps, &definitions).await;
    let items = items.into_iter().zip(batches).zip(outcomes);
    Ok(items.map(|((item, batch), outcome)| ManifestOutcome { path: item.path.to_string(), batch, outcome }).collect())
}

struct Call<'a, S> {
    ports: Ports<'a, S>,
    settings: &'a IngestSettings,
    started_at: Timestamp,
}

/// Tables as they stood before the call's batches were prepared.
type Known = BTreeMap<DatasetName, Result<Option<PartialSnapshot>>>;

/// Where a manifest stands on its way.
enum Step {
    Decided(Outcome),
    Admitted(Box<Admitted>),
    /// Its record waits for the commit, whose outcome decides.
    Ready {
        received: Box<Received>,
        record: Box<ReadyRecord>,
        warnings: Vec<CheckWarning>,
    },
}

/// What reading an item gave.
enum Read {
    Decided(Outcome),
    Fresh(Box<Received>),
}

impl<S: ObjectStore> Call<'_, S> {
    async fn read(&self, item: &Item, batch: Option<&BatchId>) -> Read {
        self.try_read(item, batch).await.unwrap_or_else(|error| Read::Decided(failed(&error)))
    }

    async fn try_read(&self, item: &Item, batch: Option<&BatchId>) -> Result<Read> {
        let Some(batch) = batch else {
            let detail = format!("inbox: path: must be inbox/STORE/DATASET/EPOCH-SEQUENCE.json, got {}", item.path);
            let refused = settle::quarantine_unreadable(self.ports, &item.path, &detail).await?;
            return Ok(Read::Decided(refused.map_or(Outcome::AlreadyDone, |refusal| quarantined(&refusal))));
        };
        Ok(match admit::read(self.ports.objects, &item.path, batch, item.source).await? {
            InboxLookup::Absent => Read::Decided(Outcome::AlreadyDone),
            InboxLookup::TooLarge => {
                let refusal = settle::quarantine_too_large(self.ports, &item.path, batch).await?;
                Read::Decided(quarantined(&refusal))
            }
            InboxLookup::Repeated(received) => {
                self.clear_repeated(&received).await?;
                Read::Decided(Outcome::AlreadyDone)
            }
            InboxLookup::Cloned(received) => {
                Read::Decided(quarantined(&settle::quarantine_clone(self.ports, &received).await?))
            }
            InboxLookup::Fresh(received) => Read::Fresh(Box::new(received)),
        })
    }

    /// `done/` has it; whoever moved it there may have died before clearing the inbox. A quarantine
    /// record that a replay took away meanwhile is put back, so that no verdict stands without one.
    async fn clear_repeated(&self, received: &Received) -> Result<()> {
        let standing = settle::existing(self.ports.objects, &received.batch, &received.sha256).await?;
        if let Some(AckOutcome::Quarantined { reason, detail }) = standing {
            let record = paths::quarantine(&received.batch)?;
            if self.ports.objects.head(&record).await?.is_none() {
                let refusal = Refusal::new(reason, detail);
                return settle::quarantine(self.ports, received, &refusal, self.started_at).await;
            }
        }
        settle::close(self.ports, received).await
    }

    async fn admit(&self, reading: Read, definitions: &Definitions) -> Step {
        let received = match reading {
            Read::Decided(outcome) => return Step::Decided(outcome),
            Read::Fresh(received) => received,
        };
        match admit::admit(&received, definitions, self.started_at) {
            Ok(Ok(admitted)) => Step::Admitted(Box::new(admitted)),
            Ok(Err(refusal)) => self.refuse(*received, refusal).await,
            Err(error) => Step::Decided(failed(&error)),
        }
    }

    /// Encodes what was admitted, commits once per table, settles.
    async fn commit(&self, steps: Vec<Step>, definitions: &Definitions) -> Vec<Outcome> {
        let mut ready = Vec::with_capacity(steps.len());
        let mut known = self.load_tables(&steps, definitions).await;
        for wave in waves(steps) {
            ready.extend(join_all(wave.into_iter().map(|step| self.prepare(step, definitions, &known))).await);
        }
        let tables: BTreeSet<DatasetName> =
            ready.iter().filter_map(record_of).map(|record| record.batch.dataset.clone()).collect();
        let bases: Vec<Option<PartialSnapshot>> =
            tables.iter().map(|table| known.remove(table).and_then(Result::ok).flatten()).collect();
        let commits = tables.iter().zip(bases).map(|(table, base)| self.commit_table(table, base, &ready, definitions));
        let reports = join_all(commits).await;
        let reports: BTreeMap<&DatasetName, Result<CommitReport>> = tables.iter().zip(reports).collect();
        let outcomes = stream::iter(&ready)
            .map(|step| self.finish(step, record_of(step).and_then(|record| reports.get(&record.batch.dataset))))
            .buffered(CONCURRENCY)
            .collect()
            .await;
        for (table, report) in &reports {
            if let Some(snapshot) = report.as_ref().ok().and_then(|report| report.checkpoint_due.as_deref()) {
                checkpoint(self.ports, table, snapshot).await;
            }
        }
        outcomes
    }

    /// The tables of manifests that a sweep found, once for all of them, with the files of their stores.
    async fn load_tables(&self, steps: &[Step], definitions: &Definitions) -> Known {
        let mut tables: BTreeMap<DatasetName, Vec<&Manifest>> = BTreeMap::new();
        for step in steps {
            if let Step::Admitted(admitted) = step
                && admitted.received.source == Source::Sweep
            {
                tables.entry(admitted.received.batch.dataset.clone()).or_default().push(&admitted.manifest);
            }
        }
        let load = async |(table, manifests): (DatasetName, Vec<&Manifest>)| {
            let lake = Table::new(self.ports.objects, table.clone());
            let snapshot = match definitions.dataset(&table) {
                Ok(Some(dataset)) => lake.load_for(dataset, manifests).await,
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            (table, snapshot)
        };
        join_all(tables.into_iter().map(load)).await.into_iter().collect()
    }

    async fn prepare(&self, step: Step, definitions: &Definitions, known: &Known) -> Step {
        match step {
            Step::Admitted(admitted) => self
                .try_prepare(*admitted, definitions, known)
                .await
                .unwrap_or_else(|error| Step::Decided(failed_batch(&error))),
            step => step,
        }
    }

    async fn try_prepare(&self, admitted: Admitted, definitions: &Definitions, known: &Known) -> Result<Step> {
        let Admitted { received, manifest } = &admitted;
        let unknown = || Error::bug(format!("{}: its dataset vanished", received.batch));
        let latest = definitions.dataset(&received.batch.dataset)?.ok_or_else(unknown)?;
        if let Some(step) = self.resume(&admitted, latest, known).await? {
            return Ok(step);
        }
        let bytes = match encode::fetch(self.ports.objects, &manifest.file, &self.settings.limits).await? {
            Fetched::Whole(bytes) => bytes,
            Fetched::Refused(refusal) => return Ok(self.refuse(received.clone(), refusal).await),
            Fetched::NotThere => return self.wait_for_file(&admitted).await,
        };
        let definition =
            definitions.dataset_version(&received.batch.dataset, manifest.dataset_version)?.ok_or_else(unknown)?;
        // Of two clocks the earlier one: a day must be over by both.
        let arrived_at = received.received_at.min(self.started_at);
        let encoded = match encode::encode(&admitted, bytes, definition, latest, &self.settings.limits, arrived_at)? {
            Ok(encoded) => encoded,
            Err(refusal) => return Ok(self.refuse(received.clone(), refusal).await),
        };
        let lake = Table::new(self.ports.objects, received.batch.dataset.clone());
        let partition = latest.partition(manifest.month);
        let mut files = Vec::with_capacity(encoded.files.len());
        for file in &encoded.files {
            files.push(lake.put_file(self.ports, &partition, file).await?);
        }
        let now = self.ports.clock.now();
        let record = ReadyRecord::new(latest, manifest, &received.sha256, files, now)?;
        lake.put_ready(&record).await?;
        Ok(ready(&admitted, record, encoded.warnings))
    }

    /// What a sweep finds was most often begun by a call that died: it may be in the lake already,
    /// or be ready. (A fresh event is not asked: nearly always it is the first to come.)
    async fn resume(&self, admitted: &Admitted, latest: &DatasetDefinition, known: &Known) -> Result<Option<Step>> {
        let Admitted { received, manifest } = admitted;
        let snapshot = match known.get(&received.batch.dataset) {
            Some(loaded) if received.source == Source::Sweep => loaded.as_ref(),
            _ => return Ok(None),
        };
        let lake = Table::new(self.ports.objects, received.batch.dataset.clone());
        if let Some(snapshot) = snapshot.map_err(|error| Error::new(error.kind(), error.to_string()))?
            && let Some(outcome) = lake.outcome_of(snapshot, latest, manifest).await?
        {
            // A call that died after its commit may have left it.
            lake.delete_ready(&received.batch).await?;
            return self.record(received, &outcome, &[]).await.map(|outcome| Some(Step::Decided(outcome)));
        }
        // A record that cannot be read is written again.
        let current = lake.load_ready(&received.batch).await.ok().flatten().filter(|record| {
            record.manifest_sha256 == received.sha256
                && self.ports.clock.now().duration_since(record.ready_at) < READY_AGE_MAX
        });
        Ok(current.map(|record| ready(admitted, record, Vec::new())))
    }

    async fn wait_for_file(&self, admitted: &Admitted) -> Result<Step> {
        let received = &admitted.received;
        if !encode::has_waited(received.received_at, self.ports.clock.now(), self.settings.file_wait_seconds) {
            return Ok(Step::Decided(Outcome::Waiting));
        }
        let path = &admitted.manifest.file.path;
        let detail = format!(
            "file: must arrive within {} s of its manifest, got nothing at {path}",
            self.settings.file_wait_seconds
        );
        let refusal = Refusal::new(QuarantineReason::FileAbsent, detail);
        Ok(self.refuse(received.clone(), refusal).await)
    }

    async fn refuse(&self, received: Received, refusal: Refusal) -> Step {
        match settle::quarantine(self.ports, &received, &refusal, self.started_at).await {
            Ok(()) => Step::Decided(quarantined(&refusal)),
            Err(error) => Step::Decided(failed(&error)),
        }
    }

    async fn commit_table(
        &self,
        table: &DatasetName,
        base: Option<PartialSnapshot>,
        steps: &[Step],
        definitions: &Definitions,
    ) -> Result<CommitReport> {
        let own: Vec<ReadyRecord> =
            steps.iter().filter_map(record_of).filter(|record| record.batch.dataset == *table).cloned().collect();
        let dataset = own.first().map(|record| definitions.dataset(&record.batch.dataset)).transpose()?.flatten();
        let dataset = dataset.ok_or_else(|| Error::bug(format!("table {table}: its dataset vanished")))?;
        Table::new(self.ports.objects, table.clone()).commit_records_from(self.ports, dataset, &own, base).await
    }

    async fn finish(&self, step: &Step, report: Option<&Result<CommitReport>>) -> Outcome {
        let Step::Ready { received, record, warnings } = step else {
            return match step {
                Step::Decided(outcome) => outcome.clone(),
                _ => failed(&Error::bug("a manifest was admitted and not prepared")),
            };
        };
        let report = match report {
            Some(Ok(report)) => report,
            Some(Err(error)) => return failed(error),
            None => return failed(&Error::bug(format!("table {}: was not committed", record.batch.dataset))),
        };
        match report.outcome(&received.batch) {
            Some(BatchOutcome::Expired) => {
                // What is left of it is harmless: an expired record is never taken up, and the sweep writes over it.
                let _ =
                    Table::new(self.ports.objects, record.batch.dataset.clone()).delete_ready(&received.batch).await;
                failed(&Error::retry("its ready record expired and is written again by the next sweep"))
            }
            Some(BatchOutcome::Failed(error)) => failed(error),
            Some(outcome) => self.record(received, outcome, warnings).await.unwrap_or_else(|error| failed(&error)),
            None => failed(&Error::bug("the commit said nothing of this batch")),
        }
    }

    /// Writes what became of a batch that the table has settled.
    async fn record(&self, received: &Received, outcome: &BatchOutcome, warnings: &[CheckWarning]) -> Result<Outcome> {
        let (outcome, shown) = match outcome {
            BatchOutcome::Committed { version, rows, units } => (
                AckOutcome::Committed { version: *version, rows: *rows, units: units.clone() },
                Outcome::Committed { version: *version, rows: *rows },
            ),
            BatchOutcome::Superseded => (AckOutcome::Superseded, Outcome::Superseded),
            other => return Err(Error::bug(format!("{}: is not settled: {other:?}", received.batch))),
        };
        settle::record_outcome(self.ports, Decision { received, outcome, started_at: self.started_at, warnings })
            .await?;
        Ok(shown)
    }
}

/// Writes a checkpoint; that it failed is no one's concern but the log's.
async fn checkpoint<S: ObjectStore>(ports: Ports<'_, S>, table: &DatasetName, snapshot: &PartialSnapshot) {
    if let Err(error) = Table::new(ports.objects, table.clone()).checkpoint_of(ports, snapshot).await {
        tracing::warn!(%table, %error, "checkpoint not written; readers replay more entries until the next one");
    }
}

fn ready(admitted: &Admitted, record: ReadyRecord, warnings: Vec<CheckWarning>) -> Step {
    let received = Box::new(admitted.received.clone());
    Step::Ready { received, record: Box::new(record), warnings }
}

fn record_of(step: &Step) -> Option<&ReadyRecord> {
    if let Step::Ready { record, .. } = step { Some(record) } else { None }
}

/// Consecutive steps whose files may be in memory together.
fn waves(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut waves: Vec<Vec<Step>> = Vec::new();
    let mut bytes_left = 0;
    for step in steps {
        let bytes = match &step {
            Step::Admitted(admitted) => admitted.manifest.file.bytes,
            _ => 0,
        };
        match waves.last_mut() {
            Some(wave) if bytes <= bytes_left && wave.len() < CONCURRENCY => wave.push(step),
            _ => {
                waves.push(vec![step]);
                bytes_left = WAVE_BYTES_MAX;
            }
        }
        bytes_left = bytes_left.saturating_sub(bytes);
    }
    waves
}

/// Dataset versions that fresh manifests name.
fn versions_of(readings: &[Read]) -> BTreeSet<(ribera_storage::DatasetName, u32)> {
    let version = |reading: &Read| match reading {
        Read::Fresh(received) => {
            let manifest = received.manifest.as_ref().ok()?;
            Some((received.batch.dataset.clone(), manifest.dataset_version))
        }
        Read::Decided(_) => None,
    };
    readings.iter().filter_map(version).collect()
}

/// An error that has nothing to do with the batch in hand.
pub fn failed(error: &Error) -> Outcome {
    let cause = if error.is_retry() { FailureCause::Retry } else { FailureCause::Shared };
    Outcome::Failed { message: error.line(), cause }
}

/// An error that arose over the batch's own bytes.
fn failed_batch(error: &Error) -> Outcome {
    let cause = match error.kind() {
        ErrorKind::Retry => FailureCause::Retry,
        // A definition, or what the lake holds already.
        ErrorKind::Config | ErrorKind::Data => FailureCause::Shared,
        ErrorKind::Reject | ErrorKind::Fenced | ErrorKind::Bug => FailureCause::Batch,
    };
    Outcome::Failed { message: error.line(), cause }
}

/// Takes a batch out of the queue for the next commit.
pub async fn delete_ready<S: ObjectStore>(ports: Ports<'_, S>, batch: &BatchId) -> Result<()> {
    Table::new(ports.objects, batch.dataset.clone()).delete_ready(batch).await
}

pub fn quarantined(refusal: &Refusal) -> Outcome {
    Outcome::Quarantined { reason: refusal.reason, detail: refusal.detail.clone() }
}
