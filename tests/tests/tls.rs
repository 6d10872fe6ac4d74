//! TLS from the first byte, TLS after an SSLRequest, and what somebody in between might try.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgherd_tests::cluster;
use pgherd_tests::router::RouterProcess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

async fn shake_hands(
    stream: TcpStream,
    protocol: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(data("server.crt")).expect("a certificate");
    roots.add(certificate).expect("it is one to trust");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocol.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Logs in, which must work.
async fn log_in(stream: &mut TlsStream<TcpStream>) {
    let body = b"\0\x03\0\0user\0postgres\0database\0app\0\0";
    let packet = [&((body.len() + 4) as u32).to_be_bytes()[..], body].concat();
    stream.write_all(&packet).await.expect("it is read");
    let mut received = Vec::new();
    while !received.ends_with(b"Z\0\0\0\x05I") {
        let size = stream.read_buf(&mut received).await.expect("an answer");
        assert!(size > 0, "{}", String::from_utf8_lossy(&received));
    }
}

/// Everything up to the end of the connection.
async fn last_words(mut stream: impl AsyncReadExt + Unpin) -> String {
    let mut words = Vec::new();
    // Without a farewell of TLS the end is an error, which does not matter here.
    let _ = stream.read_to_end(&mut words).await;
    String::from_utf8_lossy(&words).into_owned()
}

#[tokio::test]
async fn encryption_begins_where_both_sides_say_so() {
    let cluster = cluster();
    let config = format!(
        "[auth]\nmethod = \"trust\"\n[tls]\ncert = \"{}\"\nkey = \"{}\"\n",
        data("server.crt").display(),
        data("server.key").display()
    );
    let router = RouterProcess::start(&cluster, "encrypted", &config);
    let connect = || async { TcpStream::connect(&router.listen).await.expect("it listens") };

    // From the first byte, for who names the protocol.
    let mut direct = shake_hands(connect().await, Some("postgresql")).await.expect("TLS");
    log_in(&mut direct).await;
    let nameless = shake_hands(connect().await, None).await.expect("TLS");
    assert!(last_words(nameless).await.contains("without ALPN"));
    assert!(shake_hands(connect().await, Some("h2")).await.is_err());
    let mut again = shake_hands(connect().await, Some("postgresql")).await.expect("TLS");
    again.write_all(&SSL_REQUEST).await.expect("it is read");
    assert!(last_words(again).await.contains("unsupported frontend protocol 1234.5679"));

    // After a request.
    let mut stream = connect().await;
    stream.write_all(&SSL_REQUEST).await.expect("it is read");
    assert_eq!(stream.read_u8().await.expect("an answer"), b'S');
    log_in(&mut shake_hands(stream, None).await.expect("TLS")).await;

    // Bytes that came with the request would pass for encrypted ones.
    let mut early = connect().await;
    early.write_all(&[&SSL_REQUEST[..], b"\0\0\0\x08early"].concat()).await.expect("it is read");
    assert!(last_words(early).await.contains("received unencrypted data after SSL request"));
}
