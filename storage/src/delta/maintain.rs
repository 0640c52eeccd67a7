//! Keeping a table in shape: migration, vacuum, cleaning of the log.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::dataset::DatasetDefinition;
use crate::dataset::evolution::{self, Evolution};
use crate::delta::log::LogFile;
use crate::delta::log::action::{Action, AddFile};
use crate::delta::log::checkpoint::Parts;
use crate::delta::log::entry::{CommitDescription, EntryOutcome};
use crate::delta::log::path;
use crate::delta::log::snapshot::Snapshot;
use crate::delta::units::staying::Keep;
use crate::delta::{CONCURRENCY, Table};
use crate::error::{Error, Result};
use crate::object::{ObjectMeta, ObjectStore, list_all};
use crate::paths;
use crate::ports::Ports;

/// Removed and orphaned files are kept this long: readers of older versions, time travel and slow
/// commits (see [`crate::delta::READY_AGE_MAX`]) are done by then.
pub const VACUUM_RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Log entries are kept this long.
pub const LOG_RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Every checkpoint is kept this long, later only the last of each day.
const CHECKPOINTS_WHOLE: SignedDuration = SignedDuration::from_hours(24);

/// Races lost before maintenance leaves the table to its writers.
const ATTEMPTS_MAX: usize = 20;

impl<S: ObjectStore> Table<'_, S> {
    /// Makes the table's schema that of `dataset`, writing files of narrower types again where
    /// independent readers ask for it. True when anything was changed.
    ///
    /// # Errors
    ///
    /// `Config` when the table cannot take files of `dataset`; `Retry` when the object store does not answer.
    pub async fn migrate(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition) -> Result<bool> {
        let Some(mut snapshot) = self.load().await? else { return Ok(false) };
        let mut rewritten: BTreeMap<String, Vec<AddFile>> = BTreeMap::new();
        for _ in 0..ATTEMPTS_MAX {
            let standing = snapshot.metadata();
            let evolution = evolution::of_table(&standing.schema_string, &standing.partition_columns, dataset)?;
            if evolution == Evolution::None {
                return Ok(false);
            }
            snapshot.check_writable()?;
            let mut actions: Vec<Action> = snapshot.protocol.upgrade().into_iter().collect();
            actions.push(Action { meta_data: Some(standing.evolved_to(dataset)?), ..Action::default() });
            if evolution == Evolution::Rewrite {
                self.rewrite_all(ports, dataset, &snapshot, &mut rewritten).await?;
                for file in snapshot.files() {
                    let remove = file.removed(snapshot.removal_time(ports.clock.now()), false);
                    actions.push(Action { remove: Some(remove), ..Action::default() });
                    for add in rewritten.get(&file.path).into_iter().flatten() {
                        let add = AddFile { data_change: false, ..add.clone() };
                        actions.push(Action { add: Some(add), ..Action::default() });
                    }
                }
            }
            let version = snapshot.version() + 1;
            match self.put_entry(ports, version, CommitDescription::new("CHANGE COLUMNS"), actions).await? {
                EntryOutcome::Won => return Ok(true),
                // Files written again for this attempt serve the next one.
                EntryOutcome::Lost(_) => drop(self.refresh(&mut snapshot).await?),
            }
        }
        Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)))
    }

    /// Objects under the table's folder that no reader, commit or time travel within `retention`
    /// can need: neither in the table, nor removed since, nor named by a ready record, nor
    /// written since. `now` is by the object store's own clock (see
    /// [`crate::object::object_store_now`]). Open manifests name files in `landing/` only, which this
    /// never touches. Delete them with [`Self::delete_objects`].
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read.
    pub async fn vacuum_plan(&self, now: Timestamp, retention: SignedDuration) -> Result<Vec<ObjectMeta>> {
        // Listing first: whatever is committed or made ready after it was written before.
        let root = format!("{}/", paths::table_root(&self.name));
        let listed = list_all(self.objects, &root, None).await?;
        let mut named = self.files_of_ready_records().await?;
        let Some(snapshot) = self.load_latest(Parts::ALL).await? else { return Ok(Vec::new()) };
        let horizon = now.checked_sub(retention).map_err(|error| Error::bug("horizon").with_source(error))?;
        for file in snapshot.files() {
            self.name_objects(&file.path, &mut named)?;
        }
        for remove in snapshot.tombstones.values().filter(|remove| remove.is_needed(horizon.as_millisecond())) {
            self.name_objects(&remove.path, &mut named)?;
        }
        let log = self.log_folder();
        Ok(listed
            .into_iter()
            .filter(|meta| !meta.path.as_str().starts_with(&log))
            .filter(|meta| !is_hidden(&root, meta) || path::is_facts_file(meta.path.file_name()))
            .filter(|meta| meta.modified < horizon && !named.contains(meta.path.as_str()))
            .collect())
    }

    /// Log entries and checkpoints before a checkpoint that is older than [`LOG_RETENTION`], and
    /// checkpoints older than a day that are not the last of their day. `now` as in
    /// [`Self::vacuum_plan`].
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn log_cleanup_plan(&self, now: Timestamp) -> Result<Vec<ObjectMeta>> {
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        let before =
            |age: SignedDuration| now.checked_sub(age).map_err(|error| Error::bug("horizon").with_source(error));
        let (log_horizon, whole_horizon) = (before(LOG_RETENTION)?, before(CHECKPOINTS_WHOLE)?);
        let checkpoints: Vec<(u64, &ObjectMeta)> = listed
            .iter()
            .filter_map(|meta| match LogFile::of(&meta.path)? {
                LogFile::Checkpoint(version) => Some((version, meta)),
                _ => None,
            })
            .collect();
        let oldest_kept = checkpoints.iter().filter(|(_, meta)| meta.modified < log_horizon).map(|(v, _)| *v).max();
        let day = |meta: &ObjectMeta| meta.modified.as_second().div_euclid(86_400);
        let thinned: BTreeSet<u64> = checkpoints
            .windows(2)
            .filter(|pair| pair[0].1.modified < whole_horizon && day(pair[0].1) == day(pair[1].1))
            .map(|pair| pair[0].0)
            .collect();
        let useless = |meta: &ObjectMeta| match LogFile::of(&meta.path) {
            Some(LogFile::Checkpoint(version)) => {
                oldest_kept.is_some_and(|kept| version < kept)
                    || (thinned.contains(&version) && Some(version) != oldest_kept)
            }
            Some(file) => oldest_kept.is_some_and(|kept| file.version() < kept),
            None => false,
        };
        Ok(listed.iter().filter(|meta| useless(meta)).cloned().collect())
    }

    /// Deletes what a plan names, oldest versions first.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer: what was deleted before stays so.
    pub async fn delete_objects(&self, plan: &[ObjectMeta]) -> Result<()> {
        stream::iter(plan)
            .map(|meta| self.objects.delete(&meta.path))
            .buffered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    async fn files_of_ready_records(&self) -> Result<BTreeSet<String>> {
        let mut named = BTreeSet::new();
        for (batch, read) in self.read_all_records().await? {
            // Of a record that cannot be read nobody knows what it names: better nothing is taken.
            for file in read.map_err(|error| error.context(&batch))?.into_iter().flat_map(|record| record.files) {
                self.name_objects(&file.path, &mut named)?;
            }
        }
        Ok(named)
    }

    /// A data file, and the object of its facts, whether it has one or not.
    fn name_objects(&self, log_path: &str, named: &mut BTreeSet<String>) -> Result<()> {
        for path in [log_path, &path::facts_file(log_path)] {
            named.insert(path::object_path(&self.name, path)?.to_string());
        }
        Ok(())
    }

    async fn rewrite_all(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        rewritten: &mut BTreeMap<String, Vec<AddFile>>,
    ) -> Result<()> {
        for file in snapshot.files() {
            if !rewritten.contains_key(&file.path) {
                let whole = self.with_facts(file).await?;
                let files = self.rewrite(ports, dataset, &whole, &Keep::AllBut(BTreeSet::new())).await?;
                rewritten.insert(file.path.clone(), files);
            }
        }
        Ok(())
    }
}

/// Other programs keep things of their own beside the data, in folders and files whose names begin
/// with `_` or `.`.
fn is_hidden(root: &str, meta: &ObjectMeta) -> bool {
    let relative = meta.path.as_str().strip_prefix(root).unwrap_or_default();
    relative.split('/').any(|part| part.starts_with(['_', '.']))
}
