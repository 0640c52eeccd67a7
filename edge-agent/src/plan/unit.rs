//! What the agent knows of one day, moment or table, and how that changes: the one place that says so.

use jiff::Timestamp;
use ribera_storage::Unit;
use ribera_storage::batch::Facts;
use serde::{Deserialize, Serialize};

use crate::plan::Fingerprint;

/// What the agent knows of one unit.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRow {
    pub unit: Unit,
    pub dataset_version: u32,
    /// What the source said when the unit was last extracted or refused.
    pub fingerprint: Fingerprint,
    /// Count and sums of the file last extracted.
    pub facts: Facts,
    pub closed: bool,
    pub proven: bool,
    /// Extracted after it had left the lookback window: looked at no more.
    pub is_final: bool,
    /// To be extracted again, whatever its fingerprint says.
    pub stale: bool,
    /// Extractions in a row that were not proven, were refused, or that the lake did not take over.
    pub tries: u32,
    /// The batch last extracted; 0 if there is none.
    pub batch: i64,
    pub lake: LakeState,
    /// The lake may call the unit complete although the source has moved on.
    pub doubted: bool,
    /// Digest of what decides the values: mapping, zone, salt. `None`: an older program sent them.
    pub values_digest: Option<String>,
    /// The rows cannot be sent as they are: nothing was sent since.
    pub refused: Option<Refusal>,
    pub extracted_at: Timestamp,
}

/// Why a unit's rows cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Column, row and value.
    pub reason: String,
    /// Digest of the mapping that refused them: another one may not.
    pub mapping: String,
    /// Whether the source could say count and sums of the unit.
    pub is_audited: bool,
}

/// What the lake said of the unit's last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LakeState {
    /// Nothing yet.
    Waiting,
    /// It holds what was sent.
    Agrees,
    /// It holds something else.
    Differs,
    /// It refused the batch.
    Quarantined,
}

impl LakeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Agrees => "agrees",
            Self::Differs => "differs",
            Self::Quarantined => "quarantined",
        }
    }
}

/// What happens to a unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A batch with the unit is in the spool.
    Extracted {
        batch: i64,
        dataset_version: u32,
        fingerprint: Fingerprint,
        facts: Facts,
        closed: bool,
        proven: bool,
        is_final: bool,
        values_digest: String,
    },
    /// A value of its rows does not fit. `None`: the source could not even say count and sums.
    Refused { dataset_version: u32, fingerprint: Option<Fingerprint>, closed: bool, reason: String, mapping: String },
    /// The lake answered for the unit's last batch. `again`: the unit shall be extracted once more.
    Acknowledged { lake: LakeState, again: bool },
    /// The source's rows are not those that were extracted.
    FoundDiffering,
    /// The file in the spool is lost, or the lake's epoch is not this journal's.
    Lost,
    /// What the lake holds came from another journal.
    NotOurs,
}

impl UnitRow {
    /// A unit of which nothing is known yet.
    pub fn new(unit: Unit, now: Timestamp) -> Self {
        Self {
            unit,
            dataset_version: 0,
            fingerprint: Fingerprint::default(),
            facts: Facts::default(),
            closed: false,
            proven: false,
            is_final: false,
            stale: false,
            tries: 0,
            batch: 0,
            lake: LakeState::Waiting,
            doubted: false,
            values_digest: None,
            refused: None,
            extracted_at: now,
        }
    }

    /// Sent after closing, and proven: coverage may call it complete.
    pub fn is_settled(&self) -> bool {
        self.closed && self.proven
    }

    /// Whether the unit was sent by another version of the dataset, or the same rows would be sent with other values.
    pub fn is_of_another_definition(&self, dataset_version: u32, values_digest: &str) -> bool {
        self.dataset_version != dataset_version
            || self.values_digest.as_deref().is_some_and(|digest| digest != values_digest)
    }

    /// The state after `event`.
    #[must_use]
    pub fn after(self, event: Event, now: Timestamp) -> Self {
        match event {
            Event::Extracted {
                batch,
                dataset_version,
                fingerprint,
                facts,
                closed,
                proven,
                is_final,
                values_digest,
            } => {
                let before = if self.fingerprint == fingerprint { self.tries } else { 0 };
                Self {
                    doubted: self.doubted || (self.is_settled() && self.facts != facts),
                    // What was refused before and fits now is no failure of this try.
                    tries: if self.refused.is_some() { 0 } else { before } + u32::from(!proven),
                    unit: self.unit,
                    dataset_version,
                    fingerprint,
                    facts,
                    closed,
                    proven,
                    is_final,
                    stale: false,
                    batch,
                    lake: LakeState::Waiting,
                    values_digest: Some(values_digest),
                    refused: None,
                    extracted_at: now,
                }
            }
            Event::Refused { dataset_version, fingerprint, closed, reason, mapping } => {
                let is_audited = fingerprint.is_some();
                let found = fingerprint.unwrap_or_default();
                let again = self.refused.as_ref().is_some_and(|refusal| refusal.is_audited == is_audited);
                let moved = !is_audited || self.fingerprint != found;
                Self {
                    doubted: self.doubted || (self.is_settled() && moved),
                    tries: if again && self.fingerprint == found { self.tries + 1 } else { 1 },
                    dataset_version,
                    // Nothing was sent with it: it shows only whether the rows have changed since.
                    fingerprint: found,
                    closed: closed || self.closed,
                    stale: false,
                    refused: Some(Refusal { reason, mapping, is_audited }),
                    extracted_at: now,
                    ..self
                }
            }
            Event::Acknowledged { lake, again } => {
                let failed = lake != LakeState::Agrees;
                let stale = self.refused.is_none() && (self.stale || again);
                Self {
                    doubted: self.doubted && (failed || stale || self.refused.is_some()),
                    tries: match () {
                        () if self.refused.is_some() => self.tries,
                        () if failed => self.tries + 1,
                        () if self.proven => 0,
                        () => self.tries,
                    },
                    lake,
                    stale,
                    ..self
                }
            }
            Event::FoundDiffering if self.is_settled() => Self { stale: self.refused.is_none(), doubted: true, ..self },
            Event::FoundDiffering => self,
            Event::Lost => Self { stale: self.refused.is_none(), ..self },
            Event::NotOurs => Self { doubted: true, ..self },
        }
    }
}
