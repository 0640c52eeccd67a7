//! The functions as typed calls: WASM components, or the same core natively.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http;
use bytes::Bytes;
use ribera_core::coverage::{self, Refreshed};
use ribera_core::ingest::{self, IngestReport, SweepBudget, SweepReport, event};
use ribera_core::status;
use ribera_storage::object::{FolderStore, ObjectPath};
use ribera_storage::ports::Host;
use ribera_storage::ports::Random as _;
use ribera_storage::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::cache::{self, ComponentFolders};
use super::call::{CallCost, Callable, Caller};
use super::engine;
use super::rights::{self, Function};
use super::settings::{ComponentArgs, FunctionArgs, HostSettings};
use crate::ports::{SystemClock, SystemRandom};

type NativeHost = Host<FolderStore, SystemClock, SystemRandom>;

/// Every function, ready to be called.
#[derive(Clone)]
pub struct Functions {
    settings: Arc<HostSettings>,
    how: How,
    caller: Caller,
}

#[derive(Clone)]
enum How {
    Wasm(Arc<BTreeMap<Function, Callable>>),
    Native(Arc<NativeHost>),
}

/// An HTTP answer of the `status` function.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    /// `None` when it ran natively.
    pub cost: Option<CallCost>,
}

/// Status calls at once.
const STATUS_CALLS_MAX: usize = 8;

impl Functions {
    /// The functions as `args` ask for them: as components, or natively.
    pub async fn start(store_root: &Path, settings: HostSettings, args: &FunctionArgs) -> Result<Self> {
        if !args.native {
            return Self::isolated(store_root, settings, &args.component).await;
        }
        let how = How::Native(Arc::new(Host::new(prepared(store_root).await?, SystemClock, SystemRandom)));
        Ok(Self { settings: Arc::new(settings), how, caller: Caller::Host })
    }

    /// The functions as WASM components, which are compiled once: nothing that a store sent is decoded in
    /// this process.
    pub async fn isolated(store_root: &Path, settings: HostSettings, args: &ComponentArgs) -> Result<Self> {
        prepared(store_root).await?;
        let folders = ComponentFolders::find(args.components.clone(), args.cache.clone())?;
        let (root, wanted) = (store_root.to_owned(), settings.clone());
        let loading = tokio::task::spawn_blocking(move || load(&root, &wanted, &folders));
        let callables = loading.await.map_err(|error| Error::bug("loading components").with_source(error))??;
        Ok(Self { settings: Arc::new(settings), how: How::Wasm(Arc::new(callables)), caller: Caller::Host })
    }

    /// The same functions for callers outside, whose calls never hold up the host's own.
    pub fn for_callers(&self) -> Self {
        Self { caller: Caller::Outside, ..self.clone() }
    }

    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// Ingests the manifests named.
    pub async fn ingest(&self, manifests: &[ObjectPath]) -> Result<IngestReport> {
        let names: Vec<&str> = manifests.iter().map(ObjectPath::as_str).collect();
        self.ingest_event(json!({ "manifests": names }).to_string().into()).await
    }

    /// Ingests the manifests that an event body names.
    pub async fn ingest_event(&self, body: Bytes) -> Result<IngestReport> {
        match &self.how {
            How::Wasm(callables) => post(callables, self.caller, Function::Ingest, "/ingest", body).await,
            How::Native(host) => {
                let (host, settings) = (host.clone(), self.settings.clone());
                natively(async move || {
                    let manifests = event::manifest_paths(&body)?;
                    ingest::ingest_event(host.ports(), &settings.ingest, &manifests).await
                })
                .await
            }
        }
    }

    pub async fn sweep(&self, budget: &SweepBudget) -> Result<SweepReport> {
        match &self.how {
            How::Wasm(callables) => {
                let body = serde_json::to_vec(budget)
                    .map_err(|error| Error::bug("sweep budget does not serialise").with_source(error))?;
                post(callables, self.caller, Function::Ingest, "/sweep", body.into()).await
            }
            How::Native(host) => {
                let (host, settings, budget) = (host.clone(), self.settings.clone(), budget.clone());
                natively(async move || ingest::sweep(host.ports(), &settings.ingest, &budget).await).await
            }
        }
    }

    /// Computes coverage of whatever changed.
    pub async fn coverage(&self) -> Result<Refreshed> {
        match &self.how {
            How::Wasm(callables) => post(callables, self.caller, Function::Coverage, "/coverage", Bytes::new()).await,
            How::Native(host) => {
                let (host, settings) = (host.clone(), self.settings.clone());
                natively(async move || coverage::refresh(host.ports(), &settings.coverage).await).await
            }
        }
    }

    /// Answers a reader; `target` is path and query.
    pub async fn status(&self, method: &str, target: &str) -> Result<HttpAnswer> {
        match &self.how {
            How::Wasm(callables) => {
                let request = request(method, target, Bytes::new())?;
                let reply = callable(callables, Function::Status)?.call(request).await?;
                Ok(HttpAnswer {
                    status: reply.status,
                    headers: reply.headers,
                    body: reply.body,
                    cost: Some(reply.cost),
                })
            }
            How::Native(host) => {
                let asked = status::Request { method: method.to_owned(), target: target.to_owned() };
                let host = host.clone();
                let response = natively(async move || Ok(status::respond(host.ports(), &asked).await)).await?;
                if let Some(line) = response.log {
                    tracing::warn!(function = "status", "{line}");
                }
                let content_type = http::HeaderValue::from_static(response.content_type);
                let headers = http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)]);
                Ok(HttpAnswer { status: response.status, headers, body: response.body.into(), cost: None })
            }
        }
    }
}

/// The store, probed, with every folder that a function is given.
async fn prepared(store_root: &Path) -> Result<FolderStore> {
    let store = FolderStore::open(store_root, SystemRandom.fresh_name())?;
    store.probe().await?;
    rights::make_folders(store_root)?;
    Ok(store)
}

fn load(root: &Path, settings: &HostSettings, folders: &ComponentFolders) -> Result<BTreeMap<Function, Callable>> {
    let engine = engine::new()?;
    let given = settings.for_functions()?;
    let mut callables = BTreeMap::new();
    for function in Function::ALL {
        let loaded = cache::load(&engine, folders, function)?;
        tracing::info!(
            function = function.name(),
            compiled = !loaded.from_cache,
            ms = millis(loaded.took),
            "component loaded"
        );
        let calls_max = match function {
            Function::Ingest => settings.call.ingest_calls_max,
            Function::Coverage => 1,
            Function::Status => STATUS_CALLS_MAX,
        };
        let callable = Callable::new(
            function.name(),
            &engine,
            &loaded.component,
            root,
            rights::of(function)?,
            given.clone(),
            settings.call_limits(),
            calls_max,
        )?;
        callables.insert(function, callable);
    }
    Ok(callables)
}

fn callable(callables: &BTreeMap<Function, Callable>, function: Function) -> Result<&Callable> {
    callables.get(&function).ok_or_else(|| Error::bug(format!("function {}: not loaded", function.name())))
}

fn request(method: &str, target: &str, body: Bytes) -> Result<http::Request<Bytes>> {
    http::Request::builder()
        .method(method)
        .uri(target)
        .header(http::header::CONTENT_LENGTH, body.len())
        .body(body)
        .map_err(|error| Error::reject(format!("request: {method} {target}")).with_source(error))
}

async fn post<T: DeserializeOwned>(
    callables: &BTreeMap<Function, Callable>,
    caller: Caller,
    function: Function,
    path: &str,
    body: Bytes,
) -> Result<T> {
    let name = function.name();
    let reply = callable(callables, function)?
        .call_for(caller, request("POST", path, body)?)
        .await
        .map_err(|error| Error::from(error).context(name))?;
    tracing::debug!(
        function = name,
        ?caller,
        start_ms = millis(reply.cost.start),
        total_ms = millis(reply.cost.total),
        memory_mib = reply.cost.memory_bytes_peak >> 20,
        "called"
    );
    if reply.status == 200 {
        return serde_json::from_slice(&reply.body)
            .map_err(|error| Error::bug(format!("{name}: reply is not of the expected form")).with_source(error));
    }
    Err(error_of(&reply.body).unwrap_or_else(|| Error::bug(format!("{name}: status {}", reply.status))).context(name))
}

/// The error that a component put in its reply.
fn error_of(body: &[u8]) -> Option<Error> {
    #[derive(Deserialize)]
    struct Reply {
        error: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        code: String,
        message: String,
    }
    let Reply { error } = serde_json::from_slice(body).ok()?;
    use ErrorKind::{Bug, Config, Data, Fenced, Reject, Retry};
    let kind = [Retry, Reject, Config, Data, Fenced, Bug].into_iter().find(|kind| kind.as_str() == error.code)?;
    Some(Error::new(kind, error.message))
}

/// Runs core work, whose futures need not be `Send`, on a thread of its own.
async fn natively<T: Send + 'static>(work: impl AsyncFnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work()))
        .await
        .map_err(|error| Error::bug("native call").with_source(error))?
}

/// Milliseconds with a fraction, for logs.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 1e2
}
