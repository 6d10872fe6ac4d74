//! The life of a cluster in one go, under load: two shards become four, rows move, a shard is drained,
//! one key isolated, all merged back, with a rollback on the way. No client sees an error.

use std::process::Command;

use pgherd::dev::LocalCluster;
use pgherd_tests::{cluster_with, program, run};

use super::command::{assert_clean, assert_placed, reshard};
use super::load::{TABLES, audit, cluster, under_load};

const CLIENTS: u32 = 4;

fn moved(cluster: &LocalCluster, wish: &[&str]) {
    let args = [&["start", "--auto", "--max-pause", "2s"], wish].concat();
    reshard(cluster, &args);
    reshard(cluster, &["finish"]);
}

#[test]
fn a_cluster_grows_moves_shrinks_and_goes_back_under_load_without_an_error() {
    let mut cluster = cluster(2, CLIENTS);
    let donors = [0, 1].map(|_| cluster_with(|options| options.shards = 1));
    let more = donors.each_ref().map(|donor| {
        let server = donor.file.shards[0].dsn.replace("/app", "");
        run(&format!("{server}/postgres"), "CREATE DATABASE more");
        format!("{server}/more")
    });
    let ledgers = under_load(&cluster, CLIENTS, || {
        for shard in &more {
            let added = Command::new(program())
                .args(["shard", "add", shard, "--catalog", &cluster.file.catalog.dsn])
                .status()
                .expect("pgherd runs");
            assert!(added.success(), "{shard}");
        }
        moved(&cluster, &["--split", "0", "--to", "2"]);
        moved(&cluster, &["--split", "1", "--to", "3"]);
        for shard in &more {
            assert_ne!(run(shard, "SELECT count(*) FROM accounts"), "0", "{shard}");
        }
        moved(&cluster, &["--isolate", "accounts=42", "--to", "2"]);
        reshard(&cluster, &["start", "--drain", "2", "--auto", "--max-pause", "2s"]);
        reshard(&cluster, &["rollback", "--max-pause", "2s"]);
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        reshard(&cluster, &["finish"]);
        assert_eq!(run(&more[0], "SELECT count(*) FROM accounts"), "0", "it is drained");
        moved(&cluster, &["--merge", "0"]);
        let all = (CLIENTS * super::load::KEYS).to_string();
        assert_eq!(run(&cluster.file.shards[0].dsn, "SELECT count(*) FROM accounts"), all);
    });
    audit(&cluster, &ledgers);
    // Both sides of each certificate have the same sums, though rows were written all the time.
    let sides = "SELECT count(*) > 10, count(*) FILTER (WHERE t->>'source_rows' <> t->>'target_rows' \
                 OR t->>'source_checksum' <> t->>'target_checksum') FROM pgherd.reshard_list, \
                 jsonb_array_elements(certificates) c, jsonb_array_elements(c->'tables') t";
    assert_eq!(run(&cluster.file.catalog.dsn, sides), "t|0");
    for (shard, dsn) in (2..).zip(more) {
        let mut entry = cluster.file.shards[1].clone();
        (entry.id, entry.dsn) = (shard, dsn);
        cluster.file.shards.push(entry);
    }
    assert_placed(&cluster, &TABLES);
    assert_clean(&cluster);
}
