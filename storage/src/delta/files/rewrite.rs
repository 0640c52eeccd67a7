//! Writing a file again without some of its units. Row groups that lose nothing are copied as bytes: of
//! them only the columns that name the unit are decoded, to prove whose rows they are.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

use super::ranged::{FilePart, RangedFile, metadata_options};
use super::rows::{adapted, keep_units, read, unreadable};
use super::splice::{Splicer, parquet_schema};
use super::writer::{encoder, encoding};
use crate::dataset::{DatasetDefinition, STORE_COLUMN};
use crate::delta::log::action::AddFile;
use crate::delta::units::column::{UnitColumn, number_of};
use crate::delta::units::tags::UnitTag;
use crate::delta::{LakeFile, LakeWriter, LakeWriterOptions, Table};
use crate::error::{Error, Result};
use crate::object::ObjectStore;
use crate::ports::Ports;
use crate::text::quoted;

impl<S: ObjectStore> Table<'_, S> {
    /// Writes the rows of the units `keep` of a file as a fresh file in the dataset's schema. That
    /// each unit has as many rows as its tag says is proven on the way.
    pub(in crate::delta) async fn rewrite(
        &self,
        ports: Ports<'_, S>,
        dataset: &DatasetDefinition,
        file: &AddFile,
        keep: Vec<UnitTag>,
    ) -> Result<Vec<AddFile>> {
        let staying = Staying::new(keep)?;
        let files = match self.in_row_groups(dataset, file, &staying).await? {
            Some(ranged) => vec![self.without_lost(dataset, file, &ranged, staying).await?],
            None => self.decoded_whole(dataset, file, staying).await?,
        };
        self.put_files(ports, &self.partition_of(dataset, file)?, &files).await
    }

    /// The file, if some of its row groups may be copied: there are several, and their columns are
    /// declared as they would be today.
    async fn in_row_groups(
        &self,
        dataset: &DatasetDefinition,
        file: &AddFile,
        staying: &Staying,
    ) -> Result<Option<RangedFile<'_, S>>> {
        if file.size <= self.bounds.reads.whole_bytes_max || staying.rows() == 0 {
            return Ok(None);
        }
        let path = file.object_path(&self.name)?;
        let named = |error: Error| error.context(format!("table {}: {}", self.name, file.path));
        let ranged = RangedFile::open(self.objects, path, file.size, self.bounds.reads).await.map_err(named)?;
        let declared = ranged.metadata().file_metadata().schema_descr();
        let same = declared.root_schema() == parquet_schema(&dataset.lake_schema())?.root_schema();
        Ok((same && ranged.metadata().num_row_groups() > 1).then_some(ranged))
    }

    /// Row group by row group: only the new file is in memory as a whole.
    async fn without_lost(
        &self,
        dataset: &DatasetDefinition,
        file: &AddFile,
        ranged: &RangedFile<'_, S>,
        staying: Staying,
    ) -> Result<LakeFile> {
        let named = |error: Error| error.context(format!("table {}: {}", self.name, file.path));
        let mut rewriting = Rewriting::new(dataset, ranged, staying, &self.bounds.writer)?;
        for (groups, bytes) in ranged.parts().map_err(named)? {
            let part = ranged.read(bytes).await.map_err(named)?;
            groups.into_iter().try_for_each(|group| rewriting.add(&part, group)).map_err(named)?;
        }
        rewriting.finish().map_err(|error| self.not_as_tagged(file, error))
    }

    /// Every row decoded and encoded again.
    async fn decoded_whole(
        &self,
        dataset: &DatasetDefinition,
        file: &AddFile,
        staying: Staying,
    ) -> Result<Vec<LakeFile>> {
        let mut writer = LakeWriter::new(dataset, staying.tags.clone(), self.bounds.writer)?;
        if staying.rows() > 0 {
            let schema = dataset.lake_schema();
            let column = UnitColumn::of(dataset, &schema)?;
            for batch in read(self.read_file(file).await?, &schema)? {
                let batch = batch.map_err(|error| error.context(&file.path))?;
                writer.write(&keep_units(&batch, column, |store, number| staying.has(store, number))?)?;
            }
        }
        writer.finish().map_err(|error| self.not_as_tagged(file, error))
    }

    fn not_as_tagged(&self, file: &AddFile, error: Error) -> Error {
        Error::data(format!("table {}: {}: its rows are not what its tags say", self.name, file.path))
            .with_source(error)
    }
}

/// The units that stay, and how many rows of each were written.
struct Staying {
    /// In order of store and number.
    tags: Vec<UnitTag>,
    written: Vec<u64>,
    /// The place of the last unit that rows were written of.
    last: usize,
}

fn place(tag: &UnitTag) -> (&str, i64) {
    (tag.store.as_str(), number_of(tag.unit))
}

impl Staying {
    fn new(mut tags: Vec<UnitTag>) -> Result<Self> {
        tags.sort_by(|left, right| place(left).cmp(&place(right)));
        if tags.is_empty() || tags.windows(2).any(|pair| place(&pair[0]) == place(&pair[1])) {
            return Err(Error::bug("units that stay must be some and without repeats"));
        }
        Ok(Self { written: vec![0; tags.len()], tags, last: 0 })
    }

    /// By their tags.
    fn rows(&self) -> u64 {
        self.tags.iter().map(|tag| tag.facts.rows).sum()
    }

    fn find(&self, store: &str, number: i64) -> Option<usize> {
        self.tags.binary_search_by(|tag| place(tag).cmp(&(store, number))).ok()
    }

    fn has(&self, store: &str, number: i64) -> bool {
        self.find(store, number).is_some()
    }

    /// Rows of the unit at `index` were written.
    fn count(&mut self, index: usize, rows: u64) -> Result<()> {
        let tag = &self.tags[index];
        if index < self.last {
            let got = format!("{} of {}", tag.unit, quoted(tag.store.as_str()));
            return Err(Error::data(format!("rows: unit: must be in order, got {got}")));
        }
        self.written[index] += rows;
        self.last = index;
        Ok(())
    }

    /// The units, if each has its rows.
    fn proven(self) -> Result<Vec<UnitTag>> {
        for (tag, rows) in self.tags.iter().zip(self.written) {
            if rows != tag.facts.rows {
                return Err(Error::reject(format!("unit {}: must have {} rows, got {rows}", tag.unit, tag.facts.rows)));
            }
        }
        Ok(self.tags)
    }
}

/// Rows that follow each other, of the unit at a place in [`Staying`]; of one that leaves, if `None`.
type Run = (Option<usize>, u64);

/// A file on its way to its next one.
struct Rewriting<'a, S> {
    file: &'a RangedFile<'a, S>,
    options: &'a LakeWriterOptions,
    schema: SchemaRef,
    /// The columns that name the unit of a row, by place in the schema, and a schema of them alone.
    key_columns: Vec<usize>,
    key_schema: SchemaRef,
    key: UnitColumn,
    column: UnitColumn,
    staying: Staying,
    splicer: Splicer,
}

impl<'a, S: ObjectStore> Rewriting<'a, S> {
    fn new(
        dataset: &DatasetDefinition,
        file: &'a RangedFile<'a, S>,
        staying: Staying,
        options: &'a LakeWriterOptions,
    ) -> Result<Self> {
        let schema = dataset.lake_schema();
        let names = std::iter::once(STORE_COLUMN).chain(dataset.unit_column());
        let mut key_columns = names.map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>().map_err(no_key)?;
        key_columns.sort_unstable();
        let key_schema = SchemaRef::new(schema.project(&key_columns).map_err(no_key)?);
        let splicer = Splicer::new(&schema, options, staying.rows(), file.bytes())?;
        let (key, column) = (UnitColumn::of(dataset, &key_schema)?, UnitColumn::of(dataset, &schema)?);
        Ok(Self { file, options, schema, key_columns, key_schema, key, column, staying, splicer })
    }

    /// Takes over what stays of a row group. What its rows themselves say decides; statistics are bounds only.
    fn add(&mut self, part: &FilePart, group: usize) -> Result<()> {
        let runs = self.runs(part, group)?;
        if runs.iter().all(|(unit, _)| unit.is_none()) {
            return Ok(());
        }
        if runs.iter().any(|(unit, _)| unit.is_none()) {
            return self.encode(part, group);
        }
        for (unit, rows) in runs {
            unit.map_or(Ok(()), |unit| self.staying.count(unit, rows))?;
        }
        self.splicer.copy(part, self.file.metadata(), group)
    }

    /// Whose rows a row group holds, from the columns that name their units.
    fn runs(&self, part: &FilePart, group: usize) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        for batch in self.decode(part, group, Some(&self.key_columns), &self.key_schema)? {
            for run in self.key.runs(&batch?)? {
                let (unit, rows) = (self.staying.find(run.store, run.number), run.rows.len() as u64);
                match runs.last_mut() {
                    Some(last) if last.0 == unit => last.1 += rows,
                    _ => runs.push((unit, rows)),
                }
            }
        }
        let (rows, wanted) =
            (runs.iter().map(|run| run.1).sum::<u64>(), self.file.metadata().row_group(group).num_rows());
        match u64::try_from(wanted) {
            Ok(wanted) if wanted == rows => Ok(runs),
            _ => Err(Error::data(format!("row group {group}: must have {wanted} rows, got {rows}"))),
        }
    }

    /// Decodes a row group, and adds what stays of it.
    fn encode(&mut self, part: &FilePart, group: usize) -> Result<()> {
        let mut writer = None;
        let rows = self.file.metadata().row_group(group).num_rows();
        for batch in self.decode(part, group, None, &self.schema)? {
            let batch = keep_units(&batch?, self.column, |store, number| self.staying.has(store, number))?;
            if batch.num_rows() == 0 {
                continue;
            }
            for run in self.column.runs(&batch)? {
                let unit = self.staying.find(run.store, run.number);
                unit.map_or(Ok(()), |unit| self.staying.count(unit, run.rows.len() as u64))?;
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
        let rows = self.staying.rows();
        let units = self.staying.proven()?;
        let (bytes, stats) = self.splicer.finish()?;
        Ok(LakeFile { bytes, rows, stats, units: units.into() })
    }
}

fn no_key(error: arrow_schema::ArrowError) -> Error {
    Error::bug("the lake's schema names no units").with_source(error)
}
