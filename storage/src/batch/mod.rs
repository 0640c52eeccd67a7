//! The batch contract between agents and functions: manifest, facts, acknowledgement,
//! quarantine. JSON, versioned; manifests of the previous contract version are accepted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decimal::ExactDecimal;
use crate::delta::tags::is_column_name;
use crate::error::{Error, Result};
use crate::ids::{BatchId, Month, Position, Unit};
use crate::text::{self, quoted};

mod form;

/// The contract version this build writes. Version 1 is accepted too: it also had `kind`, `mode` and
/// `opens_epoch`, of which only batches that replace their units are taken (decision 0014).
pub const CONTRACT_VERSION: u32 = 2;

/// Files of no more rows are not compressed, in landing and in the lake: so few values compress to
/// nothing less (8 rows of 11 columns: 2,713 bytes with zstd, 2,651 without; from 32 rows on it
/// pays), and setting up a codec for each column takes longer than writing them.
pub const ROWS_PLAIN_MAX: u64 = 16;

/// Rows and sums of some rows: of a file, or counted by the source itself. Sums are by the
/// dataset's audit columns; NULL counts as nothing; without rows every sum is 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub rows: u64,
    #[serde(default)]
    pub sums: BTreeMap<String, ExactDecimal>,
}

impl Facts {
    /// Equal rows, and equal sums where a sum that is absent counts as 0.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let of = |facts: &Self, name: &str| facts.sums.get(name).copied().unwrap_or(ExactDecimal::ZERO);
        self.rows == other.rows
            && self.sums.keys().chain(other.sums.keys()).all(|name| of(self, name) == of(other, name))
    }

    /// Adds `other` to this; an error when a sum overflows 38 digits.
    ///
    /// # Errors
    ///
    /// `Reject` when a sum would not fit 38 digits, or the two have other sums.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.rows = self.rows.checked_add(other.rows).ok_or_else(|| Error::reject("rows: do not fit 64 bits"))?;
        for (name, sum) in &other.sums {
            let total = self.sums.entry(name.clone()).or_insert(ExactDecimal::ZERO);
            *total = total
                .checked_add(*sum)
                .ok_or_else(|| Error::reject(format!("sum of {name}: does not fit 38 digits")))?;
        }
        Ok(())
    }
}

/// What a batch says of one unit (see [`Unit`]): most often one business day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitFacts {
    pub unit: Unit,
    /// Of the file's rows. A unit without rows is a fact too.
    pub file: Facts,
    /// Counted by the source in separate queries, equal before and after the extraction; `None`
    /// when the source would not hold still or could not be asked: the unit is "not proven".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Facts>,
    /// The day was over at the source (by its own clock and the dataset's rule) when extracted.
    pub closed: bool,
    /// When the rows were read, by the agent's clock. For people only: never compared.
    pub extracted_at: Timestamp,
}

impl UnitFacts {
    /// See [`is_proven`].
    pub fn is_proven(&self) -> bool {
        is_proven(self.closed, self.audit.as_ref(), &self.file)
    }
}

/// The one rule of what is proven: the unit was over at the source, and the source's own audit
/// equals the rows.
pub fn is_proven(closed: bool, audit: Option<&Facts>, rows: &Facts) -> bool {
    closed && audit.is_some_and(|audit| audit.agrees_with(rows))
}

/// The data file of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    pub path: String,
    pub bytes: u64,
    /// Hexadecimal, lower case.
    pub sha256: String,
    pub rows: u64,
}

/// The small object in `inbox/` that makes a batch exist. Put only if absent, after the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "form::ManifestForm")]
pub struct Manifest {
    pub contract: u32,
    pub batch: BatchId,
    pub dataset_version: u32,
    /// The month all units lie in; `None` for a whole dimension table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
    pub file: FileFacts,
    /// In order of `unit`, without repeats; the file's rows are in the same order.
    pub units: Vec<UnitFacts>,
    pub agent: AgentFacts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentFacts {
    pub version: String,
    /// Random, made with the journal: tells a cloned or restored journal from the first.
    pub journal_id: String,
    pub extraction_started_at: Timestamp,
    pub extraction_finished_at: Timestamp,
}

impl Manifest {
    /// Reads and checks what can be checked without the dataset or the file.
    ///
    /// # Errors
    ///
    /// `Reject` when it is not JSON of a manifest, or breaks a rule of [`Self::validate`].
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(Error::reject(format!(
                "manifest: must be at most {MANIFEST_BYTES_MAX} bytes, got {}",
                bytes.len()
            )));
        }
        // The message quotes names that the store chose.
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::reject(format!("manifest: {}", text::line(&error.to_string()))))?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// As JSON, the form that lies in the inbox.
    ///
    /// # Errors
    ///
    /// `Bug` when it does not serialise, which it always does.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::bug("manifest does not serialise").with_source(error))
    }

    /// Checks what can be checked without the dataset or the file.
    ///
    /// # Errors
    ///
    /// `Reject`, naming the field, the rule and the value got.
    pub fn validate(&self) -> Result<()> {
        let bad =
            |field: &str, rule: &str, got: String| Err(Error::reject(format!("manifest: {field}: {rule}, got {got}")));
        if self.contract == 0 || self.contract > CONTRACT_VERSION {
            return bad("contract", &format!("must be 1 to {CONTRACT_VERSION}"), self.contract.to_string());
        }
        if self.units.is_empty() || self.units.len() > UNITS_MAX {
            return bad("units", &format!("must be 1 to {UNITS_MAX}"), self.units.len().to_string());
        }
        if let Some(pair) = self.units.windows(2).find(|pair| pair[0].unit >= pair[1].unit) {
            return bad(
                "units",
                "must be in order and without repeats",
                format!("{} then {}", pair[0].unit, pair[1].unit),
            );
        }
        for facts in &self.units {
            if facts.unit.date().map(Month::of) != self.month {
                return bad(
                    "units",
                    &format!("must lie in month {:?}", self.month.map(String::from)),
                    facts.unit.to_string(),
                );
            }
        }
        for facts in &self.units {
            let all = std::iter::once(&facts.file).chain(&facts.audit);
            if let Some(name) = all.flat_map(|facts| facts.sums.keys()).find(|name| !is_column_name(name)) {
                return bad("units.sums", "names must be columns' names", quoted(name));
            }
        }
        let rows = self.units.iter().try_fold(0_u64, |sum, facts| sum.checked_add(facts.file.rows));
        let file = &self.file;
        if rows != Some(file.rows) {
            let total = rows.map_or_else(|| "more than 64 bits hold".to_owned(), |rows| rows.to_string());
            return bad("file.rows", &format!("must be the units' total, {total}"), file.rows.to_string());
        }
        if file.sha256.len() != 64 || !file.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return bad("file.sha256", "must be 64 hexadecimal digits", quoted(&file.sha256));
        }
        Ok(())
    }
}

/// Larger than the manifest of any month of days with 20 audit sums.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// Units of a batch at most: the days of a month.
pub const UNITS_MAX: usize = 31;

/// Bytes of a [`Differing`] list at most: some ten thousand units.
pub const DIFFERING_BYTES_MAX: usize = 1 << 20;

/// Bytes of a [`QuarantineRecord`] at most. It is written by the central side, which keeps the
/// manifest's text up to a quarter of that.
pub const QUARANTINE_RECORD_BYTES_MAX: usize = 256 << 10;

/// Units that were proven once and whose rows at the source have since been found to differ: they
/// are not complete until the lake holds a newer batch of them. The agent publishes the list when it
/// finds the difference, before the extraction that mends it; a list that is out of date errs on
/// the side of doubt, because each unit names the position that ends it. Keys that this version does
/// not know are passed over: a newer agent may publish more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Differing {
    /// In order of `unit`; empty when nothing differs any more.
    pub units: Vec<DifferingUnit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingUnit {
    pub unit: Unit,
    /// The lowest position whose batch brings what the source holds now.
    pub awaits: Position,
}

/// What became of a batch, in `acks/`; written once it is committed or quarantined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub batch: BatchId,
    /// SHA-256 of the manifest as it was received.
    pub manifest_sha256: String,
    pub outcome: AckOutcome,
    pub acknowledged_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AckOutcome {
    /// In the lake since `version`; what the lake holds of each unit, for the agent to compare.
    Committed {
        version: u64,
        rows: u64,
        units: Vec<(Unit, Facts)>,
    },
    /// Every unit had been won already by a higher position.
    Superseded,
    Quarantined {
        reason: QuarantineReason,
        detail: String,
    },
}

/// Why a batch was refused. Stable: shown by commands, counted by alerts, known to agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineReason {
    /// The manifest is not JSON of the contract, or contradicts itself.
    ManifestInvalid,
    /// The manifest names another store, dataset or position than its path.
    ManifestMisplaced,
    /// The data file did not arrive within 15 minutes of its manifest.
    FileAbsent,
    /// Bytes or SHA-256 differ from the manifest.
    FileHashMismatch,
    /// Not readable as Parquet (damaged, truncated, empty, something else).
    FileUnreadable,
    /// Decodes to more than the limits allow.
    LimitExceeded,
    UnknownStore,
    UnknownDataset,
    UnknownDatasetVersion,
    /// A column is absent, unknown or of another type.
    SchemaMismatch,
    NullInKey,
    DuplicateKey,
    /// A row's business date lies outside the batch's units, rows are out of order, or a unit lies
    /// before the store opened or in the future.
    DateOutsideBatch,
    /// A row names another store than the sender.
    StoreMismatch,
    RowsMismatch,
    SumsMismatch,
    /// A `reject` check of the dataset failed.
    CheckFailed,
    /// The same position was accepted before with another content: the agent takes a new epoch.
    ClonedJournal,
    /// The batch failed in the same way in every sweep. The detail has the error.
    FailsAlways,
}

impl QuarantineReason {
    /// The stable text form, such as `file_absent`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManifestInvalid => "manifest_invalid",
            Self::ManifestMisplaced => "manifest_misplaced",
            Self::FileAbsent => "file_absent",
            Self::FileHashMismatch => "file_hash_mismatch",
            Self::FileUnreadable => "file_unreadable",
            Self::LimitExceeded => "limit_exceeded",
            Self::UnknownStore => "unknown_store",
            Self::UnknownDataset => "unknown_dataset",
            Self::UnknownDatasetVersion => "unknown_dataset_version",
            Self::SchemaMismatch => "schema_mismatch",
            Self::NullInKey => "null_in_key",
            Self::DuplicateKey => "duplicate_key",
            Self::DateOutsideBatch => "date_outside_batch",
            Self::StoreMismatch => "store_mismatch",
            Self::RowsMismatch => "rows_mismatch",
            Self::SumsMismatch => "sums_mismatch",
            Self::CheckFailed => "check_failed",
            Self::ClonedJournal => "cloned_journal",
            Self::FailsAlways => "fails_always",
        }
    }
}

/// One object in `quarantine/` per rejected batch. The data file stays in `landing/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    pub reason: QuarantineReason,
    /// What was found, naming field, rule and value.
    pub detail: String,
    /// The inbox path of the manifest.
    pub manifest_path: String,
    /// The manifest as received, cut at 64 KiB when it is not readable.
    pub manifest: String,
    /// The units it would have covered, as far as they could be read.
    #[serde(default)]
    pub units: Vec<Unit>,
    pub quarantined_at: Timestamp,
    /// The manifest was put then, by the object store's clock. A replay must not make it younger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
}
