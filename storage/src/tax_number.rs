//! A company's tax number, in the one form that it is compared in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const LENGTH_MAX: usize = 32;

/// Letters in upper case and digits: dots, dashes and blanks are gone. Two numbers are the same
/// company's only if they are equal; a check digit is a character like any other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaxNumber(String);

impl TaxNumber {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TaxNumber {
    type Err = Error;

    /// Reads a number as people write it, such as `900.123.456-7`.
    fn from_str(text: &str) -> Result<Self> {
        let kept = text.chars().filter(|character| !is_between(*character));
        let number: String = kept.map(|character| character.to_ascii_uppercase()).collect();
        let fits = (1..=LENGTH_MAX).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !fits {
            return Err(Error::reject(format!(
                "tax number: must be 1 to {LENGTH_MAX} letters and digits beside dots, dashes and blanks, got {text:?}"
            )));
        }
        Ok(Self(number))
    }
}

/// A dot, a dash of any length, or a blank of any kind.
fn is_between(character: char) -> bool {
    matches!(character, '.' | '-' | '\u{2010}'..='\u{2015}' | '\u{2212}') || character.is_whitespace()
}

impl TryFrom<String> for TaxNumber {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TaxNumber> for String {
    fn from(number: TaxNumber) -> String {
        number.0
    }
}

impl fmt::Display for TaxNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_dashes_and_blanks_go_letters_rise_and_nothing_else_changes() {
        let cases = [
            ("900.123.456-7", "9001234567"),
            (" 76 123 456\u{a0}- k ", "76123456K"),
            ("b\u{2011}12345678", "B12345678"),
            ("0900123456", "0900123456"),
        ];
        for (text, number) in cases {
            let read: TaxNumber = text.parse().unwrap();
            assert_eq!(read.as_str(), number);
            assert_eq!(read.as_str().parse::<TaxNumber>().unwrap(), read, "normalising again changes nothing");
        }
        for text in ["", " -. ", "900/123", "ñ900", "9_1", &"9".repeat(33)] {
            let told = text.parse::<TaxNumber>().unwrap_err().to_string();
            assert!(told.contains("tax number") && told.contains(&format!("{text:?}")), "{told}");
        }
    }
}
