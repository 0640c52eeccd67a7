use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use proptest::prelude::*;

use super::*;
use crate::calendar::NoDate;

const NO_DATE: Value<'static> = Value::NoDate(NoDate { year: 0, month: 0, day: 0 });

fn column(column_type: &str, transforms: Vec<Transform>, mapping: ColumnMapping) -> ColumnBuilder {
    let definition = Column {
        name: "c".to_owned(),
        column_type: column_type.parse().unwrap(),
        nullable: true,
        es: String::new(),
        en: String::new(),
        transforms,
    };
    let zone = Rc::new(Zone::new(jiff::tz::TimeZone::get("America/New_York").unwrap()));
    ColumnBuilder::new(&definition, &mapping, &zone, &"salt".into()).unwrap()
}

fn plain(column_type: &str) -> ColumnBuilder {
    column(column_type, vec![], ColumnMapping::default())
}

fn decimals(mapping: ColumnMapping, values: &[Value<'_>]) -> Vec<Option<i128>> {
    let mut column = column("decimal(18,2)", vec![], mapping);
    values.iter().for_each(|value| column.push(*value).unwrap());
    column.finish().as_primitive::<Decimal128Type>().iter().collect()
}

#[test]
fn decimals_come_exactly_from_text_integers_and_cents() {
    let values = [Value::Text("-12.5"), Value::Int(7), Value::Text("0012.340"), Value::Null, Value::Text(".05")];
    assert_eq!(decimals(ColumnMapping::default(), &values), [Some(-1250), Some(700), Some(1234), None, Some(5)]);
    let cents = ColumnMapping { scale: Some(2), ..ColumnMapping::default() };
    assert_eq!(decimals(cents.clone(), &[Value::Int(-1250), Value::UInt(1)]), [Some(-1250), Some(1)]);
    let thousandths = ColumnMapping { scale: Some(3), ..ColumnMapping::default() };
    assert_eq!(decimals(thousandths, &[Value::Int(12_500)]), [Some(1250)]);
}

#[test]
fn values_that_do_not_fit_are_refused_and_never_become_null() {
    let cases: Vec<(&str, Value<'_>, &str)> = vec![
        ("decimal(18,2)", Value::Text("1.005"), "decimal(18,2)"),
        ("decimal(5,2)", Value::Text("1000.00"), "decimal(5,2)"),
        ("decimal(38,0)", Value::Text("100000000000000000000000000000000000000"), "decimal(38,0)"),
        ("decimal(18,2)", Value::Float(0.1), "float"),
        ("decimal(18,2)", Value::Text("1e5"), "decimal"),
        ("decimal(18,2)", Value::Text(""), "decimal"),
        ("int16", Value::Int(32_768), "-32768 to 32767"),
        ("int32", Value::Float(3.0), "float"),
        ("int64", Value::UInt(u64::MAX), "whole number"),
        ("int64", Value::Text("12.5"), "whole number"),
        ("date", Value::Text("2017-02-29"), "date"),
        ("date", Value::Text("2017-01-01 00:00:01"), "date"),
        ("date", NO_DATE, "date"),
        ("timestamp", Value::Text("2017-01-01 24:00:00"), "YYYY-MM-DD"),
        ("timestamp", Value::Text("2017-01-01 00:00:00.1234567"), "truncate"),
        ("timestamp", Value::Int(0), "epoch"),
        ("timestamp", NO_DATE, "date and time"),
        ("text", Value::Bytes(b"\xff"), "UTF-8"),
        ("text", Value::Float(1.5), "float"),
        ("bool", Value::Int(2), "0, 1"),
        ("float64", Value::Int(i64::MAX), "exactly"),
    ];
    for (column_type, value, word) in cases {
        let refusal = plain(column_type).push(value).unwrap_err();
        assert!(refusal.0.contains(word), "{column_type} {value}: {:?} should say {word:?}", refusal.0);
    }
}

#[test]
fn extremes_of_every_width_pass_unchanged() {
    let mut wide = plain("decimal(38,0)");
    let nines = "9".repeat(38);
    wide.push(Value::Text(&nines)).unwrap();
    wide.push(Value::Text(&format!("-{nines}"))).unwrap();
    wide.push(Value::UInt(u64::MAX)).unwrap();
    assert_eq!(wide.last_number(), Some(i128::from(u64::MAX)));
    let values = wide.finish();
    assert_eq!(values.as_primitive::<Decimal128Type>().value(1), -(10_i128.pow(38) - 1));
    let mut small = plain("int64");
    small.push(Value::Int(i64::MIN)).unwrap();
    small.push(Value::Text("9223372036854775807")).unwrap();
    assert_eq!(small.last_number(), Some(i128::from(i64::MAX)));
}

#[test]
fn timestamps_without_a_zone_are_the_stores_and_others_keep_their_offset() {
    let mut column = plain("timestamp");
    for text in ["2017-07-01 12:00:00", "2017-07-01T12:00:00.5Z", "2017-07-01 12:00-04", "2017-07-01 12:00:00+02:30"] {
        column.push(Value::Text(text)).unwrap();
    }
    let values = column.finish();
    let shown: Vec<String> = values
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .iter()
        .map(|micros| jiff::Timestamp::from_microsecond(*micros).unwrap().to_string())
        .collect();
    assert_eq!(
        shown,
        ["2017-07-01T16:00:00Z", "2017-07-01T12:00:00.5Z", "2017-07-01T16:00:00Z", "2017-07-01T09:30:00Z"]
    );
}

#[test]
fn transforms_apply_in_order_before_the_conversion() {
    let map = [("V".to_owned(), "VENTA".to_owned())].into();
    let mut column = column(
        "text",
        vec![Transform::Trim, Transform::Upper, Transform::BlankToNull, Transform::CodeMap(map)],
        ColumnMapping::default(),
    );
    for text in [" v ", "  ", "niño"] {
        column.push(Value::Text(text)).unwrap();
    }
    let values = column.finish();
    let shown: Vec<Option<&str>> = values.as_string::<i32>().iter().collect();
    assert_eq!(shown, [Some("VENTA"), None, Some("NIÑO")]);
}

#[test]
fn a_hashed_column_shows_no_value_and_a_decimal_comma_is_read() {
    let mut hashed = column("text", vec![Transform::Hash], ColumnMapping::default());
    hashed.push(Value::Text("12345678-9")).unwrap();
    hashed.push(Value::Int(5)).unwrap();
    let values = hashed.finish();
    assert!(values.as_string::<i32>().iter().flatten().all(|text| text.len() == 64 && !text.contains("12345678")));
    let mut comma = column("decimal(18,2)", vec![Transform::DecimalComma], ColumnMapping::default());
    comma.push(Value::Text("1.234,50")).unwrap();
    comma.push(Value::Int(3)).unwrap();
    assert_eq!(comma.last_number(), Some(300));
    for transforms in [vec![Transform::DecimalComma], vec![Transform::Trim, Transform::DecimalComma]] {
        // Of a query written by hand: a number is one.
        let mut comma = column("decimal(18,2)", transforms.clone(), ColumnMapping::default());
        for number in [Value::Digits("12.50"), Value::Decimal(ExactDecimal::new(1250, 2))] {
            comma.push(number).unwrap();
            assert_eq!(comma.last_number(), Some(1250));
        }
        // Where the audit's SQL takes out the points, a number is refused.
        let derived = ColumnMapping { sql: Some("importe".to_owned()), ..ColumnMapping::default() };
        let mut comma = column("decimal(18,2)", transforms, derived);
        for number in [Value::Digits("12.50"), Value::Decimal(ExactDecimal::new(1250, 2)), Value::Float(12.5)] {
            assert!(comma.push(number).unwrap_err().0.contains("decimal_comma"));
        }
        comma.push(Value::Text("1.234,50")).unwrap();
        assert_eq!(comma.last_number(), Some(123_450));
    }
    // Rounded by the server: SQLite gives such a number as text, with its point.
    let rounded = ColumnMapping { sql: Some("importe".to_owned()), round: Some(2), ..ColumnMapping::default() };
    let mut point = column("decimal(18,2)", vec![Transform::Trim, Transform::DecimalComma], rounded);
    point.push(Value::Text("12.50")).unwrap();
    assert_eq!(point.last_number(), Some(1250));
}

proptest! {
    #[test]
    fn decimal_text_is_read_as_the_exact_decimal_reads_it(unscaled in any::<i64>(), scale in 0_u8..18, more in 0_u8..10) {
        let value = ExactDecimal::new(unscaled.into(), scale);
        let wanted = value.rescale(scale + more).map(ExactDecimal::unscaled);
        prop_assert_eq!(parse::decimal(value.to_string().as_bytes(), scale + more), wanted);
    }

    #[test]
    fn date_time_text_is_read_as_the_calendar_reads_it(seconds in -62_135_596_800_i64..253_402_300_799, micros in 0_i64..1_000_000) {
        let timestamp = jiff::Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap();
        let read = parse::date_time(&timestamp.to_string(), false).unwrap();
        prop_assert_eq!(read, parse::DateTime { local: timestamp.as_microsecond(), offset: Some(0) });
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}", scale in 0_u8..38) {
        let _ = parse::decimal(text.as_bytes(), scale);
        let _ = parse::date_time(&text, true);
    }
}

#[test]
fn what_counts_from_1970_is_exact_whatever_its_type() {
    let counted = |unit, value: Value<'_>| {
        let mut column = column("timestamp", vec![], ColumnMapping { epoch: Some(unit), ..ColumnMapping::default() });
        column.push(value).map(|()| column.last_number().unwrap()).map_err(|refusal| refusal.0)
    };
    let decimal = |unscaled, scale| Value::Decimal(ExactDecimal::new(unscaled, scale));
    for (unit, value, micros) in [
        (EpochUnit::S, Value::Int(-1), -1_000_000),
        (EpochUnit::S, Value::UInt(u32::MAX.into()), 4_294_967_295_000_000),
        (EpochUnit::S, decimal(1_500, 3), 1_500_000),
        (EpochUnit::S, Value::Digits("0001704470400"), 1_704_470_400_000_000),
        (EpochUnit::Ms, Value::Text("-1.001"), -1_001),
        (EpochUnit::Ms, Value::Float(1_704_470_400_123.0), 1_704_470_400_123_000),
        (EpochUnit::Us, decimal(70, 1), 7),
        (EpochUnit::S, Value::Text("1970-01-01 00:00:01Z"), 1_000_000),
        (EpochUnit::S, Value::Int(253_402_300_799), 253_402_300_799_000_000),
    ] {
        assert_eq!(counted(unit, value), Ok(micros), "{value}");
    }
    for (unit, value) in [
        (EpochUnit::S, Value::Int(253_402_300_800)),
        (EpochUnit::S, Value::Int(i64::MIN)),
        (EpochUnit::S, Value::UInt(u64::MAX)),
        (EpochUnit::S, Value::Digits("99999999999999999999999999999999999999")),
        (EpochUnit::S, Value::Float(0.5)),
        (EpochUnit::S, Value::Float(1e17)),
        (EpochUnit::S, Value::Float(f64::NAN)),
        (EpochUnit::Us, decimal(1, 1)),
        (EpochUnit::S, Value::Text("ayer")),
        (EpochUnit::S, Value::Bool(true)),
        (EpochUnit::S, Value::Bytes(b"1")),
    ] {
        assert!(counted(unit, value).is_err(), "{value}");
    }
}

proptest! {
    /// Whatever a source gives: the number that is there, or a refusal.
    #[test]
    fn random_text_in_a_column_of_numbers_is_that_number_or_none(text in "[-+ ]?[0-9]{0,5}[.,eE ]?[0-9]{0,5}[,.]?[0-9a-z]{0,2}") {
        for lake in ["decimal(18,2)", "int32", "float64"] {
            for round in [None, Some(2)] {
                let mapping = ColumnMapping { sql: Some("c".to_owned()), round, ..ColumnMapping::default() };
                let mut column = column(lake, vec![], mapping);
                if column.push(Value::Text(&text)).is_ok() && lake != "float64" {
                    let exact: ExactDecimal = text.parse().unwrap();
                    let scale = if lake == "int32" { 0 } else { 2 };
                    prop_assert_eq!(ExactDecimal::new(column.last_number().unwrap(), scale), exact);
                }
            }
        }
    }
}
