//! Checkpoints: the whole state of a table in one Parquet file, in the classic form that every
//! reader of Delta Lake takes.
//!
//! A checkpoint is due every [`EVERY_SMALL`] versions of a small table, because each entry after it
//! costs a commit one request, and every [`EVERY_LARGE`] of a large one, because writing it (some
//! megabytes) costs more than the entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, MapArray, RecordBatch, StructArray, UInt32Array};
use arrow_schema::{Field, Schema};
use arrow_select::take::take;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::last_checkpoint::LastCheckpoint;
use crate::delta::log::action::{Action, AddFile, Format, Metadata, Protocol, RemoveFile};
use crate::delta::log::snapshot::{Changes, Snapshot};
use crate::delta::units::facts::LoadedFacts;
use crate::delta::{Table, VACUUM_RETENTION};
use crate::error::{Error, Result};
use crate::ids::DatasetName;
use crate::object::ObjectStore;
use crate::ports::Ports;

/// Versions from one checkpoint of a small table to the next.
pub const EVERY_SMALL: u64 = 6;

/// Versions from one checkpoint of a large table to the next.
pub const EVERY_LARGE: u64 = 32;

/// Files of a table that is small: its checkpoint is below a megabyte.
const FILES_SMALL_MAX: usize = 2_000;

/// Whether the version that was just committed gets a checkpoint from its writer.
pub(in crate::delta) fn is_due(version: u64, files: usize) -> bool {
    version.is_multiple_of(if files <= FILES_SMALL_MAX { EVERY_SMALL } else { EVERY_LARGE })
}

/// A checkpoint of no more actions is not compressed: setting up the codec would take its readers
/// longer than the few hundred kilobytes it saves them (measured: a third of a small table's load).
const ACTIONS_PLAIN_MAX: usize = 256;

/// The columns in which nearly all bytes of a checkpoint lie; the others are small or repeat.
const LARGE_COLUMNS: [&[&str]; 4] =
    [&["add", "path"], &["add", "stats"], &["add", "tags", "key_value", "value"], &["remove", "path"]];

/// What is read of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delta) enum Parts {
    /// Removals too: only whoever writes the next checkpoint or vacuums needs them.
    All,
    /// Every file of the table.
    Files,
    /// The same without the files' statistics, which are a good part of a large checkpoint.
    FilesWithoutStatistics,
}

impl<S: ObjectStore> Table<'_, S> {
    /// Writes a checkpoint of the latest version, so that readers need no entries before it.
    /// Any caller may, at any time; the version it is of, or `None` when it stands already.
    ///
    /// # Errors
    ///
    /// `Retry` when the object store does not answer; `Data` when the log cannot be read.
    pub async fn checkpoint(&self, ports: Ports<'_, S>) -> Result<Option<u64>> {
        let Some(mut snapshot) = self.load_latest(Parts::All).await? else { return Ok(None) };
        // Lost tags must not be written down as if they had never been.
        if snapshot.checkpoint == Some(snapshot.version) || snapshot.has_lost_tags() {
            return Ok(None);
        }
        if let Ok(horizon) = ports.clock.now().checked_sub(VACUUM_RETENTION) {
            snapshot.forget_tombstones(horizon);
        }
        let version = snapshot.version;
        let (bytes, size) = write(&snapshot)?;
        let hint = LastCheckpoint {
            version,
            size,
            size_in_bytes: Some(bytes.len() as u64),
            num_of_add_files: Some(snapshot.file_count() as u64),
        };
        self.objects.put(&self.checkpoint_path(version)?, bytes.into()).await?;
        let newer = self.read_last_checkpoint().await.is_some_and(|standing| standing.version > version);
        if !newer {
            let hint = serde_json::to_vec(&hint)
                .map_err(|error| Error::bug("_last_checkpoint does not serialise").with_source(error))?;
            self.objects.put(&self.last_checkpoint_path()?, hint.into()).await?;
        }
        Ok(Some(version))
    }
}

/// The Parquet bytes of a checkpoint and how many actions it holds.
pub(in crate::delta) fn write(snapshot: &Snapshot) -> Result<(Vec<u8>, u64)> {
    let adds: Vec<&AddFile> = snapshot.files().collect();
    let removes: Vec<&RemoveFile> = snapshot.tombstones.values().collect();
    let kinds = [
        ("add", add_rows(&adds)?),
        ("remove", remove_rows(&removes)?),
        ("metaData", metadata_row(&snapshot.metadata)?),
        ("protocol", protocol_row(snapshot.protocol.clone())?),
    ];
    // Each kind has rows of its own; in them the other kinds' columns are null.
    let total: usize = kinds.iter().map(|(_, rows)| rows.len()).sum();
    let (mut fields, mut columns, mut first) = (Vec::new(), Vec::new(), 0);
    for (name, rows) in &kinds {
        let index = |row: usize| (first..first + rows.len()).contains(&row).then(|| (row - first) as u32);
        let indices: UInt32Array = (0..total).map(index).collect();
        fields.push(Field::new(*name, rows.data_type().clone(), true));
        columns.push(take(rows, &indices, None).map_err(encoding)?);
        first += rows.len();
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(encoding)?;
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).map_err(encoding)?);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    if total > ACTIONS_PLAIN_MAX {
        for column in LARGE_COLUMNS {
            properties = properties
                .set_column_compression(ColumnPath::new(column.iter().map(|part| (*part).to_owned()).collect()), zstd);
        }
    }
    let properties = properties.build();
    // No reader needs the arrow schema beside the Parquet one, and all would have to decode it.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).map_err(encoding)?;
    writer.write(&batch).map_err(encoding)?;
    Ok((writer.into_inner().map_err(encoding)?, total as u64))
}

/// The snapshot that a checkpoint's files hold.
pub(in crate::delta) fn read(table: &DatasetName, version: u64, files: &[Bytes], parts: Parts) -> Result<Snapshot> {
    let mut snapshot = Snapshot::empty(table);
    let (mut adds, mut rest) = (Vec::new(), Vec::new());
    for bytes in files {
        read_file(bytes.clone(), parts, &mut adds, &mut rest)?;
    }
    // The schema first: a file's partition key needs the partition columns.
    for action in rest {
        snapshot.apply_action(action, &mut Changes::default())?;
    }
    adds.into_iter().for_each(|add| snapshot.add(add));
    snapshot.version = version;
    snapshot.checkpoint = Some(version);
    snapshot.checked()
}

fn read_file(bytes: Bytes, parts: Parts, adds: &mut Vec<AddFile>, rest: &mut Vec<Action>) -> Result<()> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).map_err(decoding)?;
    let wanted = |path: &[String]| match path {
        [root, ..] if root == "remove" => parts == Parts::All,
        [root, field, ..] if root == "add" && field == "stats" => parts != Parts::FilesWithoutStatistics,
        _ => true,
    };
    let leaves: Vec<usize> = builder
        .parquet_schema()
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| wanted(column.path().parts()))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let reader = builder.with_projection(mask).with_batch_size(4096).build().map_err(decoding)?;
    for batch in reader {
        read_batch(&batch.map_err(decoding)?, adds, rest)?;
    }
    Ok(())
}

fn read_batch(batch: &RecordBatch, adds: &mut Vec<AddFile>, rest: &mut Vec<Action>) -> Result<()> {
    for row in rows_of(batch, "protocol") {
        let protocol = Protocol {
            min_reader_version: row.int("minReaderVersion")?,
            min_writer_version: row.int("minWriterVersion")?,
            writer_features: row.optional_list("writerFeatures"),
            reader_features: row.optional_list("readerFeatures"),
        };
        rest.push(Action { protocol: Some(protocol), ..Action::default() });
    }
    for row in rows_of(batch, "metaData") {
        rest.push(Action { meta_data: Some(read_metadata(&row)?), ..Action::default() });
    }
    for row in rows_of(batch, "add") {
        let add = AddFile {
            path: row.need("path")?,
            partition_values: row.map("partitionValues").unwrap_or_default(),
            size: u64::try_from(row.need_long("size")?).map_err(|_| absent("size"))?,
            modification_time: row.long("modificationTime").unwrap_or_default(),
            data_change: false,
            stats: row.text("stats"),
            tags: row.map("tags"),
            facts: LoadedFacts::default(),
        };
        adds.push(add);
    }
    for row in rows_of(batch, "remove") {
        let remove = RemoveFile {
            path: row.need("path")?,
            deletion_timestamp: row.long("deletionTimestamp"),
            data_change: false,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
        };
        rest.push(Action { remove: Some(remove), ..Action::default() });
    }
    Ok(())
}

fn read_metadata(row: &Row<'_>) -> Result<Metadata> {
    let format = row.structure("format");
    let configuration = row.map("configuration").unwrap_or_default();
    Ok(Metadata {
        id: row.need("id")?,
        name: row.text("name"),
        description: row.text("description"),
        format: Format {
            provider: format
                .as_ref()
                .and_then(|format| format.text("provider"))
                .unwrap_or_else(|| "parquet".to_owned()),
            options: BTreeMap::new(),
        },
        schema_string: row.need("schemaString")?,
        partition_columns: row.list("partitionColumns"),
        created_time: row.long("createdTime"),
        configuration: configuration.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    })
}

/// The rows in which the struct column `name` is set.
fn rows_of<'a>(batch: &'a RecordBatch, name: &str) -> Vec<Row<'a>> {
    let Some(column) = batch.column_by_name(name).and_then(|column| column.as_struct_opt()) else { return Vec::new() };
    (0..column.len()).filter(|row| column.is_valid(*row)).map(|row| Row { column, row }).collect()
}

struct Row<'a> {
    column: &'a StructArray,
    row: usize,
}

impl Row<'_> {
    fn field(&self, name: &str) -> Option<&ArrayRef> {
        self.column.column_by_name(name).filter(|field| field.is_valid(self.row))
    }

    fn text(&self, name: &str) -> Option<String> {
        Some(self.field(name)?.as_string_opt::<i32>()?.value(self.row).to_owned())
    }

    fn need(&self, name: &str) -> Result<String> {
        self.text(name).ok_or_else(|| absent(name))
    }

    fn long(&self, name: &str) -> Option<i64> {
        Some(self.field(name)?.as_primitive_opt::<Int64Type>()?.value(self.row))
    }

    fn need_long(&self, name: &str) -> Result<i64> {
        self.long(name).ok_or_else(|| absent(name))
    }

    fn int(&self, name: &str) -> Result<i32> {
        let value = self.field(name).and_then(|field| field.as_primitive_opt::<Int32Type>());
        value.map(|value| value.value(self.row)).ok_or_else(|| absent(name))
    }

    fn structure(&self, name: &str) -> Option<Row<'_>> {
        Some(Row { column: self.field(name)?.as_struct_opt()?, row: self.row })
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.optional_list(name).unwrap_or_default()
    }

    fn optional_list(&self, name: &str) -> Option<Vec<String>> {
        let items = self.field(name)?.as_list_opt::<i32>()?.value(self.row);
        Some(items.as_string_opt::<i32>()?.into_iter().flatten().map(str::to_owned).collect())
    }

    fn map(&self, name: &str) -> Option<BTreeMap<String, Option<String>>> {
        let map: &MapArray = self.field(name)?.as_map_opt()?;
        let (keys, values) = (map.keys().as_string_opt::<i32>()?, map.values().as_string_opt::<i32>()?);
        let [first, end] = map.value_offsets().get(self.row..self.row + 2)? else { return None };
        let mut pairs = BTreeMap::new();
        for index in usize::try_from(*first).ok()?..usize::try_from(*end).ok()? {
            let value = values.is_valid(index).then(|| values.value(index).to_owned());
            pairs.insert(keys.value(index).to_owned(), value);
        }
        Some(pairs)
    }
}

fn protocol_row(protocol: Protocol) -> Result<ArrayRef> {
    structure(vec![
        ("minReaderVersion", Arc::new(arrow_array::Int32Array::from(vec![protocol.min_reader_version]))),
        ("minWriterVersion", Arc::new(arrow_array::Int32Array::from(vec![protocol.min_writer_version]))),
        // Readers want the column of reader features to be absent or NULL below reader version 3.
        ("writerFeatures", texts_list(protocol.writer_features.as_deref())),
    ])
}

fn metadata_row(metadata: &Metadata) -> Result<ArrayRef> {
    let options =
        texts_map([Some(metadata.format.options.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))))]);
    let format = structure(vec![("provider", texts([Some(metadata.format.provider.as_str())])), ("options", options)])?;
    let configuration =
        texts_map([Some(metadata.configuration.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))))]);
    structure(vec![
        ("id", texts([Some(metadata.id.as_str())])),
        ("name", texts([metadata.name.as_deref()])),
        ("description", texts([metadata.description.as_deref()])),
        ("format", format),
        ("schemaString", texts([Some(metadata.schema_string.as_str())])),
        ("partitionColumns", texts_list(Some(&metadata.partition_columns))),
        ("createdTime", longs([metadata.created_time])),
        ("configuration", configuration),
    ])
}

fn add_rows(adds: &[&AddFile]) -> Result<ArrayRef> {
    let partition_values = texts_map(
        adds.iter().map(|add| Some(add.partition_values.iter().map(|(key, value)| (key.as_str(), value.as_deref())))),
    );
    let tags = texts_map(
        adds.iter()
            .map(|add| add.tags.as_ref().map(|tags| tags.iter().map(|(key, value)| (key.as_str(), value.as_deref())))),
    );
    structure(vec![
        ("path", texts(adds.iter().map(|add| Some(add.path.as_str())))),
        ("partitionValues", partition_values),
        ("size", longs(adds.iter().map(|add| i64::try_from(add.size).ok()))),
        ("modificationTime", longs(adds.iter().map(|add| Some(add.modification_time)))),
        // By the protocol what a checkpoint holds is no change of data.
        ("dataChange", booleans(adds.iter().map(|_| Some(false)))),
        ("stats", texts(adds.iter().map(|add| add.stats.as_deref()))),
        ("tags", tags),
    ])
}

fn remove_rows(removes: &[&RemoveFile]) -> Result<ArrayRef> {
    structure(vec![
        ("path", texts(removes.iter().map(|remove| Some(remove.path.as_str())))),
        ("deletionTimestamp", longs(removes.iter().map(|remove| remove.deletion_timestamp))),
        ("dataChange", booleans(removes.iter().map(|_| Some(false)))),
    ])
}

fn structure(fields: Vec<(&str, ArrayRef)>) -> Result<ArrayRef> {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        fields.into_iter().map(|(name, column)| (Field::new(name, column.data_type().clone(), true), column)).unzip();
    Ok(Arc::new(StructArray::try_new(fields.into(), columns, None).map_err(encoding)?))
}

fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.into_iter().for_each(|value| builder.append_option(value));
    built(builder)
}

/// One list of texts, or NULL.
fn texts_list(items: Option<&[String]>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for item in items.into_iter().flatten() {
        builder.values().append_value(item);
    }
    builder.append(items.is_some());
    Arc::new(builder.finish())
}

fn longs(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let mut builder = Int64Builder::new();
    values.into_iter().for_each(|value| builder.append_option(value));
    built(builder)
}

fn booleans(values: impl IntoIterator<Item = Option<bool>>) -> ArrayRef {
    let mut builder = BooleanBuilder::new();
    values.into_iter().for_each(|value| builder.append_option(value));
    built(builder)
}

fn texts_map<'a, M>(maps: impl IntoIterator<Item = Option<M>>) -> ArrayRef
where
    M: Iterator<Item = (&'a str, Option<&'a str>)>,
{
    // The names that other writers of checkpoints use.
    let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for map in maps {
        let set = map.is_some();
        for (key, value) in map.into_iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(value);
        }
        // Keys and values are appended in pairs, so their numbers agree.
        let _ = builder.append(set);
    }
    Arc::new(builder.finish())
}

fn built(mut builder: impl ArrayBuilder) -> ArrayRef {
    builder.finish()
}

fn absent(name: &str) -> Error {
    Error::data(format!("checkpoint: {name}: must be there, got nothing"))
}

fn encoding(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bug("checkpoint: cannot be encoded").with_source(error)
}

fn decoding(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("checkpoint: is not readable").with_source(error)
}
