//! Writes a checkpoint row group by row group: what is held is the encoded bytes and one row group.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray, UInt32Array};
use arrow_schema::{Field, Schema};
use arrow_select::take::take;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::index::{FileBounds, Group, INDEX_KEY, Index};
use crate::delta::log::action::{AddFile, Metadata, Protocol, RemoveFile};
use crate::error::{Error, Result};
use crate::hex::sha256_hex;

/// A checkpoint of no more actions is not compressed: setting up the codec would take its readers
/// longer than the few hundred kilobytes it saves them (measured: a third of a small table's load).
const ACTIONS_PLAIN_MAX: usize = 256;

/// The columns in which nearly all bytes of a checkpoint lie; the others are small or repeat.
const LARGE_COLUMNS: [&[&str]; 4] =
    [&["add", "path"], &["add", "stats"], &["add", "tags", "key_value", "value"], &["remove", "path"]];

/// A checkpoint's bytes and what they hold.
pub(in crate::delta) struct Written {
    pub bytes: Vec<u8>,
    pub actions: u64,
    pub files: u64,
}

/// Takes the files of a table in order of [`super::order_of`], then its removals.
pub(in crate::delta) struct CheckpointWriter<'a> {
    protocol: &'a Protocol,
    metadata: &'a Metadata,
    group_rows_max: usize,
    writer: Option<ArrowWriter<Vec<u8>>>,
    adds: AddRows,
    removes: RemoveRows,
    /// Of the files that wait to be written.
    bounds: Option<FileBounds>,
    index: Index,
}

impl<'a> CheckpointWriter<'a> {
    pub(in crate::delta) fn new(protocol: &'a Protocol, metadata: &'a Metadata, group_rows_max: usize) -> Self {
        Self {
            protocol,
            metadata,
            group_rows_max,
            writer: None,
            adds: AddRows::default(),
            removes: RemoveRows::default(),
            bounds: None,
            index: Index::default(),
        }
    }

    /// `partition` is the file's partition key.
    pub(in crate::delta) fn add(&mut self, partition: &str, add: &AddFile) -> Result<()> {
        // A row group that is no longer short does not begin another partition: a reader of that one need not fetch it.
        let is_other =
            self.writer.is_some() && self.bounds.as_ref().is_some_and(|bounds| bounds.last_partition() != partition);
        let rows = self.adds.len();
        if rows >= self.group_rows_max || (is_other && rows >= self.group_rows_max / 4) {
            self.write_group()?;
        }
        self.adds.append(add);
        self.bounds.get_or_insert_with(|| FileBounds::of(partition)).take(partition, add.stores());
        self.index.files += 1;
        Ok(())
    }

    pub(in crate::delta) fn remove(&mut self, remove: &RemoveFile) -> Result<()> {
        if self.adds.len() + self.removes.len() >= self.group_rows_max {
            self.write_group()?;
        }
        self.removes.append(remove);
        self.index.removals += 1;
        Ok(())
    }

    pub(in crate::delta) fn finish(mut self) -> Result<Written> {
        let actions = self.index.files + self.index.removals + 2;
        let head = [metadata_row(self.metadata)?, protocol_row(self.protocol.clone())?];
        // A small one is one row group without an index: it is read whole.
        let is_small = self.writer.is_none();
        if !is_small {
            self.write_group()?;
        }
        self.write_rows(head, None)?;
        let Some(mut writer) = self.writer else { return Err(Error::bug("checkpoint: nothing was written")) };
        if !is_small {
            writer.append_key_value_metadata(KeyValue::new(INDEX_KEY.to_owned(), self.index.to_json()?));
        }
        Ok(Written { bytes: writer.into_inner().map_err(encoding)?, actions, files: self.index.files })
    }

    fn write_group(&mut self) -> Result<()> {
        if self.adds.len() + self.removes.len() == 0 {
            return Ok(());
        }
        let head = [metadata_row(self.metadata)?.slice(0, 0), protocol_row(self.protocol.clone())?.slice(0, 0)];
        let group = Group { files: self.bounds.take(), removals: self.removes.len() > 0, sha256: String::new() };
        self.write_rows(head, Some(group))
    }

    /// What waits, and `head`, as one row group.
    fn write_rows(&mut self, [metadata, protocol]: [ArrayRef; 2], group: Option<Group>) -> Result<()> {
        let kinds = [
            ("add", self.adds.finish()?),
            ("remove", self.removes.finish()?),
            ("metaData", metadata),
            ("protocol", protocol),
        ];
        let batch = one_kind_a_row(&kinds)?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => open(&batch)?,
        };
        let start = writer.bytes_written();
        writer.write(&batch).map_err(encoding)?;
        writer.flush().map_err(encoding)?;
        writer.sync().map_err(encoding)?;
        if let Some(group) = group {
            let bytes = writer.inner().get(start..).unwrap_or_default();
            self.index.groups.push(Group { sha256: sha256_hex(bytes), ..group });
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// The kinds one after the other; in the rows of one kind the others' columns are NULL.
fn one_kind_a_row(kinds: &[(&str, ArrayRef)]) -> Result<RecordBatch> {
    let total: usize = kinds.iter().map(|(_, rows)| rows.len()).sum();
    let (mut fields, mut columns, mut first) = (Vec::new(), Vec::new(), 0);
    for (name, rows) in kinds {
        let index = |row: usize| (first..first + rows.len()).contains(&row).then(|| (row - first) as u32);
        let indices: UInt32Array = (0..total).map(index).collect();
        fields.push(Field::new(*name, rows.data_type().clone(), true));
        columns.push(take(rows, &indices, None).map_err(encoding)?);
        first += rows.len();
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(encoding)
}

/// `first`: the first rows it is to hold.
fn open(first: &RecordBatch) -> Result<ArrowWriter<Vec<u8>>> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).map_err(encoding)?);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None);
    if first.num_rows() > ACTIONS_PLAIN_MAX {
        for column in LARGE_COLUMNS {
            properties = properties
                .set_column_compression(ColumnPath::new(column.iter().map(|part| (*part).to_owned()).collect()), zstd);
        }
    }
    // No reader needs the arrow schema beside the Parquet one, and all would have to decode it.
    let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), first.schema(), options).map_err(encoding)
}

struct AddRows {
    path: StringBuilder,
    partition_values: MapBuilder<StringBuilder, StringBuilder>,
    size: Int64Builder,
    modification_time: Int64Builder,
    data_change: BooleanBuilder,
    stats: StringBuilder,
    tags: MapBuilder<StringBuilder, StringBuilder>,
}

impl Default for AddRows {
    fn default() -> Self {
        Self {
            path: StringBuilder::new(),
            partition_values: texts_map(),
            size: Int64Builder::new(),
            modification_time: Int64Builder::new(),
            data_change: BooleanBuilder::new(),
            stats: StringBuilder::new(),
            tags: texts_map(),
        }
    }
}

impl AddRows {
    fn len(&self) -> usize {
        self.path.len()
    }

    fn append(&mut self, add: &AddFile) {
        self.path.append_value(&add.path);
        append_map(&mut self.partition_values, Some(&add.partition_values));
        self.size.append_option(i64::try_from(add.size).ok());
        self.modification_time.append_value(add.modification_time);
        // By the protocol what a checkpoint holds is no change of data.
        self.data_change.append_value(false);
        self.stats.append_option(add.stats.as_deref());
        append_map(&mut self.tags, add.tags.as_ref());
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        structure(vec![
            ("path", Arc::new(self.path.finish())),
            ("partitionValues", Arc::new(self.partition_values.finish())),
            ("size", Arc::new(self.size.finish())),
            ("modificationTime", Arc::new(self.modification_time.finish())),
            ("dataChange", Arc::new(self.data_change.finish())),
            ("stats", Arc::new(self.stats.finish())),
            ("tags", Arc::new(self.tags.finish())),
        ])
    }
}

#[derive(Default)]
struct RemoveRows {
    path: StringBuilder,
    deletion_timestamp: Int64Builder,
    data_change: BooleanBuilder,
}

impl RemoveRows {
    fn len(&self) -> usize {
        self.path.len()
    }

    fn append(&mut self, remove: &RemoveFile) {
        self.path.append_value(&remove.path);
        self.deletion_timestamp.append_option(remove.deletion_timestamp);
        self.data_change.append_value(false);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        structure(vec![
            ("path", Arc::new(self.path.finish())),
            ("deletionTimestamp", Arc::new(self.deletion_timestamp.finish())),
            ("dataChange", Arc::new(self.data_change.finish())),
        ])
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
    let of_map = |map: &BTreeMap<String, String>| -> ArrayRef {
        let mut builder = texts_map();
        let map = map.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        append_map(&mut builder, Some(&map));
        Arc::new(builder.finish())
    };
    let format = structure(vec![
        ("provider", texts([Some(metadata.format.provider.as_str())])),
        ("options", of_map(&metadata.format.options)),
    ])?;
    structure(vec![
        ("id", texts([Some(metadata.id.as_str())])),
        ("name", texts([metadata.name.as_deref()])),
        ("description", texts([metadata.description.as_deref()])),
        ("format", format),
        ("schemaString", texts([Some(metadata.schema_string.as_str())])),
        ("partitionColumns", texts_list(Some(&metadata.partition_columns))),
        ("createdTime", Arc::new(arrow_array::Int64Array::from(vec![metadata.created_time]))),
        ("configuration", of_map(&metadata.configuration)),
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
    Arc::new(builder.finish())
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

fn texts_map() -> MapBuilder<StringBuilder, StringBuilder> {
    // The names that other writers of checkpoints use.
    let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

fn append_map(builder: &mut MapBuilder<StringBuilder, StringBuilder>, map: Option<&BTreeMap<String, Option<String>>>) {
    for (key, value) in map.into_iter().flatten() {
        builder.keys().append_value(key);
        builder.values().append_option(value.as_deref());
    }
    // Keys and values are appended in pairs, so their numbers agree.
    let _ = builder.append(map.is_some());
}

fn encoding(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bug("checkpoint: cannot be encoded").with_source(error)
}
