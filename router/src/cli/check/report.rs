//! What was found: each finding says how bad it is, where, and what to do about it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};

use pgherd_shard_map::ShardId;
use serde::Serialize;

/// Characters of a definition that people are shown; `--json` has all of them.
const SHOWN_MAX: usize = 100;

/// What is left of the part that two definitions have in common.
const COMMON_SHOWN: usize = 24;

/// What is named of a long list.
const NAMED_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Statements fail or answer wrongly, or will.
    Error,
    /// It works, and should not stay so.
    Warning,
    /// Good to know.
    Note,
}

/// The part of the check that found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Server,
    Schema,
    Map,
    Rows,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    part: Part,
    /// `kind name`, where it is about one thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// Where it is found; empty: everywhere, or in the catalog.
    shards: Vec<ShardId>,
    message: String,
    /// What each side has, where they differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sides: Vec<Side>,
    /// SQL that is true for the rows that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    hint: String,
}

/// The one side's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Side {
    shards: Vec<ShardId>,
    definition: String,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        part: Part,
        shards: &[ShardId],
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            part,
            object: None,
            shards: shards.to_vec(),
            message: crate::cli::one_line(&message.into()),
            sides: Vec::new(),
            condition: None,
            hint: hint.into(),
        }
    }

    pub(super) fn about(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    pub(super) fn with_condition(mut self, condition: &str) -> Self {
        self.condition = Some(condition.to_owned());
        self
    }

    /// In one line, as tests compare it.
    #[cfg(test)]
    pub(super) fn line(&self) -> String {
        let text = for_people(self).replacen(": ", " ", 1);
        text.lines().next().unwrap_or_default().to_owned()
    }

    pub(super) fn side(mut self, shards: &[ShardId], definition: &str) -> Self {
        self.sides.push(Side { shards: shards.to_vec(), definition: definition.to_owned() });
        self
    }
}

/// One shard, as it was looked at.
#[derive(Debug, Serialize)]
pub(super) struct ShardLook {
    pub(super) id: ShardId,
    pub(super) dsn: String,
    pub(super) reachable: bool,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Of the map that was compared with; none where it could not be read.
    pub(super) epoch: Option<u64>,
    pub(super) shards: Vec<ShardLook>,
    /// Objects and settings that were compared.
    pub(super) objects: usize,
    /// Tables whose rows were looked at.
    pub(super) tables: usize,
    pub(super) findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
    notes: usize,
}

impl Report {
    /// The worst first; those with one way out stand together, where the first of them was found.
    pub(super) fn new(
        epoch: Option<u64>,
        shards: Vec<ShardLook>,
        (objects, tables): (usize, usize),
        mut findings: Vec<Finding>,
    ) -> Self {
        let mut hints: HashMap<String, usize> = HashMap::new();
        findings.sort_by_cached_key(|finding| {
            let number = hints.len();
            (finding.severity, *hints.entry(finding.hint.clone()).or_insert(number))
        });
        let count = |severity| findings.iter().filter(|found| found.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            epoch,
            shards,
            objects,
            tables,
            findings,
        }
    }

    pub(super) const fn has_errors(&self) -> bool {
        self.errors > 0
    }
}

impl fmt::Display for Report {
    /// For people: a hint that several findings share stands once, after the last of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.findings.iter().enumerate() {
            f.write_str(&for_people(finding))?;
            let next = self.findings.get(at + 1);
            let shared =
                |next: &Finding| (next.severity, &next.hint) == (finding.severity, &finding.hint);
            if !next.is_some_and(shared) {
                writeln!(f, "hint: {}\n", finding.hint)?;
            }
        }
        let reached = self.shards.iter().filter(|shard| shard.reachable).count();
        write!(f, "{reached} of {} checked", counted(self.shards.len(), "shard"))?;
        write!(f, ", {} compared", counted(self.objects, "object"))?;
        if self.tables > 0 {
            write!(f, ", rows of {}", counted(self.tables, "table"))?;
        }
        let (errors, warnings) = (counted(self.errors, "error"), counted(self.warnings, "warning"));
        writeln!(f, ": {errors}, {warnings}")
    }
}

fn for_people(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut text = format!("{severity}: ");
    if let Some(object) = &finding.object {
        let _ = write!(text, "{object}: ");
    }
    let _ = writeln!(text, "{}", finding.message);
    let definitions: Vec<&str> = finding.sides.iter().map(|side| &*side.definition).collect();
    for (side, definition) in finding.sides.iter().zip(shortened(&definitions)) {
        let _ = writeln!(text, "    {}: {definition}", name(&side.shards));
    }
    text
}

/// `shard 2`, `shards 1, 2`.
pub(super) fn name(shards: &[ShardId]) -> String {
    let list: Vec<String> = shards.iter().map(ToString::to_string).collect();
    format!("shard{} {}", if shards.len() == 1 { "" } else { "s" }, list.join(", "))
}

pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Who has what, by what they have.
pub(super) fn grouped<T: Ord>(
    found: impl IntoIterator<Item = (ShardId, T)>,
) -> BTreeMap<T, Vec<ShardId>> {
    let mut groups: BTreeMap<T, Vec<ShardId>> = BTreeMap::new();
    for (shard, what) in found {
        groups.entry(what).or_default().push(shard);
    }
    groups
}

/// The shards that something is true of, if there are any.
pub(super) fn those<T>(
    servers: &[(ShardId, &T)],
    is: impl Fn(&T) -> bool,
) -> Option<(Vec<ShardId>, String)> {
    let ids: Vec<ShardId> =
        servers.iter().filter(|(_, server)| is(server)).map(|(shard, _)| *shard).collect();
    let on = name(&ids);
    (!ids.is_empty()).then_some((ids, on))
}

/// The first of a list.
pub(super) fn some(list: &[String]) -> String {
    let named = list.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Definitions in one line each, cut to where they begin to differ.
fn shortened(definitions: &[&str]) -> Vec<String> {
    let lines: Vec<String> = definitions
        .iter()
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let same = lines.windows(2).all(|pair| pair[0] == pair[1]);
    if lines.len() > 1 && same {
        // Only white space tells them apart.
        return definitions.iter().map(|text| window(&format!("{text:?}"), 0)).collect();
    }
    let first: Vec<char> = lines.first().map(|line| line.chars().collect()).unwrap_or_default();
    let common = lines
        .iter()
        .skip(1)
        .map(|line| line.chars().zip(&first).take_while(|(a, b)| a == *b).count())
        .min()
        .unwrap_or_default();
    let long = lines.iter().any(|line| line.chars().count() > SHOWN_MAX);
    let from = if long { common.saturating_sub(COMMON_SHOWN) } else { 0 };
    lines.iter().map(|line| window(line, from)).collect()
}

fn window(line: &str, from: usize) -> String {
    if line.is_empty() {
        return "nothing".to_owned();
    }
    let mut rest = line.chars().skip(from).skip_while(|letter| *letter == ' ');
    let mut shown: String = if from > 0 { "…".to_owned() } else { String::new() };
    shown.extend(rest.by_ref().take(SHOWN_MAX));
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(ids: &[u32]) -> Vec<ShardId> {
        ids.iter().copied().map(ShardId).collect()
    }

    #[test]
    fn the_worst_stands_first_and_a_shared_hint_stands_once() {
        let found = |severity, on: u32, hint: &str| {
            Finding::new(severity, Part::Schema, &shards(&[on]), format!("found on {on}"), hint)
        };
        let findings = vec![
            found(Severity::Note, 0, "Look."),
            found(Severity::Error, 1, "Mend it.").about("table public.t"),
            found(Severity::Error, 2, "Mend it.").side(&shards(&[0]), "a").side(&shards(&[2]), ""),
            found(Severity::Error, 3, "Else."),
            found(Severity::Error, 4, "Mend it."),
        ];
        let look = |id, reachable| ShardLook { id: ShardId(id), dsn: String::new(), reachable };
        let report = Report::new(Some(1), vec![look(0, true), look(1, false)], (7, 1), findings);
        assert!(report.has_errors());
        assert_eq!(
            report.to_string(),
            "error: table public.t: found on 1\nerror: found on 2\n    shard 0: a\n    \
             shard 2: nothing\nerror: found on 4\nhint: Mend it.\n\nerror: found on 3\nhint: Else.\n\n\
             note: found on 0\nhint: Look.\n\n\
             1 of 2 shards checked, 7 objects compared, rows of 1 table: 4 errors, 0 warnings\n"
        );
    }

    #[test]
    fn long_definitions_are_shown_from_where_they_differ() {
        let body = |value: u32| {
            format!("CREATE FUNCTION f()\n AS $$ {} RETURN {value}; $$", "x ".repeat(90))
        };
        let shown = shortened(&[&body(1), &body(2)]);
        assert_eq!(shown[0], "…x x x x x x x x RETURN 1; $$");
        assert_eq!(shown[1], "…x x x x x x x x RETURN 2; $$");
        assert_eq!(shortened(&["integer", "integer NOT NULL"]), ["integer", "integer NOT NULL"]);
        assert_eq!(shortened(&["a\n b", "a b"]), ["\"a\\n b\"", "\"a b\""]);
        assert_eq!(shortened(&[&"é".repeat(101)])[0].chars().count(), SHOWN_MAX + 1);
    }

    #[test]
    fn shards_that_have_the_same_stand_together() {
        let found = [(ShardId(0), "a"), (ShardId(1), "b"), (ShardId(2), "a")];
        let groups = grouped(found);
        assert_eq!(groups["a"], shards(&[0, 2]));
        assert_eq!(
            (name(&groups["a"]), name(&groups["b"])),
            ("shards 0, 2".into(), "shard 1".into())
        );
    }
}
