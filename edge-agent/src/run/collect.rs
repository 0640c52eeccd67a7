//! A run over stores and datasets: what to look at, what differs, extraction of it.

use std::rc::Rc;

use futures::StreamExt;
use jiff::Timestamp;
use ribera_storage::batch::Facts;
use ribera_storage::dataset::{DatasetDefinition, DatasetKind};
use ribera_storage::{DatasetName, Error, ObjectStore, Result, StoreId, Unit, heartbeat};

use crate::agent::{Agent, DatasetContext, ServedStore};
use crate::calendar::Days;
use crate::plan::{Fingerprints, LeftOut, TRIES_MAX, Why, WhyLeftOut, has_passed, stretch_of};
use crate::report::{DatasetReport, PlannedUnit, Problem, RefusedUnit, Stage};
use crate::run::extract::{Extracted, Job, Taken};
use crate::run::session::ExtractionSession;

/// What a run is asked to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMode {
    /// The lookback window of every dataset.
    Cycle,
    /// A cycle of the datasets that are due by their schedule.
    Due,
    /// These days; a batch per day.
    Extract { days: Days, force: bool },
    /// These days; a batch per month.
    Backfill { days: Days, force: bool },
}

#[derive(Debug, Clone)]
pub struct Request {
    pub ask: RunMode,
    /// Only these; all when empty.
    pub stores: Vec<StoreId>,
    /// Only these; all when empty.
    pub datasets: Vec<DatasetName>,
}

/// Retry delay in seconds after a failed cycle or while a rejected batch waits. The schedule applies if it is sooner.
/// 15 minutes: an outage of a minute does not cost a daily dataset its day, and a dead server is not queried every
/// minute.
const AGAIN_AFTER_S: u32 = 900;

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
        all.problems.extend(without_days(&all.datasets));
        all
    }

    async fn collect_store(&self, store: &ServedStore, request: &Request) -> Collected {
        let mut collected = Collected::default();
        let id = &store.config.id;
        let looks_due = |name: &DatasetName| request.ask != RunMode::Due || self.is_due(id, name);
        if !self.config.datasets(&store.config).any(|(name, _)| looks_due(name)) {
            return collected;
        }
        if !self.config.dry_run && !self.config.local_only {
            self.measure_clock(std::slice::from_ref(id)).await;
        }
        let calendar = match self.calendar(&store.config).await {
            Ok(calendar) => Rc::new(calendar),
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
            let context = DatasetContext { store, name, mapping, definition, calendar: calendar.clone() };
            self.collect_dataset(&context, request, &mut collected).await;
        }
        collected
    }

    async fn collect_dataset(&self, context: &DatasetContext<'_>, request: &Request, collected: &mut Collected) {
        let (id, name) = (&context.store.config.id, context.name);
        let begun_at = self.ports.clock.now();
        let is_cycle = matches!(request.ask, RunMode::Cycle | RunMode::Due);
        let mut report = DatasetReport::new(id, name);
        if !self.config.dry_run
            && !self.config.local_only
            && let Err(error) = self.answer_claim(id, name).await
        {
            // Away or full: the source is read all the same.
            self.log(format!("store {id}, dataset {name}: epochs could not be looked at: {error}"));
        }
        let done = self.run_dataset(context, &request.ask, &mut report).await;
        let outcome = match &done {
            Ok(()) => heartbeat::GOOD.to_owned(),
            Err(error) => {
                let problem = Problem::new(Stage::Source, error).of(id, Some(name));
                self.log(format!("store {id}, dataset {name}: {}", problem.message));
                collected.problems.push(problem);
                error.message().to_owned()
            }
        };
        if let Some(RefusedUnit { unit, reason, hint }) = report.refused.first() {
            let error =
                Error::data(format!("{} day(s) are refused, the first is {unit}: {reason}", report.refused.len()))
                    .with_hint(hint.clone().unwrap_or_else(|| audit_command(id, name, *unit)));
            self.log(format!("store {id}, dataset {name}: {}", error.message()));
            collected.problems.push(Problem::new(Stage::Source, &error).of(id, Some(name)));
        }
        if !report.unproven.is_empty() {
            let error = Error::data(format!(
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
            every_s = every_s.min(AGAIN_AFTER_S.into());
        }
        let every_s = i64::try_from(every_s).unwrap_or(i64::MAX);
        let now = self.ports.clock.now();
        has_passed(every_s, begun_at, now)
            || has_passed(AGAIN_AFTER_S.into(), begun_at, now)
                && self.lacks_snapshot(store, dataset, &definition, every_s).unwrap_or(false)
    }

    /// Whether a stretch of a snapshot's schedule has begun that has none yet: cycles that drift by seconds would
    /// leave one out now and then.
    fn lacks_snapshot(
        &self,
        store: &StoreId,
        dataset: &DatasetName,
        definition: &DatasetDefinition,
        every_s: i64,
    ) -> Result<bool> {
        if definition.kind != DatasetKind::Snapshot {
            return Ok(false);
        }
        let Some(Unit::Moment(last)) = self.journal.last_unit(store, dataset)? else { return Ok(false) };
        let Some(config) = self.config.store(store) else { return Ok(false) };
        let zone = self.last_seen_calendar(config)?.time_zone;
        Ok(stretch_of(last, &zone, every_s) != stretch_of(self.ports.clock.now(), &zone, every_s))
    }

    async fn run_dataset(&self, context: &DatasetContext<'_>, ask: &RunMode, report: &mut DatasetReport) -> Result<()> {
        let mut reading = self.begin_reading(context).await?;
        report.source_clock_offset_s = self.source_clocks.borrow().get(&context.store.config.id).copied();
        let done = match (context.definition.kind, ask) {
            (DatasetKind::Daily, RunMode::Cycle | RunMode::Due) => self.run_window(&mut reading, report).await,
            (DatasetKind::Daily, RunMode::Extract { days, force }) => {
                self.run_days(&mut reading, days, *force, false, report).await
            }
            (DatasetKind::Daily, RunMode::Backfill { days, force }) => {
                self.run_days(&mut reading, days, *force, true, report).await
            }
            (DatasetKind::Snapshot, _) => self.run_snapshot(&mut reading, ask, report).await,
            (DatasetKind::Dimension, _) => self.run_table(&mut reading, ask, report).await,
        };
        // The rows are safe; a source that cannot end a read-only transaction changes nothing.
        let _ = reading.session.end().await;
        report.longest_query_s = reading.longest_query.as_secs_f64();
        done
    }

    /// The state now, if the schedule asks for one or a person insists.
    async fn run_snapshot(
        &self,
        reading: &mut ExtractionSession<'_>,
        ask: &RunMode,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let insists = matches!(ask, RunMode::Extract { force: true, .. });
        let wanted = match ask {
            RunMode::Cycle | RunMode::Due => self.wants_snapshot(reading)?,
            RunMode::Extract { .. } | RunMode::Backfill { .. } => insists,
        };
        // Whole seconds: the moment is a name that people read.
        let second = reading.source_now.as_second();
        let moment = jiff::Timestamp::from_second(second).unwrap_or(reading.source_now);
        if !wanted || context.calendar.closed.is_some_and(|closed| reading.today > closed) {
            return Ok(());
        }
        report.compared = 1;
        report
            .planned
            .push(PlannedUnit { unit: Unit::Moment(moment), why: if insists { Why::Forced } else { Why::New } });
        self.switch_database(reading, reading.today).await?;
        if self.config.dry_run {
            return self.try_one_row(reading.today, reading).await;
        }
        let job = Job::whole(Unit::Moment(moment), reading.today);
        let before = self.query_fingerprints(reading, &job.days).await?;
        self.record_extraction(reading, &job, before, report).await
    }

    /// Whether the current stretch of the schedule, counted from the store's own midnight, has no
    /// snapshot yet: so every four hours is six times a day, however often and unpunctually cycles run.
    fn wants_snapshot(&self, reading: &ExtractionSession<'_>) -> Result<bool> {
        let context = reading.context;
        let Some(Unit::Moment(last)) = self.journal.last_unit(&context.store.config.id, context.name)? else {
            return Ok(true);
        };
        let every_s = i64::try_from(context.definition.schedule_seconds()?).unwrap_or(i64::MAX);
        let stretch = |at| stretch_of(at, &context.calendar.time_zone, every_s);
        Ok(stretch(last) != stretch(reading.source_now))
    }

    /// Whether a whole stretch of the schedule has passed since.
    fn is_over(&self, definition: &DatasetDefinition, since: jiff::Timestamp) -> Result<bool> {
        let every_s = i64::try_from(definition.schedule_seconds()?).unwrap_or(i64::MAX);
        Ok(has_passed(every_s, since, self.ports.clock.now()))
    }

    /// A whole table, if it differs from what was sent. Without a hash only the count tells, so
    /// the schedule decides as well.
    async fn run_table(
        &self,
        reading: &mut ExtractionSession<'_>,
        ask: &RunMode,
        report: &mut DatasetReport,
    ) -> Result<()> {
        let context = reading.context;
        let force = matches!(ask, RunMode::Extract { force: true, .. } | RunMode::Backfill { force: true, .. });
        self.switch_database(reading, reading.today).await?;
        let job = Job::whole(Unit::Table, reading.today);
        let found = self.query_fingerprints(reading, &job.days).await?;
        let said = found.get(&Unit::Table).cloned().unwrap_or_default();
        let known = self.journal.all_units(&context.store.config.id, context.name)?.remove(&Unit::Table);
        report.compared = 1;
        let why = match &known {
            _ if force => Some(Why::Forced),
            None => Some(Why::New),
            Some(row) if row.stale && row.tries < TRIES_MAX => Some(Why::Stale),
            Some(row) if row.fingerprint != said => Some(Why::Changed),
            Some(row) if row.is_of_another_definition(context.definition.version, &reading.digests.values) => {
                Some(Why::Definition)
            }
            Some(row) if said.hash.is_none() && self.is_over(&context.definition, row.extracted_at)? => {
                Some(Why::Changed)
            }
            Some(_) => None,
        };
        let Some(why) = why else { return Ok(()) };
        report.planned.push(PlannedUnit { unit: Unit::Table, why });
        if self.config.dry_run {
            return self.try_one_row(reading.today, reading).await;
        }
        if why == Why::Changed {
            self.found_differing(&context.store.config.id, context.name, &job.units).await?;
        }
        self.record_extraction(reading, &job, found, report).await
    }

    /// Extracts a snapshot or a table, which is refused as a whole.
    async fn record_extraction(
        &self,
        reading: &mut ExtractionSession<'_>,
        job: &Job,
        before: Fingerprints,
        report: &mut DatasetReport,
    ) -> Result<()> {
        match self.extract(reading, job, before).await? {
            Taken::Sent(extracted) => add_to(report, extracted),
            Taken::Refused(error) => Err(error),
        }
    }
}

/// The problem of a command for days of which no store has one.
fn without_days(datasets: &[DatasetReport]) -> Option<Problem> {
    let asked = || datasets.iter().filter(|one| one.has_days.is_some());
    let first = asked().next()?;
    let nothing = asked().all(|one| one.has_days == Some(false));
    nothing.then(|| no_day_left(first.left_out.first()))
}

/// Days were asked for, and none of them is a day to look at.
pub(crate) fn no_day_left(left_out: Option<&LeftOut>) -> Problem {
    let why = left_out.map_or("nothing", |left_out| match left_out.why {
        WhyLeftOut::BeforeOpened => "days before `opened`",
        WhyLeftOut::AfterClosed => "days after `closed`",
        WhyLeftOut::NotBegun => "days that have not begun by the source's clock",
    });
    // Kind `data`, because a retry would not repair it.
    let error = Error::data(format!("--from, --to: must have a day of the store's life, got {why} only"))
        .with_hint("ribera-agent config check, then correct --from and --to, or the store's `opened` and `closed`");
    Problem::new(Stage::Definition, &error)
}

pub(crate) fn add_to(report: &mut DatasetReport, extracted: Extracted) -> Result<()> {
    report.batches += 1;
    report.bytes += extracted.bytes;
    report.unproven.extend(extracted.unproven);
    report.tries += u64::from(extracted.tries);
    let mut all = Facts { rows: report.rows, sums: std::mem::take(&mut report.sums) };
    all.add(&extracted.facts)?;
    (report.rows, report.sums) = (all.rows, all.sums);
    Ok(())
}

/// Shows what source, agent and lake say of a unit.
pub(crate) fn audit_command(store: &StoreId, dataset: &DatasetName, unit: Unit) -> String {
    match unit.date() {
        Some(day) => format!("ribera-agent audit --stores {store} --datasets {dataset} --from {day} --to {day}"),
        None => "ribera-agent spool".to_owned(),
    }
}
