//! Writing a file again without some of its units. Row groups that lose nothing are copied as bytes: of
//! them only the columns that name the unit are decoded, to prove whose rows they are.

use std::collections::{BTreeMap, VecDeque};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::BooleanBufferBuilder;
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::ranged::{FilePart, RangedFile, metadata_options};
use super::rows::{adapted, read, unreadable};
use super::splice::{Splicer, parquet_schema};
use super::writer::{encoder, encoding};
use crate::dataset::{DatasetDefinition, STORE_COLUMN};
use crate::delta::log::action::AddFile;
use crate::delta::units::column::{UnitColumn, UnitRun};
use crate::delta::units::facts::FileUnits;
use crate::delta::units::staying::{Keep, StayingUnits};
use crate::delta::{LakeFile, LakeWriter, LakeWriterOptions, Table};
use crate::error::{Error, Result};
use crate::object::ObjectStore;
use crate::ports::Ports;

impl<S: ObjectStore> Table<'_, S> {
    /// Writes the rows of the units that `keep` names of a file (with all of its facts) as a fresh file in the
    /// dataset's schema. That each unit has as many rows as its tag says is proven on the way.
    pub(in crate::delta) async fn rewrite(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        file: &AddFile,
        keep: &Keep,
    ) -> Result<Vec<AddFile>> {
        let named = |error: Error| error.context(format!("table {}: {}", self.name, file.path));
        let rows = keep.rows_by_store(file)?;
        let staying = StayingUnits::new(file, keep)?;
        let files = match self.in_row_groups(dataset, file, &rows).await.map_err(named)? {
            Some(ranged) => {
                vec![self.without_lost(dataset, &ranged, rows.values().sum(), staying).await.map_err(named)?]
            }
            None => self.decoded_whole(dataset, file, rows, staying).await?,
        };
        self.put_files(ports, &self.partition_of(dataset, file)?, &files).await
    }

    /// The file, if some of its row groups may be copied: there are several, and their columns are
    /// declared as they would be today.
    async fn in_row_groups(
        &self,
        dataset: &DatasetDefinition,
        file: &AddFile,
        rows: &BTreeMap<String, u64>,
    ) -> Result<Option<RangedFile<'_, S>>> {
        if file.size <= self.bounds.reads.whole_bytes_max || rows.values().all(|rows| *rows == 0) {
            return Ok(None);
        }
        let path = file.object_path(&self.name)?;
        let ranged = RangedFile::open(self.objects, path, file.size, self.bounds.reads).await?;
        let declared = ranged.metadata().file_metadata().schema_descr();
        let same = declared.root_schema() == parquet_schema(&dataset.lake_schema())?.root_schema();
        Ok((same && ranged.metadata().num_row_groups() > 1).then_some(ranged))
    }

    /// Row group by row group: only the new file is in memory as a whole.
    async fn without_lost(
        &self,
        dataset: &DatasetDefinition,
        ranged: &RangedFile<'_, S>,
        rows: u64,
        staying: StayingUnits<'_>,
    ) -> Result<LakeFile> {
        let mut rewriting = Rewriting::new(dataset, ranged, rows, staying, &self.bounds.writer)?;
        for (groups, bytes) in ranged.parts()? {
            let part = ranged.read(bytes).await?;
            groups.into_iter().try_for_each(|group| rewriting.add(&part, group))?;
        }
        rewriting.finish()
    }

    /// Every row decoded and encoded again.
    async fn decoded_whole(
        &self,
        dataset: &DatasetDefinition,
        file: &AddFile,
        rows: BTreeMap<String, u64>,
        mut staying: StayingUnits<'_>,
    ) -> Result<Vec<LakeFile>> {
        let named = |error: Error| error.context(format!("table {}: {}", self.name, file.path));
        let some = rows.values().any(|rows| *rows > 0);
        let mut writer = LakeWriter::of_stores(dataset, rows, file.size, self.bounds.writer)?;
        if some {
            let schema = dataset.lake_schema();
            let column = UnitColumn::of(dataset, &schema)?;
            for batch in read(self.read_file(file).await?, &schema).map_err(named)? {
                let batch = batch.map_err(named)?;
                let runs = counted(&mut staying, &column.runs(&batch)?).map_err(named)?;
                writer.announce(staying.take_begun());
                writer.write(&kept(&batch, &runs)?)?;
                writer.settle_announced()?;
            }
        }
        writer.announce(staying.finish().map_err(named)?);
        writer.finish()
    }
}

/// Whether rows that follow each other stay, and how many they are.
type Run = (bool, usize);

fn counted(staying: &mut StayingUnits<'_>, runs: &[UnitRun<'_>]) -> Result<Vec<Run>> {
    let count = |run: &UnitRun<'_>| {
        let rows = run.rows.len();
        Ok((staying.count(run.store, run.number, rows as u64)?, rows))
    };
    runs.iter().map(count).collect()
}

/// The rows of a batch that stay.
fn kept(batch: &RecordBatch, runs: &[Run]) -> Result<RecordBatch> {
    let mut mask = BooleanBufferBuilder::new(batch.num_rows());
    runs.iter().for_each(|(stays, rows)| mask.append_n(*rows, *stays));
    let mask = BooleanArray::new(mask.finish(), None);
    filter_record_batch(batch, &mask).map_err(|error| Error::bug("rows cannot be filtered").with_source(error))
}

/// Takes the next `rows` rows off `runs`.
fn take(runs: &mut VecDeque<Run>, mut rows: usize) -> Vec<Run> {
    let mut taken = Vec::new();
    while rows > 0
        && let Some((stays, of_run)) = runs.front_mut()
    {
        let part = rows.min(*of_run);
        taken.push((*stays, part));
        (rows, *of_run) = (rows - part, *of_run - part);
        if *of_run == 0 {
            runs.pop_front();
        }
    }
    taken
}

/// A file on its way to its next one.
struct Rewriting<'a, S> {
    file: &'a RangedFile<'a, S>,
    options: &'a LakeWriterOptions,
    schema: SchemaRef,
    /// The columns that name the unit of a row, by place in the schema, and a schema of them alone.
    key_columns: Vec<usize>,
    key_schema: SchemaRef,
    key: UnitColumn,
    rows: u64,
    staying: StayingUnits<'a>,
    units: FileUnits,
    splicer: Splicer,
}

impl<'a, S: ObjectStore> Rewriting<'a, S> {
    fn new(
        dataset: &DatasetDefinition,
        file: &'a RangedFile<'a, S>,
        rows: u64,
        staying: StayingUnits<'a>,
        options: &'a LakeWriterOptions,
    ) -> Result<Self> {
        let schema = dataset.lake_schema();
        let names = std::iter::once(STORE_COLUMN).chain(dataset.unit_column());
        let mut key_columns = names.map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>().map_err(no_key)?;
        key_columns.sort_unstable();
        let key_schema = SchemaRef::new(schema.project(&key_columns).map_err(no_key)?);
        let splicer = Splicer::new(&schema, options, rows, file.bytes())?;
        let key = UnitColumn::of(dataset, &key_schema)?;
        let units = FileUnits::default();
        Ok(Self { file, options, schema, key_columns, key_schema, key, rows, staying, units, splicer })
    }

    /// Takes over what stays of a row group. What its rows themselves say decides; statistics are bounds only.
    fn add(&mut self, part: &FilePart, group: usize) -> Result<()> {
        let runs = self.runs(part, group)?;
        self.staying.take_begun().into_iter().try_for_each(|tag| self.units.push(tag))?;
        match (runs.iter().any(|(stays, _)| *stays), runs.iter().all(|(stays, _)| *stays)) {
            (_, true) if !runs.is_empty() => self.splicer.copy(part, self.file.metadata(), group),
            (true, _) => self.encode(part, group, runs),
            _ => Ok(()),
        }
    }

    /// Which rows of a row group stay, from the columns that name their units.
    fn runs(&mut self, part: &FilePart, group: usize) -> Result<VecDeque<Run>> {
        let mut runs: VecDeque<Run> = VecDeque::new();
        let mut found = 0;
        for batch in self.decode(part, group, Some(&self.key_columns), &self.key_schema)? {
            for (stays, rows) in counted(&mut self.staying, &self.key.runs(&batch?)?)? {
                found += rows;
                match runs.back_mut() {
                    Some(last) if last.0 == stays => last.1 += rows,
                    _ => runs.push_back((stays, rows)),
                }
            }
        }
        let wanted = self.file.metadata().row_group(group).num_rows();
        match usize::try_from(wanted) {
            Ok(wanted) if wanted == found => Ok(runs),
            _ => Err(Error::data(format!("row group {group}: must have {wanted} rows, got {found}"))),
        }
    }

    /// Decodes a row group, and adds what stays of it.
    fn encode(&mut self, part: &FilePart, group: usize, mut runs: VecDeque<Run>) -> Result<()> {
        let mut writer = None;
        let rows = self.file.metadata().row_group(group).num_rows();
        for batch in self.decode(part, group, None, &self.schema)? {
            let batch = batch?;
            let batch = kept(&batch, &take(&mut runs, batch.num_rows()))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => {
                    let rows = u64::try_from(rows).unwrap_or(0);
                    none.insert(encoder(&self.schema, self.options, rows, Some(&batch), Vec::new())?)
                }
            };
            writer.write(&batch).map_err(encoding)?;
        }
        let Some(mut writer) = writer else { return Ok(()) };
        writer.finish().map_err(encoding)?;
        self.copy_all(std::mem::take(writer.inner_mut()).into())
    }

    /// Takes over a file that was just written.
    fn copy_all(&mut self, bytes: Bytes) -> Result<()> {
        let reader = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Optional)
            .with_metadata_options(Some(metadata_options()));
        let metadata = reader.parse_and_finish(&bytes).map_err(encoding)?;
        (0..metadata.num_row_groups()).try_for_each(|group| self.splicer.copy(&bytes, &metadata, group))
    }

    /// The rows of a row group: of some columns, or of all.
    fn decode<'s>(
        &self,
        part: &FilePart,
        group: usize,
        columns: Option<&[usize]>,
        schema: &'s SchemaRef,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'s, S>> {
        let reader = self.file.decode(part, vec![group], columns)?;
        Ok(reader.map(move |batch| adapted(&batch.map_err(|error| unreadable().with_source(error))?, schema)))
    }

    fn finish(self) -> Result<LakeFile> {
        let Self { rows, staying, mut units, splicer, .. } = self;
        staying.finish()?.into_iter().try_for_each(|tag| units.push(tag))?;
        let (bytes, stats) = splicer.finish()?;
        Ok(LakeFile { bytes, rows, stats, units })
    }
}

fn no_key(error: arrow_schema::ArrowError) -> Error {
    Error::bug("the lake's schema names no units").with_source(error)
}
