//! Programs that people use, and more data than they should need memory for.

use std::process::Command;

use futures_util::{SinkExt, TryStreamExt};

use crate::twins::{Twins, cluster, lines};
use crate::wire::Protocol;

#[test]
fn more_is_copied_than_any_buffer_holds() {
    let mut t = Twins::new("copy_much", "k int, v text");
    let data = lines(0..60_000, &format!("#\t{}\n", "x".repeat(1000)));
    let copied = t.router.copy_in("COPY copy_much FROM STDIN", &data, 1 << 20, Protocol::Simple);
    assert_eq!(copied.tag(), "COPY 60000");
    let mut rows = t.router.copy_out("COPY copy_much TO STDOUT", Protocol::Simple).data;
    let mut wanted: Vec<_> = data.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    rows.sort();
    wanted.sort();
    assert!(rows == wanted);
    // 60 MB have gone through it twice.
    let status = format!("/proc/{}/status", t.cluster.file.routers[0].pid);
    let status = std::fs::read_to_string(status).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a size");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 40_000, "the router has used {peak} kB");
}

#[test]
fn a_driver_copies_by_the_extended_protocol() {
    let cluster = cluster();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (mut client, connection) =
            tokio_postgres::connect(cluster.dsn(), tokio_postgres::NoTls).await.expect("a router");
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE copy_drv (k int, v text)").await.expect("created");
        client
            .query("SELECT create_distributed_table('copy_drv', 'k')", &[])
            .await
            .expect("distributed");
        let mut data = Vec::new();
        for format in ["text", "binary"] {
            let transaction = client.transaction().await.expect("begun");
            if format == "text" {
                data = lines(0..500, "#\tv#\n");
            }
            let sql = format!("COPY copy_drv FROM STDIN (FORMAT {format})");
            let sink = transaction.copy_in(&*sql).await.expect("a COPY");
            futures_util::pin_mut!(sink);
            for piece in data.chunks(37) {
                sink.send(bytes::Bytes::copy_from_slice(piece)).await.expect("sent");
            }
            assert_eq!(sink.finish().await.expect("copied"), 500);
            transaction.commit().await.expect("committed");
            let rows = client.query("SELECT k FROM copy_drv", &[]).await.expect("rows");
            assert_eq!(rows.len(), 500, "{format}");
            let out = client.copy_out("COPY copy_drv TO STDOUT BINARY").await.expect("a COPY");
            let pieces: Vec<bytes::Bytes> = out.try_collect().await.expect("copied");
            data = pieces.concat();
            client.batch_execute("TRUNCATE copy_drv").await.expect("emptied");
        }
        let sink = client.copy_in("COPY copy_drv FROM STDIN").await.expect("a COPY");
        futures_util::pin_mut!(sink);
        sink.send(bytes::Bytes::from_static(b"1\tx\nbad\ty\n")).await.expect("sent");
        let error = sink.finish().await.expect_err("a bad key");
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("22P02"));
        let row = client.query_one("SELECT count(*) FROM copy_drv", &[]).await.expect("a row");
        assert_eq!(row.get::<_, i64>(0), 0);
    });
}

#[test]
fn psql_copies_from_and_to_files() {
    let mut t = Twins::new("copy_psql", "k int PRIMARY KEY, v text");
    let directory = &t.cluster.file.data_dir;
    let file = directory.join("in.csv");
    std::fs::write(&file, lines(0..101, "#;\"line\n#\"\n")).expect("written");
    let psql = |command: &str| {
        let output = Command::new("psql")
            .args(["-XAt", t.cluster.dsn(), "-c", command])
            .output()
            .expect("psql runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let from = format!("\\copy copy_psql from '{}' with csv header delimiter ';'", file.display());
    assert_eq!(psql(&from), "COPY 100\n");
    assert!(psql(&from).starts_with("ERROR:  duplicate key value violates"));
    let out = directory.join("out.bin");
    assert_eq!(psql(&format!("\\copy copy_psql to '{}' binary", out.display())), "COPY 100\n");
    let data = std::fs::read(&out).expect("written");
    let copied =
        t.plain.copy_in("COPY copy_psql FROM STDIN BINARY", &data, 1 << 20, Protocol::Simple);
    assert_eq!(copied.tag(), "COPY 100");
    let [plain, routed] = t.rows();
    assert_eq!(routed, plain);
}
