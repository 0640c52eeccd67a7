//! SQL with named parameters, and the queries derived from a mapping.

use std::borrow::Cow;

use jiff::ToSpan;
use jiff::civil::Date;
use ribera_storage::{Error, Result, StoreId};

mod calls;
mod derive;
mod dialect;
mod question;
#[cfg(test)]
mod tests;
mod utc_days;
mod views;

pub use calls::refuse_call;
pub use derive::Queries;
pub use dialect::Dialect;
pub use question::QuestionSql;
pub use utc_days::DayOf;
pub use views::{UserViews, View};

/// A query whose named parameters were replaced by the dialect's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    sql: String,
    parameters: Vec<Parameter>,
    /// Where in `sql` the values stand, if the statement takes no parameters.
    places: Option<Vec<usize>>,
    result_set: ResultSet,
}

/// Which result set of a statement holds its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultSet {
    /// The statement is a query: it has one.
    Only,
    /// The first one with the columns that are needed.
    Fitting,
    /// By number, from 1.
    Nth(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    From,
    To,
    After,
    Store,
}

/// A query ready to run: positional parameters, all of them text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    pub sql: Cow<'a, str>,
    pub parameters: Vec<String>,
    pub result_set: ResultSet,
    /// Beside each parameter the day that it is, for drivers that send days as such.
    pub days: Vec<Option<Date>>,
}

impl Template {
    /// Reads `text`; parameters in quotes and comments are left alone, `::` is a cast.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self> {
        let mut sql = String::with_capacity(text.len());
        let mut parameters = Vec::new();
        let mut places = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find([':', '\'', '"', '`', '[', '-', '/', '#', '$']) {
            sql.push_str(&rest[..at]);
            rest = &rest[at..];
            let kept = skipped(rest, dialect);
            if kept > 0 {
                sql.push_str(&rest[..kept]);
                rest = &rest[kept..];
                continue;
            }
            let name: &str = {
                let length = rest[1..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                &rest[1..=length]
            };
            let given = parameter(name)?;
            places.push(sql.len());
            match dialect.numbered() {
                Some(prefix) => {
                    let known = parameters.iter().position(|one| *one == given);
                    let number = known.unwrap_or(parameters.len()) + 1;
                    sql.push_str(&format!("{prefix}{number}"));
                    if known.is_none() {
                        parameters.push(given);
                    }
                }
                None => {
                    sql.push_str(dialect.placeholder());
                    parameters.push(given);
                }
            }
            rest = &rest[1 + name.len()..];
        }
        sql.push_str(rest);
        let result_set = if crate::config::is_call(text) { ResultSet::Fitting } else { ResultSet::Only };
        Ok(Self { sql, parameters, places: dialect.placeholder().is_empty().then_some(places), result_set })
    }

    /// This template, reading the rows from the result set of that number, if one is given.
    pub fn in_result_set(self, number: Option<u32>) -> Self {
        Self { result_set: number.map_or(self.result_set, ResultSet::Nth), ..self }
    }

    /// Whether it is a procedure or batch, which may do anything, and give several result sets.
    pub fn is_procedure(&self) -> bool {
        self.result_set != ResultSet::Only
    }

    /// Whether it has a parameter for a day.
    pub fn asks_for_days(&self) -> bool {
        self.parameters.iter().any(|parameter| *parameter != Parameter::Store)
    }

    /// The SQL as it is sent, parameters by place.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The statement for the days `from` to `to`.
    pub fn bind(&self, from: Date, to: Date, store: &StoreId) -> Statement<'_> {
        let after = to.checked_add(1.day()).unwrap_or(to);
        let day = |parameter: &Parameter| match parameter {
            Parameter::From => Some(from),
            Parameter::To => Some(to),
            Parameter::After => Some(after),
            Parameter::Store => None,
        };
        let days: Vec<Option<Date>> = self.parameters.iter().map(day).collect();
        let values: Vec<String> =
            days.iter().map(|day| day.map_or_else(|| store.to_string(), |day| day.to_string())).collect();
        let (sql, parameters, days) = match &self.places {
            None => (Cow::Borrowed(self.sql.as_str()), values, days),
            Some(places) => (Cow::Owned(self.filled(places, &values)), Vec::new(), Vec::new()),
        };
        Statement { sql, parameters, days, result_set: self.result_set }
    }

    /// The text with each value quoted in its place. Values are dates and store ids: neither holds
    /// a character that a quoted text could end with.
    fn filled(&self, places: &[usize], values: &[String]) -> String {
        let mut filled = String::with_capacity(self.sql.len() + values.len() * 16);
        let mut from = 0;
        for (place, value) in places.iter().zip(values) {
            filled.extend([&self.sql[from..*place], "'", &value.replace('\'', "''"), "'"]);
            from = *place;
        }
        filled.push_str(&self.sql[from..]);
        filled
    }
}

/// `text` without its line comments and without semicolons at its end.
///
/// # Errors
/// Config: a block comment or a quoted text has no end, and would take in what follows.
pub(crate) fn plain_sql(text: &str, dialect: Dialect) -> Result<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"', '`', '[', '-', '/', '#', '$']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let kept = skipped(rest, dialect);
        let piece = &rest[..kept];
        if is_line_comment(rest, dialect) {
            plain.push('\n');
        } else if has_no_end(piece, dialect) {
            let begin: String = piece.chars().take(40).collect();
            return Err(Error::config(format!("adapter: SQL: quotes and comments must end, got {begin:?}")));
        } else {
            plain.push_str(piece);
        }
        rest = &rest[kept..];
    }
    plain.push_str(rest);
    Ok(plain.trim_end_matches(|last: char| last == ';' || last.is_whitespace()).trim_start().to_owned())
}

fn is_line_comment(text: &str, dialect: Dialect) -> bool {
    // To MySQL `5--3` is a number less a negative one.
    let begins = |behind: &str| dialect != Dialect::Mysql || !behind.starts_with(|next: char| !next.is_whitespace());
    text.strip_prefix("--").is_some_and(begins) || (dialect == Dialect::Mysql && text.starts_with('#'))
}

/// Whether a quoted text or a block comment, as [`skipped`] cut it, ran into the end of the SQL.
fn has_no_end(piece: &str, dialect: Dialect) -> bool {
    let closes = |end: &str, begin: usize| piece.len() >= begin + end.len() && piece.ends_with(end);
    match piece.as_bytes() {
        [b'/', b'*', ..] => !closes("*/", 2),
        [quote @ (b'\'' | b'"' | b'`'), ..] => !closes(char::from(*quote).encode_utf8(&mut [0; 4]), 1),
        [b'[', ..] if dialect == Dialect::SqlServer => !closes("]", 1),
        [b'$', _, ..] => !closes("$", 2),
        _ => false,
    }
}

fn parameter(name: &str) -> Result<Parameter> {
    Ok(match name {
        "from" | "day" => Parameter::From,
        "to" => Parameter::To,
        "after" => Parameter::After,
        "store" => Parameter::Store,
        _ => {
            return Err(Error::config(format!(
                "adapter: query: parameters must be :from, :to, :after, :day or :store, got \":{name}\""
            )));
        }
    })
}

/// Bytes at the start of `text` that hold no parameter: a quoted text, a comment, a cast, or one
/// character that begins nothing; 0 when a parameter begins.
fn skipped(text: &str, dialect: Dialect) -> usize {
    let bytes = text.as_bytes();
    let through = |end: &str, from: usize| {
        text.get(from..).and_then(|rest| rest.find(end)).map_or(text.len(), |at| from + at + end.len())
    };
    match (bytes[0], bytes.get(1)) {
        (quote @ (b'\'' | b'"' | b'`'), _) => quoted(bytes, quote, dialect),
        (b'-', Some(b'-')) if is_line_comment(text, dialect) => through("\n", 2),
        (b'[', _) if dialect == Dialect::SqlServer => through("]", 1),
        (b'#', _) if dialect == Dialect::Mysql => through("\n", 1),
        (b'/', Some(b'*')) => through("*/", 2),
        (b'$', _) if dialect == Dialect::Postgres => dollar_quoted(text),
        (b':', Some(b':')) => 2,
        (b':', Some(b'=')) => 2,
        (b':', Some(next)) if next.is_ascii_alphabetic() || *next == b'_' => 0,
        _ => 1,
    }
}

/// The length of a text in `$$` or `$tag$`; 1 when none begins.
fn dollar_quoted(text: &str) -> usize {
    let tag = text[1..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    match text.get(..tag + 2).filter(|mark| mark.ends_with('$')) {
        Some(mark) => text[mark.len()..].find(mark).map_or(text.len(), |at| 2 * mark.len() + at),
        None => 1,
    }
}

/// The length of a quoted text; a doubled quote is two texts in a row, which comes to the same.
fn quoted(bytes: &[u8], quote: u8, dialect: Dialect) -> usize {
    let escapes = dialect == Dialect::Mysql && quote != b'`';
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 1,
            byte if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}
