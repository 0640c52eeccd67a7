//! What the columns of a query are. The driver reads NUMERIC and DECIMAL as doubles, and dates,
//! times and timestamps as one type, and tells neither before the first row. So the query is
//! asked as a derived table whose one row is all NULL, which the server answers without running
//! it, and then run with a cast around each column that would lose something.

use std::sync::Arc;

use rsfbclient_core::ibase;

/// Digits, sign and point of every exact number.
const EXACT_CHARS: usize = 48;
/// The longest VARCHAR ... OCTETS that is read; the server does not tell a query what it declared.
const OCTETS_MAX: i64 = 2000;

/// How the values of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As the driver gives them.
    Plain,
    /// Exact number, cast to text.
    Exact,
    Date,
    Time,
    /// Bytes, and the length of a fixed one (1 for any other).
    Octets(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// A query ready to run.
#[derive(Debug)]
pub struct Described {
    pub columns: Arc<[Column]>,
    pub sql: String,
}

/// What the driver tells of a column.
pub struct Coarse {
    pub name: String,
    pub raw_type: u32,
}

impl Coarse {
    /// The expression over a NULL of the column's type whose number tells what the driver hides.
    fn question(&self) -> Option<String> {
        let column = column(&self.name);
        let length = |expression: &str| format!("CHAR_LENGTH(CAST({expression} AS VARCHAR({EXACT_CHARS})))");
        match self.raw_type {
            // The text of an exact number has its scale's digits whatever the value, that of a
            // double a certain number of significant ones.
            ibase::SQL_DOUBLE => Some(format!(
                "{} - {}",
                length(&format!("COALESCE({column}, 1)")),
                length(&format!("COALESCE({column}, 0.5)"))
            )),
            // Differences are NUMERIC of scale 0 for dates, 4 for times, 9 for timestamps.
            ibase::SQL_TIMESTAMP => Some(length(&format!("COALESCE({column} - {column}, 1)"))),
            // Only bytes have no upper case; a fixed length shows in the padding.
            ibase::SQL_VARYING => Some(format!(
                "IIF(ASCII_VAL(UPPER(COALESCE({column}, 'a'))) = 97, OCTET_LENGTH(COALESCE({column}, 'a')), 0)"
            )),
            _ => None,
        }
    }

    fn kind(&self, answer: i64) -> Kind {
        match (self.raw_type, answer) {
            (ibase::SQL_DOUBLE, 0) => Kind::Exact,
            (ibase::SQL_TIMESTAMP, 1) => Kind::Date,
            (ibase::SQL_TIMESTAMP, 6) => Kind::Time,
            (ibase::SQL_VARYING, length) if length > 0 => Kind::Octets(length),
            _ => Kind::Plain,
        }
    }
}

/// The statement whose result columns are those of `query`, one row of NULL each.
pub fn names_sql(query: &str) -> String {
    format!("SELECT q.* FROM {}", nulls(query))
}

/// The statement that tells more of the columns that need it, in their order.
pub fn questions_sql(query: &str, columns: &[Coarse]) -> Option<String> {
    let questions: Vec<String> = columns.iter().filter_map(Coarse::question).collect();
    (!questions.is_empty()).then(|| format!("SELECT {} FROM {}", numbered(&questions), nulls(query)))
}

/// `answers` are those of [`questions_sql`]. `utf8`: the connection's character set, which takes no
/// bytes that are not text.
pub fn described(query: &str, columns: &[Coarse], answers: &[i64], utf8: bool) -> Described {
    let mut answers = answers.iter();
    let kind = |one: &Coarse, answers: &mut std::slice::Iter<'_, i64>| match one.question() {
        Some(_) => one.kind(answers.next().copied().unwrap_or(-1)),
        None => Kind::Plain,
    };
    let columns: Vec<Column> =
        columns.iter().map(|one| Column { name: one.name.clone(), kind: kind(one, &mut answers) }).collect();
    let selected: Vec<String> = columns.iter().map(|one| selected(one, utf8)).collect();
    let sql = format!("SELECT {} FROM (\n{}\n) q", numbered(&selected), body(query));
    Described { columns: columns.into(), sql }
}

fn selected(one: &Column, utf8: bool) -> String {
    let column = column(&one.name);
    match one.kind {
        Kind::Exact => format!("CAST({column} AS VARCHAR({EXACT_CHARS}))"),
        // Each byte as the character of its number.
        Kind::Octets(length) if utf8 => {
            let length = if length > 1 { length } else { OCTETS_MAX };
            format!("CAST({column} AS VARCHAR({length}) CHARACTER SET ISO8859_1)")
        }
        _ => column,
    }
}

fn numbered(expressions: &[String]) -> String {
    let numbered: Vec<String> =
        expressions.iter().enumerate().map(|(index, expression)| format!("{expression} AS C{index}")).collect();
    numbered.join(", ")
}

/// One row of NULL each: the condition is false before the query is begun.
fn nulls(query: &str) -> String {
    format!("RDB$DATABASE LEFT JOIN (\n{}\n) q ON 1 = 0", body(query))
}

fn body(query: &str) -> &str {
    query.trim_end().trim_end_matches(';')
}

fn column(name: &str) -> String {
    format!("q.\"{}\"", name.replace('"', "\"\""))
}

/// What a dataset calls the column: the server folds what is not quoted to upper case.
pub fn folded(name: &str) -> String {
    if name.chars().any(char::is_lowercase) { name.to_owned() } else { name.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coarse(name: &str, raw_type: u32) -> Coarse {
        Coarse { name: name.to_owned(), raw_type }
    }

    #[test]
    fn only_columns_that_would_lose_something_are_cast() {
        let columns = [
            coarse("ID", ibase::SQL_INT64),
            coarse("TOTAL", ibase::SQL_DOUBLE),
            coarse("peso \"kg\"", ibase::SQL_DOUBLE),
            coarse("HORA", ibase::SQL_TIMESTAMP),
            coarse("GUID", ibase::SQL_VARYING),
            coarse("SELLO", ibase::SQL_VARYING),
            coarse("NOMBRE", ibase::SQL_VARYING),
        ];
        let questions = questions_sql("SELECT 1;", &columns).unwrap();
        assert_eq!(questions.matches(" AS C").count(), 6, "{questions}");
        assert!(questions.ends_with("RDB$DATABASE LEFT JOIN (\nSELECT 1\n) q ON 1 = 0"), "{questions}");
        let described = described("SELECT 1;", &columns, &[0, -1, 6, 16, 1, 0], true);
        let kinds: Vec<Kind> = described.columns.iter().map(|one| one.kind).collect();
        let octets = [Kind::Octets(16), Kind::Octets(1)];
        assert_eq!(kinds, [Kind::Plain, Kind::Exact, Kind::Plain, Kind::Time, octets[0], octets[1], Kind::Plain]);
        let selected: Vec<&str> = described.sql.split(", ").collect();
        assert_eq!(selected[1], "CAST(q.\"TOTAL\" AS VARCHAR(48)) AS C1");
        assert_eq!(selected[2], "q.\"peso \"\"kg\"\"\" AS C2");
        assert_eq!(selected[4], "CAST(q.\"GUID\" AS VARCHAR(16) CHARACTER SET ISO8859_1) AS C4");
        assert_eq!(selected[5], "CAST(q.\"SELLO\" AS VARCHAR(2000) CHARACTER SET ISO8859_1) AS C5");
        assert!(selected[6].starts_with("q.\"NOMBRE\" AS C6 FROM (\nSELECT 1\n) q"), "{}", described.sql);
    }

    #[test]
    fn names_that_were_not_quoted_become_the_datasets() {
        assert_eq!((folded("TICKET_ID"), folded("day"), folded("Año")), ("ticket_id".into(), "day".into(), "Año".into()));
    }
}
