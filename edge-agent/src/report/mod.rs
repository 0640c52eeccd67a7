//! What a run did: printed for people, or as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use ribera_storage::heartbeat::Trouble;
use ribera_storage::{DatasetName, Error, ErrorKind, ExactDecimal, StoreId, Unit};
use serde::Serialize;

use crate::journal::StoreAlarm;
use crate::plan::{LeftOut, Why};
use crate::system;

pub mod logbook;
pub mod logfile;

/// How a run ended, the worst last, which of several wins. `docs/agent.md` documents the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Done,
    /// Stores that could not be reached were left out of a backfill; the rest was done. Hides nothing else.
    Unreachable,
    Failed,
    Config,
    Source,
    ObjectStore,
    Spool,
    Unproven,
    Locked,
    Journal,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Config => 2,
            Self::Source => 3,
            Self::ObjectStore => 4,
            Self::Spool => 5,
            Self::Unproven => 6,
            Self::Locked => 7,
            Self::Journal => 8,
            Self::Unreachable => 9,
        }
    }
}

impl Exit {
    /// The command for a problem whose error names none.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::Done | Self::Failed => "RIBERA_LOG=debug ribera-agent once",
            Self::Config => "ribera-agent config check",
            Self::Source | Self::ObjectStore => "ribera-agent check",
            Self::Spool | Self::Unproven => "ribera-agent spool",
            Self::Locked => system::service_status(),
            Self::Journal => "ribera-agent once --new-journal",
            Self::Unreachable => "ribera-agent check --quick",
        }
    }
}

/// Where an error came up; with its kind it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Definition,
    Source,
    Spool,
    Journal,
    Upload,
    Lake,
}

#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    pub stage: Stage,
    pub kind: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetName>,
    pub exit: Exit,
}

impl Problem {
    pub fn new(stage: Stage, error: &Error) -> Self {
        let text = error.to_string();
        let message = text.split("\n  try: ").next().unwrap_or(&text).to_owned();
        // Errors name the part they come from, so that a full disk met while extracting counts as the spool's.
        let exit = match (stage, error.kind()) {
            _ if message.contains("journal: damaged") => Exit::Journal,
            _ if message.contains("spool: ") || message.contains("limits.spool_bytes_max") => Exit::Spool,
            (_, ErrorKind::Bug) => Exit::Failed,
            (Stage::Definition, _) => Exit::Config,
            (Stage::Source, ErrorKind::Config) if message.contains("adapter: ") => Exit::Config,
            (Stage::Source, _) => Exit::Source,
            (Stage::Spool, _) => Exit::Spool,
            (Stage::Journal, ErrorKind::Data) => Exit::Journal,
            (Stage::Journal, _) => Exit::Failed,
            (Stage::Upload, _) => Exit::ObjectStore,
            (Stage::Lake, _) => Exit::Unproven,
        };
        let hint = Some(error.hint().unwrap_or_else(|| exit.next_step()).to_owned());
        Self { stage, kind: error.kind().as_str(), message, hint, store: None, dataset: None, exit }
    }

    /// This problem with another exit code, and the command for that code unless the error has its own.
    #[must_use]
    pub fn ending(mut self, exit: Exit) -> Self {
        if self.hint.as_deref() == Some(self.exit.next_step()) {
            self.hint = Some(exit.next_step().to_owned());
        }
        self.exit = exit;
        self
    }

    /// This problem, for a store or one of its datasets, whose names at the beginning of the message are removed.
    #[must_use]
    pub fn of(mut self, store: &StoreId, dataset: Option<&DatasetName>) -> Self {
        self.message = match dataset {
            Some(dataset) => without_place(&self.message, &format!("store {store}, dataset {dataset}")),
            None => without_place(&self.message, &format!("store {store}")),
        }
        .to_owned();
        if self.exit == Exit::Source && self.hint.as_deref() == Some(Exit::Source.next_step()) {
            self.hint = Some(format!("ribera-agent check --stores {store}"));
        }
        // What a source says of a mapping no look at the file alone shows.
        let is_of_source = self.stage == Stage::Source && self.exit == Exit::Config;
        if let Some(dataset) =
            dataset.filter(|_| is_of_source && self.hint.as_deref() == Some(Exit::Config.next_step()))
        {
            self.hint = Some(format!("ribera-agent check --stores {store} --datasets {dataset}"));
        }
        self.store = Some(store.clone());
        self.dataset = dataset.cloned();
        self
    }
}

/// A message without the place that it begins with, where that is told beside it.
fn without_place<'a>(message: &'a str, place: &str) -> &'a str {
    let mut message = message;
    while let Some(rest) = message.strip_prefix(place)
        && let Some(rest) = rest.strip_prefix(": ").or_else(|| rest.strip_prefix(", "))
    {
        message = rest;
    }
    message
}

#[derive(Debug, Clone, Serialize)]
pub struct PlannedUnit {
    pub unit: Unit,
    pub why: Why,
}

/// A day whose rows cannot be sent, and why.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedUnit {
    pub unit: Unit,
    /// Column, row and value.
    pub reason: String,
    /// The command that helps, if the reason names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What one dataset of one store came to.
#[derive(Debug, Clone, Serialize)]
pub struct DatasetReport {
    pub store: StoreId,
    pub dataset: DatasetName,
    /// Units whose fingerprints were compared.
    pub compared: u64,
    /// Units found to need extraction.
    pub planned: Vec<PlannedUnit>,
    pub batches: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Units that were sent as not proven.
    pub unproven: Vec<Unit>,
    /// Units that were refused in this run: nothing of them was sent.
    pub refused: Vec<RefusedUnit>,
    /// Extractions, those included that were done again because the source did not hold still.
    pub tries: u64,
    /// A person ended the backfill before its last month.
    pub stopped: bool,
    /// Rows of the table without a business date: they are in no day. As counted when the question was proven.
    pub undated_rows: u64,
    /// Rows of days that have not begun, likewise.
    pub future_rows: u64,
    /// Days that were asked for and lie outside the store's life, or have not begun.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Whether days were asked for of which some are looked at; `None` where none was asked for.
    #[serde(skip)]
    pub has_days: Option<bool>,
    /// The source's clock minus the object store's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_clock_offset_s: Option<i64>,
    /// Sums of the extracted rows, by audit column.
    pub sums: BTreeMap<String, ExactDecimal>,
    pub seconds: f64,
    /// What the source was busy with one query at most.
    pub longest_query_s: f64,
}

impl DatasetReport {
    pub fn new(store: &StoreId, dataset: &DatasetName) -> Self {
        Self {
            store: store.clone(),
            dataset: dataset.clone(),
            compared: 0,
            planned: Vec::new(),
            batches: 0,
            rows: 0,
            bytes: 0,
            unproven: Vec::new(),
            refused: Vec::new(),
            tries: 0,
            stopped: false,
            undated_rows: 0,
            future_rows: 0,
            left_out: Vec::new(),
            has_days: None,
            source_clock_offset_s: None,
            sums: BTreeMap::new(),
            seconds: 0.0,
            longest_query_s: 0.0,
        }
    }
}

/// What came of upload and acknowledgements.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UploadReport {
    pub batches: u64,
    pub bytes: u64,
    /// Acknowledged in this run.
    pub acknowledged: u64,
    /// Still in the spool, without an acknowledgement.
    pub waiting: u64,
    /// Epochs begun because another journal had used the stream.
    pub new_epochs: u64,
    /// Local time at which `upload_schedule` lets waiting batches go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<DateTime>,
}

impl UploadReport {
    /// Adds what came of an earlier part of the same run.
    pub fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.bytes += other.bytes;
        self.acknowledged += other.acknowledged;
        self.new_epochs += other.new_epochs;
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub command: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub dry_run: bool,
    pub local_only: bool,
    pub datasets: Vec<DatasetReport>,
    pub upload: UploadReport,
    pub problems: Vec<Problem>,
    /// Days that are given up, told when they were or just now.
    pub alarms: Vec<StoreAlarm>,
    pub exit_code: u8,
}

impl Report {
    pub fn new(command: &str, started_at: Timestamp) -> Self {
        Self {
            command: command.to_owned(),
            started_at,
            finished_at: started_at,
            dry_run: false,
            local_only: false,
            datasets: Vec::new(),
            upload: UploadReport::default(),
            problems: Vec::new(),
            alarms: Vec::new(),
            exit_code: 0,
        }
    }

    /// The worst that occurred.
    pub fn exit(&self) -> Exit {
        // Success is never said while a day is known to be wrong.
        let of_alarm = |alarm: &StoreAlarm| match alarm.alarm.trouble {
            Trouble::Refused => Exit::Source,
            Trouble::Unproven | Trouble::LakeDiffers | Trouble::Quarantined => Exit::Unproven,
        };
        let alarms = self.alarms.iter().map(of_alarm);
        self.problems.iter().map(|problem| problem.exit).chain(alarms).max().unwrap_or(Exit::Done)
    }

    pub fn finish(&mut self, now: Timestamp) {
        self.finished_at = now;
        self.exit_code = self.exit().code();
    }
}
