//! Turns an HTTP request into a call of `ribera-core` over the object store's folders as the
//! host preopened them. Nothing is decided here.
//!
//! The host gives: the folders of the object store below [`STORE_ROOT`] (each function only those
//! it needs, see `infra/spin.toml`), the WASI clock and randomness, and [`Settings`] in the
//! environment.

use ribera_core::coverage;
use ribera_core::ingest::{self, SweepBudget, event};
use ribera_core::status;
use ribera_storage::object::FolderStore;
use ribera_storage::ports::Host;
use ribera_storage::ports::Random;
use ribera_storage::{Error, Result};
use spin_sdk::http::Request;

mod ports;
mod reply;
mod settings;

use ports::{WasiClock, WasiRandom};
pub use reply::HttpReply;
use reply::Reply;
use settings::Settings;

/// Where the host preopens the folders of the object store.
pub const STORE_ROOT: &str = "/store";

/// `POST /ingest` with an event body, `POST /sweep` with a budget or nothing.
pub async fn ingest(request: Request) -> HttpReply {
    let path = request.uri().path().to_owned();
    let answer = async {
        reply::must_be_post(&request)?;
        let settings = Settings::from_environment()?.ingest;
        let host = writable()?;
        let body = reply::read_body(request, event::EVENT_BYTES_MAX).await?;
        match path.as_str() {
            "/ingest" => {
                let paths = event::manifest_paths(&body)?;
                Reply::json(&ingest::ingest_event(host.ports(), &settings, &paths).await?)
            }
            "/sweep" => Reply::json(&ingest::sweep(host.ports(), &settings, &budget(&body)?).await?),
            _ => Ok(Reply::not_found(&path)),
        }
    };
    Reply::send(answer.await)
}

/// `POST /coverage`, without a body.
pub async fn coverage(request: Request) -> HttpReply {
    let answer = async {
        reply::must_be_post(&request)?;
        let settings = Settings::from_environment()?.coverage;
        Reply::json(&coverage::refresh(writable()?.ports(), &settings).await?)
    };
    Reply::send(answer.await)
}

/// `GET` of everything that [`ribera_core::status`] answers.
pub async fn status(request: Request) -> HttpReply {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let asked = status::Request { method: request.method().as_str().to_owned(), target };
    let host = Host::new(FolderStore::read_only(STORE_ROOT), WasiClock, WasiRandom);
    Reply::from(status::respond(host.ports(), &asked).await).into_http()
}

fn writable() -> Result<Host<FolderStore, WasiClock, WasiRandom>> {
    let store = FolderStore::open(STORE_ROOT, WasiRandom.fresh_name())?;
    Ok(Host::new(store, WasiClock, WasiRandom))
}

fn budget(body: &[u8]) -> Result<SweepBudget> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(SweepBudget::default());
    }
    serde_json::from_slice(body).map_err(|error| Error::reject(format!("sweep budget: {error}")))
}
