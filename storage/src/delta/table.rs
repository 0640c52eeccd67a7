//! The handle of a table.

use crate::ids::DatasetName;
use crate::object::ObjectStore;

/// A Delta table in an object store. Holds no state: make one wherever it is needed.
#[derive(Debug)]
pub struct Table<'a, S> {
    pub(in crate::delta) objects: &'a S,
    pub(in crate::delta) name: DatasetName,
}

impl<'a, S: ObjectStore> Table<'a, S> {
    pub fn new(objects: &'a S, name: DatasetName) -> Self {
        Self { objects, name }
    }

    pub fn name(&self) -> &DatasetName {
        &self.name
    }
}
