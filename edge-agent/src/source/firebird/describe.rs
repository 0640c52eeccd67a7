//! What the columns of a query are. The driver reads NUMERIC and DECIMAL as doubles, and dates,
//! times and timestamps as one type, and tells neither before the first row. So the query is
//! asked as a derived table whose one row is all NULL, which the server answers without running
//! it, and then run with a cast around each column that would lose something.

use std::sync::Arc;

use rsfbclient_core::ibase;

/// Digits, sign and point of every exact number.
const EXACT_CHARS: usize = 48;

/// How the values of a column are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As the driver gives them.
    Plain,
    /// Exact number, cast to text.
    Exact,
    Date,
    Time,
    /// Bytes in no character set.
    Bytes,
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
            // Only bytes have no upper case.
            ibase::SQL_VARYING | ibase::SQL_BLOB => Some(format!("ASCII_VAL(UPPER(COALESCE({column}, 'a')))")),
            _ => None,
        }
    }

    fn kind(&self, answer: i64) -> Kind {
        match (self.raw_type, answer) {
            (ibase::SQL_DOUBLE, 0) => Kind::Exact,
            (ibase::SQL_TIMESTAMP, 1) => Kind::Date,
            (ibase::SQL_TIMESTAMP, 6) => Kind::Time,
            (ibase::SQL_VARYING | ibase::SQL_BLOB, 97) => Kind::Bytes,
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

/// `answers` are those of [`questions_sql`].
pub fn described(query: &str, columns: &[Coarse], answers: &[i64]) -> Described {
    let mut answers = answers.iter();
    let kind = |one: &Coarse, answers: &mut std::slice::Iter<'_, i64>| match one.question() {
        Some(_) => one.kind(answers.next().copied().unwrap_or(-1)),
        None => Kind::Plain,
    };
    let columns: Vec<Column> =
        columns.iter().map(|one| Column { name: one.name.clone(), kind: kind(one, &mut answers) }).collect();
    let selected: Vec<String> = columns.iter().map(selected).collect();
    let sql = format!("SELECT {} FROM (\n{}\n) q", numbered(&selected), body(query));
    Described { columns: columns.into(), sql }
}

fn selected(one: &Column) -> String {
    let column = column(&one.name);
    match one.kind {
        Kind::Exact => format!("CAST({column} AS VARCHAR({EXACT_CHARS}))"),
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
            coarse("NOMBRE", ibase::SQL_VARYING),
        ];
        let questions = questions_sql("SELECT 1;", &columns).unwrap();
        assert_eq!(questions.matches(" AS C").count(), 5, "{questions}");
        assert!(questions.ends_with("RDB$DATABASE LEFT JOIN (\nSELECT 1\n) q ON 1 = 0"), "{questions}");
        let described = described("SELECT 1;", &columns, &[0, -1, 6, 97, 65]);
        let kinds: Vec<Kind> = described.columns.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [Kind::Plain, Kind::Exact, Kind::Plain, Kind::Time, Kind::Bytes, Kind::Plain]);
        let selected: Vec<&str> = described.sql.split(", ").collect();
        assert_eq!(selected[1], "CAST(q.\"TOTAL\" AS VARCHAR(48)) AS C1");
        assert_eq!(selected[2], "q.\"peso \"\"kg\"\"\" AS C2");
        assert!(selected[5].starts_with("q.\"NOMBRE\" AS C5 FROM (\nSELECT 1\n) q"), "{}", described.sql);
    }

    #[test]
    fn names_that_were_not_quoted_become_the_datasets() {
        assert_eq!(
            (folded("TICKET_ID"), folded("day"), folded("Año")),
            ("ticket_id".into(), "day".into(), "Año".into())
        );
    }
}
