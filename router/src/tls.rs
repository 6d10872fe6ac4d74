//! TLS towards clients: rustls with the configured certificate.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What a client that speaks TLS from its first byte must ask for (ALPN).
pub const PROTOCOL: &[u8] = b"postgresql";

#[derive(Clone)]
pub struct Acceptor(pub TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Reads certificate chain and key from PEM files.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn acceptor(cert: &Path, key: &Path) -> Result<Acceptor, String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| format!("[tls] cert {}: {error}", cert.display()))?;
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("[tls] key {}: {error}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|error| format!("[tls] {}: {error}", cert.display()))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
}
