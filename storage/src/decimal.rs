//! Exact decimals for sums: an integer and a scale, never a float.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// `unscaled * 10^-scale`. Two values are equal when they are the same number, whatever their
/// scales. Text and JSON form: plain decimal text with `scale` fraction digits.
#[derive(Debug, Clone, Copy)]
pub struct ExactDecimal {
    unscaled: i128,
    scale: u8,
}

impl ExactDecimal {
    pub const ZERO: Self = Self { unscaled: 0, scale: 0 };

    pub const fn new(unscaled: i128, scale: u8) -> Self {
        Self { unscaled, scale }
    }

    pub fn unscaled(self) -> i128 {
        self.unscaled
    }

    pub fn scale(self) -> u8 {
        self.scale
    }

    /// The same number with `scale` fraction digits; `None` when digits would be lost or the
    /// number does not fit.
    pub fn rescale(self, scale: u8) -> Option<Self> {
        let unscaled = match scale.cmp(&self.scale) {
            Ordering::Equal => self.unscaled,
            Ordering::Greater => self.unscaled.checked_mul(pow10(scale - self.scale)?)?,
            Ordering::Less => {
                let factor = pow10(self.scale - scale)?;
                if self.unscaled % factor != 0 {
                    return None;
                }
                self.unscaled / factor
            }
        };
        Some(Self { unscaled, scale })
    }

    /// The number with `digits` fraction digits, the nearest that there is; a half goes away from zero. `None` when it
    /// does not fit.
    pub fn rounded(self, digits: u8) -> Option<Self> {
        if digits >= self.scale {
            return self.rescale(digits);
        }
        // Beyond 38 digits nothing is left of it.
        let Some(factor) = pow10(self.scale - digits) else { return Some(Self { unscaled: 0, scale: digits }) };
        let (whole, rest) = (self.unscaled / factor, self.unscaled % factor);
        let goes_on = rest.unsigned_abs() >= factor.unsigned_abs() - rest.unsigned_abs();
        let unscaled = if goes_on { whole + self.unscaled.signum() } else { whole };
        Some(Self { unscaled, scale: digits })
    }

    /// The sum in the finer of both scales; `None` when it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let (left, right) = (self.rescale(scale)?, other.rescale(scale)?);
        Some(Self { unscaled: left.unscaled.checked_add(right.unscaled)?, scale })
    }

    /// Without trailing zeros in the fraction.
    #[must_use]
    pub fn normalized(self) -> Self {
        let (mut unscaled, mut scale) = (self.unscaled, self.scale);
        while scale > 0 && unscaled % 10 == 0 {
            unscaled /= 10;
            scale -= 1;
        }
        Self { unscaled, scale }
    }
}

fn pow10(exponent: u8) -> Option<i128> {
    10_i128.checked_pow(u32::from(exponent))
}

impl PartialEq for ExactDecimal {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (self.normalized(), other.normalized());
        left.unscaled == right.unscaled && left.scale == right.scale
    }
}

impl Eq for ExactDecimal {}

impl fmt::Display for ExactDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let digits = self.unscaled.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl FromStr for ExactDecimal {
    type Err = Error;

    /// Accepts an optional sign, digits and an optional fraction; no exponent, no blanks.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::reject(format!("decimal: expected plain digits like -12.50, got {text:?}"));
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 38 {
            return Err(bad());
        }
        let mut unscaled: i128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(bad());
            }
            unscaled = unscaled
                .checked_mul(10)
                .and_then(|value| value.checked_add(i128::from(byte - b'0')))
                .ok_or_else(bad)?;
        }
        let scale = u8::try_from(fraction.len()).map_err(|_| bad())?;
        Ok(Self { unscaled: if negative { -unscaled } else { unscaled }, scale })
    }
}

impl Serialize for ExactDecimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExactDecimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_print_and_parse_to_the_same_number() {
        for text in ["0", "-0.01", "12.50", "4596039.58", "-99999999999999999999.0001"] {
            let value: ExactDecimal = text.parse().unwrap();
            assert_eq!(value.to_string(), text);
        }
        assert_eq!(".5".parse::<ExactDecimal>().unwrap().to_string(), "0.5");
    }

    #[test]
    fn decimals_of_different_scales_are_equal_when_they_are_the_same_number() {
        let coarse: ExactDecimal = "152923108".parse().unwrap();
        let fine: ExactDecimal = "152923108.000".parse().unwrap();
        assert_eq!(coarse, fine);
        assert_ne!(coarse, "152923108.001".parse().unwrap());
    }

    #[test]
    fn text_that_is_not_a_plain_decimal_is_refused_with_the_value_got() {
        for text in ["", "-", ".", "1e5", "1,5", " 1", "NaN"] {
            let error = text.parse::<ExactDecimal>().unwrap_err();
            assert!(error.message().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn rounding_takes_the_nearest_and_a_half_away_from_zero() {
        for (text, digits, expected) in [
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("1.00499999", 2, "1.00"),
            ("-0.004", 2, "0.00"),
            ("7", 2, "7.00"),
            ("99.995", 2, "100.00"),
            ("0.5", 0, "1"),
            ("-0.49", 0, "0"),
        ] {
            let value: ExactDecimal = text.parse().unwrap();
            assert_eq!(value.rounded(digits).unwrap().to_string(), expected, "{text}");
        }
        assert!(ExactDecimal::new(i128::MAX, 0).rounded(2).is_none());
        assert_eq!(ExactDecimal::new(i128::MIN, 0).rounded(0).unwrap().unscaled(), i128::MIN);
    }

    #[test]
    fn rescaling_never_loses_digits() {
        let value: ExactDecimal = "1.25".parse().unwrap();
        assert!(value.rescale(1).is_none());
        assert_eq!(value.rescale(4).unwrap().to_string(), "1.2500");
    }
}
