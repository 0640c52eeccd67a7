//! Ready records: batches that are re-encoded as lake files and wait for whichever call commits
//! them first.

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::batch::Manifest;
use crate::dataset::{DatasetDefinition, PartitionColumn};
use crate::delta::log::action::AddFile;
use crate::delta::log::path;
use crate::delta::units::tags::{self, UnitTag};
use crate::delta::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::ids::BatchId;
use crate::object::{ObjectMeta, ObjectPath, ObjectStore, list_all};
use crate::paths;

/// No commit references a file older than this: vacuum spares seven days, so a commit that was
/// planned from this record, however slowly it ends, is safe. An older record has expired; its
/// batch is re-encoded from `landing/`.
pub const READY_AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Ready records read for one commit beside the caller's own. Bounds the requests of a call in a
/// burst; every commit still settles up to this many batches.
pub const READY_READ_MAX: usize = 128;

/// What a commit needs to know of a batch, so that it opens no file in the usual case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadyRecord {
    pub batch: BatchId,
    pub manifest_sha256: String,
    /// Of every unit of the batch; a batch lies in one partition.
    pub partition: Vec<PartitionColumn>,
    /// [`crate::dataset::evolution`] differs between the file's schema and the table's when this differs.
    pub schema_hash: String,
    /// Written already, under fresh names.
    pub files: Vec<AddFile>,
    pub rows: u64,
    /// When the files were written, by the writer's clock.
    pub ready_at: Timestamp,
    /// The units of all files: [`tags::encode`]d.
    pub units: String,
}

/// A record as it was read: `None` when it vanished meanwhile.
pub(in crate::delta) type ReadAttempt = (BatchId, Result<Option<ReadyRecord>>);

impl ReadyRecord {
    /// The record of a batch whose `files` are in the table's folder (see [`Table::put_file`]).
    ///
    /// # Errors
    ///
    /// `Reject` when the batch's units cannot be written as a tag that reads back.
    pub fn new(
        dataset: &DatasetDefinition,
        manifest: &Manifest,
        manifest_sha256: impl Into<String>,
        files: Vec<AddFile>,
        ready_at: Timestamp,
    ) -> Result<Self> {
        let tag = |facts| UnitTag::new(&manifest.batch, facts, ready_at);
        let units: Vec<UnitTag> = manifest.units.iter().map(tag).collect();
        Ok(Self {
            batch: manifest.batch.clone(),
            manifest_sha256: manifest_sha256.into(),
            partition: dataset.partition(manifest.month),
            schema_hash: crate::dataset::schema_hash(dataset),
            files,
            rows: manifest.file.rows,
            ready_at,
            units: tags::encode(&units)?,
        })
    }

    /// Every unit of the batch.
    ///
    /// # Errors
    ///
    /// `Data` when a file's tag cannot be read.
    pub fn units(&self) -> Result<Vec<UnitTag>> {
        tags::decode(&self.units).map_err(|error| error.context(&self.batch))
    }

    pub(in crate::delta) fn partition_key(&self) -> String {
        path::partition_key(&self.partition)
    }

    pub(in crate::delta) fn has_expired(&self, now: Timestamp) -> bool {
        now.duration_since(self.ready_at) > READY_AGE_MAX
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// Puts the record; from now on any commit of the table may settle the batch. A record of the
    /// same batch is replaced: its files become orphans that vacuum takes.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn put_ready(&self, record: &ReadyRecord) -> Result<()> {
        let bytes = serde_json::to_vec(record)
            .map_err(|error| Error::bug("a ready record does not serialise").with_source(error))?;
        self.objects.put(&paths::ready(&record.batch)?, bytes.into()).await
    }

    /// Every ready record's object, without reading it.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn list_ready(&self) -> Result<Vec<ObjectMeta>> {
        list_all(self.objects, &paths::ready_prefix(&self.name), None).await
    }

    /// The record of one batch, if it waits.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the record cannot be read.
    pub async fn load_ready(&self, batch: &BatchId) -> Result<Option<ReadyRecord>> {
        self.read_ready(&paths::ready(batch)?).await
    }

    /// Deletes the record of a settled batch; no error when it is gone.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn delete_ready(&self, batch: &BatchId) -> Result<()> {
        self.objects.delete(&paths::ready(batch)?).await
    }

    /// The ready records beside `own`, oldest objects first, [`READY_READ_MAX`] at most; `listed`
    /// if they were listed just now.
    pub(in crate::delta) async fn read_other_records(
        &self,
        own: &[ReadyRecord],
        listed: Option<Vec<ObjectMeta>>,
    ) -> Result<Vec<ReadAttempt>> {
        let mut listed = match listed {
            Some(listed) => listed,
            None => self.list_ready().await?,
        };
        listed.sort_by_key(|meta| meta.modified);
        let others = listed
            .into_iter()
            .filter_map(|meta| Some((self.batch_of_ready(&meta.path)?, meta.path)))
            .filter(|(batch, _)| !own.iter().any(|record| record.batch == *batch));
        self.read_records(others.take(READY_READ_MAX).collect()).await
    }

    pub(in crate::delta) async fn read_all_records(&self) -> Result<Vec<ReadAttempt>> {
        let listed = self.list_ready().await?.into_iter();
        let all = listed.filter_map(|meta| Some((self.batch_of_ready(&meta.path)?, meta.path)));
        self.read_records(all.collect()).await
    }

    async fn read_records(&self, wanted: Vec<(BatchId, ObjectPath)>) -> Result<Vec<ReadAttempt>> {
        let mut reading =
            stream::iter(wanted).map(async |(batch, path)| (batch, self.read_ready(&path).await)).buffered(CONCURRENCY);
        let mut records = Vec::new();
        while let Some((batch, read)) = reading.next().await {
            match read {
                Err(error) if error.is_retry() => return Err(error),
                read => records.push((batch, read)),
            }
        }
        Ok(records)
    }

    /// The batch that a ready record's path names; a table's records may be of one dataset only.
    pub(in crate::delta) fn batch_of_ready(&self, path: &ObjectPath) -> Option<BatchId> {
        let (store, position) = path.file_name().strip_suffix(".json")?.split_once('~')?;
        Some(BatchId { store: store.parse().ok()?, dataset: self.name.clone(), position: position.parse().ok()? })
    }

    async fn read_ready(&self, path: &ObjectPath) -> Result<Option<ReadyRecord>> {
        let Some(bytes) = self.objects.get(path).await? else { return Ok(None) };
        let record: ReadyRecord = serde_json::from_slice(&bytes)
            .map_err(|error| Error::data(format!("{path}: is not a ready record")).with_source(error))?;
        if record.batch.dataset != self.name || paths::ready(&record.batch)? != *path {
            return Err(Error::data(format!("{path}: holds the record of {}", record.batch)));
        }
        Ok(Some(record))
    }
}
