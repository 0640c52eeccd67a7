//! Reads a manifest and decides, before its file is touched, whether it is taken.

use bytes::Bytes;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use ribera_storage::batch::{MANIFEST_BYTES_MAX, Manifest, QuarantineReason};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::{Bounded, ObjectPath, Part, get_at_most};
use ribera_storage::text::quoted;
use ribera_storage::{BatchId, ObjectStore, Result, paths};

use super::definitions::{Definitions, can_become};
use super::refusal::Refusal;
use super::types::Source;

/// A manifest as it lies in the inbox, with the batch its path names.
#[derive(Debug, Clone)]
pub struct Received {
    pub batch: BatchId,
    pub path: ObjectPath,
    pub bytes: Bytes,
    pub sha256: String,
    /// The manifest was put, by the object store's clock. Coverage proves with it that a day was over:
    /// nothing later may stand here, such as the time at which somebody read it.
    pub received_at: Timestamp,
    pub source: Source,
    /// The manifest, if it is one and lies where it says.
    pub manifest: Result<Manifest, Refusal>,
}

impl Received {
    pub fn new(batch: &BatchId, path: &ObjectPath, read: Part, source: Source) -> Self {
        let Part { bytes, modified } = read;
        Self {
            batch: batch.clone(),
            path: path.clone(),
            sha256: sha256_hex(&bytes),
            received_at: modified,
            source,
            manifest: parse(batch, &bytes),
            bytes,
        }
    }
}

/// What reading the inbox and `done/` showed.
#[derive(Debug)]
pub enum InboxLookup {
    /// No such manifest: settled meanwhile, or the event was wrong.
    Absent,
    /// Larger than a manifest may be. It was not read.
    TooLarge,
    /// `done/` holds the very same manifest.
    Repeated(Received),
    /// `done/` holds another manifest at the same position: two journals wrote it.
    Cloned(Received),
    Fresh(Received),
}

pub async fn read<S: ObjectStore>(
    objects: &S,
    path: &ObjectPath,
    batch: &BatchId,
    source: Source,
) -> Result<InboxLookup> {
    let done_path = paths::done(batch)?;
    let (read, done) = futures::try_join!(get_at_most(objects, path, MANIFEST_BYTES_MAX), objects.get(&done_path))?;
    let part = match read {
        Bounded::Absent => return Ok(InboxLookup::Absent),
        Bounded::TooLarge => return Ok(InboxLookup::TooLarge),
        Bounded::Whole(part) => part,
    };
    let received = Received::new(batch, path, part, source);
    Ok(match done {
        None => InboxLookup::Fresh(received),
        Some(done) if done == received.bytes => InboxLookup::Repeated(received),
        Some(_) => InboxLookup::Cloned(received),
    })
}

/// A manifest that contradicts nothing known.
#[derive(Debug)]
pub struct Admitted {
    pub received: Received,
    pub manifest: Manifest,
}

/// Checks the manifest against its path and the definitions. The outer error means that nothing
/// can be decided now.
pub fn admit(received: &Received, definitions: &Definitions, now: Timestamp) -> Result<Result<Admitted, Refusal>> {
    let manifest = match &received.manifest {
        Ok(manifest) => manifest.clone(),
        Err(refusal) => return Ok(Err(refusal.clone())),
    };
    let batch = &received.batch;
    let Some(store) = definitions.store(&batch.store)? else {
        let detail = format!("manifest: store: must be declared, got {}", batch.store);
        return Ok(Err(Refusal::new(QuarantineReason::UnknownStore, detail)));
    };
    let Some(latest) = definitions.dataset(&batch.dataset)? else {
        let detail = format!("manifest: dataset: must be declared, got {}", batch.dataset);
        return Ok(Err(Refusal::new(QuarantineReason::UnknownDataset, detail)));
    };
    let of_version = definitions.dataset_version(&batch.dataset, manifest.dataset_version)?;
    let checked = check_against(&manifest, latest, of_version).and_then(|()| check_dates(&manifest, store.opened, now));
    Ok(checked.map(|()| Admitted { received: received.clone(), manifest }))
}

fn parse(batch: &BatchId, bytes: &[u8]) -> Result<Manifest, Refusal> {
    let manifest =
        Manifest::from_json(bytes).map_err(|error| Refusal::new(QuarantineReason::ManifestInvalid, error.message()))?;
    let misplaced = |field: &str, expected: &str, got: &str| {
        let detail = format!("manifest: {field}: must be {expected}, got {}", quoted(got));
        Err(Refusal::new(QuarantineReason::ManifestMisplaced, detail))
    };
    if manifest.batch != *batch {
        return misplaced("batch", &format!("{batch} as its path says"), &manifest.batch.to_string());
    }
    let file = &manifest.file;
    let expected = paths::landing(&manifest.batch, manifest.month, &file.sha256)
        .map_err(|error| Refusal::new(QuarantineReason::ManifestInvalid, error.message()))?;
    if file.path != expected.as_str() {
        return misplaced("file.path", expected.as_str(), &file.path);
    }
    Ok(manifest)
}

fn check_against(
    manifest: &Manifest,
    latest: &DatasetDefinition,
    of_version: Option<&DatasetDefinition>,
) -> Result<(), Refusal> {
    let version = manifest.dataset_version;
    match of_version {
        Some(definition) if can_become(definition, latest) => {}
        _ => {
            let detail = format!(
                "manifest: dataset_version: must be {} or one that migrates to it, got {version}",
                latest.version
            );
            return Err(Refusal::new(QuarantineReason::UnknownDatasetVersion, detail));
        }
    }
    let invalid = |detail: String| Err(Refusal::new(QuarantineReason::ManifestInvalid, detail));
    if let Some(facts) = manifest.units.iter().find(|facts| !latest.has_unit(facts.unit)) {
        return invalid(format!("manifest: units: must fit a {:?} dataset, got {}", latest.kind, facts.unit));
    }
    // A sum that no definition names would be compared as 0 here and written into the log there.
    let summed = &of_version.unwrap_or(latest).audit_sums;
    let all = manifest.units.iter().flat_map(|facts| std::iter::once(&facts.file).chain(&facts.audit));
    match all.flat_map(|facts| facts.sums.keys()).find(|name| !summed.contains(name)) {
        Some(name) => invalid(format!(
            "manifest: units.sums: must be among the dataset's audit_sums ({}), got {}",
            summed.join(", "),
            quoted(name)
        )),
        None => Ok(()),
    }
}

/// Days that a store without an opening date may reach back: as many as a calendar shows.
const DAYS_BACK_MAX: i64 = 10_000;

/// Refuses business dates that no till can mean: before the year that preceded the opening, or
/// later than the day after tomorrow by our clock (the farthest zone is a day ahead). Each month is
/// a partition of a table that all stores share.
fn check_dates(manifest: &Manifest, opened: Option<Date>, now: Timestamp) -> Result<(), Refusal> {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let first = match opened {
        Some(opened) => opened.saturating_sub(1.year()),
        None => today.saturating_sub(DAYS_BACK_MAX.days()),
    };
    let last = today.saturating_add(2.days());
    let dated = manifest.units.iter().filter_map(|facts| Some((facts.unit, facts.unit.date()?)));
    match dated.into_iter().find(|(_, date)| *date < first || *date > last) {
        Some((unit, _)) => Err(Refusal::new(
            QuarantineReason::DateOutsideBatch,
            format!(
                "manifest: units: must lie between {first} (a year before the store opened, or {DAYS_BACK_MAX} days ago) and {last}, got {unit}"
            ),
        )),
        None => Ok(()),
    }
}
