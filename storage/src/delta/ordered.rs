//! Upserts and deletes: the batches of a stream in their order, each applied to the rows of its
//! units, all in one entry.
//!
//! Keys identify a row within a unit. The units that the batches touch are gathered from their
//! files, changed in memory, and written as fresh files; the files they came from are removed or
//! divided. So a unit's rows still lie in exactly one file.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_row::{OwnedRow, RowConverter, SortField};
use arrow_schema::SchemaRef;

use super::action::{AddFile, CommittedBatch, Txn};
use super::commit::{GroupPlan, committed_batch};
use super::plan::Fate;
use super::ready::ReadyRecord;
use super::rows::{UnitCounter, filtered, keep_units, read, runs};
use super::settle::app_id;
use super::snapshot::Snapshot;
use super::tags::UnitTag;
use super::unit::{UnitColumn, number_of};
use super::writer::keys_schema;
use super::{LakeWriter, LakeWriterOptions, Ports, Table};
use crate::batch::{Facts, ManifestKind};
use crate::dataset::{DatasetDefinition, Mode, PartitionColumn};
use crate::error::{Error, Result};
use crate::ids::{Position, Unit};
use crate::object::ObjectStore;

/// Batches of one stream applied in one entry: bounds what a commit holds in memory.
const APPLIED_MAX: usize = 64;

/// A unit as it will be.
struct UnitState {
    tag: UnitTag,
    rows: Vec<RecordBatch>,
}

/// A partition as it will be: the units that change, and the files they stand in now.
struct Overlay<'a> {
    partition: Vec<PartitionColumn>,
    active: Vec<(&'a AddFile, Vec<UnitTag>)>,
    units: BTreeMap<i64, UnitState>,
}

/// Which of a stream's ready records can be applied now, and what the others wait for.
struct Sequence<'a> {
    applied: Vec<&'a ReadyRecord>,
    waiting: Vec<(&'a ReadyRecord, u64)>,
}

impl<S: ObjectStore> Table<'_, S> {
    pub(super) async fn plan_ordered(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        snapshot: &Snapshot,
        records: &[&ReadyRecord],
    ) -> Result<GroupPlan> {
        let mut plan = GroupPlan::default();
        let Some(first) = records.first() else { return Ok(plan) };
        let last = snapshot.stream_position(&first.batch.store, &dataset.name);
        let sequence = in_order(last, records);
        plan.waiting = sequence.waiting.iter().map(|(record, missing)| (record.batch.clone(), *missing)).collect();
        let mut overlays: BTreeMap<String, Overlay<'_>> = BTreeMap::new();
        for record in &sequence.applied {
            if record.kind == ManifestKind::Batch {
                let committed = self.apply_record(dataset, snapshot, record, &mut overlays).await?;
                plan.committed.push(committed);
            }
        }
        for overlay in overlays.into_values() {
            self.write_overlay(ports, dataset, overlay, &mut plan).await?;
        }
        let txn = |record: &&ReadyRecord| Txn {
            app_id: app_id(&record.batch),
            version: i64::try_from(record.batch.position.sequence).unwrap_or(i64::MAX),
            last_updated: Some(ports.clock.now().as_millisecond()),
        };
        // The last of each epoch.
        let last: BTreeMap<u32, Txn> =
            sequence.applied.iter().map(|record| (record.batch.position.epoch, txn(record))).collect();
        plan.txns = last.into_values().collect();
        Ok(plan)
    }

    async fn apply_record<'s>(
        &self,
        dataset: &DatasetDefinition,
        snapshot: &'s Snapshot,
        record: &ReadyRecord,
        overlays: &mut BTreeMap<String, Overlay<'s>>,
    ) -> Result<CommittedBatch> {
        let tags = record.units()?;
        let schema = if record.mode == Mode::Delete { keys_schema(dataset) } else { dataset.arrow_schema() };
        let rows = self.rows_by_unit(dataset, &record.files, &schema, None).await?;
        let key = record.partition_key();
        if !overlays.contains_key(&key) {
            let active = snapshot.partition(&key).map(|file| Ok((file, file.units()?))).collect::<Result<_>>()?;
            let overlay = Overlay { partition: record.partition.clone(), active, units: BTreeMap::new() };
            overlays.insert(key.clone(), overlay);
        }
        let Some(overlay) = overlays.get_mut(&key) else { return Err(Error::bug("an overlay vanished")) };
        if record.mode != Mode::Replace {
            self.load_units(dataset, overlay, &tags).await?;
        }
        for tag in tags {
            let changed = rows.get(&number_of(tag.unit)).cloned().unwrap_or_default();
            apply_unit(dataset, overlay, record.mode, tag, changed)?;
        }
        Ok(committed_batch(record, if record.mode == Mode::Delete { 0 } else { record.rows }))
    }

    /// Brings the rows that stand in the table now into the overlay, for the units of `tags`.
    async fn load_units(&self, dataset: &DatasetDefinition, overlay: &mut Overlay<'_>, tags: &[UnitTag]) -> Result<()> {
        let schema = dataset.arrow_schema();
        let wanted: BTreeSet<Unit> = tags.iter().map(|tag| tag.unit).collect();
        for (file, units) in &overlay.active {
            let is_wanted =
                |tag: &&UnitTag| wanted.contains(&tag.unit) && !overlay.units.contains_key(&number_of(tag.unit));
            let load: Vec<&UnitTag> = units.iter().filter(is_wanted).collect();
            if load.is_empty() {
                continue;
            }
            let numbers: BTreeSet<i64> = load.iter().map(|tag| number_of(tag.unit)).collect();
            let file = std::slice::from_ref(*file);
            let mut rows = self.rows_by_unit(dataset, file, &schema, Some(&numbers)).await?;
            for tag in load {
                let number = number_of(tag.unit);
                let state = UnitState { tag: tag.clone(), rows: rows.remove(&number).unwrap_or_default() };
                overlay.units.insert(number, state);
            }
        }
        Ok(())
    }

    /// The rows of files by unit number, of all units or of `wanted`.
    async fn rows_by_unit(
        &self,
        dataset: &DatasetDefinition,
        files: &[AddFile],
        schema: &SchemaRef,
        wanted: Option<&BTreeSet<i64>>,
    ) -> Result<BTreeMap<i64, Vec<RecordBatch>>> {
        let column = UnitColumn::of(dataset, schema)?;
        let mut units: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
        for file in files {
            for batch in read(self.read_file(file).await?, schema)? {
                let mut batch = batch.map_err(|error| error.context(&file.path))?;
                if let Some(wanted) = wanted {
                    batch = keep_units(&batch, &column.numbers(&batch)?, wanted)?;
                }
                for (number, run) in runs(&column.numbers(&batch)?) {
                    units.entry(number).or_default().push(batch.slice(run.start, run.len()));
                }
            }
        }
        Ok(units)
    }

    async fn write_overlay(
        &self,
        ports: Ports<'_>,
        dataset: &DatasetDefinition,
        overlay: Overlay<'_>,
        plan: &mut GroupPlan,
    ) -> Result<()> {
        let changed: BTreeSet<Unit> = overlay.units.values().map(|state| state.tag.unit).collect();
        for (file, units) in &overlay.active {
            let stay: BTreeSet<Unit> =
                units.iter().map(|tag| tag.unit).filter(|unit| !changed.contains(unit)).collect();
            let fate = match stay.len() {
                all if all == units.len() => Fate::Whole,
                0 => Fate::None,
                _ => Fate::Part(stay),
            };
            self.apply_to_active(ports, dataset, file, &fate, plan).await?;
        }
        let tags = overlay.units.values().map(|state| state.tag.clone()).collect();
        let mut writer = LakeWriter::new(dataset, tags, LakeWriterOptions::default())?;
        for batch in overlay.units.values().flat_map(|state| &state.rows) {
            writer.write(batch)?;
        }
        let files = writer.finish()?;
        plan.adds.extend(self.put_files(ports, &overlay.partition, &files).await?);
        Ok(())
    }
}

/// From `last` on without a gap. An epoch above the last begins with its first number, or with the
/// full `replace` that opens it.
fn in_order<'a>(mut last: Option<Position>, records: &[&'a ReadyRecord]) -> Sequence<'a> {
    let mut sorted = records.to_vec();
    sorted.sort_by_key(|record| record.batch.position);
    let mut sequence = Sequence { applied: Vec::new(), waiting: Vec::new() };
    for record in sorted {
        let position = record.batch.position;
        if last.is_some_and(|last| position <= last) {
            continue;
        }
        let expected = match last {
            Some(last) if last.epoch == position.epoch => last.sequence + 1,
            _ if record.opens_epoch => position.sequence,
            _ => Position::FIRST_SEQUENCE,
        };
        if position.sequence == expected && sequence.applied.len() < APPLIED_MAX {
            last = Some(position);
            sequence.applied.push(record);
            continue;
        }
        sequence.waiting.push((record, expected));
    }
    sequence
}

fn apply_unit(
    dataset: &DatasetDefinition,
    overlay: &mut Overlay<'_>,
    mode: Mode,
    mut tag: UnitTag,
    changed: Vec<RecordBatch>,
) -> Result<()> {
    let number = number_of(tag.unit);
    let standing = overlay.units.remove(&number).map(|state| state.rows).unwrap_or_default();
    let rows = match mode {
        Mode::Replace => changed,
        Mode::Upsert => without_keys(dataset, standing, &changed)?.into_iter().chain(changed).collect(),
        Mode::Delete => without_keys(dataset, standing, &changed)?,
    };
    let rows: Vec<RecordBatch> = rows.into_iter().filter(|batch| batch.num_rows() > 0).collect();
    if mode != Mode::Replace {
        tag.facts = facts_of(dataset, &rows)?;
    }
    overlay.units.insert(number, UnitState { tag, rows });
    Ok(())
}

/// The rows of `standing` whose key is none of those in `changed`.
fn without_keys(
    dataset: &DatasetDefinition,
    standing: Vec<RecordBatch>,
    changed: &[RecordBatch],
) -> Result<Vec<RecordBatch>> {
    let (Some(sample), false) = (changed.first(), standing.is_empty()) else { return Ok(standing) };
    let fields = key_columns(dataset, sample)?.into_iter().map(|column| SortField::new(column.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(comparing)?;
    let mut keys: HashSet<OwnedRow> = HashSet::new();
    for batch in changed {
        let rows = converter.convert_columns(&key_columns(dataset, batch)?).map_err(comparing)?;
        keys.extend(rows.iter().map(|row| row.owned()));
    }
    let mut kept = Vec::with_capacity(standing.len());
    for batch in standing {
        let rows = converter.convert_columns(&key_columns(dataset, &batch)?).map_err(comparing)?;
        let mask: BooleanArray = rows.iter().map(|row| Some(!keys.contains(&row.owned()))).collect();
        kept.push(filtered(&batch, &mask)?);
    }
    Ok(kept)
}

fn key_columns(dataset: &DatasetDefinition, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let column = |name: &String| {
        let column = batch.column_by_name(name).cloned();
        column.ok_or_else(|| Error::data(format!("dataset {}: the file has no key column {name}", dataset.name)))
    };
    dataset.key.iter().map(column).collect()
}

/// Rows and sums of one unit's rows; without rows every sum is 0.
fn facts_of(dataset: &DatasetDefinition, rows: &[RecordBatch]) -> Result<Facts> {
    let mut counter = UnitCounter::new(dataset)?;
    for batch in rows {
        counter.add(batch)?;
    }
    Ok(counter.finish()?.into_values().next().unwrap_or_default())
}

fn comparing(error: arrow_schema::ArrowError) -> Error {
    Error::bug("keys cannot be compared").with_source(error)
}
