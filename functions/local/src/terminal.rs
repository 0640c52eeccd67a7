//! The one way from this program to a terminal: no control character from outside gets through.
//!
//! Names, details, rows and logs hold what a store or a database sent. Only colours that [`paint`] made
//! become escape sequences.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use ribera_storage::ports::Random as _;
use ribera_storage::{Result, text};
use tracing_subscriber::fmt::MakeWriter;

use crate::ports::SystemRandom;

/// Colours as ANSI numbers.
pub mod colour {
    pub const RED: u8 = 31;
    pub const GREEN: u8 = 32;
    pub const YELLOW: u8 = 33;
    pub const GREY: u8 = 90;
}

/// Writes lines to standard output. A reader that went away (such as `head`) is no error.
pub fn print(lines: &str) -> Result<()> {
    write_line(&mut io::stdout().lock(), &visible(lines))
}

/// Writes a JSON document to standard output.
pub fn print_json(document: &str) -> Result<()> {
    write_line(&mut io::stdout().lock(), &text::json(document))
}

/// Writes lines to standard error.
pub fn complain(lines: &str) {
    // Nobody can be told that this failed.
    let _ = write_line(&mut io::stderr().lock(), &visible(lines));
}

/// Writes a JSON document to standard error.
pub fn complain_json(document: &str) {
    let _ = write_line(&mut io::stderr().lock(), &text::json(document));
}

/// `text` in an ANSI colour, if standard output is a terminal. The colour counts for no width in a table.
pub fn paint(text: &str, colour: u8) -> String {
    if colours() { painted(text, colour) } else { text.to_owned() }
}

/// Colours are for terminals only, and not for those who set `NO_COLOR`.
pub fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Writes to `out` with every control character made visible.
pub fn safe_text<W: Write>(out: W) -> Safe<W> {
    Safe { out, escape: text::printable }
}

/// Writes JSON to `out` without control characters.
pub fn safe_json<W: Write>(out: W) -> Safe<W> {
    Safe { out, escape: text::json }
}

/// Escapes what is written. Each part must end where a character ends, as the formatting macros write them.
pub struct Safe<W> {
    out: W,
    escape: fn(&str) -> Cow<'_, str>,
}

impl<W: Write> Write for Safe<W> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.out.write_all((self.escape)(&String::from_utf8_lossy(part)).as_bytes())?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Standard error for log records, of which the subscriber writes each as one line.
pub struct LogOutput {
    pub json: bool,
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self { json: self.json }
    }
}

impl Write for LogOutput {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(record);
        let line = line.trim_end_matches('\n');
        let safe = if self.json { text::json(line) } else { text::line(line) };
        io::stderr().write_all(format!("{safe}\n").as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn write_line(out: &mut impl Write, text: &str) -> Result<()> {
    match writeln!(out, "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Begins a colour. Made of characters without width and drawn by chance once a process: what comes from
/// outside cannot hold it.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let chance = SystemRandom.next_u64();
    chance.to_le_bytes().into_iter().map(zero_width).collect()
});

/// A variation selector for each byte. The last 16 of the block are not used.
fn zero_width(byte: u8) -> char {
    char::from_u32(0xe0100 + u32::from(byte % 224)).unwrap_or('\u{e0100}')
}

fn painted(text: &str, colour: u8) -> String {
    format!("{mark}{}{text}{mark}{}", zero_width(colour), zero_width(0), mark = *MARK)
}

fn visible(lines: &str) -> String {
    let safe = text::printable(lines);
    let mut parts = safe.split(MARK.as_str());
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut last = 0;
    for part in parts {
        let mut letters = part.chars();
        last = letters.next().map_or(0, |letter| u32::from(letter).saturating_sub(0xe0100));
        out.push_str(&format!("\u{1b}[{last}m"));
        out.push_str(letters.as_str());
    }
    if last != 0 {
        // A narrow table broke the end of a colour in two.
        out.push_str("\u{1b}[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_colours_get_through_and_those_of_a_store_do_not() {
        let name = "\u{1b}[31mTienda\u{1b}[0m \u{e0100}\u{202e}";
        let line = format!("{}: {}", painted("falta", colour::RED), painted(name, colour::GREY));
        assert_eq!(
            visible(&line),
            "\u{1b}[31mfalta\u{1b}[0m: \u{1b}[90m\\u{1b}[31mTienda\\u{1b}[0m \u{e0100}\\u{202e}\u{1b}[0m"
        );
    }

    #[test]
    fn a_colour_has_no_width_in_a_table() {
        let mut table = crate::show::table(&["a", "b"]);
        table.add_row([painted("x", colour::RED), "y".to_owned()]);
        table.add_row(["x", "y"]);
        let text = visible(&crate::show::table_text(&table)).replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        let rows: Vec<&str> = text.lines().filter(|line| line.contains('x')).collect();
        assert_eq!(rows[0], rows[1], "{text}");
    }
}
