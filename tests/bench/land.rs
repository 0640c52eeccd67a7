//! Lands rows that are given as one Parquet file: a batch for each store and month, as an agent's backfill makes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type};
use arrow_cast::cast;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use ribera_storage::batch::{Facts, UnitFacts};
use ribera_storage::control;
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::decimal::ExactDecimal;
use ribera_storage::ids::{BatchId, Month, Position, Unit};
use ribera_storage::object::FolderStore;
use ribera_storage::{Error, Result};
use ribera_tests::contract::replace_manifest;
use serde_json::{Value, json};

use crate::generate::{self, Generated};
use crate::options::Options;

/// `--folder --from=FILE --first=2017-01 --months=12`: the file has the dataset's columns, rows in order of
/// store and day.
pub fn into_folder(options: &Options) -> Result<Value> {
    let objects = FolderStore::open(PathBuf::from(options.required("folder")?), "land")?.without_sync();
    let first: Month = options.get("first", Month::of(jiff::civil::date(2017, 1, 1)))?;
    let months: usize = options.get("months", 12)?;
    let dataset = generate::dataset()?;
    let rows = read(&PathBuf::from(options.required("from")?), &dataset)?;
    let months = generate::months(first, months)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Error::bug("no runtime").with_source(error))?;
    let (mut batches, mut landed, mut start) = (0_u64, 0, 0);
    while start < rows.num_rows() {
        let store = store_at(&rows, &dataset, start)?;
        let of_store = rows.slice(start, run(&rows, &dataset, start)?);
        runtime.block_on(generate::put_store_definition(&objects, &store))?;
        for (index, month) in months.iter().enumerate() {
            let position = Position { epoch: 0, sequence: index as u64 + 1 };
            let batch = of_month(&dataset, &store, position, *month, &of_store)?;
            landed += batch.manifest.file.rows;
            batches += 1;
            runtime.block_on(generate::upload(&objects, batch))?;
        }
        start += of_store.num_rows();
    }
    runtime.block_on(control::publish_dataset(&objects, &dataset))?;
    match landed == rows.num_rows() as u64 {
        true => Ok(json!({"batches": batches, "rows": landed})),
        false => Err(Error::data(format!("rows: must all lie in the months, got {landed} of {}", rows.num_rows()))),
    }
}

fn read(file: &Path, dataset: &DatasetDefinition) -> Result<RecordBatch> {
    let unreadable = |error| Error::data("--from").with_source(error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?).map_err(unreadable)?;
    let count = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut reader = builder.with_batch_size(count).build().map_err(unreadable)?;
    let rows = reader.next().ok_or_else(|| Error::data("--from: no rows"))?.map_err(odd)?;
    let schema = dataset.arrow_schema();
    let column = |field: &Arc<arrow_schema::Field>| {
        let column = rows.column_by_name(field.name()).ok_or_else(|| Error::data(format!("--from: no {field}")))?;
        cast(column, field.data_type()).map_err(odd)
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema, columns).map_err(odd)
}

fn odd(error: arrow_schema::ArrowError) -> Error {
    Error::data("--from: its columns must be those of the dataset").with_source(error)
}

fn store_at(rows: &RecordBatch, dataset: &DatasetDefinition, row: usize) -> Result<String> {
    let column = dataset.store_column.as_deref().and_then(|name| rows.column_by_name(name));
    column.map(|column| column.as_string::<i32>().value(row).to_owned()).ok_or_else(|| Error::bug("no store column"))
}

/// Rows of the same store from `start` on.
fn run(rows: &RecordBatch, dataset: &DatasetDefinition, start: usize) -> Result<usize> {
    let store = store_at(rows, dataset, start)?;
    let column = dataset.store_column.as_deref().and_then(|name| rows.column_by_name(name));
    let column = column.ok_or_else(|| Error::bug("no store column"))?.as_string::<i32>();
    Ok((start..rows.num_rows()).take_while(|row| column.value(*row) == store).count())
}

fn of_month(
    dataset: &DatasetDefinition,
    store: &str,
    position: Position,
    month: Month,
    rows: &RecordBatch,
) -> Result<Generated> {
    let days = rows.column_by_name("fecha").ok_or_else(|| Error::bug("no fecha"))?.as_primitive::<Date32Type>();
    let first_row = |day| days.values().partition_point(|number| *number < generate::days_since_epoch(day));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(generate::parquet_error)?))
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), dataset.arrow_schema(), Some(properties)).map_err(generate::parquet_error)?;
    let mut units = Vec::new();
    for day in month.days() {
        let next = day.tomorrow().map_err(|error| Error::bug("day").with_source(error))?;
        let start = first_row(day);
        let of_day = rows.slice(start, first_row(next) - start);
        let facts = facts_of(dataset, &of_day)?;
        writer.write(&of_day).map_err(generate::parquet_error)?;
        let extracted_at = generate::extracted_at(day)?;
        units.push(UnitFacts {
            unit: Unit::Day(day),
            audit: Some(facts.clone()),
            file: facts,
            closed: true,
            extracted_at,
        });
    }
    let file = writer.into_inner().map_err(generate::parquet_error)?;
    let batch = BatchId { store: store.parse()?, dataset: dataset.name.clone(), position };
    let manifest = replace_manifest(dataset, batch, units, &file)?;
    Ok(Generated { manifest, file })
}

fn facts_of(dataset: &DatasetDefinition, rows: &RecordBatch) -> Result<Facts> {
    let mut sums = BTreeMap::new();
    for name in &dataset.audit_sums {
        let column = rows.column_by_name(name).ok_or_else(|| Error::bug(format!("no {name}")))?;
        let values = column.as_primitive::<Decimal128Type>();
        sums.insert(name.clone(), ExactDecimal::new(values.iter().flatten().sum(), values.scale().unsigned_abs()));
    }
    Ok(Facts { rows: rows.num_rows() as u64, sums })
}
