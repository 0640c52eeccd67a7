//! Questions about a mapping's own question: what its table holds without the predicate of the days.
//! They share no WHERE with extraction and audit, so an error there cannot agree with itself.

use super::{Dialect, Template};
use ribera_storage::Result;

/// The SQL that proves the business date and the range of a derived mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionSql {
    /// One row over all rows that count: rows; those with a business date of any form; those whose date is a
    /// day; the first and the last of these days; a date that is no day.
    pub total: Template,
    /// One row, one column: the rows that count of the days `:from` to `:to`.
    pub within: Template,
    /// One row, one column: all rows of the table. `None` without a `where`.
    pub unfiltered: Option<Template>,
}

impl QuestionSql {
    /// `None` where FROM or WHERE hold a day's parameter: there is no question without the predicate then.
    ///
    /// # Errors
    /// Config: a parameter has an unknown name.
    pub fn new(from: &str, filter: Option<&str>, date: &str, range: &str, dialect: Dialect) -> Result<Option<Self>> {
        let counts = filter.map(|filter| format!(" WHERE ({filter})")).unwrap_or_default();
        // Each date once, however many rows it has: its text and form cost more than the rows.
        let dates = format!("SELECT {date} AS fecha_de_fila, COUNT(*) AS filas FROM {from}{counts} GROUP BY {date}");
        let (text, is_day) = (dialect.as_text(EACH), dialect.is_day(EACH));
        let given = format!("{EACH} IS NOT NULL AND {text} NOT IN ('', '0000-00-00', '0000-00-00 00:00:00')");
        let rows = |which: &str| dialect.total_of(&format!("CASE WHEN {which} THEN filas ELSE 0 END"));
        let total = Template::parse(
            &format!(
                "SELECT {} AS c1, {} AS c2, {} AS c3, MIN(CASE WHEN {is_day} THEN {text} END) AS c4, \
                 MAX(CASE WHEN {is_day} THEN {text} END) AS c5, \
                 MIN(CASE WHEN {given} AND NOT ({is_day}) THEN {text} END) AS c6 FROM ({dates}) fechas_de_filas",
                dialect.total_of("filas"),
                rows(&given),
                rows(&is_day),
            ),
            dialect,
        )?;
        if total.asks_for_days() {
            return Ok(None);
        }
        let and = filter.map(|filter| format!("({filter}) AND ")).unwrap_or_default();
        let within = Template::parse(&format!("SELECT COUNT(*) AS c1 FROM {from} WHERE {and}({range})"), dialect)?;
        let unfiltered = filter.map(|_| Template::parse(&format!("SELECT COUNT(*) AS c1 FROM {from}"), dialect));
        Ok(Some(Self { total, within, unfiltered: unfiltered.transpose()? }))
    }
}

/// A date among those of the table.
const EACH: &str = "fecha_de_fila";

impl Dialect {
    /// The sum of whole numbers, a whole number itself; 0 of none.
    fn total_of(self, expression: &str) -> String {
        match self {
            Self::Sqlite => format!("COALESCE(SUM({expression}), 0)"),
            Self::Mysql => format!("CAST(COALESCE(SUM({expression}), 0) AS SIGNED)"),
            Self::Postgres | Self::Firebird => format!("CAST(COALESCE(SUM({expression}), 0) AS BIGINT)"),
            // A count is of 32 bits there.
            Self::SqlServer => {
                let wide = expression.replace("filas", "CAST(filas AS bigint)");
                format!("COALESCE(SUM({wide}), 0)")
            }
        }
    }

    /// `expression` as text, as this server writes dates when it is not asked for a form.
    fn as_text(self, expression: &str) -> String {
        match self {
            Self::Sqlite | Self::Postgres => format!("TRIM(CAST(({expression}) AS TEXT))"),
            Self::Mysql => format!("TRIM(CAST(({expression}) AS CHAR))"),
            Self::Firebird => format!("TRIM(CAST(({expression}) AS VARCHAR(64)))"),
            Self::SqlServer => format!("RTRIM(CONVERT(varchar(64), {expression}, 126))"),
        }
    }

    /// Whether `expression` is a day and nothing more: a date, a midnight, or text such as `2017-05-08`.
    fn is_day(self, expression: &str) -> String {
        const FORM: &str = "[0-9]{4}-[0-9]{2}-[0-9]{2}";
        let text = self.as_text(expression);
        match self {
            // Text compares as days only if it is exactly so; numbers never do.
            Self::Sqlite => format!("(typeof({expression}) = 'text' AND date({expression}) IS ({expression}))"),
            // LAST_DAY knows the calendar, whatever the session lets pass.
            Self::Mysql => format!(
                "({text} REGEXP '^{FORM}( 00:00:00([.]0+)?)?$' AND {text} NOT LIKE '%-00%' AND LAST_DAY({text}) IS NOT NULL)"
            ),
            Self::Postgres => format!("({text} ~ '^{FORM}( 00:00:00)?$')"),
            // Its regular expressions are too slow for a whole table.
            Self::Firebird => format!("({text} LIKE '____-__-__' OR {text} LIKE '____-__-__ 00:00:00.0000')"),
            Self::SqlServer => {
                const DIGITS: &str = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]";
                format!("({text} LIKE '{DIGITS}' OR {text} LIKE '{DIGITS}T00:00:00%')")
            }
        }
    }
}
