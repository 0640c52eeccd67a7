//! Text that somebody else wrote, as a message or a terminal shows it.

/// A value as a message shows it: quoted, control characters escaped, at most 80 characters.
pub fn quoted(value: &str) -> String {
    let short: String = value.chars().take(QUOTED_CHARACTERS_MAX).collect();
    let dots = if short.len() < value.len() { "…" } else { "" };
    format!("\"{}\"{dots}", printable(&short.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// The text with every character escaped that a terminal acts on or that changes the direction of
/// others: C0 (line feeds and tabs too), DEL, C1, and the marks of bidirectional text.
pub fn printable(text: &str) -> String {
    if !text.chars().any(is_control) {
        return text.to_owned();
    }
    let escape = |character: char| match is_control(character) {
        true => character.escape_unicode().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const QUOTED_CHARACTERS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let nasty = "a\u{1b}[2Jb\u{7}\u{7f}\u{9b}31m\r\nñ\u{202e}x\u{2066}\u{61c}";
        for text in [printable(nasty), quoted(nasty)] {
            assert!(!text.chars().any(is_control), "{text:?}");
            assert!(text.contains('ñ') && text.contains("\\u{1b}[2J"), "{text}");
        }
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"x".repeat(90)), format!("\"{}\"…", "x".repeat(80)));
    }
}
