//! Who wins the units of one store in one partition of a table. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::ids::Position;

/// A file by the units it holds: of one store, or keyed by store too.
pub(in crate::delta) type FileUnits<K> = Vec<(K, Position)>;

/// Which units of a file stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delta) enum Retention<K: Ord> {
    /// All of its units stand: an active file stays, a ready file enters as it is.
    All,
    /// Only these units stand: they are written again.
    Only(BTreeSet<K>),
    /// Nothing of it stands: an active file is removed, a ready file does not enter.
    None,
}

impl<K: Ord> Retention<K> {
    pub(in crate::delta) fn keeps(&self, unit: &K) -> bool {
        match self {
            Self::All => true,
            Self::Only(units) => units.contains(unit),
            Self::None => false,
        }
    }
}

/// What stays of the files, in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delta) struct Retentions<K: Ord> {
    pub active: Vec<Retention<K>>,
    /// Per record, per file of it.
    pub ready: Vec<Vec<Retention<K>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Active(usize),
    Ready(usize, usize),
}

/// For each unit the highest position wins; at equal positions what is in the table stays, since
/// it is the same batch. An error of kind `Data` when two active files hold one unit.
pub(in crate::delta) fn retentions<K: Ord + Clone + std::fmt::Display>(
    active: &[FileUnits<K>],
    ready: &[Vec<FileUnits<K>>],
) -> Result<Retentions<K>> {
    let mut winners: BTreeMap<&K, (Position, Holder)> = BTreeMap::new();
    for (index, file) in active.iter().enumerate() {
        for (unit, position) in file {
            if winners.insert(unit, (*position, Holder::Active(index))).is_some() {
                return Err(Error::data(format!("unit {unit} lies in two files of the table")));
            }
        }
    }
    for (record, files) in ready.iter().enumerate() {
        for (index, file) in files.iter().enumerate() {
            for (unit, position) in file {
                if winners.get(unit).is_none_or(|(standing, _)| position > standing) {
                    winners.insert(unit, (*position, Holder::Ready(record, index)));
                }
            }
        }
    }
    let fate = |file: &FileUnits<K>, holder: Holder| {
        let won = file.iter().map(|(unit, _)| unit);
        let won: BTreeSet<K> =
            won.filter(|unit| winners.get(unit).is_some_and(|(_, winner)| *winner == holder)).cloned().collect();
        match won.len() {
            all if all == file.len() => Retention::All,
            0 => Retention::None,
            _ => Retention::Only(won),
        }
    };
    let of_record = |(record, files): (usize, &Vec<FileUnits<K>>)| {
        files.iter().enumerate().map(|(index, file)| fate(file, Holder::Ready(record, index))).collect()
    };
    Ok(Retentions {
        active: active.iter().enumerate().map(|(index, file)| fate(file, Holder::Active(index))).collect(),
        ready: ready.iter().enumerate().map(of_record).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Unit;

    fn file(days: &[i8], sequence: u64) -> FileUnits<Unit> {
        days.iter().map(|day| (unit(*day), Position { epoch: 0, sequence })).collect()
    }

    fn unit(day: i8) -> Unit {
        Unit::Day(jiff::civil::date(2026, 1, day))
    }

    #[test]
    fn a_newer_batch_removes_what_it_covers_whole_and_divides_what_it_covers_in_part() {
        let found = retentions(&[file(&[1], 1), file(&[2, 3], 1), file(&[4], 1)], &[vec![file(&[1, 2], 2)]]).unwrap();
        assert_eq!(found.active, [Retention::None, Retention::Only([unit(3)].into()), Retention::All]);
        assert_eq!(found.ready, [[Retention::All]]);
    }

    #[test]
    fn an_older_or_repeated_batch_changes_nothing_and_one_overtaken_in_part_enters_in_part() {
        let active = [file(&[1, 2], 5)];
        for sequence in [4, 5] {
            let found = retentions(&active, &[vec![file(&[1, 2], sequence)]]).unwrap();
            assert_eq!((found.active, found.ready), (vec![Retention::All], vec![vec![Retention::None]]));
        }
        let found = retentions(&active, &[vec![file(&[2, 3], 4)]]).unwrap();
        assert_eq!((found.active, found.ready), (vec![Retention::All], vec![vec![Retention::Only([unit(3)].into())]]));
    }

    #[test]
    fn of_several_ready_batches_the_highest_position_wins_whatever_their_order() {
        for order in [[1, 2], [2, 1]] {
            let ready: Vec<_> = order.iter().map(|sequence| vec![file(&[1], *sequence)]).collect();
            let found = retentions(&[], &ready).unwrap();
            let whole = order.iter().position(|sequence| *sequence == 2).unwrap();
            assert_eq!(found.ready[whole], [Retention::All]);
            assert_eq!(found.ready[1 - whole], [Retention::None]);
        }
    }

    #[test]
    fn a_unit_in_two_active_files_is_refused() {
        assert_eq!(retentions(&[file(&[1], 1), file(&[1], 2)], &[]).unwrap_err().kind(), crate::ErrorKind::Data);
    }
}
