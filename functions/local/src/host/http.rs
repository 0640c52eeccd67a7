//! HTTP: readers get the `status` function; event bodies go to `ingest`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, body};
use ribera_core::ingest::SweepBudget;
use ribera_core::ingest::event::EVENT_BYTES_MAX;
use ribera_storage::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::json;

use super::ingester::Ingester;

/// The routes of `infra/spin.toml`, on one machine.
pub fn router(ingester: Arc<Ingester>, listen: SocketAddr) -> Router {
    Router::new().fallback(answer).with_state(Served { ingester, listen })
}

#[derive(Clone)]
struct Served {
    ingester: Arc<Ingester>,
    listen: SocketAddr,
}

async fn answer(State(served): State<Served>, request: Request) -> Response {
    if !names_this_host(request.headers(), served.listen) || !is_same_origin(request.headers()) {
        return failure(StatusCode::FORBIDDEN, "forbidden", "host or origin: must be this server");
    }
    let path = request.uri().path().to_owned();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let method = request.method().clone();
    let outcome = match (&method, path.as_str()) {
        (&Method::POST, "/ingest" | "/sweep" | "/coverage") => act(&served.ingester, &path, request.into_body()).await,
        (&Method::GET | &Method::HEAD, _) => show(&served.ingester, &method, &target).await,
        _ => return failure(StatusCode::METHOD_NOT_ALLOWED, "method", "method: must be GET, or POST of a function"),
    };
    outcome.unwrap_or_else(|error| {
        tracing::error!(path, %error, "request failed");
        failure(status_of(error.kind()), error.kind().as_str(), error.message())
    })
}

async fn act(ingester: &Ingester, path: &str, body: Body) -> Result<Response> {
    let body = body::to_bytes(body, EVENT_BYTES_MAX).await.map_err(|error| {
        Error::reject(format!("body: must arrive whole within {EVENT_BYTES_MAX} bytes")).with_source(error)
    })?;
    match path {
        "/ingest" => json_reply(&ingester.event(body).await?),
        "/sweep" => json_reply(&ingester.functions().sweep(&SweepBudget::default()).await?),
        _ => json_reply(&ingester.functions().coverage().await?),
    }
}

async fn show(ingester: &Ingester, method: &Method, target: &str) -> Result<Response> {
    let answer = ingester.functions().status(method.as_str(), target).await?;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = answer.headers;
    Ok(response)
}

fn json_reply<T: Serialize>(value: &T) -> Result<Response> {
    let body = serde_json::to_vec(value).map_err(|error| Error::bug("answer does not serialise").with_source(error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message}}).to_string();
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Reject => StatusCode::BAD_REQUEST,
        ErrorKind::Fenced => StatusCode::CONFLICT,
        ErrorKind::Retry => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Config | ErrorKind::Data | ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A server of this machine answers to an address or `localhost` only: a page elsewhere whose name
/// was made to point here is not let in.
fn names_this_host(headers: &HeaderMap, listen: SocketAddr) -> bool {
    if !listen.ip().is_loopback() {
        return true;
    }
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// A browser that sends for another page says so.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority == host),
        (origin, _) => origin.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_foreign_name_that_points_here_is_not_let_in() {
        let listen = "127.0.0.1:8480".parse().unwrap();
        for host in ["127.0.0.1:8480", "localhost:8480", "[::1]:8480", "LOCALHOST"] {
            assert!(names_this_host(&headers(&[("host", host)]), listen), "{host}");
        }
        assert!(!names_this_host(&headers(&[("host", "evil.example:8480")]), listen));
    }

    #[test]
    fn a_page_of_another_origin_cannot_send() {
        assert!(is_same_origin(&headers(&[("host", "localhost:1")])));
        assert!(is_same_origin(&headers(&[("host", "localhost:1"), ("origin", "http://localhost:1")])));
        assert!(!is_same_origin(&headers(&[("host", "localhost:1"), ("origin", "https://evil.example")])));
        assert!(!is_same_origin(&headers(&[("host", "localhost:1"), ("origin", "null")])));
    }
}
