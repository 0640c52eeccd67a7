//! Reads what a checkpoint holds: of one file or several, of ours or of another program's.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, MapArray, RecordBatch, StructArray};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::SchemaDescriptor;

use super::Parts;
use crate::delta::log::action::{Action, AddFile, Format, Metadata, Protocol, RemoveFile};
use crate::delta::log::snapshot::{Changes, Snapshot};
use crate::delta::units::facts::LoadedFacts;
use crate::error::{Error, Result};
use crate::ids::DatasetName;

/// What was read: files, and everything else.
#[derive(Debug, Default)]
pub(super) struct Actions {
    pub adds: Vec<AddFile>,
    pub rest: Vec<Action>,
}

/// The snapshot that a checkpoint's files hold.
pub(in crate::delta) fn read(table: &DatasetName, version: u64, files: &[Bytes], parts: Parts) -> Result<Snapshot> {
    let mut snapshot = Snapshot::empty(table);
    let mut read = Actions::default();
    for bytes in files {
        read.read_file(bytes.clone(), parts)?;
    }
    // The schema first: a file's partition key needs the partition columns.
    for action in read.rest {
        snapshot.apply_action(action, &mut Changes::default())?;
    }
    read.adds.into_iter().for_each(|add| snapshot.add(add));
    snapshot.version = version;
    snapshot.checkpoint = Some(version);
    snapshot.has_removals = parts.removals;
    snapshot.checked()
}

impl Actions {
    /// Adds those of a whole file.
    fn read_file(&mut self, bytes: Bytes, parts: Parts) -> Result<()> {
        let metadata = ArrowReaderMetadata::load(&bytes, reader_options()).map_err(decoding)?;
        self.read(ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata), parts)
    }

    /// Adds those of one row group.
    pub(super) fn read_group(
        &mut self,
        file: impl ChunkReader + 'static,
        metadata: &ArrowReaderMetadata,
        group: usize,
        parts: Parts,
    ) -> Result<()> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
        self.read(builder.with_row_groups(vec![group]), parts)
    }

    fn read<R: ChunkReader + 'static>(
        &mut self,
        builder: ParquetRecordBatchReaderBuilder<R>,
        parts: Parts,
    ) -> Result<()> {
        let mask = mask_of(builder.parquet_schema(), parts);
        let reader = builder.with_projection(mask).with_batch_size(4096).build().map_err(decoding)?;
        for batch in reader {
            read_batch(&batch.map_err(decoding)?, &mut self.adds, &mut self.rest)?;
        }
        Ok(())
    }
}

fn mask_of(schema: &SchemaDescriptor, parts: Parts) -> ProjectionMask {
    let wanted = |path: &[String]| match path {
        [root, ..] if root == "remove" => parts.removals,
        [root, field, ..] if root == "add" && field == "stats" => parts.statistics,
        _ => true,
    };
    let leaves = schema.columns().iter().enumerate().filter(|(_, column)| wanted(column.path().parts()));
    ProjectionMask::leaves(schema, leaves.map(|(index, _)| index))
}

pub(super) fn reader_options() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
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

fn absent(name: &str) -> Error {
    Error::data(format!("checkpoint: {name}: must be there, got nothing"))
}

pub(super) fn decoding(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("checkpoint: is not readable").with_source(error)
}
