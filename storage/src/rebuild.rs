//! `ribera rebuild`: makes ledger and acks again from what is true: the Delta logs, the
//! quarantine, and the manifests in `done/`.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::batch::{Ack, AckOutcome, Manifest, QuarantineRecord};
use crate::control;
use crate::dataset::DatasetDefinition;
use crate::delta::{BatchOutcome, Snapshot, Table};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::ids::{BatchId, DatasetName};
use crate::ledger::{self, LedgerRecord, Timings};
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, list_all};
use crate::paths;
use crate::ports::Clock;

/// Batches worked on at once.
const CONCURRENCY: usize = 32;

/// What was made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Batches whose ledger record and ack were written.
    pub batches: u64,
    /// Manifests that were put back into the inbox, since the lake knows nothing of their batch:
    /// the next sweep takes them in again.
    pub reopened: Vec<BatchId>,
    /// Objects in `done/` that are no manifest of a known dataset; they are left alone.
    pub unreadable: Vec<ObjectPath>,
}

/// Goes through every manifest in `done/`. Safe to run at any time beside everything else.
///
/// # Errors
///
/// `Retry` when the object store does not answer. A manifest that cannot be read is in the report.
pub async fn rebuild<S: ObjectStore, C: Clock>(objects: &S, clock: &C) -> Result<Rebuilt> {
    let listed = list_all(objects, "done/", None).await?;
    let world = World::load(objects, &listed, clock.now()).await?;
    let mut results = stream::iter(&listed).map(|meta| world.rebuild_one(objects, meta)).buffered(CONCURRENCY);
    let mut rebuilt = Rebuilt::default();
    while let Some(result) = results.try_next().await? {
        match result {
            One::Written => rebuilt.batches += 1,
            One::Reopened(batch) => rebuilt.reopened.push(batch),
            One::Unreadable(path) => rebuilt.unreadable.push(path),
        }
    }
    Ok(rebuilt)
}

enum One {
    Written,
    Reopened(BatchId),
    Unreadable(ObjectPath),
}

/// Everything that answers for the batches.
struct World {
    now: Timestamp,
    datasets: BTreeMap<DatasetName, DatasetDefinition>,
    tables: BTreeMap<DatasetName, TableState>,
}

struct TableState {
    snapshot: Snapshot,
    /// By batch: the version that settled it and when, as far back as the log is kept.
    versions: BTreeMap<String, (u64, Timestamp)>,
}

impl World {
    async fn load<S: ObjectStore>(objects: &S, listed: &[ObjectMeta], now: Timestamp) -> Result<Self> {
        let mut world = Self { now, datasets: BTreeMap::new(), tables: BTreeMap::new() };
        for batch in listed.iter().filter_map(|meta| paths::batch_of("done", &meta.path).ok()) {
            if !world.datasets.contains_key(&batch.dataset)
                && let Some(dataset) = control::load_dataset(objects, &batch.dataset).await?
            {
                world.datasets.insert(batch.dataset.clone(), dataset);
            }
            if !world.tables.contains_key(&batch.dataset)
                && let Some(state) = TableState::load(objects, &batch.dataset).await?
            {
                world.tables.insert(batch.dataset, state);
            }
        }
        Ok(world)
    }

    async fn rebuild_one<S: ObjectStore>(&self, objects: &S, meta: &ObjectMeta) -> Result<One> {
        let unreadable = || Ok(One::Unreadable(meta.path.clone()));
        let Some(bytes) = objects.get(&meta.path).await? else { return unreadable() };
        let Ok(batch) = paths::batch_of("done", &meta.path) else { return unreadable() };
        let quarantine = quarantine_of(objects, &batch).await?;
        let manifest = match Manifest::from_json(&bytes) {
            Ok(manifest) if manifest.batch == batch => Some(manifest),
            _ => None,
        };
        let outcome = match (&manifest, self.datasets.get(&batch.dataset)) {
            (Some(manifest), Some(dataset)) => self.outcome(objects, manifest, dataset, quarantine).await?,
            _ => quarantine.map(quarantined),
        };
        match (outcome, manifest) {
            (Some(outcome), manifest) => {
                self.write(objects, &batch, &bytes, manifest.as_ref(), outcome, meta.modified).await?;
                Ok(One::Written)
            }
            (None, Some(manifest)) if self.datasets.contains_key(&batch.dataset) => {
                objects.put_if_absent(&paths::inbox(&manifest.batch)?, bytes.into()).await?;
                objects.delete(&meta.path).await?;
                Ok(One::Reopened(batch))
            }
            _ => unreadable(),
        }
    }

    /// `None` when neither lake nor quarantine knows of the batch.
    async fn outcome<S: ObjectStore>(
        &self,
        objects: &S,
        manifest: &Manifest,
        dataset: &DatasetDefinition,
        quarantine: Option<QuarantineRecord>,
    ) -> Result<Option<AckOutcome>> {
        let name = &manifest.batch.dataset;
        let settled = match self.tables.get(name) {
            Some(state) => Table::new(objects, name.clone()).outcome_of(&state.snapshot, dataset, manifest).await?,
            None => None,
        };
        // A quarantined batch that is in the lake was replayed.
        let is_committed = matches!(settled, Some(BatchOutcome::Committed { .. }));
        if let (Some(record), false) = (quarantine, is_committed) {
            return Ok(Some(quarantined(record)));
        }
        Ok(match settled {
            Some(BatchOutcome::Committed { version, rows, units }) => {
                let (version, _) = self.version(&manifest.batch).unwrap_or((version, self.now));
                Some(AckOutcome::Committed { version, rows, units })
            }
            Some(BatchOutcome::Superseded) => Some(AckOutcome::Superseded),
            _ => None,
        })
    }

    fn version(&self, batch: &BatchId) -> Option<(u64, Timestamp)> {
        self.tables.get(&batch.dataset)?.versions.get(&batch.to_string()).copied()
    }

    async fn write<S: ObjectStore>(
        &self,
        objects: &S,
        batch: &BatchId,
        bytes: &[u8],
        manifest: Option<&Manifest>,
        outcome: AckOutcome,
        done_at: Timestamp,
    ) -> Result<()> {
        let settled_at = self.version(batch).map_or(done_at, |(_, at)| at);
        // Warnings are in no log: what is left of an older record keeps them.
        let standing = ledger::load(objects, batch).await.ok().flatten();
        let manifest_sha256 = sha256_hex(bytes);
        let file = manifest.map(|manifest| &manifest.file);
        let agent = manifest.map(|manifest| &manifest.agent);
        let record = LedgerRecord {
            batch: batch.clone(),
            manifest_sha256: manifest_sha256.clone(),
            outcome: outcome.clone(),
            rows: file.map_or(0, |file| file.rows),
            bytes: file.map_or(0, |file| file.bytes),
            warnings: standing.map(|record| record.warnings).unwrap_or_default(),
            timings: Timings {
                extraction_started_at: agent.map(|agent| agent.extraction_started_at),
                extraction_finished_at: agent.map(|agent| agent.extraction_finished_at),
                received_at: None,
                started_at: settled_at,
                settled_at,
            },
        };
        let ack = Ack { batch: batch.clone(), manifest_sha256, outcome, acknowledged_at: settled_at };
        let ack =
            serde_json::to_vec(&ack).map_err(|error| Error::bug("an ack does not serialise").with_source(error))?;
        let ack_path = paths::ack(batch)?;
        futures::try_join!(ledger::record(objects, &record), objects.put(&ack_path, ack.into()))?;
        Ok(())
    }
}

impl TableState {
    async fn load<S: ObjectStore>(objects: &S, name: &DatasetName) -> Result<Option<Self>> {
        let table = Table::new(objects, name.clone());
        let Some(snapshot) = table.load().await? else { return Ok(None) };
        let mut versions = BTreeMap::new();
        for (version, info) in table.history(usize::MAX).await? {
            let at = Timestamp::from_millisecond(info.timestamp).unwrap_or_default();
            for batch in info.ribera.map(|info| info.batches).unwrap_or_default() {
                versions.insert(batch.id, (version, at));
            }
        }
        Ok(Some(Self { snapshot, versions }))
    }
}

async fn quarantine_of<S: ObjectStore>(objects: &S, batch: &BatchId) -> Result<Option<QuarantineRecord>> {
    let path = paths::quarantine(batch)?;
    let Some(bytes) = objects.get(&path).await? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::data(format!("{path}: is not a quarantine record")).with_source(error))
}

fn quarantined(record: QuarantineRecord) -> AckOutcome {
    AckOutcome::Quarantined { reason: record.reason, detail: record.detail }
}
