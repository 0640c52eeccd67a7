//! What happened, in order: always as a running hash, as text when asked.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::Micros;

#[derive(Debug)]
pub struct Trace {
    /// SipHash with fixed keys: the same events give the same number in every run of one build.
    hasher: DefaultHasher,
    events: u64,
    print: bool,
    /// The last events as text, for the report of a failure.
    tail: VecDeque<(Micros, String)>,
}

const TAIL_EVENTS: usize = 60;

impl Trace {
    pub fn new(print: bool) -> Self {
        Self { hasher: DefaultHasher::new(), events: 0, print, tail: VecDeque::new() }
    }

    pub fn event(&mut self, now: Micros, what: &str) {
        now.hash(&mut self.hasher);
        what.hash(&mut self.hasher);
        self.events += 1;
        if self.print {
            println!("{} {what}", text_of(now));
        }
        if self.tail.len() == TAIL_EVENTS {
            self.tail.pop_front();
        }
        self.tail.push_back((now, what.to_owned()));
    }

    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().map(|(now, what)| format!("{} {what}", text_of(*now))).collect()
    }
}

fn text_of(now: Micros) -> String {
    jiff::Timestamp::from_microsecond(now).map_or_else(|_| now.to_string(), |now| now.to_string())
}
