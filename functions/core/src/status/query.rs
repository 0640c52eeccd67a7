//! The query string of a request, bounded and checked.

use std::str::FromStr;

use super::Problem;

const QUERY_BYTES_MAX: usize = 2048;

/// Parameters by name; of a repeated one the first counts.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(Problem::new(
                414,
                "query_too_long",
                format!("the query must be at most {QUERY_BYTES_MAX} bytes"),
            ));
        }
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        });
        pairs
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| Problem::new(400, "bad_query", "the query must be percent-encoded UTF-8"))
    }

    /// The parameter's text; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(found, _)| found == name)?.1.as_str();
        (!value.is_empty()).then_some(value)
    }

    pub fn parsed<T: FromStr>(&self, name: &str, rule: &str) -> Result<Option<T>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Problem::bad_parameter(name, rule, text)),
        }
    }

    /// A number from 1 to `max`; `max` when absent.
    pub fn limit(&self, max: usize) -> Result<usize, Problem> {
        let rule = format!("must be 1 to {max}");
        match self.parsed::<usize>("limit", &rule)? {
            None => Ok(max),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(Problem::bad_parameter("limit", &rule, &limit.to_string())),
        }
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
