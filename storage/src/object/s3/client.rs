//! The HTTP client: whom it trusts, which proxy it takes.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::time::StoreTime;
use super::{ProxyChoice, S3Settings};
use crate::error::{Error, Result};

/// Connections kept open between requests, and for how long.
const IDLE_CONNECTIONS: usize = 2;
const IDLE_FOR: Duration = Duration::from_secs(50);

pub(super) fn client(settings: &S3Settings, time: &StoreTime) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .use_preconfigured_tls(tls(settings, time)?)
        // An object store has no business elsewhere: a redirect is a portal's, or a wrong endpoint.
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(settings.timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_FOR)
        .user_agent(concat!("ribera/", env!("CARGO_PKG_VERSION")));
    let builder = match &settings.proxy {
        ProxyChoice::Environment => builder,
        ProxyChoice::Direct => builder.no_proxy(),
        ProxyChoice::Server { url, user, password } => {
            let proxy = reqwest::Proxy::all(url.as_str()).map_err(|_| bad_proxy(url))?;
            builder.proxy(match user {
                Some(user) => proxy.basic_auth(user, password.expose()),
                None => proxy,
            })
        }
    };
    builder.build().map_err(|error| Error::config("object store: no HTTP client").with_source(error.without_url()))
}

fn bad_proxy(url: &str) -> Error {
    // Whoever put a password into the address must not read it in a log.
    let shown = url.rsplit('@').next().unwrap_or_default();
    Error::config(format!(
        "object store: proxy.url must be an address such as http://proxy.example.com:3128, got {shown:?}"
    ))
}

fn tls(settings: &S3Settings, time: &StoreTime) -> Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_details(Arc::new(rustls::crypto::ring::default_provider()), Arc::new(time.clone()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::bug("no version of TLS").with_source(error))?;
    Ok(builder.with_root_certificates(roots(settings)?).with_no_client_auth())
}

/// Mozilla's list, which an old machine may lack; the system's, which knows the chain's own
/// authority; and the one that is named.
fn roots(settings: &S3Settings) -> Result<RootCertStore> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &settings.ca_file {
        let bad = |what: &str| Error::config(format!("object store: ca_file {}: {what}", path.display()));
        let pem = std::fs::read(path).map_err(|error| bad("cannot be read").with_source(error))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(|one| one.ok()).collect();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(bad("must hold certificates in PEM form, got none"));
        }
    }
    Ok(roots)
}
