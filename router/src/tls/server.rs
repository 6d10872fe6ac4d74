//! Towards clients: the router's certificate, and the authority that vouches for theirs.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::server::TlsStream;

use super::certificate::{common_name, end_point};
use super::files::{self, Stamp};
use crate::config::TlsConfig;

/// What PostgreSQL calls itself in a TLS handshake; a client that speaks TLS from its first byte must
/// ask for it.
pub const ALPN: &[u8] = b"postgresql";

/// Takes clients into TLS, with the newest certificate that could be read.
pub struct Acceptor {
    files: TlsConfig,
    loaded: ArcSwap<Loaded>,
    /// Of the files when they were last read, or could not be.
    seen: Mutex<Stamp>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    end_point: Option<Arc<[u8]>>,
}

/// What authentication knows of an encrypted connection.
#[derive(Debug, Clone, Default)]
pub struct Channel {
    /// What a login can be bound to; none where our certificate does not allow it.
    pub end_point: Option<Arc<[u8]>>,
    /// The client has shown a certificate that `[tls] client_ca` vouches for.
    pub certified: bool,
    /// The common name in that certificate.
    pub common_name: Option<String>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn new(files: TlsConfig) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let seen = Mutex::new(Stamp::of(paths(&files)));
        let loaded = ArcSwap::from_pointee(load(&files)?);
        Ok(Self { files, loaded, seen })
    }

    /// Reads the files again if they have changed. What cannot be used is logged, once, and the
    /// certificate at hand stays.
    pub fn refresh(&self) {
        let now = Stamp::of(paths(&self.files));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match load(&self.files) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                tracing::info!(cert = %self.files.cert.display(), "certificate loaded anew");
            }
            Err(error) => tracing::error!(error, "certificate not loaded; the old one stays"),
        }
    }

    /// The server's side of a TLS handshake.
    ///
    /// # Errors
    /// The socket's; a client that breaks the protocol, or whose certificate nobody vouches for.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Channel)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = self.loaded.load_full();
        let stream = loaded.acceptor.accept(stream).await?;
        let theirs = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let channel = Channel {
            end_point: loaded.end_point.clone(),
            certified: theirs.is_some(),
            common_name: theirs.and_then(common_name),
        };
        Ok((stream, channel))
    }
}

fn paths(files: &TlsConfig) -> impl Iterator<Item = &Path> {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| &**path)
}

fn load(files: &TlsConfig) -> Result<Loaded, String> {
    let named = |key: &str, problem: String| format!("[tls] {key} {problem}");
    let chain = files::chain(&files.cert).map_err(|problem| named("cert", problem))?;
    let key = files::key(&files.key).map_err(|problem| named("key", problem))?;
    let provider = Arc::new(ring::default_provider());
    let wrong = |error: &dyn std::fmt::Display| named("cert", error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = files::roots(path).map_err(|problem| named("client_ca", problem))?;
            // Whether a client needs one is for the table of [[auth.hba]] to say.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| named("client_ca", error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let end_point = chain.first().and_then(end_point).map(Into::into);
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Loaded { acceptor: TlsAcceptor::from(Arc::new(config)), end_point })
}
