//! How the tables of one point-of-sale product become one dataset.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Watermark;
use super::is_call;
use crate::config::Charset;

/// Either `from` (queries are derived from it) or `extract` and `audit` (queries written by hand).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetMapping {
    /// Table or join, as it stands behind FROM.
    #[serde(default)]
    pub from: Option<String>,
    /// Rows that count, as SQL.
    #[serde(default, rename = "where")]
    pub filter: Option<String>,
    /// SQL expression of the business date.
    #[serde(default)]
    pub date: Option<String>,
    /// The rows of the days `:from` to `:to`, as SQL that an index can serve; by default
    /// `DATE BETWEEN :from AND :to`. `:after` is the day after `:to`.
    #[serde(default)]
    pub range: Option<String>,
    /// Further ORDER BY expressions behind the date.
    #[serde(default)]
    pub order: Vec<String>,
    /// A hash of the rows in the fingerprint, so that changes that cancel out in count and sums
    /// are found too. Costs the server one pass over the lookback window's columns.
    #[serde(default = "yes")]
    pub row_hash: bool,
    /// The days to fingerprint are those of rows written since the last cycle, not the whole window.
    #[serde(default)]
    pub watermark: Option<Watermark>,
    /// SELECT with `:from`, `:to`, `:day`, `:after`, `:store` whose result columns are named
    /// like the dataset's, ordered by business date.
    #[serde(default)]
    pub extract: Option<String>,
    /// SELECT with the same parameters: `day`, `rows`, one column per audit sum, perhaps `hash`.
    #[serde(default)]
    pub audit: Option<String>,
    /// Which result set of `extract` holds the rows, from 1, where it is a procedure that gives several.
    #[serde(default)]
    pub result_set: Option<u32>,
    /// Which result set of `audit` holds the rows, from 1.
    #[serde(default)]
    pub audit_result_set: Option<u32>,
    /// `day`, `rows`, `hash` or an audit sum, to the name that `audit` gives it.
    #[serde(default)]
    pub audit_columns: BTreeMap<String, String>,
    /// Rows asked for in one query of this dataset, in place of `limits.chunk_rows`.
    #[serde(default)]
    pub chunk_rows: Option<u64>,
    /// Dataset column to SQL expression (to result column name with `extract`).
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnMapping>,
}

/// SQL, or SQL and how to read what it gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnMapping {
    pub sql: Option<String>,
    /// The source's integer counts 10^-scale: 2 for cents.
    pub scale: Option<u8>,
    /// The source's float is rounded by the server to so many fraction digits, on both sides of
    /// the audit.
    pub round: Option<u8>,
    /// Zone of a timestamp without one: IANA name; the store's by default.
    pub zone: Option<String>,
    /// The source's integer counts from 1970-01-01 UTC.
    pub epoch: Option<EpochUnit>,
    /// Fractions finer than a microsecond are cut off instead of refused.
    pub truncate: bool,
    /// Character set of text that the source does not convert; the source's by default.
    pub charset: Option<Charset>,
}

impl ColumnMapping {
    /// True if `decimal_comma` applies to this column. It does not if the mapping sets `scale` or `round`: the column
    /// is numeric then.
    pub fn is_read_with_comma(&self) -> bool {
        self.sql.is_some() && !self.is_number()
    }

    /// True if the mapping sets `scale` or `round`: the column is numeric.
    pub fn is_number(&self) -> bool {
        self.round.is_some() || self.scale.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpochUnit {
    S,
    Ms,
    Us,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    #[serde(default)]
    sql: Option<String>,
    #[serde(default)]
    scale: Option<u8>,
    #[serde(default)]
    round: Option<u8>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    epoch: Option<EpochUnit>,
    #[serde(default)]
    truncate: bool,
    #[serde(default)]
    charset: Option<Charset>,
}

impl<'de> Deserialize<'de> for ColumnMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTable;

        impl<'de> Visitor<'de> for TextOrTable {
            type Value = ColumnMapping;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("SQL text, or a table with sql, scale, round, zone, epoch, truncate, charset")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ColumnMapping, E> {
                Ok(ColumnMapping { sql: Some(text.to_owned()), ..ColumnMapping::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnMapping, A::Error> {
                let Full { sql, scale, round, zone, epoch, truncate, charset } =
                    Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ColumnMapping { sql, scale, round, zone, epoch, truncate, charset })
            }
        }

        deserializer.deserialize_any(TextOrTable)
    }
}

impl DatasetMapping {
    /// A procedure's result columns are what they are: those that are no columns of the dataset are
    /// left out.
    pub fn leaves_out_columns(&self) -> bool {
        self.extract.as_deref().is_some_and(is_call) || self.result_set.is_some()
    }

    /// As [`DatasetMapping::leaves_out_columns`], of `audit`.
    pub fn leaves_out_audit_columns(&self) -> bool {
        self.audit.as_deref().is_some_and(is_call) || self.audit_result_set.is_some()
    }

    /// The dataset column that a result column of `extract` is.
    pub fn column_of<'a>(&'a self, result_column: &'a str) -> &'a str {
        let named = self.extract.as_ref().and_then(|_| {
            let is =
                |column: &ColumnMapping| column.sql.as_ref().is_some_and(|sql| sql.eq_ignore_ascii_case(result_column));
            self.columns.iter().find(|(_, column)| is(column))
        });
        named.map_or(result_column, |(name, _)| name.as_str())
    }

    /// What a result column of `audit` means: `day`, `rows`, `hash` or an audit sum.
    pub fn audit_column_of<'a>(&'a self, result_column: &'a str) -> &'a str {
        let is = |name: &str| name.eq_ignore_ascii_case(result_column);
        self.audit_columns.iter().find(|(_, name)| is(name)).map_or(result_column, |(meaning, _)| meaning.as_str())
    }
}

fn yes() -> bool {
    true
}
