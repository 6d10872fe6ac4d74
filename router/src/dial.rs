//! The way to a server, catalog or shard: its URL, TCP, and TLS as `[shard_tls]` and the URL say.
//!
//! [`Dialer::client`] is for the router's own questions, by tokio-postgres; [`Dialer::open`] gives
//! the bare stream on which a pooled connection logs in.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pgherd_shard_map::store;
use socket2::TcpKeepalive;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use tokio_postgres::config::Host;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::{ServerTls, SslMode, parse_url};
use crate::tls::{client::Loaded, end_point};
use crate::wire::startup;

#[derive(Debug, Error)]
pub enum DialError {
    /// The URL, or a file that it or the configuration names, cannot be used.
    #[error("{0}")]
    Target(String),
    #[error("{}", with_source(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// Opens connections to servers.
#[derive(Debug)]
pub struct Dialer {
    defaults: ServerTls,
    /// What was made of the files, by the settings that name them: as many as there are different
    /// ones in the shards' URLs.
    loaded: Mutex<HashMap<ServerTls, Loaded>>,
}

/// A server's URL, understood.
#[derive(Debug, Clone)]
pub struct Target {
    pub config: tokio_postgres::Config,
    mode: SslMode,
    tls: Arc<ClientConfig>,
}

/// A connection to a shard before its login.
#[derive(Debug)]
pub struct Opened {
    pub stream: Stream,
    pub address: SocketAddr,
    /// What a login over TLS can be bound to.
    pub end_point: Option<Box<[u8]>>,
}

/// The bytes of a server connection.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialer {
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn new(defaults: ServerTls) -> Result<Self, String> {
        let loaded = Loaded::new(&defaults).map_err(|problem| format!("[shard_tls] {problem}"))?;
        let loaded = Mutex::new(HashMap::from([(defaults.clone(), loaded)]));
        Ok(Self { defaults, loaded })
    }

    /// Reads a URL. Certificates are those that the files hold now; files that cannot be used any
    /// more leave those that were read before.
    ///
    /// # Errors
    /// [`DialError::Target`].
    pub fn target(&self, url: &str) -> Result<Target, DialError> {
        let (config, tls) = parse_url(url, &self.defaults).map_err(DialError::Target)?;
        let mode = tls.sslmode;
        let mut known = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let old = known.get(&tls);
        if let Some(loaded) = old.filter(|loaded| loaded.is_current(&tls)) {
            return Ok(Target { config, mode, tls: Arc::clone(&loaded.config) });
        }
        match Loaded::new(&tls) {
            Ok(loaded) => {
                let target = Target { config, mode, tls: Arc::clone(&loaded.config) };
                known.insert(tls, loaded);
                Ok(target)
            }
            Err(error) => match old {
                Some(loaded) => {
                    tracing::error!(error, "certificates not loaded; the old ones stay");
                    Ok(Target { config, mode, tls: Arc::clone(&loaded.config) })
                }
                None => Err(DialError::Target(error)),
            },
        }
    }

    /// Connects and logs in as the URL says.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn client(&self, url: &str) -> Result<Client, DialError> {
        self.target(url)?.client().await
    }

    /// What the catalog's store connects with.
    ///
    /// # Errors
    /// [`DialError::Target`].
    pub fn catalog(&self, url: &str) -> Result<store::Target<MakeRustlsConnect>, DialError> {
        let target = self.target(url)?;
        Ok(store::Target { tls: target.connector(), config: target.own() })
    }

    /// Opens a stream to a server, encrypted if need be.
    ///
    /// # Errors
    /// The socket's; `Unsupported` for a server that does not encrypt, but must.
    pub async fn open(&self, target: &Target) -> io::Result<Opened> {
        let port = target.config.get_ports().first().copied().unwrap_or(5432);
        let Some(Host::Tcp(host)) = target.config.get_hosts().first() else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "its DSN names no TCP host"));
        };
        let mut stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        watch(&stream)?;
        let address = stream.peer_addr()?;
        let plain = |stream| Opened { stream: Stream::Plain(stream), address, end_point: None };
        if target.mode == SslMode::Disable {
            return Ok(plain(stream));
        }
        stream.write_all(&startup::SSL_REQUEST).await?;
        // One byte and no more: what follows it must be TLS.
        match stream.read_u8().await? {
            b'S' => {}
            b'N' if target.mode == SslMode::Prefer => return Ok(plain(stream)),
            b'N' => {
                let why = "it does not support TLS, which sslmode demands";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            _ => {
                let why = "it answered the request for TLS with something else";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        let name = ServerName::try_from(host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::clone(&target.tls));
        let stream = connector.connect(name, stream).await?;
        let theirs = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let end_point = theirs.and_then(end_point);
        Ok(Opened { stream: Stream::Tls(Box::new(stream)), address, end_point })
    }
}

impl Stream {
    /// Takes a connection off this thread.
    ///
    /// # Errors
    /// The runtime's; `Unsupported` for an encrypted one, whose keys stay where they are.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self {
            Self::Plain(stream) => stream.into_std(),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Puts it on this thread.
    ///
    /// # Errors
    /// The runtime's.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        TcpStream::from_std(stream).map(Self::Plain)
    }
}

impl Target {
    /// Connects and logs in as the URL says, under the router's name if it says none.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn client(&self) -> Result<Client, DialError> {
        let mut config = self.own();
        if config.get_application_name().is_none() {
            config.application_name("pgherd");
        }
        let (client, connection) = config.connect(self.connector()).await?;
        tokio::spawn(async move {
            // Its end is seen by whoever uses the client.
            drop(connection.await);
        });
        Ok(client)
    }

    /// For the router's own sessions, which may wait for long between two questions.
    fn own(&self) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        let more = config.get_options().unwrap_or_default();
        config.options(format!("-c idle_session_timeout=0 {more}"));
        config
    }

    fn connector(&self) -> MakeRustlsConnect {
        MakeRustlsConnect::new(ClientConfig::clone(&self.tls))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => {
                // What was taken to be written may still be here: whoever waits for the answer
                // sends it on.
                if stream.get_ref().1.wants_write()
                    && let Poll::Ready(Err(error)) = Pin::new(&mut **stream).poll_flush(cx)
                {
                    return Poll::Ready(Err(error));
                }
                Pin::new(&mut **stream).poll_read(cx, buffer)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

/// A machine that is gone without a word is noticed: by keepalives while the router waits for it,
/// and by what it does not acknowledge.
fn watch(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))
}

fn with_source(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
