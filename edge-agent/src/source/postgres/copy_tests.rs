use proptest::prelude::*;

use super::*;

/// What the server's send function makes of a number: digits in base 10,000 without zeros around.
fn sent(unscaled: i128, scale: u16) -> Vec<u8> {
    let mut whole = unscaled.unsigned_abs();
    // Groups begin at the point: fill up the fraction to whole groups.
    let fill = (4 - scale % 4) % 4;
    let mut groups: Vec<u16> = Vec::new();
    let fraction_groups = i32::from((scale + fill) / 4);
    let mut first = true;
    while whole > 0 || first {
        let unit = if first { 10_u128.pow(4 - u32::from(fill)) } else { 10_000 };
        let digit = (whole % unit) as u16;
        whole /= unit;
        groups.push(if first { digit * 10_u16.pow(fill.into()) } else { digit });
        first = false;
    }
    groups.reverse();
    let mut weight = groups.len() as i32 - 1 - fraction_groups;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let sign = if unscaled < 0 { NEGATIVE } else { 0 };
    let head = [groups.len() as u16, weight as i16 as u16, sign, scale];
    head.into_iter().chain(groups).flat_map(u16::to_be_bytes).collect()
}

proptest! {
    #[test]
    fn every_number_of_38_digits_and_any_scale_comes_back(
        number in -(10_i128.pow(38) - 1)..10_i128.pow(38), digits in 0_u32..38, scale in 0_u16..=38
    ) {
        let number = number / 10_i128.pow(digits);
        let mut scratch = String::new();
        let found = numeric(&sent(number, scale), &mut scratch);
        prop_assert_eq!(found, Some(Value::Decimal(ExactDecimal::new(number, scale as u8))));
    }

    #[test]
    fn rows_are_the_same_however_the_stream_is_cut(
        numbers in prop::collection::vec(prop::option::of(any::<i64>()), 0..20), cuts in prop::collection::vec(0_usize..400, 0..12)
    ) {
        let mut stream = [SIGNATURE, &[0; 8]].concat();
        for number in &numbers {
            stream.extend(1_i16.to_be_bytes());
            match number {
                Some(number) => {
                    stream.extend(8_i32.to_be_bytes());
                    stream.extend(number.to_be_bytes());
                }
                None => stream.extend((-1_i32).to_be_bytes()),
            }
        }
        stream.extend(TRAILER.to_be_bytes());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let mut decoder = Decoder::new(vec![Kind::Int64]);
        let mut taken = Taken::default();
        for pair in cuts.windows(2) {
            prop_assert_eq!(decoder.finish().is_ok(), pair[0] == stream.len());
            decoder.take(&stream[pair[0]..pair[1]], &mut taken).unwrap();
        }
        prop_assert!(decoder.finish().is_ok());
        prop_assert_eq!(taken.0, numbers);
    }
}

#[derive(Default)]
struct Taken(Vec<Option<i64>>);

impl Rows for Taken {
    fn begin(&mut self, _names: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, _index: usize, value: Value<'_>) {
        self.0.push(match value {
            Value::Int(number) => Some(number),
            _ => None,
        });
    }

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}

fn read(kind: Kind, bytes: &[u8]) -> String {
    let mut scratch = String::new();
    value(kind, bytes, &mut scratch).map_or("none".to_owned(), |value| value.to_string())
}

#[test]
fn what_no_decimal_holds_is_told_by_its_digits() {
    assert_eq!(read(Kind::Numeric, &[0, 0, 0, 0, 0xc0, 0, 0, 0]), "NaN");
    // 39 nines.
    let groups = [999_u16].into_iter().chain([9999; 9]);
    let head = [10, 9, 0, 0].into_iter().chain(groups).flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    assert_eq!(read(Kind::Numeric, &head), "9".repeat(39));
    // 0.5 with forty fraction digits, negative.
    let many: Vec<u8> = [1, 0xffff, NEGATIVE, 40, 5000].into_iter().flat_map(u16::to_be_bytes).collect();
    assert_eq!(read(Kind::Numeric, &many), format!("-0.5{}", "0".repeat(39)));
}

#[test]
fn values_that_are_no_number_keep_their_meaning() {
    assert_eq!(read(Kind::Date, &i32::MAX.to_be_bytes()), "\"infinity\"");
    assert_eq!(read(Kind::Date, &(-1_i32).to_be_bytes()), "the date 1999-12-31");
    assert_eq!(read(Kind::Timestamp, &i64::MIN.to_be_bytes()), "\"-infinity\"");
    assert_eq!(read(Kind::TimestampWithZone, &1_i64.to_be_bytes()), "the UTC time 2000-01-01T00:00:00.000001");
    let time = [&3_661_000_000_i64.to_be_bytes()[..], &(-7200_i32).to_be_bytes()].concat();
    assert_eq!(read(Kind::TimeWithZone, &time), "\"01:01:01+02:00\"");
    let span = |months: i32| [&1_500_000_i64.to_be_bytes()[..], &2_i32.to_be_bytes(), &months.to_be_bytes()].concat();
    assert_eq!(read(Kind::Interval, &span(0)), "48:00:01.500000");
    assert_eq!(read(Kind::Interval, &span(-3)), "\"P-3M2DT1.500000S\"");
    assert_eq!(read(Kind::Bits, &[0, 0, 0, 9, 0b1010_1010, 0b1000_0000]), "341");
    assert_eq!(read(Kind::Char, b"uno   "), "\"uno\"");
    assert_eq!(read(Kind::Jsonb, b"\x01{}"), "\"{}\"");
    assert_eq!(read(Kind::Int32, &[1]), "none");
    assert_eq!(read(Kind::Money(2), &(-5_i64).to_be_bytes()), "-0.05");
}
