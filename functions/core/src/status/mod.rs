//! `status`: a read-only JSON API and one page, answered from the persisted summary in constant
//! time.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page (`?lang=en`) |
//! | `/api/v1/datasets` | datasets that have coverage |
//! | `/api/v1/summary?dataset=` | totals and lights |
//! | `/api/v1/stores?dataset=&after=&limit=` | stores with their lights, a page of them |
//! | `/api/v1/calendar?dataset=&store=&month=` | the days of one store and month |
//! | `/api/v1/runs?limit=` | the last runs |
//! | `/health` | `ok` |

use ribera_storage::ports::Ports;
use ribera_storage::{Error, ErrorKind, ObjectStore};

mod api;
mod html;
mod page;
mod query;
mod text;

use query::Query;

/// What a host hands over of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query as they came, such as `/api/v1/stores?dataset=ventas`.
    pub target: String,
}

/// What the host sends. Every body is UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
    /// For the host's log, never for the caller.
    pub log: Option<String>,
}

/// A request that is answered with an error: a stable code and an outward message for the caller,
/// an inward one for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    status: u16,
    code: &'static str,
    message: String,
    log: Option<String>,
}

/// Answers a request; an error becomes a response with a stable code.
pub async fn respond<S: ObjectStore>(ports: Ports<'_, S>, request: &Request) -> Response {
    let answer = match request.method.as_str() {
        "GET" | "HEAD" => route(ports, &request.target).await,
        other => Err(Problem::new(
            405,
            "method_not_allowed",
            format!("only GET and HEAD are answered, got {}", shown(other)),
        )),
    };
    let mut response = answer.unwrap_or_else(Problem::into_response);
    if request.method == "HEAD" {
        response.body.clear();
    }
    response
}

async fn route<S: ObjectStore>(ports: Ports<'_, S>, target: &str) -> Result<Response, Problem> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = Query::parse(query)?;
    match path {
        "/health" => Ok(Response::ok("text/plain; charset=utf-8", "ok".to_owned())),
        "/" => page::respond(ports, &query).await,
        "/api/v1/datasets" => api::datasets(ports).await,
        "/api/v1/summary" => api::summary(ports, &query).await,
        "/api/v1/stores" => api::stores(ports, &query).await,
        "/api/v1/calendar" => api::calendar(ports, &query).await,
        "/api/v1/runs" => api::runs(ports, &query).await,
        other => Err(Problem::new(404, "no_such_path", format!("there is nothing at {}", shown(other)))),
    }
}

impl Response {
    fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, body, log: None }
    }
}

impl Problem {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), log: None }
    }

    fn bad_parameter(name: &str, rule: &str, got: &str) -> Self {
        Self::new(400, "bad_parameter", format!("{name}: {rule}, got {}", shown(got)))
    }

    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        // What the caller sent is quoted in it: no browser may take it for markup.
        let body = body.to_string().replace('<', "\\u003c");
        Response { status: self.status, content_type: api::JSON, body, log: self.log }
    }
}

impl From<Error> for Problem {
    /// What went wrong inside is for the log only.
    fn from(error: Error) -> Self {
        let (status, code, message) = match error.kind() {
            ErrorKind::Retry => (503, "try_again", "the object store did not answer; try again"),
            ErrorKind::Reject => (400, "bad_parameter", "a parameter is not what it must be"),
            _ => (500, "internal", "something is wrong inside; its log says what"),
        };
        Self { log: Some(error.to_string()), ..Self::new(status, code, message) }
    }
}

/// What the caller sent, quoted and cut.
fn shown(text: &str) -> String {
    ribera_storage::text::quoted(text)
}

#[cfg(test)]
mod tests;
