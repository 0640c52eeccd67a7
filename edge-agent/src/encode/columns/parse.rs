//! Text of decimals, dates and times, read byte by byte without allocating.

use crate::calendar::{DAY_MICROS, days_of_civil};

/// A decimal's digits as an integer of 10^-scale: an optional sign, digits, an optional fraction.
/// `None` when it is something else, has more digits than `scale` that are not zero, or
/// overflows.
pub fn decimal(text: &[u8], scale: u8) -> Option<i128> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    // Up to 18 digits fit 64 bits, which is nearly every value and quicker.
    let number = if digits.len() + usize::from(scale) <= 18 {
        i128::from(short_decimal(digits, scale)?)
    } else {
        long_decimal(digits, scale)?
    };
    Some(if negative { -number } else { number })
}

fn short_decimal(digits: &[u8], scale: u8) -> Option<i64> {
    let mut number: i64 = 0;
    let mut fraction: Option<u8> = None;
    for &byte in digits {
        match (byte, &mut fraction) {
            (b'.', None) => fraction = Some(0),
            (b'0', Some(seen)) if *seen >= scale => {}
            (b'0'..=b'9', Some(seen)) if *seen < scale => {
                *seen += 1;
                number = number * 10 + i64::from(byte - b'0');
            }
            (b'0'..=b'9', None) => number = number * 10 + i64::from(byte - b'0'),
            _ => return None,
        }
    }
    if digits.is_empty() || digits == b"." {
        return None;
    }
    Some(number * 10_i64.pow(u32::from(scale - fraction.unwrap_or(0))))
}

fn long_decimal(digits: &[u8], scale: u8) -> Option<i128> {
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &digits[..0]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (kept, cut) = fraction.split_at(fraction.len().min(scale.into()));
    if cut.iter().any(|byte| *byte != b'0') {
        return None;
    }
    let mut number: i128 = 0;
    for &byte in whole.iter().chain(kept) {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    number.checked_mul(10_i128.checked_pow(u32::from(scale) - kept.len() as u32)?)
}

/// A date and time as written, and its offset from UTC if it says one; both in microseconds.
#[derive(Debug, PartialEq, Eq)]
pub struct DateTime {
    pub local: i64,
    pub offset: Option<i64>,
}

/// `YYYY-MM-DD`, then perhaps blank or T and `HH:MM[:SS[.fraction]]`, then perhaps Z or
/// `+HH[[:]MM]`. Digits finer than a microsecond must be zero unless `truncate`.
pub fn date_time(text: &str, truncate: bool) -> Option<DateTime> {
    let mut rest = Reader(text.as_bytes());
    let year = rest.digits(4)?;
    rest.byte(b'-')?;
    let month = rest.digits(2)?;
    rest.byte(b'-')?;
    let day = rest.digits(2)?;
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    let midnight = i64::from(days_of_civil(year, month, day)) * DAY_MICROS;
    if rest.0.is_empty() {
        return Some(DateTime { local: midnight, offset: None });
    }
    if rest.byte(b' ').is_none() {
        rest.byte(b'T')?;
    }
    let hour = rest.digits(2)?;
    rest.byte(b':')?;
    let minute = rest.digits(2)?;
    let mut second = 0;
    let mut micros = 0;
    if rest.byte(b':').is_some() {
        second = rest.digits(2)?;
        if rest.byte(b'.').is_some() {
            micros = rest.fraction(truncate)?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let offset = rest.offset()?;
    Some(DateTime { local: midnight + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros, offset })
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        if *first != wanted {
            return None;
        }
        self.0 = rest;
        Some(())
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let mut number = 0;
        for byte in digits {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i64::from(byte - b'0');
        }
        self.0 = rest;
        Some(number)
    }

    fn fraction(&mut self, truncate: bool) -> Option<i64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        if length == 0 || (!truncate && digits.iter().skip(6).any(|byte| *byte != b'0')) {
            return None;
        }
        self.0 = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
        Some(padded.fold(0, |number, byte| number * 10 + i64::from(byte - b'0')))
    }

    /// The offset at the end of the text; the outer `None` is for a text that goes on otherwise.
    fn offset(&mut self) -> Option<Option<i64>> {
        let sign = match self.0 {
            [] => return Some(None),
            b"Z" => return Some(Some(0)),
            [b'+', ..] => 1,
            [b'-', ..] => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.digits(2)?;
        let minutes = if self.0.is_empty() {
            0
        } else {
            // The colon may be left out.
            let _ = self.byte(b':');
            self.digits(2)?
        };
        let fits = self.0.is_empty() && hours <= 15 && minutes <= 59;
        fits.then_some(Some(sign * (hours * 60 + minutes) * 60_000_000))
    }
}
