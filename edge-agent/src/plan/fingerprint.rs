//! What a source says of a unit in few bytes.

use std::collections::BTreeMap;

use ribera_storage::Unit;
use ribera_storage::batch::Facts;
use serde::{Deserialize, Serialize};

/// Count, sums and perhaps a hash of a unit's rows. Two that are equal mean that nothing changed,
/// as far as the source can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    #[serde(flatten)]
    pub facts: Facts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// The fingerprints that the source returned, by unit.
pub type Fingerprints = BTreeMap<Unit, Fingerprint>;
