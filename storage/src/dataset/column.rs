//! Columns, their types, transforms and checks.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use arrow_schema::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    #[serde(default = "nullable")]
    pub nullable: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub es: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub en: String,
    /// Applied in the agent in this order, before the audit sums on both sides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<Transform>,
}

/// The type of a column in batch and lake. Text form: `bool`, `int16`, `int32`, `int64`,
/// `decimal(P,S)`, `date`, `timestamp` (UTC microseconds), `text`, `binary`, `float64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ColumnType {
    Bool,
    Int16,
    Int32,
    Int64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    Timestamp,
    Text,
    Binary,
    /// Never for money: cannot be audited.
    Float64,
}

impl ColumnType {
    /// The Arrow type in batch files and lake files.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Text => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Float64 => DataType::Float64,
        }
    }

    /// The Delta type in the table's schema string.
    pub fn delta(self) -> String {
        match self {
            Self::Bool => "boolean".into(),
            Self::Int16 => "short".into(),
            Self::Int32 => "integer".into(),
            Self::Int64 => "long".into(),
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Date => "date".into(),
            Self::Timestamp => "timestamp".into(),
            Self::Text => "string".into(),
            Self::Binary => "binary".into(),
            Self::Float64 => "double".into(),
        }
    }

    /// Whether exact sums of it can be audited.
    pub fn is_exact_number(self) -> bool {
        matches!(self, Self::Int16 | Self::Int32 | Self::Int64 | Self::Decimal { .. })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int16 => f.write_str("int16"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Text => f.write_str("text"),
            Self::Binary => f.write_str("binary"),
            Self::Float64 => f.write_str("float64"),
        }
    }
}

impl FromStr for ColumnType {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "bool" => Self::Bool,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "text" => Self::Text,
            "binary" => Self::Binary,
            "float64" => Self::Float64,
            _ => return decimal(text),
        })
    }
}

fn decimal(text: &str) -> Result<ColumnType> {
    let parts =
        text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).and_then(|rest| rest.split_once(','));
    if let Some((precision, scale)) = parts
        && let (Ok(precision), Ok(scale)) = (precision.trim().parse::<u8>(), scale.trim().parse::<u8>())
        && (1..=38).contains(&precision)
        && scale <= precision
    {
        return Ok(ColumnType::Decimal { precision, scale });
    }
    Err(Error::config(format!(
        "column type: must be bool, int16, int32, int64, decimal(1-38,0-P), date, timestamp, text, binary or float64, got {text:?}"
    )))
}

impl TryFrom<String> for ColumnType {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ColumnType> for String {
    fn from(column_type: ColumnType) -> String {
        column_type.to_string()
    }
}

/// A change made to a value in the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transform {
    Trim,
    Upper,
    BlankToNull,
    /// Source text such as `1.234,50`.
    DecimalComma,
    /// Codes to texts; a code that is not in the map stays as it is.
    CodeMap(BTreeMap<String, String>),
    /// A personal column becomes NULL.
    Drop,
    /// A personal column becomes the hexadecimal SHA-256 of a salt and the value.
    Hash,
}

fn nullable() -> bool {
    true
}
