//! Reads the file of an admitted batch, validates its rows and writes them again as lake files.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use jiff::Timestamp;
use ribera_storage::batch::{FileFacts, QuarantineReason};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::delta::{LakeFile, LakeWriter, LakeWriterOptions, UnitTag};
use ribera_storage::hex::sha256_hex;
use ribera_storage::object::{ObjectPath, Part};
use ribera_storage::{Error, ErrorKind, ObjectStore, Result};

use super::admit::Admitted;
use super::decode::BatchFile;
use super::limits::Limits;
use super::refusal::Refusal;
use super::validate::{CheckWarning, Validator};

/// The file as the manifest names it.
pub enum Fetched {
    Whole(Bytes),
    NotThere,
    Refused(Refusal),
}

/// Fetches at most as many bytes as the manifest states and the limits allow.
pub async fn fetch<S: ObjectStore>(objects: &S, file: &FileFacts, limits: &Limits) -> Result<Fetched> {
    if file.bytes > limits.file_bytes_max {
        return Ok(Fetched::Refused(Refusal::limit("manifest: file.bytes", limits.file_bytes_max, file.bytes)));
    }
    // One byte more than stated is enough to tell that the file is longer.
    let path = ObjectPath::new(file.path.clone())?;
    let part = objects.get_range(&path, 0..file.bytes + 1).await?;
    let Some(Part { bytes, .. }) = part else { return Ok(Fetched::NotThere) };
    let differs = |field: &str, stated: &str, got: &str| {
        let detail = format!("file: {field}: must be {stated} as the manifest says, got {got}");
        Ok(Fetched::Refused(Refusal::new(QuarantineReason::FileHashMismatch, detail)))
    };
    if bytes.len() as u64 != file.bytes {
        let got = if bytes.len() as u64 > file.bytes { "more".to_owned() } else { bytes.len().to_string() };
        return differs("bytes", &file.bytes.to_string(), &got);
    }
    match sha256_hex(&bytes) {
        sha256 if sha256.eq_ignore_ascii_case(&file.sha256) => Ok(Fetched::Whole(bytes)),
        sha256 => differs("sha256", &file.sha256, &sha256),
    }
}

/// Lake files of the rows, in the latest definition's columns.
pub struct Encoded {
    pub files: Vec<LakeFile>,
    pub warnings: Vec<CheckWarning>,
}

/// Validates every row against the definition of the manifest's version and encodes it. The batch
/// was put no earlier than `received_at`, by our clock.
pub fn encode(
    admitted: &Admitted,
    bytes: Bytes,
    definition: &DatasetDefinition,
    latest: &DatasetDefinition,
    limits: &Limits,
    received_at: Timestamp,
) -> Result<Result<Encoded, Refusal>> {
    let manifest = &admitted.manifest;
    let rows = manifest.file.rows;
    let units = manifest.units.iter().map(|facts| UnitTag::new(&manifest.batch, facts, received_at)).collect();
    let target = latest.arrow_schema();
    let mut writer = LakeWriter::new(latest, units, LakeWriterOptions::default())?;
    let work = || -> Result<Encoded, Stop> {
        let mut validator = Validator::new(definition, manifest, &manifest.batch.store, limits)?;
        let file = BatchFile::open(bytes, &definition.columns, rows, limits)?;
        let target = views_of(&target, file.schema());
        for batch in file {
            let batch = batch?;
            validator.check(&batch)?;
            writer.write(&conform(&batch, &target)?)?;
        }
        let warnings = validator.finish()?;
        Ok(Encoded { files: writer.finish()?, warnings })
    };
    match work() {
        Ok(encoded) => Ok(Ok(encoded)),
        Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why encoding stopped: the batch's fault, or ours.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Reject => Self::Refused(Refusal::schema(error.to_string())),
            _ => Self::Failed(error),
        }
    }
}

/// `target` with the text columns that the file has as views left as views: the writer takes both,
/// and copying them would cost more than all checks.
fn views_of(target: &SchemaRef, file: &SchemaRef) -> SchemaRef {
    let fields = target.fields().iter().map(|field| {
        let found = file.field_with_name(field.name()).map(|found| found.data_type().clone());
        match found {
            Ok(view @ (DataType::Utf8View | DataType::BinaryView)) => {
                Field::new(field.name(), view, field.is_nullable())
            }
            _ => field.as_ref().clone(),
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The batch in the columns of a later definition: widened, reordered, added ones NULL.
fn conform(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch> {
    let columns = target.fields().iter().map(|field| -> Result<ArrayRef> {
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(column, field.data_type(), &options)
            .map_err(|error| Error::reject(format!("column {}: cannot be widened", field.name())).with_source(error))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::clone(target), columns)
        .map_err(|error| Error::bug("validated rows do not fit their schema").with_source(error))
}

/// Whether a manifest whose file is absent has waited long enough.
pub fn has_waited(modified: Timestamp, now: Timestamp, wait_seconds: u32) -> bool {
    now.duration_since(modified).as_secs() >= i64::from(wait_seconds)
}
