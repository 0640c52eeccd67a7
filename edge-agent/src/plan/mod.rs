//! Which days are extracted, why, and in which batches. Decides only; asks nobody.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use ribera_storage::dataset::DatasetDefinition;
use ribera_storage::{Month, Unit};
use serde::Serialize;

use crate::calendar::Days;

pub mod audit_window;
mod fingerprint;
mod life;
mod unit;

pub use fingerprint::{Fingerprint, Fingerprints};
pub use life::{LeftOut, WhyLeftOut, days_of_life};
pub use unit::{Event, LakeState, Refusal, UnitRow};

/// Tries in a row after which a day that stays unproven or refused is left alone until its
/// fingerprint changes or a person asks for it.
pub const TRIES_MAX: u32 = 5;

/// Why a unit is extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Never sent.
    New,
    /// The source's fingerprint differs from what was sent.
    Changed,
    /// Sent while open, and closed since.
    Closed,
    /// The source would not hold still before.
    Unproven,
    /// The file was lost, the epoch is new, or the lake holds something else.
    Stale,
    /// It left the lookback window: once more, for the last time.
    LeavesLookback,
    /// Its rows could not be sent before, and have not changed.
    Refused,
    /// The definition has a new version, or mapping, zone or salt are not those that sent or refused the rows.
    Definition,
    /// A person requested_by_person.
    Forced,
}

/// The lookback window that ends with `today`; it reaches back to the last good cycle if that is
/// longer ago, `reach_days` at most.
pub fn window(definition: &DatasetDefinition, today: Date, last_good: Option<Date>, reach_days: u32) -> Days {
    let back = |days: u32| today.checked_sub(i64::from(days).days()).unwrap_or(Date::MIN);
    let lookback = back(definition.lookback_days);
    let from = last_good.map_or(lookback, |last| last.max(back(reach_days)).min(lookback));
    Days { from, to: today }
}

/// Whether `day` is over: the clock has passed `closes_at` of the next day.
pub fn is_closed(definition: &DatasetDefinition, day: Date, now: Timestamp, zone: &TimeZone) -> bool {
    let Ok(next) = day.checked_add(1.day()) else { return false };
    zone.to_timestamp(next.to_datetime(definition.closes_at)).is_ok_and(|end| end <= now)
}

/// Whether a day has left the lookback window.
pub fn has_left(definition: &DatasetDefinition, day: Date, today: Date) -> bool {
    today.checked_sub(i64::from(definition.lookback_days).days()).is_ok_and(|first| day < first)
}

/// What a comparison needs to know beside the fingerprints.
pub struct Comparison<'a> {
    pub definition: &'a DatasetDefinition,
    pub zone: &'a TimeZone,
    /// See [`is_closed`].
    pub closing_now: Timestamp,
    pub today: Date,
    /// Every day, whatever its fingerprint.
    pub force: bool,
    /// A person named the days: troubles are tried again.
    pub requested_by_person: bool,
    /// Digest of the mapping: see [`Refusal`].
    pub mapping: &'a str,
    /// See [`UnitRow::values_digest`].
    pub values: &'a str,
}

impl Comparison<'_> {
    /// The days of `days` to extract. A day absent from `found` is an audited zero.
    pub fn differing(
        &self,
        days: &Days,
        found: &BTreeMap<Unit, Fingerprint>,
        known: &BTreeMap<Unit, UnitRow>,
    ) -> BTreeMap<Date, Why> {
        let nothing = Fingerprint::default();
        days.iter()
            .filter_map(|day| {
                let unit = Unit::Day(day);
                let found = found.get(&unit).unwrap_or(&nothing);
                self.why(day, found, known.get(&unit)).map(|why| (day, why))
            })
            .collect()
    }

    /// Why a day has to be extracted, if it has.
    pub fn why(&self, day: Date, found: &Fingerprint, known: Option<&UnitRow>) -> Option<Why> {
        let closed = is_closed(self.definition, day, self.closing_now, self.zone);
        let Some(known) = known else {
            // An open day without rows says nothing yet; one that has not begun even less.
            let silent = !closed && found.facts.rows == 0;
            return (!silent || self.force).then_some(if self.force { Why::Forced } else { Why::New });
        };
        if let Some(refusal) = &known.refused {
            return self.why_refused(day, found, known, refusal);
        }
        let troubled = !known.proven || matches!(known.lake, LakeState::Differs | LakeState::Quarantined);
        let may_try = self.requested_by_person || known.tries < TRIES_MAX;
        Some(match () {
            () if self.force => Why::Forced,
            () if !self.same(day, &known.fingerprint, found) => Why::Changed,
            () if known.stale && may_try => Why::Stale,
            () if known.is_of_another_definition(self.definition.version, self.values) => Why::Definition,
            () if closed && !known.closed => Why::Closed,
            () if !known.proven && closed && may_try => Why::Unproven,
            () if troubled && self.requested_by_person => Why::Stale,
            () => return None,
        })
    }
}

impl Comparison<'_> {
    /// Why rows that were refused are tried again. Those that the source cannot even count are no concern here.
    fn why_refused(&self, day: Date, found: &Fingerprint, known: &UnitRow, refusal: &Refusal) -> Option<Why> {
        Some(match () {
            () if self.force => Why::Forced,
            () if !refusal.is_audited || !self.same(day, &known.fingerprint, found) => Why::Changed,
            () if known.dataset_version != self.definition.version || refusal.mapping != self.mapping => {
                Why::Definition
            }
            () if self.requested_by_person || known.tries < TRIES_MAX => Why::Refused,
            () => return None,
        })
    }

    /// Equal as far as can be said: a hash that is requested_by_person for no more says nothing; one that is new has never been
    /// compared with the rows that were sent. History is sent without one: count and sums are all there is.
    fn same(&self, day: Date, known: &Fingerprint, found: &Fingerprint) -> bool {
        let hashes_differ = match (&known.hash, &found.hash) {
            (_, None) => false,
            (None, Some(_)) => !has_left(self.definition, day, self.today),
            (known, found) => known != found,
        };
        known.facts.agrees_with(&found.facts) && !hashes_differ
    }
}

/// One batch per day, newest first; days before `window_from` in runs of one month.
pub fn daily_batches(days: &BTreeMap<Date, Why>, window_from: Date) -> Vec<Days> {
    let inside = days.keys().filter(|day| **day >= window_from).rev().map(|day| Days { from: *day, to: *day });
    let before = days.keys().filter(|day| **day < window_from).copied();
    inside.chain(runs(before).into_iter().rev()).collect()
}

/// One batch from the first to the last of the days (which lie in one month), if there are any.
pub fn month_batch(days: &BTreeMap<Date, Why>) -> Option<Days> {
    Some(Days { from: *days.keys().next()?, to: *days.keys().next_back()? })
}

/// Whether so many seconds have passed. A clock that was set back must not silence the agent.
pub fn has_passed(seconds: i64, since: Timestamp, now: Timestamp) -> bool {
    let passed_s = now.duration_since(since).as_secs();
    passed_s < 0 || passed_s >= seconds
}

/// Which stretch of a schedule `at` lies in: stretches of `every_s` seconds by the store's own clock, counted from midnight.
pub fn stretch_of(at: Timestamp, zone: &TimeZone, every_s: i64) -> i64 {
    let local = at.to_zoned(zone.clone()).datetime();
    let seconds = local.to_zoned(TimeZone::UTC).map_or(0, |local| local.timestamp().as_second());
    seconds.div_euclid(every_s.max(1))
}

/// Consecutive days.
pub fn stretches(days: impl IntoIterator<Item = Date>) -> Vec<Days> {
    joined(days, |_, _| true)
}

/// Consecutive days of one month.
fn runs(days: impl Iterator<Item = Date>) -> Vec<Days> {
    joined(days, |last, day| Month::of(last) == Month::of(day))
}

fn joined(days: impl IntoIterator<Item = Date>, may_join: impl Fn(Date, Date) -> bool) -> Vec<Days> {
    let mut runs: Vec<Days> = Vec::new();
    for day in days {
        match runs.last_mut() {
            Some(run) if run.to.tomorrow().is_ok_and(|next| next == day) && may_join(run.to, day) => run.to = day,
            _ => runs.push(Days { from: day, to: day }),
        }
    }
    runs
}

/// Splits the days of a batch into queries of about `chunk_rows` rows, one day at least.
pub fn chunks(days: &Days, found: &BTreeMap<Unit, Fingerprint>, chunk_rows: u64) -> Vec<Days> {
    let mut chunks: Vec<Days> = Vec::new();
    let mut rows = 0;
    for day in days.iter() {
        let more = found.get(&Unit::Day(day)).map_or(0, |found| found.facts.rows);
        match chunks.last_mut() {
            Some(chunk) if rows + more <= chunk_rows => {
                chunk.to = day;
                rows += more;
            }
            _ => {
                chunks.push(Days { from: day, to: day });
                rows = more;
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;
    use ribera_storage::batch::Facts;
    use ribera_storage::dataset::shipped;

    use super::*;

    fn rows(count: u64) -> Fingerprint {
        Fingerprint { facts: Facts { rows: count, ..Facts::default() }, hash: None }
    }

    fn known(day: Date, count: u64) -> UnitRow {
        UnitRow {
            unit: Unit::Day(day),
            dataset_version: 1,
            fingerprint: rows(count),
            facts: rows(count).facts,
            closed: true,
            proven: true,
            batch: 1,
            lake: LakeState::Agrees,
            ..UnitRow::new(Unit::Day(day), Timestamp::UNIX_EPOCH)
        }
    }

    fn comparison<'a>(definition: &'a DatasetDefinition, zone: &'a TimeZone, now: &str) -> Comparison<'a> {
        let closing_now: Timestamp = now.parse().unwrap();
        let today = closing_now.to_zoned(zone.clone()).date();
        Comparison {
            definition,
            zone,
            closing_now,
            today,
            force: false,
            requested_by_person: false,
            mapping: "m",
            values: "v",
        }
    }

    #[test]
    fn a_day_is_extracted_for_the_first_reason_that_holds() {
        let definition = shipped("ventas").unwrap().unwrap();
        let zone = TimeZone::get("America/New_York").unwrap();
        let comparison = comparison(&definition, &zone, "2017-05-10T12:00:00Z");
        let day = date(2017, 5, 8);
        let case = |change: &dyn Fn(&mut UnitRow), count| {
            let mut row = known(day, 5);
            change(&mut row);
            comparison.why(day, &rows(count), Some(&row))
        };
        assert_eq!(case(&|_| {}, 5), None);
        assert_eq!(case(&|_| {}, 0), Some(Why::Changed), "a day that became empty is found");
        assert_eq!(case(&|row| row.stale = true, 5), Some(Why::Stale));
        assert_eq!(case(&|row| row.closed = false, 5), Some(Why::Closed));
        assert_eq!(case(&|row| row.proven = false, 5), Some(Why::Unproven));
        assert_eq!(case(&|row| (row.proven, row.tries) = (false, TRIES_MAX), 5), None, "it stops after a while");
        assert_eq!(case(&|row| row.dataset_version = 0, 5), Some(Why::Definition));
        assert_eq!(case(&|row| row.values_digest = Some("v".into()), 5), None);
        assert_eq!(case(&|row| row.values_digest = Some("of another mapping".into()), 5), Some(Why::Definition));
        assert_eq!(
            case(&|row| row.fingerprint.hash = Some("a".into()), 5),
            None,
            "a hash that is not requested_by_person for"
        );
        let hashed = Fingerprint { hash: Some("a".into()), ..rows(5) };
        assert_eq!(comparison.why(day, &hashed, Some(&known(day, 5))), Some(Why::Changed), "never compared");
        let old = date(2017, 3, 8);
        assert_eq!(comparison.why(old, &hashed, Some(&known(old, 5))), None, "history is sent without a hash");
        assert_eq!(comparison.why(old, &hashed, Some(&known(old, 4))), Some(Why::Changed));
        assert_eq!(comparison.why(day, &rows(0), None), Some(Why::New), "a closed empty day is a fact");
        assert_eq!(comparison.why(date(2017, 5, 10), &rows(0), None), None, "an open empty day is not");
    }

    #[test]
    fn a_refused_day_is_tried_a_few_times_and_then_when_rows_or_mapping_change_or_a_person_asks() {
        let definition = shipped("ventas").unwrap().unwrap();
        let zone = TimeZone::get("America/New_York").unwrap();
        let comparison = comparison(&definition, &zone, "2017-05-10T12:00:00Z");
        let day = date(2017, 5, 8);
        let refused = |fingerprint, mapping: &str| Event::Refused {
            dataset_version: definition.version,
            fingerprint,
            closed: true,
            reason: "column total".to_owned(),
            mapping: mapping.to_owned(),
        };
        let mut row = known(day, 5);
        for tries in 1..=TRIES_MAX {
            row = row.after(refused(Some(rows(5)), "m"), Timestamp::UNIX_EPOCH);
            assert_eq!(row.tries, tries);
            assert_eq!(comparison.why(day, &rows(5), Some(&row)), (tries < TRIES_MAX).then_some(Why::Refused));
        }
        assert!(!row.doubted, "the lake has these rows, from before the mapping refused them");
        assert_eq!(comparison.why(day, &rows(6), Some(&row)), Some(Why::Changed));
        let requested_by_person = Comparison { requested_by_person: true, ..comparison };
        assert_eq!(requested_by_person.why(day, &rows(5), Some(&row)), Some(Why::Refused));
        let other = Comparison { requested_by_person: false, mapping: "another", ..requested_by_person };
        assert_eq!(other.why(day, &rows(5), Some(&row)), Some(Why::Definition));
        let moved = known(day, 5).after(refused(Some(rows(6)), "m"), Timestamp::UNIX_EPOCH);
        assert!(moved.doubted && !moved.stale, "what the lake has is not what the source has");
        let unread = known(day, 5).after(refused(None, "m"), Timestamp::UNIX_EPOCH);
        assert!(unread.doubted);
        assert_eq!(other.why(day, &rows(5), Some(&unread)), Some(Why::Changed), "it can be counted again");
        let late = moved.after(Event::Acknowledged { lake: LakeState::Agrees, again: false }, Timestamp::UNIX_EPOCH);
        assert!(late.doubted && late.tries == 1, "an answer to what was sent before says nothing of it");
    }

    #[test]
    fn a_day_closes_by_the_stores_clock_and_the_datasets_hour() {
        let definition = shipped("ventas").unwrap().unwrap();
        let zone = TimeZone::get("America/New_York").unwrap();
        let day = date(2017, 5, 8);
        // Closes at 03:00 of the 9th in New York: 07:00 UTC.
        assert!(!is_closed(&definition, day, "2017-05-09T06:59:59Z".parse().unwrap(), &zone));
        assert!(is_closed(&definition, day, "2017-05-09T07:00:00Z".parse().unwrap(), &zone));
    }

    #[test]
    fn the_window_reaches_back_to_the_last_good_cycle() {
        let definition = shipped("ventas").unwrap().unwrap();
        let today = date(2017, 5, 10);
        let from = |last| window(&definition, today, last, 400).from;
        assert_eq!(from(None), date(2017, 5, 3));
        assert_eq!(from(Some(date(2017, 5, 9))), date(2017, 5, 3));
        assert_eq!(from(Some(date(2017, 4, 1))), date(2017, 4, 1));
        assert_eq!(from(Some(date(2009, 4, 1))), date(2016, 4, 5));
    }

    #[test]
    fn newest_days_come_first_and_the_backlog_in_months() {
        let days = [(4, 29), (4, 30), (5, 1), (5, 8), (5, 9)];
        let days = days.map(|(month, day)| (date(2017, month, day), Why::Changed)).into();
        let shown: Vec<String> =
            daily_batches(&days, date(2017, 5, 3)).iter().map(|days| format!("{}..{}", days.from, days.to)).collect();
        assert_eq!(
            shown,
            ["2017-05-09..2017-05-09", "2017-05-08..2017-05-08", "2017-05-01..2017-05-01", "2017-04-29..2017-04-30"]
        );
    }

    proptest! {
        #[test]
        fn chunks_cover_every_day_once_and_keep_the_limit(counts in prop::collection::vec(0_u64..100, 1..31), limit in 1_u64..200) {
            let from = date(2017, 1, 1);
            let days = Days { from, to: from.checked_add((counts.len() as i64 - 1).days()).unwrap() };
            let found: BTreeMap<Unit, Fingerprint> =
                days.iter().zip(&counts).map(|(day, count)| (Unit::Day(day), rows(*count))).collect();
            let chunks = chunks(&days, &found, limit);
            let covered: Vec<Date> = chunks.iter().flat_map(Days::iter).collect();
            prop_assert_eq!(covered, days.iter().collect::<Vec<_>>());
            for chunk in chunks {
                let rows: u64 = chunk.iter().map(|day| found[&Unit::Day(day)].facts.rows).sum();
                prop_assert!(rows <= limit || chunk.from == chunk.to);
            }
        }
    }
}
