//! Rows of lake files, decoded by the plain Parquet reader.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Int64Type};
use bytes::Bytes;
use jiff::civil::Date;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ribera_storage::StoreId;

use super::pos::{Row, Rows};

/// The dataset of the simulation: few columns, so that a file costs little.
pub const DATASET: &str = r#"
name = "ventas"
version = 1
kind = "daily"
mode = "replace"
grain = "month"
business_date = "fecha"
key = ["ticket"]
audit_sums = ["cantidad", "total"]
lookback_days = 4
schedule = "16h"
closes_at = "03:00:00"

[titles]
es = "Ventas"
en = "Sales"

[[column]]
name = "fecha"
type = "date"
nullable = false

[[column]]
name = "ticket"
type = "int64"
nullable = false

[[column]]
name = "cantidad"
type = "decimal(18,3)"
nullable = false

[[column]]
name = "total"
type = "decimal(18,2)"
nullable = false
"#;

/// Rows by store and day, and how many rows came twice.
pub type Decoded = (BTreeMap<(StoreId, Date), Rows>, u64);

/// The rows of a lake file.
pub fn decode(file: &Bytes) -> Result<Decoded, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone())
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| text(&error))?;
    let (mut days, mut doubled) = (BTreeMap::<(StoreId, Date), Rows>::new(), 0);
    for batch in reader {
        let batch = batch.map_err(|error| text(&error))?;
        let column = |name: &str| batch.column_by_name(name).ok_or(format!("no column {name}"));
        let stores = column("store_id")?.as_string::<i32>();
        let dates = column("fecha")?.as_primitive::<Date32Type>();
        let tickets = column("ticket")?.as_primitive::<Int64Type>();
        let quantities = column("cantidad")?.as_primitive::<Decimal128Type>();
        let totals = column("total")?.as_primitive::<Decimal128Type>();
        for index in 0..batch.num_rows() {
            let number = |value: i128| i64::try_from(value).map_err(|error| text(&error));
            let row = Row {
                ticket: u64::try_from(tickets.value(index)).map_err(|error| text(&error))?,
                quantity: number(quantities.value(index))?,
                total: number(totals.value(index))?,
            };
            let store = stores.value(index).parse().map_err(|error: ribera_storage::Error| text(&error))?;
            let day = date_of(dates.value(index)).ok_or("no such date")?;
            doubled += u64::from(days.entry((store, day)).or_default().insert(row.ticket, row).is_some());
        }
    }
    Ok((days, doubled))
}

fn date_of(days: i32) -> Option<Date> {
    jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}
