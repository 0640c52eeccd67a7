//! The `ingest` function as a WASM component: `POST /ingest` with an event body, `POST /sweep`.

use ribera_spin_adapter::HttpReply;
use spin_sdk::http::Request;
use spin_sdk::http_service;

#[http_service]
async fn handle(request: Request) -> HttpReply {
    ribera_spin_adapter::ingest(request).await
}
