//! A bucket of S3 or of a store that speaks like it. Requests are signed by rusty-s3 in their
//! query, so a URL is a secret for as long as it is valid: none is ever shown.
//!
//! Nothing is believed that does not prove itself. A put is done when the answer has the MD5 of what was
//! sent, or else when the object is found as it was sent; a redirect, or a page for people, is nobody's
//! answer. Trying again is the caller's business, but for one thing: a request that is refused while the
//! store's clock and this one differ is signed once more with the store's time.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use rusty_s3::actions::{GetObject, HeadObject, ListObjectsV2, PutObject};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::{ObjectMeta, ObjectPath, ObjectStore, Part, PutBody, PutOutcome, keeps_put_if_absent};
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::secret::Secret;

mod answer;
mod body;
mod client;
mod failure;
mod send;
mod time;

pub use body::Throttle;
pub use failure::{Cause, S3Failure};
pub use time::SharedClock;

use answer::Answer;
use body::Upload;
use time::StoreTime;

/// Larger objects cannot be put in one piece.
const PUT_BYTES_MAX: u64 = 5 << 30;
const CONTENT_TYPE: &str = "application/octet-stream";

/// Where the bucket is, and how to get there.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Such as `https://s3.example.com`.
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    /// What every key begins with: empty, or it ends with a slash.
    pub prefix: String,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
    /// The bucket in the path instead of the host's name.
    pub path_style: bool,
    /// PEM; trusted beside the built-in and the system's authorities.
    pub ca_file: Option<PathBuf>,
    pub proxy: ProxyChoice,
    /// A line without any sign of life for so long is given up.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub enum ProxyChoice {
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` of the environment, if they are set.
    Environment,
    Direct,
    Server {
        url: String,
        user: Option<String>,
        password: Secret,
    },
}

/// Clones share connections and what was learnt.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    /// Kind and place, without secrets.
    place: String,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    client: reqwest::Client,
    time: StoreTime,
    timeout: Duration,
    pace: OnceLock<Arc<dyn Throttle>>,
    /// Unique among all processes.
    token: String,
    probes: AtomicU64,
    keeps_promise: AtomicBool,
}

impl S3Store {
    /// Asks nobody yet. `token` must be unique among all processes (a fresh random name).
    ///
    /// # Errors
    ///
    /// `Config`, naming the setting, the rule and the value got.
    pub fn new(settings: &S3Settings, clock: SharedClock, token: impl Into<String>) -> Result<Self> {
        let field =
            |name: &str, rule: &str, got: &str| Error::config(format!("object store: s3.{name}: {rule}, got {got:?}"));
        let endpoint = settings
            .endpoint
            .parse::<reqwest::Url>()
            .ok()
            .filter(|url| url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| {
                field("endpoint", "must be an address such as https://s3.example.com, without a user", "another text")
            })?;
        let place = format!("{}{}/{}", endpoint, settings.bucket, settings.prefix);
        let style = if settings.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket =
            Bucket::new(endpoint, style, settings.bucket.clone(), settings.region.clone()).map_err(|error| {
                field("endpoint", "must fit the bucket and path_style", &settings.endpoint).with_source(error)
            })?;
        let (id, secret) = (settings.access_key_id.clone(), settings.secret_access_key.expose());
        let credentials = match &settings.session_token {
            Some(token) => Credentials::new_with_token(id, secret, token.expose()),
            None => Credentials::new(id, secret),
        };
        let time = StoreTime::new(clock);
        Ok(Self(Arc::new(Inner {
            place,
            bucket,
            credentials,
            prefix: settings.prefix.clone(),
            client: client::client(settings, &time)?,
            time,
            timeout: settings.timeout,
            pace: OnceLock::new(),
            token: token.into(),
            probes: AtomicU64::new(0),
            keeps_promise: AtomicBool::new(false),
        })))
    }

    /// From now on files are uploaded no faster than this. What is set first stays.
    pub fn set_throttle(&self, pace: Arc<dyn Throttle>) {
        let _ = self.0.pace.set(pace);
    }

    /// Kind and place, without secrets.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Whether the store keeps the promise of put-if-absent; an error that says so otherwise.
    ///
    /// # Errors
    ///
    /// `Config` when it does not; `Retry` when it does not answer.
    pub async fn probe(&self) -> Result<()> {
        let name = format!("{}-{}", self.0.token, self.0.probes.fetch_add(1, Ordering::Relaxed));
        let put = async |path: &ObjectPath, body| self.put_absent(path, body).await;
        if !keeps_put_if_absent(self, put, &name).await? {
            let failure = S3Failure::new(Cause::Conditional, "the second of two puts overwrote the first");
            return Err(self.error("put-if-absent", failure));
        }
        self.0.keeps_promise.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn put_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        let upload = Upload::new(body)?;
        let answer = self.put_upload(path, &upload, true).await?;
        if answer.status == StatusCode::PRECONDITION_FAILED && !answer.is_a_page() {
            return Ok(PutOutcome::Exists);
        }
        self.prove(path, &upload, &answer).await.map(|()| PutOutcome::Created)
    }

    async fn put_upload(&self, path: &ObjectPath, upload: &Upload, only_if_absent: bool) -> Result<Answer> {
        if upload.bytes > PUT_BYTES_MAX {
            return Err(Error::reject(format!(
                "{path}: must have {PUT_BYTES_MAX} bytes at most, got {}",
                upload.bytes
            )));
        }
        let key = self.key(path);
        let mut action = PutObject::new(&self.0.bucket, Some(&self.0.credentials), &key);
        let headers = action.headers_mut();
        headers.insert("content-md5", base64::engine::general_purpose::STANDARD.encode(upload.md5));
        headers.insert("content-type", CONTENT_TYPE);
        if only_if_absent {
            headers.insert("if-none-match", "*");
        }
        self.send(&mut action, Some(upload)).await.map_err(|failure| self.failed("put", path, failure))
    }

    /// Whether the answer to a put proves that the object stands as it was sent.
    async fn prove(&self, path: &ObjectPath, upload: &Upload, answer: &Answer) -> Result<()> {
        if answer.status != StatusCode::OK {
            return Err(self.failed("put", path, S3Failure::of_answer(answer)));
        }
        let md5 = hex(&upload.md5);
        if answer.etag() == Some(md5.as_str()) {
            return Ok(());
        }
        // Encrypted with a key of the owner's, whose ETag says nothing; or not S3 at all.
        let Some(etag) = answer.etag().filter(|_| !answer.is_a_page()) else {
            return Err(self.failed("put", path, portal(answer)));
        };
        let found = self.head_answer(path).await?;
        let stands = found.as_ref().is_some_and(|found| {
            found.etag() == Some(etag) && content_length(found) == Some(upload.bytes) && found.last_modified().is_some()
        });
        if stands {
            return Ok(());
        }
        let failure =
            S3Failure::new(Cause::Damaged, format!("sent MD5 {md5}, got ETag {etag:?}, which the object lacks"));
        Err(self.failed("put", path, failure))
    }

    async fn head_answer(&self, path: &ObjectPath) -> Result<Option<Answer>> {
        let key = self.key(path);
        let mut action = HeadObject::new(&self.0.bucket, Some(&self.0.credentials), &key);
        let answer = self.send(&mut action, None).await.map_err(|failure| self.failed("head", path, failure))?;
        match answer.status {
            StatusCode::OK if answer.etag().is_some() => Ok(Some(answer)),
            StatusCode::OK => Err(self.failed("head", path, portal(&answer))),
            StatusCode::NOT_FOUND if answer.is_of_s3() => Ok(None),
            // An answer without a body: ask for one that can prove itself.
            StatusCode::NOT_FOUND => self.get_answer(path, Some(0..1)).await.and_then(|found| match found {
                None => Ok(None),
                Some(_) => Err(self.failed("head", path, S3Failure::new(Cause::Server, "is there and is not"))),
            }),
            _ => Err(self.failed("head", path, S3Failure::of_answer(&answer))),
        }
    }

    /// The answer of an object that is there: 200, 206, or 416 for a range behind its end.
    async fn get_answer(&self, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Option<Answer>> {
        let key = self.key(path);
        let mut action = GetObject::new(&self.0.bucket, Some(&self.0.credentials), &key);
        if let Some(range) = range {
            action.headers_mut().insert("range", format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let answer = self.send(&mut action, None).await.map_err(|failure| self.failed("get", path, failure))?;
        match answer.status {
            StatusCode::OK if answer.is_object() => Ok(Some(answer)),
            StatusCode::PARTIAL_CONTENT if answer.etag().is_some() && !answer.is_a_page() => Ok(Some(answer)),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Err(self.failed("get", path, portal(&answer))),
            StatusCode::RANGE_NOT_SATISFIABLE if answer.tag("Code") == "InvalidRange" => Ok(Some(answer)),
            StatusCode::NOT_FOUND if answer.tag("Code") == "NoSuchKey" => Ok(None),
            _ => Err(self.failed("get", path, S3Failure::of_answer(&answer))),
        }
    }

    fn key(&self, path: &ObjectPath) -> String {
        format!("{}{path}", self.0.prefix)
    }

    fn failed(&self, doing: &str, path: &ObjectPath, failure: S3Failure) -> Error {
        self.error(&format!("{doing} {path}"), failure)
    }

    fn error(&self, doing: &str, failure: S3Failure) -> Error {
        let message = format!("object store {}: {doing}: {}", self.0.place, failure.cause.as_str());
        Error::new(failure.cause.kind(), message).with_source(failure)
    }
}

impl ObjectStore for S3Store {
    async fn get(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        Ok(self.get_answer(path, None).await?.map(|answer| answer.body))
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Part>> {
        // Nothing of the object is asked for, or nothing lies there: its time is still wanted.
        let nothing = async || {
            let meta = self.head(path).await?;
            Ok(meta.map(|meta| Part { bytes: Bytes::new(), modified: meta.modified }))
        };
        if range.is_empty() {
            return nothing().await;
        }
        let Some(answer) = self.get_answer(path, Some(range.clone())).await? else { return Ok(None) };
        let server = |message: String| self.failed("get", path, S3Failure::new(Cause::Server, message));
        let bytes = match answer.status {
            StatusCode::RANGE_NOT_SATISFIABLE => return nothing().await,
            // Whoever ignores ranges gives all.
            StatusCode::OK => {
                let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(answer.body.len());
                answer.body.slice(cut(range.start)..cut(range.end))
            }
            _ => {
                let wanted = format!("bytes {}-", range.start);
                match answer.header(CONTENT_RANGE) {
                    Some(got) if got.starts_with(&wanted) => answer.body.clone(),
                    got => return Err(server(format!("asked for {wanted}, got {:?}", got.unwrap_or_default()))),
                }
            }
        };
        let modified = answer.last_modified().ok_or_else(|| server("lacks Last-Modified".to_owned()))?;
        Ok(Some(Part { bytes, modified }))
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> Result<()> {
        self.put_timed(path, body).await.map(drop)
    }

    /// The answer's own date: a request less for each heartbeat of each store.
    async fn put_timed(&self, path: &ObjectPath, body: PutBody) -> Result<Option<Timestamp>> {
        let upload = Upload::new(body)?;
        let answer = self.put_upload(path, &upload, false).await?;
        self.prove(path, &upload, &answer).await?;
        Ok(answer.date())
    }

    /// The first one proves beforehand that the store keeps the promise.
    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> Result<PutOutcome> {
        if !self.0.keeps_promise.load(Ordering::Relaxed) {
            self.probe().await?;
        }
        self.put_absent(path, body).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        while found.len() < limit {
            let (page, next) = self.list_page(prefix, start_after, token.as_deref(), limit - found.len()).await?;
            found.extend(page);
            match next {
                // A page that leads to itself would never end.
                Some(next) if token.as_ref() != Some(&next) => token = Some(next),
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn head(&self, path: &ObjectPath) -> Result<Option<ObjectMeta>> {
        let Some(answer) = self.head_answer(path).await? else { return Ok(None) };
        match (content_length(&answer), answer.last_modified()) {
            (Some(bytes), Some(modified)) => Ok(Some(ObjectMeta { path: path.clone(), bytes, modified })),
            _ => Err(self.failed("head", path, S3Failure::new(Cause::Server, "lacks Content-Length or Last-Modified"))),
        }
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        let key = self.key(path);
        let mut action = rusty_s3::actions::DeleteObject::new(&self.0.bucket, Some(&self.0.credentials), &key);
        let answer = self.send(&mut action, None).await.map_err(|failure| self.failed("delete", path, failure))?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(()),
            StatusCode::OK if answer.is_of_s3() && !answer.is_a_page() => Ok(()),
            StatusCode::NOT_FOUND if answer.tag("Code") == "NoSuchKey" => Ok(()),
            _ => Err(self.failed("delete", path, S3Failure::of_answer(&answer))),
        }
    }
}

impl S3Store {
    /// A page, and where the next one begins.
    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        token: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        let full = format!("{}{prefix}", self.0.prefix);
        let mut action = ListObjectsV2::new(&self.0.bucket, Some(&self.0.credentials));
        action.with_prefix(full.as_str());
        action.with_max_keys(limit.min(super::LIST_PAGE));
        match (token, start_after) {
            (Some(token), _) => action.with_continuation_token(token),
            (None, Some(after)) => action.with_start_after(format!("{}{after}", self.0.prefix)),
            (None, None) => {}
        }
        let doing = || format!("list {prefix}");
        let answer = self.send(&mut action, None).await.map_err(|failure| self.error(&doing(), failure))?;
        let text = str::from_utf8(&answer.body).unwrap_or_default();
        if answer.status != StatusCode::OK {
            return Err(self.error(&doing(), S3Failure::of_answer(&answer)));
        }
        let page = ListObjectsV2::parse_response(text).map_err(|_| self.error(&doing(), portal(&answer)))?;
        let metas = page.contents.into_iter().filter_map(|one| {
            // Nothing of ours has a key that is no path.
            let path = ObjectPath::new(one.key.strip_prefix(&self.0.prefix)?).ok()?;
            Some((path, one.size, one.last_modified.and_then(|text| text.parse::<Timestamp>().ok())))
        });
        let whole = metas.map(|(path, bytes, modified)| match (bytes, modified) {
            (Some(bytes), Some(modified)) => Ok(ObjectMeta { path, bytes, modified }),
            _ => Err(self.error(&doing(), S3Failure::new(Cause::Server, format!("{path} lacks Size or LastModified")))),
        });
        Ok((whole.collect::<Result<_>>()?, page.next_continuation_token))
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("place", &self.0.place).finish_non_exhaustive()
    }
}

/// A success that nobody proves.
fn portal(answer: &Answer) -> S3Failure {
    let mut failure = S3Failure::new(Cause::Portal, answer.describe());
    failure.status = Some(answer.status.as_u16());
    failure
}

fn content_length(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_LENGTH)?.parse().ok()
}

/// The S3 failure behind an error, if that is what it is.
pub fn failure_of(error: &Error) -> Option<&S3Failure> {
    std::error::Error::source(error)?.downcast_ref()
}
