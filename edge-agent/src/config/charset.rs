//! The character sets of text that no server converts.

use std::borrow::Cow;
use std::fmt;

use encoding_rs::Encoding;
use serde::{Deserialize, Deserializer};

/// A character set that has ASCII in its place, by a name of the WHATWG Encoding Standard: `windows-1252`,
/// `iso-8859-2`, `utf-8` and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset(&'static Encoding);

impl Charset {
    /// `None` for a name that is none, and for character sets such as UTF-16 in which ASCII is something else.
    pub fn of(name: &str) -> Option<Self> {
        Encoding::for_label(name.as_bytes()).filter(|encoding| encoding.is_ascii_compatible()).map(Self)
    }

    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The text, or `None` when the bytes are none in this character set.
    pub fn decode(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        self.0.decode_without_bom_handling_and_without_replacement(bytes)
    }
}

impl fmt::Display for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_ascii_lowercase())
    }
}

impl<'de> Deserialize<'de> for Charset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::of(&name).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "charset: must be the name of a character set, such as windows-1252, iso-8859-2 or utf-8, got {name:?}"
            ))
        })
    }
}

/// Bytes as text of `charset`, or as UTF-8 where none is declared.
pub fn decoded(bytes: &[u8], charset: Option<Charset>) -> Option<Cow<'_, str>> {
    match charset {
        Some(charset) => charset.decode(bytes),
        None => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_character_set_reads_every_byte_and_no_other_does() {
        let spanish = Charset::of("windows-1252").unwrap();
        let all: Vec<u8> = (0..=255).collect();
        let text = spanish.decode(&all).unwrap();
        let distinct: std::collections::BTreeSet<char> = text.chars().collect();
        assert_eq!((text.chars().count(), distinct.len()), (256, 256));
        assert_eq!(spanish.decode(b"PE\xd1A \x80").unwrap(), "PEÑA €");
        assert_eq!(decoded(b"PE\xd1A", None), None);
        assert_eq!(decoded("PEÑA".as_bytes(), None).unwrap(), "PEÑA");
    }

    #[test]
    fn names_that_are_none_and_sets_without_ascii_are_not_taken() {
        for name in ["", "cp9999", "utf-16le", "iso-2022-jp", "replacement", "windows 1252"] {
            assert_eq!(Charset::of(name), None, "{name}");
        }
        assert_eq!(Charset::of("Latin1").unwrap().to_string(), "windows-1252");
    }
}
