//! Shards get the same of what is weighed, and the plan says what comes of it.

use pgherd_tests::{run, wait_until};
use serde_json::Value;

use super::command::{assert_clean, assert_placed, reshard, try_reshard};
use super::load::{TABLES, cluster};

/// What a plan says of each shard: now and then.
fn weights(plan: &Value) -> Vec<(u64, u64)> {
    let number = |of: &Value| of.as_u64().expect("a number");
    let all = plan["balance"].as_array().expect("a list").iter();
    all.map(|shard| (number(&shard["now"]), number(&shard["then"]))).collect()
}

#[test]
fn the_shard_that_does_most_of_the_work_gives_rows_away() {
    let cluster = cluster(2, 2);
    let dsn = cluster.dsn();
    let key = run(&cluster.file.shards[0].dsn, "SELECT min(k) FROM accounts");
    let update = format!("UPDATE accounts SET v = v + 1 WHERE k = {key};");
    run(dsn, &update.repeat(3000));
    let wish = ["plan", "--balance", "--by", "load", "--within", "0s"];
    let mut plan = Value::Null;
    // Statistics come when a session is idle; before, there may be nothing to move.
    wait_until("the load is counted", || {
        let output = try_reshard(&cluster, &wish);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || error.contains("nothing to move"), "{error}");
        plan = serde_json::from_slice(&output.stdout).unwrap_or_default();
        output.status.success() && weights(&plan)[0].0 > 3000
    });
    let [(busy, busy_then), (idle, idle_then)] = weights(&plan)[..] else { panic!("{plan}") };
    assert!(busy > 2 * idle, "{plan}");
    // The same for both, but for what rounding takes.
    assert!(busy_then.abs_diff(idle_then) * 20 < busy, "{plan}");
    assert!((busy + idle).abs_diff(busy_then + idle_then) <= 2, "{plan}");
    for part in plan["moves"].as_array().expect("a list") {
        assert_eq!((&part["from_shard"], &part["to_shard"]), (&0.into(), &1.into()), "{plan}");
    }
    reshard(&cluster, &["start", "--balance", "--by", "load", "--within", "0s"]);
    reshard(&cluster, &["cutover", "--max-pause", "2s"]);
    reshard(&cluster, &["finish"]);
    assert_placed(&cluster, &TABLES);
    assert_clean(&cluster);
}
