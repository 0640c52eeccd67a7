//! Tables too large to fingerprint at each cycle: a column that says when a row was last written
//! names the business days that may have changed. Those days are fingerprinted, extracted and
//! audited whole, as ever: a day is the unit that wins, so rows of one moment cannot be split by a
//! cursor, and none has to be told apart by its key.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, Unit};

use crate::agent::Agent;
use crate::calendar::Days;
use crate::config::{EpochUnit, Watermark};
use crate::plan::{Comparison, UnitRow};
use crate::ports::step;
use crate::run::session::ExtractionSession;
use crate::source::{Outcome, Rows, Value, day_of};
use crate::sql::Dialect;

/// The days that a cycle looks at.
pub(crate) struct ToCompare {
    pub(crate) days: BTreeSet<Date>,
    /// The days among these with rows that were written since the last cycle, as the watermark shows.
    pub(crate) written: BTreeSet<Date>,
}

impl<S: ObjectStore> Agent<S> {
    /// The days that have to be looked at: all of `window`, unless the mapping has a watermark and the last
    /// cycle's is known. Then those of rows written since, of any age that the journal remembers.
    pub(crate) async fn days_to_compare(
        &self,
        reading: &mut ExtractionSession<'_>,
        window: &Days,
        known: &BTreeMap<Unit, UnitRow>,
        comparison: &Comparison<'_>,
    ) -> Result<ToCompare> {
        let context = reading.context;
        let whole = || ToCompare { days: window.iter().collect(), written: BTreeSet::new() };
        let Some(watermark) = &context.mapping.watermark else { return Ok(whole()) };
        let seen = self.journal.noted(&key(&context.store.config.id, context.name))?;
        let seen: Option<Timestamp> = seen.and_then(|text| text.parse().ok());
        // A source's clock that was set back says nothing of what was written since.
        let Some(seen) = seen.filter(|seen| *seen <= reading.source_now) else { return Ok(whole()) };
        let dialect = context.store.source.dialect();
        let seen = seen.checked_sub(self.server_clock_behind(reading, watermark).await?).unwrap_or(Timestamp::MIN);
        let since = since(watermark, dialect, &context.calendar.time_zone, seen, reading.source_now)?;
        let Some(mut written) = self.days_written(reading, &since).await? else {
            // After a long time away it is more than the source can tell at once; fingerprints it can.
            self.log(format!(
                "dataset {}: the watermark's rows take too long, the whole window is compared",
                context.name
            ));
            self.reconnect(reading).await?;
            return Ok(whole());
        };
        let unsettled = |day: &Date| match known.get(&Unit::Day(*day)) {
            None => true,
            Some(row) => comparison.why(*day, &row.fingerprint, Some(row)).is_some(),
        };
        let older = self.known_days_before(reading, window.from)?;
        written.retain(|day| (window.from..=window.to).contains(day) || older.contains(day));
        let days = written.iter().copied().chain(window.iter().filter(unsettled)).collect();
        Ok(ToCompare { days, written })
    }

    /// By how much the clock that the till's own programs are shown is behind the store's: a computer of another
    /// zone writes earlier times into a column without one.
    async fn server_clock_behind(
        &self,
        reading: &mut ExtractionSession<'_>,
        watermark: &Watermark,
    ) -> Result<SignedDuration> {
        let context = reading.context;
        if watermark.epoch.is_some() || watermark.zone.is_some() {
            return Ok(SignedDuration::ZERO);
        }
        let server_s = self.server_offset(reading).await?;
        let store_s = i64::from(context.calendar.time_zone.to_offset(reading.source_now).seconds());
        let behind_s = server_s.map_or(0, |server_s| store_s - server_s);
        // A second is no zone: two clocks are not read at once.
        Ok(SignedDuration::from_secs(if behind_s >= 60 { behind_s } else { 0 }))
    }

    /// Days before the window that were sent from this database. Of others a change says nothing: they are a
    /// backfill's business.
    fn known_days_before(&self, reading: &ExtractionSession<'_>, before: Date) -> Result<BTreeSet<Date>> {
        let reach = i64::from(self.config.limits.facts_days).days();
        let from = reading.today.checked_sub(reach).unwrap_or(before).max(reading.held().from);
        let Some(to) = before.yesterday().ok().filter(|to| from <= *to) else { return Ok(BTreeSet::new()) };
        let context = reading.context;
        let known = self.journal.units_between(&context.store.config.id, context.name, from, to)?;
        Ok(known.keys().filter_map(|unit| unit.date()).collect())
    }

    /// After everything that a cycle found is durable in the journal: the next looks at what was
    /// written since this one began.
    pub(crate) fn advance_watermark(&self, reading: &ExtractionSession<'_>) -> Result<()> {
        let context = reading.context;
        if context.mapping.watermark.is_none() {
            return Ok(());
        }
        self.journal.note(&key(&context.store.config.id, context.name), Some(&reading.source_now.to_string()))
    }

    /// The business days of rows written at `since` or later, whatever the mapping's `where` says of
    /// them: a row that counts no more has changed its day too. `None`: it takes too long.
    async fn days_written(&self, reading: &mut ExtractionSession<'_>, since: &str) -> Result<Option<BTreeSet<Date>>> {
        let context = reading.context;
        let template = reading
            .queries
            .written_since(since, context.store.source.dialect())?
            .ok_or_else(|| Error::bug("a watermark without its query"))?;
        let statement = template.bind(reading.today, reading.today, &context.store.config.id);
        let mut found = DayReader::default();
        let timeout = reading.timeout();
        self.ports.fail_points.hit(step::SOURCE_QUERY)?;
        let begun_at = self.ports.clock.now();
        reading.session.enter_zone(&context.calendar.time_zone, reading.source_now).await?;
        let outcome = reading.session.query(&statement, &mut found, timeout).await;
        reading.note_query(begun_at, self.ports.clock.now());
        Ok((outcome? == Outcome::Done).then_some(found.days))
    }
}

fn key(store: &StoreId, dataset: &DatasetName) -> String {
    format!("watermark/{store}/{dataset}")
}

/// The earliest that the column may show of what was written after `seen`, less the lag, as SQL.
fn since(
    watermark: &Watermark,
    dialect: Dialect,
    store_zone: &TimeZone,
    seen: Timestamp,
    now: Timestamp,
) -> Result<String> {
    let lag = SignedDuration::try_from(watermark.lag.0).unwrap_or_default();
    let from = seen.checked_sub(lag).unwrap_or(Timestamp::MIN);
    if let Some(unit) = watermark.epoch {
        let whole = from.as_second();
        return Ok(match unit {
            EpochUnit::S => whole.to_string(),
            EpochUnit::Ms => whole.saturating_mul(1000).to_string(),
            EpochUnit::Us => whole.saturating_mul(1_000_000).to_string(),
        });
    }
    let zone = match &watermark.zone {
        None => store_zone.clone(),
        Some(name) => TimeZone::get(name).map_err(|error| {
            Error::config(format!("watermark.zone: must be an IANA time zone, got {name:?}")).with_source(error)
        })?,
    };
    // A column of moments is compared in the session's zone, which is the store's; one of wall time in its own.
    let earliest = earliest_local(&zone, from, now).min(earliest_local(store_zone, from, now));
    Ok(dialect.moment(earliest))
}

/// The earliest that a clock of `zone` shows between two moments: clocks set back repeat an hour.
fn earliest_local(zone: &TimeZone, from: Timestamp, now: Timestamp) -> DateTime {
    let changes = zone.following(from).map(|change| change.timestamp()).take_while(|at| *at <= now);
    let shown = changes.map(|at| zone.to_datetime(at));
    shown.fold(zone.to_datetime(from), DateTime::min)
}

#[derive(Default)]
struct DayReader {
    days: BTreeSet<Date>,
    refused: Option<String>,
}

impl Rows for DayReader {
    fn begin(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, _: usize, value: Value<'_>) {
        match day_of(value) {
            Some(day) => drop(self.days.insert(day)),
            // A row without a business date belongs to no day, and no audit counts it.
            None if value == Value::Null => {}
            None => drop(self.refused.get_or_insert_with(|| value.to_string())),
        }
    }

    fn end_row(&mut self) -> Result<()> {
        match self.refused.take() {
            Some(got) => Err(Error::data(format!("watermark: day: must be a date, got {got}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn mark(epoch: Option<EpochUnit>) -> Watermark {
        let lag = crate::config::Lag("15m".to_owned().try_into().map(|crate::config::Lag(lag)| lag).unwrap());
        Watermark { column: "m".to_owned(), lag, zone: None, epoch }
    }

    #[test]
    fn the_lag_is_taken_off_in_the_columns_own_zone_and_unit() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let (seen, now) = (at("2017-05-10T16:00:00.9Z"), at("2017-05-10T17:00:00Z"));
        assert_eq!(since(&mark(None), Dialect::Mysql, &zone, seen, now).unwrap(), "'2017-05-10 11:45:00'");
        let in_any_date_format = since(&mark(None), Dialect::SqlServer, &zone, seen, now).unwrap();
        assert_eq!(in_any_date_format, "'2017-05-10T11:45:00'");
        assert_eq!(since(&mark(Some(EpochUnit::S)), Dialect::Mysql, &zone, seen, now).unwrap(), "1494431100");
        assert_eq!(since(&mark(Some(EpochUnit::Us)), Dialect::Mysql, &zone, seen, now).unwrap(), "1494431100000000");
    }

    #[test]
    fn an_hour_that_the_clock_shows_twice_is_looked_at_from_its_beginning() {
        let zone = TimeZone::get("America/New_York").unwrap();
        // At 06:00 UTC of that day 02:00 became 01:00. Seen at 01:50 for the first time.
        let (seen, now) = (at("2017-11-05T05:50:00Z"), at("2017-11-05T06:20:00Z"));
        assert_eq!(since(&mark(None), Dialect::Mysql, &zone, seen, now).unwrap(), "'2017-11-05 01:00:00'");
        // No change of the clock since: 01:20 of the second time, less the lag.
        let later = at("2017-11-05T06:40:00Z");
        assert_eq!(since(&mark(None), Dialect::Mysql, &zone, now, later).unwrap(), "'2017-11-05 01:05:00'");
    }

    #[test]
    fn a_lag_is_a_time_of_a_week_at_most() {
        for (text, seconds) in [("15m", 900), ("90s", 90), ("2h", 7200), ("0s", 0)] {
            let lag: crate::config::Lag = text.to_owned().try_into().unwrap();
            assert_eq!(lag.0.as_secs(), seconds, "{text}");
        }
        for text in ["", "15", "-5m", "8d", "ayer"] {
            assert!(crate::config::Lag::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
