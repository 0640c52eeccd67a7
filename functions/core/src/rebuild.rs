//! Makes the ledger and the acknowledgements again: caches, of which the manifests in `done/`, the
//! quarantine and the log of each table hold the truth. What the log does not hold although its
//! manifest is done goes back to the inbox, for a sweep to ingest anew.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use ribera_storage::batch::{Ack, AckOutcome, Manifest, QuarantineRecord};
use ribera_storage::control::{self, Settings};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{BatchOutcome, Snapshot, Table};
use ribera_storage::ledger::{self, LedgerRecord, Timings};
use ribera_storage::object::{ObjectMeta, list_all};
use ribera_storage::ports::{Clock, Random};
use ribera_storage::{BatchId, DatasetName, Error, ObjectStore, Result, TableName, paths};
use serde::{Deserialize, Serialize};

use crate::Deps;
use crate::ingest::{put_json, sha256_hex};

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildReport {
    /// Manifests that are done.
    pub manifests: u64,
    pub acks_written: u64,
    pub ledger_written: u64,
    /// Back in the inbox: neither the lake nor the quarantine knows them.
    pub requeued: u64,
    /// Manifests that cannot be read, or of a dataset that is not declared.
    pub unreadable: u64,
}

/// Rebuilds from everything in `done/`. Writes only what is absent or says something else; safe to
/// run at any time and to die anywhere. `dry_run` counts what would be written.
pub async fn rebuild<S: ObjectStore, C: Clock, R: Random>(
    deps: &Deps<S, C, R>,
    dry_run: bool,
) -> Result<RebuildReport> {
    let lake = Lake::load(&deps.store).await?;
    let done = list_all(&deps.store, "done/", None).await?;
    let steps = stream::iter(&done).map(|meta| one(deps, &lake, meta, dry_run)).buffered(CONCURRENCY);
    let mut report = RebuildReport::default();
    for step in steps.try_collect::<Vec<RebuildReport>>().await? {
        report.manifests += step.manifests;
        report.acks_written += step.acks_written;
        report.ledger_written += step.ledger_written;
        report.requeued += step.requeued;
        report.unreadable += step.unreadable;
    }
    Ok(report)
}

/// The tables as they stand.
struct Lake {
    settings: Settings,
    datasets: BTreeMap<DatasetName, DatasetDefinition>,
    snapshots: BTreeMap<TableName, Snapshot>,
}

impl Lake {
    async fn load<S: ObjectStore>(objects: &S) -> Result<Self> {
        let settings = control::load_settings(objects).await?;
        let datasets = control::load_datasets(objects).await?;
        let mut snapshots = BTreeMap::new();
        for dataset in &datasets {
            for name in settings.tables(&dataset.name)? {
                if let Some(snapshot) = Table::new(objects, name.clone()).load().await? {
                    snapshots.insert(name, snapshot);
                }
            }
        }
        let datasets = datasets.into_iter().map(|dataset| (dataset.name.clone(), dataset)).collect();
        Ok(Self { settings, datasets, snapshots })
    }

    /// What the log says became of a batch.
    fn settled<S: ObjectStore>(
        &self,
        objects: &S,
        table: &TableName,
        manifest: &Manifest,
    ) -> Result<Option<AckOutcome>> {
        if manifest.kind == ribera_storage::batch::ManifestKind::Void {
            return Ok(Some(AckOutcome::Voided));
        }
        let (Some(dataset), Some(snapshot)) = (self.datasets.get(&manifest.batch.dataset), self.snapshots.get(table))
        else {
            return Ok(None);
        };
        let settled = Table::new(objects, table.clone()).settled(snapshot, dataset, manifest)?;
        Ok(match settled {
            Some(BatchOutcome::Committed { version, rows, units }) => {
                Some(AckOutcome::Committed { version, rows, units })
            }
            Some(BatchOutcome::Superseded) => Some(AckOutcome::Superseded),
            Some(BatchOutcome::Voided) => Some(AckOutcome::Voided),
            _ => None,
        })
    }
}

async fn one<S: ObjectStore, C: Clock, R: Random>(
    deps: &Deps<S, C, R>,
    lake: &Lake,
    meta: &ObjectMeta,
    dry_run: bool,
) -> Result<RebuildReport> {
    let objects = &deps.store;
    let mut report = RebuildReport { manifests: 1, ..RebuildReport::default() };
    let (Ok(batch), Some(bytes)) = (paths::batch_of("done", &meta.path), objects.get(&meta.path).await?) else {
        report.unreadable = 1;
        return Ok(report);
    };
    let sha256 = sha256_hex(&bytes);
    let manifest = Manifest::from_json(&bytes).ok();
    let table = lake.settings.table(&batch.dataset, &batch.store)?;
    let outcome = match (quarantined(objects, &batch, &sha256).await?, &manifest) {
        (Some(outcome), _) => Some(outcome),
        (None, Some(manifest)) if manifest.batch == batch => lake.settled(objects, &table, manifest)?,
        _ => {
            report.unreadable = 1;
            return Ok(report);
        }
    };
    let Some(outcome) = outcome else {
        report.requeued = 1;
        if !dry_run {
            requeue(objects, &batch, bytes).await?;
        }
        return Ok(report);
    };
    let ack = Ack { batch: batch.clone(), manifest_sha256: sha256.clone(), outcome, acknowledged_at: meta.modified };
    if !stands(objects, &ack).await? {
        report.acks_written = 1;
        if !dry_run {
            put_json(objects, &paths::ack(&batch)?, &ack).await?;
        }
    }
    let standing = ledger::load(objects, &batch).await.unwrap_or_default();
    let same = |record: &LedgerRecord| record.manifest_sha256 == sha256 && same_outcome(&record.outcome, &ack.outcome);
    if !standing.as_ref().is_some_and(same) {
        report.ledger_written = 1;
        if !dry_run {
            ledger::record(objects, &ledger_record(&ack, table, manifest.as_ref())).await?;
        }
    }
    Ok(report)
}

async fn quarantined<S: ObjectStore>(objects: &S, batch: &BatchId, sha256: &str) -> Result<Option<AckOutcome>> {
    let path = paths::quarantine(batch)?;
    let Some(bytes) = objects.get(&path).await? else { return Ok(None) };
    let record: QuarantineRecord = serde_json::from_slice(&bytes)
        .map_err(|error| Error::data(format!("{path}: is not a quarantine record")).with_source(error))?;
    // A cut manifest is never that of another batch: its record stands alone at this path.
    let same =
        sha256_hex(record.manifest.as_bytes()) == sha256 || Manifest::from_json(record.manifest.as_bytes()).is_err();
    Ok(same.then_some(AckOutcome::Quarantined { reason: record.reason, detail: record.detail }))
}

/// The intent to replay comes first: a call that dies half way is finished by the next sweep.
async fn requeue<S: ObjectStore>(objects: &S, batch: &BatchId, bytes: bytes::Bytes) -> Result<()> {
    objects.put(&paths::replay(batch)?, bytes.clone().into()).await?;
    objects.delete(&paths::ack(batch)?).await?;
    objects.delete(&paths::done(batch)?).await?;
    objects.put_if_absent(&paths::inbox(batch)?, bytes.into()).await?;
    objects.delete(&paths::replay(batch)?).await
}

async fn stands<S: ObjectStore>(objects: &S, ack: &Ack) -> Result<bool> {
    let Some(bytes) = objects.get(&paths::ack(&ack.batch)?).await? else { return Ok(false) };
    let standing: Option<Ack> = serde_json::from_slice(&bytes).ok();
    Ok(standing.is_some_and(|standing| {
        standing.manifest_sha256 == ack.manifest_sha256 && same_outcome(&standing.outcome, &ack.outcome)
    }))
}

/// The version may be told less exactly, and a batch that was committed may have been superseded
/// since: its verdict then stays.
fn same_outcome(standing: &AckOutcome, found: &AckOutcome) -> bool {
    match (standing, found) {
        (AckOutcome::Committed { .. }, AckOutcome::Committed { .. } | AckOutcome::Superseded) => true,
        (standing, found) => standing == found,
    }
}

fn ledger_record(ack: &Ack, table: TableName, manifest: Option<&Manifest>) -> LedgerRecord {
    let file = manifest.and_then(|manifest| manifest.file.as_ref());
    let agent = manifest.map(|manifest| &manifest.agent);
    LedgerRecord {
        batch: ack.batch.clone(),
        table,
        manifest_sha256: ack.manifest_sha256.clone(),
        outcome: ack.outcome.clone(),
        rows: file.map_or(0, |file| file.rows),
        bytes: file.map_or(0, |file| file.bytes),
        warnings: Vec::new(),
        timings: Timings {
            extraction_started_at: agent.map(|agent| agent.extraction_started_at),
            extraction_finished_at: agent.map(|agent| agent.extraction_finished_at),
            received_at: None,
            started_at: ack.acknowledged_at,
            settled_at: ack.acknowledged_at,
        },
    }
}
