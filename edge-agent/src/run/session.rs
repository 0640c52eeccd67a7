//! A source's session in the middle of a dataset's work: its database, its transaction, its clock, and what it is
//! asked of days.

use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use ribera_storage::dataset::DatasetKind;
use ribera_storage::hex::hex;
use ribera_storage::{Error, ErrorKind, ObjectStore, Result, Unit};
use sha2::{Digest, Sha256};

use super::values_digest::values_digest;
use crate::agent::{Agent, DatasetContext};
use crate::calendar::Days;
use crate::config::Limits;
use crate::plan::Fingerprints;
use crate::plan::audit_window::AuditWindow;
use crate::ports::step;
use crate::source::{Answer, Session, connect_for_clock, fingerprints, timed_out};
use crate::sql::{Queries, Statement};

/// Until the object store's clock is known, a day is closed only this long after its end: the source's clock
/// may be ahead, and a day that was closed too early is sent again only while it is in the lookback window.
const UNMEASURED_MARGIN: SignedDuration = SignedDuration::from_hours(1);

/// A source's session in the middle of a dataset's work.
pub struct ExtractionSession<'a> {
    pub context: &'a DatasetContext<'a>,
    pub queries: Queries,
    pub session: Box<dyn Session>,
    /// Everything read now is of one moment.
    pub snapshot: bool,
    /// Counts the transactions: what was asked in another is of another moment.
    pub(crate) transaction: u64,
    transaction_begun_at: Timestamp,
    /// Nothing was asked in the transaction yet.
    is_fresh: bool,
    pub source_now: Timestamp,
    /// The earlier of the source's clock and the object store's, as far as known: days that are
    /// over by it are closed. The lake does not believe that a day ended after it was received.
    pub closing_now: Timestamp,
    pub today: Date,
    /// The agent's with the store's own.
    pub limits: Limits,
    /// Halved when the source is slow ...
    pub chunk_rows: u64,
    /// ... down to this.
    pub(crate) chunk_rows_min: u64,
    /// The days that the session's database holds.
    held: Days,
    /// How much an audit query asks.
    pub(crate) audit_window: AuditWindow,
    /// In a snapshot the audit asks for count and sums alone: of history, which nobody compares by its hash.
    pub(crate) counts_only: bool,
    pub(crate) digests: Digests,
    /// What a query took at most, the reading of its rows included.
    pub longest_query: Duration,
    /// A dry run has asked for its row.
    pub(crate) is_tried: bool,
    /// Whether odd rows of the session's database are in the report.
    pub(crate) is_counted: bool,
}

/// Digests of how a dataset is read.
#[derive(Debug, Clone)]
pub(crate) struct Digests {
    /// Of the mapping and the version of this program, which together decide what is refused.
    pub(crate) mapping: String,
    /// See [`values_digest`].
    pub(crate) values: String,
}

impl ExtractionSession<'_> {
    /// The days that the session's database holds.
    pub(crate) fn held(&self) -> &Days {
        &self.held
    }

    /// A new session with the same database.
    async fn connect(&mut self) -> Result<()> {
        // A day that it holds: the last one, or that before there was any end.
        let day = self.held.to.min(self.today).max(self.held.from);
        self.session = self.context.store.source.connect_for(day).await?;
        self.begin().await
    }

    /// A new transaction, and whether it holds what is read still. Procedures get none: they commit
    /// as they like, and what they gather in temporary tables is refused in a read-only one.
    async fn begin(&mut self) -> Result<()> {
        self.transaction += 1;
        self.is_fresh = true;
        let statements = self.queries.all().into_iter();
        let statements: Vec<Statement<'_>> =
            statements.map(|one| one.bind(self.today, self.today, &self.context.store.config.id)).collect();
        self.session.prepare(&statements).await?;
        self.snapshot = !self.queries.call_procedures() && self.session.begin().await?;
        let asked = [self.queries.extract.sql(), self.queries.audit.sql()];
        self.snapshot &= asked.into_iter().all(|sql| self.session.is_in_snapshot(sql));
        if let Some(rows) = self.session.rows_at_once_max() {
            // The till waits as long as a statement reads.
            self.audit_window = AuditWindow::careful();
            self.chunk_rows = self.chunk_rows.min(rows);
            self.chunk_rows_min = self.chunk_rows_min.min(rows);
        }
        Ok(())
    }

    /// The first of the days that one offset of the session's clock is right for, and the rest.
    fn of_one_clock(&self, days: Days) -> (Days, Option<Days>) {
        if !self.has_clocks() {
            return (days, None);
        }
        days.split_at_clock_change(&self.context.calendar.time_zone)
    }

    pub(crate) fn of_one_clock_each(&self, days: Days) -> Vec<Days> {
        let (mut pieces, mut left) = (Vec::new(), Some(days));
        while let Some((piece, rest)) = left.map(|days| self.of_one_clock(days)) {
            pieces.push(piece);
            left = rest;
        }
        pieces
    }

    /// Moments whose offsets from UTC the session's clock has to have for these days: one, unless the store's
    /// clock changes within the only day.
    pub(crate) fn clocks_of(&self, days: &Days) -> Vec<Timestamp> {
        let of_day = |day| Days::offsets_of_day(day, &self.context.calendar.time_zone);
        match self.has_clocks() {
            true if days.from == days.to => of_day(days.from),
            true => of_day(days.from).into_iter().take(1).collect(),
            false => vec![self.source_now],
        }
    }

    fn has_clocks(&self) -> bool {
        let is_daily = self.context.definition.kind == DatasetKind::Daily;
        is_daily && self.context.store.source.dialect().has_fixed_offsets()
    }

    /// For one query.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.limits.chunk_timeout_s)
    }

    /// What a query took.
    pub(crate) fn note_query(&mut self, begun_at: Timestamp, ended_at: Timestamp) -> Duration {
        self.is_fresh = false;
        self.snapshot &= self.session.is_transaction_open();
        let took = Duration::try_from(ended_at.duration_since(begun_at)).unwrap_or_default();
        self.longest_query = self.longest_query.max(took);
        took
    }
}

impl<S: ObjectStore> Agent<S> {
    /// Connects, asks the clock, begins a transaction.
    pub(crate) async fn begin_reading<'a>(&self, context: &'a DatasetContext<'a>) -> Result<ExtractionSession<'a>> {
        let queries = Queries::new(&context.definition, context.mapping, context.store.source.dialect())?;
        self.ports.fail_points.hit(step::SOURCE_QUERY)?;
        let zone = &context.calendar.time_zone;
        let day = self.ports.clock.now().to_zoned(zone.clone()).date();
        let (mut session, held) = connect_for_clock(context.store.source.as_ref(), day).await?;
        let source_now = session.now(zone).await?;
        self.note_source_clock(&context.store.config.id, source_now);
        let today = source_now.to_zoned(zone.clone()).date();
        let limits = context.store.config.limits.over(&self.config.limits);
        let (chunk_rows, chunk_rows_min) = limits.chunk_rows_of(context.mapping);
        let closing_now = match self.object_store_now() {
            Some(object_store_now) => object_store_now.min(source_now),
            None => source_now.checked_sub(UNMEASURED_MARGIN).unwrap_or(source_now),
        };
        let mut reading = ExtractionSession {
            context,
            queries,
            session,
            snapshot: false,
            transaction: 0,
            transaction_begun_at: self.ports.clock.now(),
            is_fresh: true,
            source_now,
            closing_now,
            today,
            limits,
            chunk_rows,
            chunk_rows_min,
            held,
            audit_window: AuditWindow::whole(),
            counts_only: false,
            digests: Digests {
                mapping: mapping_digest(context),
                values: values_digest(context, self.config.hash_salt.as_ref().map_or("", |salt| salt.expose())),
            },
            longest_query: Duration::ZERO,
            is_tried: false,
            is_counted: false,
        };
        reading.begin().await?;
        Ok(reading)
    }

    /// Goes on with the database that holds `day`, if it is another one.
    pub(crate) async fn switch_database(&self, reading: &mut ExtractionSession<'_>, day: Date) -> Result<()> {
        if reading.held.from <= day && day <= reading.held.to {
            return Ok(());
        }
        self.ports.fail_points.hit(step::SOURCE_QUERY)?;
        let source = reading.context.store.source.as_ref();
        let session = source.connect_for(day).await.map_err(|error| in_context(error, reading.context))?;
        // It only read: a transaction that cannot be ended changes nothing.
        let _ = reading.session.end().await;
        (reading.session, reading.held) = (session, source.span(day));
        reading.is_counted = false;
        reading.begin().await
    }

    /// What the source says of the days now.
    ///
    /// # Errors
    /// Data: it cannot say it of one of them.
    pub(crate) async fn query_fingerprints(
        &self,
        reading: &mut ExtractionSession<'_>,
        days: &Days,
    ) -> Result<Fingerprints> {
        let Answer { found, mut refused } = self.query_fingerprints_of_each(reading, days).await?;
        match refused.pop_first() {
            None => Ok(found),
            Some((_, error)) => Err(in_context(error, reading.context)),
        }
    }

    /// What the source says of the days now, and of which it cannot say it, asked in pieces: see [`AuditWindow`]. A
    /// query that takes too long, or fails at a value, is asked in halves, down to one day.
    pub(crate) async fn query_fingerprints_of_each(
        &self,
        reading: &mut ExtractionSession<'_>,
        days: &Days,
    ) -> Result<Answer> {
        let timeout = reading.timeout();
        let context = reading.context;
        let mut all = Answer::default();
        let mut left = vec![days.clone()];
        while let Some(days) = left.pop() {
            let (piece, rest) = days.split_after(reading.audit_window.days());
            left.extend(rest);
            let (piece, rest) = reading.of_one_clock(piece);
            left.extend(rest);
            let count = piece.iter().count() as u32;
            self.ports.fail_points.hit(step::SOURCE_QUERY)?;
            // Without a snapshot the hash stays: it tells whether rows changed meanwhile.
            let counts = reading.counts_only && reading.snapshot;
            let audit = if counts { reading.queries.counted() } else { &reading.queries.audit };
            let statement = audit.bind(piece.from, piece.to, &context.store.config.id);
            let begun_at = self.ports.clock.now();
            let (clocks, zone) = (reading.clocks_of(&piece), &context.calendar.time_zone);
            let asked = fingerprints(
                reading.session.as_mut(),
                &statement,
                &context.definition,
                context.mapping,
                timeout,
                zone,
                &clocks,
            )
            .await;
            let took = reading.note_query(begun_at, self.ports.clock.now());
            let by_day = context.definition.kind == DatasetKind::Daily;
            let asked = match asked {
                Ok(asked) => Ok(asked),
                Err(error) => Err(self.named(reading, &piece, error).await),
            };
            match asked {
                Ok(Some(answer)) => {
                    refuse_other_days(&answer, &piece, context)?;
                    reading.audit_window.answered(count, took);
                    all.found.extend(answer.found);
                    for (unit, error) in answer.refused {
                        let of_unit = unit.date().map_or_else(|| piece.clone(), |day| Days { from: day, to: day });
                        all.refused.insert(unit, self.named(reading, &of_unit, error).await);
                    }
                }
                Ok(None) if count > 1 && by_day => {
                    reading.audit_window.timed_out(count);
                    self.reconnect(reading).await?;
                    left.push(piece);
                }
                Ok(None) => return Err(timed_out(&format!("audit of {}", context.name), timeout)),
                Err(error) if error.kind() == ErrorKind::Data && by_day => {
                    self.reconnect(reading).await?;
                    let (first, rest) = piece.split_after(count / 2);
                    match rest {
                        Some(rest) if count > 1 => left.extend([rest, first]),
                        _ => drop(all.refused.insert(Unit::Day(piece.from), error)),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// A new transaction in place of one that has lasted: what it holds still, the source has to keep for it.
    pub(crate) async fn renew(&self, reading: &mut ExtractionSession<'_>, after: SignedDuration) -> Result<()> {
        let now = self.ports.clock.now();
        if reading.is_fresh || now.duration_since(reading.transaction_begun_at) < after {
            return Ok(());
        }
        // It only read: a transaction that cannot be ended changes nothing, and its session is given up.
        match reading.session.end().await {
            Ok(()) => reading.begin().await?,
            Err(_) => reading.connect().await?,
        }
        reading.transaction_begun_at = now;
        Ok(())
    }

    /// A new transaction, and what the source says in it.
    pub(crate) async fn begin_again(&self, reading: &mut ExtractionSession<'_>, days: &Days) -> Result<Fingerprints> {
        reading.session.end().await?;
        reading.begin().await?;
        self.query_fingerprints(reading, days).await
    }

    /// Waits for the hours in which a backfill may read, and begins a new session then: none stays
    /// open in the meantime.
    pub(crate) async fn wait_for_hours(&self, reading: &mut ExtractionSession<'_>) -> Result<()> {
        let Some(hours) = reading.limits.backfill_hours else { return Ok(()) };
        let zone = &reading.context.calendar.time_zone;
        let now = self.ports.clock.now().to_zoned(zone.clone());
        let wait = hours.next(now.datetime()).duration_since(now.datetime());
        let Ok(wait) = Duration::try_from(wait) else { return Ok(()) };
        if wait.is_zero() {
            return Ok(());
        }
        self.log(format!("dataset {}: the backfill goes on in {} min", reading.context.name, wait.as_secs() / 60));
        let _ = reading.session.end().await;
        self.wait_beside_daily_work(reading, wait).await;
        reading.connect().await
    }

    /// A new session in place of one whose query was ended. What was asked before belongs to
    /// another moment, so the audit has to be repeated after the extraction.
    pub(crate) async fn reconnect(&self, reading: &mut ExtractionSession<'_>) -> Result<()> {
        reading.connect().await?;
        reading.snapshot = false;
        Ok(())
    }
}

fn mapping_digest(context: &DatasetContext<'_>) -> String {
    let text = format!("{} {:?}", env!("CARGO_PKG_VERSION"), context.mapping);
    hex(&Sha256::digest(text.as_bytes()))
}

/// Says whose rows an error is about, unless it does so itself.
pub(crate) fn in_context(error: Error, context: &DatasetContext<'_>) -> Error {
    let place = format!("store {}, dataset {}", context.store.config.id, context.name);
    if error.message().starts_with(&place) { error } else { error.context(place) }
}

/// Rows of a day that was not asked for have been in no answer about it.
fn refuse_other_days(answer: &Answer, asked: &Days, context: &DatasetContext<'_>) -> Result<()> {
    let other = answer
        .found
        .keys()
        .chain(answer.refused.keys())
        .filter_map(|unit| unit.date())
        .find(|day| !(asked.from..=asked.to).contains(day));
    match other {
        None => Ok(()),
        Some(day) => Err(in_context(
            Error::config(format!(
                "adapter: {}.range: must select the days from {} to {} and no other, got rows of {day}",
                context.name, asked.from, asked.to
            )),
            context,
        )),
    }
}
