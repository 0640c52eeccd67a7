//! Text from outside, made safe to show in a terminal and a log.
//!
//! A store's manifest, a file name, a database's error: any of them may hold control characters that move
//! the cursor, hide text or turn its direction. They become visible escapes such as `\u{1b}`.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters of a value that [`quoted`] keeps.
const QUOTED_CHARS_MAX: usize = 80;

/// True for a character that changes how a terminal or a page shows the text around it: C0, DEL, C1, the
/// controls of text direction, and the separators that some viewers take for a line break.
pub fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

/// `text` of several lines: line breaks stay, every other control character becomes an escape.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| letter != '\n' && is_control(letter), push_visible)
}

/// `text` in one line: line breaks become escapes too, so that nobody can forge a line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_control, push_visible)
}

/// A JSON document with the same meaning and no control character but line breaks. A serialiser escapes C0
/// only; the others can stand in a string alone.
pub fn json(document: &str) -> Cow<'_, str> {
    escaped(document, |letter| letter != '\n' && is_control(letter), push_json)
}

/// A value as an error quotes it: in quotes, in one line, at most 80 characters.
pub fn quoted(value: &str) -> String {
    let short: String = value.chars().take(QUOTED_CHARS_MAX).collect();
    let dots = if short.len() < value.len() { "…" } else { "" };
    let debug = format!("{short:?}");
    format!("{}{dots}", line(&debug))
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool, push: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.chars().any(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_unsafe(letter) { push(&mut safe, letter) } else { safe.push(letter) }
    }
    Cow::Owned(safe)
}

fn push_visible(safe: &mut String, letter: char) {
    safe.extend(letter.escape_default());
}

fn push_json(safe: &mut String, letter: char) {
    for unit in letter.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(safe, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}b\u{2066}\u{200f}\u{61c}\r\u{8}\u{0}\t";

    #[test]
    fn control_characters_become_visible_escapes_and_other_text_stays() {
        assert_eq!(printable(HOSTILE), r"a\u{1b}[2J\u{7f}\u{9b}31m\u{202e}b\u{2066}\u{200f}\u{61c}\r\u{8}\u{0}\t");
        let plain = "Año «ñandú» 東京 👩‍🌾 \\ ' \"\nsegunda línea";
        assert!(matches!(printable(plain), Cow::Borrowed(text) if text == plain));
    }

    #[test]
    fn a_line_cannot_be_forged() {
        assert_eq!(line("a\nb\u{2028}c"), r"a\nb\u{2028}c");
        assert_eq!(printable("a\nb"), "a\nb");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "\u{e0041}"] });
        let document = serde_json::to_string_pretty(&value).unwrap();
        let safe = json(&document);
        assert!(safe.chars().all(|letter| letter == '\n' || !is_control(letter)), "{safe:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn a_quoted_value_is_short_and_holds_no_control_character() {
        assert_eq!(quoted("a\u{1b}\n\u{2066}\""), r#""a\u{1b}\n\u{2066}\"""#);
        assert_eq!(quoted(&"x".repeat(81)), format!("\"{}\"…", "x".repeat(80)));
        for letter in (0..=0x2100_u32).chain(0xe0000..0xe0100).filter_map(char::from_u32) {
            assert!(!quoted(&letter.to_string()).chars().any(is_control), "{letter:?}");
        }
    }
}
