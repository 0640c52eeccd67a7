//! Another program that has found the lake: now and then it writes a table's newest checkpoint over, as
//! programs do that know nothing of our tags.

use std::rc::Rc;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StructArray, new_null_array};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ribera_storage::object::{ObjectStore, list_all};

use super::cloud::{Cloud, ready};
use super::kernel::{GroupId, HOUR, Micros};
use super::tally::Fault;

/// Writes one over every half day or so until `end`.
pub fn write_checkpoints(cloud: &Rc<Cloud>, group: GroupId, end: Micros) {
    let (cloud, chance) = (Rc::clone(cloud), cloud.sim.chance_of("another program"));
    cloud.sim.clone().spawn(group, async move {
        loop {
            cloud.sim.sleep(chance.between(6 * HOUR, 24 * HOUR)).await;
            if cloud.sim.now() >= end || !cloud.is_faulty() {
                return;
            }
            let listed = ready(list_all(&cloud.objects, "lake/", None)).unwrap_or_default();
            let newest = listed.into_iter().filter(|meta| meta.path.as_str().ends_with(".checkpoint.parquet"));
            let Some(checkpoint) = newest.max_by_key(|meta| meta.modified) else { continue };
            let Ok(Some(bytes)) = ready(cloud.objects.get(&checkpoint.path)) else { continue };
            cloud.put_at_once(&checkpoint.path, without_tags(bytes));
            cloud.count(Fault::CheckpointUntagged);
        }
    });
}

/// The same checkpoint, in which no file has tags.
fn without_tags(bytes: Bytes) -> Bytes {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(ParquetRecordBatchReaderBuilder::build);
    let batches = reader.expect("a checkpoint").map(|batch| untagged(&batch.expect("rows"))).collect::<Vec<_>>();
    let schema = batches.first().expect("some rows").schema();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).expect("a writer");
    batches.iter().for_each(|batch| writer.write(batch).expect("memory"));
    writer.into_inner().expect("memory").into()
}

fn untagged(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| -> ArrayRef {
        if field.name() != "add" {
            return Arc::clone(column);
        }
        let (fields, mut parts, nulls) = column.as_struct().clone().into_parts();
        for (field, part) in fields.iter().zip(&mut parts) {
            if field.name() == "tags" {
                *part = new_null_array(field.data_type(), part.len());
            }
        }
        Arc::new(StructArray::new(fields, parts, nulls))
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("the same columns")
}
