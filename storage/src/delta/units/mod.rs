//! Units in a file: the tag with their facts, and the column that names the unit of each row.

pub(in crate::delta) mod column;
pub(in crate::delta) mod cursor;
pub mod facts;
pub(in crate::delta) mod staying;
pub mod tags;
