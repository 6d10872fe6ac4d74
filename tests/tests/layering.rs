//! Who may import whom: crates as the architecture says, the router's modules as the golden file
//! `data/import_graph.txt` says, and never in a circle.
//!
//! A new edge is a decision: put it into the golden file (`PGHERD_ACCEPT=1` writes it) and let the
//! reviewer see it. A line `known-cycle a b` there tolerates one circle until it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_import_only_what_the_golden_file_allows() {
    let found = router_modules();
    let golden = golden_path();
    let written = std::fs::read_to_string(&golden).unwrap_or_default();
    let mut text = String::from(GOLDEN_HEAD);
    for cycle in written.lines().filter(|line| line.starts_with("known-cycle ")) {
        let _ = writeln!(text, "{cycle}");
    }
    for (module, imports) in &found {
        for import in imports {
            let _ = writeln!(text, "{module} -> {import}");
        }
    }
    println!("{text}");
    if std::env::var_os("PGHERD_ACCEPT").is_some() {
        std::fs::write(&golden, &text).expect("the golden file can be written");
    }
    let edges = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| line.contains(" -> ")).map(ToOwned::to_owned).collect()
    };
    let (allowed, used) = (edges(&written), edges(&text));
    let fresh: Vec<&String> = used.difference(&allowed).collect();
    let unused: Vec<&String> = allowed.difference(&used).collect();
    assert!(
        fresh.is_empty() && unused.is_empty() || std::env::var_os("PGHERD_ACCEPT").is_some(),
        "new edges: {fresh:?}\nedges that nobody uses any more: {unused:?}\nIf they are meant: \
         PGHERD_ACCEPT=1 cargo test -p pgherd-tests --test layering, and commit {}",
        golden.display()
    );
}

#[test]
fn modules_import_each_other_in_no_circle() {
    let golden = std::fs::read_to_string(golden_path()).expect("the golden file is there");
    let known: BTreeSet<&str> =
        golden.lines().filter_map(|line| line.strip_prefix("known-cycle ")).collect();
    let found = cycles(&router_modules());
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let fresh: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(fresh.is_empty(), "modules that import each other in a circle: {fresh:?}");
    assert!(gone.is_empty(), "take these known cycles out of the golden file: {gone:?}");
}

#[test]
fn crates_depend_only_on_lower_crates() {
    let lower: [(&str, &[&str]); 5] = [
        ("shard-map", &[]),
        ("planner", &["shard-map"]),
        ("router", &["planner", "shard-map"]),
        ("tests", &["planner", "router", "shard-map"]),
        ("bench", &["planner", "router", "shard-map"]),
    ];
    let folder = |package: &str| match package {
        "pgherd" => "router".to_owned(),
        other => other.trim_start_matches("pgherd-").to_owned(),
    };
    for (name, allowed) in lower {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml"))
            .expect("every crate has a manifest");
        let own = manifest.lines().filter_map(|line| {
            let (key, _) = line.split_once(['.', ' ', '='])?;
            (key == "pgherd" || key.starts_with("pgherd-")).then(|| folder(key))
        });
        // A crate may depend on itself, for its tests with a feature.
        for dependency in own.filter(|dependency| dependency != name) {
            assert!(allowed.contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn the_planner_cannot_do_io() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is there");
    let mut packages = Graph::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |line: &str| line.trim().trim_matches([',', '"']).to_owned();
        let mut lines = package.lines();
        let name = lines.find_map(|line| line.strip_prefix("name = ")).expect("a name");
        let dependencies = lines.skip_while(|line| !line.starts_with("dependencies")).skip(1);
        let dependencies = dependencies.take_while(|line| *line != "]").map(value);
        let names = dependencies.filter_map(|d| d.split(' ').next().map(ToOwned::to_owned));
        packages.entry(value(name)).or_default().extend(names);
    }
    // The lock file unites all features and tests; the manifests say what is left of them here.
    packages.insert("pgherd-planner".to_owned(), normal_dependencies("planner"));
    packages.insert("pgherd-shard-map".to_owned(), normal_dependencies("shard-map"));
    let reached = reachable(&packages, "pgherd-planner");
    assert!(reached.contains("sqlparser"), "the graph was read: {reached:?}");
    for io in ["tokio", "mio", "socket2", "rustix", "tokio-postgres", "futures-util"] {
        assert!(!reached.contains(io), "the planner depends on {io}");
    }
}

#[test]
fn the_scanner_sees_every_form_of_import() {
    let source = "//! crate::comment\nuse crate::{frontend, worker::{Mail, crate_name}, tls};\n\
                  fn f() { crate::inline::g(\"crate::text\"); super::sibling::h() }\n\
                  pub(crate) fn i() {}\n#[cfg(test)]\nmod tests { use crate::only_in_tests; }\n";
    let found = imports(source, 1);
    let expected = ["frontend", "inline", "sibling", "tls", "worker"];
    assert_eq!(found, BTreeSet::from(expected.map(ToOwned::to_owned)));
    // In a file of a folder, `super` is the folder's own module.
    assert!(!imports("use super::sibling;", 2).contains("sibling"));
    assert!(imports("use super::super::other;", 2).contains("other"));
}

const GOLDEN_HEAD: &str =
    "# Which module of the router imports which. Written by tests/layering.rs.\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import_graph.txt")
}

/// Top-level modules of the router, and the other top-level modules that each imports.
fn router_modules() -> Graph {
    let source = root().join("router/src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let mut graph = Graph::new();
    for file in files {
        let path = file.strip_prefix(&source).expect("a file of the router").with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        if matches!(&*parts[0], "lib" | "main") || parts.iter().any(|part| part == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("source is text");
        graph.entry(parts[0].clone().into_owned()).or_default().extend(imports(&text, parts.len()));
    }
    let modules: BTreeSet<String> = graph.keys().cloned().collect();
    for (module, imports) in &mut graph {
        imports.retain(|import| import != module && modules.contains(import));
    }
    graph
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first names after `crate::`, and after as many `super::` as lead to the crate's root from a
/// module at `depth`. Comments, texts and the module of unit tests are left out.
fn imports(source: &str, depth: usize) -> BTreeSet<String> {
    let code = code_only(source.split("#[cfg(test)]\nmod ").next().unwrap_or_default());
    let mut found = BTreeSet::new();
    for prefix in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&prefix) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$' && c != ':') {
                found.extend(first_names(&code[at + prefix.len()..]));
            }
        }
    }
    found
}

/// `name::…` has one name, `{a, b::{c, d}}` has `a` and `b`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&list[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&list[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// Without line comments and without what stands in quotation marks.
fn code_only(source: &str) -> String {
    let mut code = String::new();
    for line in source.lines() {
        let mut quoted = false;
        let mut last = ' ';
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '/' if !quoted && chars.peek() == Some(&'/') => break,
                // Not the character literal '"', nor an escaped mark.
                '"' if last != '\\' && !(last == '\'' && chars.peek() == Some(&'\'')) => {
                    quoted = !quoted;
                }
                _ if !quoted => code.push(c),
                _ => {}
            }
            last = c;
        }
        code.push('\n');
    }
    code
}

/// Every pair of modules that reach each other, as `a b`.
fn cycles(graph: &Graph) -> BTreeSet<String> {
    let reach: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|module| (module, reachable(graph, module))).collect();
    let mut found = BTreeSet::new();
    for (a, from_a) in &reach {
        for b in from_a.iter().filter(|b| a < b) {
            if reach.get(b).is_some_and(|from_b| from_b.contains(*a)) {
                found.insert(format!("{a} {b}"));
            }
        }
    }
    found
}

fn reachable(graph: &Graph, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![start.to_owned()];
    while let Some(module) = next.pop() {
        for import in graph.get(&module).into_iter().flatten() {
            if found.insert(import.clone()) {
                next.push(import.clone());
            }
        }
    }
    found
}

/// What a crate has with no feature switched on and outside of tests.
fn normal_dependencies(folder: &str) -> BTreeSet<String> {
    let manifest =
        std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines
        .filter(|line| !line.contains("optional = true"))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(ToOwned::to_owned)
        .collect()
}
