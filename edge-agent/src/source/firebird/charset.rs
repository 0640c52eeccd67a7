//! Character sets of a Firebird connection. We tell the driver that the connection uses ISO 8859-1, so that it passes
//! bytes through unchanged; the real encoding and decoding happens here.

use bytes::Bytes;
use rsfbclient_core::{Charset, FbError, SqlType, charset};
use rsfbclient_rust::RawValue;

type Driver<T> = std::result::Result<T, FbError>;

pub struct Wire {
    charset: Charset,
}

impl Wire {
    /// `charset`: what the server believes the connection's to be.
    pub fn new(charset: Charset) -> Self {
        Self { charset }
    }

    /// What the driver is told.
    pub fn drivers(&self) -> Charset {
        Charset { on_firebird: self.charset.on_firebird, on_rust: charset::ISO_8859_1.on_rust }
    }

    /// Text for the driver to send.
    pub fn sent(&self, text: &str) -> Driver<String> {
        if text.is_ascii() {
            return Ok(text.to_owned());
        }
        Ok(self.charset.encode(text)?.iter().map(|byte| char::from(*byte)).collect())
    }

    /// A value that the driver decoded.
    pub fn value(&self, value: SqlType) -> Driver<SqlType> {
        match value {
            SqlType::Text(text) => Ok(SqlType::Text(self.charset.decode(bytes(&text))?)),
            other => Ok(other),
        }
    }
}

/// The value with its text as it came from the server.
pub fn raw(value: SqlType) -> RawValue {
    match value {
        SqlType::Null => RawValue::Null,
        SqlType::Text(text) => RawValue::Text(Bytes::from(bytes(&text))),
        SqlType::Binary(bytes) => RawValue::Text(Bytes::from(bytes)),
        SqlType::Integer(number) => RawValue::Integer(number),
        SqlType::Int128(number) => RawValue::Int128(number),
        SqlType::Floating(number) => RawValue::Floating(number),
        SqlType::Timestamp(moment) => RawValue::Timestamp(moment),
        SqlType::Boolean(value) => RawValue::Boolean(value),
    }
}

/// The driver's characters are none but the first 256.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|char| char as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_passes_the_driver_unchanged() {
        let all: Vec<u8> = (0..=255).collect();
        for charset in [charset::UTF_8, charset::WIN_1252] {
            let wire = Wire::new(charset);
            let decoded = wire.drivers().decode(&all[..]).unwrap();
            assert!(matches!(raw(SqlType::Text(decoded.clone())), RawValue::Text(bytes) if bytes == all));
            assert_eq!(wire.drivers().encode(decoded).unwrap(), all);
        }
    }

    #[test]
    fn text_is_sent_in_the_servers_character_set() {
        let sent = |charset: Charset, text: &str| {
            let wire = Wire::new(charset);
            wire.sent(text).map(|text| wire.drivers().encode(text).unwrap().into_owned())
        };
        assert_eq!(sent(charset::UTF_8, "ñ€").unwrap(), "ñ€".as_bytes());
        assert_eq!(sent(charset::WIN_1252, "ñ€").unwrap(), [0xf1, 0x80]);
        assert!(sent(charset::WIN_1252, "日").is_err());
    }
}
