//! The `coverage` function as a WASM component: `POST /coverage`.

use ribera_spin_adapter::HttpReply;
use spin_sdk::http::Request;
use spin_sdk::http_service;

#[http_service]
async fn handle(request: Request) -> HttpReply {
    ribera_spin_adapter::coverage(request).await
}
