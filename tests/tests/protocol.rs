//! What wire scripts cannot show: pipelines of thousands of messages, messages of many megabytes,
//! cancel keys, Unix sockets, TLS from the first byte, hostile bytes.

mod protocol {
    pub(crate) mod connection;
}

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pgherd_tests::router::RouterProcess;
use pgherd_tests::{cluster, run, wait_until};
use protocol::connection::{Connection, frame};

/// Parse of the named statement `s` with text and int parameters.
fn parse(sql: &str) -> Vec<u8> {
    frame(b'P', &[b"s\0", sql.as_bytes(), &[0, 0, 0]].concat())
}

/// Bind of `s` with text values, and Execute.
fn run_with(values: &[&str]) -> Vec<u8> {
    let mut body = b"\0s\0\0\0".to_vec();
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    body.extend_from_slice(&[0, 0]);
    [frame(b'B', &body), frame(b'E', &[0; 5])].concat()
}

fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), &[0]].concat())
}

#[test]
fn thousands_of_messages_before_sync_are_one_transaction_over_all_shards() {
    const ROWS: usize = 5000;
    let cluster = cluster();
    run(cluster.dsn(), "CREATE TABLE p (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('p', 'k')");
    let mut client = Connection::tcp(&cluster.file.routers[0].listen.to_string());
    client.log_in(0);
    let mut pipeline = parse("INSERT INTO p VALUES ($1, $2)");
    for k in 0..ROWS {
        pipeline.extend(run_with(&[&k.to_string(), "value"]));
    }
    pipeline.extend(sync());
    client.send_while_reading(&pipeline);
    let tags = client.until_ready();
    assert_eq!(tags.iter().filter(|(tag, _)| *tag == b'C').count(), ROWS);
    assert_eq!(tags.iter().filter(|(tag, _)| *tag == b'E').count(), 0);
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM p"), ROWS.to_string());

    // The last of them fails: nothing of it stays, on no shard.
    let mut pipeline = Vec::new();
    for k in ROWS..2 * ROWS {
        pipeline.extend(run_with(&[&k.to_string(), "value"]));
    }
    pipeline.extend(run_with(&["0", "already there"]));
    pipeline.extend(run_with(&[&(3 * ROWS).to_string(), "skipped"]));
    pipeline.extend(sync());
    client.send_while_reading(&pipeline);
    let tags = client.until_ready();
    assert_eq!(tags.iter().filter(|(tag, _)| *tag == b'C').count(), ROWS);
    assert_eq!(tags.iter().filter(|(tag, _)| *tag == b'E').count(), 1);
    assert_eq!(tags.last().map(|(_, body)| body.as_slice()), Some(&b"I"[..]));
    assert_eq!(run(cluster.dsn(), "SELECT count(*) FROM p"), ROWS.to_string());
}

#[test]
fn shards_work_on_a_pipeline_at_the_same_time() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE TABLE p (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('p', 'k')");
    run(cluster.dsn(), "INSERT INTO p VALUES (1, ''), (2, ''), (3, ''), (4, ''), (5, '')");
    let shard_of = |k: u32| {
        cluster.file.shards.iter().position(|shard| {
            run(&shard.dsn, &format!("SELECT count(*) FROM p WHERE k = {k}")) == "1"
        })
    };
    let other = (2..6).find(|k| shard_of(*k) != shard_of(1)).expect("a key of another shard");
    let mut client = Connection::tcp(&cluster.file.routers[0].listen.to_string());
    client.log_in(0);
    let shards = [1, other].map(|k| &cluster.file.shards[shard_of(k).expect("the key is there")]);
    // Somebody holds the row on each of them.
    let mut holders = shards.map(|shard| Connection::tcp(&format!("127.0.0.1:{}", shard.port)));
    for holder in &mut holders {
        holder.log_in(0);
        holder.send_while_reading(&query("BEGIN; SELECT * FROM p FOR UPDATE"));
        holder.until_ready();
    }
    let mut pipeline = parse("UPDATE p SET v = 'x' WHERE k = $1");
    pipeline.extend(run_with(&["1"]));
    pipeline.extend(run_with(&[&other.to_string()]));
    pipeline.extend(sync());
    client.send_while_reading(&pipeline);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    wait_until("both shards work", || shards.iter().all(|shard| run(&shard.dsn, waits) == "1"));
    for holder in &mut holders {
        holder.send_while_reading(&query("COMMIT"));
        holder.until_ready();
    }
    let tags = client.until_ready();
    assert_eq!(tags.iter().filter(|(_, body)| body == b"UPDATE 1\0").count(), 2);
}

#[test]
fn a_message_beyond_the_limit_is_refused_and_the_session_goes_on() {
    let cluster = cluster();
    let router = RouterProcess::start(
        &cluster,
        "limited",
        "max_message_size = \"1MB\"\n[auth]\nmethod = \"trust\"\n",
    );
    let mut client = Connection::tcp(&router.listen);
    client.log_in(0);
    let long = format!("SELECT length('{}')", "x".repeat(1 << 20));
    client.send_while_reading(&query(&long));
    assert_eq!(client.sqlstate(), "54000");
    let short = format!("SELECT length('{}')", "x".repeat(1 << 19));
    client.send_while_reading(&query(&short));
    assert!(client.until_ready().iter().any(|(_, body)| body.ends_with(b"524288")));
    // In a pipeline everything up to Sync is skipped.
    let mut pipeline = parse(&long);
    pipeline.extend(run_with(&[]));
    pipeline.extend(sync());
    pipeline.extend(query("SELECT 7"));
    client.send_while_reading(&pipeline);
    assert_eq!(client.sqlstate(), "54000");
    assert!(client.until_ready().iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"7")));
    // Data of a COPY has no limit.
    client.send_while_reading(&query("CREATE TABLE c (t text)"));
    client.until_ready();
    client.send_while_reading(&query("COPY c FROM STDIN"));
    let data = [vec![b'y'; 3 << 20], b"\n".to_vec()].concat();
    client.send_while_reading(&[frame(b'd', &data), frame(b'c', b"")].concat());
    client.until_ready();
    client.send_while_reading(&query("SELECT length(t) FROM c"));
    assert!(client.until_ready().iter().any(|(_, body)| body.ends_with(b"3145728")));
}

#[test]
fn large_messages_pass_in_both_directions() {
    const SIZE: usize = 40 << 20;
    let cluster = cluster();
    run(cluster.dsn(), "CREATE TABLE p (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('p', 'k')");
    let mut client = Connection::tcp(&cluster.file.routers[0].listen.to_string());
    client.log_in(0);
    let value = "z".repeat(SIZE);
    client.send_while_reading(&query(&format!("INSERT INTO p VALUES (1, '{value}')")));
    assert!(client.until_ready().iter().any(|(_, body)| body == b"INSERT 0 1\0"));
    client.send_while_reading(&query("SELECT v FROM p WHERE k = 1"));
    let rows = client.until_ready();
    let row = rows.iter().find(|(tag, _)| *tag == b'D').expect("a row");
    assert_eq!(row.1.len(), SIZE + 6);
    let insert = parse("INSERT INTO p VALUES (2, $1)");
    client.send_while_reading(&[insert, run_with(&[&value]), sync()].concat());
    assert!(client.until_ready().iter().any(|(_, body)| body == b"INSERT 0 1\0"));
}

#[test]
fn a_long_cancel_key_of_protocol_3_2_cancels_and_a_wrong_one_does_not() {
    let cluster = cluster();
    let address = cluster.file.routers[0].listen.to_string();
    let mut client = Connection::tcp(&address);
    let key = client.log_in(2);
    assert_eq!(key.len(), 4 + 32);
    client.send_while_reading(&query("SELECT pg_sleep(100)"));
    let home = &cluster.file.shards[0].dsn;
    let sleeping =
        || run(home, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1";
    wait_until("it sleeps", sleeping);
    let mut wrong = key.clone();
    wrong[20] ^= 1;
    Connection::tcp(&address).cancel(&wrong);
    // The first four bytes alone are not the key.
    Connection::tcp(&address).cancel(&key[..8]);
    assert!(sleeping());
    Connection::tcp(&address).cancel(&key);
    assert_eq!(client.sqlstate(), "57014");

    let mut old = Connection::tcp(&address);
    assert_eq!(old.log_in(0).len(), 4 + 4);
}

#[test]
fn a_unix_socket_beside_the_port() {
    let cluster = cluster();
    let dir = cluster.file.data_dir.display().to_string();
    let config = format!(
        "unix_socket_dir = \"{dir}\"\nunix_socket_permissions = \"0700\"\n[auth]\nmethod = \"trust\"\n"
    );
    let router = RouterProcess::start(&cluster, "local", &config);
    let port = router.listen.rsplit_once(':').expect("host:port").1;
    let dsn = format!("postgres://postgres@/app?host={dir}&port={port}");
    assert_eq!(run(&dsn, "SELECT 7"), "7");
    // Encryption is declined there, as PostgreSQL does.
    let mut socket = UnixStream::connect(format!("{dir}/.s.PGSQL.{port}")).expect("it is there");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    socket.write_all(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).expect("it is written");
    let mut answer = [0];
    std::io::Read::read_exact(&mut socket, &mut answer).expect("an answer");
    assert_eq!(answer, *b"N");
}

#[test]
fn bytes_of_any_kind_end_in_an_error_and_never_in_silence() {
    let cluster = cluster();
    let address = cluster.file.routers[0].listen.to_string();
    // A small generator: the same bytes in each run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let mut client = Connection::tcp(&address);
        client.log_in(0);
        let mut bytes = Vec::new();
        for _ in 0..1 + next() % 8 {
            let tag = b"QPBDECHSdcfFXz"[(next() % 14) as usize];
            let body: Vec<u8> = (0..next() % 40).map(|_| (next() % 256) as u8).collect();
            let mut message = frame(tag, &body);
            if next().is_multiple_of(8) {
                let at = (next() % message.len() as u64) as usize;
                message[at] = (next() % 256) as u8;
            }
            bytes.extend(message);
        }
        // However it is read, this is an end: the connection's, or a Sync's.
        bytes.extend(sync());
        let ended = client.survives(&bytes);
        assert!(ended, "round {round}: silence after {bytes:?}");
    }
    // Nobody else has suffered.
    assert_eq!(run(cluster.dsn(), "SELECT 7"), "7");
}
