//! Batches that fail in sweep after sweep: counted, and in the end quarantined, whatever the cause.
//! A batch that is neither in the lake nor in quarantine would be noticed by nobody.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use ribera_storage::object::{Bounded, ObjectPath, get_at_most, list_all};
use ribera_storage::ports::Ports;
use ribera_storage::{BatchId, ObjectStore, Result, paths};
use serde::{Deserialize, Serialize};

use super::FailureCause;
use ribera_storage::object::put_json;

/// Sweeps in which a batch fails before it is quarantined.
pub const SWEEPS_MAX: u32 = 3;

/// A table or a definition that is broken fails all its batches: an operator gets this long to
/// repair it before they are quarantined (and have to be replayed).
pub const SHARED_FAILS_FOR: SignedDuration = SignedDuration::from_hours(1);

/// An object store that fails now and then is no reason to refuse a batch; one object that never
/// answers is.
pub const RETRY_FAILS_FOR: SignedDuration = SignedDuration::from_hours(24);

const FOLDER: &str = "state/failures";
const RECORD_BYTES_MAX: usize = 16 << 10;
const MESSAGE_CHARACTERS_MAX: usize = 1000;

/// What earlier sweeps noted of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Failing {
    sweeps: u32,
    first_at: Timestamp,
    cause: FailureCause,
    message: String,
}

/// The batches of which failures are noted.
#[derive(Debug, Default)]
pub struct Failures {
    noted: BTreeMap<BatchId, ObjectPath>,
}

impl Failures {
    pub async fn load<S: ObjectStore>(objects: &S) -> Result<Self> {
        let listed = list_all(objects, &format!("{FOLDER}/"), None).await?;
        let noted = listed.into_iter().filter_map(|meta| Some((paths::batch_of(FOLDER, &meta.path).ok()?, meta.path)));
        Ok(Self { noted: noted.collect() })
    }

    /// Notes one more failure; true when the batch has failed often and long enough.
    pub async fn note<S: ObjectStore>(
        &self,
        ports: Ports<'_, S>,
        batch: &BatchId,
        message: &str,
        cause: FailureCause,
    ) -> Result<bool> {
        let path = paths::failing(batch)?;
        let now = ports.clock.now();
        let before = match self.noted.contains_key(batch) {
            true => read(ports.objects, &path).await?.filter(|before| before.cause == cause),
            false => None,
        };
        let failing = Failing {
            sweeps: before.as_ref().map_or(0, |before| before.sweeps).saturating_add(1),
            first_at: before.map_or(now, |before| before.first_at),
            cause,
            message: message.chars().take(MESSAGE_CHARACTERS_MAX).collect(),
        };
        let long_enough = match cause {
            FailureCause::Batch => true,
            FailureCause::Shared => now.duration_since(failing.first_at) >= SHARED_FAILS_FOR,
            FailureCause::Retry => now.duration_since(failing.first_at) >= RETRY_FAILS_FOR,
        };
        put_json(ports.objects, &path, &failing).await?;
        Ok(long_enough && failing.sweeps >= SWEEPS_MAX)
    }

    /// Forgets the notes of batches that no longer fail.
    pub async fn forget_all_but<S: ObjectStore>(
        &self,
        ports: Ports<'_, S>,
        failing: &BTreeSet<&BatchId>,
    ) -> Result<()> {
        for (_, path) in self.noted.iter().filter(|(batch, _)| !failing.contains(batch)) {
            ports.objects.delete(path).await?;
        }
        Ok(())
    }
}

/// A note that cannot be read counts as none: the count begins again.
async fn read<S: ObjectStore>(objects: &S, path: &ObjectPath) -> Result<Option<Failing>> {
    Ok(match get_at_most(objects, path, RECORD_BYTES_MAX).await? {
        Bounded::Whole(part) => serde_json::from_slice(&part.bytes).ok(),
        Bounded::Absent | Bounded::TooLarge => None,
    })
}
