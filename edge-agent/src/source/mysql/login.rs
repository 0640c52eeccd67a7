//! The answers to a server's question for the password.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::fault::Fault;

/// How a server wants the password proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `mysql_native_password`.
    Native,
    /// `caching_sha2_password`.
    CachingSha2,
    /// `sha256_password`: the password itself, which only a safe line may carry.
    Sha256,
}

impl Method {
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"mysql_native_password" => Some(Self::Native),
            b"caching_sha2_password" => Some(Self::CachingSha2),
            b"sha256_password" => Some(Self::Sha256),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Sha256 => "sha256_password",
        }
    }

    /// What to send. `nonce` are the server's random bytes without the zero behind them; `is_safe`
    /// a line that nobody else can read.
    pub fn answer(self, password: &str, nonce: &[u8], is_safe: bool) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Sha256 => plain(password, is_safe),
            _ if password.is_empty() => Ok(Vec::new()),
            Self::Native => {
                let once = Sha1::digest(password);
                let twice = Sha1::digest(once);
                let seeded = Sha1::new().chain_update(nonce).chain_update(twice).finalize();
                Ok(differing(&once, &seeded))
            }
            Self::CachingSha2 => {
                let once = Sha256::digest(password);
                let twice = Sha256::digest(once);
                let seeded = Sha256::new().chain_update(twice).chain_update(nonce).finalize();
                Ok(differing(&once, &seeded))
            }
        }
    }
}

/// The password as it is, which never goes over a line that others can read.
pub fn plain(password: &str, is_safe: bool) -> Result<Vec<u8>, Fault> {
    if !is_safe {
        return Err(Fault::Login(
            "source.tls: must not be \"off\" because the server asks for the password itself".to_owned(),
        ));
    }
    Ok([password.as_bytes(), &[0]].concat())
}

fn differing(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"abcdefghijklmnopqrst";

    /// What a server does: it keeps the double hash alone, and gets the single one out of the answer.
    #[test]
    fn a_server_that_keeps_the_double_hash_recognises_the_password() {
        let answer = Method::Native.answer("clave", NONCE, false).unwrap();
        let kept = Sha1::digest(Sha1::digest("clave"));
        let once = differing(&answer, &Sha1::new().chain_update(NONCE).chain_update(kept).finalize());
        assert_eq!(Sha1::digest(once), kept);
        let answer = Method::CachingSha2.answer("clave", NONCE, false).unwrap();
        let kept = Sha256::digest(Sha256::digest("clave"));
        let once = differing(&answer, &Sha256::new().chain_update(kept).chain_update(NONCE).finalize());
        assert_eq!(Sha256::digest(once), kept);
    }

    #[test]
    fn an_empty_password_is_answered_with_nothing() {
        for method in [Method::Native, Method::CachingSha2] {
            assert!(method.answer("", NONCE, false).unwrap().is_empty());
        }
    }

    #[test]
    fn the_password_itself_never_goes_over_an_open_line() {
        assert!(
            matches!(Method::Sha256.answer("clave", NONCE, false), Err(Fault::Login(why)) if !why.contains("clave"))
        );
        assert_eq!(Method::Sha256.answer("clave", NONCE, true).unwrap(), b"clave\0");
    }
}
