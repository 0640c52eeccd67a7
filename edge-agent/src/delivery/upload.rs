//! From the spool to the object store: data file first, then the manifest that makes the batch
//! exist. Every step may be repeated, and may have had its effect though it failed.

use std::time::Duration;

use bytes::Bytes;
use jiff::civil::DateTime;
use ribera_storage::batch::Manifest;
use ribera_storage::hex::hex;
use ribera_storage::object::{ObjectPath, PutBody, PutOutcome};
use ribera_storage::{Error, ErrorKind, ObjectStore, Result, StoreId, paths};
use sha2::{Digest, Sha256};

use crate::agent::Agent;
use crate::config::Rate;
use crate::journal::{BatchRow, BatchState};
use crate::ports::step;
use crate::report::UploadReport;

const BUFFER_BYTES: usize = 1 << 16;

/// A full or read-only disk is every store's.
fn is_of_this_machine(error: &Error) -> bool {
    ["journal: ", "spool: "].iter().any(|part| error.message().contains(part))
}

/// What became of a manifest that was put.
enum Sent {
    /// It is in the store, put now or before.
    Ours,
    /// Another manifest has its name.
    Theirs,
}

impl<S: ObjectStore> Agent<S> {
    /// Sends what waits: batches under way first, then newest days before the backlog. Gives the stores of which
    /// the object store takes nothing, and why: the others go on.
    ///
    /// # Errors
    /// Retry: the object store cannot be reached. Others are of the journal or the spool.
    pub async fn upload(&self, stores: &[StoreId], report: &mut UploadReport) -> Result<Vec<(StoreId, Error)>> {
        let mut stores = self.served_ids(stores);
        let mut refused = Vec::new();
        for store in stores.clone() {
            let published = self.publish_all_differing(&store).await;
            self.keep_going(published, &store, &mut stores, &mut refused)?;
        }
        loop {
            // Time passes with every batch.
            let (open, held) = self.open_now(&stores);
            let Some(batch) = self.journal.next_to_send(&open)? else {
                if self.journal.next_to_send(&stores)?.is_some() {
                    report.held_until = held;
                }
                return Ok(refused);
            };
            let store = batch.store().clone();
            let sent = self.send(batch, report).await;
            self.keep_going(sent, &store, &mut stores, &mut refused)?;
        }
    }

    /// Leaves a store out that may not be written: no other is the worse for it.
    fn keep_going(
        &self,
        done: Result<()>,
        store: &StoreId,
        stores: &mut Vec<StoreId>,
        refused: &mut Vec<(StoreId, Error)>,
    ) -> Result<()> {
        match done {
            Err(error) if error.kind() == ErrorKind::Config && !is_of_this_machine(&error) => {
                stores.retain(|one| one != store);
                refused.push((store.clone(), error));
                Ok(())
            }
            done => done,
        }
    }

    /// The stores whose hours allow uploads, and when the first of the others may again.
    fn open_now(&self, stores: &[StoreId]) -> (Vec<StoreId>, Option<DateTime>) {
        let mut held: Option<DateTime> = None;
        let mut open = Vec::new();
        for store in stores {
            let now = self.local_now(store);
            if self.uplink.schedule().rate(now.time()) == Rate::Closed {
                held = [held, self.uplink.schedule().opens_at(now)].into_iter().flatten().min();
            } else {
                open.push(store.clone());
            }
        }
        (open, held)
    }

    async fn send(&self, batch: BatchRow, report: &mut UploadReport) -> Result<()> {
        let (store, dataset) = (batch.store().clone(), batch.dataset().clone());
        let begun_at = self.ports.clock.now();
        if !self.file_is_whole(&batch)? {
            self.log(format!(
                "store {store}, dataset {dataset}: file {} is lost or damaged, its days are extracted again",
                batch.file
            ));
            return self.give_up_file(&batch).await;
        }
        let batch = match batch.state {
            BatchState::Spooled => self.number(&batch).await?,
            _ => batch,
        };
        // First the differing days: else coverage could call a day complete that this batch does not repair.
        self.publish_differing(&store, &dataset).await?;
        let path = ObjectPath::new(batch.manifest.file.path.clone())?;
        let local = self.local_now(&store);
        self.uplink.begin(local);
        self.with_retries(async || {
            self.ports.fail_points.hit(step::UPLOAD_FILE)?;
            // Its name holds its hash: whatever is there already is this very file.
            self.ports.objects.put_if_absent(&path, self.ports.disk.body(&batch.file)?).await.map(drop)
        })
        .await?;
        match self.put_manifest(&batch).await? {
            Sent::Ours => {
                self.journal.set_state(batch.id, BatchState::Uploaded, None, self.ports.clock.now())?;
                report.batches += 1;
                report.bytes += batch.bytes;
                self.keep_to_rate(self.uplink.schedule().rate(local.time()), batch.bytes, begun_at).await;
                Ok(())
            }
            Sent::Theirs => self.leave_epoch(&store, &dataset, report).await,
        }
    }

    /// Gives a batch its number, in an epoch that this journal alone uses.
    async fn number(&self, batch: &BatchRow) -> Result<BatchRow> {
        let (store, dataset) = (batch.store(), batch.dataset());
        if self.journal.stream(store, dataset)?.is_none() {
            let epoch = self.claim_epoch(store, dataset).await?;
            self.journal.begin_epoch(store, dataset, epoch, self.ports.clock.now())?;
        }
        self.journal.number(batch, self.ports.clock.now(), |manifest| {
            let Manifest { batch, month, file, .. } = manifest;
            file.path = paths::landing(batch, *month, &file.sha256)?.to_string();
            Ok(())
        })
    }

    /// Puts a manifest, and finds out whose it is when its name is taken.
    async fn put_manifest(&self, batch: &BatchRow) -> Result<Sent> {
        let manifest = &batch.manifest;
        let path = paths::inbox(&manifest.batch)?;
        let body = Bytes::from(batch.text.clone());
        self.with_retries(async || {
            self.ports.fail_points.hit(step::UPLOAD_MANIFEST)?;
            match self.ports.objects.put_if_absent(&path, PutBody::Bytes(body.clone())).await? {
                PutOutcome::Created => Ok(Sent::Ours),
                PutOutcome::Exists => match self.sent_manifest(manifest).await? {
                    Some(found) if found == body => Ok(Sent::Ours),
                    Some(_) => Ok(Sent::Theirs),
                    None => Err(Error::retry(format!("{path}: was there and is gone"))),
                },
            }
        })
        .await
    }

    /// The manifest of this number as the object store has it, in the inbox or done.
    async fn sent_manifest(&self, manifest: &Manifest) -> Result<Option<Bytes>> {
        match self.ports.objects.get(&paths::inbox(&manifest.batch)?).await? {
            Some(found) => Ok(Some(found)),
            None => self.ports.objects.get(&paths::done(&manifest.batch)?).await,
        }
    }

    /// The spool lost a batch's file.
    async fn give_up_file(&self, batch: &BatchRow) -> Result<()> {
        let now = self.ports.clock.now();
        if batch.state == BatchState::Spooled {
            self.journal.forget_unsent(batch, self.ports.clock.now())?;
            return self.prune(&batch.file);
        }
        // The manifest may have arrived before the file was lost: then all is well.
        let sent = self.with_retries(async || self.sent_manifest(&batch.manifest).await).await?;
        if sent.is_some_and(|found| found == batch.text.as_bytes()) {
            return self.journal.set_state(batch.id, BatchState::Uploaded, None, now);
        }
        // Nobody waits for the number: a later batch of the same units wins by its higher one.
        self.journal.forget_unsent(batch, self.ports.clock.now())?;
        self.prune(&batch.file)
    }

    fn file_is_whole(&self, batch: &BatchRow) -> Result<bool> {
        let Some(mut file) = self.ports.disk.open(&batch.file)? else { return Ok(false) };
        let facts = &batch.manifest.file;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    bytes += read as u64;
                    hasher.update(&buffer[..read]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A sector that cannot be read is a damaged file.
                Err(_) => return Ok(false),
            }
        }
        Ok(bytes == facts.bytes && hex(&hasher.finalize()) == facts.sha256)
    }

    /// Waits until the bytes just sent fit the uplink limit, where the object store took them at once.
    async fn keep_to_rate(&self, rate: Rate, bytes: u64, begun_at: jiff::Timestamp) {
        let Rate::BytesPerS(rate) = rate else { return };
        let owed = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let spent = Duration::try_from(self.ports.clock.now().duration_since(begun_at)).unwrap_or_default();
        if let Some(rest) = owed.checked_sub(spent) {
            self.ports.timer.sleep(rest).await;
        }
    }
}
