//! Which changes of a dataset a table can take, and at what price.
//!
//! The tables use no table features, so a reader expects every file to hold the types of the
//! schema. Independent readers fill an absent nullable column with NULL, and read a narrower type
//! of the same physical Parquet type (`int16` as `int32`; a decimal of the same scale whose
//! precision stays within 9, or within 18 digits). Every other widening changes the physical
//! type, which older readers refuse or, worse, misread: those files are written again by
//! [`crate::delta::Table::migrate`] in the entry that changes the schema.

use serde::Deserialize;

use crate::dataset::{ColumnType, DatasetDefinition};
use crate::error::{Error, Result};

/// What a table must do before it takes files of a changed definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evolution {
    /// The same columns.
    None,
    /// A new `metaData` action in the same entry; old files stay as they are.
    Metadata,
    /// Old files must be written again with the wider types.
    Rewrite,
}

/// A column of a table as its schema string has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "FieldForm")]
pub struct SchemaField {
    pub name: String,
    /// The name of a plain type, or the JSON of a nested one.
    pub delta_type: String,
    pub nullable: bool,
    /// As it was read, with the metadata (comments and the like) that other programs gave it.
    pub json: serde_json::Value,
}

impl SchemaField {
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.delta_type, self.nullable) == (&other.name, &other.delta_type, other.nullable)
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct FieldForm(serde_json::Value);

impl From<FieldForm> for SchemaField {
    fn from(FieldForm(json): FieldForm) -> Self {
        let name = json.get("name").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let delta_type = match json.get("type") {
            Some(serde_json::Value::String(plain)) => plain.clone(),
            nested => nested.map(ToString::to_string).unwrap_or_default(),
        };
        let nullable = json.get("nullable").and_then(serde_json::Value::as_bool).unwrap_or(true);
        Self { name, delta_type, nullable, json }
    }
}

/// What it takes to go from `old` to `new`; an error names the column and its types.
///
/// # Errors
///
/// `Config` when files of `old` cannot become rows of `new`.
pub fn between(old: &DatasetDefinition, new: &DatasetDefinition) -> Result<Evolution> {
    let same = |field: &str, left: String, right: String| match left == right {
        true => Ok(()),
        false => Err(refused(new, &format!("{field}: must stay {left}, got {right}"))),
    };
    same("kind", format!("{:?}", old.kind), format!("{:?}", new.kind))?;
    same("business_date", format!("{:?}", old.business_date), format!("{:?}", new.business_date))?;
    same("moment", format!("{:?}", old.moment), format!("{:?}", new.moment))?;
    let evolution = of_table(&old.delta_schema(), &old.partition_columns(), new)?;
    let (wanted, current) = (fields(&new.delta_schema())?, fields(&old.delta_schema())?);
    if let Some(gone) = current.iter().find(|old| !wanted.iter().any(|field| field.name == old.name)) {
        let (name, kind) = (&gone.name, &gone.delta_type);
        return Err(refused(new, &format!("column {name}: must stay (it is {kind} in the table), got none")));
    }
    Ok(evolution)
}

/// What a table of `schema` (Delta's schema string) must do to take files of `new`.
///
/// # Errors
///
/// `Data` when `schema` cannot be read; `Config` when the table cannot take files of `new`.
pub fn of_table(schema: &str, partition_columns: &[String], new: &DatasetDefinition) -> Result<Evolution> {
    if partition_columns != new.partition_columns() {
        return Err(refused(
            new,
            &format!(
                "grain: must stay with partition columns {partition_columns:?}, got {:?}",
                new.partition_columns()
            ),
        ));
    }
    let wanted = fields(&new.delta_schema())?;
    let current = fields(schema)?;
    // A column that another program added stays: files without it read as NULL.
    let (known, foreign): (Vec<_>, Vec<_>) =
        current.into_iter().partition(|field| wanted.iter().any(|one| one.name == field.name));
    if let Some(column) = foreign.iter().find(|field| !field.nullable) {
        let (name, kind) = (&column.name, &column.delta_type);
        return Err(refused(
            new,
            &format!("column {name}: a column of another program must be nullable, got {kind} not null"),
        ));
    }
    let same = wanted.len() == known.len() && wanted.iter().zip(&known).all(|(wanted, known)| wanted.is_same(known));
    let mut evolution = if same { Evolution::None } else { Evolution::Metadata };
    for field in &wanted {
        let step = match known.iter().find(|old| old.name == field.name) {
            Some(old) => column(new, old, field)?,
            None if field.nullable => Evolution::Metadata,
            None => return Err(refused(new, &format!("column {}: an added column must be nullable", field.name))),
        };
        evolution = evolution.max(step);
    }
    Ok(evolution)
}

/// The schema string of a table of `schema` once it takes files of `new`: the columns of `new`, each
/// with the metadata it had, then those of other programs.
///
/// # Errors
///
/// `Data` when `schema` cannot be read.
pub fn evolved_schema(schema: &str, new: &DatasetDefinition) -> Result<String> {
    let (wanted, current) = (fields(&new.delta_schema())?, fields(schema)?);
    let mut columns: Vec<serde_json::Value> = Vec::new();
    for field in &wanted {
        let mut column = field.json.clone();
        let metadata = current.iter().find(|old| old.name == field.name).and_then(|old| old.json.get("metadata"));
        if let (Some(metadata), Some(object)) = (metadata, column.as_object_mut()) {
            object.insert("metadata".to_owned(), metadata.clone());
        }
        columns.push(column);
    }
    let foreign = current.into_iter().filter(|old| !wanted.iter().any(|field| field.name == old.name));
    columns.extend(foreign.map(|field| field.json));
    Ok(serde_json::json!({"type": "struct", "fields": columns}).to_string())
}

/// The columns of a Delta schema string, partition columns among them.
///
/// # Errors
///
/// `Data` when it is not a schema of plain columns.
pub fn fields(schema: &str) -> Result<Vec<SchemaField>> {
    #[derive(Deserialize)]
    struct Struct {
        fields: Vec<SchemaField>,
    }
    serde_json::from_str::<Struct>(schema).map(|parsed| parsed.fields).map_err(|error| {
        Error::data(format!("table schema: expected a struct of plain columns, got {schema}")).with_source(error)
    })
}

fn column(dataset: &DatasetDefinition, old: &SchemaField, new: &SchemaField) -> Result<Evolution> {
    if old.nullable && !new.nullable {
        return Err(refused(dataset, &format!("column {}: must stay nullable, got not nullable", new.name)));
    }
    if old.delta_type == new.delta_type {
        return Ok(if old.nullable == new.nullable { Evolution::None } else { Evolution::Metadata });
    }
    let types = (column_type(&old.delta_type), column_type(&new.delta_type));
    if let (Some(from), Some(to)) = types
        && let Some(evolution) = widening(from, to)
    {
        return Ok(evolution);
    }
    let shown = |kind: Option<ColumnType>, text: &str| kind.map_or_else(|| text.to_owned(), |kind| kind.to_string());
    Err(refused(
        dataset,
        &format!(
            "column {}: {} can only be widened (int16 to int32 to int64, a decimal to more digits), got {}",
            new.name,
            shown(types.0, &old.delta_type),
            shown(types.1, &new.delta_type)
        ),
    ))
}

fn widening(from: ColumnType, to: ColumnType) -> Option<Evolution> {
    use ColumnType::{Decimal, Int16, Int32, Int64};
    match (from, to) {
        (Int16, Int32) => Some(Evolution::Metadata),
        (Int16 | Int32, Int64) => Some(Evolution::Rewrite),
        (Decimal { precision, scale }, Decimal { precision: wider, scale: finer }) => {
            let room = i16::from(wider) - i16::from(finer) >= i16::from(precision) - i16::from(scale);
            let physical = |precision: u8| (precision > 9, precision > 18, if precision > 18 { precision } else { 0 });
            match (wider >= precision && finer >= scale && room, finer == scale) {
                (false, _) => None,
                (true, true) if physical(precision) == physical(wider) => Some(Evolution::Metadata),
                (true, _) => Some(Evolution::Rewrite),
            }
        }
        _ => None,
    }
}

/// The column type of a Delta type name, for the types that Ribera writes.
pub fn column_type(delta_type: &str) -> Option<ColumnType> {
    Some(match delta_type {
        "boolean" => ColumnType::Bool,
        "short" => ColumnType::Int16,
        "integer" => ColumnType::Int32,
        "long" => ColumnType::Int64,
        "date" => ColumnType::Date,
        "timestamp" => ColumnType::Timestamp,
        "string" => ColumnType::Text,
        "binary" => ColumnType::Binary,
        "double" => ColumnType::Float64,
        decimal if decimal.starts_with("decimal(") => decimal.parse().ok()?,
        _ => return None,
    })
}

fn refused(dataset: &DatasetDefinition, what: &str) -> Error {
    Error::config(format!(
        "dataset {}: {what}; a change that is no widening needs a dataset of another name",
        dataset.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Column, shipped};

    fn changed(change: impl FnOnce(&mut DatasetDefinition)) -> Result<Evolution> {
        let old = shipped("ventas").unwrap().unwrap();
        let mut new = old.clone();
        change(&mut new);
        between(&old, &new)
    }

    fn retyped(column: &str, from: &str, to: &str) -> Result<Evolution> {
        let mut old = shipped("ventas").unwrap().unwrap();
        let index = old.columns.iter().position(|one| one.name == column).unwrap();
        old.columns[index].column_type = from.parse().unwrap();
        let mut new = old.clone();
        new.columns[index].column_type = to.parse().unwrap();
        between(&old, &new)
    }

    #[test]
    fn an_added_nullable_column_and_a_widening_within_one_physical_type_need_metadata_only() {
        assert_eq!(changed(|_| {}).unwrap(), Evolution::None);
        let extra = |nullable| Column {
            name: "caja".into(),
            nullable,
            ..shipped("ventas").unwrap().unwrap().columns[6].clone()
        };
        assert_eq!(changed(|new| new.columns.push(extra(true))).unwrap(), Evolution::Metadata);
        assert!(changed(|new| new.columns.push(extra(false))).unwrap_err().message().contains("caja"));
        assert_eq!(retyped("linea", "int16", "int32").unwrap(), Evolution::Metadata);
        assert_eq!(retyped("total", "decimal(12,2)", "decimal(18,2)").unwrap(), Evolution::Metadata);
    }

    #[test]
    fn a_widening_to_another_physical_type_needs_a_rewrite() {
        for (from, to) in [
            ("int32", "int64"),
            ("decimal(9,2)", "decimal(10,2)"),
            ("decimal(18,2)", "decimal(19,2)"),
            ("decimal(20,2)", "decimal(21,2)"),
            ("decimal(10,2)", "decimal(12,4)"),
        ] {
            assert_eq!(retyped("total", from, to).unwrap(), Evolution::Rewrite, "{from} to {to}");
        }
    }

    #[test]
    fn other_changes_are_refused_naming_column_and_types() {
        for (from, to) in [("int64", "int32"), ("decimal(18,2)", "decimal(18,3)"), ("int32", "decimal(18,0)")] {
            let error = retyped("total", from, to).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            for word in ["total", from, to] {
                assert!(error.message().contains(word), "{error}");
            }
        }
        assert!(changed(|new| drop(new.columns.remove(6))).unwrap_err().message().contains("cliente_id"));
        assert!(changed(|new| new.grain = crate::dataset::Grain::Year).unwrap_err().message().contains("year"));
        assert!(changed(|new| new.columns[4].nullable = false).unwrap_err().message().contains("vendido_en"));
    }
}
