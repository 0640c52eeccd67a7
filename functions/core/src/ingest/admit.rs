//! Reads a manifest and decides, before its file is touched, whether it is taken.

use bytes::Bytes;
use jiff::Timestamp;
use ribera_storage::batch::{Manifest, ManifestKind, QuarantineReason};
use ribera_storage::dataset::{DatasetDefinition, Mode};
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::ObjectPath;
use ribera_storage::{BatchId, ObjectStore, Result, TableName, paths};

use super::definitions::{Definitions, can_become};
use super::refusal::Refusal;

/// A manifest as it lies in the inbox, with the batch its path names.
#[derive(Debug, Clone)]
pub struct Received {
    pub batch: BatchId,
    pub path: ObjectPath,
    pub bytes: Bytes,
    pub sha256: String,
    /// By the object store's clock, where a listing told.
    pub modified: Option<Timestamp>,
}

/// What reading the inbox and `done/` showed.
#[derive(Debug)]
pub enum Reading {
    /// No such manifest: settled meanwhile, or the event was wrong.
    Absent,
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
    modified: Option<Timestamp>,
) -> Result<Reading> {
    let done_path = paths::done(batch)?;
    let (bytes, done) = futures::try_join!(objects.get(path), objects.get(&done_path))?;
    let Some(bytes) = bytes else { return Ok(Reading::Absent) };
    let sha256 = sha256_hex(&bytes);
    let received = Received { batch: batch.clone(), path: path.clone(), sha256, modified, bytes };
    Ok(match done {
        None => Reading::Fresh(received),
        Some(done) if done == received.bytes => Reading::Repeated(received),
        Some(_) => Reading::Cloned(received),
    })
}

/// A manifest that contradicts nothing known.
#[derive(Debug)]
pub struct Admitted {
    pub received: Received,
    pub manifest: Manifest,
    pub table: TableName,
}

/// Checks the manifest against its path and the definitions. The outer error means that nothing
/// can be decided now.
pub fn admit(received: &Received, definitions: &Definitions) -> Result<Result<Admitted, Refusal>> {
    let manifest = match parse(received) {
        Ok(manifest) => manifest,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let batch = &received.batch;
    if !definitions.knows_store(&batch.store)? {
        let detail = format!("manifest: store: must be declared, got {}", batch.store);
        return Ok(Err(Refusal::new(QuarantineReason::UnknownStore, detail)));
    }
    let Some(latest) = definitions.dataset(&batch.dataset)? else {
        let detail = format!("manifest: dataset: must be declared, got {}", batch.dataset);
        return Ok(Err(Refusal::new(QuarantineReason::UnknownDataset, detail)));
    };
    let of_version = definitions.dataset_version(&batch.dataset, manifest.dataset_version)?;
    let checked = check_against(&manifest, latest, of_version);
    let table = definitions.table(batch)?;
    Ok(checked.map(|()| Admitted { received: received.clone(), manifest, table }))
}

/// The manifest, if it is one and lies where it says.
pub fn parse(received: &Received) -> Result<Manifest, Refusal> {
    let manifest = Manifest::from_json(&received.bytes)
        .map_err(|error| Refusal::new(QuarantineReason::ManifestInvalid, error.message()))?;
    let misplaced = |field: &str, expected: &str, got: &str| {
        let detail = format!("manifest: {field}: must be {expected}, got {}", super::refusal::shown(got));
        Err(Refusal::new(QuarantineReason::ManifestMisplaced, detail))
    };
    if manifest.batch != received.batch {
        return misplaced("batch", &format!("{} as its path says", received.batch), &manifest.batch.to_string());
    }
    if let Some(file) = &manifest.file {
        let expected = paths::landing(&manifest.batch, manifest.month, &file.sha256)
            .map_err(|error| Refusal::new(QuarantineReason::ManifestInvalid, error.message()))?;
        if file.path != expected.as_str() {
            return misplaced("file.path", expected.as_str(), &file.path);
        }
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
    if manifest.kind == ManifestKind::Void {
        return Ok(());
    }
    let invalid = |detail: String| Err(Refusal::new(QuarantineReason::ManifestInvalid, detail));
    if manifest.mode != Mode::Replace && latest.mode != Mode::Upsert {
        return invalid(format!("manifest: mode: must be replace as the dataset says, got {:?}", manifest.mode));
    }
    match manifest.units.iter().find(|facts| !latest.has_unit(facts.unit)) {
        Some(facts) => invalid(format!("manifest: units: must fit a {:?} dataset, got {}", latest.kind, facts.unit)),
        None => Ok(()),
    }
}
