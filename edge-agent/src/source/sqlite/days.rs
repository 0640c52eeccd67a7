//! The store's day of a moment, which SQLite alone knows in UTC or in the zone of this computer.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};

/// The zone of the store whose rows a connection reads; UTC until it is told.
#[derive(Clone)]
pub struct StoreZone(Arc<Mutex<TimeZone>>);

impl StoreZone {
    /// Registers `ribera_day(seconds)`, the store's day of a moment, and `ribera_day_start(day)`, its inverse, for a
    /// `range` that an index can serve.
    pub fn register(connection: &Connection) -> Result<Self> {
        let zone = Self(Arc::new(Mutex::new(TimeZone::UTC)));
        // Not deterministic: the zone of a connection changes with the store.
        let flags = FunctionFlags::SQLITE_UTF8;
        let (of_day, of_start) = (zone.clone(), zone.clone());
        connection.create_scalar_function("ribera_day", 1, flags, move |context| day(context, &of_day.get()))?;
        connection
            .create_scalar_function("ribera_day_start", 1, flags, move |context| day_start(context, &of_start.get()))?;
        Ok(zone)
    }

    pub fn set(&self, zone: &TimeZone) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = zone.clone();
    }

    fn get(&self) -> TimeZone {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn day(context: &Context<'_>, zone: &TimeZone) -> Result<Option<String>> {
    let rule = "ribera_day: must be whole seconds since 1970";
    let seconds = match context.get_raw(0) {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(seconds) => Some(seconds),
        ValueRef::Real(seconds) if seconds.abs() < 1e15 => Some(seconds.floor() as i64),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()),
        ValueRef::Real(_) | ValueRef::Blob(_) => None,
    };
    let moment = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    match moment {
        Some(moment) => Ok(Some(zone.to_datetime(moment).date().to_string())),
        None => Err(Error::UserFunctionError(format!("{rule}, got {:?}", context.get_raw(0)).into())),
    }
}

fn day_start(context: &Context<'_>, zone: &TimeZone) -> Result<Option<i64>> {
    let Some(text) = context.get::<Option<String>>(0)? else { return Ok(None) };
    let day: Date = text.parse().map_err(|_| {
        Error::UserFunctionError(format!("ribera_day_start: must be a day such as 2017-05-08, got {text:?}").into())
    })?;
    let start =
        zone.to_timestamp(day.to_datetime(Time::midnight())).map_err(|error| Error::UserFunctionError(error.into()))?;
    Ok(Some(start.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_lies_on_the_day_that_the_stores_clock_shows_and_the_day_begins_at_its_first_second() {
        let connection = Connection::open_in_memory().unwrap();
        let zone = StoreZone::register(&connection).unwrap();
        let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<String>>(0));
        for (name, day, start) in [
            ("UTC", "2017-05-09", 1_494_288_000_i64),
            // Clocks that change: in spring at 2, in Santiago at midnight, which that day does not have.
            ("America/Bogota", "2017-05-09", 1_494_306_000),
            ("America/New_York", "2017-03-12", 1_489_294_800),
            ("America/Santiago", "2017-08-13", 1_502_596_800),
        ] {
            zone.set(&TimeZone::get(name).unwrap());
            let begins: i64 = connection.query_row("SELECT ribera_day_start(?1)", [day], |row| row.get(0)).unwrap();
            assert_eq!(begins, start, "{name}");
            let day_of = |seconds: i64| ask(&format!("SELECT ribera_day({seconds})")).unwrap().unwrap();
            assert_eq!(day_of(begins), day, "{name}");
            assert_ne!(day_of(begins - 1), day, "{name}");
            assert_eq!(ask(&format!("SELECT ribera_day('{begins}')")).unwrap().unwrap(), day);
            assert_eq!(ask(&format!("SELECT ribera_day({begins}.75)")).unwrap().unwrap(), day);
        }
        assert_eq!(ask("SELECT ribera_day(NULL)").unwrap(), None);
        for no_moment in ["'ayer'", "x'00'", "9e300", "99999999999999"] {
            assert!(ask(&format!("SELECT ribera_day({no_moment})")).is_err(), "{no_moment}");
        }
    }
}
