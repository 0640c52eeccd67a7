//! One call of a component: a fresh instance, a request in, a reply out, within limits.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use ribera_storage::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store, Trap};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::engine::{CallLimits, epochs};
use super::rights::Rights;

/// What a function answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    pub cost: CallCost,
}

/// What a call cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallCost {
    /// From nothing to an instance that can be called.
    pub start: Duration,
    pub total: Duration,
    pub memory_bytes_peak: usize,
}

/// Who calls. Each has permits of its own, so that the host's work never waits behind callers outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Host,
    Outside,
}

/// Calls at once for callers outside: a sweep and an event.
pub const OUTSIDE_CALLS_MAX: usize = 2;

/// Why there is no reply.
#[derive(Debug)]
pub enum CallError {
    /// The guest wanted more memory than it may have.
    MemoryLimit { bytes_max: usize },
    /// The guest did not end in time.
    TimeLimit { time_max: Duration },
    /// The guest died, or broke the rules.
    Trapped { detail: String },
    /// The host itself failed.
    Host { detail: String },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryLimit { bytes_max } => write!(f, "memory limit of {bytes_max} bytes reached, call ended"),
            Self::TimeLimit { time_max } => write!(f, "time limit of {time_max:?} reached, call ended"),
            Self::Trapped { detail } => write!(f, "trapped: {detail}"),
            Self::Host { detail } => write!(f, "host: {detail}"),
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match error {
            CallError::Host { .. } => ErrorKind::Retry,
            // What killed the guest once will kill it again.
            _ => ErrorKind::Reject,
        };
        Self::new(kind, error.to_string())
    }
}

/// A component ready to be called, any number of times at once up to its bound.
#[derive(Clone)]
pub struct Callable(Arc<Inner>);

struct Inner {
    name: String,
    engine: Engine,
    service: ServicePre<CallState>,
    store_root: PathBuf,
    rights: Rights,
    /// JSON, handed over in the environment.
    settings: String,
    limits: CallLimits,
    permits: Semaphore,
    outside: Semaphore,
}

impl Callable {
    /// `calls_max`: how many calls of the host may run at once; more wait.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        name: &str,
        engine: &Engine,
        component: &Component,
        store_root: &Path,
        rights: Rights,
        settings: String,
        limits: CallLimits,
        calls_max: usize,
    ) -> Result<Self> {
        let broken = |error: wasmtime::Error| Error::config(format!("component {name}: {error:#}"));
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(broken)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker).map_err(broken)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker).map_err(broken)?;
        let service = linker.instantiate_pre(component).and_then(ServicePre::new).map_err(broken)?;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            engine: engine.clone(),
            service,
            store_root: store_root.to_owned(),
            rights,
            settings,
            limits,
            permits: Semaphore::new(calls_max.max(1)),
            outside: Semaphore::new(OUTSIDE_CALLS_MAX),
        })))
    }

    /// Calls the component in a fresh instance. The guest runs on a thread of its own, so that
    /// neither its work nor its disk waits hold up anything else.
    pub async fn call(&self, request: http::Request<Bytes>) -> Result<Reply, CallError> {
        self.call_for(Caller::Host, request).await
    }

    /// As [`Callable::call`], with the permits of `caller`.
    pub async fn call_for(&self, caller: Caller, request: http::Request<Bytes>) -> Result<Reply, CallError> {
        let host = |detail: String| CallError::Host { detail };
        let permits = match caller {
            Caller::Host => &self.0.permits,
            Caller::Outside => &self.0.outside,
        };
        let _permit = permits.acquire().await.map_err(|error| host(error.to_string()))?;
        let inner = self.0.clone();
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(inner.run(request)))
            .await
            .map_err(|error| host(error.to_string()))?
    }
}

impl Inner {
    async fn run(&self, request: http::Request<Bytes>) -> Result<Reply, CallError> {
        let started = Instant::now();
        let log = MemoryOutputPipe::new(self.limits.log_bytes_max);
        let state = self.state(&log).map_err(|error| CallError::Host { detail: format!("{error:#}") })?;
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(epochs(self.limits.time_max));
        store.epoch_deadline_trap();
        let mut start = Duration::ZERO;
        let answered = tokio::time::timeout(self.limits.time_max, async {
            let service = self.service.instantiate_async(&mut store).await?;
            start = started.elapsed();
            exchange(&mut store, &service, request, self.limits.reply_bytes_max).await
        });
        let answered = answered.await;
        self.tell(&log);
        let memory = &store.data().memory;
        let cost = CallCost { start, total: started.elapsed(), memory_bytes_peak: memory.bytes_peak };
        match answered {
            Ok(Ok((parts, body))) => Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body, cost }),
            Ok(Err(error)) => Err(self.explain(&error, memory)),
            Err(_) => Err(CallError::TimeLimit { time_max: self.limits.time_max }),
        }
    }

    fn state(&self, log: &MemoryOutputPipe) -> wasmtime::Result<CallState> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(log.clone()).stderr(log.clone()).env("RIBERA_SETTINGS", &self.settings);
        // The guest has a thread of its own.
        wasi.allow_blocking_current_thread(true);
        let given = self.rights.read.iter().map(|folder| (folder, FsPerms::ReadOnly));
        let given = given.chain(self.rights.write.iter().map(|folder| (folder, FsPerms::ReadWrite)));
        for (folder, permissions) in given {
            wasi.preopened_dir(self.store_root.join(folder), format!("/store/{folder}"), permissions)?;
        }
        Ok(CallState {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            network: NoNetwork,
            table: ResourceTable::new(),
            memory: MemoryLimit { bytes_max: self.limits.memory_bytes_max, bytes: 0, bytes_peak: 0, refused: false },
        })
    }

    fn explain(&self, error: &wasmtime::Error, memory: &MemoryLimit) -> CallError {
        if memory.refused {
            return CallError::MemoryLimit { bytes_max: memory.bytes_max };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => CallError::TimeLimit { time_max: self.limits.time_max },
            Some(trap) => CallError::Trapped { detail: trap.to_string() },
            None => CallError::Trapped { detail: format!("{error:#}") },
        }
    }

    /// What the guest said, each line one log record.
    fn tell(&self, log: &MemoryOutputPipe) {
        for line in String::from_utf8_lossy(&log.contents()).lines().filter(|line| !line.trim().is_empty()) {
            tracing::warn!(function = self.name, "{line}");
        }
    }
}

async fn exchange(
    store: &mut Store<CallState>,
    service: &wasmtime_wasi_http::p3::bindings::Service,
    request: http::Request<Bytes>,
    reply_bytes_max: usize,
) -> wasmtime::Result<(http::response::Parts, Bytes)> {
    let (request, sent) = Request::from_http(&mut NoNetwork, request.map(Full::new));
    store
        .run_concurrent(async |accessor| {
            let response = service.handle(accessor, request).await??;
            let response = accessor.with(|store| response.into_http(store, sent))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, reply_bytes_max)
                .collect()
                .await
                .map_err(|error| wasmtime::format_err!("reply of {reply_bytes_max} bytes at most: {error}"))?;
            Ok((parts, body.to_bytes()))
        })
        .await?
}

/// What the host keeps for one call.
struct CallState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    network: NoNetwork,
    table: ResourceTable,
    memory: MemoryLimit,
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for CallState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.network, table: &mut self.table, ctx: &mut self.http }
    }
}

/// No function may ask anything of the network (`allowed_outbound_hosts` is empty).
struct NoNetwork;

type Deferred = Box<dyn Future<Output = wasmtime_wasi_http::Result<()>> + Send>;
type Sending = Box<dyn Future<Output = wasmtime_wasi_http::Result<(http::Response<WasiBody>, Deferred)>> + Send>;

impl WasiHttpHooks for NoNetwork {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<wasmtime_wasi_http::RequestOptions>,
        _sent: Deferred,
    ) -> Sending {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }
}

/// Counts linear memory over all memories of the call and refuses more than it may have.
struct MemoryLimit {
    bytes_max: usize,
    bytes: usize,
    bytes_peak: usize,
    refused: bool,
}

/// Entries of all tables of a component: functions it can call indirectly. Ours need a few thousand.
const TABLE_ENTRIES_MAX: usize = 100_000;

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes + desired.saturating_sub(current);
        if bytes > self.bytes_max {
            self.refused = true;
            wasmtime::bail!("memory limit");
        }
        self.bytes = bytes;
        self.bytes_peak = self.bytes_peak.max(bytes);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ENTRIES_MAX)
    }
}
