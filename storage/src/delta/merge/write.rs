//! Writes the merged files and proves them.

use std::collections::VecDeque;
use std::pin::pin;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use futures::{StreamExt, stream};

use super::digest::Digester;
use super::inputs::{Input, Inputs};
use super::source::{Counting, Piece, Source};
use crate::dataset::DatasetDefinition;
use crate::delta::files::rows::{RunCounter, read};
use crate::delta::log::action::AddFile;
use crate::delta::units::column::UnitColumn;
use crate::delta::units::cursor::{Key, key_of};
use crate::delta::units::tags::UnitTag;
use crate::delta::{LakeFile, LakeWriter, Table};
use crate::error::{Error, Result};
use crate::object::ObjectStore;
use crate::ports::Ports;

/// Rows that are written at once: writing each small run by itself would cost more than its rows.
const ROWS_AT_ONCE: usize = 8192;

/// Units that are written at once, however few rows they have.
const UNITS_AT_ONCE: usize = 2048;

/// Files that are opened before their turn comes, each small, or only its footer: some megabytes in all.
const OPENED_AHEAD: usize = 16;

/// Why a merge stopped.
pub(super) enum Stop {
    /// This file is not what the log says.
    File(String, Error),
    Other(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl<S: ObjectStore> Table<'_, S> {
    pub(super) async fn write_merged(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        inputs: &Inputs<'_>,
    ) -> Result<Vec<AddFile>, Stop> {
        let schema = dataset.lake_schema();
        let mut counting = Counting {
            column: UnitColumn::of(dataset, &schema)?,
            counter: RunCounter::new(dataset)?,
            came_in: Digester::new(&schema)?,
        };
        let writer = LakeWriter::of_stores(dataset, inputs.rows_by_store()?, inputs.bytes(), self.bounds.writer)?;
        let mut merging = Merging::new(writer, &schema)?;
        let reads = self.bounds.reads.side_by_side();
        let opened = stream::iter(&inputs.files).map(|input| self.batches(&input.file, &schema, reads));
        let mut opened = pin!(opened.buffered(OPENED_AHEAD));
        let mut waiting: VecDeque<&Input<'_>> = inputs.files.iter().collect();
        let mut open: Vec<Source<'_, S>> = Vec::new();
        let mut merged = Vec::new();
        loop {
            // A file is begun once its turn comes: few overlap.
            while let Some(next) = waiting.front() {
                if open.iter().filter_map(Source::key).any(|key| *key < next.first) {
                    break;
                }
                let named = |error| Stop::File(next.file.path.clone(), error);
                let Some(batches) = opened.next().await else { return Err(Error::bug("a file was not opened").into()) };
                open.push(Source::open(next, batches.map_err(named)?, &mut counting).await.map_err(named)?);
                waiting.pop_front();
            }
            open.retain(|source| source.key().is_some());
            let Some(source) = open.iter_mut().min_by(|left, right| left.key().cmp(&right.key())) else { break };
            let taken = source.take(&mut counting).await;
            if let Some(piece) = taken.map_err(|error| Stop::File(source.input.file.path.clone(), error))? {
                merging.add(piece)?;
            }
            for file in merging.finished()? {
                merged.push(self.put_file(ports, inputs.partition, &file).await?);
            }
        }
        for file in merging.finish(&counting.came_in)? {
            merged.push(self.put_file(ports, inputs.partition, &file).await?);
        }
        Ok(merged)
    }
}

/// The rows of a merge on their way out.
struct Merging<'a> {
    schema: &'a SchemaRef,
    writer: LakeWriter,
    /// Rows that are not written yet, and how many.
    pending: (Vec<RecordBatch>, usize),
    /// The units that they begin.
    units: Vec<UnitTag>,
    last: Option<Key>,
    went_out: Digester,
}

impl<'a> Merging<'a> {
    fn new(writer: LakeWriter, schema: &'a SchemaRef) -> Result<Self> {
        let went_out = Digester::new(schema)?;
        Ok(Self { schema, writer, pending: (Vec::new(), 0), units: Vec::new(), last: None, went_out })
    }

    fn add(&mut self, piece: Piece) -> Result<()> {
        if let Some(tag) = piece.tag {
            let key = key_of(&tag);
            if self.last.as_ref().is_some_and(|last| *last >= key) {
                return Err(Error::data(format!("unit {}: must lie in one file", tag.key())));
            }
            self.last = Some(key);
            self.units.push(tag);
        }
        if let Some(rows) = piece.rows {
            self.pending.1 += rows.num_rows();
            self.pending.0.push(rows);
        }
        if self.pending.1 >= ROWS_AT_ONCE || self.units.len() >= UNITS_AT_ONCE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let (batches, _) = std::mem::take(&mut self.pending);
        let rows = concat_batches(self.schema, &batches)
            .map_err(|error| Error::bug("rows cannot be joined").with_source(error))?;
        self.writer.announce(std::mem::take(&mut self.units));
        self.writer.write(&rows)?;
        self.writer.settle_announced()
    }

    /// The files that are whole by now, read again.
    fn finished(&mut self) -> Result<Vec<LakeFile>> {
        let files = self.writer.take_done();
        read_back(&files, self.schema, &mut self.went_out)?;
        Ok(files)
    }

    /// The last files, if all of them together hold what came in.
    fn finish(mut self, came_in: &Digester) -> Result<Vec<LakeFile>> {
        self.write()?;
        let Self { schema, writer, mut went_out, .. } = self;
        let files = writer.finish()?;
        read_back(&files, schema, &mut went_out)?;
        if came_in.digest() != went_out.digest() {
            return Err(Error::bug("merge: the written files do not hold the rows that were read"));
        }
        Ok(files)
    }
}

fn read_back(files: &[LakeFile], schema: &SchemaRef, went_out: &mut Digester) -> Result<()> {
    for file in files {
        for batch in read(file.bytes.clone(), schema)? {
            went_out.add(&batch?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Date32Array, Int64Array, StringArray};

    use super::*;
    use crate::ErrorKind;
    use crate::batch::Facts;
    use crate::delta::LakeWriterOptions;
    use crate::ids::{Position, Unit};

    fn dataset() -> DatasetDefinition {
        DatasetDefinition::from_toml(
            r#"
            name = "pruebas"
            version = 1
            kind = "daily"
            business_date = "fecha"
            key = ["id"]
            audit_sums = ["piezas"]
            titles = { es = "Pruebas", en = "Trials" }
            column = [
                { name = "fecha", type = "date", nullable = false },
                { name = "id", type = "text", nullable = false },
                { name = "piezas", type = "int64" },
            ]
            "#,
        )
        .unwrap()
    }

    /// Store, day since 1970, id, pieces.
    type Row = (&'static str, i32, &'static str, Option<i64>);

    const ROWS: [Row; 4] = [
        ("s1", 20454, "a", Some(1)),
        ("s1", 20455, "b", Some(2)),
        ("s2", 20454, "c", None),
        ("s2", 20455, "d", Some(0)),
    ];

    fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))),
            Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>()),
        ];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    }

    /// Writes `rows`, of which one is of each unit, after `came_in` was read.
    fn merged(came_in: &[Row], rows: &[Row]) -> Result<Vec<LakeFile>> {
        let dataset = dataset();
        let schema = dataset.lake_schema();
        let stores = [("s1".to_owned(), 2), ("s2".to_owned(), 2)].into();
        let writer = LakeWriter::of_stores(&dataset, stores, 0, LakeWriterOptions::default())?;
        let mut digester = Digester::new(&schema)?;
        digester.add(&batch(&schema, came_in))?;
        let mut merging = Merging::new(writer, &schema)?;
        for row in rows {
            let (store, number) = (row.0.parse().unwrap(), i64::from(row.1));
            let tag = UnitTag {
                store,
                unit: Unit::Day(crate::delta::units::column::date_of_day(number).unwrap()),
                position: Position { epoch: 0, sequence: 1 },
                facts: Facts { rows: 1, ..Facts::default() },
                audit: None,
                closed: true,
                extracted_at: jiff::Timestamp::UNIX_EPOCH,
                received_at: jiff::Timestamp::UNIX_EPOCH,
            };
            let rows = Some(batch(&schema, &[*row]));
            merging.add(Piece { key: key_of(&tag), tag: Some(tag), rows })?;
        }
        merging.finish(&digester)
    }

    #[test]
    fn a_value_that_changes_between_in_and_out_is_found_in_whatever_column() {
        let files = merged(&ROWS, &ROWS).unwrap();
        assert_eq!((files.len(), files[0].rows, files[0].units.count()), (1, 4, 4));
        let mut backwards = ROWS;
        backwards.reverse();
        assert!(merged(&backwards, &ROWS).is_ok(), "the order of reading says nothing");
        let faults: [fn(&mut [Row; 4]); 7] = [
            |rows| rows[1].0 = "s11",
            |rows| rows[3].1 = 20456,
            |rows| rows[0].2 = "A",
            |rows| rows[2].3 = Some(0),
            |rows| rows[3].3 = None,
            // Rows change places between two units: rows and sums of both stay.
            |rows| (rows[0].2, rows[1].2) = (rows[1].2, rows[0].2),
            |rows| (rows[1].2, rows[1].3, rows[2].2, rows[2].3) = (rows[2].2, rows[2].3, rows[1].2, rows[1].3),
        ];
        for (index, fault) in faults.iter().enumerate() {
            let mut rows = ROWS;
            fault(&mut rows);
            let error = merged(&ROWS, &rows).map(|_| ()).unwrap_err();
            assert!(error.line().contains("do not hold the rows that were read"), "{index}: {error}");
        }
        assert!(merged(&ROWS, &ROWS[..3]).is_err(), "a row is lost");
    }

    #[test]
    fn a_unit_that_comes_again_is_refused() {
        let error = merged(&ROWS, &[ROWS[0], ROWS[0]]).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.line().contains("must lie in one file"), "{error}");
    }
}
