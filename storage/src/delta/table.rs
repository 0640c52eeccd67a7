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
    pub(in crate::delta) units_tag_bytes_max: usize,
    pub(in crate::delta) writer_options: LakeWriterOptions,
    pub(in crate::delta) read_bounds: ReadBounds,
    pub(in crate::delta) checkpoint_bounds: CheckpointBounds,
}

impl<'a, S: ObjectStore> Table<'a, S> {
    pub fn new(objects: &'a S, name: DatasetName) -> Self {
        Self {
            objects,
            name,
            units_tag_bytes_max: UNITS_TAG_BYTES_MAX,
            writer_options: LakeWriterOptions::default(),
            read_bounds: ReadBounds::default(),
            checkpoint_bounds: CheckpointBounds::default(),
        }
    }

    /// With another bound on the tags that it writes: for tests, in which files are small.
    #[must_use]
    pub fn with_units_tag_bytes_max(mut self, bytes_max: usize) -> Self {
        self.units_tag_bytes_max = bytes_max;
        self
    }

    /// With another bound on the files that are read whole when they lose units: for tests and benchmarks.
    #[must_use]
    pub fn with_whole_bytes_max(mut self, bytes_max: u64) -> Self {
        self.read_bounds.whole_bytes_max = bytes_max;
        self
    }

    pub fn name(&self) -> &DatasetName {
        &self.name
    }
}
