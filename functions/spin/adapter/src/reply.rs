//! Answers and errors as HTTP.

use http_body_util::{BodyExt, Limited};
use ribera_core::headers::SECURITY_HEADERS;
use ribera_core::status;
use ribera_storage::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::json;
use spin_sdk::http::{Request, Response};

/// What a component hands to its host.
pub type HttpReply = Response<String>;

pub struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Reply {
    pub fn json<T: Serialize>(value: &T) -> Result<Self> {
        let body =
            serde_json::to_string(value).map_err(|error| Error::bug("answer does not serialise").with_source(error))?;
        Ok(Self { status: 200, content_type: "application/json", body })
    }

    pub fn not_found(path: &str) -> Self {
        Self::error(404, "not_found", &format!("path: no such function here, got {path}"))
    }

    /// The answer, or the error: logged whole, told outside by its kind and message.
    pub fn send(answer: Result<Self>) -> HttpReply {
        answer
            .unwrap_or_else(|error| {
                eprintln!("{error:?}");
                Self::error(http_status(error.kind()), error.kind().as_str(), error.message())
            })
            .into_http()
    }

    pub fn into_http(self) -> HttpReply {
        let response = Response::<()>::builder().status(self.status).header("content-type", self.content_type);
        SECURITY_HEADERS
            .into_iter()
            .fold(response, |response, (name, value)| response.header(name, value))
            .body(self.body)
            .unwrap_or_else(|error| Response::new(error.to_string()))
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"error": {"code": code, "message": message}}).to_string();
        Self { status, content_type: "application/json", body }
    }
}

impl From<status::Response> for Reply {
    fn from(response: status::Response) -> Self {
        if let Some(log) = response.log {
            eprintln!("{log}");
        }
        Self { status: response.status, content_type: response.content_type, body: response.body }
    }
}

pub fn must_be_post(request: &Request) -> Result<()> {
    match request.method().as_str() {
        "POST" => Ok(()),
        other => Err(Error::reject(format!("method: must be POST, got {other}"))),
    }
}

/// The body, which must not be longer than `bytes_max`.
pub async fn read_body(request: Request, bytes_max: usize) -> Result<Vec<u8>> {
    let body = Limited::new(request.into_body(), bytes_max).collect().await;
    body.map(|body| body.to_bytes().into())
        .map_err(|error| Error::reject(format!("body: must arrive whole within {bytes_max} bytes, got {error}")))
}

fn http_status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Reject => 400,
        ErrorKind::Fenced => 409,
        ErrorKind::Retry => 503,
        ErrorKind::Config | ErrorKind::Data | ErrorKind::Bug => 500,
    }
}
