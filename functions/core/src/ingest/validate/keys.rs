//! Duplicate keys within a unit. Keys are told apart by 128 bits of hash: among 20 million keys
//! two different ones collide with a probability below 1 in 10^24.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ByteViewType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, GenericByteViewArray, PrimitiveArray, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use ribera_storage::batch::QuarantineReason;
use ribera_storage::dataset::DatasetDefinition;

use super::values::value_text;
use crate::ingest::refusal::Refusal;

/// The keys seen in the unit at hand.
pub struct Keys {
    names: Vec<String>,
    columns: Vec<usize>,
    hashes: Vec<Lanes>,
    seen: KeySet,
}

pub type KeySet = HashSet<u128, BuildHasherDefault<FirstHalf>>;

impl Keys {
    pub fn of(definition: &DatasetDefinition) -> Self {
        let index = |name: &String| definition.columns.iter().position(|column| column.name == *name);
        Self {
            columns: definition.key.iter().filter_map(index).collect(),
            names: definition.key.clone(),
            hashes: Vec::new(),
            seen: KeySet::default(),
        }
    }

    /// Hashes the key of every row, column by column.
    pub fn hash(&mut self, batch: &RecordBatch) {
        self.hashes.clear();
        self.hashes.resize(batch.num_rows(), Lanes::START);
        for column in &self.columns {
            hash_column(batch.column(*column), &mut self.hashes);
        }
    }

    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// `rows` of the batch hashed last belong to one unit.
    pub fn check(&mut self, batch: &RecordBatch, rows: Range<usize>, rows_before: u64) -> Result<(), Refusal> {
        self.seen.reserve(rows.len());
        let Some(row) = rows.into_iter().find(|row| !self.seen.insert(self.hashes[*row].joined())) else {
            return Ok(());
        };
        let values: Vec<String> = self.columns.iter().map(|column| value_text(batch.column(*column), row)).collect();
        Err(Refusal::new(
            QuarantineReason::DuplicateKey,
            format!(
                "key {}: must be unique within a unit, got {} again in row {}",
                self.names.join(", "),
                values.join(", "),
                rows_before + row as u64 + 1
            ),
        ))
    }
}

/// Adds a column's values to the hashes of its rows. A NULL counts as a value of its own.
pub fn hash_column(array: &dyn Array, hashes: &mut [Lanes]) {
    match array.data_type() {
        DataType::Int16 => hash_primitive::<Int16Type>(array.as_primitive(), hashes),
        DataType::Int32 => hash_primitive::<Int32Type>(array.as_primitive(), hashes),
        DataType::Int64 => hash_primitive::<Int64Type>(array.as_primitive(), hashes),
        DataType::Date32 => hash_primitive::<Date32Type>(array.as_primitive(), hashes),
        DataType::Decimal128(_, _) => hash_primitive::<Decimal128Type>(array.as_primitive(), hashes),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            hash_primitive::<TimestampMicrosecondType>(array.as_primitive(), hashes);
        }
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            for (value, hash) in floats.values().iter().zip(hashes) {
                hash.add(u128::from(value.to_bits()));
            }
        }
        DataType::Boolean => {
            let flags = array.as_boolean();
            for (row, hash) in hashes.iter_mut().enumerate() {
                hash.add(u128::from(flags.value(row)));
            }
        }
        DataType::Utf8View => hash_views(array.as_string_view(), hashes),
        DataType::BinaryView => hash_views(array.as_binary_view(), hashes),
        _ => {}
    }
}

fn hash_primitive<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, hashes: &mut [Lanes])
where
    T::Native: Into<i128>,
{
    for (value, hash) in array.values().iter().zip(hashes) {
        hash.add(Into::<i128>::into(*value) as u128);
    }
}

fn hash_views<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>, hashes: &mut [Lanes]) {
    for (row, (view, hash)) in array.views().iter().zip(hashes).enumerate() {
        // A view of up to 12 bytes is the value itself: length, bytes, zeros.
        if (*view as u32) <= 12 {
            hash.add(*view);
        } else {
            let value: &T::Native = array.value(row);
            hash.add_bytes(value.as_ref());
        }
    }
}

/// Two independent 64-bit hashes of the same values. Not for adversaries: who makes two keys
/// collide has only its own batch refused.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    left: u64,
    right: u64,
}

impl Lanes {
    pub const START: Self = Self { left: 0x243f_6a88_85a3_08d3, right: 0x1319_8a2e_0370_7344 };

    pub fn add(&mut self, value: u128) {
        let (low, high) = (value as u64, (value >> 64) as u64);
        self.left = folded(self.left ^ low, 0xa409_3822_299f_31d1 ^ high.rotate_left(32)).wrapping_add(high);
        self.right = folded(self.right.rotate_left(29) ^ low, 0x082e_fa98_ec4e_6c89 ^ high).wrapping_add(low);
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u128 | 1 << 127);
        for chunk in bytes.chunks(16) {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            self.add(u128::from_le_bytes(block));
        }
    }

    pub fn joined(self) -> u128 {
        // A last stir, so that both halves depend on every bit of the last value.
        let left = folded(self.left ^ 0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6d);
        let right = folded(self.right ^ 0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917);
        u128::from(left) << 64 | u128::from(right)
    }
}

/// The product's halves, folded.
fn folded(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// Takes what is a hash already.
#[derive(Default)]
pub struct FirstHalf(u64);

impl Hasher for FirstHalf {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
