//! The quarantine: list, show, replay.

use futures::{StreamExt, TryStreamExt, stream};
use ribera_storage::batch::{Manifest, QUARANTINE_RECORD_BYTES_MAX, QuarantineReason, QuarantineRecord};
use ribera_storage::object::{Bounded, ObjectMeta, ObjectPath, get_at_most, list_all};
use ribera_storage::ports::Ports;
use ribera_storage::{BatchId, Error, ObjectStore, Result, Unit, control, paths};
use serde::{Deserialize, Serialize};

const FOLDER: &str = "quarantine/";
const REPLAYS: &str = "state/replay";

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Of the record in `quarantine/`.
    pub path: String,
    /// `None` for a manifest that could not be read.
    pub batch: Option<BatchId>,
    pub record: QuarantineRecord,
}

/// At most `limit` entries in order of their paths, beginning after `start_after`.
pub async fn list<S: ObjectStore>(
    ports: Ports<'_, S>,
    start_after: Option<&str>,
    limit: usize,
) -> Result<Vec<QuarantineEntry>> {
    read_all(ports.objects, ports.objects.list(FOLDER, start_after, limit).await?).await
}

/// Every record of a batch (a cloned journal's stands beside the first's).
pub async fn show<S: ObjectStore>(ports: Ports<'_, S>, batch: &BatchId) -> Result<Vec<QuarantineEntry>> {
    let prefix = format!("{FOLDER}{}", batch);
    read_all(ports.objects, list_all(ports.objects, &prefix, None).await?).await
}

/// Puts the manifest of a quarantined batch back into the inbox and forgets the verdict; returns
/// the inbox path, for the caller to ingest at once. An error when there is no record of it.
///
/// A replay that dies half way is finished by the next sweep: the intent is kept until the
/// manifest is back.
pub async fn replay<S: ObjectStore>(ports: Ports<'_, S>, batch: &BatchId) -> Result<ObjectPath> {
    let path = paths::quarantine(batch)?;
    let Some(bytes) = ports.objects.get(&path).await? else {
        return Err(Error::config(format!("quarantine: batch: must have a record, got none of {batch}"))
            .with_hint("ribera quarantine list"));
    };
    let record: QuarantineRecord = parse(&path, &bytes)?;
    // The manifest as `done/` keeps it, else as the record does.
    let manifest = match ports.objects.get(&paths::done(batch)?).await? {
        Some(manifest) => manifest,
        None if record.manifest.len() < crate::ingest::QUOTED_BYTES_MAX => record.manifest.into_bytes().into(),
        None => {
            return Err(Error::config(format!(
                "quarantine: manifest: must still be kept whole, got only a part of that of {batch}"
            ))
            .with_hint(format!("ribera-agent extract --force, in store {}", batch.store)));
        }
    };
    if let Ok(manifest) = Manifest::from_json(&manifest) {
        refuse_early_days(ports, &manifest, record.received_at).await?;
    }
    ports.objects.put(&paths::replay(batch)?, manifest.into()).await?;
    finish_replay(ports, batch).await?;
    paths::inbox(batch)
}

/// A replayed manifest looks as if it had arrived now. Of a day that was not over when the batch really
/// arrived, but was called closed, that would make a proof: such days are extracted again instead. So
/// are those of a record that does not say when its batch arrived.
async fn refuse_early_days<S: ObjectStore>(
    ports: Ports<'_, S>,
    manifest: &Manifest,
    arrived_at: Option<jiff::Timestamp>,
) -> Result<()> {
    let batch = &manifest.batch;
    let (store, dataset) = futures::try_join!(
        control::load_store(ports.objects, &batch.store),
        control::load_dataset(ports.objects, &batch.dataset)
    )?;
    let (Some(store), Some(dataset)) = (store, dataset) else { return Ok(()) };
    for facts in manifest.units.iter().filter(|facts| facts.is_proven()) {
        let Unit::Day(day) = facts.unit else { continue };
        let was_over = match arrived_at {
            Some(arrived_at) => crate::coverage::is_over(&store, &dataset, day, arrived_at)?,
            None => false,
        };
        if !was_over {
            let arrived_at = arrived_at.map_or("an unknown time".to_owned(), |at| at.to_string());
            return Err(Error::config(format!(
                "quarantine: {batch}: a closed day must have been over when it arrived, got {day} at {arrived_at}: after a replay it would look proven"
            ))
            .with_hint(format!("ribera-agent extract --from {day} --to {day} --force, in store {}", batch.store)));
        }
    }
    Ok(())
}

/// Deletes the records of a batch, because a person has decided that nothing is to be made of it:
/// its days no longer wait for it. That it was discarded, by what reason and when, is kept. Returns
/// how many records there were.
///
/// # Errors
///
/// `Config` when there is no record of the batch.
pub async fn discard<S: ObjectStore>(ports: Ports<'_, S>, batch: &BatchId, reason: &str) -> Result<usize> {
    let entries = show(ports, batch).await?;
    if entries.is_empty() {
        return Err(Error::config(format!("quarantine: batch: must have a record, got none of {batch}"))
            .with_hint("ribera quarantine list"));
    }
    let note = Discarded { batch: batch.clone(), reason: reason.to_owned(), discarded_at: ports.clock.now() };
    ribera_storage::object::put_json(ports.objects, &paths::discarded(batch)?, &note).await?;
    for entry in &entries {
        ports.objects.delete(&ObjectPath::new(entry.path.clone())?).await?;
    }
    Ok(entries.len())
}

/// A person's decision about a refused batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    pub batch: BatchId,
    pub reason: String,
    pub discarded_at: jiff::Timestamp,
}

/// Finishes replays whose call died. One that cannot be finished yet holds up no sweep.
pub(crate) async fn finish_replays<S: ObjectStore>(ports: Ports<'_, S>) -> Result<()> {
    for meta in list_all(ports.objects, &format!("{REPLAYS}/"), None).await? {
        match paths::batch_of(REPLAYS, &meta.path) {
            Ok(batch) => {
                if let Err(error) = finish_replay(ports, &batch).await {
                    tracing::warn!(%batch, %error, "replay not finished; the next sweep tries again");
                }
            }
            Err(_) => ports.objects.delete(&meta.path).await?,
        }
    }
    Ok(())
}

/// Decision first, manifest last: an ingest call in between finds nothing or all of it.
async fn finish_replay<S: ObjectStore>(ports: Ports<'_, S>, batch: &BatchId) -> Result<()> {
    let intent = paths::replay(batch)?;
    let Some(manifest) = ports.objects.get(&intent).await? else { return Ok(()) };
    let done = paths::done(batch)?;
    // Another manifest there came meanwhile, from a cloned journal: its verdict stands, and what is
    // replayed now is the second of the two.
    if ports.objects.get(&done).await?.is_none_or(|standing| standing == manifest) {
        ports.objects.delete(&paths::ack(batch)?).await?;
        ports.objects.delete(&done).await?;
        ports.objects.delete(&paths::quarantine(batch)?).await?;
    }
    let inbox = paths::inbox(batch)?;
    if let Err(error) = ports.objects.put_if_absent(&inbox, manifest.clone().into()).await
        && ports.objects.get(&inbox).await? != Some(manifest)
    {
        return Err(error);
    }
    ports.objects.delete(&intent).await
}

async fn read_all<S: ObjectStore>(objects: &S, listed: Vec<ObjectMeta>) -> Result<Vec<QuarantineEntry>> {
    let read = stream::iter(&listed).map(async |meta| {
        let record = match get_at_most(objects, &meta.path, QUARANTINE_RECORD_BYTES_MAX).await? {
            Bounded::Absent => return Ok(None),
            Bounded::Whole(part) => {
                parse(&meta.path, &part.bytes).unwrap_or_else(|error| unreadable(meta, &error.line()))
            }
            Bounded::TooLarge => unreadable(meta, &format!("larger than {QUARANTINE_RECORD_BYTES_MAX} bytes")),
        };
        Ok::<_, Error>(Some(QuarantineEntry { path: meta.path.to_string(), batch: batch_of(&meta.path), record }))
    });
    Ok(read.buffered(CONCURRENCY).try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

/// The batch of `quarantine/STORE/DATASET/POSITION.json` or `…/POSITION~HASH.json`.
pub(crate) fn batch_of(path: &ObjectPath) -> Option<BatchId> {
    let name = path.as_str().strip_prefix(FOLDER)?.strip_suffix(".json")?;
    name.split('~').next()?.parse().ok()
}

/// Stands for a record that cannot be read: it is listed like the others, and hides none of them.
fn unreadable(meta: &ObjectMeta, why: &str) -> QuarantineRecord {
    QuarantineRecord {
        reason: QuarantineReason::ManifestInvalid,
        detail: format!("{}: the record cannot be read: {why}", meta.path),
        manifest_path: String::new(),
        manifest: String::new(),
        units: Vec::new(),
        quarantined_at: meta.modified,
        received_at: None,
    }
}

fn parse(path: &ObjectPath, bytes: &[u8]) -> Result<QuarantineRecord> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::data(format!("{path}: is not a quarantine record")).with_source(error))
}
