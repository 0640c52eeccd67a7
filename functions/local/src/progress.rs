//! Progress of long verbs, on standard error and only for people.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Context;

/// A bar, or nothing where nobody looks.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(context: &Context, title: &str, total: u64) -> Self {
        if context.json || !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new(total).with_message(title.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        Self { bar: Some(bar) }
    }

    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    pub fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
