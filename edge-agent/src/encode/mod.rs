//! From a source's rows to a batch file: columns are matched by name, values converted once,
//! facts counted per unit as the rows pass.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::RecordBatch;
use jiff::civil::Date;
use ribera_storage::batch::Facts;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind};
use ribera_storage::{Error, ExactDecimal, Result, StoreId, Unit};

use crate::calendar::{Zone, date_of, date_text, days_of};
use crate::config::{Charset, DatasetMapping};
use crate::source::{Rows, Value};
use batch_file::BatchFile;
use columns::{ColumnBuilder, Refusal};

pub mod batch_file;
pub mod columns;

/// Rows gathered before they are encoded; few enough to stay in the processor's cache.
const ROWS_BUFFERED: usize = 8192;
/// Or so many bytes of text and binaries.
const TEXT_BYTES_BUFFERED: usize = 1 << 20;
/// A value of so many bytes is looked at when it comes. What is encoded at once becomes one page of the file, and the
/// centre takes none of more than 32 MiB.
const LONG_BYTES: usize = 8 << 10;

/// What a sink is told about its batch.
#[derive(Debug, Clone)]
pub struct SinkContext<'a> {
    pub definition: &'a DatasetDefinition,
    pub mapping: &'a DatasetMapping,
    pub store: &'a StoreId,
    pub zone: Rc<Zone>,
    pub salt: Arc<str>,
    /// Units the batch is about, in order: days of one month, one moment, or the table.
    pub units: Vec<Unit>,
    /// The business date of a snapshot.
    pub snapshot_date: Option<Date>,
}

/// What fills a column that the query does not give.
#[derive(Debug, Clone, PartialEq)]
enum Fill {
    Null,
    Store,
    Moment(i64),
    Date(i32),
}

/// Takes rows and writes them to a file.
pub struct Sink<'c, 'f> {
    context: SinkContext<'c>,
    file: Option<BatchFile<'f>>,
    columns: Vec<ColumnBuilder>,
    /// Result column to dataset column; nothing for one that is left out.
    bound: Vec<Option<usize>>,
    filled: Vec<(usize, Fill)>,
    key: Vec<usize>,
    date_column: Option<usize>,
    current_day: Option<i32>,
    sums: Vec<usize>,
    running: Running,
    facts: BTreeMap<Unit, Facts>,
    rows_buffered: usize,
    rows: u64,
    refused: Option<(usize, String)>,
    /// A value was appended that makes the buffer grow far beyond what is looked at now and then.
    has_long_value: bool,
    /// Only where somebody asks for it.
    keys: Option<Keys>,
}

/// The keys of one unit's rows, by their hash.
#[derive(Default)]
struct Keys {
    seen: HashSet<u64>,
    repeated: u64,
    first: String,
}

/// Rows and sums of the current unit.
#[derive(Default)]
struct Running {
    rows: u64,
    sums: Vec<i128>,
}

impl<'c, 'f> Sink<'c, 'f> {
    /// A sink that writes to `file`; without one the rows are only converted and counted.
    pub fn new(context: SinkContext<'c>, file: Option<BatchFile<'f>>) -> Result<Self> {
        let definition = context.definition;
        let mapping = |name: &str| context.mapping.columns.get(name).cloned().unwrap_or_default();
        let columns = definition
            .columns
            .iter()
            .map(|column| ColumnBuilder::new(column, &mapping(&column.name), &context.zone, &context.salt))
            .collect::<Result<Vec<_>>>()?;
        let index = |name: &String| columns.iter().position(|column| column.name() == name);
        let sums: Vec<usize> = definition.audit_sums.iter().filter_map(index).collect();
        let daily = definition.kind == DatasetKind::Daily;
        Ok(Self {
            date_column: definition.business_date.as_ref().filter(|_| daily).and_then(index),
            key: definition.key.iter().filter_map(index).collect(),
            running: Running { rows: 0, sums: vec![0; sums.len()] },
            context,
            file,
            columns,
            bound: Vec::new(),
            filled: Vec::new(),
            current_day: None,
            sums,
            facts: BTreeMap::new(),
            rows_buffered: 0,
            rows: 0,
            refused: None,
            has_long_value: false,
            keys: None,
        })
    }

    /// A sink without a file for rows that the source has not rounded.
    pub fn unrounded(context: SinkContext<'c>) -> Result<Self> {
        let mut sink = Self::new(context, None)?;
        sink.columns = sink.columns.into_iter().map(ColumnBuilder::unrounded).collect();
        Ok(sink)
    }

    /// Looks whether keys repeat, which the centre refuses.
    pub fn noting_keys(self) -> Self {
        Self { keys: Some(Keys::default()), ..self }
    }

    /// How many rows repeat the key of another, and the key of the first that does.
    pub fn repeated_keys(&self) -> Option<(u64, &str)> {
        let keys = self.keys.as_ref()?;
        (keys.repeated > 0).then_some((keys.repeated, keys.first.as_str()))
    }

    /// Rows taken so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Ends the rows: the facts of every unit (without rows too) and the file to finish.
    pub fn finish(mut self) -> Result<(BTreeMap<Unit, Facts>, Option<BatchFile<'f>>)> {
        self.flush()?;
        self.close_unit()?;
        for unit in &self.context.units {
            self.facts.entry(*unit).or_insert_with(|| Facts {
                rows: 0,
                sums: self
                    .context
                    .definition
                    .audit_sums
                    .iter()
                    .map(|name| (name.clone(), ExactDecimal::ZERO))
                    .collect(),
            });
        }
        Ok((self.facts, self.file))
    }

    /// Gives the rows up.
    pub fn abandon(self) {
        if let Some(file) = self.file {
            file.abandon();
        }
    }

    fn fill_for(&self, name: &str, nullable: bool) -> Result<Fill> {
        let SinkContext { definition, units, snapshot_date, .. } = &self.context;
        let is = |wanted: &Option<String>| wanted.as_deref() == Some(name);
        match units.first() {
            Some(Unit::Moment(moment)) if is(&definition.moment) => return Ok(Fill::Moment(moment.as_microsecond())),
            Some(Unit::Moment(_)) if is(&definition.business_date) => {
                return Ok(snapshot_date.map_or(Fill::Null, |date| Fill::Date(days_of(date))));
            }
            _ if is(&definition.store_column) => return Ok(Fill::Store),
            _ if nullable => return Ok(Fill::Null),
            _ => {}
        }
        Err(self.config_error(name, "must be given by the query because it cannot be NULL", "no such result column"))
    }

    /// A result column that the mapping names must be there.
    fn refuse_absent(&self) -> Result<()> {
        let mapping = self.context.mapping;
        for (at, column) in self.columns.iter().enumerate() {
            let named = mapping.columns.get(column.name()).and_then(|column| column.sql.as_deref());
            if let Some(named) = named.filter(|_| mapping.extract.is_some() && !self.bound.contains(&Some(at))) {
                let rule = format!("must be the result column {named:?}");
                return Err(self.config_error(column.name(), &rule, "none of that name"));
            }
        }
        Ok(())
    }

    fn config_error(&self, column: &str, rule: &str, got: &str) -> Error {
        Error::config(format!("adapter: {}.columns.{column}: {rule}, got {got}", self.context.definition.name))
    }

    /// The unit of the row just taken, whose rows must come in order.
    fn enter_day(&mut self, day: i32) -> Result<()> {
        let unit = date_of(day).map(Unit::Day);
        if self.current_day.is_some_and(|current| day < current) {
            return Err(Error::config(format!(
                "{}: rows must be in order of the business date (add ORDER BY to the query), got {} after {}",
                self.error_context(),
                date_text(day),
                self.current_day.map(date_text).unwrap_or_default(),
            )));
        }
        if !unit.is_some_and(|unit| self.context.units.contains(&unit)) {
            return Err(Error::data(format!(
                "{}: a row's business date must be one of the days asked for, got {} in row {}",
                self.error_context(),
                date_text(day),
                self.row_key(),
            )));
        }
        self.close_unit()?;
        self.current_day = Some(day);
        Ok(())
    }

    fn close_unit(&mut self) -> Result<()> {
        if self.running.rows == 0 {
            return Ok(());
        }
        let unit = match self.current_day.and_then(date_of) {
            Some(day) => Unit::Day(day),
            None => *self.context.units.first().ok_or_else(|| Error::bug("a batch without units"))?,
        };
        let mut sums = BTreeMap::new();
        for (at, total) in self.sums.iter().zip(&mut self.running.sums) {
            let column = &self.columns[*at];
            sums.insert(column.name().to_owned(), ExactDecimal::new(std::mem::take(total), column.sum_scale()));
        }
        let facts = Facts { rows: std::mem::take(&mut self.running.rows), sums };
        self.facts.entry(unit).or_default().add(&facts)
    }

    fn add_sums(&mut self) -> Result<()> {
        for (at, total) in self.sums.iter().zip(&mut self.running.sums) {
            let Some(number) = self.columns[*at].last_number() else { continue };
            *total = total
                .checked_add(number)
                .ok_or_else(|| Error::data(format!("sum of {}: does not fit 38 digits", self.columns[*at].name())))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows_buffered == 0 {
            return Ok(());
        }
        self.rows_buffered = 0;
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let batch = RecordBatch::try_new(self.context.definition.arrow_schema(), arrays)
            .map_err(|error| Error::bug("columns do not form a batch").with_source(error))?;
        match &mut self.file {
            Some(file) => file.write(&batch),
            None => Ok(()),
        }
    }

    /// Remembers the row's first value that does not fit.
    #[cold]
    fn refuse(&mut self, at: usize, refusal: &Refusal, value: Value<'_>) {
        let column = &mut self.columns[at];
        column.push_filler();
        let shown = column.shown(value);
        self.refused.get_or_insert_with(|| (at, format!("{}, got {shown}", refusal.0)));
    }

    fn error_context(&self) -> String {
        let table = self.context.mapping.from.as_deref().unwrap_or("the extract query");
        format!("store {}, dataset {}, {table}", self.context.store, self.context.definition.name)
    }

    #[cold]
    fn note_key(&mut self) {
        let key = self.row_key();
        let Some(keys) = &mut self.keys else { return };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        if !keys.seen.insert(hasher.finish()) {
            keys.repeated += 1;
            if keys.first.is_empty() {
                keys.first = key;
            }
        }
    }

    fn row_key(&self) -> String {
        let value = |at: &usize| format!("{} = {}", self.columns[*at].name(), self.columns[*at].last_text());
        self.key.iter().map(value).collect::<Vec<_>>().join(", ")
    }
}

impl Rows for Sink<'_, '_> {
    fn begin(&mut self, names: &[String]) -> Result<()> {
        self.bound.clear();
        for name in names {
            let wanted = self.context.mapping.column_of(name);
            let at = self.columns.iter().position(|column| column.name() == wanted);
            if at.is_none() && !self.context.mapping.leaves_out_columns() {
                return Err(self.config_error(
                    name,
                    "result columns must be columns of the dataset",
                    "one that is not",
                ));
            }
            if at.is_some() && self.bound.contains(&at) {
                return Err(self.config_error(name, "must be given once", "twice"));
            }
            self.bound.push(at);
        }
        self.refuse_absent()?;
        self.filled = (0..self.columns.len())
            .filter(|at| !self.bound.contains(&Some(*at)))
            .map(|at| {
                let column = &self.context.definition.columns[at];
                Ok((at, self.fill_for(&column.name, column.nullable)?))
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    #[inline]
    fn value(&mut self, index: usize, value: Value<'_>) {
        let Some(at) = self.bound[index] else { return };
        if let Value::Text(text) = value {
            self.has_long_value |= text.len() > LONG_BYTES;
        } else if let Value::Bytes(bytes) = value {
            self.has_long_value |= bytes.len() > LONG_BYTES;
        }
        if let Err(refusal) = self.columns[at].push(value) {
            self.refuse(at, &refusal, value);
        }
    }

    fn raw_text(&mut self, index: usize, bytes: &[u8], charset: Option<Charset>) {
        let Some(at) = self.bound[index] else { return };
        self.has_long_value |= bytes.len() > LONG_BYTES;
        if let Err(refusal) = self.columns[at].push_raw(bytes, charset) {
            self.refuse(at, &refusal, std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text));
        }
    }

    fn end_row(&mut self) -> Result<()> {
        for (at, fill) in &self.filled {
            let column = &mut self.columns[*at];
            let value = match fill {
                Fill::Null => Value::Null,
                Fill::Store => Value::Text(self.context.store.as_str()),
                Fill::Moment(micros) => Value::Instant(*micros),
                Fill::Date(days) => Value::Date(*days),
            };
            if let Err(Refusal(rule)) = column.push(value) {
                column.push_filler();
                self.refused.get_or_insert((*at, format!("{rule}, got {}", column.shown(value))));
            }
        }
        if let Some((at, why)) = self.refused.take() {
            return Err(Error::data(format!(
                "{}, column {}, row {}: {why}",
                self.error_context(),
                self.columns[at].name(),
                self.row_key()
            )));
        }
        if let Some(at) = self.date_column {
            let day = self.columns[at].last_number().unwrap_or_default() as i32;
            if self.current_day != Some(day) {
                self.enter_day(day)?;
            }
        }
        if self.keys.is_some() {
            self.note_key();
        }
        self.running.rows += 1;
        self.rows += 1;
        self.add_sums()?;
        self.rows_buffered += 1;
        let text_is_full = || self.columns.iter().map(ColumnBuilder::text_bytes).sum::<usize>() >= TEXT_BYTES_BUFFERED;
        let looks_at_text = self.rows_buffered.is_multiple_of(128) || std::mem::take(&mut self.has_long_value);
        if self.rows_buffered >= ROWS_BUFFERED || (looks_at_text && text_is_full()) {
            self.flush()?;
        }
        Ok(())
    }
}
