//! Dates and times as numbers: days since 1970-01-01, microseconds of a wall clock, and their texts.

use std::fmt;

/// Year, month and day as the source has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDate {
    pub year: i64,
    pub month: u8,
    pub day: u8,
}

impl fmt::Display for NoDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day } = self;
        match (year, month, day) {
            (0, 0, 0) => f.write_str("a zero date (0000-00-00)"),
            _ => write!(f, "the date {year:04}-{month:02}-{day:02}, which no calendar has"),
        }
    }
}

/// `YYYY-MM-DD`.
pub fn date_text(days: i32) -> String {
    match date_of(days) {
        Some(date) => date.to_string(),
        None => {
            let NoDate { year, month, day } = civil_of_days(days.into());
            format!("{year:04}-{month:02}-{day:02}")
        }
    }
}

/// The proleptic Gregorian date of days since 1970-01-01, in any year: the inverse of [`days_of_civil`].
pub fn civil_of_days(days: i64) -> NoDate {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    NoDate { year, month: month as u8, day: day as u8 }
}

/// The civil date of days since 1970-01-01, within the years -9999 to 9999.
pub fn date_of(days: i32) -> Option<jiff::civil::Date> {
    jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

/// Days since 1970-01-01.
pub fn days_of(date: jiff::civil::Date) -> i32 {
    days_of_civil(i64::from(date.year()), i64::from(date.month()), i64::from(date.day()))
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant's days-from-civil).
pub fn days_of_civil(year: i64, month: i64, day: i64) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) as i32
}

pub const DAY_MICROS: i64 = 86_400_000_000;

/// `YYYY-MM-DDTHH:MM:SS[.ffffff]`.
pub fn local_text(micros: i64) -> String {
    let days = micros.div_euclid(DAY_MICROS);
    format!("{}T{}", date_text(days as i32), time_text(micros.rem_euclid(DAY_MICROS)))
}

/// `[-]HH:MM:SS[.ffffff]`.
pub fn time_text(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_over_eight_centuries() {
        for days in (-146_097..146_097).step_by(13) {
            let date = date_of(days).unwrap();
            assert_eq!(days_of(date), days, "{date}");
            let NoDate { year, month, day } = civil_of_days(days.into());
            let civil = (i64::from(date.year()), date.month() as u8, date.day() as u8);
            assert_eq!((year, month, day), civil, "{date}");
        }
    }

    #[test]
    fn times_print_with_the_digits_they_need() {
        assert_eq!(time_text(3_661_000_000), "01:01:01");
        assert_eq!(time_text(-1), "-00:00:00.000001");
        assert_eq!(local_text(-1), "1969-12-31T23:59:59.999999");
    }
}
