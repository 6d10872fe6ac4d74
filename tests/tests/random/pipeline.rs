//! A wire script's case from a seed: pipelines and strings of statements with errors, portals, named
//! statements and transactions in them, over the tables of the wire scripts.

use std::fmt::Write as _;

use super::query::Random;

/// Statements, and how many parameters they take. `?` is a small number.
const STATEMENTS: &[(&str, usize)] = &[
    ("SELECT v FROM w WHERE k = $1", 1),
    ("SELECT k, v FROM w ORDER BY k", 0),
    ("SELECT count(*) FROM w", 0),
    ("SELECT k FROM w WHERE k > $1 ORDER BY k DESC LIMIT 3", 1),
    ("SELECT k FROM w WHERE k = $1 FOR UPDATE", 1),
    ("SELECT w.k, r.v FROM w JOIN r ON r.k = w.k ORDER BY 1", 0),
    ("INSERT INTO w VALUES ($1, 'new')", 1),
    ("INSERT INTO w VALUES ($1, 'x') ON CONFLICT (k) DO UPDATE SET v = w.v || 'y'", 1),
    (
        "INSERT INTO w SELECT g, 'made' FROM generate_series($1::int, $1::int + 5) g ON CONFLICT DO NOTHING",
        1,
    ),
    ("UPDATE w SET v = v || 'z' WHERE k = $1", 1),
    ("UPDATE w SET v = v || 'a'", 0),
    ("UPDATE w SET v = left(v, 3) WHERE k > $1 RETURNING 1", 1),
    ("DELETE FROM w WHERE k = $1", 1),
    ("DELETE FROM w WHERE k BETWEEN $1 AND $1 + 1", 1),
    ("SELECT 10 / ($1::int - 5)", 1),
    ("SELECT 10 / (k - 5) FROM w WHERE k = $1", 1),
    ("SELECT sum(10 / (k - 5)) FROM w", 0),
    ("SELECT v FROM h ORDER BY k", 0),
    ("INSERT INTO h VALUES ($1, 'more')", 1),
    ("DELETE FROM h WHERE k % 2 = 0", 0),
    ("UPDATE r SET v = v || 'r' WHERE k = $1", 1),
    ("SELECT v FROM r ORDER BY k", 0),
    ("BEGIN", 0),
    ("COMMIT", 0),
    ("ROLLBACK", 0),
    ("SAVEPOINT a", 0),
    ("ROLLBACK TO a", 0),
    ("RELEASE a", 0),
    ("SET work_mem = '3MB'", 0),
    ("RESET work_mem", 0),
    ("SELECT current_setting('work_mem') FROM w WHERE k = 1", 0),
    ("", 0),
    ("SELECT v FROM w WHERE k = 'abc'", 0),
    ("DECLARE c CURSOR FOR SELECT k FROM w ORDER BY k", 0),
    ("FETCH 2 FROM c", 0),
    ("CLOSE c", 0),
    ("DO 'BEGIN RAISE NOTICE ''hello''; END'", 0),
    ("DO 'BEGIN RAISE EXCEPTION ''bad''; END'", 0),
    ("VALUES (1), (2)", 0),
    ("SELECT generate_series(1, $1::int)", 1),
    ("SELECT $1::text", 1),
    ("PREPARE q AS SELECT v FROM w WHERE k = 3", 0),
    ("EXECUTE q", 0),
    ("DEALLOCATE q", 0),
    ("TRUNCATE h", 0),
    ("COPY (SELECT 1) TO STDOUT", 0),
];

/// Such as are sent alone: the router reads some statements when they run only, so that a name for what
/// cannot be read stays.
const STRINGS: &[&str] = &[
    "SELECT * FROM nowhere",
    "SELECT nothing FROM w",
    "CREATE TEMP TABLE own (a int)",
    "INSERT INTO own VALUES (1)",
    "SELECT a FROM own ORDER BY a",
    "DROP TABLE own",
    "START TRANSACTION READ ONLY",
    "BEGIN READ ONLY",
    "SET LOCAL work_mem = '5MB'; SHOW work_mem",
];

const CONTENTS: &[&str] = &[
    "SELECT k, v FROM w ORDER BY k",
    "SELECT k, v FROM h ORDER BY k",
    "SELECT k, v FROM r ORDER BY k",
];

/// The case of a seed; each of its steps ends where all is answered.
pub(crate) fn case(seed: u64) -> String {
    let random = &mut Random::new(seed);
    let mut text = format!("case: seed {seed}\n");
    for _ in 0..2 + random.below(7) {
        text.push_str("on: a\n");
        if random.chance(10) {
            let _ = writeln!(text, "> Query \"{}\"", random.one(STRINGS));
        } else if random.chance(30) {
            let statements: Vec<String> = (0..1 + random.below(3))
                .map(|_| {
                    let value = random.below(12).to_string();
                    STATEMENTS[random.below(STATEMENTS.len())].0.replace("$1", &value)
                })
                .collect();
            let _ = writeln!(text, "> Query \"{}\"", statements.join("; "));
        } else {
            pipeline(random, &mut text);
        }
    }
    text.push_str("on: other\n");
    for sql in CONTENTS {
        let _ = writeln!(text, "> Query \"{sql}\"");
    }
    text
}

fn pipeline(random: &mut Random, text: &mut String) {
    let mut say = |line: String| {
        text.push_str("> ");
        text.push_str(&line);
        text.push('\n');
    };
    for _ in 0..1 + random.below(6) {
        let (sql, params) = STATEMENTS[random.below(STATEMENTS.len())];
        let name = random.one(&["", "", "s", "u"]);
        let portal = random.one(&["", "", "p"]);
        if random.chance(85) {
            for (kind, name) in [("S", name), ("P", portal)] {
                if !name.is_empty() {
                    say(format!("Close {kind} \"{name}\""));
                }
            }
            say(format!("Parse \"{name}\" \"{sql}\""));
        }
        if random.chance(30) {
            say(format!("Describe S \"{name}\""));
        }
        if random.chance(95) {
            // Now and then one too many, or too few.
            let params = if random.chance(5) { 1 - params } else { params };
            let value = format!(" \"{}\"", random.below(12)).repeat(params);
            say(format!("Bind \"{portal}\" \"{name}\"{value}"));
        }
        if random.chance(50) {
            say(format!("Describe P \"{portal}\""));
        }
        let limit = [0, 0, 0, 0, 1, 2][random.below(6)];
        say(format!("Execute \"{portal}\" {limit}"));
        if limit > 0 && random.chance(50) {
            say(format!("Execute \"{portal}\""));
        }
        if random.chance(10) {
            say("Flush".to_owned());
        }
        if random.chance(15) {
            say("Sync".to_owned());
        }
    }
    say("Sync".to_owned());
}

/// What is compared of an answer: up to an error the router may have told less or more of a statement
/// that it parses when it runs, and what the parameters are it tells with the next answer.
pub(crate) fn compared(lines: &[String]) -> Vec<String> {
    const BEFORE_ROWS: &[&str] =
        &["ParseComplete", "BindComplete", "CloseComplete", "NoData", "ParameterDesc", "RowDesc"];
    let mut kept: Vec<String> = Vec::new();
    for line in lines.iter().filter(|line| !line.starts_with("ParameterStatus")) {
        let error = line.starts_with("ErrorResponse");
        if error {
            while kept
                .last()
                .is_some_and(|last| BEFORE_ROWS.iter().any(|told| last.starts_with(told)))
            {
                kept.pop();
            }
        }
        let words = line.split(' ').take(if error { 3 } else { usize::MAX });
        kept.push(words.collect::<Vec<_>>().join(" "));
    }
    kept
}

pub(crate) fn refused(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with("ErrorResponse ERROR 0A000"))
}
