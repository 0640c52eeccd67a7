//! Days of a dataset: which differ, in which batches they go, and what becomes of one that cannot be sent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use jiff::civil::Date;
use ribera_storage::{Error, ErrorKind, ObjectStore, Result, Unit, text};

use crate::agent::{Agent, StoreCalendar};
use crate::calendar::Days;
use crate::plan::audit_window::AuditWindow;
use crate::plan::{
    Comparison, Event, Fingerprint, Fingerprints, TRIES_MAX, UnitRow, Why, daily_batches, days_of_life, has_left,
    is_closed, month_batch, stretches, window,
};
use crate::report::{DatasetReport, PlannedUnit, RefusedUnit};
use crate::run::collect::add_to;
use crate::run::extract::{Job, Taken, day_before};
use crate::run::session::{Digests, ExtractionSession, in_context};
use crate::run::watermark::ToCompare;
use crate::source::{Answer, Source, pieces};

/// Refused days before the window, the newest, that a cycle looks at: each is a query of its own.
const REFUSED_LOOKED_AT_MAX: usize = 31;

/// A transaction lasts no longer than a batch that takes more than this: what it holds still costs the source room,
/// and keeps its tables from being changed.
const TRANSACTION_MAX: SignedDuration = SignedDuration::from_secs(10);

impl<S: ObjectStore> Agent<S> {
    /// The lookback window, and older days that are due once more.
    pub(crate) async fn run_window(
        &self,
        reading: &mut ExtractionSession<'_>,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let (id, name, calendar) = (&context.store.config.id, context.name, context.calendar.clone());
        let last_good = self
            .journal
            .last_good_cycle(id, name)?
            .map(|at| day_before(at.to_zoned(calendar.time_zone.clone()).date()));
        let window = window(&context.definition, reading.today, last_good, self.config.limits.facts_days);
        let due = self.journal.units_due_before(id, name, window.from)?;
        let parts = parts(context.store.source.as_ref(), window.within(calendar.opened, calendar.closed), due.values());
        let mut failures = Failures::of_parts(parts.len());
        for part in parts {
            failures.keep(self.run_one_database(reading, part, window.from, report).await)?;
        }
        failures.first()?;
        if self.config.dry_run { Ok(()) } else { self.advance_watermark(reading) }
    }

    /// The days of a cycle that lie in one database.
    async fn run_one_database(
        &self,
        reading: &mut ExtractionSession<'_>,
        part: Part,
        window_from: Date,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let (id, name, calendar) = (&context.store.config.id, context.name, context.calendar.clone());
        self.switch_database(reading, part.day).await?;
        self.prove_and_report(reading, report).await?;
        let mut differing = BTreeMap::new();
        let mut found = Answer::default();
        if let Some(days) = &part.window {
            let known = self.journal.units_between(id, name, days.from, days.to)?;
            let digests = reading.digests.clone();
            let comparison = comparison(reading, &calendar, &digests);
            let ToCompare { days: to_compare, written } =
                self.days_to_compare(reading, days, &known, &comparison).await?;
            let first = to_compare.first().copied().unwrap_or(days.from).min(days.from);
            let known = self.journal.units_between(id, name, first, days.to)?;
            report.compared += to_compare.len() as u64;
            for days in questions(to_compare, &known) {
                let answer = self.query_fingerprints_of_each(reading, &days).await?;
                differing.extend(differing_but_refused(&comparison, &days, &answer, &known));
                found.found.extend(answer.found);
                found.refused.extend(answer.refused);
            }
            // Without a hash count and sums are all there is, and a change that keeps them is one all the same.
            let is_counted_only = |day: &&Date| {
                let unit = Unit::Day(**day);
                let sent = known.get(&unit).is_some_and(|known| known.fingerprint.hash.is_none());
                found.found.get(&unit).is_some_and(|found| sent || found.hash.is_none())
            };
            for day in written.iter().filter(is_counted_only) {
                differing.entry(*day).or_insert(Why::Changed);
            }
        }
        let asked_in = reading.transaction;
        differing.extend(part.due);
        for (day, row) in part.refused {
            let days = Days { from: day, to: day };
            let answer = self.query_fingerprints_of_each(reading, &days).await?;
            let digests = reading.digests.clone();
            let comparison = comparison(reading, &calendar, &digests);
            let known = BTreeMap::from([(row.unit, row)]);
            differing.extend(differing_but_refused(&comparison, &days, &answer, &known));
            found.refused.extend(answer.refused);
        }
        plan_report(report, &differing);
        if self.config.dry_run {
            return self.try_one_row(part.day, reading).await;
        }
        self.refuse_unread(reading, found.refused, report).await?;
        self.found_differing(id, name, &changed(&differing)).await?;
        for batch in daily_batches(&differing, window_from) {
            let known = (batch.from >= window_from).then_some((&found.found, asked_in));
            self.renew(reading, TRANSACTION_MAX).await?;
            self.extract_days(reading, &batch, known, report).await?;
        }
        Ok(())
    }

    /// Days a person asked for; a backfill's in the order and the hours of the settings.
    pub(crate) async fn run_days(
        &self,
        reading: &mut ExtractionSession<'_>,
        days: &Days,
        force: bool,
        by_month: bool,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let calendar = context.calendar.clone();
        let (left, left_out) = days_of_life(days, calendar.opened, calendar.closed, reading.today);
        report.left_out.extend(left_out);
        report.has_days = Some(left.is_some());
        let Some(days) = left else { return Ok(()) };
        let mut failures = Failures::of_parts(pieces(context.store.source.as_ref(), &days).len());
        if by_month {
            reading.audit_window = AuditWindow::careful();
        }
        let mut months = days.months();
        if !(by_month && self.config.limits.oldest_first) {
            months.reverse();
        }
        for (index, month) in months.into_iter().enumerate() {
            if by_month && index > 0 {
                self.between_months(context.store).await;
            }
            if self.progress.stops() {
                report.stopped = true;
                break;
            }
            failures.keep(self.run_month(reading, &month, force, by_month, report).await)?;
            self.progress.days_done(month.iter().count() as u64);
        }
        failures.first()
    }

    async fn run_month(
        &self,
        reading: &mut ExtractionSession<'_>,
        month: &Days,
        force: bool,
        by_month: bool,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let (id, name, calendar) = (&context.store.config.id, context.name, context.calendar.clone());
        self.switch_database(reading, month.from).await?;
        if by_month {
            self.wait_for_hours(reading).await?;
        }
        self.renew(reading, SignedDuration::ZERO).await?;
        self.prove_and_report(reading, report).await?;
        reading.counts_only = by_month && has_left(&context.definition, month.to, reading.today);
        let found = self.query_fingerprints_of_each(reading, month).await?;
        let asked_in = reading.transaction;
        let known = self.journal.units_between(id, name, month.from, month.to)?;
        let digests = reading.digests.clone();
        let comparison = Comparison { force, requested_by_person: true, ..comparison(reading, &calendar, &digests) };
        let differing = differing_but_refused(&comparison, month, &found, &known);
        let unread: BTreeSet<Date> = found.refused.keys().filter_map(|unit| unit.date()).collect();
        report.compared += month.iter().count() as u64;
        plan_report(report, &differing);
        if self.config.dry_run {
            return self.try_one_row(month.to, reading).await;
        }
        self.refuse_unread(reading, found.refused, report).await?;
        self.found_differing(id, name, &changed(&differing)).await?;
        let batches = if by_month { month_batches(&differing, &unread) } else { daily_batches(&differing, month.from) };
        for batch in batches {
            self.extract_days(reading, &batch, Some((&found.found, asked_in)), report).await?;
        }
        Ok(())
    }

    /// Extracts some days. `found` is what the source said of them and in which transaction, if it was asked already. A value that does
    /// not fit spoils its own day only: the days around it are sent without it.
    async fn extract_days(
        &self,
        reading: &mut ExtractionSession<'_>,
        days: &Days,
        found: Option<(&Fingerprints, u64)>,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let mut left = vec![days.clone()];
        while let Some(days) = left.pop() {
            let before = self.before(reading, &days, found).await;
            let (before, taken) = match before {
                Err(error) if error.kind() == ErrorKind::Data => (None, Taken::Refused(error)),
                before => {
                    let before = before?;
                    (Some(before.clone()), self.extract(reading, &Job::days(&days), before).await?)
                }
            };
            match taken {
                Taken::Sent(extracted) => add_to(report, extracted)?,
                Taken::Refused(error) => {
                    // The session may be in the middle of an answer.
                    self.reconnect(reading).await?;
                    let (first, rest) = days.split_after(days.iter().count() as u32 / 2);
                    match rest {
                        Some(rest) if days.from < days.to => left.extend([first, rest]),
                        _ => {
                            self.refuse(
                                reading,
                                days.from,
                                before.map(|before| fingerprint(&before, days.from)),
                                &error,
                                report,
                            )
                            .await?
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What the source says of the days in the session's own moment.
    async fn before(
        &self,
        reading: &mut ExtractionSession<'_>,
        days: &Days,
        found: Option<(&Fingerprints, u64)>,
    ) -> Result<Fingerprints> {
        let Some((found, asked_in)) = found else { return self.query_fingerprints(reading, days).await };
        let known = part(found, days);
        if reading.snapshot && reading.transaction == asked_in {
            return Ok(known);
        }
        let before = self.query_fingerprints(reading, days).await?;
        let moved = days.iter().find(|day| {
            let (known, before) = (known.get(&Unit::Day(*day)), before.get(&Unit::Day(*day)));
            // Count and sums are all that was asked before a snapshot was lost.
            let counted = known.is_some_and(|known| known.hash.is_none());
            if counted { known.map(|one| &one.facts) != before.map(|one| &one.facts) } else { known != before }
        });
        if let Some(day) = moved {
            self.compare_day(reading, day, false).await?;
        }
        Ok(before)
    }

    /// Notes days of which the source cannot even say count and sums.
    async fn refuse_unread(
        &self,
        reading: &ExtractionSession<'_>,
        unread: BTreeMap<Unit, Error>,
        report: &mut DatasetReport,
    ) -> Result<()> {
        for (unit, error) in unread {
            if let Some(day) = unit.date() {
                self.refuse(reading, day, None, &error, report).await?;
            }
        }
        Ok(())
    }

    /// Notes a day whose rows cannot be sent, and says why.
    async fn refuse(
        &self,
        reading: &ExtractionSession<'_>,
        day: Date,
        fingerprint: Option<Fingerprint>,
        error: &Error,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let (store, dataset) = (&context.store.config.id, context.name);
        let closed = is_closed(&context.definition, day, reading.closing_now, &context.calendar.time_zone);
        let told = error.to_string();
        let reason = text::line(told.split("\n  try: ").next().unwrap_or(&told)).into_owned();
        let hint = error.hint().map(str::to_owned);
        report.refused.push(RefusedUnit { unit: Unit::Day(day), reason: reason.clone(), hint });
        let refused = Event::Refused {
            dataset_version: context.definition.version,
            fingerprint,
            closed,
            reason,
            mapping: reading.digests.mapping.clone(),
        };
        let doubted = self.journal.refuse(store, dataset, Unit::Day(day), refused, self.ports.clock.now())?;
        if doubted {
            self.publish_differing_soon(store, dataset).await;
        }
        Ok(())
    }

    /// Nothing is extracted by a mapping whose question is not proven.
    async fn prove_and_report(&self, reading: &mut ExtractionSession<'_>, report: &mut DatasetReport) -> Result<()> {
        let proven = self.prove_question(reading).await.map_err(|error| in_context(error, reading.context))?;
        // They are counts of the whole database: reported once, however many months are read.
        if let Some(proven) = proven.filter(|_| !std::mem::replace(&mut reading.is_counted, true)) {
            report.undated_rows += proven.undated;
            report.future_rows += proven.future;
        }
        Ok(())
    }
}

/// The parts of a work of which one may fail alone: the databases of a store, when there are several.
struct Failures {
    may_fail_alone: bool,
    first: Option<Error>,
}

impl Failures {
    fn of_parts(count: usize) -> Self {
        Self { may_fail_alone: count > 1, first: None }
    }

    /// Remembers a failure, or gives it back if the work ends with it.
    fn keep(&mut self, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if self.may_fail_alone => {
                self.first.get_or_insert(error);
                Ok(())
            }
            done => done,
        }
    }

    fn first(self) -> Result<()> {
        self.first.map_or(Ok(()), Err)
    }
}

fn comparison<'a>(
    reading: &ExtractionSession<'a>,
    calendar: &'a StoreCalendar,
    digests: &'a Digests,
) -> Comparison<'a> {
    Comparison {
        definition: &reading.context.definition,
        zone: &calendar.time_zone,
        closing_now: reading.closing_now,
        today: reading.today,
        force: false,
        requested_by_person: false,
        mapping: &digests.mapping,
        values: &digests.values,
    }
}

/// The days that differ, but for those that the source cannot count.
fn differing_but_refused(
    comparison: &Comparison<'_>,
    days: &Days,
    answer: &Answer,
    known: &BTreeMap<Unit, UnitRow>,
) -> BTreeMap<Date, Why> {
    let mut differing = comparison.differing(days, &answer.found, known);
    differing.retain(|day, _| !answer.refused.contains_key(&Unit::Day(*day)));
    differing
}

/// What the source is asked of these days: a day that it could not count before is asked alone, so that the
/// others have their answer at once.
fn questions(days: BTreeSet<Date>, known: &BTreeMap<Unit, UnitRow>) -> Vec<Days> {
    let unread = |day: &Date| {
        let refusal = known.get(&Unit::Day(*day)).and_then(|row| row.refused.as_ref());
        refusal.is_some_and(|refusal| !refusal.is_audited)
    };
    let (alone, others): (Vec<Date>, Vec<Date>) = days.into_iter().partition(unread);
    stretches(others).into_iter().chain(alone.into_iter().map(|day| Days { from: day, to: day })).collect()
}

/// One batch from the first to the last day that differs, without those that the source cannot count. A day that
/// was refused before is tried alone: it would be cut out of the batch again.
fn month_batches(differing: &BTreeMap<Date, Why>, unread: &BTreeSet<Date>) -> Vec<Days> {
    let (again, others): (BTreeMap<Date, Why>, _) =
        differing.iter().map(|(day, why)| (*day, *why)).partition(|(_, why)| *why == Why::Refused);
    let is_sent = |day: &Date| !unread.contains(day) && !again.contains_key(day);
    let batches = stretches(month_batch(&others).iter().flat_map(Days::iter).filter(is_sent));
    batches.into_iter().chain(again.keys().map(|day| Days { from: *day, to: *day })).collect()
}

fn fingerprint(found: &Fingerprints, day: Date) -> Fingerprint {
    found.get(&Unit::Day(day)).cloned().unwrap_or_default()
}

/// What a cycle has to look at in one database.
struct Part {
    /// Any day of it.
    day: Date,
    /// Days of the lookback window.
    window: Option<Days>,
    /// Older ones, and why.
    due: BTreeMap<Date, Why>,
    /// Older ones that were refused: looked at like those of the window.
    refused: BTreeMap<Date, UnitRow>,
}

/// A part for each database concerned, the newest first.
fn parts<'a>(
    source: &dyn Source,
    window: Option<Days>,
    older: impl DoubleEndedIterator<Item = &'a UnitRow>,
) -> Vec<Part> {
    let mut parts: BTreeMap<Date, Part> = BTreeMap::new();
    let part = |day: Date| Part { day, window: None, due: BTreeMap::new(), refused: BTreeMap::new() };
    for piece in window.iter().flat_map(|days| pieces(source, days)) {
        let day = piece.from;
        parts.entry(source.span(day).from).or_insert_with(|| part(day)).window = Some(piece);
    }
    let mut refused = 0;
    for row in older.rev() {
        let Unit::Day(day) = row.unit else { continue };
        let of_day = || part(day);
        if row.refused.is_some() {
            refused += 1;
            if refused <= REFUSED_LOOKED_AT_MAX {
                let part = parts.entry(source.span(day).from).or_insert_with(of_day);
                part.refused.insert(day, row.clone());
            }
        } else if let Some((day, why)) = due_once_more(row) {
            parts.entry(source.span(day).from).or_insert_with(of_day).due.insert(day, why);
        }
    }
    parts.into_values().rev().collect()
}

/// What was found of some days.
fn part(found: &Fingerprints, days: &Days) -> Fingerprints {
    let wanted = days.iter().map(Unit::Day);
    wanted.filter_map(|unit| Some((unit, found.get(&unit)?.clone()))).collect()
}

/// A day outside the window that has to be extracted again, if it may.
fn due_once_more(row: &UnitRow) -> Option<(Date, Why)> {
    let Unit::Day(day) = row.unit else { return None };
    if row.tries >= TRIES_MAX {
        return None;
    }
    Some(match () {
        () if row.stale => (day, Why::Stale),
        () if !row.is_final => (day, Why::LeavesLookback),
        () => (day, Why::Unproven),
    })
}

/// The units of days whose rows at the source are not those that were extracted.
fn changed(differing: &BTreeMap<Date, Why>) -> Vec<Unit> {
    differing.iter().filter(|(_, why)| **why == Why::Changed).map(|(day, _)| Unit::Day(*day)).collect()
}

fn plan_report(report: &mut DatasetReport, differing: &BTreeMap<Date, Why>) {
    report.planned.extend(differing.iter().map(|(day, why)| PlannedUnit { unit: Unit::Day(*day), why: *why }));
}
