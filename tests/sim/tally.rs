//! What a run did: faults that fired, steps met and crashed, checks made. Runs add up.

use std::collections::BTreeMap;

use super::hostile::Act;

/// Every kind of fault. One that never fires in a whole run fails the run: it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The store's call fails and does nothing.
    CallFails,
    /// The call has its effect, and an error comes back.
    TimeoutAfterEffect,
    /// An error comes back, and the effect follows seconds or minutes later.
    EffectAfterTimeout,
    /// The call takes seconds to minutes.
    CallSlow,
    /// A hidden retry applies a write twice: a first put-if-absent answers "exists".
    EffectDoubled,
    /// A store's line is down for hours.
    LineDown,
    EventLost,
    EventDoubled,
    /// Late by minutes to hours, and so behind later ones.
    EventLate,
    /// The agent's program dies; what the disk had not synced may be gone.
    AgentCrash,
    /// The host's program dies with every call in it.
    HostCrash,
    /// One call ends at its time limit.
    CallAborted,
    /// After a crash an unsynced file is gone, empty or cut.
    UnsyncedFileLost,
    /// After a crash a rename or creation without a synced folder is undone.
    UnsyncedNameLost,
    /// The journal comes back as it was hours or days ago, the spool too.
    JournalRestored,
    /// A copy of the disk runs beside the first for a while.
    DiskCloned,
    SpoolBitFlipped,
    SpoolCut,
    SpoolFull,
    /// A data file arrives with a flipped bit.
    UploadDamaged,
    /// The store's database refuses or drops a query.
    SourceFails,
    SourceSlow,
    /// Rows change between the audit and the extraction.
    SourceMoves,
    /// The agent's clock is wrong by minutes to days.
    ClockOff,
    /// The agent's clock jumps, backwards too.
    ClockJumps,
    /// Another program writes a checkpoint, and our tags are lost in it.
    CheckpointUntagged,
}

impl Fault {
    pub const ALL: [Self; 26] = [
        Self::CallFails,
        Self::TimeoutAfterEffect,
        Self::EffectAfterTimeout,
        Self::CallSlow,
        Self::EffectDoubled,
        Self::LineDown,
        Self::EventLost,
        Self::EventDoubled,
        Self::EventLate,
        Self::AgentCrash,
        Self::HostCrash,
        Self::CallAborted,
        Self::UnsyncedFileLost,
        Self::UnsyncedNameLost,
        Self::JournalRestored,
        Self::DiskCloned,
        Self::SpoolBitFlipped,
        Self::SpoolCut,
        Self::SpoolFull,
        Self::UploadDamaged,
        Self::SourceFails,
        Self::SourceSlow,
        Self::SourceMoves,
        Self::ClockOff,
        Self::ClockJumps,
        Self::CheckpointUntagged,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::CallFails => "call fails",
            Self::TimeoutAfterEffect => "time-out after the effect",
            Self::EffectAfterTimeout => "effect after the time-out",
            Self::CallSlow => "call slow",
            Self::EffectDoubled => "effect doubled",
            Self::LineDown => "line down",
            Self::EventLost => "event lost",
            Self::EventDoubled => "event doubled",
            Self::EventLate => "event late",
            Self::AgentCrash => "agent crash",
            Self::HostCrash => "host crash",
            Self::CallAborted => "call aborted",
            Self::UnsyncedFileLost => "unsynced file lost",
            Self::UnsyncedNameLost => "unsynced name lost",
            Self::JournalRestored => "journal restored",
            Self::DiskCloned => "disk cloned",
            Self::SpoolBitFlipped => "spool bit flipped",
            Self::SpoolCut => "spool file cut",
            Self::UploadDamaged => "upload damaged",
            Self::SpoolFull => "spool full",
            Self::SourceFails => "source fails",
            Self::SourceSlow => "source slow",
            Self::SourceMoves => "source moves",
            Self::ClockOff => "clock off",
            Self::ClockJumps => "clock jumps",
            Self::CheckpointUntagged => "checkpoint untagged",
        }
    }
}

/// How often each step of I/O was met, and how often the program died there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCount {
    pub met: u64,
    pub crashed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub faults: BTreeMap<Fault, u64>,
    /// What the hostile store did.
    pub acts: BTreeMap<Act, u64>,
    pub steps: BTreeMap<String, StepCount>,
    /// By invariant, such as `I4 every referenced file exists`.
    pub checks: BTreeMap<&'static str, u64>,
    /// Anything else worth counting: batches, versions, rows.
    pub amounts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn act(&mut self, act: Act) {
        *self.acts.entry(act).or_default() += 1;
    }

    pub fn check(&mut self, name: &'static str) {
        *self.checks.entry(name).or_default() += 1;
    }

    pub fn amount(&mut self, name: &'static str, more: u64) {
        *self.amounts.entry(name).or_default() += more;
    }

    pub fn meet(&mut self, step: &str) {
        let count = match self.steps.get_mut(step) {
            Some(count) => count,
            None => self.steps.entry(step.to_owned()).or_default(),
        };
        count.met += 1;
    }

    pub fn crash(&mut self, step: &str) {
        self.steps.entry(step.to_owned()).or_default().crashed += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (act, count) in &other.acts {
            *self.acts.entry(*act).or_default() += count;
        }
        for (step, count) in &other.steps {
            let mine = self.steps.entry(step.clone()).or_default();
            mine.met += count.met;
            mine.crashed += count.crashed;
        }
        for (name, count) in &other.checks {
            self.check_times(name, *count);
        }
        for (name, count) in &other.amounts {
            self.amount(name, *count);
        }
    }

    /// Faults that never fired.
    pub fn silent_faults(&self) -> Vec<&'static str> {
        Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).map(|fault| fault.name()).collect()
    }

    /// Acts that the hostile store never came to.
    pub fn silent_acts(&self) -> Vec<&'static str> {
        Act::ALL.iter().filter(|act| !self.acts.contains_key(act)).map(|act| act.name()).collect()
    }

    /// FailPoints crashed fewer than `times`.
    pub fn rarely_crashed(&self, times: u64) -> Vec<(&str, StepCount)> {
        self.steps
            .iter()
            .filter(|(_, count)| count.crashed < times)
            .map(|(step, count)| (step.as_str(), *count))
            .collect()
    }

    fn check_times(&mut self, name: &'static str, times: u64) {
        *self.checks.entry(name).or_default() += times;
    }
}
