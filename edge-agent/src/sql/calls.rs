//! Calls of stored procedures, and the databases that cannot give the rows of one.

use ribera_storage::{Error, Result};

use super::Dialect;
use crate::config::verb;

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

#[cfg(test)]
mod tests {
    use super::*;

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
