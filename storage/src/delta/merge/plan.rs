//! Which files to merge. Pure.

use jiff::SignedDuration;
use jiff::civil::Date;

use crate::dataset::PartitionColumn;
use crate::delta::log::action::AddFile;
use crate::delta::log::snapshot::{Partition, Snapshot};
use crate::delta::units::tags::{UNITS_TAG_BYTES_MAX, UnitTag};
use crate::ids::{Month, StoreUnit, Unit};

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
    /// Bytes merged at once: what a merge reads and holds.
    pub group_bytes_max: u64,
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
            table_quiet_days: 7,
        }
    }
}

/// Files of one partition to merge.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeGroup {
    /// For [`crate::delta::Table::put_file`].
    pub partition: Vec<PartitionColumn>,
    /// In order of their first units.
    pub files: Vec<AddFile>,
    /// The units of all files with their facts, in order of store and unit: what the merged files
    /// must prove.
    pub units: Vec<UnitTag>,
    pub bytes: u64,
    pub rows: u64,
}

impl MergeGroup {
    fn of(snapshot: &Snapshot, files: Vec<Candidate<'_>>) -> Self {
        let value = |column: &String| {
            let of = files.first().and_then(|one| one.file.partition_values.get(column).cloned().flatten());
            (column.clone(), of.unwrap_or_default())
        };
        let partition = snapshot.metadata().partition_columns.iter().map(value).collect();
        let mut group = Self { partition, files: Vec::new(), units: Vec::new(), bytes: 0, rows: 0 };
        for Candidate { file, units } in files {
            group.bytes += file.size;
            group.rows += units.iter().map(|tag| tag.facts.rows).sum::<u64>();
            group.files.push(file.clone());
            group.units.extend(units);
        }
        group.units.sort_by_key(UnitTag::key);
        group
    }

    /// The group without the file of that path; `None` when nothing is left to merge.
    pub(super) fn without(&self, path: &str) -> Option<Self> {
        let (out, files): (Vec<AddFile>, Vec<AddFile>) = self.files.iter().cloned().partition(|file| file.path == path);
        let gone: Vec<StoreUnit> =
            out.iter().flat_map(|file| file.unit_positions().unwrap_or_default()).map(|(key, _)| key).collect();
        let units: Vec<UnitTag> = self.units.iter().filter(|tag| !gone.contains(&tag.key())).cloned().collect();
        let rows = units.iter().map(|tag| tag.facts.rows).sum();
        let bytes = files.iter().map(|file| file.size).sum();
        (files.len() > 1).then(|| Self { partition: self.partition.clone(), files, units, bytes, rows })
    }
}

/// A file that may be merged, with its units in order.
struct Candidate<'a> {
    file: &'a AddFile,
    units: Vec<UnitTag>,
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
        candidates.sort_by_key(|one| one.units.first().map(UnitTag::key));
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
    let readable = small.filter_map(|file| match file.units() {
        Ok(units) => Some(Candidate { file, units }),
        Err(error) => {
            tracing::warn!(partition = key, %error, "a file is not merged");
            None
        }
    });
    readable.filter(|one| one.units.iter().all(|tag| is_over || is_quiet(tag, today, options))).collect()
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
    let (mut bytes, mut tags) = (0, 0);
    for one in candidates {
        let (size, tag) = (one.file.size, one.file.units_text().map_or(0, str::len));
        if bytes + size > options.group_bytes_max || tags + tag > UNITS_TAG_BYTES_MAX {
            groups.push(Vec::new());
            (bytes, tags) = (0, 0);
        }
        bytes += size;
        tags += tag;
        if let Some(group) = groups.last_mut() {
            group.push(one);
        }
    }
    groups.into_iter().filter(|group| group.len() > 1).map(|group| MergeGroup::of(snapshot, group)).collect()
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
