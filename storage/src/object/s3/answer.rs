//! An answer, and whether it is the object store's at all: on a store's line a captive portal, a
//! filter or a proxy may answer in its place, with any status.

use bytes::Bytes;
use jiff::Timestamp;
use md5::{Digest, Md5};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};

use crate::hex::hex;

/// What is shown of a message.
const MESSAGE_CHARS: usize = 300;

#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A page for people instead of an answer to a program.
    pub fn is_a_page(&self) -> bool {
        let start = self.body.trim_ascii_start().get(..14).unwrap_or(self.body.trim_ascii_start());
        let start = start.to_ascii_lowercase();
        let looks_so = start.starts_with(b"<!doctype html") || start.starts_with(b"<html");
        let is_called_so = self.header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
        looks_so || is_called_so && !self.is_of_s3()
    }

    /// Object stores say so in their headers.
    pub fn is_of_s3(&self) -> bool {
        self.headers.keys().any(|name| name.as_str().starts_with("x-amz"))
    }

    /// Without quotes; of a put in one piece it is the MD5 of the object, unless it was encrypted
    /// with a key of the owner.
    pub fn etag(&self) -> Option<&str> {
        Some(self.header(ETAG)?.trim_start_matches("W/").trim_matches('"'))
    }

    /// A whole object: with the store's own headers, or with its hash.
    pub fn is_object(&self) -> bool {
        let is_whole = |etag: &str| self.is_of_s3() || etag == hex(&md5_of(&self.body));
        !self.is_a_page() && self.etag().is_some_and(is_whole)
    }

    /// By the server's clock.
    pub fn date(&self) -> Option<Timestamp> {
        http_date(self.header(DATE)?)
    }

    pub fn last_modified(&self) -> Option<Timestamp> {
        http_date(self.header(LAST_MODIFIED)?)
    }

    /// The text of an XML element without children, of an error's body.
    pub fn tag(&self, name: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let found = text.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
        let inner = found.map(|(inner, _)| inner).unwrap_or_default();
        let plain = inner.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        plain.chars().filter(|char| !char.is_control()).take(MESSAGE_CHARS).collect()
    }

    /// What a stranger's answer looks like.
    pub fn describe(&self) -> String {
        let kind = self.header(CONTENT_TYPE).unwrap_or("no content type");
        format!("got {} bytes of {kind}", self.body.len())
    }
}

/// As HTTP writes it: `Sun, 22 Nov 2026 15:34:58 GMT`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

pub(super) type Md5Sum = [u8; 16];

pub(super) fn md5_of(bytes: &[u8]) -> Md5Sum {
    Md5::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Answer {
        let header = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(header).collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_page_is_told_from_an_answer_whatever_it_calls_itself() {
        let page = "\n <!DOCTYPE HTML><title>Bienvenido</title>";
        assert!(answer(200, &[("content-type", "text/html")], page).is_a_page());
        assert!(answer(200, &[("content-type", "application/xml")], page).is_a_page());
        assert!(answer(200, &[("content-type", "text/html; charset=utf-8")], "").is_a_page());
        let quiet = [("content-type", "text/html; charset=utf-8"), ("x-amz-request-id", "1")];
        assert!(!answer(404, &quiet, "").is_a_page());
        assert!(!answer(200, &[("content-type", "application/octet-stream")], "PAR1").is_a_page());
    }

    #[test]
    fn dates_and_errors_are_read_as_servers_write_them() {
        let date = answer(200, &[("date", "Sun, 22 Nov 2026 15:34:58 GMT")], "").date().unwrap();
        assert_eq!(date.to_string(), "2026-11-22T15:34:58Z");
        let error = answer(403, &[], "<Error><Code>A&amp;B</Code><Message>no\n&lt;way&gt;</Message></Error>");
        assert_eq!((error.tag("Code").as_str(), error.tag("Message").as_str()), ("A&B", "no<way>"));
        assert_eq!(error.tag("Nothing"), "");
    }
}
