//! What went wrong with a request, told apart by what the caller or a person should do.

use std::error::Error as StdError;
use std::fmt;

use reqwest::StatusCode;

use super::answer::Answer;
use crate::error::ErrorKind;

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nobody knows the host's name.
    NameUnknown,
    /// No connection, or it broke.
    NoConnection,
    /// The line gave no sign of life for `timeout_s`.
    Stalled,
    /// The server's certificate is signed by nobody known here, or is another's.
    Certificate,
    /// The certificate is not valid at the time that this machine believes it is.
    CertificateTime,
    /// The proxy wants a user and password, or other ones.
    ProxyCredentials,
    /// The proxy does not let the connection through.
    ProxyRefused,
    /// Somebody on the line answers in the object store's place.
    Portal,
    /// 429, 503: later.
    Busy,
    /// Another 5xx, or an answer that makes no sense.
    Server,
    /// The bytes did not arrive as they were sent.
    Damaged,
    /// Two conditional writes at once: neither is told whether it won.
    Conflict,
    /// The access key is unknown or has expired.
    Key,
    /// The secret does not fit the key.
    Signature,
    /// The time of the signature is refused.
    Clock,
    /// The key may not do this.
    Denied,
    Bucket,
    /// The bucket lies in another region or behind another endpoint.
    Region,
    /// The store does not know conditional writes.
    Conditional,
    /// Any other refusal.
    Refused,
}

impl Cause {
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NameUnknown
            | Self::NoConnection
            | Self::Stalled
            | Self::ProxyRefused
            | Self::Portal
            | Self::Busy
            | Self::Server
            | Self::Damaged
            | Self::Conflict => ErrorKind::Retry,
            Self::Certificate
            | Self::CertificateTime
            | Self::ProxyCredentials
            | Self::Key
            | Self::Signature
            | Self::Clock
            | Self::Denied
            | Self::Bucket
            | Self::Region
            | Self::Conditional
            | Self::Refused => ErrorKind::Config,
        }
    }

    /// The same in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NameUnknown => "the endpoint's name is not known",
            Self::NoConnection => "no connection, or it broke",
            Self::Stalled => "no sign of life on the line",
            Self::Certificate => {
                "the certificate is not trusted: name its authority in ca_file, or a portal intercepts"
            }
            Self::CertificateTime => "the certificate is not valid at this machine's time: is its clock right?",
            Self::ProxyCredentials => "the proxy asks for another proxy.user and proxy.password",
            Self::ProxyRefused => "the proxy does not let the connection through",
            Self::Portal => "something else answers in its place (a captive portal or a filter)",
            Self::Busy => "it asks to come back later",
            Self::Server => "it failed",
            Self::Damaged => "the bytes did not arrive as they were sent",
            Self::Conflict => "another write of the same name is under way",
            Self::Key => "access_key_id or session_token is unknown or has expired",
            Self::Signature => "secret_access_key does not fit access_key_id",
            Self::Clock => "the time of the signature is refused: set this machine's clock",
            Self::Denied => "the key lacks the right",
            Self::Bucket => "the bucket does not exist",
            Self::Region => "the bucket is in another region or behind another endpoint",
            Self::Conditional => "the store does not know conditional writes (If-None-Match), which Ribera needs",
            Self::Refused => "it refuses",
        }
    }
}

/// One request that failed. Never holds a URL, which would hold a signature.
#[derive(Debug)]
pub struct S3Failure {
    pub cause: Cause,
    pub status: Option<u16>,
    /// As the store names it, such as `SignatureDoesNotMatch`.
    pub code: String,
    pub message: String,
}

impl S3Failure {
    pub(super) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, status: None, code: String::new(), message: message.into() }
    }

    /// What an answer that is not the hoped-for one says.
    pub(super) fn of_answer(answer: &Answer) -> Self {
        let (code, message) = (answer.tag("Code"), answer.tag("Message"));
        let cause = cause_of(answer, &code);
        let message = match (cause, message) {
            (Cause::Portal, _) => answer.describe(),
            (_, message) => message,
        };
        Self { cause, status: Some(answer.status.as_u16()), code, message }
    }

    /// A request without an answer.
    pub(super) fn of_transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut texts = vec![error.to_string()];
        let mut cause = Cause::NoConnection;
        let mut next: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(one) = next {
            let text = one.to_string();
            cause = match rustls_error(one) {
                Some(tls) => certificate_cause(tls).unwrap_or(cause),
                None if text.contains("proxy authorization required") => Cause::ProxyCredentials,
                None if text == "tunnel error: unsuccessful" => Cause::ProxyRefused,
                None if text.contains("dns error") => Cause::NameUnknown,
                None => cause,
            };
            if texts.last() != Some(&text) {
                texts.push(text);
            }
            next = one.source();
        }
        Self::new(cause, texts.join(": "))
    }
}

impl fmt::Display for S3Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let parts = [status.as_str(), &self.code, &self.message];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        f.write_str(&parts.join(" "))
    }
}

impl StdError for S3Failure {}

fn cause_of(answer: &Answer, code: &str) -> Cause {
    if answer.is_a_page() {
        return if answer.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            Cause::ProxyCredentials
        } else {
            Cause::Portal
        };
    }
    match code {
        "InvalidAccessKeyId" | "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => return Cause::Key,
        "SignatureDoesNotMatch" => return Cause::Signature,
        "RequestTimeTooSkewed" | "RequestExpired" => return Cause::Clock,
        "NoSuchBucket" => return Cause::Bucket,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            return Cause::Region;
        }
        "AuthorizationQueryParametersError" if answer.tag("Message").contains("region") => return Cause::Region,
        "NotImplemented" => return Cause::Conditional,
        "BadDigest" | "IncompleteBody" | "RequestTimeout" | "XAmzContentSHA256Mismatch" => return Cause::Damaged,
        "SlowDown" | "ServiceUnavailable" | "Throttling" | "TooManyRequests" => return Cause::Busy,
        _ => {}
    }
    match answer.status.as_u16() {
        // A refusal of query-signed requests whose time is over has no code of its own.
        401 | 403 if code == "AccessDenied" && answer.tag("Message").contains("xpired") => Cause::Clock,
        401 | 403 => Cause::Denied,
        407 => Cause::ProxyCredentials,
        409 => Cause::Conflict,
        301 => Cause::Region,
        300..=399 => Cause::Portal,
        408 => Cause::Stalled,
        429 | 503 => Cause::Busy,
        501 => Cause::Conditional,
        500..=599 => Cause::Server,
        400..=499 => Cause::Refused,
        _ => Cause::Portal,
    }
}

/// The error of TLS that stands behind another, also inside an error of input and output.
fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    let inner: &(dyn StdError + 'static) = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    rustls_error(inner)
}

fn certificate_cause(error: &rustls::Error) -> Option<Cause> {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => Some(Cause::CertificateTime),
        rustls::Error::InvalidCertificate(_) => Some(Cause::Certificate),
        _ => None,
    }
}
