//! A Parquet file of which only some parts were fetched.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Parts of a file by their first byte; whoever reads beyond them gets an error.
#[derive(Debug, Clone)]
pub(in crate::delta) struct SparseFile {
    bytes_total: u64,
    parts: BTreeMap<u64, Bytes>,
}

impl SparseFile {
    pub(in crate::delta) fn new(bytes_total: u64, parts: impl IntoIterator<Item = (u64, Bytes)>) -> Self {
        Self { bytes_total, parts: parts.into_iter().collect() }
    }

    /// From `start` to the end of its part.
    fn from(&self, start: u64) -> Result<Bytes> {
        let absent = || ParquetError::General(format!("byte {start} was not fetched"));
        let (first, part) = self.parts.range(..=start).next_back().ok_or_else(absent)?;
        let skipped = usize::try_from(start - first).ok().filter(|skipped| *skipped < part.len()).ok_or_else(absent)?;
        Ok(part.slice(skipped..))
    }
}

impl Length for SparseFile {
    fn len(&self) -> u64 {
        self.bytes_total
    }
}

impl ChunkReader for SparseFile {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let part = self.from(start)?;
        match part.len() >= length {
            true => Ok(part.slice(..length)),
            false => Err(ParquetError::General(format!("bytes {start} to {} were not fetched", start + length as u64))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_is_read_where_it_lies_and_nothing_else_is() {
        let file = SparseFile::new(100, [(10, Bytes::from_static(b"abcdef")), (50, Bytes::from_static(b"xyz"))]);
        assert_eq!(file.len(), 100);
        assert_eq!(file.get_bytes(12, 3).unwrap(), "cde");
        assert_eq!(file.get_bytes(50, 3).unwrap(), "xyz");
        for (start, length) in [(0, 1), (9, 2), (14, 3), (16, 1), (52, 2), (99, 1)] {
            assert!(file.get_bytes(start, length).is_err(), "{start} {length}");
        }
        assert!(file.get_read(16).is_err() && file.get_read(15).is_ok());
    }
}
