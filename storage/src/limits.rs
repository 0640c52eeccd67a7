//! What a single value may be. The centre refuses whatever is beyond; the agent knows the same bounds, so that it
//! can name the row at the till.

/// Bytes of one text or binary value. The centre's setting `value_bytes_max` begins with it.
pub const VALUE_BYTES_MAX: u64 = 1 << 20;

/// 0001-01-01 and 9999-12-31, the dates every engine can show, in days since 1970-01-01.
pub const FIRST_DAY: i32 = -719_162;
pub const LAST_DAY: i32 = 2_932_896;

const DAY_MICROS: i64 = 86_400_000_000;

/// The first and the last microsecond of these years in UTC, since 1970-01-01.
pub const FIRST_MICROS: i64 = FIRST_DAY as i64 * DAY_MICROS;
pub const LAST_MICROS: i64 = (LAST_DAY as i64 + 1) * DAY_MICROS - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_the_first_and_the_last_day_of_four_digit_years() {
        let since = |date: jiff::civil::Date| {
            let days = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1)));
            days.map(|span| span.get_days()).unwrap()
        };
        assert_eq!((since(jiff::civil::date(1, 1, 1)), since(jiff::civil::date(9999, 12, 31))), (FIRST_DAY, LAST_DAY));
        assert_eq!(LAST_MICROS - FIRST_MICROS + 1, i64::from(LAST_DAY - FIRST_DAY + 1) * DAY_MICROS);
    }
}
