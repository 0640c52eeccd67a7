//! HTTP: readers get the `status` function; callers wake `ingest`, `sweep` and `coverage`, each kind in a
//! lane of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{self, Body};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ribera_core::coverage::Refreshed;
use ribera_core::headers::SECURITY_HEADERS;
use ribera_core::ingest::event::{self, EVENT_BYTES_MAX, EVENT_MANIFESTS_MAX};
use ribera_core::ingest::{IngestReport, SweepReport};
use ribera_storage::object::ObjectPath;
use ribera_storage::{Error, ErrorKind, Result, text};
use serde::Serialize;
use serde_json::json;

use super::ingester::Ingester;
use super::lane::{Answer, Busy, Lane, LaneLimits};
use super::settings::HttpSettings;

/// Callers of one kind that wait at once.
const CALLERS_MAX: usize = 64;

/// Sweeps and coverage cost the same whoever asks: callers get a part of the machine only.
const WHOLE_RUN: LaneLimits =
    LaneLimits { callers_max: CALLERS_MAX, items_max: 0, pause_min: Duration::from_secs(5), pause_factor: 3 };

/// An event costs what it names.
const EVENT_RUN: LaneLimits =
    LaneLimits { callers_max: CALLERS_MAX, items_max: EVENT_MANIFESTS_MAX, pause_min: Duration::ZERO, pause_factor: 0 };

/// The routes of `infra/spin.toml`, on one machine.
pub struct Routes {
    ingester: Arc<Ingester>,
    guard: Guard,
    body_time_max: Duration,
    events: Lane<ObjectPath, IngestReport>,
    sweeps: Lane<(), SweepReport>,
    coverage: Lane<(), Refreshed>,
}

impl Routes {
    pub fn new(ingester: Arc<Ingester>, listen: SocketAddr, settings: &HttpSettings) -> Self {
        Self {
            ingester,
            guard: Guard::new(listen, settings, own_name()),
            body_time_max: settings.request_time_max(),
            events: Lane::new(EVENT_RUN),
            sweeps: Lane::new(WHOLE_RUN),
            coverage: Lane::new(WHOLE_RUN),
        }
    }

    /// Answers a request. Every answer carries the security headers.
    pub async fn answer(&self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let mut response = match self.route(request, &path).await {
            Ok(response) => response,
            Err(Failure::Refused(response)) => *response,
            Err(Failure::Error(error)) => {
                tracing::error!(path, %error, "request failed");
                failure(status_of(error.kind()), error.kind().as_str(), error.message())
            }
        };
        for (name, value) in SECURITY_HEADERS {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }

    async fn route(&self, request: Request, path: &str) -> Result<Response, Failure> {
        self.guard.check(request.headers())?;
        match (request.method(), path) {
            (&Method::POST, "/ingest" | "/sweep" | "/coverage") => {
                let body = self.read(request.into_body()).await?;
                self.act(path, &body).await
            }
            (&Method::GET | &Method::HEAD, _) => {
                let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
                Ok(show(&self.ingester, request.method(), target).await?)
            }
            _ => {
                let message = "method: must be GET, or POST of a function";
                Err(Failure::refused(failure(StatusCode::METHOD_NOT_ALLOWED, "method", message)))
            }
        }
    }

    async fn read(&self, body: Body) -> Result<body::Bytes, Failure> {
        match tokio::time::timeout(self.body_time_max, body::to_bytes(body, EVENT_BYTES_MAX)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(Failure::Error(
                Error::reject(format!("body: must arrive complete within {EVENT_BYTES_MAX} bytes")).with_source(error),
            )),
            Err(_) => {
                let message = format!("body: must arrive within {:?}", self.body_time_max);
                Err(Failure::refused(closing(failure(StatusCode::REQUEST_TIMEOUT, "timeout", &message))))
            }
        }
    }

    async fn act(&self, path: &str, body: &[u8]) -> Result<Response, Failure> {
        let ingester = self.ingester.clone();
        match path {
            "/ingest" => self.event(event::manifest_paths(body)?).await,
            "/sweep" => {
                let sweep = move |_| {
                    let ingester = ingester.clone();
                    async move { ingester.sweep_for_callers().await }
                };
                reply(self.sweeps.join(Vec::new(), sweep).await?)
            }
            _ => {
                let compute = move |_| {
                    let ingester = ingester.clone();
                    async move { ingester.functions().for_callers().coverage().await }
                };
                reply(self.coverage.join(Vec::new(), compute).await?)
            }
        }
    }

    /// Several callers share a call; each gets the outcomes of its own manifests.
    async fn event(&self, manifests: Vec<ObjectPath>) -> Result<Response, Failure> {
        let ingester = self.ingester.clone();
        let ingest = move |manifests: Vec<ObjectPath>| {
            let ingester = ingester.clone();
            async move { ingester.ingest_for_callers(&manifests).await }
        };
        let answer = self.events.join(manifests.clone(), ingest).await?;
        let report = answer.as_ref().as_ref().map_err(again)?;
        let named = |path: &str| manifests.iter().any(|manifest| manifest.as_str() == path);
        let outcomes = report.outcomes.iter().filter(|one| named(&one.path)).cloned().collect();
        Ok(json_reply(&IngestReport { outcomes })?)
    }
}

/// Why a request has no answer of a function.
enum Failure {
    Refused(Box<Response>),
    Error(Error),
}

impl Failure {
    fn refused(response: Response) -> Self {
        Self::Refused(Box::new(response))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        let seconds = busy.retry_after.as_secs() + 1;
        let message = format!("too many callers wait for this function; try again in {seconds} s");
        let mut response = failure(StatusCode::TOO_MANY_REQUESTS, "busy", &message);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        Self::refused(closing(response))
    }
}

async fn show(ingester: &Ingester, method: &Method, target: &str) -> Result<Response> {
    let answer = ingester.functions().status(method.as_str(), target).await?;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = answer.headers;
    Ok(response)
}

fn reply<T: Serialize>(answer: Answer<T>) -> Result<Response, Failure> {
    Ok(json_reply(answer.as_ref().as_ref().map_err(again)?)?)
}

/// The error of a run, for one of its callers.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.message())
}

fn json_reply<T: Serialize>(value: &T) -> Result<Response> {
    let body = serde_json::to_vec(value).map_err(|error| Error::bug("answer does not serialise").with_source(error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message}}).to_string();
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// The client is not to hold the connection any longer.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Reject => StatusCode::BAD_REQUEST,
        ErrorKind::Fenced => StatusCode::CONFLICT,
        ErrorKind::Retry => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Config | ErrorKind::Data | ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Keeps out pages of other servers: those that send here, and those whose name was made to point here.
struct Guard {
    /// Names beside `localhost` and addresses, in lower case.
    names: Vec<String>,
}

impl Guard {
    /// A server for this machine only needs no name. One for others has its own beside those allowed.
    fn new(listen: SocketAddr, settings: &HttpSettings, own_name: Option<String>) -> Self {
        let own_name = own_name.filter(|_| !listen.ip().is_loopback());
        let names = settings.allowed_hosts.iter().cloned().chain(own_name);
        Self { names: names.map(|name| name.to_ascii_lowercase()).collect() }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let refused =
            |message: &str| Err(Failure::refused(closing(failure(StatusCode::FORBIDDEN, "forbidden", message))));
        if !is_same_origin(headers) {
            return refused("origin: must be this server");
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
            (None, _) => Ok(()),
            (Some(Ok(host)), None) if self.allows(host) => Ok(()),
            (Some(Ok(host)), None) => refused(&format!(
                "host: must be an address, localhost or a name in http.allowed_hosts of the settings, got {}",
                text::quoted(host)
            )),
            _ => refused("host: must be one name"),
        }
    }

    fn allows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || self.names.contains(&name)
    }
}

/// A browser that sends for another page says so.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority == host),
        (origin, _) => origin.is_none() && !headers.contains_key(header::ORIGIN),
    }
}

/// The name of this machine.
fn own_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn guard(listen: &str, allowed: &[&str]) -> Guard {
        let allowed_hosts = allowed.iter().map(|&name| name.to_owned()).collect();
        let settings = HttpSettings { allowed_hosts, ..HttpSettings::default() };
        Guard::new(listen.parse().unwrap(), &settings, Some("Central".to_owned()))
    }

    fn lets_in(guard: &Guard, pairs: &[(&'static str, &'static str)]) -> bool {
        guard.check(&headers(pairs)).is_ok()
    }

    #[test]
    fn a_foreign_name_that_points_here_is_not_let_in_on_any_address() {
        for listen in ["127.0.0.1:8480", "[::1]:8480", "0.0.0.0:8480", "192.168.1.20:8480"] {
            let guard = guard(listen, &["lago.example.com"]);
            for host in [
                "127.0.0.1:8480",
                "localhost:8480",
                "[::1]:8480",
                "LOCALHOST",
                "192.168.1.20",
                "Lago.Example.com:8480",
                "lago.example.com.",
            ] {
                assert!(guard.allows(host), "{listen}: {host}");
            }
            for host in
                ["evil.example:8480", "lago.example.com.evil.example", "127.0.0.1.evil.example", "", "localhost:80:80"]
            {
                assert!(!guard.allows(host), "{listen}: {host}");
            }
        }
        assert!(guard("0.0.0.0:8480", &[]).allows("central:8480"), "the machine's own name");
        assert!(!guard("127.0.0.1:8480", &[]).allows("central:8480"));
        let guard = guard("127.0.0.1:8480", &[]);
        assert!(!lets_in(&guard, &[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn a_page_of_another_origin_cannot_send() {
        let guard = guard("127.0.0.1:8480", &[]);
        assert!(lets_in(&guard, &[("host", "localhost:1")]));
        assert!(lets_in(&guard, &[("host", "localhost:1"), ("origin", "http://localhost:1")]));
        assert!(!lets_in(&guard, &[("host", "localhost:1"), ("origin", "https://evil.example")]));
        assert!(!lets_in(&guard, &[("host", "localhost:1"), ("origin", "null")]));
    }
}
