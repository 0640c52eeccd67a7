//! The actions of Delta log entries, as their JSON has them. Unknown keys are passed over, as the
//! protocol asks.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetDefinition, evolution};
use crate::delta::log::path;
use crate::delta::units::cursor::UnitCursor;
use crate::delta::units::facts::{FACTS_TAG, FactsTag, LoadedFacts};
use crate::delta::units::tags::{self, UNITS_TAG, UnitProof, UnitTag};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;
use crate::ids::{BatchId, DatasetName, Position, StoreId, StoreUnit, Unit};
use crate::object::ObjectPath;
use crate::text::quoted;

/// The tag of a file's hash.
const SHA256_TAG: &str = "ribera.sha256";

/// The tag of the first and the last store of a file: `s1,s9`. It says of which stores a file may hold
/// rows without the tag of its units.
const STORES_TAG: &str = "ribera.stores";

/// One line of a log entry. A line of another kind parses to an action with no field set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<CommitInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<AddFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<RemoveFile>,
}

impl Metadata {
    /// The metadata of the table once it takes files of `dataset`.
    ///
    /// # Errors
    ///
    /// `Data` when the table's schema cannot be read.
    pub fn evolved_to(&self, dataset: &DatasetDefinition) -> Result<Self> {
        let schema_string = evolution::evolved_schema(&self.schema_string, dataset)?;
        Ok(Self { schema_string, ..self.clone() })
    }
}

/// What a program must know to read or to write the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    /// From writer version 7 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
    /// From reader version 3 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
}

/// A writer feature of our own. By the protocol a writer that does not know a feature must not write;
/// readers look at the reader version alone.
pub const WRITER_FEATURE: &str = "ribera";

/// The features that Ribera's writer keeps: those of writer version 2, and our own.
const WRITER_FEATURES: [&str; 3] = ["appendOnly", "invariants", WRITER_FEATURE];

/// The property of a table from which nothing may be removed. Every correction of ours removes rows.
pub(in crate::delta) const APPEND_ONLY: &str = "delta.appendOnly";

impl Protocol {
    /// What Ribera writes: every engine reads it, no other program writes it.
    pub fn ours() -> Self {
        Self {
            min_reader_version: 1,
            min_writer_version: 7,
            writer_features: Some(WRITER_FEATURES.map(str::to_owned).to_vec()),
            reader_features: None,
        }
    }

    /// The action that brings an older table of ours to [`Self::ours`]; nothing if it is there.
    pub fn upgrade(&self) -> Option<Action> {
        let is_ours = self.writer_features.iter().flatten().any(|feature| feature == WRITER_FEATURE);
        (!is_ours).then(|| Action { protocol: Some(Self::ours()), ..Action::default() })
    }

    /// Whether Ribera may read and write a table of this protocol. Why not, if not.
    ///
    /// # Errors
    ///
    /// `Data`, naming the version or feature.
    pub fn check(&self) -> Result<()> {
        let unknown = |feature: &&String| !WRITER_FEATURES.contains(&feature.as_str());
        let features = self.writer_features.iter().flatten();
        let fits = self.min_reader_version <= 1
            && (self.min_writer_version <= 2 || self.min_writer_version == 7)
            && features.clone().find(unknown).is_none()
            && self.reader_features.iter().flatten().next().is_none();
        if fits {
            return Ok(());
        }
        let named: Vec<&str> = features.chain(self.reader_features.iter().flatten()).map(String::as_str).collect();
        Err(Error::data(format!(
            "protocol: must be reader 1 and writer 7 with {}, got reader {} and writer {} with {}: another program has upgraded the table",
            WRITER_FEATURES.join(", "),
            self.min_reader_version,
            self.min_writer_version,
            quoted(&named.join(", "))
        )))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub created_time: Option<i64>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
}

impl Metadata {
    pub(in crate::delta) fn is_append_only(&self) -> bool {
        self.configuration.get(APPEND_ONLY).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A data file of the table. The file was written whole before any entry names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddFile {
    /// Relative to the table, percent-encoded.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: u64,
    /// Unix milliseconds.
    pub modification_time: i64,
    pub data_change: bool,
    /// JSON text; see [`crate::delta::files`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    /// What was read of its facts, if they are in an object of their own: see
    /// [`crate::delta::Table::load_facts`].
    #[serde(skip)]
    pub facts: LoadedFacts,
}

/// A file that is no longer of the table; kept so that older readers may finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveFile {
    pub path: String,
    /// Unix milliseconds.
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl RemoveFile {
    /// Whether a reader since `horizon` (Unix milliseconds) may still need the file.
    pub(in crate::delta) fn is_needed(&self, horizon: i64) -> bool {
        self.deletion_timestamp.is_none_or(|at| at >= horizon)
    }
}

/// Who wrote an entry and why. The protocol lets a program write any JSON here: what does not fit is
/// passed over, and never makes a table unreadable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "serde_json::Value")]
pub struct CommitInfo {
    /// Unix milliseconds by the writer's clock.
    pub timestamp: i64,
    pub operation: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub operation_parameters: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_blind_append: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ribera: Option<RiberaInfo>,
}

impl From<serde_json::Value> for CommitInfo {
    fn from(value: serde_json::Value) -> Self {
        let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        let parameters = value.get("operationParameters").and_then(serde_json::Value::as_object);
        Self {
            timestamp: value.get("timestamp").and_then(serde_json::Value::as_i64).unwrap_or_default(),
            operation: text("operation").unwrap_or_default(),
            operation_parameters: parameters.cloned().into_iter().flatten().collect(),
            is_blind_append: value.get("isBlindAppend").and_then(serde_json::Value::as_bool),
            engine_info: text("engineInfo"),
            ribera: value.get("ribera").and_then(|ribera| RiberaInfo::deserialize(ribera).ok()),
        }
    }
}

/// What Ribera notes in its own entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RiberaInfo {
    /// Random: tells one's own entry from another's after any doubt.
    pub write_id: String,
    /// What this entry settled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<CommittedBatch>,
}

/// A batch that an entry settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommittedBatch {
    /// Text form of a [`BatchId`].
    pub id: String,
    pub manifest_sha256: String,
    /// Rows of it that entered the lake.
    pub rows: u64,
}

impl CommittedBatch {
    /// The batch that `id` names.
    ///
    /// # Errors
    ///
    /// `Reject` when the text names no batch.
    pub fn batch(&self) -> Result<BatchId> {
        self.id.parse()
    }
}

/// The stores of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stores<'a> {
    One(&'a str),
    /// Both among them.
    Between(&'a str, &'a str),
    /// Nobody knows.
    Any,
}

impl Stores<'_> {
    /// Whether a row of `store` may be in the file.
    pub fn may_hold(self, store: &str) -> bool {
        match self {
            Self::One(one) => one == store,
            Self::Between(first, last) => (first..=last).contains(&store),
            Self::Any => true,
        }
    }

    /// The same of some stores.
    pub fn may_hold_any(self, stores: &BTreeSet<StoreId>) -> bool {
        match self {
            Self::One(one) => one.parse().is_ok_and(|one: StoreId| stores.contains(&one)),
            Self::Between(first, last) => match (first.parse::<StoreId>(), last.parse::<StoreId>()) {
                (Ok(first), Ok(last)) if first <= last => stores.range(first..=last).next().is_some(),
                _ => true,
            },
            Self::Any => true,
        }
    }
}

impl AddFile {
    /// Where the file lies in the object store.
    ///
    /// # Errors
    ///
    /// `Data` when the path leaves the table's folder or is none.
    pub fn object_path(&self, table: &DatasetName) -> Result<ObjectPath> {
        path::object_path(table, &self.path)
    }

    /// The facts of every unit in the file, in order of store and unit. A foreign file has none. What is
    /// in an object of its own must have been read: see [`crate::delta::Table::load_facts`].
    ///
    /// # Errors
    ///
    /// `Data` when they cannot be read.
    pub fn units(&self) -> Result<Vec<UnitTag>> {
        self.of_all(tags::decode)
    }

    /// The same one after the other: those of a large file are too many to hold.
    pub(in crate::delta) fn unit_cursor(&self) -> Result<UnitCursor<'_>> {
        self.texts().map(UnitCursor::new).map_err(|error| error.context(&self.path))
    }

    /// The same of one store.
    ///
    /// # Errors
    ///
    /// `Data` when what is said of the store cannot be read.
    pub fn units_of(&self, store: &StoreId) -> Result<Vec<UnitTag>> {
        self.of_one(store, |text| tags::decode_of(text, store))
    }

    /// The stores whose rows the file may hold.
    pub fn stores(&self) -> Stores<'_> {
        if let Some(store) = path::store_of(&self.path) {
            return Stores::One(store);
        }
        let bounds = self.tag(STORES_TAG).and_then(|tag| tag.split_once(',')).or_else(|| self.stores_by_statistics());
        bounds.map_or(Stores::Any, |(first, last)| Stores::Between(first, last))
    }

    /// Of a file of another program: every reader skips files by these bounds, so rows outside them
    /// are seen by nobody.
    fn stores_by_statistics(&self) -> Option<(&str, &str)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Bounds<'a> {
            #[serde(borrow)]
            min_values: Store<'a>,
            #[serde(borrow)]
            max_values: Store<'a>,
        }
        #[derive(Deserialize)]
        struct Store<'a> {
            store_id: &'a str,
        }
        let bounds: Bounds<'_> = serde_json::from_str(self.stats.as_deref()?).ok()?;
        Some((bounds.min_values.store_id, bounds.max_values.store_id))
    }

    /// The stores of the file's units. A foreign file tells none.
    ///
    /// # Errors
    ///
    /// As [`Self::units`].
    pub fn unit_stores(&self) -> Result<Vec<&str>> {
        Ok(self.texts()?.into_iter().flat_map(tags::stores).collect())
    }

    /// Another program wrote the file, or a checkpoint that lost our tags: nobody knows which batch
    /// its rows came from.
    pub fn is_foreign(&self) -> bool {
        self.units_text().is_none() && self.tag(FACTS_TAG).is_none()
    }

    /// Only Ribera can have written it, and its tags are gone: a checkpoint of another program lost them.
    pub(in crate::delta) fn has_lost_tags(&self) -> bool {
        self.is_foreign() && self.has_our_name()
    }

    /// The file's name is of the form that only Ribera gives (`part-` and 32 hexadecimal digits).
    pub fn has_our_name(&self) -> bool {
        path::is_our_file_name(&self.path)
    }

    /// Units and who won them: cheaper than [`Self::units`].
    ///
    /// # Errors
    ///
    /// As [`Self::units`].
    pub fn unit_positions(&self) -> Result<Vec<(StoreUnit, Position)>> {
        self.of_all(tags::decode_positions)
    }

    /// The same of one store.
    ///
    /// # Errors
    ///
    /// As [`Self::units_of`].
    pub fn unit_positions_of(&self, store: &StoreId) -> Result<Vec<(Unit, Position)>> {
        self.of_one(store, |text| tags::decode_positions_of(text, store))
    }

    /// Calls `take` with the store and proof of every unit: far cheaper than [`Self::units`].
    ///
    /// # Errors
    ///
    /// As [`Self::units`]; some units may have been given before.
    pub fn each_proof<'a>(&'a self, mut take: impl FnMut(&'a str, UnitProof)) -> Result<()> {
        let all =
            self.texts().and_then(|texts| texts.into_iter().try_for_each(|text| tags::each_proof(text, &mut take)));
        all.map_err(|error| error.context(&self.path))
    }

    /// The same of one store.
    ///
    /// # Errors
    ///
    /// As [`Self::units_of`]; some units may have been given before.
    pub fn each_proof_of(&self, store: &StoreId, take: impl FnMut(UnitProof)) -> Result<()> {
        self.of_one(store, |text| tags::each_proof_of(text, store, take))
    }

    fn of_all<T>(&self, read: impl Fn(&str) -> Result<Vec<T>>) -> Result<Vec<T>> {
        let all = self.texts().and_then(|texts| texts.into_iter().map(read).collect::<Result<Vec<_>>>());
        all.map(|all| all.into_iter().flatten().collect()).map_err(|error| error.context(&self.path))
    }

    fn of_one<T>(&self, store: &StoreId, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        self.text_of(store).and_then(read).map_err(|error| error.context(&self.path))
    }

    /// The texts that hold the units of the file, in order; none of a foreign file.
    fn texts(&self) -> Result<Vec<&str>> {
        match self.units_text() {
            Some(text) => self.check_stores(text).map(|()| vec![text]),
            None if self.tag(FACTS_TAG).is_some() => self.facts.texts(),
            None => Ok(Vec::new()),
        }
    }

    fn text_of(&self, store: &StoreId) -> Result<&str> {
        match self.units_text() {
            Some(text) => self.check_stores(text).map(|()| text),
            None if self.tag(FACTS_TAG).is_some() => self.facts.text_of(store),
            None => Ok(""),
        }
    }

    /// Its facts lie in an object of their own and were not read from there.
    #[cfg(feature = "engine")]
    pub(crate) fn has_unread_facts(&self) -> bool {
        self.tag(FACTS_TAG).is_some_and(|tag| tag.parse::<FactsTag>().is_ok()) && !self.facts.has_index()
    }

    /// What the log says of the object that holds the file's facts; `None` when they are in the log.
    pub(in crate::delta) fn facts_tag(&self) -> Result<Option<FactsTag>> {
        self.tag(FACTS_TAG).map(str::parse).transpose()
    }

    /// Where that object lies.
    pub(in crate::delta) fn facts_path(&self, table: &DatasetName) -> Result<ObjectPath> {
        path::object_path(table, &path::facts_file(&self.path))
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.as_ref()?.get(key)?.as_deref()
    }

    /// The first and the last section must be those that the name or the other tag says: a text that
    /// lost its sections must not say that nobody has won anything.
    fn check_stores(&self, text: &str) -> Result<()> {
        let found = tags::ends(text);
        let wanted = match self.stores() {
            Stores::One(store) => Some((store, store)),
            Stores::Between(first, last) => Some((first, last)),
            Stores::Any => None,
        };
        match found.is_some() && found == wanted {
            true => Ok(()),
            false => Err(Error::data(format!(
                "tag {UNITS_TAG}: must begin and end with the stores {wanted:?}, got {found:?}"
            ))),
        }
    }

    /// Says the units of the file by its tag.
    ///
    /// # Errors
    ///
    /// `Reject` when the units cannot be written as a tag that reads back.
    pub fn set_units(&mut self, units: &[UnitTag]) -> Result<()> {
        self.set_text(tags::encode(units)?);
        Ok(())
    }

    pub(in crate::delta) fn set_text(&mut self, text: String) {
        let stores = tags::ends(&text).map(|(first, last)| format!("{first},{last}"));
        let tags = self.tags.get_or_insert_default();
        tags.extend(stores.map(|stores| (STORES_TAG.to_owned(), Some(stores))));
        tags.insert(UNITS_TAG.to_owned(), Some(text));
    }

    /// Says that the facts of the file are in an object of their own.
    pub(in crate::delta) fn set_facts(&mut self, tag: &FactsTag, first: &StoreId, last: &StoreId, loaded: LoadedFacts) {
        let stores = (STORES_TAG.to_owned(), Some(format!("{first},{last}")));
        self.tags.get_or_insert_default().extend([stores, (FACTS_TAG.to_owned(), Some(tag.to_string()))]);
        self.facts = loaded;
    }

    /// Hexadecimal SHA-256 of the file. A foreign file has none.
    pub fn sha256(&self) -> Option<&str> {
        self.tag(SHA256_TAG)
    }

    pub fn set_sha256(&mut self, bytes: &[u8]) {
        let tag = (SHA256_TAG.to_owned(), Some(sha256_hex(bytes)));
        self.tags.get_or_insert_default().extend([tag]);
    }

    /// `numRecords` of the statistics.
    pub fn rows(&self) -> Option<u64> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Rows {
            num_records: Option<u64>,
        }
        serde_json::from_str::<Rows>(self.stats.as_deref()?).ok()?.num_records
    }

    /// The action that takes this file out of the table.
    pub fn removed(&self, at: Timestamp, data_change: bool) -> RemoveFile {
        RemoveFile {
            path: self.path.clone(),
            deletion_timestamp: Some(at.as_millisecond()),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values.clone()),
            size: Some(self.size),
        }
    }

    /// The tag of the units as the log has it.
    pub(in crate::delta) fn units_text(&self) -> Option<&str> {
        self.tag(UNITS_TAG).filter(|text| !text.is_empty())
    }
}

/// The bytes of a log entry: one action a line.
///
/// # Errors
///
/// `Bug` when an action does not serialise, which it always does.
pub fn to_lines(actions: &[Action]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action)
            .map_err(|error| Error::bug("an action does not serialise").with_source(error))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The actions of a log entry.
///
/// # Errors
///
/// `Data` when a line is no action.
pub fn from_lines(bytes: &[u8]) -> Result<Vec<Action>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| {
            serde_json::from_slice(line).map_err(|error| Error::data("a line is not a Delta action").with_source(error))
        })
        .collect()
}
