//! The rest of the clients, on demand: `./run test-clients`.

use pgherd_tests::clients::check;

#[test]
fn pgjdbc() {
    check("jdbc", &["java", "-cp", "/usr/share/java/postgresql.jar", "Main.java"]);
}

#[test]
fn lib_pq_and_pgx() {
    check("go", &["bash", "main.sh"]);
}

#[test]
fn ruby_pg() {
    check("ruby", &["ruby", "main.rb"]);
}

#[test]
fn php_pdo() {
    check("php", &["php", "main.php"]);
}

#[test]
fn perl_dbd_pg() {
    check("perl", &["perl", "main.pl"]);
}

#[test]
fn sqlx_and_tokio_postgres() {
    check("rust", &["../../../target/clients/rust/debug/rust-clients"]);
}
