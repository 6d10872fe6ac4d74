//! PostgreSQL's own regression scripts, on demand (`tests/regress`): psql runs each one through the
//! router, where nothing is distributed, and on a plain server, and what it prints must be the same.
//!
//! `data/regress_known.txt` names the differences that are accepted, each with its reason. The
//! scripts build on each other, so both sides run them in the order of PostgreSQL's schedule, one
//! at a time. The outputs stay in `target/regress`; with `PGHERD_REGRESS_AGAIN` those of the last run
//! are compared anew, which takes a second. An entry of the list that nothing needs fails a whole run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgherd_tests::{cluster, cluster_with};

/// How long one script may take on one side: the longest one takes 20 seconds on a quiet machine, and
/// more than five minutes on one with much else to do.
const LONGEST: Duration = Duration::from_secs(1800);

#[test]
fn scripts_print_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/regress");
    let root = root.canonicalize().expect("tests/regress brought the scripts");
    let chosen = std::env::var("PGHERD_REGRESS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split_whitespace().collect();
    let scripts = schedule(&root, &chosen);
    let again = std::env::var_os("PGHERD_REGRESS_AGAIN").is_some();
    let servers = (!again).then(|| (cluster(), cluster_with(|options| options.shards = 1)));
    let sides = servers.as_ref().map(|(routed, plain)| {
        [("plain", &*plain.file.shards[0].dsn), ("router", routed.dsn())]
            .map(|(name, dsn)| Side::new(&root, name, dsn))
    });
    for script in &scripts {
        if let Some([plain, router]) = &sides {
            // They are servers of their own, so neither waits for the other.
            std::thread::scope(|scope| {
                scope.spawn(|| plain.run(&root, script));
                router.run(&root, script);
            });
            let compared = compare(&root, std::slice::from_ref(script), &mut Known::read());
            println!("{script}: {} new differences, {} known", compared.new, compared.accepted);
        }
    }
    // The list of now: a whole run takes long, and whoever reads along may have named more.
    let mut known = Known::read();
    let compared = compare(&root, &scripts, &mut known);
    fs::write(root.join("differences.txt"), &compared.report).expect("the report is written");
    let mut refused: Vec<_> = compared.refused.into_iter().collect();
    refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (error, count) in refused.iter().take(40) {
        println!("{count:5} {error}");
    }
    println!(
        "{} of {} scripts print the same; {} differences accepted",
        compared.same,
        scripts.len(),
        compared.accepted
    );
    let unused: Vec<_> =
        known.0.iter().filter(|entry| entry.hunks == 0 && !entry.sometimes).collect();
    assert!(!chosen.is_empty() || unused.is_empty(), "regress_known.txt: not needed: {unused:#?}");
    assert!(
        compared.report.is_empty(),
        "see target/regress/differences.txt; repeat: tests/regress SCRIPT"
    );
}

/// What the outputs of both sides have come to.
#[derive(Default)]
struct Compared {
    report: String,
    new: usize,
    accepted: usize,
    same: usize,
    /// What the router has refused, and how often.
    refused: BTreeMap<String, usize>,
}

fn compare(root: &Path, scripts: &[String], known: &mut Known) -> Compared {
    let mut compared = Compared::default();
    for script in scripts {
        let [plain, router] =
            ["plain", "router"].map(|side| root.join(side).join(format!("{script}.out")));
        let all = hunks(&plain, &router);
        let (accepted, new): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|hunk| known.accepts(script, hunk));
        compared.accepted += accepted.len();
        compared.new += new.len();
        compared.same += usize::from(new.is_empty());
        for hunk in new {
            for error in hunk.lines().filter_map(|line| line.split_once("ERROR:  ")) {
                if error.0.starts_with('+') {
                    *compared.refused.entry(error.1.to_owned()).or_insert(0) += 1;
                }
            }
            let _ = writeln!(compared.report, "== {script}\n{hunk}");
        }
    }
    compared
}

/// The scripts in PostgreSQL's order: all, or the chosen ones after what all others build on.
fn schedule(root: &Path, chosen: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(root.join("source/parallel_schedule")).expect("the schedule");
    let all = text.lines().filter_map(|line| line.strip_prefix("test: "));
    let all = all.flat_map(str::split_whitespace).map(str::to_owned);
    let foundation = ["test_setup", "create_index", "create_misc", "create_type", "create_table"];
    let wanted = |name: &String| {
        chosen.is_empty() || chosen.contains(&&**name) || foundation.contains(&&**name)
    };
    all.filter(wanted).collect()
}

struct Side {
    dsn: String,
    outputs: PathBuf,
}

impl Side {
    /// A database of its own with PostgreSQL's settings for these scripts.
    fn new(root: &Path, name: &str, dsn: &str) -> Self {
        let outputs = root.join(name);
        // A run before this one may have left some.
        let _ = fs::remove_dir_all(&outputs);
        fs::create_dir_all(outputs.join("results")).expect("a directory for the outputs");
        // Servers write there, too, and they are the user postgres.
        let all = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
        for dir in [&outputs, &outputs.join("results")] {
            fs::set_permissions(dir, all.clone()).expect("the directory is ours");
        }
        Self { dsn: dsn.to_owned(), outputs }
    }

    /// Runs a script; what psql prints is in its output.
    fn run(&self, root: &Path, script: &str) {
        let source = root.join("source");
        let output = self.outputs.join(format!("{script}.out"));
        let file = File::create(&output).expect("a file for the output");
        let mut child = Command::new("psql")
            .args(["-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"])
            .args(["-f", &format!("{}/sql/{script}.sql", source.display()), &self.dsn])
            .current_dir(&self.outputs)
            .env("PG_ABS_SRCDIR", &source)
            .env("PG_ABS_BUILDDIR", &self.outputs)
            .env("PG_LIBDIR", "/usr/lib/postgresql/15/lib")
            .env("PG_DLSUFFIX", ".so")
            .env("PGTZ", "PST8PDT")
            .env("PGDATESTYLE", "Postgres, MDY")
            .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the file is open"))
            .stderr(file)
            .spawn()
            .expect("psql runs");
        let deadline = Instant::now() + LONGEST;
        while child.try_wait().expect("psql can be waited for").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("psql is there");
                child.wait().expect("psql ends");
                println!("{script}: ended after {LONGEST:?}");
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Each place where the outputs differ, with a line of context.
fn hunks(plain: &Path, router: &Path) -> Vec<String> {
    let diff = Command::new("diff").args(["-a", "-U1"]).args([plain, router]).output();
    let diff = diff.expect("diff runs").stdout;
    let text = String::from_utf8_lossy(&diff);
    let mut hunks: Vec<String> = Vec::new();
    for line in text.lines().skip(2) {
        match hunks.last_mut() {
            _ if line.starts_with("@@") => hunks.push(format!("{line}\n")),
            Some(hunk) => {
                hunk.push_str(line);
                hunk.push('\n');
            }
            None => {}
        }
    }
    hunks
}

/// The accepted differences.
struct Known(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// `*`: any.
    script: String,
    /// It differs in some runs only (`script?`).
    sometimes: bool,
    /// What one of the sides prints there; `=`: as a whole line; `*`: whatever in that script.
    needle: String,
    /// How many it has accepted.
    hunks: usize,
}

impl Known {
    fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/regress_known.txt");
        let text = fs::read_to_string(file).expect("the list is there");
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entries = lines.map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [script, needle, reason] = parts.as_slice() else {
                panic!("regress_known.txt: \"script | what it prints | reason\": {line}");
            };
            assert!(!reason.is_empty(), "regress_known.txt: no reason: {line}");
            let (name, sometimes) = match script.strip_suffix('?') {
                Some(name) => (name, true),
                None => (*script, false),
            };
            Entry { script: name.to_owned(), sometimes, needle: (*needle).to_owned(), hunks: 0 }
        });
        Self(entries.collect())
    }

    fn accepts(&mut self, script: &str, hunk: &str) -> bool {
        // A session that was lost is never accepted, whatever else stands beside it.
        if ["server closed the connection", "connection to server was lost"]
            .iter()
            .any(|lost| hunk.contains(lost))
        {
            return false;
        }
        let changed = hunk.lines().filter_map(|line| line.strip_prefix(['+', '-']));
        let entry = self.0.iter_mut().find(|entry| {
            let prints = |line: &str| match entry.needle.strip_prefix('=') {
                Some(whole) => line.trim() == whole,
                None => line.contains(entry.needle.as_str()),
            };
            (entry.script == script && entry.needle == "*")
                || (entry.script == "*" || entry.script == script) && changed.clone().any(prints)
        });
        entry.map(|entry| entry.hunks += 1).is_some()
    }
}
