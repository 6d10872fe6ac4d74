//! Towards the shards: how much of a server's certificate is checked, by libpq's `sslmode`.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::certificate::public_key;
use super::files::{self, Stamp};
use crate::config::{ServerTls, SslMode};

/// What was made of some settings, and of which files.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Arc<ClientConfig>,
    seen: Stamp,
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn new(tls: &ServerTls) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let seen = Stamp::of(paths(tls));
        Ok(Self { config: Arc::new(load(tls)?), seen })
    }

    /// Whether the files still are what was read.
    #[must_use]
    pub fn is_current(&self, tls: &ServerTls) -> bool {
        self.seen == Stamp::of(paths(tls))
    }
}

fn paths(tls: &ServerTls) -> impl Iterator<Item = &Path> {
    [&tls.sslrootcert, &tls.sslcert, &tls.sslkey].into_iter().flatten().map(|path| &**path)
}

fn load(tls: &ServerTls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let roots = tls.sslrootcert.as_deref().map(files::roots).transpose();
    let roots = roots.map_err(|problem| format!("sslrootcert {problem}"))?;
    let verifier = Verifier::new(tls.sslmode, roots, provider)
        .map_err(|error| format!("sslrootcert: {error}"))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match (&tls.sslcert, &tls.sslkey) {
        (Some(cert), Some(key)) => {
            let chain = files::chain(cert).map_err(|problem| format!("sslcert {problem}"))?;
            let key = files::key(key).map_err(|problem| format!("sslkey {problem}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("sslcert: {error}"))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Checks a server's certificate as far as `sslmode` asks for it. Whatever the mode, the server
/// must own the key of the certificate that it shows.
#[derive(Debug)]
struct Verifier {
    /// `None` where nothing vouches for the server: encryption alone.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The name in the certificate must be the host's.
    named: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        mode: SslMode,
        roots: Option<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        if roots.is_none() && matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
            return Err(format!("must be given for sslmode={mode}"));
        }
        let chain = match roots {
            // As with libpq: an authority that is given is asked, whatever the mode.
            Some(roots) => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| error.to_string())?,
            ),
            None => None,
        };
        Ok(Self { chain, named: mode == SslMode::VerifyFull, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            // The name is looked at last, when the chain has been found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.named => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match public_key(cert).filter(|_| self.chain.is_none()) {
            // Where nobody vouches for the server, its key is all that counts. So an X.509 v1
            // certificate will do, as PostgreSQL's manual makes it; rustls takes v3 only.
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, algorithms),
            None => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
