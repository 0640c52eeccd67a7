//! A run over stores and datasets: what to look at, what differs, extraction of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures::StreamExt;
use jiff::Timestamp;
use jiff::civil::Date;
use ribera_storage::batch::Facts;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind};
use ribera_storage::{DatasetName, ErrorKind, ObjectStore, Result, StoreId, Unit, heartbeat};

use crate::agent::{Agent, DatasetContext, ServedStore, StorePlace};
use crate::extract::{Found, Job, Reading, day_before};
use crate::journal::UnitRow;
use crate::pace::Pace;
use crate::plan::{Comparison, Days, TRIES_MAX, Why, daily_batches, month_batch, stretches, window};
use crate::report::{DatasetReport, PlannedUnit, Problem, Stage};
use crate::source::{Source, pieces};

/// What a run is asked to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The lookback window of every dataset.
    Cycle,
    /// The same, of datasets whose schedule says so.
    Due,
    /// These days; a batch per day.
    Extract { days: Days, force: bool },
    /// These days; a batch per month.
    Backfill { days: Days, force: bool },
}

#[derive(Debug, Clone)]
pub struct Request {
    pub ask: Ask,
    /// Only these; all when empty.
    pub stores: Vec<StoreId>,
    /// Only these; all when empty.
    pub datasets: Vec<DatasetName>,
}

/// After a cycle that failed, or while a refused batch is to be extracted again, the next begins
/// after so long, if its schedule does not let it sooner: a database that was away for a minute
/// must not cost the day of a dataset that is read once a day, nor one that is away all day be
/// asked every minute.
const AGAIN_AFTER_S: u64 = 900;

/// What extraction came to.
#[derive(Debug, Default)]
pub struct Collected {
    pub datasets: Vec<DatasetReport>,
    pub problems: Vec<Problem>,
}

impl<S: ObjectStore> Agent<S> {
    /// Compares and extracts; uploads nothing. The failure of one dataset leaves the others alone.
    pub async fn collect(&self, request: &Request) -> Collected {
        let workers = self.config.limits.workers.max(1);
        let per_store = futures::stream::iter(self.served(&request.stores))
            .map(|store| self.collect_store(store, request))
            .buffered(workers)
            .collect::<Vec<_>>()
            .await;
        let mut all = Collected::default();
        for Collected { datasets, problems } in per_store {
            all.datasets.extend(datasets);
            all.problems.extend(problems);
        }
        all
    }

    async fn collect_store(&self, store: &ServedStore, request: &Request) -> Collected {
        let mut collected = Collected::default();
        let id = &store.config.id;
        let looks_due = |name: &DatasetName| request.ask != Ask::Due || self.is_due(id, name);
        if !self.config.datasets(&store.config).any(|(name, _)| looks_due(name)) {
            return collected;
        }
        if !self.config.dry_run && !self.config.local_only {
            self.measure_clock(std::slice::from_ref(id)).await;
        }
        let place = match self.place(&store.config).await {
            Ok(place) => Rc::new(place),
            Err(error) => {
                collected.problems.push(Problem::new(Stage::Definition, &error).of(id, None));
                return collected;
            }
        };
        for (name, mapping) in self.config.datasets(&store.config) {
            if !request.datasets.is_empty() && !request.datasets.contains(name) || !looks_due(name) {
                continue;
            }
            let definition = match self.definition(name).await {
                Ok(definition) => definition,
                Err(error) => {
                    collected.problems.push(Problem::new(Stage::Definition, &error).of(id, Some(name)));
                    continue;
                }
            };
            let context = DatasetContext { store, name, mapping, definition, place: place.clone() };
            self.collect_dataset(&context, request, &mut collected).await;
        }
        collected
    }

    async fn collect_dataset(&self, context: &DatasetContext<'_>, request: &Request, collected: &mut Collected) {
        let (id, name) = (&context.store.config.id, context.name);
        let begun_at = self.ports.clock.now();
        let is_cycle = matches!(request.ask, Ask::Cycle | Ask::Due);
        let mut report = DatasetReport::new(id, name);
        if !self.config.dry_run
            && !self.config.local_only
            && let Err(error) = self.answer_claim(id, name).await
        {
            // Away or full: the source is read all the same.
            self.log(format!("store {id}, dataset {name}: epochs could not be looked at: {error}"));
        }
        let done = self.work(context, &request.ask, &mut report).await;
        let outcome = match &done {
            Ok(()) => heartbeat::GOOD.to_owned(),
            Err(error) => {
                self.log(format!("store {id}, dataset {name}: {error}"));
                collected.problems.push(Problem::new(Stage::Source, error).of(id, Some(name)));
                error.message().to_owned()
            }
        };
        if !report.unproven.is_empty() {
            let error = ribera_storage::Error::data(format!(
                "{} unit(s) are not proven: the source's audit and the rows it gave differ, the first is {}",
                report.unproven.len(),
                report.unproven[0]
            ))
            .with_hint(audit_command(id, name, report.unproven[0]));
            collected.problems.push(Problem::new(Stage::Lake, &error).of(id, Some(name)));
        }
        report.seconds = self.ports.clock.now().duration_since(begun_at).as_secs_f64();
        collected.datasets.push(report);
        let seen_at = self.seen_at(id, name, begun_at);
        if is_cycle
            && !self.config.dry_run
            && let Err(error) = self.journal.record_cycle(id, name, begun_at, seen_at, &outcome)
        {
            collected.problems.push(Problem::new(Stage::Journal, &error).of(id, Some(name)));
        }
    }

    /// The earliest that "now" may have been in a cycle. One that began before the last good cycle, by a clock
    /// that is behind the object store's, looked at other days: what it saw does not put the last good one back.
    fn seen_at(&self, store: &StoreId, dataset: &DatasetName, begun_at: Timestamp) -> Timestamp {
        let Some(object_store_now) = self.object_store_now() else { return begun_at };
        let last = self.journal.last_good_cycle(store, dataset).ok().flatten();
        let last = last.filter(|last| *last <= object_store_now).unwrap_or(Timestamp::MIN);
        begun_at.min(object_store_now).max(last)
    }

    /// Whether the schedule lets a dataset's cycle begin: by the definition last seen, so that
    /// looking costs no request.
    pub(crate) fn is_due(&self, store: &StoreId, dataset: &DatasetName) -> bool {
        let last = self.journal.last_cycle(store, dataset).ok().flatten();
        let definition = self.last_seen_definition(dataset).ok().flatten();
        let (Some((begun_at, outcome)), Some(definition)) = (last, definition) else { return true };
        let Ok(mut every_s) = definition.schedule_seconds() else { return true };
        // The state at a past moment cannot be had again.
        let waits = definition.kind != DatasetKind::Snapshot
            && self.journal.has_stale(store, dataset, TRIES_MAX).unwrap_or(false);
        if outcome != heartbeat::GOOD || waits {
            every_s = every_s.min(AGAIN_AFTER_S);
        }
        let since = self.ports.clock.now().duration_since(begun_at).as_secs();
        // A clock that was set back must not silence the agent.
        since < 0 || since >= i64::try_from(every_s).unwrap_or(i64::MAX)
    }

    async fn work(&self, context: &DatasetContext<'_>, ask: &Ask, report: &mut DatasetReport) -> Result<()> {
        let mut reading = self.begin_reading(context).await?;
        let done = match (context.definition.kind, ask) {
            (DatasetKind::Daily, Ask::Cycle | Ask::Due) => self.work_window(&mut reading, report).await,
            (DatasetKind::Daily, Ask::Extract { days, force }) => {
                self.work_days(&mut reading, days, *force, false, report).await
            }
            (DatasetKind::Daily, Ask::Backfill { days, force }) => {
                self.work_days(&mut reading, days, *force, true, report).await
            }
            (DatasetKind::Snapshot, _) => self.work_snapshot(&mut reading, ask, report).await,
            (DatasetKind::Dimension, _) => self.work_table(&mut reading, ask, report).await,
        };
        // The rows are safe; a source that cannot end a read-only transaction changes nothing.
        let _ = reading.session.end().await;
        report.longest_query_s = reading.longest_query.as_secs_f64();
        done
    }

    /// The lookback window, and older days that are due once more.
    async fn work_window(&self, reading: &mut Reading<'_>, report: &mut DatasetReport) -> Result<()> {
        let context = reading.context;
        let (id, name, place) = (&context.store.config.id, context.name, context.place.clone());
        let last_good =
            self.journal.last_good_cycle(id, name)?.map(|at| day_before(at.to_zoned(place.time_zone.clone()).date()));
        let window = window(&context.definition, reading.today, last_good, self.config.limits.facts_days);
        let due = self.journal.units_due_before(id, name, window.from)?;
        let due = due.values().filter_map(due_once_more).collect();
        let parts = parts(context.store.source.as_ref(), window.within(place.opened, place.closed), due);
        let several = parts.len() > 1;
        let mut failed = Ok(());
        for part in parts {
            let done = self.work_part(reading, part, window.from, report).await;
            failed = one_bad_part(failed, done, several)?;
        }
        failed?;
        if self.config.dry_run { Ok(()) } else { self.advance_watermark(reading) }
    }

    /// The days of a cycle that lie in one database.
    async fn work_part(
        &self,
        reading: &mut Reading<'_>,
        part: Part,
        window_from: Date,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let (id, name, place) = (&context.store.config.id, context.name, context.place.clone());
        self.turn_to(reading, part.day).await?;
        let mut differing = BTreeMap::new();
        let mut found = Found::new();
        if let Some(days) = &part.window {
            let known = self.journal.units_between(id, name, days.from, days.to)?;
            let comparison = comparison(reading, &place, false, false);
            let to_compare = self.days_to_compare(reading, days, &known, &comparison).await?;
            report.compared += to_compare.len() as u64;
            for days in stretches(to_compare) {
                found.extend(self.ask(reading, &days).await?);
                differing.extend(comparison.differing(&days, &found, &known));
            }
        }
        differing.extend(part.due);
        plan_report(report, &differing);
        if self.config.dry_run {
            return Ok(());
        }
        self.found_differing(id, name, &changed(&differing)).await?;
        let mut failed = Ok(());
        for batch in daily_batches(&differing, window_from) {
            let known = (batch.from >= window_from).then_some(&found);
            let taken = self.take_days(reading, &batch, known, report).await;
            failed = self.one_bad_batch(reading, failed, taken).await?;
        }
        failed
    }

    /// Days a person asked for; a backfill's in the order and the hours of the settings.
    async fn work_days(
        &self,
        reading: &mut Reading<'_>,
        days: &Days,
        force: bool,
        by_month: bool,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let place = context.place.clone();
        let until_today = Days { from: days.from, to: days.to.min(reading.today) };
        let Some(days) = until_today.within(place.opened, place.closed) else { return Ok(()) };
        let several = pieces(context.store.source.as_ref(), &days).len() > 1;
        let mut failed = Ok(());
        if by_month {
            reading.pace = Pace::careful();
        }
        let mut months = days.months();
        if !(by_month && self.config.limits.oldest_first) {
            months.reverse();
        }
        for month in months {
            let done = self.work_month(reading, &month, force, by_month, report).await;
            failed = one_bad_part(failed, done, several)?;
            self.progress.days_done(month.iter().count() as u64);
        }
        failed
    }

    async fn work_month(
        &self,
        reading: &mut Reading<'_>,
        month: &Days,
        force: bool,
        by_month: bool,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let (id, name, place) = (&context.store.config.id, context.name, context.place.clone());
        self.turn_to(reading, month.from).await?;
        if by_month {
            self.wait_for_hours(reading).await?;
        }
        let found = self.ask(reading, month).await?;
        let known = self.journal.units_between(id, name, month.from, month.to)?;
        let differing = comparison(reading, &place, force, true).differing(month, &found, &known);
        report.compared += month.iter().count() as u64;
        plan_report(report, &differing);
        if self.config.dry_run {
            return Ok(());
        }
        self.found_differing(id, name, &changed(&differing)).await?;
        let batches = if by_month {
            month_batch(&differing).into_iter().collect()
        } else {
            daily_batches(&differing, month.from)
        };
        let mut failed = Ok(());
        for batch in batches {
            let taken = self.take_days(reading, &batch, Some(&found), report).await;
            failed = self.one_bad_batch(reading, failed, taken).await?;
        }
        failed
    }

    /// Extracts some days. `found` is what the source said of them, if it was asked already.
    async fn take_days(
        &self,
        reading: &mut Reading<'_>,
        days: &Days,
        found: Option<&Found>,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let before = match found {
            Some(found) if reading.snapshot => part(found, days),
            _ => self.ask(reading, days).await?,
        };
        self.take(reading, &Job::days(days), before, report).await
    }

    /// A value that does not fit spoils its own batch only, and the session that was in the middle of
    /// it; anything else ends the dataset's work.
    async fn one_bad_batch(
        &self,
        reading: &mut Reading<'_>,
        failed: Result<()>,
        taken: Result<()>,
    ) -> Result<Result<()>> {
        match taken {
            Err(error) if error.kind() == ErrorKind::Data => {
                let failed = failed.and(Err(error));
                if self.reconnect(reading).await.is_err() { failed.map(Ok) } else { Ok(failed) }
            }
            taken => taken.map(|()| failed),
        }
    }

    /// The state now, if the schedule asks for one or a person insists.
    async fn work_snapshot(&self, reading: &mut Reading<'_>, ask: &Ask, report: &mut DatasetReport) -> Result<()> {
        let context = reading.context;
        let insists = matches!(ask, Ask::Extract { force: true, .. });
        let wanted = match ask {
            Ask::Cycle | Ask::Due => self.wants_snapshot(reading)?,
            Ask::Extract { .. } | Ask::Backfill { .. } => insists,
        };
        // Whole seconds: the moment is a name that people read.
        let second = reading.source_now.as_second();
        let moment = jiff::Timestamp::from_second(second).unwrap_or(reading.source_now);
        if !wanted || context.place.closed.is_some_and(|closed| reading.today > closed) {
            return Ok(());
        }
        report.compared = 1;
        report
            .planned
            .push(PlannedUnit { unit: Unit::Moment(moment), why: if insists { Why::Forced } else { Why::New } });
        if self.config.dry_run {
            return Ok(());
        }
        self.turn_to(reading, reading.today).await?;
        let job = Job::whole(Unit::Moment(moment), reading.today);
        let before = self.ask(reading, &job.days).await?;
        self.take(reading, &job, before, report).await
    }

    /// Whether the current stretch of the schedule, counted from the store's own midnight, has no
    /// snapshot yet: so every four hours is six times a day, however often and unpunctually cycles run.
    fn wants_snapshot(&self, reading: &Reading<'_>) -> Result<bool> {
        let context = reading.context;
        let Some(Unit::Moment(last)) = self.journal.last_unit(&context.store.config.id, context.name)? else {
            return Ok(true);
        };
        let every_s = i64::try_from(context.definition.schedule_seconds()?).unwrap_or(i64::MAX).max(1);
        let stretch = |at: jiff::Timestamp| {
            let local = at.to_zoned(context.place.time_zone.clone());
            let midnight_s =
                local.date().to_zoned(jiff::tz::TimeZone::UTC).map_or(0, |day| day.timestamp().as_second());
            let second = i64::from(local.hour()) * 3600 + i64::from(local.minute()) * 60 + i64::from(local.second());
            (midnight_s + second).div_euclid(every_s)
        };
        Ok(stretch(last) != stretch(reading.source_now))
    }

    /// Whether a whole stretch of the schedule has passed since.
    fn is_over(&self, definition: &DatasetDefinition, since: jiff::Timestamp) -> Result<bool> {
        let every_s = i64::try_from(definition.schedule_seconds()?).unwrap_or(i64::MAX);
        let passed_s = self.ports.clock.now().duration_since(since).as_secs();
        Ok(passed_s < 0 || passed_s >= every_s)
    }

    /// A whole table, if it differs from what was sent. Without a hash only the count tells, so
    /// the schedule decides as well.
    async fn work_table(&self, reading: &mut Reading<'_>, ask: &Ask, report: &mut DatasetReport) -> Result<()> {
        let context = reading.context;
        let force = matches!(ask, Ask::Extract { force: true, .. } | Ask::Backfill { force: true, .. });
        self.turn_to(reading, reading.today).await?;
        let job = Job::whole(Unit::Table, reading.today);
        let found = self.ask(reading, &job.days).await?;
        let said = found.get(&Unit::Table).cloned().unwrap_or_default();
        let known = self.journal.all_units(&context.store.config.id, context.name)?.remove(&Unit::Table);
        report.compared = 1;
        let why = match &known {
            _ if force => Some(Why::Forced),
            None => Some(Why::New),
            Some(row) if row.stale && row.tries < TRIES_MAX => Some(Why::Stale),
            Some(row) if row.fingerprint != said => Some(Why::Changed),
            Some(row) if row.dataset_version != context.definition.version => Some(Why::Definition),
            Some(row) if said.hash.is_none() && self.is_over(&context.definition, row.extracted_at)? => {
                Some(Why::Changed)
            }
            Some(_) => None,
        };
        let Some(why) = why else { return Ok(()) };
        report.planned.push(PlannedUnit { unit: Unit::Table, why });
        if self.config.dry_run {
            return Ok(());
        }
        if why == Why::Changed {
            self.found_differing(&context.store.config.id, context.name, &job.units).await?;
        }
        self.take(reading, &job, found, report).await
    }

    async fn take(
        &self,
        reading: &mut Reading<'_>,
        job: &Job,
        before: Found,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let extracted = self.extract(reading, job, before).await?;
        report.batches += 1;
        report.bytes += extracted.bytes;
        report.unproven.extend(extracted.unproven);
        report.tries += u64::from(extracted.tries);
        let mut all = Facts { rows: report.rows, sums: std::mem::take(&mut report.sums) };
        all.add(&extracted.facts)?;
        (report.rows, report.sums) = (all.rows, all.sums);
        Ok(())
    }
}

fn comparison<'a>(reading: &Reading<'a>, place: &'a StorePlace, force: bool, asked: bool) -> Comparison<'a> {
    Comparison {
        definition: &reading.context.definition,
        zone: &place.time_zone,
        closing_now: reading.closing_now,
        today: reading.today,
        force,
        asked,
    }
}

/// The days of one database. The failure of one of several leaves the others alone.
fn one_bad_part(failed: Result<()>, done: Result<()>, several: bool) -> Result<Result<()>> {
    match done {
        Err(error) if error.kind() != ErrorKind::Data && !several => Err(error),
        done => Ok(failed.and(done)),
    }
}

/// What a cycle has to look at in one database.
struct Part {
    /// Any day of it.
    day: Date,
    /// Of the lookback window.
    window: Option<Days>,
    /// Older ones, and why.
    due: BTreeMap<Date, Why>,
}

/// A part for each database concerned, the newest first.
fn parts(source: &dyn Source, window: Option<Days>, due: BTreeMap<Date, Why>) -> Vec<Part> {
    let mut parts: BTreeMap<Date, Part> = BTreeMap::new();
    let part = |day: Date| Part { day, window: None, due: BTreeMap::new() };
    for piece in window.iter().flat_map(|days| pieces(source, days)) {
        let day = piece.from;
        parts.entry(source.span(day).from).or_insert_with(|| part(day)).window = Some(piece);
    }
    for (day, why) in due {
        parts.entry(source.span(day).from).or_insert_with(|| part(day)).due.insert(day, why);
    }
    parts.into_values().rev().collect()
}

/// Shows what source, agent and lake say of a unit.
pub(crate) fn audit_command(store: &StoreId, dataset: &DatasetName, unit: Unit) -> String {
    match unit.date() {
        Some(day) => format!("ribera-agent audit --stores {store} --datasets {dataset} --from {day} --to {day}"),
        None => "ribera-agent spool".to_owned(),
    }
}

/// What was found of some days.
fn part(found: &Found, days: &Days) -> Found {
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
