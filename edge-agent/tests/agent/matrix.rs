//! A type matrix: a table with a column of every type of a server, literals of that server, and
//! what each must be in the spooled Parquet, as text.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use ribera_storage::dataset::DatasetDefinition;

/// A source type, the lake's type for it, and literals with the text that they must become.
pub type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The date of all rows: closed by the fixture's clock.
pub const DAY: &str = "2017-05-01";

/// The column of a case.
pub fn column(index: usize) -> String {
    format!("c{index}")
}

/// A dataset `tipos` with a column per case, summed where it is a number that a sum can hold.
pub fn dataset(cases: &[Case], sums: &[usize]) -> DatasetDefinition {
    let columns: String = cases
        .iter()
        .enumerate()
        .map(|(index, (_, lake, _))| format!("{{ name = \"{}\", type = \"{lake}\" }},\n", column(index)))
        .collect();
    let sums: Vec<String> = sums.iter().map(|index| format!("\"{}\"", column(*index))).collect();
    DatasetDefinition::from_toml(&format!(
        "name = \"tipos\"\nversion = 1\nkind = \"daily\"\nbusiness_date = \"d\"\nkey = [\"id\"]\naudit_sums = [{}]\n\
         lookback_days = 3\ntitles = {{ es = \"Tipos\", en = \"Types\" }}\ncolumn = [\n\
         {{ name = \"d\", type = \"date\", nullable = false }},\n\
         {{ name = \"id\", type = \"int64\", nullable = false }},\n{columns}]\n",
        sums.join(", ")
    ))
    .unwrap()
}

/// The literals of row `row`, NULL where a case has no more.
pub fn literals(cases: &[Case], row: usize) -> Vec<&'static str> {
    cases.iter().map(|(_, _, values)| values.get(row).map_or("NULL", |(literal, _)| *literal)).collect()
}

/// One row more than the longest case has, so that every column has a NULL.
pub fn row_count(cases: &[Case]) -> usize {
    cases.iter().map(|(_, _, values)| values.len()).max().unwrap_or(0) + 1
}

/// Compares every value; how many were not NULL.
pub fn check(cases: &[Case], rows: &RecordBatch) -> usize {
    let ids = rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().clone();
    assert_eq!(rows.num_rows(), row_count(cases));
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (index, (source, lake, values)) in cases.iter().enumerate() {
        let found = rows.column_by_name(&column(index)).unwrap();
        for (row, id) in ids.values().iter().enumerate() {
            let (literal, expected) = values.get(*id as usize).copied().unwrap_or(("NULL", "NULL"));
            let shown = show(found.as_ref(), row);
            if shown != expected {
                wrong.push(format!("{source} -> {lake}: {literal} must be {expected}, got {shown}"));
            }
            compared += usize::from(expected != "NULL");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    compared
}

/// A value as text: decimals with all their digits, moments in UTC, bytes in hexadecimal.
pub fn show(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => ribera_agent::calendar::date_text(column.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            format!("{}Z", ribera_agent::calendar::local_text(micros))
        }
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => ribera_storage::hex::hex(column.as_binary::<i32>().value(row)),
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        other => panic!("a type the lake does not have: {other}"),
    }
}
