//! Routers, the source, the target and the home shard with the catalog are killed in every step of a
//! run, and all links to source and target cut, while clients write. Each time one side is in charge, the same command goes on, and what was
//! acknowledged is there once.
//!
//! A share of the cases runs each time. All of them, or one:
//! `PGHERD_RESHARD_KILLS=all cargo nextest run -p pgherd-tests --test reshard whoever_is_killed`
//! `PGHERD_RESHARD_KILLS=target:copy …`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgherd::dev::LocalCluster;
use pgherd_tests::proxy::FaultProxy;
use pgherd_tests::wire::Client;
use pgherd_tests::{program, run, wait_until};

use super::command::{assert_clean, assert_placed};
use super::load::{KEYS, TABLES, cluster};

const CLIENTS: u32 = 2;

/// Cases of a usual run: each so-many-th.
const SHARE: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Router,
    Source,
    Target,
    /// The catalog's server, which has none of the moving rows.
    Home,
    /// Those of routers, of the command, and of each to the other.
    Links,
}

const VICTIMS: [(Victim, &str); 5] = [
    (Victim::Router, "router"),
    (Victim::Source, "source"),
    (Victim::Target, "target"),
    (Victim::Home, "home"),
    (Victim::Links, "links"),
];

/// Commands of a run, and the steps of each that tell of themselves.
const STEPS: [(&str, &[&str]); 4] = [
    ("start", &["publish", "copy", "catch up", "verify", "ready"]),
    ("cutover", &["follow", "publish", "verify", "cutting", "switch"]),
    ("rollback", &["follow", "verify", "returning", "switch"]),
    ("finish", &["finishing", "clear", "delete"]),
];

#[derive(Debug, Clone, Copy)]
struct Case {
    victim: Victim,
    name: &'static str,
    command: &'static str,
    step: &'static str,
}

fn cases() -> Vec<Case> {
    let all = STEPS.iter().flat_map(|(command, steps)| {
        steps.iter().flat_map(move |step| {
            VICTIMS.iter().map(move |(victim, name)| Case { victim: *victim, name, command, step })
        })
    });
    match std::env::var("PGHERD_RESHARD_KILLS").ok().as_deref() {
        None | Some("") => all.step_by(SHARE).collect(),
        Some("all") => all.collect(),
        Some(one) => {
            let (victim, step) = one.split_once(':').expect("VICTIM:STEP, or all");
            all.filter(|case| case.name == victim && case.step == step).collect()
        }
    }
}

/// What a client wrote: each note is one of its own.
#[derive(Debug, Default)]
struct Notes {
    acknowledged: BTreeSet<String>,
    /// Nobody said what had become of them.
    unclear: BTreeSet<String>,
    /// What no crash explains.
    errors: Vec<String>,
}

/// Whether an error is of a server or a connection that is gone, or says to try again.
fn is_expected(lines: &str) -> bool {
    ["08", "57P", "40001", "53300"].iter().any(|code| lines.contains(&format!("ERROR {code}")))
        || lines.contains("FATAL 57P")
        || lines.contains("FATAL 08")
}

fn write(client: u32, routers: &[SocketAddr], over: &AtomicBool) -> Notes {
    let mut notes = Notes::default();
    let mut connection = None;
    let mut turn = 0_u32;
    while !over.load(Ordering::Relaxed) {
        let Some(open) = connection.as_mut() else {
            let router = routers[(client + turn) as usize % routers.len()];
            turn += 1;
            connection = Client::connect(router, "app").ok();
            continue;
        };
        turn += 1;
        let key = client * KEYS + turn * 7 % KEYS;
        let note = format!("note {client}.{turn}");
        let sql = format!("INSERT INTO notes VALUES ({key}, '{note}')");
        match open.simple(&sql, "") {
            Ok(answer) if answer.error.is_none() => drop(notes.acknowledged.insert(note)),
            Ok(answer) => {
                let lines = answer.lines.join(" ");
                if !is_expected(&lines) {
                    notes.errors.push(format!("{sql}: {lines}"));
                }
                notes.unclear.insert(note);
            }
            Err(_) => {
                notes.unclear.insert(note);
                connection = None;
            }
        }
    }
    notes
}

/// The ends of the run of one case: rows go there and back, case by case.
fn ends(number: usize) -> (u32, u32) {
    if number.is_multiple_of(2) { (1, 2) } else { (2, 1) }
}

/// A cluster whose shards 1 and 2 are behind links that can be cut.
struct Linked {
    cluster: LocalCluster,
    links: [FaultProxy; 2],
}

impl Linked {
    fn new() -> Self {
        let cluster = cluster(3, CLIENTS);
        let links = [1, 2].map(|shard: usize| {
            let port = cluster.file.shards[shard].port;
            let link = FaultProxy::start(([127, 0, 0, 1], port).into(), Arc::default());
            let sql = format!(
                "SELECT pgherd.set_dsn({shard}, 'postgres://{}/{}', epoch) FROM pgherd.cluster",
                link.address, cluster.file.database
            );
            run(&cluster.file.catalog.dsn, &sql);
            link
        });
        Self { cluster, links }
    }
}

fn kill_and_restart(linked: &mut Linked, victim: Victim, number: usize) {
    let (source, target) = ends(number);
    let cluster = &mut linked.cluster;
    match victim {
        Victim::Links => linked.links.iter().for_each(FaultProxy::cut),
        Victim::Router => {
            cluster.crash_router(number % 2);
            cluster.restart_router(number % 2).expect("the router starts again");
        }
        Victim::Source | Victim::Target | Victim::Home => {
            let shard = match victim {
                Victim::Source => source,
                Victim::Target => target,
                _ => 0,
            };
            cluster.crash_shard(shard as usize).expect("the shard was there");
            cluster.restart_shard(shard as usize).expect("the shard starts again");
        }
    }
}

/// Runs a command; at `step` the victim is killed. Whether it ended well.
fn command(linked: &mut Linked, args: &[String], kill: Option<(&Case, usize)>) -> bool {
    let mut child = Command::new(program())
        .arg("reshard")
        .args(args)
        .args(["--json", "--max-pause", "2s", "--catalog", &linked.cluster.file.catalog.dsn])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("pgherd runs");
    let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut kill = kill;
    for line in output.lines().map_while(Result::ok) {
        if let Some((case, number)) = kill
            && line.contains(&format!("\"step\":\"{}\"", case.step))
        {
            kill_and_restart(linked, case.victim, number);
            kill = None;
        }
    }
    assert!(kill.is_none(), "the step was not reached: {kill:?}");
    child.wait().expect("it ends").success()
}

fn phase(cluster: &LocalCluster) -> String {
    run(&cluster.file.catalog.dsn, "SELECT phase FROM pgherd.reshard_list ORDER BY id DESC LIMIT 1")
}

fn range_of(cluster: &LocalCluster, shard: u32) -> String {
    let sql = format!(
        "SELECT group_id, start_hash, coalesce((SELECT min(o.start_hash) FROM pgherd.range_list o \
         WHERE o.group_id = r.group_id AND o.start_hash > r.start_hash)::text, '') \
         FROM pgherd.range_list r WHERE shard = {shard} ORDER BY 1, 2 LIMIT 1"
    );
    run(&cluster.file.catalog.dsn, &sql).replace('|', ":")
}

fn go_through(linked: &mut Linked, case: &Case, number: usize) {
    let (from, to) = ends(number);
    let begin = [
        "start".to_owned(),
        format!("--range={}", range_of(&linked.cluster, from)),
        "--to".to_owned(),
        to.to_string(),
    ];
    let back = case.command == "rollback";
    let verbs: &[&str] = if back {
        &["start", "cutover", "rollback", "cutover", "finish"]
    } else {
        &["start", "cutover", "finish"]
    };
    let mut kill = Some((case, number));
    for verb in verbs {
        wait_until(&format!("{case:?}: {verb}"), || {
            let begun = *verb != "start" || !matches!(&*phase(&linked.cluster), "" | "finished");
            let args = if begun { vec![(*verb).to_owned()] } else { begin.to_vec() };
            let kill = if *verb == case.command { kill.take() } else { None };
            command(linked, &args, kill)
        });
    }
    assert_eq!(phase(&linked.cluster), "finished", "{case:?}");
}

#[test]
fn whoever_is_killed_in_a_run_it_goes_on_and_no_acknowledged_write_is_lost() {
    let cases = cases();
    assert!(!cases.is_empty(), "PGHERD_RESHARD_KILLS names no case");
    let mut linked = Linked::new();
    for (number, case) in cases.iter().enumerate() {
        println!("PGHERD_RESHARD_KILLS='{}:{}' ({})", case.name, case.step, case.command);
        let notes = while_written(&mut linked, |linked| go_through(linked, case, number));
        audit(&linked.cluster, &notes, case);
        // So that the next case has no more to copy than this one had.
        run(linked.cluster.dsn(), "DELETE FROM notes");
    }
    println!("{} cases", cases.len());
    assert_placed(&linked.cluster, &TABLES);
    assert_clean(&linked.cluster);
}

/// Does something while clients write: what they were told.
fn while_written(linked: &mut Linked, work: impl FnOnce(&mut Linked)) -> Vec<Notes> {
    let routers: Vec<SocketAddr> = linked.cluster.file.routers.iter().map(|r| r.listen).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, routers) = (&over, &routers);
        let writers: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || write(client, routers, over))).collect();
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(linked)));
        over.store(true, Ordering::Relaxed);
        let notes = writers.into_iter().map(|writer| writer.join().expect("it ends")).collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        notes
    })
}

/// Every note that somebody was told of is there once, and no other.
fn audit(cluster: &LocalCluster, notes: &[Notes], case: &Case) {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for note in run(cluster.dsn(), "SELECT note FROM notes").lines() {
        *found.entry(note.to_owned()).or_default() += 1;
    }
    let errors: Vec<&String> = notes.iter().flat_map(|notes| &notes.errors).collect();
    let some = &errors[..errors.len().min(3)];
    assert!(errors.is_empty(), "{case:?}: {} errors: {some:?}", errors.len());
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{case:?}: twice: {twice:?}");
    let told = notes.iter().flat_map(|notes| &notes.acknowledged);
    let lost: Vec<&String> = told.filter(|note| !found.contains_key(*note)).collect();
    let some = &lost[..lost.len().min(3)];
    assert!(lost.is_empty(), "{case:?}: {} lost: {some:?}", lost.len());
    let known = |note: &String| {
        notes.iter().any(|n| n.acknowledged.contains(note) || n.unclear.contains(note))
    };
    assert!(found.keys().all(known), "{case:?}: a note that nobody wrote");
}
