//! Where batches go: a folder, or a bucket of S3.

use std::path::PathBuf;
use std::time::Duration;

use ribera_storage::object::ObjectPath;
use ribera_storage::object::s3::{ProxyChoice, S3Settings};
use ribera_storage::secret::Secret;
use ribera_storage::{Error, Result};
use serde::Deserialize;

/// Exactly one of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// A folder of a local or network disk.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    #[serde(default)]
    pub s3: Option<S3Config>,
}

/// A bucket of S3 or of a store that speaks like it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    /// What every key begins with.
    #[serde(default)]
    pub prefix: Option<String>,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    /// The session token of temporary credentials.
    #[serde(default)]
    pub session_token: Option<Secret>,
    /// The bucket in the path (true) or in the host's name; by default as the endpoint needs it.
    #[serde(default)]
    pub path_style: Option<bool>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Without it the environment's proxy, if it names one.
    #[serde(default)]
    pub proxy: Option<ProxyConfig>,
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
}

/// An HTTP proxy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    pub url: String,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<Secret>,
}

fn default_timeout() -> u64 {
    30
}

impl ObjectStoreConfig {
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.folder.iter_mut().chain(self.s3.iter_mut().filter_map(|s3| s3.ca_file.as_mut()))
    }

    pub(super) fn validate(&self) -> Result<()> {
        match (&self.folder, &self.s3) {
            (Some(_), None) => Ok(()),
            (None, Some(s3)) => s3.validate(),
            (Some(_), Some(_)) => bad("folder", "must be absent beside s3", "both"),
            (None, None) => bad("folder", "must be there, or s3", "neither"),
        }
    }
}

impl S3Config {
    pub fn settings(&self) -> S3Settings {
        let prefix = self.prefix.as_deref().unwrap_or_default().trim_end_matches('/');
        S3Settings {
            endpoint: self.endpoint.clone(),
            bucket: self.bucket.clone(),
            region: self.region.clone(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone(),
            path_style: self.path_style.unwrap_or_else(|| !self.host_names_bucket()),
            ca_file: self.ca_file.clone(),
            proxy: match &self.proxy {
                None => ProxyChoice::Environment,
                Some(ProxyConfig { url, user, password }) => ProxyChoice::Server {
                    url: url.clone(),
                    user: user.clone(),
                    password: password.clone().unwrap_or_default(),
                },
            },
            timeout: Duration::from_secs(self.timeout_s),
        }
    }

    /// Host and port of whom the agent itself connects to: the proxy, else the endpoint.
    pub fn first_stop(&self) -> Option<(String, u16)> {
        let url = self.proxy.as_ref().map_or(&self.endpoint, |proxy| &proxy.url);
        let (scheme, host, port) = parts(url)?;
        Some((host.to_owned(), port.unwrap_or(if scheme == "https" { 443 } else { 80 })))
    }

    pub fn is_encrypted(&self) -> bool {
        self.endpoint.starts_with("https:")
    }

    /// Amazon's own hosts take the bucket into the name, if it can stand there under their certificate.
    fn host_names_bucket(&self) -> bool {
        let amazon = parts(&self.endpoint).is_some_and(|(_, host, _)| host.ends_with(".amazonaws.com"));
        amazon && !self.bucket.contains(['.', '_']) && self.bucket == self.bucket.to_lowercase()
    }

    fn validate(&self) -> Result<()> {
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if parts(&self.endpoint).is_none() {
            return bad("s3.endpoint", "must be http(s)://HOST or http(s)://HOST:PORT", shown(&self.endpoint));
        }
        if !(3..=63).contains(&self.bucket.len()) || !is_name(&self.bucket) {
            return bad("s3.bucket", "must be 3 to 63 letters, digits, dots or dashes", &self.bucket);
        }
        if self.region.is_empty() || !is_name(&self.region) {
            return bad("s3.region", "must be a name such as eu-west-1", &self.region);
        }
        if let Some(prefix) = &self.prefix
            && !prefix.is_empty()
            && ObjectPath::new(prefix.trim_end_matches('/')).is_err()
        {
            return bad("s3.prefix", "must be names of A-Z a-z 0-9 . _ = + ~ - joined by /", prefix);
        }
        if let Some(proxy) = &self.proxy
            && parts(&proxy.url).is_none()
        {
            return bad(
                "s3.proxy.url",
                "must be http(s)://HOST:PORT; user and password have keys of their own",
                shown(&proxy.url),
            );
        }
        if !(1..=600).contains(&self.timeout_s) {
            return bad("s3.timeout_s", "must be 1 to 600", &self.timeout_s.to_string());
        }
        Ok(())
    }
}

/// Scheme, host and port of an address that has no more than these, but for a slash at the end.
fn parts(url: &str) -> Option<(&str, &str, Option<u16>)> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    let place = rest.strip_suffix('/').unwrap_or(rest);
    // The last colon, unless it belongs to an address of IPv6.
    let (host, port) = match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (place, None),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    (!host.is_empty() && host.bytes().all(fits)).then_some((scheme, host, port))
}

/// Without a user and password that may stand before the host.
fn shown(url: &str) -> &str {
    url.rsplit('@').next().unwrap_or_default()
}

fn bad<T>(field: &str, rule: &str, got: &str) -> Result<T> {
    Err(Error::config(format!("configuration: object_store.{field}: {rule}, got {got:?}")))
}
