//! The handle of a table.

use crate::delta::LakeWriterOptions;
use crate::delta::files::ranged::ReadBounds;
use crate::delta::log::checkpoint::CheckpointBounds;
use crate::delta::units::tags::UNITS_TAG_BYTES_MAX;
use crate::ids::DatasetName;
use crate::object::ObjectStore;

/// A Delta table in an object store. Holds no state: make one wherever it is needed.
#[derive(Debug)]
pub struct Table<'a, S> {
    pub(in crate::delta) objects: &'a S,
    pub(in crate::delta) name: DatasetName,
    pub(in crate::delta) bounds: Bounds,
}

/// From which size on a table divides what it writes, and reads in parts; the defaults suit the lake.
#[derive(Debug, Clone, Copy)]
pub(in crate::delta) struct Bounds {
    /// A file whose units take more has an object for them.
    pub units_tag_bytes_max: usize,
    pub writer: LakeWriterOptions,
    pub reads: ReadBounds,
    pub checkpoints: CheckpointBounds,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            units_tag_bytes_max: UNITS_TAG_BYTES_MAX,
            writer: LakeWriterOptions::default(),
            reads: ReadBounds::default(),
            checkpoints: CheckpointBounds::default(),
        }
    }
}

impl<'a, S: ObjectStore> Table<'a, S> {
    pub fn new(objects: &'a S, name: DatasetName) -> Self {
        #[cfg(any(test, feature = "testing"))]
        let bounds = testing::bounds();
        #[cfg(not(any(test, feature = "testing")))]
        let bounds = Bounds::default();
        Self { objects, name, bounds }
    }

    /// With another bound on the files that are read whole when they lose units: for benchmarks.
    #[must_use]
    pub fn with_whole_bytes_max(mut self, bytes_max: u64) -> Self {
        self.bounds.reads.whole_bytes_max = bytes_max;
        self
    }

    pub fn name(&self) -> &DatasetName {
        &self.name
    }
}

/// Bounds for tests, whose tables are small.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Bounds, CheckpointBounds, LakeWriterOptions, ReadBounds};

    static SMALL: AtomicBool = AtomicBool::new(false);

    /// From now on every table of the process divides and reads in parts what has a few files and rows.
    pub fn use_small_bounds() {
        SMALL.store(true, Ordering::Relaxed);
    }

    pub(super) fn bounds() -> Bounds {
        if SMALL.load(Ordering::Relaxed) { small() } else { Bounds::default() }
    }

    pub(in crate::delta) fn small() -> Bounds {
        Bounds {
            units_tag_bytes_max: 600,
            writer: LakeWriterOptions { row_group_rows_min: 2, row_group_rows_max: 4, ..LakeWriterOptions::default() },
            reads: ReadBounds { whole_bytes_max: 0, tail_bytes: 4 << 10, part_bytes_max: 512 },
            checkpoints: CheckpointBounds { group_rows_max: 4, whole_bytes_max: 0 },
        }
    }
}
