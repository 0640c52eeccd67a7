//! `status`: a read-only JSON API and one page, answered from the persisted summary in constant
//! time.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the page (`?lang=en`) |
//! | `/api/v1/summary?dataset=` | totals and lights |
//! | `/api/v1/stores?dataset=&after=&limit=` | stores with their lights, a page of them |
//! | `/api/v1/calendar?dataset=&store=&month=` | the days of one store and month |
//! | `/api/v1/runs?limit=` | the last runs |
//! | `/health` | `ok` |

use ribera_storage::ObjectStore;
use ribera_storage::ports::{Clock, Random};

use crate::Deps;

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

/// Answers a request; an error becomes a response with a stable code.
pub async fn respond<S: ObjectStore, C: Clock, R: Random>(_deps: &Deps<S, C, R>, _request: &Request) -> Response {
    Response { status: 503, content_type: "application/json", body: String::new(), log: None }
}
