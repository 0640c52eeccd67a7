//! Writing log entries: put-if-absent of the next version, read back after any doubt.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::dataset::DatasetDefinition;
use crate::delta::Table;
use crate::delta::log::action::{self, Action, CommitInfo, CommittedBatch, Format, Metadata, Protocol, RiberaInfo};
use crate::delta::log::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::object::{ObjectStore, PutOutcome};
use crate::paths;
use crate::ports::Ports;

/// Times that one and the same entry is put again after an error that left nothing behind.
const PUTS_MAX: usize = 4;

/// Who holds the version that was written.
#[derive(Debug)]
pub(in crate::delta) enum EntryOutcome {
    Won,
    /// Another writer's entry stands there.
    Lost(Bytes),
}

/// What an entry's commit info says.
pub(in crate::delta) struct CommitDescription {
    pub operation: &'static str,
    pub parameters: BTreeMap<String, serde_json::Value>,
    pub batches: Vec<CommittedBatch>,
}

impl CommitDescription {
    pub(in crate::delta) fn new(operation: &'static str) -> Self {
        Self { operation, parameters: BTreeMap::new(), batches: Vec::new() }
    }
}

impl<S: ObjectStore> Table<'_, S> {
    /// Loads the table, creating version 0 from the definition when there is none.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read; `Data` when its
    /// protocol is not ours.
    pub async fn load_or_create(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition) -> Result<Snapshot> {
        if let Some(snapshot) = self.load().await? {
            return Ok(snapshot);
        }
        self.create(ports, dataset).await?;
        self.load().await?.ok_or_else(|| Error::retry(format!("table {}: vanished after its creation", self.name)))
    }

    /// Version 0 from the definition. Whoever loses this race finds the winner's table.
    pub(in crate::delta) async fn create(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition) -> Result<()> {
        let actions = vec![
            Action { protocol: Some(Protocol::ours()), ..Action::default() },
            Action { meta_data: Some(self.new_metadata(ports, dataset)), ..Action::default() },
        ];
        self.put_entry(ports, 0, CommitDescription::new("CREATE TABLE"), actions).await.map(drop)
    }

    /// Puts `actions` as `version` under a fresh write id. Never concludes from the status alone:
    /// after an error, a time-out or a conflict the version is read back and the ids compared. An
    /// error leaves open whether the entry stands, or will: plan again from a fresh reading.
    pub(in crate::delta) async fn put_entry(
        &self,
        ports: Ports<'_, S>,
        version: u64,
        description: CommitDescription,
        mut actions: Vec<Action>,
    ) -> Result<EntryOutcome> {
        let write_id = ports.random.fresh_name();
        let info = CommitInfo {
            timestamp: ports.clock.now().as_millisecond(),
            operation: description.operation.to_owned(),
            operation_parameters: description.parameters,
            is_blind_append: Some(false),
            engine_info: Some(concat!("ribera/", env!("CARGO_PKG_VERSION")).to_owned()),
            ribera: Some(RiberaInfo { write_id: write_id.clone(), batches: description.batches }),
        };
        actions.insert(0, Action { commit_info: Some(info), ..Action::default() });
        let bytes = Bytes::from(action::to_lines(&actions)?);
        // What some reader could not read must never become an entry: it stays for ever.
        if action::from_lines(&bytes)? != actions {
            return Err(Error::bug(format!("table {}: version {version}: does not read back as written", self.name)));
        }
        let path = paths::log_entry(&self.name, version)?;
        let mut doubt = Error::bug("no put was tried");
        for _ in 0..PUTS_MAX {
            match self.objects.put_if_absent(&path, bytes.clone().into()).await {
                Ok(PutOutcome::Created) => return Ok(EntryOutcome::Won),
                Ok(PutOutcome::Exists) => doubt = Error::retry(format!("{path}: exists, but cannot be read back")),
                Err(error) => doubt = error,
            }
            match self.objects.get(&path).await {
                Ok(Some(found)) if write_id_of(&found).as_deref() == Some(&write_id) => return Ok(EntryOutcome::Won),
                Ok(Some(found)) => return Ok(EntryOutcome::Lost(found)),
                // Nothing there yet: the same bytes under the same id may safely be put again.
                Ok(None) => {}
                Err(error) => doubt = error,
            }
        }
        Err(doubt.context(format!("table {}: version {version}", self.name)))
    }

    fn new_metadata(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition) -> Metadata {
        Metadata {
            id: uuid(&ports.random.fresh_name()),
            name: Some(self.name.to_string()),
            description: Some(dataset.titles.en.clone()),
            format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
            schema_string: dataset.delta_schema(),
            partition_columns: dataset.partition_columns(),
            created_time: Some(ports.clock.now().as_millisecond()),
            configuration: BTreeMap::new(),
        }
    }
}

/// The write id of an entry, wherever its commit info stands.
fn write_id_of(bytes: &[u8]) -> Option<String> {
    let actions = action::from_lines(bytes).ok()?;
    Some(actions.into_iter().find_map(|action| action.commit_info)?.ribera?.write_id)
}

/// 32 hexadecimal digits as a random (version 4) UUID.
fn uuid(name: &str) -> String {
    let part = |from: usize, to: usize| name.get(from..to).unwrap_or_default();
    format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}
