//! Every case in `data/wire` is answered message by message as its script says, by PostgreSQL and
//! by the router over distributed tables. `PGHERD_WIRE=extended` runs the files with that in their
//! name; `PGHERD_WIRE_WRITE=1` writes the answers into the files.

use std::path::{Path, PathBuf};

use pgherd_tests::cluster;
use pgherd_tests::wire_scripts::{self, Pace, Script};

#[test]
fn messages_are_answered_as_the_scripts_say() {
    check(Pace::Whole);
}

#[test]
fn messages_in_pieces_of_one_byte_are_answered_alike() {
    check(Pace::ByteByByte);
}

fn check(pace: Pace) {
    let filter = std::env::var("PGHERD_WIRE").unwrap_or_default();
    let write = pace == Pace::Whole && std::env::var_os("PGHERD_WIRE_WRITE").is_some();
    let files: Vec<PathBuf> =
        files().into_iter().filter(|path| path.to_string_lossy().contains(&filter)).collect();
    assert!(!files.is_empty(), "no script is named {filter}");
    // Another PostgreSQL than the one that the scripts were written with may answer otherwise
    // (`tests/on-postgres`); the router answers the same.
    let other = std::env::var_os("PG_BIN").is_some();
    let cluster = cluster();
    let [plain, router] = wire_scripts::sides(&cluster);
    let mut differences = Vec::new();
    let mut count = 0;
    for path in files {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a text");
        let mut script = Script::parse(&name, &text).expect("a script");
        for case in &mut script.cases {
            if pace == Pace::ByteByByte && case.whole {
                continue;
            }
            count += 1;
            let at = format!("{name}:{} ({})", case.line, case.title);
            for (side, is_router) in [(&plain, false), (&router, true)] {
                let side_name = if is_router { "the router" } else { "PostgreSQL" };
                let answers = match wire_scripts::run(side, case, pace, is_router) {
                    Ok(answers) => answers,
                    Err(error) => {
                        differences.push(format!("{at}, {side_name}: {error}"));
                        continue;
                    }
                };
                for (step, got) in case.steps.iter_mut().zip(answers) {
                    let want = if is_router { &mut step.router } else { &mut step.plain };
                    if other && !is_router {
                        continue;
                    }
                    if write {
                        *want = got;
                    } else if *want != got {
                        let (want, got) = (want.join("\n    "), got.join("\n    "));
                        differences.push(format!(
                            "{at}, line {}: {side_name} should answer\n    {want}\n  and answers\n    {got}",
                            step.line
                        ));
                    }
                }
            }
            for step in &case.steps {
                if step.differs.is_some() == (step.plain == step.router) {
                    differences.push(format!(
                        "{at}, line {}: a difference has a reason (differs: …), and a reason a \
                         difference:\n  PostgreSQL\n    {}\n  the router\n    {}",
                        step.line,
                        step.plain.join("\n    "),
                        step.router.join("\n    ")
                    ));
                }
            }
        }
        if write {
            std::fs::write(&path, script.text()).expect("the script can be written");
        }
    }
    let bad = differences.len();
    assert!(bad == 0, "{}\n\n{bad} differences in {count} cases", differences.join("\n\n"));
}

/// In the order of their names.
fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire");
    let entries = std::fs::read_dir(dir).expect("the scripts are there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}
