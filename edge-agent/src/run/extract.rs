//! One batch: audit, extract, compare, spool, journal.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use ribera_storage::batch::{AgentFacts, CONTRACT_VERSION, Facts, FileFacts, Manifest, UnitFacts};
use ribera_storage::dataset::DatasetKind;
use ribera_storage::ids::Position;
use ribera_storage::{BatchId, Error, ErrorKind, Month, ObjectStore, Result, Unit};

use crate::agent::Agent;
use crate::calendar::Days;
use crate::encode::batch_file::{BatchFile, Spooled};
use crate::encode::{Sink, SinkContext};
use crate::journal::NewBatch;
use crate::plan::{Fingerprint, Fingerprints, chunks, has_left, is_closed};
use crate::ports::step;
use crate::run::session::{ExtractionSession, in_context};
use crate::source::{Outcome, timed_out};

/// Below so many bytes left no batch is begun.
const SPOOL_BYTES_NEEDED: u64 = 64 << 10;

/// What came of the rows of a job.
#[derive(Debug)]
pub(crate) enum Taken {
    /// They are a batch in the spool.
    Sent(Extracted),
    /// A value of theirs does not fit: no batch was made.
    Refused(Error),
}

/// What one batch is to hold.
#[derive(Debug, Clone)]
pub struct Job {
    pub units: Vec<Unit>,
    /// The days that the queries are asked for.
    pub days: Days,
    /// The business date of a snapshot.
    pub snapshot_date: Option<Date>,
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    pub rows: u64,
    pub bytes: u64,
    pub unproven: Vec<Unit>,
    /// Count and sums of all its units.
    pub facts: Facts,
    /// Extractions that it took.
    pub tries: u32,
}

struct Attempt {
    facts: BTreeMap<Unit, Facts>,
    /// Per unit: what the source said before; the audit if it said the same after.
    audits: BTreeMap<Unit, (Fingerprint, Option<Facts>)>,
    started_at: Timestamp,
    finished_at: Timestamp,
}

impl Attempt {
    fn is_proven(&self, unit: &Unit) -> bool {
        let audit = self.audits.get(unit).and_then(|(_, audit)| audit.as_ref());
        audit.is_some_and(|audit| self.facts.get(unit).is_some_and(|facts| audit.agrees_with(facts)))
    }
}

impl<S: ObjectStore> Agent<S> {
    /// Extracts a batch into spool and journal. `before` is what the source said in the running
    /// transaction. A source that does not hold still is tried again; then the units concerned
    /// are sent as not proven.
    pub(crate) async fn extract(
        &self,
        reading: &mut ExtractionSession<'_>,
        job: &Job,
        before: Fingerprints,
    ) -> Result<Taken> {
        let context = reading.context;
        let (store, name) = (&context.store.config.id, context.name);
        self.progress.batch_begins(store, name, expected_rows(job, &before));
        let mut before = before;
        let mut tries = 1;
        loop {
            let (attempt, file) = match self.attempt(reading, job, &before).await {
                Err(error) if error.kind() == ErrorKind::Data => return Ok(Taken::Refused(error)),
                attempted => attempted?,
            };
            let proven = job.units.iter().all(|unit| attempt.is_proven(unit));
            if !proven && tries < reading.limits.audit_tries {
                file.abandon();
                let differs = job.units.iter().find(|unit| !attempt.is_proven(unit)).and_then(|unit| unit.date());
                if let Some(day) = differs.filter(|_| job.snapshot_date.is_none()) {
                    // A predicate that selects no whole days differs for ever, or agrees on too little.
                    self.compare_day(reading, day, false).await.map_err(|error| in_context(error, context))?;
                }
                tries += 1;
                self.log(format!("store {store}, dataset {name}: audit and file differ, try {tries}"));
                before = match self.begin_again(reading, &job.days).await {
                    Err(error) if error.kind() == ErrorKind::Data => return Ok(Taken::Refused(error)),
                    found => found?,
                };
                continue;
            }
            let extracted = Extracted { tries, ..self.write_to_spool(reading, job, attempt, file)? };
            self.progress.batch_done(store, name, extracted.rows);
            return Ok(Taken::Sent(extracted));
        }
    }

    /// Rows into a file, halving the queries while the source is too slow.
    async fn attempt<'s>(
        &'s self,
        reading: &mut ExtractionSession<'_>,
        job: &Job,
        before: &Fingerprints,
    ) -> Result<(Attempt, BatchFile<'s>)> {
        let started_at = self.ports.clock.now();
        let (facts, file) = loop {
            let file = self.create_file(reading, expected_rows(job, before))?;
            let mut sink = Sink::new(sink_context(reading, job, self)?, Some(file))?;
            match self.fill(reading, job, before, &mut sink).await {
                Ok(Outcome::Done) => {
                    let (facts, file) = sink.finish()?;
                    break (facts, file.ok_or_else(|| Error::bug("a sink lost its file"))?);
                }
                Ok(Outcome::TimedOut) => {
                    sink.abandon();
                    self.halve(reading, &job.days)?;
                    self.reconnect(reading).await?;
                }
                Err(error) => {
                    sink.abandon();
                    return Err(self.named(reading, &job.days, error).await);
                }
            }
        };
        let after = if reading.snapshot { None } else { Some(self.query_fingerprints(reading, &job.days).await?) };
        let audits = job.units.iter().map(|unit| (*unit, audit_of(*unit, before, after.as_ref()))).collect();
        Ok((Attempt { facts, audits, started_at, finished_at: self.ports.clock.now() }, file))
    }

    /// Runs the extraction queries of a job into `sink`.
    async fn fill(
        &self,
        reading: &mut ExtractionSession<'_>,
        job: &Job,
        before: &Fingerprints,
        sink: &mut Sink<'_, '_>,
    ) -> Result<Outcome> {
        let timeout = reading.timeout();
        let pause = Duration::from_millis(reading.limits.chunk_pause_ms);
        let daily = reading.context.definition.kind == DatasetKind::Daily;
        let pieces = if daily { chunks(&job.days, before, reading.chunk_rows) } else { vec![job.days.clone()] };
        let pieces = pieces.into_iter().flat_map(|days| reading.of_one_clock_each(days)).collect::<Vec<_>>();
        for (index, days) in pieces.iter().enumerate() {
            if index > 0 && !pause.is_zero() {
                self.ports.timer.sleep(pause).await;
            }
            self.ports.fail_points.hit(step::SOURCE_QUERY)?;
            let statement = reading.queries.extract.bind(days.from, days.to, &reading.context.store.config.id);
            let begun_at = self.ports.clock.now();
            let at = reading.clocks_of(days).first().copied().unwrap_or(reading.source_now);
            reading.session.enter_zone(&reading.context.calendar.time_zone, at).await?;
            let outcome = reading.session.query(&statement, sink, timeout).await;
            reading.note_query(begun_at, self.ports.clock.now());
            if outcome? == Outcome::TimedOut {
                return Ok(Outcome::TimedOut);
            }
        }
        Ok(Outcome::Done)
    }

    fn halve(&self, reading: &mut ExtractionSession<'_>, days: &Days) -> Result<()> {
        let name = reading.context.name;
        reading.chunk_rows /= 2;
        if reading.chunk_rows < reading.chunk_rows_min || days.from == days.to {
            return Err(timed_out(&format!("extraction of {name}"), reading.timeout()));
        }
        self.log(format!("dataset {name}: a query took too long, now {} rows each", reading.chunk_rows));
        Ok(())
    }

    fn create_file<'s>(&'s self, reading: &ExtractionSession<'_>, rows: u64) -> Result<BatchFile<'s>> {
        let context = reading.context;
        let used = self.journal.spool_use(None)?.bytes;
        let left = self.config.limits.spool_bytes_max.saturating_sub(used);
        if left < SPOOL_BYTES_NEEDED {
            return Err(Error::config(format!(
                "limits.spool_bytes_max: the spool is full: {used} of {} bytes wait for upload; no new day is extracted until there is room",
                self.config.limits.spool_bytes_max
            ))
            .with_hint("ribera-agent spool"));
        }
        // Stores read at the same time share what is left.
        let sharing = self.config.limits.workers.min(self.stores.len()).max(1) as u64;
        let name =
            format!("{}-{}-{:016x}.parquet", context.name, context.store.config.id, self.ports.random.next_u64());
        let schema = context.definition.arrow_schema();
        BatchFile::create(self.ports.disk.as_ref(), self.ports.fail_points.as_ref(), schema, name, left / sharing, rows)
    }

    /// Finishes the file and records the batch.
    fn write_to_spool(
        &self,
        reading: &ExtractionSession<'_>,
        job: &Job,
        attempt: Attempt,
        file: BatchFile<'_>,
    ) -> Result<Extracted> {
        let manifest = self.draft(reading, job, &attempt)?;
        let units = serde_json::to_string(&manifest.units)
            .map_err(|error| Error::bug("unit facts do not serialise").with_source(error))?;
        let spooled = file.finish(&[
            ("ribera.contract", CONTRACT_VERSION.to_string()),
            ("ribera.store", manifest.batch.store.to_string()),
            ("ribera.dataset", manifest.batch.dataset.to_string()),
            ("ribera.dataset_version", manifest.dataset_version.to_string()),
            ("ribera.journal_id", manifest.agent.journal_id.clone()),
            ("ribera.agent_version", manifest.agent.version.clone()),
            ("ribera.units", units),
        ])?;
        let unproven = job.units.iter().filter(|unit| !attempt.is_proven(unit)).copied().collect();
        let (rows, bytes) = (spooled.rows, spooled.bytes);
        let mut facts = Facts::default();
        for unit in attempt.facts.values() {
            facts.add(unit)?;
        }
        let batch = new_batch(reading, manifest, attempt, spooled);
        let (_, replaced) = self.journal.add_batch(&batch, self.ports.clock.now()).inspect_err(|_| {
            // The batch does not exist; neither shall its file, unless the program is dying.
            let _ = self.prune(&batch.file);
        })?;
        for file in replaced {
            self.prune(&file)?;
        }
        Ok(Extracted { rows, bytes, unproven, facts, tries: 1 })
    }

    /// The manifest but for its number and the file.
    fn draft(&self, reading: &ExtractionSession<'_>, job: &Job, attempt: &Attempt) -> Result<Manifest> {
        let context = reading.context;
        let definition = &context.definition;
        let units = job.units.iter().map(|unit| UnitFacts {
            unit: *unit,
            file: attempt.facts.get(unit).cloned().unwrap_or_default(),
            audit: attempt.audits.get(unit).and_then(|(_, audit)| audit.clone()),
            closed: match unit {
                Unit::Day(day) => is_closed(definition, *day, reading.closing_now, &context.calendar.time_zone),
                Unit::Moment(_) | Unit::Table => true,
            },
            extracted_at: attempt.finished_at,
        });
        Ok(Manifest {
            contract: CONTRACT_VERSION,
            batch: BatchId {
                store: context.store.config.id.clone(),
                dataset: context.name.clone(),
                position: Position { epoch: 0, sequence: 0 },
            },
            dataset_version: definition.version,
            month: job.units.first().and_then(|unit| unit.date()).map(Month::of),
            file: FileFacts { path: String::new(), bytes: 0, sha256: String::new(), rows: 0 },
            units: units.collect(),
            agent: AgentFacts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                journal_id: self.journal.id().to_owned(),
                extraction_started_at: attempt.started_at,
                extraction_finished_at: attempt.finished_at,
            },
        })
    }
}

impl Job {
    pub fn days(days: &Days) -> Self {
        Self { units: days.iter().map(Unit::Day).collect(), days: days.clone(), snapshot_date: None }
    }

    /// What the dataset has of these days: the days, the moment that it is, or the table.
    pub(crate) fn of(reading: &ExtractionSession<'_>, days: &Days) -> Self {
        match reading.context.definition.kind {
            DatasetKind::Daily => Self::days(days),
            DatasetKind::Snapshot => Self::whole(Unit::Moment(reading.source_now), reading.today),
            DatasetKind::Dimension => Self::whole(Unit::Table, reading.today),
        }
    }

    /// A snapshot's moment or a dimension's table.
    pub fn whole(unit: Unit, today: Date) -> Self {
        let snapshot_date = matches!(unit, Unit::Moment(_)).then_some(today);
        Self { units: vec![unit], days: Days { from: today, to: today }, snapshot_date }
    }
}

pub(crate) fn sink_context<'a, S>(
    reading: &ExtractionSession<'a>,
    job: &Job,
    agent: &Agent<S>,
) -> Result<SinkContext<'a>> {
    let context = reading.context;
    let salt = agent.config.hash_salt.as_ref().map(|salt| salt.expose()).unwrap_or_default();
    Ok(SinkContext {
        definition: &context.definition,
        mapping: context.mapping,
        store: &context.store.config.id,
        zone: context.calendar.zone.clone(),
        salt: salt.into(),
        units: job.units.clone(),
        snapshot_date: job.snapshot_date,
    })
}

/// What the source said of a unit before, and the audit if it still said so after.
fn audit_of(unit: Unit, before: &Fingerprints, after: Option<&Fingerprints>) -> (Fingerprint, Option<Facts>) {
    // The answer for a moment or a table stands under the table.
    let of = |found: &Fingerprints| {
        let key = if matches!(unit, Unit::Day(_)) { unit } else { Unit::Table };
        found.get(&key).cloned().unwrap_or_default()
    };
    let said = of(before);
    let held_still = after.is_none_or(|after| of(after) == said);
    let audit = held_still.then(|| said.facts.clone());
    (said, audit)
}

fn expected_rows(job: &Job, found: &Fingerprints) -> u64 {
    job.units.iter().map(|unit| audit_of(*unit, found, None).0.facts.rows).sum()
}

fn new_batch(reading: &ExtractionSession<'_>, mut manifest: Manifest, attempt: Attempt, spooled: Spooled) -> NewBatch {
    let definition = &reading.context.definition;
    let fingerprints = attempt
        .audits
        .into_iter()
        .map(|(unit, (fingerprint, _))| {
            let is_final = match unit {
                Unit::Day(day) => has_left(definition, day, reading.today),
                Unit::Moment(_) | Unit::Table => true,
            };
            (unit, (fingerprint, is_final))
        })
        .collect();
    let Spooled { name, bytes, sha256, rows } = spooled;
    manifest.file = FileFacts { path: String::new(), bytes, sha256, rows };
    NewBatch { file: name, bytes, manifest, fingerprints, values_digest: reading.digests.values.clone() }
}

/// The day before, for windows; the same day at the calendar's beginning.
pub(crate) fn day_before(day: Date) -> Date {
    day.checked_sub(1.day()).unwrap_or(day)
}
