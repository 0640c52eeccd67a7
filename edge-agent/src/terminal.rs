//! The one way from this program to a terminal and a log: what a database, a file or an object store said
//! holds no control characters there.

use std::io::{self, Write};

use ribera_storage::text;
use tracing_subscriber::fmt::MakeWriter;

/// Writes lines to standard output, as `println!` does.
macro_rules! say {
    ($($part:tt)*) => { $crate::terminal::print(&format!($($part)*)) };
}

/// Writes lines to standard error, as `eprintln!` does.
macro_rules! complain {
    ($($part:tt)*) => { $crate::terminal::print_error(&format!($($part)*)) };
}

pub(crate) use {complain, say};

/// Writes lines to standard output. A reader that went away is no error.
pub fn print(lines: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text::printable(lines));
}

/// Writes lines to standard error.
pub fn print_error(lines: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::printable(lines));
}

/// Writes a JSON document to standard output.
pub fn print_json(document: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text::json(document));
}

/// A log record as it may be written: one line.
pub fn log_line(record: &[u8], json: bool) -> Vec<u8> {
    let line = String::from_utf8_lossy(record);
    let line = line.trim_end_matches('\n');
    let safe = if json { text::json(line) } else { text::line(line) };
    format!("{safe}\n").into_bytes()
}

/// Standard error for log records, of which the subscriber writes each as one line.
pub struct ErrorOutput;

impl<'a> MakeWriter<'a> for ErrorOutput {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for ErrorOutput {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&log_line(record, false))?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
