//! Lake files: encoding with true statistics, reading rows, putting them into the table's folder.

pub(in crate::delta) mod batches;
pub(in crate::delta) mod encoding;
mod facts;
mod put;
pub(in crate::delta) mod ranged;
mod rewrite;
pub(in crate::delta) mod rows;
mod splice;
mod stats;
pub(in crate::delta) mod writer;
