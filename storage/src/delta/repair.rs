//! Undoes what another program did to a table: its files leave, and the files of ours that it
//! removed, or whose tags its checkpoint lost, come back as far as they still exist.
//!
//! Nothing is guessed: a file comes back only with the tag that the log once had for it, and by the
//! rule of every commit (the highest position wins a unit). What cannot come back is missing
//! afterwards, coverage says so, and `ribera recover` plans its extraction.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};

use super::commit::plan::{FileUnits, Retention, retentions};
use super::log::action::{self, APPEND_ONLY, Action, AddFile, RemoveFile};
use super::log::checkpoint::Parts;
use super::log::entry::{CommitDescription, EntryOutcome};
use super::log::snapshot::{Partition, Snapshot};
use super::log::{LogFile, checkpoints_of};
use super::{CONCURRENCY, Table};
use crate::dataset::DatasetDefinition;
use crate::delta::units::staying::Keep;
use crate::error::{Error, Result};
use crate::ids::StoreUnit;
use crate::object::{ObjectStore, list_all};
use crate::ports::Ports;

/// Races lost before the repair leaves the table to its writers.
const ATTEMPTS_MAX: usize = 20;

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The version written; `None` when there was nothing to repair, or for a dry run.
    pub version: Option<u64>,
    /// Files of other programs that leave the table.
    pub removed: Vec<String>,
    /// Files of ours that come back.
    pub restored: Vec<String>,
    /// Properties of the table that another program set and that keep batches out.
    pub unset: Vec<String>,
    /// Files of ours that were there once and cannot come back: their objects are gone.
    pub lost: Vec<String>,
}

/// What the log tells of the past.
#[derive(Default)]
struct Past {
    /// Every file that ever had our tags, by path.
    tagged: BTreeMap<String, AddFile>,
    /// Paths that an entry of another program removed.
    removed_by_others: BTreeSet<String>,
}

impl<S: ObjectStore> Table<'_, S> {
    /// Repairs the table in one log entry. With `dry_run` nothing is written. Safe to run again.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer or other writers were always quicker.
    pub async fn repair(&self, ports: Ports<'_, S>, dataset: &DatasetDefinition, dry_run: bool) -> Result<Repaired> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(mut snapshot) = self.load().await? else { return Ok(Repaired::default()) };
            self.load_facts(&mut snapshot, None, None).await?;
            let past = self.read_past().await?;
            let (mut repaired, actions) = self.plan_repair(ports, dataset, &snapshot, &past, dry_run).await?;
            if dry_run || actions.is_empty() {
                return Ok(repaired);
            }
            let version = snapshot.version() + 1;
            let actions = snapshot.protocol.upgrade().into_iter().chain(actions).collect();
            if let EntryOutcome::Won = self.put_entry(ports, version, CommitDescription::new("REPAIR"), actions).await?
            {
                repaired.version = Some(version);
                return Ok(repaired);
            }
        }
        Err(Error::retry(format!("table {}: lost {ATTEMPTS_MAX} races for a version", self.name)))
    }

    async fn plan_repair(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        past: &Past,
        dry_run: bool,
    ) -> Result<(Repaired, Vec<Action>)> {
        let (mut repaired, mut actions) = (Repaired::default(), Vec::new());
        let removed_at = snapshot.removal_time(ports.clock.now());
        let candidates = self.candidates(snapshot, past, &mut repaired).await?;
        let mut partitions: BTreeSet<String> = candidates.keys().cloned().collect();
        partitions.extend(snapshot.foreign_files().map(|file| snapshot.key_of(file)));
        for partition in partitions {
            let files = snapshot.partition(&partition).into_iter().flat_map(Partition::files);
            let (foreign, ours): (Vec<&AddFile>, Vec<&AddFile>) = files.partition(|file| file.is_foreign());
            let back = candidates.get(&partition).map(Vec::as_slice).unwrap_or_default();
            let removes = foreign.iter().filter(|file| !back.iter().any(|one| one.path == file.path));
            for file in removes {
                repaired.removed.push(file.path.clone());
                actions.push(remove(file.removed(removed_at, true)));
            }
            let active =
                ours.iter().map(|file| file.unit_positions()).collect::<Result<Vec<FileUnits<StoreUnit>>>>()?;
            let ready = back.iter().map(|file| Ok(vec![file.unit_positions()?])).collect::<Result<Vec<_>>>()?;
            let kept = retentions(&active, &ready)?;
            for (file, kept) in back.iter().zip(kept.ready.iter().flatten()) {
                actions.extend(self.restore(ports, dataset, file, kept, dry_run).await?);
                if *kept != Retention::None {
                    repaired.restored.push(file.path.clone());
                }
            }
            for (file, kept) in ours.iter().zip(&kept.active) {
                // What comes back may win a unit of an active file: only by a higher position.
                if let Retention::Only(units) = kept {
                    let keep = Keep::Only(units.clone());
                    let adds = if dry_run { Vec::new() } else { self.rewrite(ports, dataset, file, &keep).await? };
                    actions.extend(adds.into_iter().map(add));
                }
                if *kept != Retention::All {
                    actions.push(remove(file.removed(removed_at, true)));
                }
            }
        }
        if snapshot.metadata.is_append_only() {
            let mut metadata = snapshot.metadata.clone();
            metadata.configuration.remove(APPEND_ONLY);
            repaired.unset.push(APPEND_ONLY.to_owned());
            actions.push(Action { meta_data: Some(metadata), ..Action::default() });
        }
        Ok((repaired, actions))
    }

    /// Files of ours that may come back, by partition: those that are in the table without their
    /// tags, and those that another program removed. Only files whose objects are as they were.
    async fn candidates(
        &self,
        snapshot: &Snapshot,
        past: &Past,
        repaired: &mut Repaired,
    ) -> Result<BTreeMap<String, Vec<AddFile>>> {
        let untagged: BTreeSet<&str> = snapshot.foreign_files().map(|file| file.path.as_str()).collect();
        let active: BTreeSet<&str> = snapshot.files().map(|file| file.path.as_str()).collect();
        let wanted = past.tagged.values().filter(|file| {
            let path = file.path.as_str();
            untagged.contains(path) || (past.removed_by_others.contains(path) && !active.contains(path))
        });
        let heads = stream::iter(wanted).map(async |file| {
            let head = self.objects.head(&file.object_path(&self.name)?).await?;
            Ok::<_, Error>((file, head.is_some_and(|head| head.bytes == file.size)))
        });
        let mut candidates: BTreeMap<String, Vec<AddFile>> = BTreeMap::new();
        let mut heads = std::pin::pin!(heads.buffered(CONCURRENCY));
        while let Some(head) = heads.next().await {
            match head? {
                (file, true) => {
                    let file = self.with_facts(file).await?;
                    candidates.entry(snapshot.key_of(&file)).or_default().push(file);
                }
                (file, false) => repaired.lost.push(file.path.clone()),
            }
        }
        Ok(candidates)
    }

    async fn restore(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        file: &AddFile,
        kept: &Retention<StoreUnit>,
        dry_run: bool,
    ) -> Result<Vec<Action>> {
        Ok(match kept {
            Retention::None => Vec::new(),
            Retention::All => vec![add(AddFile { data_change: true, ..file.clone() })],
            Retention::Only(_) if dry_run => Vec::new(),
            Retention::Only(units) => {
                let keep = Keep::Only(units.clone());
                self.rewrite(ports, dataset, file, &keep).await?.into_iter().map(add).collect()
            }
        })
    }

    /// Every entry and checkpoint that is still kept, oldest first.
    async fn read_past(&self) -> Result<Past> {
        let listed = list_all(self.objects, &self.log_folder(), None).await?;
        let mut past = Past::default();
        for (version, files) in checkpoints_of(&listed, u64::MAX) {
            if let Some(Ok(snapshot)) = self.read_checkpoint(version, &files, Parts::FILES).await? {
                past.take(snapshot.files().cloned());
            }
        }
        let entries = listed.iter().filter_map(|meta| match LogFile::of(&meta.path)? {
            LogFile::Entry(version) => Some(version),
            _ => None,
        });
        let mut read = stream::iter(entries).map(|version| self.read_entry(version)).buffered(CONCURRENCY);
        while let Some(bytes) = read.next().await {
            if let Some(bytes) = bytes? {
                past.take_entry(action::from_lines(&bytes)?);
            }
        }
        Ok(past)
    }
}

impl Past {
    fn take(&mut self, files: impl IntoIterator<Item = AddFile>) {
        let tagged = files.into_iter().filter(|file| match file.facts_tag() {
            Ok(None) => file.units().is_ok_and(|units| !units.is_empty()),
            facts => facts.is_ok(),
        });
        self.tagged.extend(tagged.map(|file| (file.path.clone(), file)));
    }

    fn take_entry(&mut self, actions: Vec<Action>) {
        let info = actions.iter().find_map(|action| action.commit_info.as_ref());
        let is_ours = info.is_some_and(|info| info.ribera.is_some());
        for removed in actions.iter().filter_map(|action| action.remove.as_ref()) {
            match is_ours {
                // What we removed ourselves stays removed.
                true => drop(self.removed_by_others.remove(&removed.path)),
                false => drop(self.removed_by_others.insert(removed.path.clone())),
            }
        }
        self.take(actions.into_iter().filter_map(|action| action.add));
    }
}

fn add(file: AddFile) -> Action {
    Action { add: Some(file), ..Action::default() }
}

fn remove(file: RemoveFile) -> Action {
    Action { remove: Some(file), ..Action::default() }
}
