//! Reads the page headers of a Parquet file without decompressing anything, so that a file that
//! would decode to more than the limits allow is refused before any memory is asked for.
//!
//! The footer is no proof: a decoder believes the page headers.

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::limits::Limits;
use super::refusal::Refusal;

/// Checks every page of every column; `bytes` is the whole file.
pub fn check_pages(bytes: &[u8], metadata: &ParquetMetaData, limits: &Limits) -> Result<(), Refusal> {
    let mut decoded: u64 = 0;
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| Refusal::unreadable("a row group with a negative number of rows"))?;
        for column in group.columns() {
            decoded = decoded.saturating_add(check_column(bytes, column, rows, limits)?);
            if decoded > limits.decoded_bytes_max {
                return Err(Refusal::limit("decoded bytes of all pages", limits.decoded_bytes_max, decoded));
            }
        }
    }
    Ok(())
}

/// Decoded bytes of one column chunk.
fn check_column(bytes: &[u8], column: &ColumnChunkMetaData, rows: u64, limits: &Limits) -> Result<u64, Refusal> {
    let damaged = |what: &str| Refusal::unreadable(format!("column {}: {what}", column.column_path()));
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let start = usize::try_from(start).map_err(|_| damaged("a negative offset"))?;
    let length = usize::try_from(column.compressed_size()).map_err(|_| damaged("a negative size"))?;
    let chunk = start
        .checked_add(length)
        .and_then(|end| bytes.get(start..end))
        .ok_or_else(|| damaged("its pages lie outside the file"))?;
    let (mut decoded, mut values, mut at) = (0_u64, 0_u64, 0_usize);
    // Readers stop once they have all values; what lies behind them is never decoded.
    while values < rows {
        let mut cursor = Compact { bytes: chunk, at };
        let page = PageHeader::read(&mut cursor).ok_or_else(|| damaged("a page header is damaged or cut off"))?;
        let (size, compressed) = match (u64::try_from(page.decoded), usize::try_from(page.compressed)) {
            (Ok(size), Ok(compressed)) if compressed <= chunk.len() - cursor.at => (size, compressed),
            _ => return Err(damaged("a page's size is negative or lies outside the file")),
        };
        if size > limits.page_bytes_max {
            return Err(Refusal::limit(
                &format!("column {}: decoded bytes of a page", column.column_path()),
                limits.page_bytes_max,
                size,
            ));
        }
        page.check_encoding().map_err(|what| damaged(&what))?;
        let count = u64::try_from(page.values).map_err(|_| damaged("a page with a negative number of values"))?;
        match page.kind {
            DATA_PAGE | DATA_PAGE_V2 => values = values.saturating_add(count),
            // A dictionary entry takes at least a byte or nothing but its length.
            DICTIONARY_PAGE if count > size => return Err(damaged("a dictionary with more values than bytes")),
            _ => {}
        }
        if values > rows {
            return Err(damaged("its pages hold more values than the row group has rows"));
        }
        decoded = decoded.saturating_add(size);
        at = cursor.at + compressed;
    }
    Ok(decoded)
}

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_V2: i64 = 3;

/// DELTA_BYTE_ARRAY: each value may repeat the one before, so a small page decodes to a square
/// of its size.
const PREFIXED: i64 = 7;

#[derive(Debug, Default)]
struct PageHeader {
    kind: i64,
    decoded: i64,
    compressed: i64,
    values: i64,
    encoding: i64,
}

impl PageHeader {
    fn read(cursor: &mut Compact<'_>) -> Option<Self> {
        let mut header = Self { kind: -1, decoded: -1, compressed: -1, ..Self::default() };
        let mut field = 0;
        while let Some(kind) = cursor.field(&mut field)? {
            match (field, kind) {
                (1, I32) => header.kind = cursor.zigzag()?,
                (2, I32) => header.decoded = cursor.zigzag()?,
                (3, I32) => header.compressed = cursor.zigzag()?,
                (5, STRUCT) => header.read_counts(cursor, 2)?,
                (7, STRUCT) => header.read_counts(cursor, 2)?,
                (8, STRUCT) => header.read_counts(cursor, 4)?,
                _ => cursor.skip(kind, 0)?,
            }
        }
        Some(header)
    }

    /// The number of values is field 1 of every page kind; the encoding's field differs.
    fn read_counts(&mut self, cursor: &mut Compact<'_>, encoding: i64) -> Option<()> {
        let mut field = 0;
        while let Some(kind) = cursor.field(&mut field)? {
            match (field, kind) {
                (1, I32) => self.values = cursor.zigzag()?,
                (at, I32) if at == encoding => self.encoding = cursor.zigzag()?,
                _ => cursor.skip(kind, 0)?,
            }
        }
        Some(())
    }

    fn check_encoding(&self) -> Result<(), String> {
        if self.encoding == PREFIXED {
            return Err("its encoding must not be DELTA_BYTE_ARRAY, which decodes without bound".to_owned());
        }
        Ok(())
    }
}

const BOOL_TRUE: u8 = 1;
const BOOL_FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

const DEPTH_MAX: u8 = 8;

/// A cursor over Thrift's compact protocol; `None` means damaged.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn advance(&mut self, length: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(length).ok()?)?;
        if end > self.bytes.len() {
            return None;
        }
        self.at = end;
        Some(())
    }

    /// The kind of the next field, whose id is put into `id`; inner `None` at the struct's end.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.zigzag()?,
            delta => id.checked_add(i64::from(delta))?,
        };
        Some(Some(head & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            BOOL_TRUE | BOOL_FALSE => Some(()),
            I8 => self.advance(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.advance(8),
            BINARY => {
                let length = self.varint()?;
                self.advance(length)
            }
            LIST | SET => self.skip_list(depth),
            MAP => self.skip_map(depth),
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn skip_list(&mut self, depth: u8) -> Option<()> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        for _ in 0..count {
            self.skip_element(head & 0x0f, depth)?;
        }
        Some(())
    }

    fn skip_map(&mut self, depth: u8) -> Option<()> {
        let count = self.varint()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        for _ in 0..count {
            self.skip_element(kinds >> 4, depth)?;
            self.skip_element(kinds & 0x0f, depth)?;
        }
        Some(())
    }

    /// In lists and maps a bool takes a byte, so every element takes at least one.
    fn skip_element(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            BOOL_TRUE | BOOL_FALSE => self.advance(1),
            _ => self.skip(kind, depth + 1),
        }
    }
}
