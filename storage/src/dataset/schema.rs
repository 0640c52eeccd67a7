//! The shapes a dataset takes: Arrow schema of batch and lake files, Delta schema, partitions.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{DatasetDefinition, DatasetKind, Grain};
use crate::hex::hex;
use crate::ids::{Month, StoreId, Unit};

/// The partition column every table has; it is not among the file's columns.
pub const STORE_COLUMN: &str = "store_id";

/// A partition column's name and value, in order.
pub type PartitionColumn = (String, String);

impl DatasetDefinition {
    /// The columns of batch files and lake files, in definition order.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields =
            self.columns.iter().map(|column| Field::new(&column.name, column.column_type.arrow(), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// `store_id`, then `month` or `year` by the grain. A dimension has no grain column.
    pub fn partition_columns(&self) -> Vec<String> {
        let grain = match (self.kind, self.grain) {
            (DatasetKind::Dimension, _) | (_, Grain::None) => None,
            (_, Grain::Month) => Some("month"),
            (_, Grain::Year) => Some("year"),
        };
        std::iter::once(STORE_COLUMN).chain(grain).map(str::to_owned).collect()
    }

    /// The partition that a batch of `store` and `month` belongs to.
    pub fn partition(&self, store: &StoreId, month: Option<Month>) -> Vec<PartitionColumn> {
        let value = |column: &String| match (column.as_str(), month) {
            ("month", Some(month)) => month.to_string(),
            ("year", Some(month)) => month.year().to_string(),
            _ => store.to_string(),
        };
        self.partition_columns().iter().map(|column| (column.clone(), value(column))).collect()
    }

    /// Delta's `schemaString`: partition columns first, as nullable strings.
    pub fn delta_schema(&self) -> String {
        let field = |name: &str, kind: String, nullable: bool| json!({"name": name, "type": kind, "nullable": nullable, "metadata": {}});
        let partitions = self.partition_columns();
        let fields: Vec<_> = partitions
            .iter()
            .map(|name| field(name, "string".into(), true))
            .chain(self.columns.iter().map(|column| field(&column.name, column.column_type.delta(), column.nullable)))
            .collect();
        json!({"type": "struct", "fields": fields}).to_string()
    }

    /// The column whose value names a row's unit: the moment of a snapshot, else the business
    /// date; nothing for a dimension.
    pub fn unit_column(&self) -> Option<&str> {
        match self.kind {
            DatasetKind::Daily => self.business_date.as_deref(),
            DatasetKind::Snapshot => self.moment.as_deref(),
            DatasetKind::Dimension => None,
        }
    }

    /// Whether `unit` is of the kind this dataset has.
    pub fn has_unit(&self, unit: Unit) -> bool {
        matches!(
            (self.kind, unit),
            (DatasetKind::Daily, Unit::Day(_))
                | (DatasetKind::Snapshot, Unit::Moment(_))
                | (DatasetKind::Dimension, Unit::Table)
        )
    }
}

/// Tells files of one schema from those of another: names and types of the columns in order.
pub fn schema_hash(dataset: &DatasetDefinition) -> String {
    hash_of_schema(&dataset.delta_schema())
}

pub(crate) fn hash_of_schema(schema: &str) -> String {
    hex(&Sha256::digest(schema.as_bytes())[..8])
}
