//! Business dates made of moments where the database knows no zone of the session: they are days in UTC, or in the
//! zone of one computer.

use ribera_storage::{Error, Result};

use super::Dialect;

/// Whose clock decides on which day a moment lies, as far as a mapping's date tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayOf {
    Utc,
    /// The clock of the computer on which this program runs.
    Computer,
}

impl DayOf {
    /// `None`: the date is no moment's, or says itself how far it is from UTC.
    pub fn of(date: &str, dialect: Dialect) -> Option<Self> {
        let date = date.to_lowercase();
        let calls = |word: &str| date.matches(word).count();
        match dialect {
            Dialect::Sqlite if date.contains("ribera_day") => None,
            Dialect::Sqlite if !["unixepoch", "julianday", "'auto'"].iter().any(|word| date.contains(word)) => None,
            Dialect::Sqlite if date.contains("'localtime'") => Some(Self::Computer),
            Dialect::Sqlite => (!says_an_offset(&date)).then_some(Self::Utc),
            Dialect::SqlServer | Dialect::Firebird => {
                let counts_from_1970 = date.contains("1970-01-01") || date.contains("19700101");
                let shifted = calls("dateadd") > 1 || date.contains("at time zone") || date.contains("switchoffset");
                (counts_from_1970 && !shifted).then_some(Self::Utc)
            }
            // Their sessions are in the store's zone.
            Dialect::Mysql | Dialect::Postgres => None,
        }
    }

    /// `offset_s`: the store's from UTC; `computer_s`: this computer's.
    ///
    /// # Errors
    /// Config: the store's days are others, with what to write.
    pub fn refuse_others(self, offset_s: i64, computer_s: Option<i64>, dialect: Dialect, dataset: &str) -> Result<()> {
        let whose = match self {
            Self::Utc if offset_s == 0 => return Ok(()),
            Self::Computer if computer_s == Some(offset_s) => return Ok(()),
            Self::Utc => "days in UTC",
            Self::Computer => "days of this computer's zone, which is not the store's",
        };
        let instead = match dialect {
            Dialect::Sqlite => {
                "ribera_day(SECONDS), and range = \"COLUMN >= ribera_day_start(:from) AND COLUMN < ribera_day_start(:after)\""
            }
            Dialect::SqlServer => {
                "CAST(DATEADD(SECOND, COLUMN, '19700101') AT TIME ZONE 'UTC' AT TIME ZONE 'ZONE OF WINDOWS' AS date)"
            }
            _ => "the date column of the till's own, or DATEADD(-5 HOUR TO ...) where the store's clock never changes",
        };
        Err(Error::config(format!(
            "adapter: {dataset}.date: must be the store's local day, got seconds since 1970 made {whose}: write {instead}"
        ))
        .with_hint("ribera-agent check"))
    }
}

/// A modifier such as `'-5 hours'` or `'-05:00'`.
fn says_an_offset(date: &str) -> bool {
    date.split('\'').skip(1).step_by(2).any(|text| {
        let text = text.trim();
        let number = text.trim_start_matches(['+', '-']);
        number.starts_with(|letter: char| letter.is_ascii_digit())
            && (text.contains("hour") || text.contains("minute") || text.contains(':') || text.contains("second"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_made_of_seconds_is_told_by_whose_clock() {
        let cases = [
            (Dialect::Sqlite, "fecha", None),
            (Dialect::Sqlite, "date(fecha)", None),
            (Dialect::Sqlite, "date(creado, 'unixepoch')", Some(DayOf::Utc)),
            (Dialect::Sqlite, "DATE(creado / 1000, 'UnixEpoch')", Some(DayOf::Utc)),
            (Dialect::Sqlite, "date(creado, 'auto')", Some(DayOf::Utc)),
            (Dialect::Sqlite, "date(creado, 'unixepoch', 'start of month')", Some(DayOf::Utc)),
            (Dialect::Sqlite, "date(creado, 'unixepoch', 'localtime')", Some(DayOf::Computer)),
            (Dialect::Sqlite, "date(creado, 'unixepoch', '-5 hours')", None),
            (Dialect::Sqlite, "date(creado, 'unixepoch', '-05:00')", None),
            (Dialect::Sqlite, "ribera_day(creado)", None),
            (Dialect::SqlServer, "CAST(DATEADD(SECOND, creado, '19700101') AS date)", Some(DayOf::Utc)),
            (Dialect::SqlServer, "CAST(DATEADD(hour, -5, DATEADD(SECOND, creado, '1970-01-01')) AS date)", None),
            (Dialect::SqlServer, "CAST(DATEADD(s, c, '19700101') AT TIME ZONE 'UTC' AT TIME ZONE 'x' AS date)", None),
            (Dialect::Firebird, "CAST(DATEADD(SECOND, creado, TIMESTAMP '1970-01-01') AS DATE)", Some(DayOf::Utc)),
            (Dialect::Firebird, "CAST(momento AS DATE)", None),
            (Dialect::Mysql, "DATE(FROM_UNIXTIME(creado))", None),
            (Dialect::Postgres, "to_timestamp(creado)::date", None),
        ];
        for (dialect, date, whose) in cases {
            assert_eq!(DayOf::of(date, dialect), whose, "{dialect:?} {date}");
        }
    }

    #[test]
    fn only_days_that_are_not_the_stores_are_refused() {
        let refused = |day: DayOf, offset_s, computer_s| {
            day.refuse_others(offset_s, computer_s, Dialect::Sqlite, "ventas").is_err()
        };
        assert!(!refused(DayOf::Utc, 0, None));
        assert!(refused(DayOf::Utc, -18_000, None));
        assert!(!refused(DayOf::Computer, -18_000, Some(-18_000)));
        assert!(refused(DayOf::Computer, -18_000, Some(0)));
        assert!(refused(DayOf::Computer, -18_000, None));
    }
}
