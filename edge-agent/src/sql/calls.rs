//! Calls of stored procedures, and the databases that cannot give the rows of one.

use ribera_storage::{Error, Result};

use super::Dialect;

/// Whether a statement calls a procedure.
pub fn is_call(text: &str) -> bool {
    matches!(verb(text).as_str(), "CALL" | "EXEC" | "EXECUTE")
}

/// An error that says what to write instead, where the server has no such call or gives no rows by it.
pub fn refuse_call(text: &str, dialect: Dialect) -> Result<()> {
    let verb = verb(text);
    let instead = match (dialect, verb.as_str()) {
        (Dialect::Mysql, "EXEC" | "EXECUTE") => "CALL procedure(:from, :to)",
        (Dialect::Sqlite, "CALL" | "EXEC" | "EXECUTE") => "SELECT ...: SQLite has no procedures",
        (Dialect::Postgres, "CALL" | "EXEC" | "EXECUTE") => {
            "SELECT * FROM function(:from, :to): rows come by COPY, which takes queries only, and a procedure gives none"
        }
        (Dialect::Firebird, "CALL" | "EXEC" | "EXECUTE") => {
            "SELECT * FROM procedure(:from, :to): a procedure with SUSPEND is asked as a table; one without gives its row \
             only to EXECUTE PROCEDURE, so let one with SUSPEND call it with RETURNING_VALUES"
        }
        _ => return Ok(()),
    };
    Err(Error::config(format!("adapter: query: must be written as {instead}; got {verb}")))
}

/// The first word in capitals, behind blanks and comments.
fn verb(text: &str) -> String {
    let mut rest = text.trim_start();
    loop {
        let behind = match rest.get(..2) {
            Some("--") => rest.split_once('\n'),
            Some("/*") => rest.split_once("*/"),
            _ => break,
        };
        rest = behind.map_or("", |(_, behind)| behind.trim_start());
    }
    rest.chars().take_while(|letter| letter.is_ascii_alphabetic()).collect::<String>().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_from_a_query_behind_blanks_and_comments() {
        for call in ["CALL p(:from)", "  -- ventas\n/* del día */ call p()", "EXEC dbo.p @a = :from", "execute p"] {
            assert!(is_call(call), "{call}");
        }
        for query in ["SELECT call FROM t", "-- CALL p()\nSELECT 1", "WITH x AS (SELECT 1) SELECT 1", "", "callable()"]
        {
            assert!(!is_call(query), "{query}");
        }
    }

    #[test]
    fn a_call_that_gives_no_rows_is_refused_with_what_to_write_instead() {
        let cases = [
            ("EXEC p", Dialect::Mysql, "CALL procedure("),
            ("CALL p()", Dialect::Postgres, "SELECT * FROM function("),
            ("EXECUTE PROCEDURE P(:from)", Dialect::Firebird, "SUSPEND"),
            ("CALL p()", Dialect::Sqlite, "no procedures"),
        ];
        for (call, dialect, word) in cases {
            let error = refuse_call(call, dialect).unwrap_err().to_string();
            assert!(error.contains(word), "{error:?} should name {word:?}");
        }
        assert!(refuse_call("CALL p()", Dialect::Mysql).is_ok());
    }
}
