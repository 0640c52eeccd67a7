//! Arrow column builders that take a source's values as they come: each value is converted once,
//! exactly, or refused. `docs/types.md` is the table of what fits where.

use std::rc::Rc;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use ribera_storage::dataset::{Column, ColumnType, Transform};
use ribera_storage::{Error, ExactDecimal, Result};

use crate::calendar::{Zone, date_text, local_text};
use crate::config::{Charset, ColumnMapping, EpochUnit, decoded};
use crate::source::Value;

mod convert;
mod parse;
#[cfg(test)]
mod tests;
mod transform;

/// How a column reads its source.
#[derive(Debug)]
pub struct ColumnReadOptions {
    pub scale: u8,
    pub zone: Rc<Zone>,
    pub epoch: Option<EpochUnit>,
    pub truncate: bool,
    /// The audit's SQL reads the column as text with a decimal comma; a number there would lose its point.
    pub comma_in_audit: bool,
    /// The mapping says how a number is read: no text with a decimal comma.
    pub is_number: bool,
    /// Fraction digits that the source rounds to.
    pub round: Option<u8>,
    /// For a row that is only looked for: the source has not rounded.
    pub unrounded: bool,
    /// Character set of text that the source does not convert.
    pub charset: Option<Charset>,
    /// Salt of the `hash` transform.
    pub salt: Arc<str>,
}

/// Why a value does not fit.
#[derive(Debug)]
pub struct Refusal(pub String);

/// A column being filled.
pub struct ColumnBuilder {
    name: String,
    column_type: ColumnType,
    nullable: bool,
    transforms: Vec<Transform>,
    reading: ColumnReadOptions,
    data: Data,
    /// Text being transformed; kept for its allocation.
    scratch: String,
    last: Last,
}

enum Data {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Decimal(Decimal128Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Float64(Float64Builder),
}

/// The number last appended, for units and sums.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Last {
    Null,
    Number(i128),
    Other,
}

impl ColumnBuilder {
    /// A column of `definition` that reads its source as `mapping` says. `zone` is the store's.
    pub fn new(definition: &Column, mapping: &ColumnMapping, zone: &Rc<Zone>, salt: &Arc<str>) -> Result<Self> {
        let hashes = definition.transforms.contains(&Transform::Hash);
        if hashes && salt.is_empty() {
            return Err(Error::config(format!(
                "configuration: hash_salt: must be there because column {} is hashed, got nothing",
                definition.name
            )));
        }
        let zone = match &mapping.zone {
            None => zone.clone(),
            Some(name) => Rc::new(Zone::new(jiff::tz::TimeZone::get(name).map_err(|error| {
                Error::config(format!("column {}: zone: must be an IANA time zone, got {name:?}", definition.name))
                    .with_source(error)
            })?)),
        };
        let reading = ColumnReadOptions {
            scale: mapping.scale.unwrap_or(0),
            zone,
            epoch: mapping.epoch,
            truncate: mapping.truncate,
            comma_in_audit: mapping.is_read_with_comma(),
            is_number: mapping.is_number(),
            round: mapping.round,
            unrounded: false,
            charset: mapping.charset,
            salt: salt.clone(),
        };
        Ok(Self {
            name: definition.name.clone(),
            column_type: definition.column_type,
            nullable: definition.nullable,
            transforms: definition.transforms.clone(),
            reading,
            data: Data::new(definition.column_type)?,
            scratch: String::new(),
            last: Last::Null,
        })
    }

    /// This column for rows that the source has not rounded, to find the row that it cannot round.
    pub fn unrounded(mut self) -> Self {
        self.reading.unrounded = true;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A value as an error may show it: of a column that is hashed or dropped only what it is.
    pub fn shown(&self, value: Value<'_>) -> String {
        let is_hidden = self.transforms.iter().any(|one| matches!(one, Transform::Hash | Transform::Drop));
        if is_hidden { value.kind().to_owned() } else { value.to_string() }
    }

    /// Appends `value` converted, or appends nothing and says why not.
    #[inline]
    pub fn push(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if let (Value::Bytes(bytes), Some(charset)) = (value, self.reading.charset)
            && !self.takes_bytes()
        {
            return self.push_raw(bytes, Some(charset));
        }
        let value = match self.reading.round {
            None => value,
            Some(digits) if self.reading.unrounded => convert::unrounded(value, digits)?,
            Some(_) => convert::rounded(value)?,
        };
        if self.transforms.is_empty() {
            return self.append(value);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let transformed = transform::apply(&self.transforms, &self.reading, value, &mut scratch);
        let appended = transformed.and_then(|value| self.append(value));
        self.scratch = scratch;
        appended
    }

    /// Appends a text as the source has it, in the column's own character set or else in the source's.
    pub fn push_raw(&mut self, bytes: &[u8], charset: Option<Charset>) -> Result<(), Refusal> {
        if self.takes_bytes() {
            return self.push(Value::Bytes(bytes));
        }
        let charset = self.reading.charset.or(charset);
        match (decoded(bytes, charset), charset) {
            (Some(text), _) => self.push(Value::Text(&text)),
            (None, Some(charset)) => Err(Refusal(format!("must be text in the character set {charset}"))),
            (None, None) => self.push(Value::Bytes(bytes)),
        }
    }

    fn takes_bytes(&self) -> bool {
        matches!(self.data, Data::Binary(_)) && self.transforms.is_empty()
    }

    /// Appends something, so that all columns keep the same length after a refusal.
    pub fn push_filler(&mut self) {
        self.data.append_null();
        self.last = Last::Null;
    }

    /// The value last appended as an integer: days of a date, microseconds of a timestamp, an
    /// integer, or a decimal's unscaled number; `None` for NULL and other types.
    #[inline]
    pub fn last_number(&self) -> Option<i128> {
        match self.last {
            Last::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The value last appended, for error messages.
    pub fn last_text(&self) -> String {
        match (self.last, self.column_type) {
            (Last::Null, _) => "NULL".to_owned(),
            (Last::Number(number), ColumnType::Date) => date_text(number as i32),
            (Last::Number(number), ColumnType::Timestamp) => local_text(number as i64),
            (Last::Number(number), ColumnType::Decimal { scale, .. }) => ExactDecimal::new(number, scale).to_string(),
            (Last::Number(number), _) => number.to_string(),
            (Last::Other, _) => match &self.data {
                Data::Text(builder) => {
                    let offsets = builder.offsets_slice();
                    let start = offsets.len().checked_sub(2).and_then(|at| offsets.get(at)).copied().unwrap_or(0);
                    let bytes = builder.values_slice().get(start as usize..).unwrap_or_default();
                    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(100)]))
                }
                _ => "(binary)".to_owned(),
            },
        }
    }

    /// Decimal digits behind the point of the column's exact number.
    pub fn sum_scale(&self) -> u8 {
        match self.column_type {
            ColumnType::Decimal { scale, .. } => scale,
            _ => 0,
        }
    }

    /// Bytes of text and binary values that wait in the builder.
    pub fn text_bytes(&self) -> usize {
        match &self.data {
            Data::Text(builder) => builder.values_slice().len(),
            Data::Binary(builder) => builder.values_slice().len(),
            _ => 0,
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        self.data.finish()
    }

    #[inline]
    fn append(&mut self, value: Value<'_>) -> Result<(), Refusal> {
        if matches!(value, Value::Null) {
            if !self.nullable {
                return Err(Refusal("must not be NULL".to_owned()));
            }
            self.push_filler();
            return Ok(());
        }
        self.last = match &mut self.data {
            Data::Bool(builder) => {
                let value = convert::boolean(value)?;
                builder.append_value(value);
                Last::Number(i128::from(value))
            }
            Data::Int16(builder) => {
                let number = convert::integer(value, i16::MIN.into(), i16::MAX.into())?;
                builder.append_value(number as i16);
                Last::Number(number.into())
            }
            Data::Int32(builder) => {
                let number = convert::integer(value, i32::MIN.into(), i32::MAX.into())?;
                builder.append_value(number as i32);
                Last::Number(number.into())
            }
            Data::Int64(builder) => {
                let number = convert::integer(value, i64::MIN, i64::MAX)?;
                builder.append_value(number);
                Last::Number(number.into())
            }
            Data::Decimal(builder) => {
                let ColumnType::Decimal { precision, scale } = self.column_type else {
                    return Err(Refusal("is not a decimal column".to_owned()));
                };
                let number = convert::decimal(value, &self.reading, precision, scale)?;
                builder.append_value(number);
                Last::Number(number)
            }
            Data::Date(builder) => {
                let days = convert::date(value)?;
                builder.append_value(days);
                Last::Number(days.into())
            }
            Data::Timestamp(builder) => {
                let micros = convert::timestamp(value, &self.reading)?;
                builder.append_value(micros);
                Last::Number(micros.into())
            }
            Data::Text(builder) => {
                convert::fits_centre(value)?;
                convert::text(value, |text| builder.append_value(text))?;
                Last::Other
            }
            Data::Binary(builder) => {
                convert::fits_centre(value)?;
                builder.append_value(convert::binary(value)?);
                Last::Other
            }
            Data::Float64(builder) => {
                builder.append_value(convert::float(value)?);
                Last::Other
            }
        };
        Ok(())
    }
}

macro_rules! each {
    ($data:expr, $builder:ident => $do:expr) => {
        match $data {
            Data::Bool($builder) => $do,
            Data::Int16($builder) => $do,
            Data::Int32($builder) => $do,
            Data::Int64($builder) => $do,
            Data::Decimal($builder) => $do,
            Data::Date($builder) => $do,
            Data::Timestamp($builder) => $do,
            Data::Text($builder) => $do,
            Data::Binary($builder) => $do,
            Data::Float64($builder) => $do,
        }
    };
}

impl Data {
    fn new(column_type: ColumnType) -> Result<Self> {
        Ok(match column_type {
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Int16 => Self::Int16(Int16Builder::new()),
            ColumnType::Int32 => Self::Int32(Int32Builder::new()),
            ColumnType::Int64 => Self::Int64(Int64Builder::new()),
            ColumnType::Decimal { precision, scale } => Self::Decimal(
                Decimal128Builder::new()
                    .with_precision_and_scale(precision, scale as i8)
                    .map_err(|error| Error::config(format!("column type: {column_type}")).with_source(error))?,
            ),
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Binary => Self::Binary(BinaryBuilder::new()),
            ColumnType::Float64 => Self::Float64(Float64Builder::new()),
        })
    }

    fn append_null(&mut self) {
        each!(self, builder => builder.append_null());
    }

    fn finish(&mut self) -> ArrayRef {
        each!(self, builder => Arc::new(builder.finish()) as ArrayRef)
    }
}
