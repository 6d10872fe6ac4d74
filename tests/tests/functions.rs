//! What planning knows of PostgreSQL's own functions, against what a server says of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use pgherd_tests::{cluster_with, run};

/// All functions of a name write nothing and keep nothing. Those that are PostgreSQL's own business
/// (of types, triggers, handlers), that give a transaction its number, or run a query that is a
/// string, are left out.
const LISTED: &str = r#"
WITH named AS (
    SELECT proname, bool_or(proretset) AS rows, max(provolatile::text) AS volatility,
        bool_and(prokind = 'f') AS plain,
        bool_or(prorettype IN ('internal'::regtype, 'trigger'::regtype,
                'event_trigger'::regtype, 'cstring'::regtype)
            OR prorettype::regtype::text LIKE '%handler'
            OR EXISTS (SELECT FROM unnest(proargtypes) a
                WHERE a IN ('internal'::regtype, 'cstring'::regtype))) AS inner_one
    FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY proname
)
SELECT CASE WHEN rows THEN 'set' WHEN volatility = 's' THEN 'stable' ELSE 'immutable' END
    || ' ' || proname
FROM named
WHERE plain AND volatility <> 'v' AND NOT inner_one
    AND proname !~ '(_to_xml|_to_xmlschema|_to_xml_and_xmlschema)$'
    AND proname NOT IN ('txid_current', 'pg_current_xact_id', 'ts_stat', 'ts_rewrite')
    AND proname !~ '^(pg_event_trigger|binary_upgrade|pg_stat_get|pg_nextoid)'
ORDER BY array_position(ARRAY['immutable', 'stable', 'set'],
    CASE WHEN rows THEN 'set' WHEN volatility = 's' THEN 'stable' ELSE 'immutable' END),
    proname COLLATE "C""#;

#[test]
fn no_function_does_more_than_planning_believes() {
    let cluster = cluster_with(|options| options.shards = 1);
    let dsn = &cluster.file.shards[0].dsn;
    let server = run(dsn, LISTED);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../planner/src/functions/builtin.txt");
    let text = std::fs::read_to_string(&path).expect("the list is there");
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let listed: BTreeSet<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    if std::env::var_os("PGHERD_ACCEPT").is_some() {
        let mut new = String::new();
        for line in head.chain(server.lines()) {
            let _ = writeln!(new, "{line}");
        }
        std::fs::write(&path, new).expect("the list can be written");
        return;
    }
    let said: BTreeSet<&str> = server.lines().collect();
    // Other versions have functions that the list lacks, and lack some of it. What they have of it
    // must not be worse than it says.
    let name = |line: &str| line.split_once(' ').map_or("", |(_, name)| name).to_owned();
    let there = run(dsn, "SELECT DISTINCT proname FROM pg_proc");
    let there: BTreeSet<&str> = there.lines().collect();
    let wrong: Vec<&&str> = listed
        .iter()
        .filter(|line| there.contains(&*name(line)) && !said.contains(**line))
        .collect();
    assert!(listed.len() > 1000, "the list is nearly empty: {}", path.display());
    assert!(
        wrong.is_empty(),
        "{wrong:?}; rewrite: PGHERD_ACCEPT=1 cargo nextest run -p pgherd-tests --test functions"
    );
}
