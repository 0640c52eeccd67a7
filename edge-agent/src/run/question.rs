//! Whether a mapping asks the right question. Extraction and audit share the predicate of the days, so an
//! error in it agrees with itself: a day without its rows would be proven. What is asked here does without
//! the predicate, and compares a window with one day of it.

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use ribera_storage::dataset::DatasetKind;
use ribera_storage::hex::hex;
use ribera_storage::{Error, ObjectStore, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::agent::{Agent, DatasetContext};
use crate::calendar::Days;
use crate::ports::step;
use crate::run::session::ExtractionSession;
use crate::source::{Outcome, Rows, Value};
use crate::sql::{QuestionSql, Template};

/// The question is proven again after this time: rows with dates of another form may have come in since.
const GOOD_FOR_S: i64 = 7 * 24 * 3600;
/// Comparisons in a source that may change between two questions.
const TRIES: u32 = 3;

/// What a mapping's table holds, asked without the predicate of the days.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Proven {
    /// Digest of the SQL and the source.
    digest: String,
    asked_at: Timestamp,
    /// Rows that count, whatever their date; `None` if they were too many to count in time.
    pub rows: Option<u64>,
    /// Rows among these without a business date: they are in no day.
    #[serde(default)]
    pub undated: u64,
    /// Rows among these of days that have not begun: they are sent when the days come.
    #[serde(default)]
    pub future: u64,
    pub first: Option<Date>,
    pub last: Option<Date>,
}

impl<S: ObjectStore> Agent<S> {
    /// Proves the question of the session's database, unless that was done lately. Gives what is known of
    /// the table; nothing of a dataset without days.
    ///
    /// # Errors
    /// Config: the mapping's date is no day, or its range does not select whole days.
    pub(crate) async fn prove_question(&self, reading: &mut ExtractionSession<'_>) -> Result<Option<Proven>> {
        if reading.context.definition.kind != DatasetKind::Daily {
            return Ok(None);
        }
        let (key, digest) = (key(reading), digest(reading));
        let now = self.ports.clock.now();
        let known = self.journal.noted(&key)?.and_then(|text| serde_json::from_str::<Proven>(&text).ok());
        let still_good = |proven: &Proven| {
            let age_s = now.duration_since(proven.asked_at).as_secs();
            proven.digest == digest && (0..GOOD_FOR_S).contains(&age_s)
        };
        if let Some(known) = known.filter(still_good) {
            return Ok(Some(known));
        }
        let (proven, conclusive) = self.ask_the_question(reading).await?;
        let proven = Proven { digest, asked_at: now, ..proven };
        // An empty table proves nothing of what will be in it.
        if !self.config.dry_run && conclusive && proven.last.is_some() {
            let text = serde_json::to_string(&proven)
                .map_err(|error| Error::bug("a proven question does not serialise").with_source(error))?;
            self.journal.note(&key, Some(&text))?;
        }
        Ok(Some(proven))
    }

    /// As [`Agent::prove_question`], whatever was proven before. False: the table changed with each question, or
    /// takes too long to count, so that nothing speaks against the mapping and nothing for it.
    pub(crate) async fn ask_the_question(&self, reading: &mut ExtractionSession<'_>) -> Result<(Proven, bool)> {
        self.refuse_days_of_another_zone(reading).await?;
        let mut proven = Proven::default();
        let (mut day, mut conclusive) = (None, true);
        if let Some(question) = reading.queries.question.clone() {
            let Some(total) = self.total(reading, &question).await? else {
                self.log(format!("dataset {}: its rows are too many to be counted in time", reading.context.name));
                return Ok((proven, false));
            };
            if total.rows == 0 {
                self.refuse_empty_filter(reading, &question).await?;
                return Ok((Proven { rows: Some(0), ..proven }, true));
            }
            let (first, last) = total.days(reading.context)?;
            proven = Proven {
                rows: Some(total.rows),
                undated: total.rows - total.days,
                first: Some(first),
                last: Some(last),
                ..proven
            };
            conclusive = self.compare_count(reading, &question, total.days, (first, last)).await?;
            proven.future = self.future_rows(reading, &question, last).await?;
            day = Some(last);
        }
        if let Some(day) = self.last_day_with_rows(reading, day).await? {
            proven.last = proven.last.or(Some(day));
            conclusive &= self.compare_day(reading, day, day == proven.last.unwrap_or(day)).await?;
        }
        Ok((proven, conclusive))
    }

    /// Whether a window has the rows of its days when they are asked one by one. False: they change with each
    /// question, or take too long.
    ///
    /// # Errors
    /// Config: it has not, and the days did not change in between.
    pub(crate) async fn compare_day(
        &self,
        reading: &mut ExtractionSession<'_>,
        day: Date,
        must_have_rows: bool,
    ) -> Result<bool> {
        let around = Days {
            from: day.yesterday().unwrap_or(day).max(reading.held().from),
            to: day.tomorrow().unwrap_or(day).min(reading.held().to),
        };
        for _ in 0..TRIES {
            let Some(before) = self.rows_of(reading, &around).await? else { return Ok(false) };
            let (mut one_by_one, mut alone) = (0, 0);
            for one in around.iter() {
                let days = Days { from: one, to: one };
                let Some(rows) = self.rows_of(reading, &days).await? else { return Ok(false) };
                one_by_one += rows;
                alone += if one == day { rows } else { 0 };
            }
            // A snapshot is no reason to do without: not every table of a session is in it.
            let Some(after) = self.rows_of(reading, &around).await? else { return Ok(false) };
            if before != after {
                continue;
            }
            if one_by_one != after {
                let Days { from, to } = around;
                return Err(whole_days(
                    reading.context,
                    &format!("from {from} to {to} there are {after} rows in one answer and {one_by_one} day by day"),
                ));
            }
            if must_have_rows && alone == 0 {
                return Err(whole_days(reading.context, &format!("{day} has rows, and none when it is asked alone")));
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// The rows that the predicate of some days selects: counted, so that no value among them is in the way.
    async fn rows_of(&self, reading: &mut ExtractionSession<'_>, days: &Days) -> Result<Option<u64>> {
        if let Some(question) = reading.queries.question.clone() {
            return self.count(reading, &question.within, days).await;
        }
        let answer = self.query_fingerprints_of_each(reading, days).await?;
        let rows = answer.found.values().map(|found| found.facts.rows).sum();
        Ok(answer.refused.is_empty().then_some(rows))
    }

    /// The counts over the whole table. `None`: they take too long.
    async fn total(&self, reading: &mut ExtractionSession<'_>, question: &QuestionSql) -> Result<Option<Total>> {
        let today = reading.today;
        let mut total = Total::default();
        let done = self.ask_one_row(reading, &question.total, &Days { from: today, to: today }, &mut total).await?;
        Ok(done.then_some(total))
    }

    /// Whether the predicate selects as many rows from the first to the last day as there are without it. False:
    /// the table changes with each question, or takes too long.
    async fn compare_count(
        &self,
        reading: &mut ExtractionSession<'_>,
        question: &QuestionSql,
        expected: u64,
        (first, last): (Date, Date),
    ) -> Result<bool> {
        let mut expected = expected;
        for _ in 0..TRIES {
            let within = self.count(reading, &question.within, &Days { from: first, to: last }).await?;
            let Some(within) = within.filter(|within| *within != expected) else { return Ok(within.is_some()) };
            let Some(again) = self.total(reading, question).await?.map(|total| total.days) else { return Ok(false) };
            if again == expected {
                return Err(whole_days(
                    reading.context,
                    &format!(
                        "the table has {expected} rows from {first} to {last}, and the predicate selects {within}"
                    ),
                ));
            }
            expected = again;
        }
        Ok(false)
    }

    /// Rows of days that have not begun.
    async fn future_rows(
        &self,
        reading: &mut ExtractionSession<'_>,
        question: &QuestionSql,
        last: Date,
    ) -> Result<u64> {
        match reading.today.tomorrow() {
            Ok(tomorrow) if tomorrow <= last => {
                Ok(self.count(reading, &question.within, &Days { from: tomorrow, to: last }).await?.unwrap_or(0))
            }
            _ => Ok(0),
        }
    }

    /// A WHERE that lets no row of a table with rows pass would prove empty days only.
    async fn refuse_empty_filter(&self, reading: &mut ExtractionSession<'_>, question: &QuestionSql) -> Result<()> {
        let Some(unfiltered) = &question.unfiltered else { return Ok(()) };
        let today = reading.today;
        match self.count(reading, unfiltered, &Days { from: today, to: today }).await? {
            None | Some(0) => Ok(()),
            Some(rows) => Err(Error::config(format!(
                "adapter: {}.where: must let some rows pass, got none of {rows}: its days would be proven empty. \
                 A store that has not sold yet can be left out until it does",
                reading.context.name
            ))
            .with_hint(check_command(reading.context))),
        }
    }

    async fn count(
        &self,
        reading: &mut ExtractionSession<'_>,
        template: &Template,
        days: &Days,
    ) -> Result<Option<u64>> {
        let mut total = Total::default();
        Ok(self.ask_one_row(reading, template, days, &mut total).await?.then_some(total.rows))
    }

    /// False: it took too long, and the session is a new one.
    async fn ask_one_row(
        &self,
        reading: &mut ExtractionSession<'_>,
        template: &Template,
        days: &Days,
        total: &mut Total,
    ) -> Result<bool> {
        self.ports.fail_points.hit(step::SOURCE_QUERY)?;
        let statement = template.bind(days.from, days.to, &reading.context.store.config.id);
        let timeout = reading.timeout();
        let begun_at = self.ports.clock.now();
        // One clock for all: that of today. By another the same rows may lie in other days.
        reading.session.enter_zone(&reading.context.calendar.time_zone, reading.source_now).await?;
        let outcome = reading.session.query(&statement, total, timeout).await;
        reading.note_query(begun_at, self.ports.clock.now());
        let done = outcome? == Outcome::Done;
        if !done {
            self.reconnect(reading).await?;
        }
        Ok(done)
    }

    /// A day that can be compared: the last one, if it is over; else the last of the window that has rows.
    async fn last_day_with_rows(
        &self,
        reading: &mut ExtractionSession<'_>,
        last: Option<Date>,
    ) -> Result<Option<Date>> {
        let held = reading.held().clone();
        let lies_here = |day: &Date| (held.from..=held.to).contains(day);
        if let Some(last) = last.filter(|last| *last < reading.today || reading.snapshot) {
            return Ok(Some(last).filter(lies_here));
        }
        let back = i64::from(reading.context.definition.lookback_days).days();
        let from = reading.today.checked_sub(back).unwrap_or(reading.today).max(held.from);
        let to = reading.today.min(held.to);
        if from > to {
            return Ok(last.filter(lies_here));
        }
        let found = self.query_fingerprints_of_each(reading, &Days { from, to }).await?;
        let days = || found.found.keys().filter_map(|unit| unit.date());
        let over = days().filter(|day| *day < reading.today).max();
        Ok(over.or_else(|| days().max()).or(last).filter(lies_here))
    }
}

fn key(reading: &ExtractionSession<'_>) -> String {
    let context = reading.context;
    format!("question/{}/{}/{}", context.store.config.id, context.name, reading.held().from)
}

/// Digest of everything that the proof depends on.
fn digest(reading: &ExtractionSession<'_>) -> String {
    let context = reading.context;
    let mut hasher = Sha256::new();
    let place = context.store.source.describe();
    let zone = context.calendar.time_zone.iana_name().unwrap_or_default().to_owned();
    for text in [place.as_str(), &zone, reading.queries.extract.sql(), reading.queries.audit.sql()] {
        hasher.update(text.as_bytes());
        hasher.update([0]);
    }
    hex(&hasher.finalize())
}

fn check_command(context: &DatasetContext<'_>) -> String {
    format!("ribera-agent check --stores {} --datasets {}", context.store.config.id, context.name)
}

/// The error of a predicate that loses rows.
fn whole_days(context: &DatasetContext<'_>, what: &str) -> Error {
    let rule = match (&context.mapping.range, &context.mapping.from) {
        (Some(range), Some(_)) => format!(
            "range: must select whole days, from the first moment of :from to the last of :to (with moments: \
             `column >= :from AND column < :after`), got {range:?}"
        ),
        (None, Some(_)) => format!(
            "date: must compare as a day with :from and :to, got {:?}",
            context.mapping.date.as_deref().unwrap_or_default()
        ),
        (_, None) => "extract and audit: must select whole days, from the first moment of :from to the last of :to \
                      (with moments: `column >= :from AND column < :after`)"
            .to_owned(),
    };
    Error::config(format!("adapter: {}.{rule}: {what}", context.name)).with_hint(check_command(context))
}

/// The answer to [`QuestionSql::total`], or a count alone.
#[derive(Debug, Default)]
struct Total {
    rows: u64,
    /// Rows with a business date of any form.
    given: u64,
    /// Rows whose date is a day.
    days: u64,
    first: Option<String>,
    last: Option<String>,
    /// A date that is no day.
    stray: Option<String>,
}

impl Total {
    /// The first and the last day.
    fn days(&self, context: &DatasetContext<'_>) -> Result<(Date, Date)> {
        let date = context.mapping.date.as_deref().unwrap_or_default();
        if self.days < self.given {
            let stray = self.stray.as_deref().unwrap_or("something else");
            return Err(Error::config(format!(
                "adapter: {}.date: must be a day of the calendar, a date or text such as 2017-05-08, in every row; got {stray:?} \
                 and the like in {} of {} rows, of {date:?}. Convert it in `date`, or leave such rows out by `where`",
                context.name,
                self.given - self.days,
                self.rows
            ))
            .with_hint(check_command(context)));
        }
        let day = |text: &Option<String>| text.as_deref().and_then(|text| text.get(..10)?.parse().ok());
        match (day(&self.first), day(&self.last)) {
            (Some(first), Some(last)) => Ok((first, last)),
            _ => Err(Error::config(format!(
                "adapter: {}.date: must give a day, got NULL in all {} rows, of {date:?}",
                context.name, self.rows
            ))
            .with_hint(check_command(context))),
        }
    }
}

impl Rows for Total {
    fn begin(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, index: usize, value: Value<'_>) {
        let text = || match value {
            Value::Null => None,
            Value::Text(text) => Some(text.to_owned()),
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            other => Some(other.to_string()),
        };
        let count = || crate::source::count_of(value).unwrap_or_default();
        match index {
            0 => self.rows = count(),
            1 => self.given = count(),
            2 => self.days = count(),
            3 => self.first = text(),
            4 => self.last = text(),
            _ => self.stray = text(),
        }
    }

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}
