//! The shapes a dataset takes: Arrow schema of batch and lake files, Delta schema, partitions.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{DatasetDefinition, DatasetKind, Grain};
use crate::hex::hex;
use crate::ids::{Month, Unit};

/// The column of lake files that names the store of a row. Batch files have none: one store sends them.
pub const STORE_COLUMN: &str = "store_id";

/// A partition column's name and value, in order.
pub type PartitionColumn = (String, String);

impl DatasetDefinition {
    /// The columns of batch files, in definition order.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields().collect::<Vec<_>>()))
    }

    /// The columns of lake files: the store, then those of batch files.
    pub fn lake_schema(&self) -> SchemaRef {
        let store = Field::new(STORE_COLUMN, DataType::Utf8, false);
        Arc::new(Schema::new(std::iter::once(store).chain(self.fields()).collect::<Vec<_>>()))
    }

    /// Where a row belongs, as people see it before the dataset's own columns: the store, then the
    /// partition columns.
    pub fn place_columns(&self) -> Vec<String> {
        std::iter::once(STORE_COLUMN.to_owned()).chain(self.partition_columns()).collect()
    }

    /// `month` or `year` by the grain; nothing for a dimension or without a grain.
    pub fn partition_columns(&self) -> Vec<String> {
        let grain = match (self.kind, self.grain) {
            (DatasetKind::Dimension, _) | (_, Grain::None) => None,
            (_, Grain::Month) => Some("month"),
            (_, Grain::Year) => Some("year"),
        };
        grain.map(str::to_owned).into_iter().collect()
    }

    /// The partition that a batch of `month` belongs to.
    pub fn partition(&self, month: Option<Month>) -> Vec<PartitionColumn> {
        let value = |column: &str| match (column, month) {
            ("year", Some(month)) => month.year().to_string(),
            (_, Some(month)) => month.to_string(),
            (_, None) => String::new(),
        };
        self.partition_columns().into_iter().map(|column| (column.clone(), value(&column))).collect()
    }

    fn fields(&self) -> impl Iterator<Item = Field> {
        self.columns.iter().map(|column| Field::new(&column.name, column.column_type.arrow(), column.nullable))
    }

    /// Delta's `schemaString`: the store, partition columns as nullable strings, the dataset's columns.
    pub fn delta_schema(&self) -> String {
        let field = |name: &str, kind: String, nullable: bool| json!({"name": name, "type": kind, "nullable": nullable, "metadata": {}});
        let partitions = self.partition_columns();
        let fields: Vec<_> = std::iter::once(field(STORE_COLUMN, "string".into(), false))
            .chain(partitions.iter().map(|name| field(name, "string".into(), true)))
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
