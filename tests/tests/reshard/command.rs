//! The command, and what it must leave behind: nothing.

use std::process::{Command, Output};

use pgherd::dev::LocalCluster;
use pgherd_tests::{program, run};

/// Runs `pgherd reshard …`; its JSON lines.
pub(crate) fn reshard(cluster: &LocalCluster, args: &[&str]) -> Vec<String> {
    let output = try_reshard(cluster, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgherd reshard {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// As it ends, well or not.
pub(crate) fn try_reshard(cluster: &LocalCluster, args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("reshard").args(args).args(["--json", "--catalog", &cluster.file.catalog.dsn]);
    command.output().expect("pgherd runs")
}

/// Moves the whole of one shard's part of group 1 to another.
pub(crate) fn start(cluster: &LocalCluster, from: u32, to: u32) {
    let catalog = &cluster.file.catalog.dsn;
    let sql = format!(
        "SELECT group_id, start_hash, coalesce((SELECT min(o.start_hash) FROM pgherd.range_list o \
         WHERE o.group_id = r.group_id AND o.start_hash > r.start_hash)::text, '') \
         FROM pgherd.range_list r WHERE shard = {from} ORDER BY 1, 2 LIMIT 1"
    );
    let range = run(catalog, &sql).replace('|', ":");
    reshard(cluster, &["start", &format!("--range={range}"), "--to", &to.to_string()]);
}

/// Nothing of a run is left on any shard, and `pgherd check` says so.
pub(crate) fn assert_clean(cluster: &LocalCluster) {
    let mut check = Command::new(program());
    check.args(["check", "--rows", "--catalog", &cluster.file.catalog.dsn]);
    let output = check.output().expect("pgherd runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let named = ["run of pgherd reshard", "replication slot", "prepared transaction"];
    let silent = !named.iter().any(|name| said.contains(name));
    assert!(output.status.success() && silent, "pgherd check: {said}");
    for shard in &cluster.file.shards {
        let left = run(
            &shard.dsn,
            "SELECT 'slot ' || slot_name FROM pg_replication_slots \
             UNION ALL SELECT 'publication ' || pubname FROM pg_publication \
             UNION ALL SELECT 'subscription ' || subname FROM pg_subscription \
             UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal \
             UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger \
             UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE relname LIKE '%pgherd\\_%' \
             UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE 'pgherd\\_%' \
             UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin \
             UNION ALL SELECT 'identity of ' || relname FROM pg_class \
                 WHERE relreplident = 'f' AND relnamespace = 'public'::regnamespace",
        );
        assert_eq!(left, "", "left on shard {}", shard.id);
    }
}

/// Every row is on the shard that the catalog names, and on no other.
pub(crate) fn assert_placed(cluster: &LocalCluster, tables: &[&str]) {
    let catalog = &cluster.file.catalog.dsn;
    for shard in &cluster.file.shards {
        let sql = format!(
            "SELECT coalesce(string_agg(format('(hashint8extended(k::int8, 0) >= %L::int8', \
             start_hash) || coalesce(' AND hashint8extended(k::int8, 0) < ' || quote_literal(end_hash) \
             || '::int8', '') || ')', ' OR '), 'false') FROM (SELECT shard, start_hash, \
             lead(start_hash) OVER (ORDER BY start_hash) AS end_hash \
             FROM pgherd.range_list WHERE group_id = (SELECT group_id FROM pgherd.table_list \
             WHERE table_oid = 'accounts'::regclass)) r WHERE shard = {}",
            shard.id
        );
        let own = run(catalog, &sql);
        for table in tables {
            let wrong = format!("SELECT count(*) FROM {table} WHERE ({own}) IS NOT TRUE");
            assert_eq!(run(&shard.dsn, &wrong), "0", "rows of {table} on shard {}", shard.id);
        }
    }
}
