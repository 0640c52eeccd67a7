//! Which files to merge. Pure.

use jiff::SignedDuration;
use jiff::civil::Date;

use crate::dataset::PartitionColumn;
use crate::delta::log::action::{AddFile, Stores};
use crate::delta::log::snapshot::{Partition, Snapshot};
use crate::delta::units::tags::UnitTag;
use crate::error::Result;
use crate::ids::{Month, Unit};

/// Bounds of merging; the defaults suit the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeOptions {
    /// Files of about one size in a partition that still grows before they are merged. More: more
    /// small files for readers, less written again.
    pub files_min: usize,
    /// Files below this are of one size; each next size is [`SIZE_STEP`] times as large.
    pub tier_bytes: u64,
    /// A file of this size is left alone.
    pub grown_bytes: u64,
    /// Bytes merged at once, and units, of which a merge holds the texts: some hundred bytes each.
    pub group_bytes_max: u64,
    pub group_units_max: u64,
    /// Days after which the whole table of a store counts as quiet.
    pub table_quiet_days: i64,
}

/// See [`MergeOptions::tier_bytes`].
const SIZE_STEP: u64 = 8;

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            files_min: 8,
            tier_bytes: 256 << 10,
            grown_bytes: 32 << 20,
            group_bytes_max: 96 << 20,
            group_units_max: 400_000,
            table_quiet_days: 7,
        }
    }
}

/// Files of one partition to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeGroup {
    /// For [`crate::delta::Table::put_file`].
    pub partition: Vec<PartitionColumn>,
    /// In order of their first units.
    pub files: Vec<AddFile>,
    pub units: u64,
    pub bytes: u64,
    pub rows: u64,
}

impl MergeGroup {
    fn of(snapshot: &Snapshot, files: &[Candidate<'_>]) -> Self {
        let value = |column: &String| {
            let of = files.first().and_then(|one| one.file.partition_values.get(column).cloned().flatten());
            (column.clone(), of.unwrap_or_default())
        };
        Self {
            partition: snapshot.metadata().partition_columns.iter().map(value).collect(),
            files: files.iter().map(|one| one.file.clone()).collect(),
            units: files.iter().map(|one| one.units).sum(),
            bytes: files.iter().map(|one| one.file.size).sum(),
            rows: files.iter().filter_map(|one| one.file.rows()).sum(),
        }
    }
}

/// A file that may be merged.
struct Candidate<'a> {
    file: &'a AddFile,
    /// The first store, and the first unit where the log tells it.
    first: (String, Option<Unit>),
    units: u64,
}

impl<'a> Candidate<'a> {
    /// `None` when a unit of the file is not quiet.
    fn of(file: &'a AddFile, today: Date, is_over: bool, options: &MergeOptions) -> Result<Option<Self>> {
        let bounds = match file.stores() {
            Stores::One(store) | Stores::Between(store, _) => store.to_owned(),
            Stores::Any => return Ok(None),
        };
        // Whose facts have an object of their own, was merged before: its units were quiet then.
        if let Some(tag) = file.facts_tag()? {
            return Ok(Some(Self { file, first: (bounds, None), units: tag.units }));
        }
        let units = file.units()?;
        let quiet = is_over || units.iter().all(|tag| is_quiet(tag, today, options));
        let first = (bounds, units.first().map(|tag| tag.unit));
        Ok(quiet.then_some(Self { file, first, units: units.len() as u64 }))
    }
}

/// What to merge. Only files whose units are all quiet take part, so that whoever sends an open day
/// again every hour never makes a merged file be written again. In a partition that is over, all of
/// its small files; in another, files of about one size once there are enough of them: so each row is
/// written again a few times only, however long the partition grows. `today` is the business date now.
pub fn merge_plan(snapshot: &Snapshot, today: Date, options: &MergeOptions) -> Vec<MergeGroup> {
    let mut groups = Vec::new();
    for (key, partition) in snapshot.partitions() {
        // What became of the units of a foreign file nobody knows: the partition waits for its repair.
        if partition.files().any(AddFile::is_foreign) {
            continue;
        }
        let is_over = partition.files().next().is_some_and(|file| is_over(file, today));
        let mut candidates = candidates(key, partition, today, is_over, options);
        if !is_over {
            candidates = of_one_size(candidates, options);
        }
        candidates.sort_by(|left, right| left.first.cmp(&right.first));
        groups.extend(packed(snapshot, candidates, options));
    }
    groups
}

fn candidates<'a>(
    key: &str,
    partition: &'a Partition,
    today: Date,
    is_over: bool,
    options: &MergeOptions,
) -> Vec<Candidate<'a>> {
    let small = partition.files().filter(|file| file.size < options.grown_bytes);
    let quiet = small.filter_map(|file| match Candidate::of(file, today, is_over, options) {
        Ok(candidate) => candidate,
        Err(error) => {
            tracing::warn!(partition = key, %error, "a file is not merged");
            None
        }
    });
    quiet.collect()
}

/// Whether the unit is not likely to be replaced soon.
fn is_quiet(tag: &UnitTag, today: Date, options: &MergeOptions) -> bool {
    match tag.unit {
        Unit::Day(_) => tag.closed,
        Unit::Moment(_) => true,
        Unit::Table => {
            let received = tag.received_at.to_zoned(jiff::tz::TimeZone::UTC).date();
            today.duration_since(received) > SignedDuration::from_hours(24 * options.table_quiet_days)
        }
    }
}

/// The files of the largest size of which there are enough, and all smaller ones; none if there are too few.
fn of_one_size<'a>(candidates: Vec<Candidate<'a>>, options: &MergeOptions) -> Vec<Candidate<'a>> {
    let size =
        |file: &AddFile| (file.size / options.tier_bytes.max(1)).checked_ilog(SIZE_STEP).map_or(0, |log| log + 1);
    let enough = |wanted: u32| candidates.iter().filter(|one| size(one.file) == wanted).count() >= options.files_min;
    let largest = candidates.iter().map(|one| size(one.file)).max();
    let Some(merged) = largest.and_then(|largest| (0..=largest).rev().find(|size| enough(*size))) else {
        return Vec::new();
    };
    candidates.into_iter().filter(|one| size(one.file) <= merged).collect()
}

/// Groups of at least two files, in order, each within the bounds.
fn packed(snapshot: &Snapshot, candidates: Vec<Candidate<'_>>, options: &MergeOptions) -> Vec<MergeGroup> {
    let mut groups: Vec<Vec<Candidate<'_>>> = vec![Vec::new()];
    let (mut bytes, mut units) = (0, 0);
    for one in candidates {
        if bytes + one.file.size > options.group_bytes_max || units + one.units > options.group_units_max {
            groups.push(Vec::new());
            (bytes, units) = (0, 0);
        }
        bytes += one.file.size;
        units += one.units;
        if let Some(group) = groups.last_mut() {
            group.push(one);
        }
    }
    groups.into_iter().filter(|group| group.len() > 1).map(|group| MergeGroup::of(snapshot, &group)).collect()
}

/// Whether the month or year of a file's partition has passed.
fn is_over(file: &AddFile, today: Date) -> bool {
    let value = |column: &str| file.partition_values.get(column).and_then(Option::as_deref);
    match (value("month"), value("year")) {
        (Some(month), _) => month.parse::<Month>().is_ok_and(|month| month.last_day() < today),
        (_, Some(year)) => year.parse::<i16>().is_ok_and(|year| year < today.year()),
        _ => false,
    }
}
