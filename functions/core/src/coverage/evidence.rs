//! Gathers what is known beside the logs: the inbox, the quarantine, what sources published. Once for
//! all datasets, and before any log is read.
//!
//! Order matters. A difference is published before the batch that repairs it is sent, so whoever
//! reads the doubts first and the log afterwards never takes an answer for proven that the source
//! had disowned by then. A batch moves from the inbox to the quarantine (its record is put before
//! its manifest is deleted), and by a replay from the quarantine through `state/replay/` back to the
//! inbox. So the reads are inbox, quarantine, replays, inbox again: it is seen at least once.
//!
//! What cannot be read is doubt, never "nothing": it makes the store that wrote it doubtful, and no
//! other.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use ribera_storage::batch::{
    DIFFERING_BYTES_MAX, Differing, DifferingUnit, MANIFEST_BYTES_MAX, Manifest, QUARANTINE_RECORD_BYTES_MAX,
    QuarantineRecord, UnitFacts,
};
use ribera_storage::control;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind};
use ribera_storage::delta::{AddFile, PartialSnapshot, UnitTag};
use ribera_storage::heartbeat::{GOOD, HEARTBEAT_BYTES_MAX, Heartbeat};
use ribera_storage::ids::Position;
use ribera_storage::object::{Bounded, ObjectMeta, ObjectPath, Part, get_at_most, list_by_owner, list_owner};
use ribera_storage::store::StoreDefinition;
use ribera_storage::{BatchId, DatasetName, Error, Month, ObjectStore, Result, StoreId, Unit, numbered, paths};
use serde::Serialize;

use super::judge::{Doubt, Span, StoreEvidence, UnitEvidence};

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

/// Objects of one store that are looked at in each folder. A store with more is doubtful.
const STORE_OBJECTS_MAX: usize = 1000;

/// Up to so many stores are listed each by itself, when others are not wanted: one request for each and folder.
const FEW_STORES: usize = 16;

const QUARANTINE: &str = "quarantine/";
const INBOX: &str = "inbox/";
const REPLAYS: &str = "state/replay/";
const AGENTS: &str = "agents/";

type Stream = (StoreId, DatasetName);

/// What is known beside the logs, of every store and dataset.
#[derive(Debug, Default)]
pub struct Evidence {
    stores: Vec<StoreDefinition>,
    /// Evidence without units, by stream.
    streams: BTreeMap<Stream, StreamEvidence>,
    /// Why nothing of a store can be believed.
    doubtful_stores: BTreeMap<StoreId, String>,
}

/// What is known of a store's dataset beside the log.
#[derive(Debug, Clone, Default, Serialize)]
struct StreamEvidence {
    quarantined: Vec<(Position, Vec<Unit>)>,
    /// Positions of batches in quarantine of which nobody knows the units.
    quarantined_unread: Vec<Position>,
    differing: Vec<DifferingUnit>,
    /// What batches in the inbox would bring.
    waiting: Vec<(Position, UnitFacts)>,
    /// Why nothing of the stream can be believed.
    doubt: Option<String>,
    /// The agent asked the source then and found what it had sent, or published the difference.
    /// No dataset by day rests on it.
    #[serde(skip)]
    checked_at: Option<Timestamp>,
}

/// A dataset with what is known of it in every store.
pub struct Known<'a> {
    pub dataset: DatasetDefinition,
    evidence: &'a Evidence,
}

impl Evidence {
    /// Reads the evidence of `datasets` (of all, when it is empty).
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer, `Config` when a store definition cannot be read.
    pub async fn gather<S: ObjectStore>(objects: &S, datasets: &[DatasetDefinition]) -> Result<Self> {
        let stores = control::load_stores(objects).await?;
        Self::gather_from(objects, datasets, stores, false).await
    }

    /// The same of some stores: what others have waiting is not looked at.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer.
    pub async fn gather_of<S: ObjectStore>(
        objects: &S,
        datasets: &[DatasetDefinition],
        stores: Vec<StoreDefinition>,
    ) -> Result<Self> {
        let are_few = stores.len() <= FEW_STORES;
        Self::gather_from(objects, datasets, stores, are_few).await
    }

    async fn gather_from<S: ObjectStore>(
        objects: &S,
        datasets: &[DatasetDefinition],
        stores: Vec<StoreDefinition>,
        by_store: bool,
    ) -> Result<Self> {
        let wanted: BTreeSet<&DatasetName> = datasets.iter().map(|dataset| &dataset.name).collect();
        let declared: BTreeSet<StoreId> = stores.iter().map(|store| store.id.clone()).collect();
        let gatherer = Gatherer { objects, wanted, declared, by_store };
        let mut evidence = Self { stores, ..Self::default() };
        // Before the differences: a cycle that ended well had published what it found.
        if datasets.iter().any(|dataset| dataset.kind == DatasetKind::Dimension) {
            gatherer.heartbeats(&mut evidence).await?;
        }
        let first = gatherer.manifests(INBOX, &BTreeSet::new(), &mut evidence).await?;
        gatherer.quarantine(&mut evidence).await?;
        gatherer.replays(&mut evidence).await?;
        gatherer.manifests(INBOX, &first, &mut evidence).await?;
        gatherer.differing(&mut evidence).await?;
        Ok(evidence)
    }

    pub fn of_dataset(&self, dataset: DatasetDefinition) -> Known<'_> {
        Known { dataset, evidence: self }
    }

    fn stream(&mut self, store: &StoreId, dataset: &DatasetName) -> &mut StreamEvidence {
        self.streams.entry((store.clone(), dataset.clone())).or_default()
    }
}

impl Known<'_> {
    /// By id.
    pub fn stores(&self) -> &[StoreDefinition] {
        &self.evidence.stores
    }

    /// What the judgement of a store's dataset by day rests on beside its units in the log, for comparison.
    pub fn beside_the_log(&self, store: &StoreId) -> impl Serialize {
        let stream = self.evidence.streams.get(&(store.clone(), self.dataset.name.clone()));
        (stream, self.evidence.doubtful_stores.get(store))
    }

    /// Everything known of a store, with its units from the table's log. `newest` is the table as
    /// it is now, when `snapshot` is older: what has been corrected since is doubted.
    ///
    /// # Errors
    ///
    /// `Bug` when the store's files were not read.
    pub fn of_store(
        &self,
        store: &StoreId,
        snapshot: Option<&PartialSnapshot>,
        newest: Option<&PartialSnapshot>,
    ) -> Result<StoreEvidence> {
        let known = self.evidence.streams.get(&(store.clone(), self.dataset.name.clone()));
        let known = known.cloned().unwrap_or_default();
        let mut found = StoreEvidence {
            quarantined: known.quarantined,
            differing: known.differing,
            checked_at: known.checked_at,
            ..StoreEvidence::default()
        };
        let reasons = known.doubt.into_iter().chain(self.evidence.doubtful_stores.get(store).cloned());
        found.doubts.extend(reasons.map(|reason| Doubt { span: Span::All, reason }));
        let files = snapshot.map_or(Ok(Vec::new()), |snapshot| snapshot.store_files(store))?;
        for file in &files {
            take_file(&mut found, store, file, &known.waiting);
        }
        if let Some(newest) = newest {
            take_newer(&mut found, store, &files, &newest.store_files(store)?);
        }
        if let Some(latest) = known.quarantined_unread.iter().max() {
            let older = found.units.iter().filter(|unit| unit.position < *latest);
            let doubted: Vec<DifferingUnit> =
                older.map(|unit| DifferingUnit { unit: unit.unit, awaits: *latest }).collect();
            found.differing.extend(doubted);
        }
        Ok(found)
    }
}

fn take_file(found: &mut StoreEvidence, store: &StoreId, file: &AddFile, waiting: &[(Position, UnitFacts)]) {
    let mut units = Vec::new();
    let read = file.each_proof_of(store, |proof| {
        units.push(UnitEvidence {
            unit: proof.unit,
            position: proof.position,
            rows: proof.rows,
            proven: proof.is_proven,
            extracted_at: proof.extracted_at,
            received_by: proof.received_at,
        });
    });
    let tags = if waiting.is_empty() { Ok(Vec::new()) } else { file.units_of(store) };
    match (read, tags) {
        (Ok(()), Ok(tags)) => {
            if file.is_foreign() {
                found.doubts.push(Doubt { span: span_of(file), reason: foreign(file) });
            }
            found.differing.extend(doubts(&tags, waiting));
        }
        (Err(error), _) | (_, Err(error)) => {
            found.doubts.push(Doubt { span: span_of(file), reason: error.line() });
        }
    }
    found.units.append(&mut units);
}

/// Doubts the units of an older version that the newest one has from a later batch with other rows
/// or sums.
fn take_newer(found: &mut StoreEvidence, store: &StoreId, files: &[&AddFile], newest: &[&AddFile]) {
    let older = files.iter().filter_map(|file| file.units_of(store).ok()).flatten();
    let older: BTreeMap<Unit, UnitTag> = older.map(|tag| (tag.unit, tag)).collect();
    for file in newest {
        if file.is_foreign() {
            found.doubts.push(Doubt { span: span_of(file), reason: foreign(file) });
        }
        let tags = match file.units_of(store) {
            Ok(tags) => tags,
            Err(error) => {
                found.doubts.push(Doubt { span: span_of(file), reason: error.line() });
                continue;
            }
        };
        for tag in tags {
            let differs = |old: &UnitTag| old.position < tag.position && !old.facts.agrees_with(&tag.facts);
            if older.get(&tag.unit).is_some_and(differs) {
                found.differing.push(DifferingUnit { unit: tag.unit, awaits: tag.position });
            }
        }
    }
}

fn foreign(file: &AddFile) -> String {
    format!("{}: another program wrote it, or its checkpoint lost our tags", file.path)
}

/// The days that a file can hold, by its partition.
fn span_of(file: &AddFile) -> Span {
    let value = |column: &str| file.partition_values.get(column).and_then(Option::as_deref);
    match (value("month").map(str::parse::<Month>), value("year").map(str::parse::<i16>)) {
        (Some(Ok(month)), _) => Span::Month(month),
        (None, Some(Ok(year))) => Span::Year(year),
        _ => Span::All,
    }
}

/// Units of a lake file of which a newer batch with other facts waits: whoever sent it may have had
/// no chance, or no memory, to publish the difference.
fn doubts(in_lake: &[UnitTag], waiting: &[(Position, UnitFacts)]) -> Vec<DifferingUnit> {
    let differs = |tag: &UnitTag, (position, facts): &(Position, UnitFacts)| {
        facts.unit == tag.unit && *position > tag.position && !facts.file.agrees_with(&tag.facts)
    };
    in_lake
        .iter()
        .flat_map(|tag| waiting.iter().filter(move |one| differs(tag, one)))
        .map(|(position, facts)| DifferingUnit { unit: facts.unit, awaits: *position })
        .collect()
}

struct Gatherer<'a, S> {
    objects: &'a S,
    /// Empty: all.
    wanted: BTreeSet<&'a DatasetName>,
    declared: BTreeSet<StoreId>,
    /// Each store's folders are listed alone: others are not wanted.
    by_store: bool,
}

impl<S: ObjectStore> Gatherer<'_, S> {
    fn wants(&self, batch: &BatchId) -> bool {
        self.declared.contains(&batch.store) && (self.wanted.is_empty() || self.wanted.contains(&batch.dataset))
    }

    /// The objects of declared stores below `prefix`. A store with too many is doubtful.
    async fn listed(&self, prefix: &str, evidence: &mut Evidence) -> Result<Vec<ObjectMeta>> {
        let owners = match self.by_store {
            true => {
                let each = stream::iter(&self.declared);
                let each = each.map(|store| list_owner(self.objects, prefix, store.as_str(), STORE_OBJECTS_MAX));
                each.buffered(CONCURRENCY).try_collect().await?
            }
            false => list_by_owner(self.objects, prefix, STORE_OBJECTS_MAX).await?,
        };
        let mut all = Vec::new();
        for owned in owners {
            let Ok(store) = owned.owner.parse::<StoreId>() else { continue };
            if !self.declared.contains(&store) {
                continue;
            }
            if owned.more {
                let reason = format!("{prefix}{store}/: more than {STORE_OBJECTS_MAX} objects");
                evidence.doubtful_stores.insert(store, reason);
            }
            all.extend(owned.listed);
        }
        Ok(all)
    }

    /// What the batches in the inbox would bring; gives the paths that were read. Those settled
    /// meanwhile are in the log, which is read after this.
    async fn manifests(
        &self,
        prefix: &str,
        known: &BTreeSet<ObjectPath>,
        evidence: &mut Evidence,
    ) -> Result<BTreeSet<ObjectPath>> {
        let folder = prefix.trim_end_matches('/');
        let listed = self.listed(prefix, evidence).await?;
        let fresh = listed.into_iter().filter(|meta| !known.contains(&meta.path)).filter_map(|meta| {
            let batch = paths::batch_of(folder, &meta.path).ok().filter(|batch| self.wants(batch))?;
            Some((batch, meta.path))
        });
        self.read_manifests(fresh.collect(), evidence).await
    }

    /// Replays that were asked for and are not finished: their manifests are on the way to the inbox.
    async fn replays(&self, evidence: &mut Evidence) -> Result<()> {
        let replays = ribera_storage::object::list_all(self.objects, REPLAYS, None).await?;
        let wanted = replays.into_iter().filter_map(|meta| {
            let batch = paths::batch_of(REPLAYS.trim_end_matches('/'), &meta.path).ok()?;
            self.wants(&batch).then_some((batch, meta.path))
        });
        self.read_manifests(wanted.collect(), evidence).await.map(drop)
    }

    async fn read_manifests(
        &self,
        wanted: Vec<(BatchId, ObjectPath)>,
        evidence: &mut Evidence,
    ) -> Result<BTreeSet<ObjectPath>> {
        let mut read = stream::iter(wanted)
            .map(async |(batch, path)| {
                let read = get_at_most(self.objects, &path, MANIFEST_BYTES_MAX).await?;
                Ok::<_, Error>((batch, path, read))
            })
            .buffered(CONCURRENCY);
        let mut seen = BTreeSet::new();
        while let Some((batch, path, read)) = read.try_next().await? {
            let stream = evidence.stream(&batch.store, &batch.dataset);
            match read {
                Bounded::Absent => {}
                Bounded::Whole(part) => match Manifest::from_json(&part.bytes) {
                    Ok(manifest) => {
                        stream.waiting.extend(manifest.units.into_iter().map(|facts| (batch.position, facts)));
                    }
                    // Ingest refuses it; until then nobody knows what it would bring.
                    Err(_) => stream.quarantined_unread.push(batch.position),
                },
                Bounded::TooLarge => stream.quarantined_unread.push(batch.position),
            }
            seen.insert(path);
        }
        Ok(seen)
    }

    async fn quarantine(&self, evidence: &mut Evidence) -> Result<()> {
        let listed = self.listed(QUARANTINE, evidence).await?;
        let wanted = listed.into_iter().filter_map(|meta| {
            let batch = crate::quarantine::batch_of(&meta.path)?;
            self.wants(&batch).then_some((batch, meta))
        });
        let mut read = stream::iter(wanted)
            .map(async |(batch, meta)| {
                Ok::<_, Error>((batch, get_at_most(self.objects, &meta.path, QUARANTINE_RECORD_BYTES_MAX).await?))
            })
            .buffered(CONCURRENCY);
        while let Some((batch, read)) = read.try_next().await? {
            let stream = evidence.stream(&batch.store, &batch.dataset);
            match read {
                Bounded::Absent => {}
                Bounded::Whole(part) => match serde_json::from_slice::<QuarantineRecord>(&part.bytes) {
                    Ok(record) if !record.units.is_empty() => stream.quarantined.push((batch.position, record.units)),
                    _ => stream.quarantined_unread.push(batch.position),
                },
                Bounded::TooLarge => stream.quarantined_unread.push(batch.position),
            }
        }
        Ok(())
    }

    /// What agents published as differing from what they sent. Most have no such list.
    async fn differing(&self, evidence: &mut Evidence) -> Result<()> {
        let mut newest: BTreeMap<Stream, (u64, ObjectMeta)> = BTreeMap::new();
        for meta in self.listed(AGENTS, evidence).await? {
            let Some((stream, number)) = differing_of(&meta.path) else { continue };
            let wanted = self.wanted.is_empty() || self.wanted.contains(&stream.1);
            if wanted && newest.get(&stream).is_none_or(|(known, _)| *known < number) {
                newest.insert(stream, (number, meta));
            }
        }
        let mut read = stream::iter(newest)
            .map(async |((store, dataset), (_, meta))| {
                let read = self.read_differing(&store, &dataset, &meta).await?;
                Ok::<_, Error>((store, dataset, read))
            })
            .buffered(CONCURRENCY);
        while let Some((store, dataset, read)) = read.try_next().await? {
            let stream = evidence.stream(&store, &dataset);
            match read {
                Ok(published) => stream.differing.extend(published.units),
                Err(reason) => stream.doubt = Some(reason),
            }
        }
        Ok(())
    }

    /// The latest list, or why it cannot be read.
    async fn read_differing(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        meta: &ObjectMeta,
    ) -> Result<std::result::Result<Differing, String>> {
        let mut path = meta.path.clone();
        // The agent publishes the next list before it deletes this one: then there is a later one.
        for _ in 0..3 {
            match get_at_most(self.objects, &path, DIFFERING_BYTES_MAX).await? {
                Bounded::Whole(Part { bytes, .. }) => {
                    return Ok(serde_json::from_slice(&bytes).map_err(|error| {
                        format!(
                            "{path}: is not a list of differing units: {}",
                            ribera_storage::text::line(&error.to_string())
                        )
                    }));
                }
                Bounded::TooLarge => return Ok(Err(format!("{path}: is larger than {DIFFERING_BYTES_MAX} bytes"))),
                Bounded::Absent => {}
            }
            match numbered::latest_path(self.objects, &paths::differing(store, dataset)).await? {
                Some(later) => path = later,
                None => return Ok(Ok(Differing::default())),
            }
        }
        Ok(Err(format!("{path}: changes faster than it can be read")))
    }

    /// When each store's agent last asked its source about a dataset and ended well.
    async fn heartbeats(&self, evidence: &mut Evidence) -> Result<()> {
        let mut read = stream::iter(&self.declared)
            .map(async |store| {
                let path = paths::heartbeat(store)?;
                let read = get_at_most(self.objects, &path, HEARTBEAT_BYTES_MAX).await?;
                let Bounded::Whole(Part { bytes, .. }) = read else { return Ok(None) };
                let heartbeat: Option<Heartbeat> = serde_json::from_slice(&bytes).ok();
                let written_at = self.objects.head(&path).await?.map(|meta| meta.modified);
                Ok::<_, Error>(heartbeat.zip(written_at).map(|(heartbeat, at)| (store.clone(), heartbeat, at)))
            })
            .buffered(CONCURRENCY);
        while let Some(found) = read.try_next().await? {
            let Some((store, heartbeat, written_at)) = found else { continue };
            for run in heartbeat.runs.iter().filter(|run| run.outcome == GOOD) {
                // An agent's clock may be ahead: it cannot have asked after it wrote this.
                let at = run.begun_at.min(written_at);
                evidence.stream(&store, &run.dataset).checked_at = Some(at);
            }
        }
        Ok(())
    }
}

/// The stream and number of `agents/STORE/DATASET/differing/NUMBER.json`.
fn differing_of(path: &ObjectPath) -> Option<(Stream, u64)> {
    let mut parts = path.as_str().strip_prefix(AGENTS)?.split('/');
    let (store, dataset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (parts.next()? == "differing").then_some(())?;
    parts.next()?;
    parts.next().is_none().then(|| numbered::number_of(path).map(|number| ((store, dataset), number)))?
}
