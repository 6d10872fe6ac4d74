//! Client programs that must see the same through the router as on plain PostgreSQL.
//!
//! A program in `tests/clients/` is run twice, each time with the address of one side in its
//! environment, over tables that `schema.sql` made. What it prints comes in sections, `== name`;
//! a section that differs is a failure, unless `known.txt` names it with the reason.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use pgherd::dev::LocalCluster;

use crate::dev::TestDir;
use crate::{DEADLINE, cluster, run};

/// Runs the client's program on both sides and compares what it prints.
///
/// # Panics
/// They differ, or the client is not installed.
pub fn check(client: &str, command: &[&str]) {
    check_after(client, command, |dsn| {
        let schema = folder().join("schema.sql");
        let schema = std::fs::read_to_string(schema).expect("the schema is there");
        run(dsn, &format!("SET client_min_messages = warning; {schema}"));
    });
}

/// The same over what `prepare` makes on each side.
///
/// # Panics
/// They differ, or the client is not installed.
pub fn check_after(client: &str, command: &[&str], prepare: impl Fn(&str)) {
    let installed = folder().join("../../target/clients/installed");
    let list = std::fs::read_to_string(&installed).unwrap_or_default();
    assert!(
        list.lines().any(|line| line == client),
        "the client {client} is not installed: run tests/clients/install"
    );
    let cluster = cluster();
    let plain = plain(&cluster);
    let sides = [plain.as_str(), cluster.dsn()];
    let [want, got] = sides.map(|dsn| {
        prepare(dsn);
        output(client, command, dsn)
    });
    assert!(!want.is_empty(), "{client} says nothing");
    let known = Known::of(client);
    let differences = known.compare(&want, &got);
    assert!(differences.is_empty(), "{differences}");
}

/// Where the programs are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// PostgreSQL's side is another database of the home shard's server, on which the router's
/// functions do nothing.
fn plain(cluster: &LocalCluster) -> String {
    let home = &cluster.file.shards[0];
    run(&home.dsn, "CREATE DATABASE plain");
    let dsn = format!("postgres://postgres@127.0.0.1:{}/plain", home.port);
    let functions = std::fs::read_to_string(folder().join("plain.sql")).expect("it is there");
    run(&dsn, &functions);
    dsn
}

#[derive(Debug, PartialEq, Eq)]
struct Section {
    name: String,
    text: String,
}

/// What the program prints on one side.
fn output(client: &str, command: &[&str], dsn: &str) -> Vec<Section> {
    let dir = TestDir::new();
    let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
    let address = dsn.strip_prefix("postgres://postgres@").expect("a local address");
    let (host, database) = address.split_once('/').expect("it names a database");
    let (host, port) = host.split_once(':').expect("it names a port");
    let clients = folder().join("../../target/clients");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder().join(client))
        .env("PATH", format!("{}/python/bin:{path}", clients.display()))
        .env("NODE_PATH", clients.join("node/node_modules"))
        .env("CLIENTS", &clients)
        .env("DSN", dsn)
        .env("PGHOST", host)
        .env("PGPORT", port)
        .env("PGUSER", "postgres")
        .env("PGDATABASE", database)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).expect("a file"))
        .stderr(File::create(&stderr).expect("a file"))
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: run tests/clients/install", command[0]));
    let deadline = Instant::now() + 2 * DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("it is there");
            child.wait().expect("it ends");
            break None;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    };
    let read = |file: &Path| {
        String::from_utf8_lossy(&std::fs::read(file).expect("its output is there")).into_owned()
    };
    let text = read(&stdout);
    let failed = match status {
        Some(status) if status.success() => None,
        Some(status) => Some(status.to_string()),
        None => Some("it does not end".to_owned()),
    };
    if let Some(failed) = failed {
        panic!("{client} on {dsn}: {failed}\n{text}\n{}", read(&stderr));
    }
    sections(&text)
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("== "), sections.last_mut()) {
            (Some(name), _) => {
                sections.push(Section { name: name.to_owned(), text: String::new() });
            }
            (None, Some(section)) => {
                let _ = writeln!(section.text, "{line}");
            }
            (None, None) => panic!("the output does not begin with a section: {line}"),
        }
    }
    sections
}

/// The sections of one client that differ today.
struct Known {
    client: String,
    sections: Vec<String>,
}

impl Known {
    fn of(client: &str) -> Self {
        let file = folder().join("known.txt");
        let text = std::fs::read_to_string(file).expect("the list is there");
        let mut sections = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [name, section, reason] = parts.as_slice() else {
                panic!("known.txt: a line is \"client | section | reason\": {line}");
            };
            assert!(!reason.is_empty(), "known.txt: a difference has a reason: {line}");
            if *name == client {
                sections.push((*section).to_owned());
            }
        }
        Self { client: client.to_owned(), sections }
    }

    fn compare(&self, want: &[Section], got: &[Section]) -> String {
        let client = &self.client;
        let mut report = String::new();
        for known in &self.sections {
            if !want.iter().any(|section| section.name == *known) {
                let _ = writeln!(report, "known.txt: {client} has no section \"{known}\"");
            }
        }
        for section in want {
            let name = &section.name;
            let other = got.iter().find(|other| other.name == *name);
            let text = other.map_or("    (nothing)", |other| &other.text);
            let known = self.sections.contains(name);
            if known == (section.text == text) {
                let _ = match known {
                    true => writeln!(
                        report,
                        "{client} | {name}: this known difference is gone: take it from known.txt"
                    ),
                    false => {
                        let (want, got) = differing(&section.text, text);
                        writeln!(report, "{client} | {name}\nPostgreSQL:\n{want}the router:\n{got}")
                    }
                };
            }
        }
        for section in got.iter().filter(|section| !want.iter().any(|s| s.name == section.name)) {
            let _ = writeln!(report, "{client} | {}: not on PostgreSQL", section.name);
        }
        report
    }
}

/// The lines between the common beginning and the common end.
fn differing(want: &str, got: &str) -> (String, String) {
    let (want, got): (Vec<&str>, Vec<&str>) = (want.lines().collect(), got.lines().collect());
    let head = want.iter().zip(&got).take_while(|(a, b)| a == b).count();
    let rest = want.len().min(got.len()) - head;
    let tail = want.iter().rev().zip(got.iter().rev()).take(rest).take_while(|(a, b)| a == b);
    let tail = tail.count();
    let text = |lines: &[&str]| {
        let mut text = String::new();
        for line in &lines[head..lines.len() - tail] {
            let _ = writeln!(text, "    {line}");
        }
        text
    };
    (text(&want), text(&got))
}
