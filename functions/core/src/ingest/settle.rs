//! What is written once a batch is decided: ledger, ack, `done/`; then the inbox is cleared. Each
//! write is the same whoever does it and however often.

use jiff::Timestamp;
use ribera_storage::batch::{
    Ack, AckOutcome, MANIFEST_BYTES_MAX, Manifest, QUARANTINE_RECORD_BYTES_MAX, QuarantineReason, QuarantineRecord,
};
use ribera_storage::hex::sha256_hex;
use ribera_storage::ledger::{self, LedgerRecord, Timings};
use ribera_storage::object::{ObjectPath, Part, PutOutcome, put_json};
use ribera_storage::ports::Ports;
use ribera_storage::{BatchId, Error, ObjectStore, Result, Unit, paths};

use super::admit::Received;
use super::refusal::Refusal;
use super::validate::CheckWarning;

/// A decision to be written.
pub struct Decision<'a> {
    pub received: &'a Received,
    pub outcome: AckOutcome,
    /// The call began.
    pub started_at: Timestamp,
    pub warnings: &'a [CheckWarning],
}

/// Ledger, ack, `done/`, inbox; the ready record is the caller's to delete, last.
pub async fn record_outcome<S: ObjectStore>(ports: Ports<'_, S>, decision: Decision<'_>) -> Result<()> {
    let received = decision.received;
    let now = ports.clock.now();
    let ack = Ack {
        batch: received.batch.clone(),
        manifest_sha256: received.sha256.clone(),
        outcome: decision.outcome.clone(),
        acknowledged_at: now,
    };
    ledger::record(ports.objects, &ledger_record(decision, now)).await?;
    put_json(ports.objects, &paths::ack(&received.batch)?, &ack).await?;
    close(ports, received).await
}

/// Moves the manifest from the inbox to `done/`.
pub async fn close<S: ObjectStore>(ports: Ports<'_, S>, received: &Received) -> Result<()> {
    let done = paths::done(&received.batch)?;
    let put = ports.objects.put_if_absent(&done, received.bytes.clone().into()).await;
    if !matches!(put, Ok(PutOutcome::Created)) {
        // After any doubt, what stands there decides. Another manifest there is a clone's: the next
        // reading of the inbox finds that out, so the inbox stays as it is.
        match ports.objects.get(&done).await? {
            Some(standing) if standing == received.bytes => {}
            Some(_) => return Err(Error::retry(format!("{done}: holds another manifest"))),
            None => return Err(put.err().unwrap_or_else(|| Error::retry(format!("{done}: vanished")))),
        }
    }
    ports.objects.delete(&received.path).await
}

/// Quarantines a batch whose path names it.
pub async fn quarantine<S: ObjectStore>(
    ports: Ports<'_, S>,
    received: &Received,
    refusal: &Refusal,
    started_at: Timestamp,
) -> Result<()> {
    let record = quarantine_record(received, refusal, ports.clock.now());
    put_json(ports.objects, &paths::quarantine(&received.batch)?, &record).await?;
    let outcome = AckOutcome::Quarantined { reason: refusal.reason, detail: refusal.detail.clone() };
    record_outcome(ports, Decision { received, outcome, started_at, warnings: &[] }).await
}

/// Quarantines what came from a cloned journal. The first's record, ack and `done/` stay: the
/// clone's agent sees there another manifest's hash and takes the next epoch.
pub async fn quarantine_clone<S: ObjectStore>(ports: Ports<'_, S>, received: &Received) -> Result<Refusal> {
    let refusal = Refusal::new(
        QuarantineReason::ClonedJournal,
        format!(
            "manifest: {}: its number must not have been used before with another content, got SHA-256 {}: the journal was cloned or restored",
            received.batch, received.sha256
        ),
    );
    let record = quarantine_record(received, &refusal, ports.clock.now());
    put_json(ports.objects, &paths::quarantine_clone(&received.batch, &received.sha256)?, &record).await?;
    ports.objects.delete(&received.path).await?;
    Ok(refusal)
}

/// Quarantines a manifest that is larger than one may be, without reading it: by name and size. There
/// is no ack, because nobody knows what was sent.
pub async fn quarantine_too_large<S: ObjectStore>(
    ports: Ports<'_, S>,
    path: &ObjectPath,
    batch: &BatchId,
) -> Result<Refusal> {
    let meta = ports.objects.head(path).await?;
    let bytes = meta.as_ref().map_or(0, |meta| meta.bytes);
    let refusal = Refusal::limit("manifest: bytes", MANIFEST_BYTES_MAX as u64, bytes);
    let record = QuarantineRecord {
        reason: refusal.reason,
        detail: refusal.detail.clone(),
        manifest_path: path.to_string(),
        manifest: String::new(),
        units: Vec::new(),
        quarantined_at: ports.clock.now(),
        received_at: meta.map(|meta| meta.modified),
    };
    let named = sha256_hex(format!("{path} {bytes}").as_bytes());
    put_json(ports.objects, &paths::quarantine_clone(batch, &named)?, &record).await?;
    ports.objects.delete(path).await?;
    Ok(refusal)
}

/// Quarantines an inbox object whose path names no batch.
pub async fn quarantine_unreadable<S: ObjectStore>(
    ports: Ports<'_, S>,
    path: &ObjectPath,
    detail: &str,
) -> Result<Option<Refusal>> {
    let read = ports.objects.get_range(path, 0..QUOTED_BYTES_MAX as u64).await?;
    let Some(Part { bytes, modified }) = read else { return Ok(None) };
    let refusal = Refusal::new(QuarantineReason::ManifestMisplaced, detail);
    let record = QuarantineRecord {
        reason: refusal.reason,
        detail: refusal.detail.clone(),
        manifest_path: path.to_string(),
        manifest: kept_text(&bytes),
        units: Vec::new(),
        quarantined_at: ports.clock.now(),
        received_at: Some(modified),
    };
    let mut named = path.as_str().as_bytes().to_vec();
    named.extend_from_slice(&bytes);
    put_json(ports.objects, &paths::quarantine_unreadable(&sha256_hex(&named))?, &record).await?;
    ports.objects.delete(path).await?;
    Ok(Some(refusal))
}

/// Bytes of a manifest's text that its record keeps. `done/` has the whole manifest.
pub(crate) const QUOTED_BYTES_MAX: usize = QUARANTINE_RECORD_BYTES_MAX / 4;

fn quarantine_record(received: &Received, refusal: &Refusal, now: Timestamp) -> QuarantineRecord {
    QuarantineRecord {
        reason: refusal.reason,
        detail: refusal.detail.clone(),
        manifest_path: received.path.to_string(),
        manifest: kept_text(&received.bytes),
        units: received.manifest.as_ref().map(units_of).unwrap_or_default(),
        quarantined_at: now,
        received_at: Some(received.received_at),
    }
}

fn units_of(manifest: &Manifest) -> Vec<Unit> {
    manifest.units.iter().map(|facts| facts.unit).collect()
}

fn kept_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..QUOTED_BYTES_MAX).unwrap_or(bytes)).into_owned()
}

fn ledger_record(decision: Decision<'_>, now: Timestamp) -> LedgerRecord {
    let received = decision.received;
    let manifest = received.manifest.as_ref().ok();
    let file = manifest.map(|manifest| &manifest.file);
    let agent = manifest.map(|manifest| &manifest.agent);
    LedgerRecord {
        batch: received.batch.clone(),
        manifest_sha256: received.sha256.clone(),
        outcome: decision.outcome,
        rows: file.map_or(0, |file| file.rows),
        bytes: file.map_or(0, |file| file.bytes),
        warnings: decision.warnings.iter().map(ToString::to_string).collect(),
        timings: Timings {
            extraction_started_at: agent.map(|agent| agent.extraction_started_at),
            extraction_finished_at: agent.map(|agent| agent.extraction_finished_at),
            received_at: Some(received.received_at),
            started_at: decision.started_at,
            settled_at: now,
        },
    }
}

/// The decision that is on record for a batch, if it is about this very manifest.
pub async fn existing<S: ObjectStore>(objects: &S, batch: &BatchId, sha256: &str) -> Result<Option<AckOutcome>> {
    let Some(bytes) = objects.get(&paths::ack(batch)?).await? else { return Ok(None) };
    let ack: Option<Ack> = serde_json::from_slice(&bytes).ok();
    Ok(ack.filter(|ack| ack.manifest_sha256 == sha256).map(|ack| ack.outcome))
}
