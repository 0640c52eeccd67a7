//! TLS to a database server.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::fault::Fault;
use super::wire::Line;
use crate::config::{ServerConfig, TlsMode};

/// Encrypts `line` to `host` as `config.tls` demands.
pub async fn encrypt(line: Box<dyn Line>, host: &str, config: &ServerConfig) -> Result<Box<dyn Line>, Fault> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| Fault::Tls(format!("{host}: {error}")))?;
    let connector = TlsConnector::from(Arc::new(client(config)?));
    let stream = connector.connect(name, line).await?;
    Ok(Box::new(stream))
}

fn client(config: &ServerConfig) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Tls(error.to_string()))?;
    Ok(match config.tls {
        TlsMode::Verify => builder.with_root_certificates(roots(config)?).with_no_client_auth(),
        TlsMode::Require | TlsMode::Off => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    })
}

/// The public authorities, and the one of the configuration.
fn roots(config: &ServerConfig) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(file) = &config.tls_ca_file else { return Ok(roots) };
    let problem = |what: String| Fault::Tls(format!("tls_ca_file: {}: {what}", file.display()));
    let pem = std::fs::read(file).map_err(|error| problem(error.to_string()))?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| problem(error.to_string()))?;
        roots.add(certificate).map_err(|error| problem(error.to_string()))?;
        found = true;
    }
    if found { Ok(roots) } else { Err(problem("must hold a PEM certificate, got none".to_owned())) }
}

/// `tls = "require"`: encrypted, whoever is at the other end.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
