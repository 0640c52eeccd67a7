use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arrow_array::{Array, ArrayRef, Date32Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use jiff::civil::date;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::prelude::*;
use ribera_storage::batch::QuarantineReason::{self, *};
use ribera_storage::dataset::{Check, CheckAction, CheckRule};

use super::*;
use crate::fixture::*;
use crate::ingest::decode::BatchFile;

const BATCH: &str = "s1/ventas/000000-0000000001";

fn judge(definition: &DatasetDefinition, manifest: &Manifest, file: &Bytes) -> Result<u64, Refusal> {
    judge_within(definition, manifest, file, &Limits::default()).map(|(rows, _)| rows)
}

fn judge_within(
    definition: &DatasetDefinition,
    manifest: &Manifest,
    file: &Bytes,
    limits: &Limits,
) -> Result<(u64, Vec<CheckWarning>), Refusal> {
    let stated = manifest.file.rows;
    let mut validator = Validator::new(definition, manifest, &manifest.batch.store, limits)?;
    let mut rows = 0;
    for batch in BatchFile::open(file.clone(), &definition.columns, stated, limits)? {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        validator.check(&batch)?;
    }
    validator.finish().map(|warnings| (rows, warnings))
}

/// A good file of one day, judged with a manifest or file that `spoil` changed.
fn refused(file: &Bytes, lines: &[Line]) -> Refusal {
    judge(&ventas(), &manifest(BATCH, &[DAY], lines, file), file).unwrap_err()
}

fn assert_refused(found: &Refusal, reason: QuarantineReason, words: &[&str]) {
    assert_eq!(found.reason, reason, "{}", found.detail);
    for word in words {
        assert!(found.detail.contains(word), "{:?} should name {word:?}", found.detail);
    }
}

#[test]
fn a_batch_that_is_what_its_manifest_says_passes() {
    let days = [DAY, DAY.tomorrow().unwrap(), date(2026, 1, 20)];
    let mut all = lines("s1", days[0], 10_000);
    all.extend(lines("s1", days[2], 500));
    let file = parquet_of(&all);
    assert_eq!(judge(&ventas(), &manifest(BATCH, &days, &all, &file), &file), Ok(10_500));
}

#[test]
fn a_batch_without_rows_passes_as_audited_empty() {
    let file = parquet_of(&[]);
    assert_eq!(judge(&ventas(), &manifest(BATCH, &[DAY], &[], &file), &file), Ok(0));
}

#[test]
fn a_file_that_is_empty_or_no_parquet_is_unreadable() {
    let rows = lines("s1", DAY, 9);
    for bytes in [&b""[..], b"PAR1", b"PAR1PAR1PAR1", b"id;name\n1;x\n", &[0; 5000]] {
        assert_refused(&refused(&Bytes::from_static(b"x"), &rows), FileUnreadable, &["Parquet"]);
        assert_refused(&refused(&bytes.to_vec().into(), &rows), FileUnreadable, &["Parquet"]);
    }
}

#[test]
fn a_file_cut_off_anywhere_is_unreadable() {
    let rows = lines("s1", DAY, 200);
    let file = parquet_of(&rows);
    for length in (0..file.len()).step_by(97) {
        assert_refused(&refused(&file.slice(..length), &rows), FileUnreadable, &[]);
    }
}

#[test]
fn a_file_with_a_column_that_the_dataset_lacks_is_refused() {
    let rows = lines("s1", DAY, 3);
    let mut fields: Vec<Field> = ventas().arrow_schema().fields().iter().map(|field| (**field).clone()).collect();
    fields.push(Field::new("propina", DataType::Int64, true));
    let mut arrays = columns(&rows);
    arrays.push(Arc::new(Int64Array::from(vec![1, 2, 3])));
    let file = parquet_with(Schema::new(fields), arrays);
    assert_refused(&refused(&file, &rows), SchemaMismatch, &["propina", "must not be there", "Int64"]);
}

#[test]
fn a_file_that_lacks_a_column_or_has_them_in_another_order_is_refused() {
    let rows = lines("s1", DAY, 3);
    let fields: Vec<Field> = ventas().arrow_schema().fields().iter().map(|field| (**field).clone()).collect();
    let without = parquet_with(Schema::new(fields[..10].to_vec()), columns(&rows)[..10].to_vec());
    assert_refused(&refused(&without, &rows), SchemaMismatch, &["column total", "decimal(18,2)", "got none"]);
    let (mut turned, mut arrays) = (fields, columns(&rows));
    turned.swap(9, 10);
    arrays.swap(9, 10);
    assert_refused(&refused(&parquet_with(Schema::new(turned), arrays), &rows), SchemaMismatch, &["order"]);
}

#[test]
fn a_column_of_another_type_is_refused_and_so_is_a_nested_one() {
    let rows = lines("s1", DAY, 3);
    let list = ListArray::from_iter_primitive::<arrow_array::types::Int32Type, _, _>(vec![Some(vec![Some(1)]); 3]);
    let list_type = list.data_type().clone();
    let others: [(&str, DataType, ArrayRef); 2] =
        [("Int64", DataType::Int64, Arc::new(Int64Array::from(vec![1, 2, 3]))), ("List", list_type, Arc::new(list))];
    for (name, kind, array) in others {
        let mut fields: Vec<Field> = ventas().arrow_schema().fields().iter().map(|field| (**field).clone()).collect();
        let mut arrays = columns(&rows);
        fields[3] = Field::new("linea", kind, false);
        arrays[3] = array;
        let file = parquet_with(Schema::new(fields), arrays);
        assert_refused(&refused(&file, &rows), SchemaMismatch, &["column linea", "must be int32", name]);
    }
}

#[test]
fn a_null_in_a_key_or_in_another_column_that_takes_none_is_refused_with_its_row() {
    let rows = lines("s1", DAY, 5);
    for (column, name, reason) in [(2, "ticket_id", NullInKey), (1, "ubicacion_id", SchemaMismatch)] {
        let mut fields: Vec<Field> = ventas().arrow_schema().fields().iter().map(|field| (**field).clone()).collect();
        fields[column] = Field::new(name, DataType::Utf8, true);
        let mut arrays = columns(&rows);
        arrays[column] = Arc::new(StringArray::from(vec![Some("s1"), Some("s1"), None, Some("s1"), Some("s1")]));
        let file = parquet_with(Schema::new(fields), arrays);
        assert_refused(&refused(&file, &rows), reason, &[name, "NULL", "row 3"]);
    }
}

#[test]
fn a_column_declared_nullable_without_nulls_passes_where_the_dataset_takes_no_null() {
    let rows = lines("s1", DAY, 5);
    let fields: Vec<Field> =
        ventas().arrow_schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let file = parquet_with(Schema::new(fields), columns(&rows));
    assert_eq!(judge(&ventas(), &manifest(BATCH, &[DAY], &rows, &file), &file), Ok(5));
}

#[test]
fn a_key_that_comes_twice_in_a_day_is_refused_and_on_two_days_is_not() {
    let mut rows = lines("s1", DAY, 20_000);
    rows[19_999].ticket = "t00000".to_owned();
    rows[19_999].line = 0;
    let file = parquet_of(&rows);
    assert_refused(&refused(&file, &rows), DuplicateKey, &["ticket_id, linea", "\"t00000\", 0", "row 20000"]);
    let tomorrow = DAY.tomorrow().unwrap();
    let mut two = lines("s1", DAY, 50);
    two.extend(lines("s1", tomorrow, 50));
    let file = parquet_of(&two);
    assert_eq!(judge(&ventas(), &manifest(BATCH, &[DAY, tomorrow], &two, &file), &file), Ok(100));
}

#[test]
fn a_date_outside_the_batch_or_out_of_order_is_refused_with_its_row() {
    let (yesterday, tomorrow) = (DAY.yesterday().unwrap(), DAY.tomorrow().unwrap());
    let mut rows = lines("s1", DAY, 4);
    rows[2].day = tomorrow;
    let file = parquet_of(&rows);
    assert_refused(&refused(&file, &rows), DateOutsideBatch, &["fecha", "2026-01-11", "row 3"]);
    rows[2].day = yesterday;
    let file = parquet_of(&rows);
    let found = judge(&ventas(), &manifest(BATCH, &[yesterday, DAY], &rows, &file), &file).unwrap_err();
    assert_refused(&found, DateOutsideBatch, &["must not go back", "2026-01-09", "row 3"]);
}

#[test]
fn a_row_of_another_store_is_refused_with_the_name_it_gives() {
    for other in ["s2", "a-store-with-a-long-name", ""] {
        let mut rows = lines("s1", DAY, 4);
        rows[1].store = other.to_owned();
        let file = parquet_of(&rows);
        assert_refused(&refused(&file, &rows), StoreMismatch, &["ubicacion_id", other, "row 2"]);
    }
}

#[test]
fn rows_or_sums_that_differ_from_the_manifest_are_refused_with_both_values() {
    let (tomorrow, rows) = (DAY.tomorrow().unwrap(), lines("s1", DAY, 4));
    let file = parquet_of(&rows);
    let mut stated = manifest(BATCH, &[DAY], &rows, &file);
    stated.units[0].file.sums.insert("total".to_owned(), "4.07".parse().unwrap());
    assert_refused(
        &judge(&ventas(), &stated, &file).unwrap_err(),
        SumsMismatch,
        &["total", "4.07", "4.06", "2026-01-10"],
    );
    stated.units[0].file.sums.remove("total");
    assert_refused(&judge(&ventas(), &stated, &file).unwrap_err(), SumsMismatch, &["total"]);
    let mut moved = manifest(BATCH, &[DAY, tomorrow], &rows, &file);
    moved.units[0].file.rows = 3;
    moved.units[1].file.rows = 1;
    assert_refused(&judge(&ventas(), &moved, &file).unwrap_err(), RowsMismatch, &["2026-01-10", "3", "4"]);
    let mut fewer = manifest(BATCH, &[DAY], &rows, &file);
    fewer.file.rows = 3;
    assert_refused(&judge(&ventas(), &fewer, &file).unwrap_err(), RowsMismatch, &["3", "4"]);
}

#[test]
fn values_that_do_not_fit_their_type_are_refused() {
    let mut rows = lines("s1", DAY, 3);
    rows[1].total = 10_i128.pow(18);
    let file = parquet_of(&rows);
    assert_refused(&refused(&file, &rows), SchemaMismatch, &["precio_unitario", "decimal(18,4)", "row 2"]);
    let rows = lines("s1", DAY, 1);
    let mut arrays = columns(&rows);
    arrays[0] = Arc::new(Date32Array::from(vec![i32::MAX]));
    let file = parquet(&ventas().arrow_schema(), &[RecordBatch::try_new(ventas().arrow_schema(), arrays).unwrap()]);
    assert_refused(&refused(&file, &rows), SchemaMismatch, &["fecha", "date", "2147483647"]);
}

#[test]
fn a_check_that_rejects_refuses_and_one_that_warns_counts() {
    let rows = lines("s1", DAY, 10);
    let file = parquet_of(&rows);
    let check = |column: &str, rule, action| Check { column: column.to_owned(), rule, action };
    let cases = [
        ("cliente_id", CheckRule::NotNull, 10, "NULL"),
        ("cantidad", CheckRule::Range { min: Some("1.5".parse().unwrap()), max: None }, 2, "1.000"),
        ("linea", CheckRule::Range { min: None, max: Some("1".parse().unwrap()) }, 3, "2"),
        ("producto_id", CheckRule::Unique, 7, "product 0"),
        ("ticket_id", CheckRule::Pattern { glob: "t0000?".to_owned() }, 0, ""),
        ("ticket_id", CheckRule::Pattern { glob: "*0".to_owned() }, 7, "t00001"),
        (
            "total",
            CheckRule::ProductOf {
                left: "cantidad".to_owned(),
                right: "precio_unitario".to_owned(),
                tolerance: "0.01".parse().unwrap(),
            },
            8,
            "1.01",
        ),
    ];
    for (column, rule, failing, value) in cases {
        let mut definition = ventas();
        definition.checks = vec![check(column, rule.clone(), CheckAction::Warn)];
        let stated = manifest(BATCH, &[DAY], &rows, &file);
        let (_, warnings) = judge_within(&definition, &stated, &file, &Limits::default()).unwrap();
        assert_eq!(warnings.iter().map(|warning| warning.rows).sum::<u64>(), failing, "{column} {rule:?}");
        definition.checks = vec![check(column, rule.clone(), CheckAction::Reject)];
        match judge(&definition, &stated, &file) {
            Ok(_) => assert_eq!(failing, 0),
            Err(found) => assert_refused(&found, CheckFailed, &[column, value, &failing.to_string(), "row"]),
        }
    }
}

#[test]
fn a_file_that_repeats_one_long_text_ten_thousand_times_is_refused_at_once() {
    // 10,000 times 1 MB from a dictionary of one value: some kilobytes that decode to 10 GB.
    let long = "x".repeat(1_000_000);
    let mut rows = lines("s1", DAY, 10_000);
    for row in &mut rows {
        (row.ticket, row.line, row.quantity, row.total) = ("x".to_owned(), 0, 1000, 100);
    }
    let schema = ventas().arrow_schema();
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(Default::default()))
        .set_dictionary_page_size_limit(4 << 20)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).unwrap();
    for chunk in rows.chunks(100) {
        let mut arrays = columns(chunk);
        arrays[6] = Arc::new(StringArray::from(vec![long.as_str(); 100]));
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap()).unwrap();
    }
    let file: Bytes = writer.into_inner().unwrap().into();
    assert!(file.len() < 12_000, "{} bytes", file.len());
    let started = Instant::now();
    let found = refused(&file, &rows);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    assert_eq!(found.reason, LimitExceeded, "{}", found.detail);
}

#[test]
fn a_footer_that_states_more_rows_than_allowed_is_refused_before_any_is_decoded() {
    let rows = lines("s1", DAY, 100);
    let file = parquet_of(&rows);
    let limits = Limits { rows_max: 99, ..Limits::default() };
    let stated = manifest(BATCH, &[DAY], &rows, &file);
    assert_refused(
        &judge_within(&ventas(), &stated, &file, &limits).unwrap_err(),
        LimitExceeded,
        &["rows", "99", "100"],
    );
}

#[test]
fn pages_that_decode_to_more_than_the_limit_are_refused_by_their_headers() {
    let rows = lines("s1", DAY, 50_000);
    let file = parquet_of(&rows);
    let stated = manifest(BATCH, &[DAY], &rows, &file);
    for (limits, what) in [
        (Limits { decoded_bytes_max: 100_000, ..Limits::default() }, "all pages"),
        (Limits { page_bytes_max: 10_000, ..Limits::default() }, "of a page"),
        (Limits { value_bytes_max: 8, ..Limits::default() }, "of a value"),
        (Limits { footer_bytes_max: 100, ..Limits::default() }, "footer"),
    ] {
        let found = judge_within(&ventas(), &stated, &file, &limits).unwrap_err();
        assert_refused(&found, LimitExceeded, &[what]);
    }
}

static GOOD: LazyLock<(Vec<Line>, Bytes)> = LazyLock::new(|| {
    let rows = lines("s1", DAY, 300);
    let file = parquet_of(&rows);
    (rows, file)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_file_with_bytes_changed_is_refused_or_read_whole_and_never_breaks_the_reader(
        changes in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..6),
        tail in any::<bool>(),
    ) {
        let (rows, good) = &*GOOD;
        let mut bytes = good.to_vec();
        // Half of the cases aim at the footer, where all lengths and offsets are.
        let from = if tail { bytes.len().saturating_sub(1500) } else { 0 };
        let span = bytes.len() - from;
        for (at, value) in changes {
            let at = from + ((at * span as f64) as usize).min(span - 1);
            bytes[at] = value;
        }
        let file = Bytes::from(bytes);
        let stated = manifest(BATCH, &[DAY], rows, &file);
        if let Ok(read) = judge(&ventas(), &stated, &file) {
            prop_assert_eq!(read, 300);
        }
    }
}
