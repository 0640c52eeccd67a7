//! Whether a mapping's statement calls a stored procedure.

/// Whether a statement calls a procedure.
pub fn is_call(text: &str) -> bool {
    matches!(verb(text).as_str(), "CALL" | "EXEC" | "EXECUTE")
}

/// The first word in capitals, behind blanks and comments.
pub(crate) fn verb(text: &str) -> String {
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
}
