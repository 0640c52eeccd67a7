//! The rows of a lake file, batch by batch: a small file is read in one request, of a large one a few row
//! groups at a time.

use std::collections::VecDeque;
use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::ranged::{RangedFile, ReadBounds};
use super::rows::{adapted, read, unreadable};
use crate::delta::Table;
use crate::delta::log::action::AddFile;
use crate::error::Result;
use crate::object::ObjectStore;

/// Row groups that are read together, and where they lie.
type Part = (Range<usize>, Range<u64>);

/// Reads a file's rows in the columns of a schema.
pub(in crate::delta) struct Batches<'a, S> {
    schema: SchemaRef,
    /// What of a large file was not read yet.
    parts: Option<(RangedFile<'a, S>, VecDeque<Part>)>,
    /// Of what was read.
    rows: Option<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>>,
}

impl<S: ObjectStore> Table<'_, S> {
    /// Opens a file. Of a large one no rows are read yet.
    ///
    /// # Errors
    ///
    /// `Data` when there is none or it is not Parquet; `Retry` when the object store does not answer.
    pub(in crate::delta) async fn batches(
        &self,
        file: &AddFile,
        schema: &SchemaRef,
        bounds: ReadBounds,
    ) -> Result<Batches<'_, S>> {
        let schema = schema.clone();
        if file.size <= bounds.whole_bytes_max {
            let rows = read(self.read_file(file).await?, &schema)?;
            return Ok(Batches { schema, parts: None, rows: Some(Box::new(rows)) });
        }
        let ranged = RangedFile::open(self.objects, file.object_path(&self.name)?, file.size, bounds).await?;
        let parts = ranged.parts()?.into();
        Ok(Batches { schema, parts: Some((ranged, parts)), rows: None })
    }
}

impl<S: ObjectStore> Batches<'_, S> {
    /// The next rows; `None` when there are no more.
    ///
    /// # Errors
    ///
    /// `Data` when they cannot be read or are not of the schema; `Retry` when the object store does not answer.
    pub(in crate::delta) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.rows.as_mut().and_then(Iterator::next) {
                return batch.map(Some);
            }
            // What was read is let go before more is fetched.
            self.rows = None;
            let Some((file, parts)) = &mut self.parts else { return Ok(None) };
            let Some((groups, bytes)) = parts.pop_front() else { return Ok(None) };
            let rows = file.decode(&file.read(bytes).await?, groups.collect(), None)?;
            let schema = self.schema.clone();
            self.rows = Some(Box::new(
                rows.map(move |batch| adapted(&batch.map_err(|error| unreadable().with_source(error))?, &schema)),
            ));
        }
    }
}
