//! TLS towards clients: certificates that are checked, logins that are bound to the channel, client
//! certificates, and a certificate that is renewed while the router runs.

use std::path::Path;
use std::sync::Arc;

use pgherd_tests::dev::TestDir;
use pgherd_tests::router::RouterProcess;
use pgherd_tests::{psql, run, wait_until};
use tokio_postgres::{Client, Error};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::authority::{Authority, Pair, subject};
use crate::{SCRAM, demand, login, two_shards};

/// psql by TLS, with what libpq is to check.
fn psql_tls(router: &RouterProcess, login: &str, parameters: &str, sql: &str) -> String {
    let (_, port) = router.listen.rsplit_once(':').expect("a port");
    let dsn = format!("postgres://{login}@localhost:{port}/app?hostaddr=127.0.0.1&{parameters}");
    psql(&dsn, sql)
}

fn config(pair: &Pair, more: &str) -> String {
    let (cert, key) = (pair.cert.display(), pair.key.display());
    format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n{more}\n")
}

fn verify(ca: &Path) -> String {
    format!("sslmode=verify-full&sslrootcert={}", ca.display())
}

/// tokio-postgres over rustls, which must bind the login to the channel.
async fn driver(router: &RouterProcess, ca: &Path) -> Result<Client, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("a PEM file") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let dsn = router.dsn("ada:a").replace("127.0.0.1", "localhost");
    let dsn = format!("{dsn}?hostaddr=127.0.0.1&sslmode=require&channel_binding=require");
    let (client, connection) =
        tokio_postgres::connect(&dsn, MakeRustlsConnect::new(config)).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn a_login_by_tls_is_bound_to_the_channel() {
    let (cluster, dir) = (two_shards(), TestDir::new());
    demand(&cluster, SCRAM);
    run(cluster.dsn(), "CREATE ROLE ada LOGIN PASSWORD 'a'");
    let authority = Authority::new(dir.path(), "authority");
    let pair = authority.sign(dir.path(), "router", "router", &["localhost"]);
    let router = RouterProcess::start(&cluster, "tls", &config(&pair, "require = true"));
    let verified = verify(&authority.file);
    for binding in ["require", "prefer", "disable"] {
        let parameters = format!("{verified}&channel_binding={binding}");
        assert_eq!(psql_tls(&router, "ada:a", &parameters, "SELECT current_user"), "ada");
        let wrong = psql_tls(&router, "ada:b", &parameters, "SELECT 1");
        assert!(wrong.contains("password authentication failed for user \"ada\""), "{wrong}");
    }
    // A driver's own TLS and channel binding.
    let client = driver(&router, &authority.file).await.expect("a login by tokio-postgres");
    let row = client.query_one("SELECT current_user::text", &[]).await.expect("an answer");
    assert_eq!(row.get::<_, &str>(0), "ada");

    // A large answer, and a large question.
    let rows = psql_tls(
        &router,
        "ada:a",
        &verified,
        "SELECT sum(length(repeat('x', 1000))) FROM \
        generate_series(1, 20000)",
    );
    assert_eq!(rows, "20000000");
    let question = format!("SELECT length('{}')", "x".repeat(100_000));
    assert_eq!(psql_tls(&router, "ada:a", &verified, &question), "100000");

    // The client is sure of whom it speaks to.
    let other = Authority::new(dir.path(), "other");
    let refused = psql_tls(&router, "ada:a", &verify(&other.file), "SELECT 1");
    assert!(refused.contains("certificate verify failed"), "{refused}");
    // And the router wants TLS.
    let refused = login(&router.dsn("ada:a")).await;
    assert!(refused.starts_with("28000 no pg_hba.conf entry"), "{refused}");
    assert!(refused.ends_with("no encryption"), "{refused}");
}

#[test]
fn a_client_certificate_is_as_good_as_a_password_for_the_user_that_it_names() {
    let (cluster, dir) = (two_shards(), TestDir::new());
    run(cluster.dsn(), "CREATE ROLE ada LOGIN; CREATE ROLE eve LOGIN");
    let authority = Authority::new(dir.path(), "authority");
    let pair = authority.sign(dir.path(), "router", "router", &["localhost"]);
    let ada = authority.sign(dir.path(), "ada", "ada", &[]);
    let stranger = Authority::new(dir.path(), "other").sign(dir.path(), "stranger", "ada", &[]);
    let router = RouterProcess::start(
        &cluster,
        "cert",
        &config(
            &pair,
            &format!(
                "client_ca = \"{}\"\n[[auth.hba]]\ntype = 'hostssl'\nmethod = 'cert'",
                authority.file.display()
            ),
        ),
    );
    let with = |login: &str, pair: &Pair| {
        let (cert, key) = (pair.cert.display(), pair.key.display());
        let parameters = format!("{}&sslcert={cert}&sslkey={key}", verify(&authority.file));
        psql_tls(&router, login, &parameters, "SELECT current_user")
    };
    assert_eq!(with("ada", &ada), "ada");
    let refused = with("eve", &ada);
    assert!(refused.contains("certificate authentication failed for user \"eve\""), "{refused}");
    let refused = with("ada", &stranger);
    assert!(refused.contains("unknown ca"), "{refused}");
    let refused = psql_tls(
        &router,
        "ada",
        &format!("{}&sslcert=/nowhere&sslkey=/nowhere", verify(&authority.file)),
        "SELECT 1",
    );
    assert!(refused.contains("connection requires a valid client certificate"), "{refused}");
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart() {
    let (cluster, dir) = (two_shards(), TestDir::new());
    let authority = Authority::new(dir.path(), "authority");
    let pair = authority.sign(dir.path(), "router", "first", &["localhost"]);
    let router =
        RouterProcess::start(&cluster, "renewed", &config(&pair, "[auth]\nmethod = 'trust'"));
    assert!(subject(&router.listen).contains("first"), "{}", subject(&router.listen));
    // Something that cannot be used changes nothing.
    std::fs::write(&pair.cert, "no certificate").expect("it can be written");
    authority.sign(dir.path(), "router", "second", &["localhost"]);
    wait_until("the new certificate", || {
        let subject = subject(&router.listen);
        assert!(subject.contains("first") || subject.contains("second"), "{subject}");
        subject.contains("second")
    });
    let answer = psql_tls(&router, "postgres", &verify(&authority.file), "SELECT 1");
    assert_eq!(answer, "1");
}
