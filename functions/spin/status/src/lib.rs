//! The `status` function as a WASM component: read-only JSON and one page.

use ribera_spin_adapter::HttpReply;
use spin_sdk::http::Request;
use spin_sdk::http_service;

#[http_service]
async fn handle(request: Request) -> HttpReply {
    ribera_spin_adapter::status(request).await
}
