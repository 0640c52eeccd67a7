//! HTML that cannot be broken by what it shows.

use std::fmt::{self, Write};

/// A page as it grows. Text goes in escaped; tags are our own literals.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Markup of our own.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, in an element or in a quoted attribute.
    pub fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        // Writing to a string cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// `<tag>text</tag>`.
    pub fn element(&mut self, tag: &'static str, text: impl fmt::Display) -> &mut Self {
        self.raw("<").raw(tag).raw(">").text(text).raw("</").raw(tag).raw(">")
    }

    /// A link; its parameters are encoded.
    pub fn link(&mut self, parameters: &[(&str, &str)], text: impl fmt::Display) -> &mut Self {
        self.raw("<a href=\"").text(href(parameters)).raw("\">").text(text).raw("</a>")
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A query on the page itself; empty values are left out.
pub fn href(parameters: &[(&str, &str)]) -> String {
    let mut href = String::from("/");
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        href.push(if href.len() == 1 { '?' } else { '&' });
        href.push_str(name);
        href.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => href.push(byte as char),
                _ => {
                    let _ = write!(href, "%{byte:02X}");
                }
            }
        }
    }
    href
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                letter => self.0.push(letter),
            }
        }
        Ok(())
    }
}
