//! What a statement costs in heap allocations, counted: the router runs inside this process, and
//! the client is a socket and two fixed buffers, so whatever is allocated is the router's.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use pgherd::config::Config;
use pgherd::wire::{frontend, startup};
use pgherd_tests::{cluster, run, wait_until};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

struct Client {
    stream: TcpStream,
    buffer: Box<[u8]>,
}

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the router listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut client = Self { stream, buffer: vec![0; 1 << 16].into() };
        let mut hello = Vec::new();
        startup::put_startup(&mut hello, &[("user", "postgres"), ("database", "app")]);
        client.ask(&hello);
        client
    }

    /// Sends a request and reads up to ReadyForQuery; the bytes that came.
    fn ask(&mut self, request: &[u8]) -> usize {
        self.stream.write_all(request).expect("the router reads");
        let mut total = 0;
        // The last six bytes, wherever reads are cut.
        let mut tail = [0; 6];
        loop {
            let count = self.stream.read(&mut self.buffer).expect("the router answers");
            assert!(count > 0, "the router hung up");
            total += count;
            for byte in &self.buffer[count.saturating_sub(6)..count] {
                tail.rotate_left(1);
                tail[5] = *byte;
            }
            if tail[..5] == READY {
                return total;
            }
        }
    }
}

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.stats();
    work();
    let after = ALLOCATOR.stats();
    (after.allocations + after.reallocations) - (before.allocations + before.reallocations)
}

fn query(sql: &str) -> Vec<u8> {
    let mut request = Vec::new();
    frontend::put_query(&mut request, sql);
    request
}

/// Bind, Describe, Execute and Sync of a statement with one text parameter.
fn execute(parse: Option<&str>, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    if let Some(sql) = parse {
        frontend::put_parse(&mut request, name, sql, &[]);
    }
    let mut parameters = vec![0, 0, 0, 1];
    parameters.extend_from_slice(&(value.len() as u32).to_be_bytes());
    parameters.extend_from_slice(value);
    frontend::put_bind(&mut request, b"", name, &parameters, &[0, 0]);
    request.extend_from_slice(frontend::DESCRIBE_UNNAMED_PORTAL);
    request.extend_from_slice(frontend::EXECUTE_UNNAMED);
    request.extend_from_slice(frontend::SYNC);
    request
}

#[test]
fn a_routed_statement_allocates_next_to_nothing_and_a_row_nothing() {
    let cluster = cluster();
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY, v text)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    run(cluster.dsn(), "INSERT INTO t VALUES (1, 'row 1'), (2, 'row 2'), (3, 'row 3')");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let text = format!(
        "listen = \"{address}\"\ncatalog = \"{}\"\nworkers = 1\n[auth]\nmethod = \"trust\"\n",
        cluster.file.catalog.dsn
    );
    let config = Config::parse(&text, |_| None).expect("a configuration");
    // It ends with this process.
    std::thread::spawn(|| pgherd::serve::run(config).expect("the router runs"));
    wait_until("the router listens", || TcpStream::connect(&address).is_ok());

    let mut client = Client::connect(&address);
    let prepare = {
        let mut request = Vec::new();
        frontend::put_parse(&mut request, b"s", "SELECT v FROM t WHERE k = $1", &[]);
        request.extend_from_slice(frontend::SYNC);
        request
    };
    client.ask(&prepare);
    let statements = [
        ("simple", query("SELECT v FROM t WHERE k = 2")),
        ("extended", execute(Some("SELECT v FROM t WHERE k = $1"), b"", b"2")),
        ("prepared", execute(None, b"s", b"2")),
    ];
    const COUNT: usize = 5_000;
    for (protocol, request) in &statements {
        // The first ones plan, prepare and let buffers grow.
        for _ in 0..100 {
            client.ask(request);
        }
        let count = allocations(|| {
            for _ in 0..COUNT {
                client.ask(request);
            }
        });
        let each = count as f64 / COUNT as f64;
        println!("{protocol}: {each:.2} allocations a statement");
        // Polling and recovery, a few hundred a second, run meanwhile.
        assert!(each < 2.0, "{protocol}: {each:.2} allocations a statement");
    }

    let rows =
        |count: u32| query(&format!("SELECT g, 'row ' || g FROM generate_series(1, {count}) g"));
    let (few, many) = (rows(1), rows(500_000));
    client.ask(&few);
    client.ask(&many);
    let count = allocations(|| {
        assert!(client.ask(&many) > 10_000_000);
    });
    println!("{count} allocations for 500000 rows");
    assert!(count < 5_000, "{count} allocations for 500000 rows");
}
