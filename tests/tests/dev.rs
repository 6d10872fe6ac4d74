//! `pgherd dev` and the commands around it, as processes of their own.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Command, Output};

use pgherd::dev::{CLUSTER_FILE, ClusterFile};
use pgherd_tests::dev::{DevProcess, TestDir, processes};
use pgherd_tests::{cluster_with, is_alive, kill, program, psql, run, terminate, wait_until};

/// Problem and hint of a command that must fail: one line each.
fn failure(output: &Output) -> (String, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {text}");
    let line = |prefix: &str| -> String {
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(prefix)).collect();
        let [line] = lines.as_slice() else { panic!("not one line {prefix:?}: {text}") };
        (*line).to_owned()
    };
    (line("pgherd: "), line("hint: "))
}

fn pgherd(args: &[&str]) -> Output {
    Command::new(program()).args(args).env_remove("PGHERD_CATALOG").output().expect("pgherd runs")
}

#[test]
fn it_says_where_everything_is_and_stops_everything_at_sigterm() {
    let dir = TestDir::new();
    let mut dev = DevProcess::start(&["--shards", "3", "--data-dir", dir.text()]);
    let file = ClusterFile::read(dir.path()).expect("the file is complete");
    let dsn = &file.routers[0].dsn;
    assert!(dev.banner.contains(&format!("psql {dsn}\n")), "{}", dev.banner);
    assert!(dev.banner.ends_with(&format!("ready {dsn}\n")), "{}", dev.banner);
    assert_eq!((file.shards.len(), file.pid, file.database.as_str()), (3, dev.pid(), "app"));
    assert_eq!(file.catalog.dsn, file.shards[0].dsn);
    assert_eq!(psql(dsn, "SELECT 1"), "1");
    for shard in &file.shards {
        assert!(shard.data_dir.starts_with(&file.data_dir));
        assert_eq!(psql(&shard.dsn, "SHOW port"), shard.port.to_string());
        assert_eq!(psql(&shard.dsn, "SHOW wal_level"), "logical");
        assert_ne!(psql(&shard.dsn, "SHOW max_prepared_transactions"), "0");
    }
    assert!(processes(&file).into_iter().all(is_alive));
    terminate(dev.pid());
    assert!(dev.wait(), "it ends well");
    assert!(!processes(&file).into_iter().any(is_alive), "something is left");
    assert!(!dir.path().join(CLUSTER_FILE).exists());
}

#[test]
fn a_second_start_finds_tables_and_their_distribution() {
    let dir = TestDir::new();
    let args = ["--shards", "2", "--data-dir", dir.text()];
    let mut dev = DevProcess::start(&args);
    let dsn = ClusterFile::read(dir.path()).expect("a cluster").routers[0].dsn.clone();
    run(&dsn, "CREATE TABLE t (k int PRIMARY KEY, v text)");
    run(&dsn, "SELECT create_distributed_table('t', 'k')");
    run(&dsn, "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
    terminate(dev.pid());
    assert!(dev.wait());
    let dev = DevProcess::start(&args);
    let file = ClusterFile::read(dir.path()).expect("a cluster");
    let dsn = &file.routers[0].dsn;
    assert_eq!(run(dsn, "SELECT v FROM t WHERE k = 3"), "c");
    assert_eq!(run(dsn, "SELECT count(*) FROM t"), "4");
    let counts: Vec<String> =
        file.shards.iter().map(|shard| run(&shard.dsn, "SELECT count(*) FROM t")).collect();
    assert!(counts.iter().all(|count| count != "4"), "{counts:?}");
    let second = failure(&DevProcess::fail(&args));
    assert!(second.0.contains(&format!("process {}", dev.pid())), "{second:?}");
}

#[test]
fn a_directory_of_other_shards_or_another_database_is_refused() {
    let dir = TestDir::new();
    let mut dev = DevProcess::start(&["--shards", "2", "--data-dir", dir.text()]);
    terminate(dev.pid());
    assert!(dev.wait());
    let (problem, hint) = failure(&DevProcess::fail(&["--shards", "3", "--data-dir", dir.text()]));
    assert!(problem.contains("holds 2 shards, not 3"), "{problem}");
    assert!(hint.contains("--shards 2"), "{hint}");
    let other = ["--shards", "2", "--database", "other", "--data-dir", dir.text()];
    let (problem, hint) = failure(&DevProcess::fail(&other));
    assert!(problem.contains("the database app, not other"), "{problem}");
    assert!(hint.contains("--database app"), "{hint}");
    std::fs::remove_dir_all(dir.path().join("shard-1")).expect("a shard to lose");
    let (problem, _) = failure(&DevProcess::fail(&["--shards", "2", "--data-dir", dir.text()]));
    assert!(problem.contains("shard-1 is missing"), "{problem}");
}

#[test]
fn what_is_wrong_with_the_options_is_said_in_one_line_with_a_hint() {
    let holder = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    let fail = |args: &[&str]| {
        let output = Command::new(program()).arg("dev").args(args).output();
        failure(&output.expect("pgherd runs"))
    };
    let (problem, hint) = fail(&["--listen", &taken, "--http", "127.0.0.1:0"]);
    assert!(problem.contains(&taken) && hint.contains("--listen"), "{problem} {hint}");
    let (problem, hint) = fail(&["--http", &taken, "--listen", "127.0.0.1:0"]);
    assert!(problem.contains(&taken) && hint.contains("--http"), "{problem} {hint}");
    let free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    for (args, word) in [
        (["--database", "a b"], "a b"),
        (["--database", "template0"], "template0"),
        (["--shards", "0"], "0 shards"),
        (["--shards", "65"], "65 shards"),
        (["--routers", "17"], "17 routers"),
        (["--pg-conf", "fsync"], "fsync"),
        (["--pg-conf", "nothing=1"], "nothing"),
        (["--pg-conf", "work_mem=''; exit 7"], "work_mem"),
        (["--initdb-args", "--nothing"], "--nothing"),
    ] {
        let (problem, _) = fail(&[&free[..], &args[..]].concat());
        assert!(problem.contains(word), "{args:?}: {problem}");
    }
    let output = Command::new(program())
        .args(["dev", "--listen", "127.0.0.1:0"])
        .env("PG_BIN", "/nowhere")
        .output()
        .expect("pgherd runs");
    let (problem, hint) = failure(&output);
    assert!(problem.contains("/nowhere") && hint.contains("initdb"), "{problem} {hint}");
}

#[test]
fn nothing_outlives_a_killed_dev_and_its_data_serves_again() {
    let dir = TestDir::new();
    let args = ["--shards", "2", "--data-dir", dir.text()];
    let mut dev = DevProcess::start(&args);
    let file = ClusterFile::read(dir.path()).expect("a cluster");
    run(&file.routers[0].dsn, "CREATE TABLE t (k int PRIMARY KEY)");
    run(&file.routers[0].dsn, "SELECT create_distributed_table('t', 'k')");
    run(&file.routers[0].dsn, "INSERT INTO t VALUES (1), (2), (3)");
    kill(dev.pid());
    assert!(!dev.wait());
    // Started at once: it waits for the guard of the first.
    let mut again = DevProcess::start(&args);
    assert!(!processes(&file).into_iter().any(is_alive), "something was left");
    let file = ClusterFile::read(dir.path()).expect("a cluster");
    assert_eq!(run(&file.routers[0].dsn, "SELECT count(*) FROM t"), "3");
    terminate(again.pid());
    assert!(again.wait());
}

#[test]
fn a_killed_temporary_cluster_leaves_no_process_and_no_directory() {
    let mut dev = DevProcess::start(&["--shards", "1"]);
    let dir = dev.banner.lines().find_map(|line| line.trim().strip_prefix("cluster  "));
    let dir = std::path::Path::new(dir.expect("a path")).parent().expect("a directory").to_owned();
    let file = ClusterFile::read(&dir).expect("a cluster");
    kill(dev.pid());
    assert!(!dev.wait());
    wait_until("the guard has removed the directory", || !dir.exists());
    wait_until("all processes are gone", || !processes(&file).into_iter().any(is_alive));
}

#[test]
fn servers_that_outlived_even_the_guard_are_stopped_by_the_next_start() {
    let dir = TestDir::new();
    let args = ["--shards", "2", "--data-dir", dir.text()];
    let mut dev = DevProcess::start(&args);
    let file = ClusterFile::read(dir.path()).expect("a cluster");
    run(&file.routers[0].dsn, "CREATE TABLE t (k int)");
    let guard = guard_of(dev.pid());
    kill(guard);
    kill(dev.pid());
    assert!(!dev.wait());
    assert!(file.shards.iter().all(|shard| is_alive(shard.pid)), "the servers run on");
    let mut again = DevProcess::start(&args);
    assert!(!file.shards.iter().any(|shard| is_alive(shard.pid)), "two servers on one directory");
    terminate(again.pid());
    assert!(again.wait());
}

/// The child of `pgherd dev` that is no router.
fn guard_of(dev: u32) -> u32 {
    let output = Command::new("ps")
        .args(["-o", "pid=,args=", "--ppid", &dev.to_string()])
        .output()
        .expect("ps runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("dev-guard")).expect("a guard");
    line.split_whitespace().next().expect("a column").parse().expect("a process id")
}

#[test]
fn a_table_made_through_one_router_is_usable_at_once_through_another() {
    let cluster = cluster_with(|options| {
        options.shards = 2;
        options.routers = 2;
    });
    let [one, two] = &cluster.file.routers[..] else { panic!("two routers") };
    let addresses: BTreeSet<_> = [one.listen, one.http, two.listen, two.http].into();
    assert_eq!(addresses.len(), 4, "each has its own addresses");
    for n in 0..5 {
        run(&one.dsn, &format!("CREATE TABLE t{n} (k int PRIMARY KEY, v text)"));
        assert_eq!(run(&two.dsn, &format!("SELECT count(*) FROM t{n}")), "0");
        run(&one.dsn, &format!("SELECT create_distributed_table('t{n}', 'k')"));
        let rows = format!("INSERT INTO t{n} VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')");
        run(&two.dsn, &rows);
        assert_eq!(run(&one.dsn, &format!("SELECT count(*) FROM t{n}")), "4");
        for (k, v) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            assert_eq!(run(&one.dsn, &format!("SELECT v FROM t{n} WHERE k = {k}")), v);
        }
    }
}

#[test]
fn crashed_routers_and_shards_come_back_on_their_addresses() {
    let mut cluster = cluster_with(|options| options.shards = 2);
    let dsn = cluster.dsn().to_owned();
    run(&dsn, "CREATE TABLE t (k int PRIMARY KEY)");
    run(&dsn, "SELECT create_distributed_table('t', 'k')");
    run(&dsn, "INSERT INTO t VALUES (1), (2), (3), (4)");
    cluster.crash_router(0);
    assert!(psql(&dsn, "SELECT 1").contains("refused"));
    cluster.restart_router(0).expect("it starts");
    assert_eq!(run(&dsn, "SELECT count(*) FROM t"), "4");
    let pid = cluster.file.shards[1].pid;
    cluster.crash_shard(1).expect("it dies");
    assert!(!is_alive(pid));
    cluster.restart_shard(1).expect("it starts");
    wait_until("the router reaches the shard again", || {
        psql(&dsn, "SELECT count(*) FROM t") == "4"
    });
}

#[test]
fn status_and_lists_show_the_cluster_to_people_and_programs() {
    let mut cluster = cluster_with(|options| options.shards = 2);
    let catalog = cluster.file.catalog.dsn.clone();
    run(cluster.dsn(), "CREATE TABLE t (k int PRIMARY KEY)");
    run(cluster.dsn(), "SELECT create_distributed_table('t', 'k')");
    let json = |args: &[&str]| -> serde_json::Value {
        let output = pgherd(&[args, &["--catalog", &catalog, "--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let status = json(&["status"]);
    assert!(status["epoch"].as_u64().expect("a number") > 1);
    assert_eq!(status["shards"][1]["role"], "primary");
    assert_eq!(status["shards"][1]["reachable"], true);
    assert_eq!(status["tables"][0]["name"], "public.t");
    assert_eq!(status["tables"][0]["key"], "k");
    assert_eq!(status["groups"][0]["tables"][0], "public.t");
    let shards = json(&["shard", "list"]);
    assert_eq!(shards[0]["home"], true);
    assert_eq!(shards.as_array().map(Vec::len), Some(2));
    cluster.crash_shard(1).expect("it dies");
    let status = json(&["status"]);
    assert_eq!(status["shards"][1]["reachable"], false);
    assert!(status["shards"][1]["problem"].as_str().is_some_and(|text| !text.is_empty()));
    let output = pgherd(&["status", "--catalog", &catalog]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("UNREACHABLE") && text.contains("distributed by k"), "{text}");
}

#[test]
fn a_catalog_is_made_and_shards_are_added_by_hand() {
    let cluster = cluster_with(|options| options.shards = 2);
    for shard in &cluster.file.shards {
        run(&shard.dsn, "CREATE DATABASE fresh");
    }
    let fresh = |id: usize| cluster.file.shards[id].dsn.replace("/app", "/fresh");
    let (home, other) = (fresh(0), fresh(1));
    let (problem, hint) = failure(&pgherd(&["status", "--catalog", &home]));
    assert!(problem.contains("holds no catalog"), "{problem}");
    assert!(hint.contains("pgherd cluster init"), "{hint}");
    assert!(pgherd(&["cluster", "init", "--catalog", &home]).status.success());
    assert!(pgherd(&["shard", "add", &other, "--catalog", &home]).status.success());
    let (problem, _) = failure(&pgherd(&["shard", "add", &other, "--catalog", &home]));
    assert!(problem.contains("is a shard already"), "{problem}");
    // The variable and a router's file say where the catalog is as well.
    let dir = TestDir::new();
    let config = dir.path().join("pgherd.toml");
    std::fs::write(&config, format!("catalog = \"{home}\"\n")).expect("a file");
    let by_file = pgherd(&["shard", "list", "--config", config.to_str().expect("a text")]);
    let by_variable = Command::new(program())
        .args(["shard", "list"])
        .env("PGHERD_CATALOG", &home)
        .output()
        .expect("pgherd runs");
    assert!(by_file.status.success() && by_variable.status.success());
    assert_eq!(by_file.stdout, by_variable.stdout);
    assert_eq!(String::from_utf8_lossy(&by_file.stdout).lines().count(), 2);
}

#[test]
fn a_command_that_cannot_work_says_why_and_what_to_do() {
    let dir = TestDir::new();
    let config = dir.path().join("pgherd.toml");
    let config = config.to_str().expect("a text");
    let serve = |text: &str| {
        std::fs::write(config, text).expect("a file");
        failure(&pgherd(&["serve", "--config", config]))
    };
    let (problem, hint) = serve("catalog = \"postgres://postgres@h/d\"\nlitsen = \"x\"\n");
    assert!(problem.contains("litsen") && problem.contains("line 2"), "{problem}");
    assert!(hint.contains("docs/configuration.md"), "{hint}");
    let (problem, _) = serve("listen = \"127.0.0.1:0\"\n");
    assert!(problem.contains("catalog"), "{problem}");
    let (problem, hint) = failure(&pgherd(&["serve", "--config", "/nowhere/pgherd.toml"]));
    assert!(problem.contains("/nowhere/pgherd.toml") && hint.contains("--config"), "{problem}");
    let (problem, hint) = failure(&pgherd(&["status"]));
    assert!(problem.contains("catalog") && hint.contains("PGHERD_CATALOG"), "{problem} {hint}");
    let (problem, _) = failure(&pgherd(&["status", "--catalog", "nonsense"]));
    assert!(problem.contains("--catalog"), "{problem}");
    let holder = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = holder.local_addr().expect("an address").port();
    drop(holder);
    let dsn = format!("postgres://postgres:secret@127.0.0.1:{port}/app");
    let (problem, _) = failure(&pgherd(&["status", "--catalog", &dsn]));
    assert!(problem.contains("cannot connect") && !problem.contains("secret"), "{problem}");
}
