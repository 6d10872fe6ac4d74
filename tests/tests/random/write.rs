//! Writes from a seed: single statements and transactions over tables of every kind. What each does
//! is settled: no row of a join has two matches that differ, and no LIMIT chooses among equals.

use super::query::Random;

/// Two tables of one key, one of another, one that is numbered, one everywhere, one at home.
pub(crate) const SCHEMA: &[&str] = &[
    "CREATE TABLE a (k int PRIMARY KEY, o int, v text, n numeric)",
    "CREATE TABLE b (k int, o int, v text DEFAULT 'dflt', PRIMARY KEY (k, o))",
    "CREATE TABLE c (name text PRIMARY KEY, o int, at date)",
    "CREATE TABLE d (k int NOT NULL, id bigserial, v text)",
    "CREATE TABLE r (id int PRIMARY KEY, v text, n int DEFAULT 7)",
    "CREATE TABLE h (id int, v text)",
];

pub(crate) const SHARDED: &[&str] = &[
    "SELECT create_distributed_table('a', 'k')",
    "SELECT create_distributed_table('b', 'k', colocate_with => 'a')",
    "SELECT create_distributed_table('c', 'name')",
    "SELECT create_distributed_table('d', 'k')",
    "SELECT create_reference_table('r')",
];

/// Where every seed begins.
pub(crate) const START: &[&str] = &[
    "TRUNCATE a, b, c, d, r, h",
    "INSERT INTO a SELECT g, g % 7, 'a' || g, g / 3.0 FROM generate_series(1, 20) g",
    "INSERT INTO b SELECT g % 9 + 1, g, 'b' || g FROM generate_series(1, 25) g",
    "INSERT INTO c SELECT 'c' || g, g, date '2025-01-01' + g FROM generate_series(1, 12) g",
    "INSERT INTO d (k, v) SELECT g, 'd' || g FROM generate_series(1, 10) g",
    "INSERT INTO r SELECT g, 'r' || g, g FROM generate_series(1, 6) g",
    "INSERT INTO h SELECT g, 'h' || g FROM generate_series(1, 6) g",
];

/// All that can be compared. Numbers may leave some out, but none comes twice.
pub(crate) const CONTENTS: &[&str] = &[
    "SELECT * FROM a ORDER BY k",
    "SELECT * FROM b ORDER BY k, o",
    "SELECT * FROM c ORDER BY name",
    "SELECT k, v, count(*) FROM d GROUP BY k, v ORDER BY k, v",
    "SELECT count(*) - count(DISTINCT id) FROM d",
    "SELECT * FROM r ORDER BY id",
    "SELECT * FROM h ORDER BY id, v",
];

/// What a client sends, one after the other.
pub(crate) fn history(seed: u64) -> Vec<String> {
    let mut random = Random::new(seed.wrapping_mul(0x9e6c_63d0_676a_9a99));
    let mut statements = Vec::new();
    for _ in 0..2 + random.below(4) {
        let block = random.chance(50);
        if block {
            statements.push("BEGIN".to_owned());
        }
        for at in 0..1 + random.below(4) {
            if block && random.chance(15) {
                statements.push(format!("SAVEPOINT s{at}"));
                statements.push(statement(&mut random));
                let end = random.one(&["ROLLBACK TO", "RELEASE"]);
                statements.push(format!("{end} s{at}"));
            }
            statements.push(statement(&mut random));
        }
        if block {
            statements.push(random.one(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]).to_owned());
        }
    }
    statements
}

fn statement(random: &mut Random) -> String {
    let (x, y, z) = (random.below(30), random.below(30), random.below(8));
    let word = random.one(&["'x'", "'it''s'", "NULL", "E'a\\nb'", "'\\'", "'\"q\" {,}'"]);
    let returning = |columns: &str, random: &mut Random| match random.below(3) {
        0 => format!(" RETURNING {columns}"),
        _ => String::new(),
    };
    match random.below(46) {
        0 => {
            let tail = returning("*", random);
            format!("INSERT INTO a VALUES ({x}, {z}, {word}, 1.5){tail}")
        }
        1 => format!(
            "INSERT INTO a (k, v) VALUES ({x}, 'p'), ({y} + 30, 'q'), (70 - {z}, {word}) ON CONFLICT DO NOTHING"
        ),
        2 => {
            let tail = returning("k, o, v", random);
            format!(
                "INSERT INTO a VALUES ({x}, {z}, {word}) ON CONFLICT (k) DO UPDATE SET o = excluded.o, v = a.v || '+'{tail}"
            )
        }
        3 => {
            let tail = returning("k, v", random);
            format!("INSERT INTO d (k, v) VALUES ({x}, {word}), ({y}, 'two'), ({z}, 'three'){tail}")
        }
        4 => format!("INSERT INTO d (k, v) SELECT o, v FROM a WHERE k < {x}"),
        5 => format!(
            "INSERT INTO b SELECT k, {y} + 100, v FROM a WHERE o = {z} ON CONFLICT DO NOTHING"
        ),
        6 => {
            let tail = returning("*", random);
            format!("INSERT INTO b (k, o) SELECT o + 1, k + 200 FROM a WHERE k > {x}{tail}")
        }
        7 => format!(
            "INSERT INTO c SELECT v || '{y}', k, NULL FROM a WHERE v IS NOT NULL AND k < {x} ON CONFLICT (name) DO UPDATE SET o = c.o + 1"
        ),
        8 => format!(
            "INSERT INTO r SELECT k + 50, v, o FROM a WHERE k BETWEEN {x} AND {x} + 3 ON CONFLICT (id) DO NOTHING"
        ),
        9 => {
            let tail = returning("id, n", random);
            format!("INSERT INTO r (id, v) VALUES ({x} + 100, {word}){tail}")
        }
        10 => format!("INSERT INTO h SELECT k, v FROM a WHERE o = {z}"),
        11 => format!("INSERT INTO h VALUES ({x}, {word})"),
        12 => {
            let tail = returning("k, v", random);
            format!("UPDATE a SET v = {word}, n = n + {z} WHERE k = {x}{tail}")
        }
        13 => format!("UPDATE a SET o = (o + {z}) % 7 WHERE k IN ({x}, {y}, {z})"),
        14 => {
            let tail = returning("k, n", random);
            format!("UPDATE a SET n = n * 2 WHERE o = {z}{tail}")
        }
        15 => format!("UPDATE a SET v = b.v FROM b WHERE b.k = a.k AND b.o = {x}"),
        16 => format!(
            "UPDATE a SET v = c.name || a.v FROM (SELECT o, min(name) AS name FROM c GROUP BY o) AS c WHERE c.o = a.k AND c.o < {x}"
        ),
        17 => format!("UPDATE a SET n = (SELECT count(*) FROM c WHERE c.o > a.o) WHERE k < {x}"),
        18 => format!("UPDATE b SET v = (SELECT max(v) FROM a WHERE a.o = {z}) WHERE k = {z}"),
        19 => format!("UPDATE b SET v = r.v FROM r WHERE r.id = b.k AND r.n > {z}"),
        20 => {
            let tail = returning("k", random);
            format!("DELETE FROM a WHERE k = {x}{tail}")
        }
        21 => {
            let tail = returning("k, o", random);
            format!("DELETE FROM b WHERE o > {x} + 10{tail}")
        }
        22 => format!("DELETE FROM a WHERE o IN (SELECT o FROM c WHERE o < {z}) AND k > {x}"),
        23 => format!("DELETE FROM b USING c WHERE c.o = b.o AND c.name <> 'c{z}' AND b.k > 4"),
        24 => format!("DELETE FROM a WHERE n > (SELECT avg(n) + {z} FROM a)"),
        25 => format!("UPDATE r SET n = n + {z}, v = {word} WHERE id < {x}"),
        26 => format!("UPDATE r SET v = (SELECT min(v) FROM a) WHERE id = {z}"),
        27 => format!("DELETE FROM r WHERE id IN (SELECT k FROM b WHERE k = {z})"),
        28 => format!("UPDATE h SET v = a.v FROM a WHERE a.k = h.id AND a.k < {x}"),
        // The key itself: rows move.
        29 => format!("UPDATE a SET k = {x} + 400 WHERE k = {y}"),
        30 => {
            let tail = returning("k, v", random);
            format!("UPDATE a SET k = k + 1000, v = {word} WHERE o = {z} AND k < 1000{tail}")
        }
        31 => format!("UPDATE c SET name = name || '{y}' WHERE o < {x}"),
        // MERGE, by the key and past it.
        32 => format!(
            "MERGE INTO a USING b ON a.k = b.k AND b.o = {x} WHEN MATCHED THEN UPDATE SET v = b.v WHEN NOT MATCHED AND b.o = {x} THEN INSERT (k, o, v) VALUES (b.k, 5, b.v)"
        ),
        33 => format!(
            "MERGE INTO a USING (SELECT o AS key, count(*) AS n, min(name) AS name FROM c WHERE o > {z} GROUP BY o) s ON a.k = s.key WHEN MATCHED AND a.o < 3 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.n, v = s.name WHEN NOT MATCHED THEN INSERT (k, o, v) VALUES (s.key, {z}, s.name)"
        ),
        34 => format!(
            "MERGE INTO c USING (VALUES ('c{z}', {x}), ('m{y}', {y})) AS s (name, o) ON c.name = s.name WHEN MATCHED THEN UPDATE SET o = s.o WHEN NOT MATCHED THEN INSERT (name, o) VALUES (s.name, s.o)"
        ),
        35 => format!(
            "MERGE INTO a USING h ON h.id = a.k WHEN MATCHED AND h.id > {z} THEN UPDATE SET v = h.v WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED AND h.id = {x} THEN INSERT (k, v) VALUES (h.id, h.v)"
        ),
        36 => format!(
            "MERGE INTO r USING (SELECT k, max(v) AS v FROM b GROUP BY k) s ON r.id = s.k WHEN MATCHED AND s.k < {z} THEN UPDATE SET v = s.v WHEN NOT MATCHED AND s.k > {z} THEN INSERT (id, v) VALUES (s.k, s.v)"
        ),
        37 => format!(
            "MERGE INTO h USING a ON a.k = h.id AND a.o = {z} WHEN MATCHED AND a.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = a.v"
        ),
        // WITH, reading and writing.
        38 => format!(
            "WITH gone AS (DELETE FROM a WHERE o = {z} RETURNING k, v) INSERT INTO b (k, o, v) SELECT k, {y} + 500, v FROM gone ON CONFLICT DO NOTHING"
        ),
        39 => format!(
            "WITH gone AS (DELETE FROM b WHERE o > {x} RETURNING k, o, v) SELECT count(*), sum(o), min(v) FROM gone"
        ),
        40 => format!(
            "WITH s AS (SELECT o, count(*) AS n FROM c GROUP BY o) UPDATE a SET n = s.n FROM s WHERE s.o = a.k AND a.k < {x}"
        ),
        41 => format!(
            "WITH u AS (UPDATE a SET n = n + 1 WHERE k < {z} RETURNING k, n), i AS (INSERT INTO h SELECT k, 'w' FROM u RETURNING id) SELECT (SELECT count(*) FROM i), (SELECT max(n) FROM u)"
        ),
        42 => format!(
            "WITH s (k) AS (VALUES ({x}), ({y})) DELETE FROM a WHERE k IN (SELECT k FROM s)"
        ),
        43 => {
            format!("UPDATE a SET v = h.v FROM h WHERE h.id = a.o AND h.id = {z} AND h.v = 'h{z}'")
        }
        44 => format!("DELETE FROM b WHERE k IN (SELECT id FROM h WHERE id > {z}) AND o < {x}"),
        _ => format!("DELETE FROM h WHERE id IN (SELECT k FROM a WHERE o = {z})"),
    }
}
