//! The lake's tables: a small Delta Lake implementation of our own. Every engine reads them; it
//! needs no server and runs in WASM.
//!
//! The way of a batch:
//!
//! 1. [`LakeWriter`] encodes its rows as lake files with true statistics; the tags of each file
//!    say, unit by unit, which batch it came from and what was proven.
//! 2. [`Table::put_file`] puts them under fresh random names; [`Table::put_ready`] says so.
//! 3. [`Table::commit_ready`] settles every ready batch of the table in one log entry.
//! 4. [`Table::outcome_of`] tells at any later time, from the log alone, what became of a batch.
//!
//! | room | holds | must not |
//! |---|---|---|
//! | `units/` | the facts of each unit in a file's tag or in an object beside the file, and the column that names the unit of a row | read objects |
//! | `log/` | actions, snapshots, checkpoints: reading the log, writing one entry | know a batch |
//! | `files/` | lake files: encoding, statistics, reading rows, putting them | know the log |
//! | `commit/` | ready records, the plan of a partition, the combined commit, the outcome of a batch | decode a store's bytes |
//! | `merge/` | which files to merge, merging them with proof | change data |
//! | `maintain.rs` | migration, vacuum, cleaning of the log | |
//! | `repair.rs` | undoes what another program did to a table | guess which batch a row came from |
//! | `table.rs` | [`Table`], the handle of all of them | |
//!
//! Invariants: a unit's rows lie in exactly one file of the table; the batch of the highest
//! position wins a unit, whatever the order of arrival; a reader sees whole batches; every
//! file an entry names exists before the entry does; after any doubt about a write the version is
//! read back and its write id compared.

mod commit;
mod files;
mod log;
mod maintain;
mod merge;
mod repair;
mod table;
mod units;

pub use commit::outcome::{BatchOutcome, CommitReport};
pub use commit::ready::{READY_AGE_MAX, ReadyRecord};
pub use files::encoding::choose as choose_encodings;
pub use files::rows::{UnitCounter, read as read_rows};
pub use files::writer::{LakeFile, LakeWriter, LakeWriterOptions};
pub use log::action::{self, AddFile, CommitInfo, CommittedBatch, Stores};
#[cfg(feature = "engine")]
pub(crate) use log::path;
pub use log::snapshot::{Changes, Partition, Snapshot};
pub use log::{PartialSnapshot, StoreFiles};
pub use maintain::{LOG_RETENTION, VACUUM_RETENTION};
pub use merge::{MergeGroup, MergeOptions, Merged, merge_plan};
pub use repair::Repaired;
pub use table::Table;
#[cfg(any(test, feature = "testing"))]
pub use table::testing;
pub use units::facts::{self, FileUnits, LoadedFacts};
pub use units::tags::{self, UnitProof, UnitTag};

/// Requests in flight at once.
const CONCURRENCY: usize = 32;

#[cfg(test)]
mod tests;
