//! What PostgreSQL answers to EXPLAIN, taken apart as far as it must be to stand inside ours: its
//! plan, what it says beside it (times, settings, triggers), and a few numbers of its topmost node.
//!
//! The text stays PostgreSQL's own, line by line: nothing is read into values and written again.

use pgherd_planner::ExplainFormat;

/// One answer in the client's format.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShardPlan {
    /// In the structured formats: the members of the plan's object. Else its lines.
    pub(super) plan: Vec<String>,
    /// What stands beside the plan: `Planning Time` and its kin.
    pub(super) beside: Vec<String>,
    pub(super) stats: Stats,
}

/// Numbers of a plan's topmost node, as far as they were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stats {
    pub(super) startup_cost: Option<f64>,
    pub(super) total_cost: Option<f64>,
    pub(super) rows: Option<f64>,
    pub(super) width: Option<f64>,
    pub(super) actual_rows: Option<f64>,
    /// In milliseconds, up to the last row.
    pub(super) actual_time: Option<f64>,
    /// In milliseconds, of the whole statement.
    pub(super) execution_time: Option<f64>,
}

impl ShardPlan {
    /// `text` is the whole answer. What has none of the known forms (a statement that has no plan,
    /// or, by rules, several) is told as it is.
    pub(super) fn read(format: ExplainFormat, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let parts = match format {
            ExplainFormat::Text => Some(split_text(&lines)),
            ExplainFormat::Json => split_json(&lines),
            ExplainFormat::Yaml => split_yaml(&lines),
            ExplainFormat::Xml => split_xml(&lines),
        };
        let Some((plan, beside)) = parts else {
            let stats = Stats::default();
            return Self { plan: Vec::new(), beside: as_written(format, text), stats };
        };
        let stats = match format {
            ExplainFormat::Text => Stats::of_text(&plan, &beside),
            _ => Stats::of_members(&plan, &beside),
        };
        Self { plan, beside, stats }
    }

    /// Two plans of one shape do the same with the same tables and indexes.
    pub(super) fn has_shape_of(&self, other: &Self) -> bool {
        let shape = |plan: &Self| -> Vec<String> {
            let nodes = plan.plan.iter().enumerate().filter_map(|(at, line)| shape(at, line));
            nodes.map(str::to_owned).collect()
        };
        shape(self) == shape(other)
    }

    /// How long it took, if that is known.
    pub(super) fn time(&self) -> Option<f64> {
        self.stats.execution_time.or(self.stats.actual_time)
    }
}

/// What a line adds to the shape of a plan: a node of the text format, or a structured format's
/// member that names what is done and with what.
fn shape(at: usize, line: &str) -> Option<&str> {
    let words = line.trim_start();
    let node = at == 0 || words.starts_with("->");
    let member = words.trim_start_matches(['-', ' ', '"', '<']);
    let named = ["Node Type", "Node-Type", "Relation Name", "Relation-Name", "Index Name"]
        .iter()
        .chain(&["Index-Name", "Join Type", "Join-Type", "Strategy"])
        .any(|name| member.starts_with(name));
    let numbers = ["  (cost=", " (actual ", " (never executed)"];
    let end = numbers.iter().filter_map(|numbers| line.find(numbers)).min();
    (node || named).then(|| line[..end.unwrap_or(line.len())].trim_end())
}

type Parts = (Vec<String>, Vec<String>);

/// The plan's first line, and all that is further right, is the plan.
fn split_text(lines: &[&str]) -> Parts {
    let inside = |line: &&&str| line.starts_with(' ');
    let size = 1 + lines.iter().skip(1).take_while(inside).count();
    let (plan, beside) = lines.split_at(size.min(lines.len()));
    (owned(plan, 0), owned(beside, 0))
}

/// `[ { "Plan": { … }, … } ]`, each bracket on a line of its own.
fn split_json(lines: &[&str]) -> Option<Parts> {
    let inside = between(lines, "[", "]")?;
    let inside = between(inside, "  {", "  }")?;
    let (first, rest) = inside.split_first()?;
    let end = rest.iter().position(|line| line.starts_with("    }"))?;
    let whole = *first == "    \"Plan\": {" && !rest.contains(&"  },");
    whole.then(|| (owned(&rest[..end], 6), owned(&rest[end + 1..], 4)))
}

/// `- Plan: `, its members further right, then the others.
fn split_yaml(lines: &[&str]) -> Option<Parts> {
    let (first, rest) = lines.split_first()?;
    let size = rest.iter().take_while(|line| line.starts_with("    ")).count();
    let whole = first.trim_end() == "- Plan:" && !rest.iter().any(|line| line.starts_with("- "));
    whole.then(|| (owned(&rest[..size], 4), owned(&rest[size..], 2)))
}

fn split_xml(lines: &[&str]) -> Option<Parts> {
    let (first, rest) = lines.split_first()?;
    let (last, inside) = rest.split_last()?;
    let inside = between(inside, "  <Query>", "  </Query>")?;
    let (plan, rest) = inside.split_first()?;
    let end = rest.iter().position(|line| *line == "    </Plan>")?;
    let whole = first.starts_with("<explain")
        && *last == "</explain>"
        && *plan == "    <Plan>"
        && !rest.contains(&"  </Query>");
    whole.then(|| (owned(&rest[..end], 6), owned(&rest[end + 1..], 4)))
}

fn between<'a, 'b>(lines: &'a [&'b str], open: &str, close: &str) -> Option<&'a [&'b str]> {
    let (first, rest) = lines.split_first()?;
    let (last, inside) = rest.split_last()?;
    (*first == open && *last == close).then_some(inside)
}

/// Lines without their first `indent` blanks.
fn owned(lines: &[&str], indent: usize) -> Vec<String> {
    let moved = |line: &&str| {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        line[blanks.min(indent)..].to_owned()
    };
    lines.iter().map(moved).collect()
}

/// PostgreSQL's answer as one member with a text.
fn as_written(format: ExplainFormat, text: &str) -> Vec<String> {
    super::tree::text_member(format, "Answer", text.trim_end())
}

impl Stats {
    /// `Seq Scan on t  (cost=0.00..1.01 rows=1 width=4) (actual time=0.01..0.02 rows=1 loops=1)`
    fn of_text(plan: &[String], beside: &[String]) -> Self {
        let head = plan.first().map_or("", String::as_str);
        let estimate = head.find("(cost=").map_or("", |at| &head[at..]);
        let actual = head.find("(actual ").map_or("", |at| &head[at..]);
        let time = |name: &str| {
            let line = beside.iter().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| number(line.strip_prefix(": ")?))
        };
        let after = |text: &str, name: &str| number(&text[text.find(name)? + name.len()..]);
        let last = |text: &str, name: &str| {
            let range = &text[text.find(name)?..];
            number(&range[range.find("..")? + 2..])
        };
        Self {
            startup_cost: after(estimate, "cost="),
            total_cost: last(estimate, "cost="),
            rows: after(estimate, "rows="),
            width: after(estimate, "width="),
            actual_rows: after(actual, "rows="),
            actual_time: last(actual, "time="),
            execution_time: time("Execution Time"),
        }
    }

    /// The first member of a name is the topmost node's.
    fn of_members(plan: &[String], beside: &[String]) -> Self {
        let find = |lines: &[String], name: &str| {
            let (plain, tag) = (name.to_owned(), name.replace(' ', "-"));
            lines.iter().find_map(|line| {
                let line = line.trim_start_matches(['"', '<']);
                let rest = line.strip_prefix(&plain).or_else(|| line.strip_prefix(&tag))?;
                number(rest.trim_start_matches(['"', ':', ' ', '>']))
            })
        };
        Self {
            startup_cost: find(plan, "Startup Cost"),
            total_cost: find(plan, "Total Cost"),
            rows: find(plan, "Plan Rows"),
            width: find(plan, "Plan Width"),
            actual_rows: find(plan, "Actual Rows"),
            actual_time: find(plan, "Actual Total Time"),
            execution_time: find(beside, "Execution Time"),
        }
    }
}

/// The number that a text starts with.
fn number(text: &str) -> Option<f64> {
    let digits = |c: char| !(c.is_ascii_digit() || c == '.');
    let end = text.find(digits).unwrap_or(text.len());
    // `0.00..1.01` is two.
    let end = text[..end].find("..").unwrap_or(end);
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"[
  {
    "Plan": {
      "Node Type": "Aggregate",
      "Startup Cost": 1.01,
      "Total Cost": 1.02,
      "Plan Rows": 3,
      "Plan Width": 8,
      "Actual Rows": 2,
      "Plans": [
        {
          "Node Type": "Seq Scan",
          "Plan Rows": 7
        }
      ]
    },
    "Planning Time": 0.100,
    "Execution Time": 0.250
  }
]"#;

    const YAML: &str = r#"- Plan: 
    Node Type: "Aggregate"
    Startup Cost: 1.01
    Total Cost: 1.02
    Plan Rows: 3
    Plan Width: 8
    Actual Rows: 2
    Plans: 
      - Node Type: "Seq Scan"
        Plan Rows: 7
  Planning Time: 0.100
  Execution Time: 0.250"#;

    const XML: &str = r#"<explain xmlns="http://www.postgresql.org/2009/explain">
  <Query>
    <Plan>
      <Node-Type>Aggregate</Node-Type>
      <Startup-Cost>1.01</Startup-Cost>
      <Total-Cost>1.02</Total-Cost>
      <Plan-Rows>3</Plan-Rows>
      <Plan-Width>8</Plan-Width>
      <Actual-Rows>2</Actual-Rows>
      <Plans>
        <Plan>
          <Node-Type>Seq Scan</Node-Type>
          <Plan-Rows>7</Plan-Rows>
        </Plan>
      </Plans>
    </Plan>
    <Planning-Time>0.100</Planning-Time>
    <Execution-Time>0.250</Execution-Time>
  </Query>
</explain>"#;

    const TEXT: &str =
        "Aggregate  (cost=1.01..1.02 rows=3 width=8) (actual time=0.010..0.020 rows=2 loops=1)
  ->  Seq Scan on t  (cost=0.00..1.01 rows=7 width=4) (actual time=0.001..0.002 rows=7 loops=1)
        Filter: (v = 'x'::text)
Planning:
  Buffers: shared hit=3
Planning Time: 0.100 ms
Execution Time: 0.250 ms";

    #[test]
    fn each_format_gives_the_same_numbers() {
        let all = [
            (ExplainFormat::Json, JSON),
            (ExplainFormat::Yaml, YAML),
            (ExplainFormat::Xml, XML),
            (ExplainFormat::Text, TEXT),
        ];
        for (format, text) in all {
            let read = ShardPlan::read(format, text);
            let timed = format == ExplainFormat::Text;
            let wanted = Stats {
                startup_cost: Some(1.01),
                total_cost: Some(1.02),
                rows: Some(3.0),
                width: Some(8.0),
                actual_rows: Some(2.0),
                actual_time: timed.then_some(0.02),
                execution_time: Some(0.25),
            };
            assert_eq!(read.stats, wanted, "{format:?}");
            assert!(read.plan.iter().any(|line| line.contains("Seq Scan")), "{format:?}");
            assert!(!read.plan.iter().any(|line| line.contains("Planning")), "{format:?}");
            assert!(read.beside.iter().any(|line| line.contains("Planning")), "{format:?}");
        }
    }

    #[test]
    fn numbers_do_not_make_another_shape_but_tables_do() {
        let read = |text: &str| ShardPlan::read(ExplainFormat::Text, text);
        let (one, other) = (read(TEXT), read(&TEXT.replace("rows=7", "rows=9")));
        assert!(one.has_shape_of(&other));
        let read_actual = |rows| {
            let text = format!(
                "Update on t (actual rows=0 loops=1)\n  ->  Seq Scan on t (actual rows={rows} loops=1)"
            );
            read(&text)
        };
        assert!(read_actual(1).has_shape_of(&read_actual(2)));
        assert!(!one.has_shape_of(&read(&TEXT.replace("Seq Scan on t", "Seq Scan on u"))));
        let read = |text: &str| ShardPlan::read(ExplainFormat::Json, text);
        assert!(read(JSON).has_shape_of(&read(&JSON.replace("1.02", "3.04"))));
        assert!(!read(JSON).has_shape_of(&read(&JSON.replace("Seq Scan", "Index Scan"))));
    }

    #[test]
    fn what_has_no_plan_is_told_as_it_is() {
        let read = ShardPlan::read(ExplainFormat::Json, "[\n  \"Utility Statement\"\n]");
        assert_eq!(read.beside, [r#""Answer": "[\n  \"Utility Statement\"\n]""#]);
        assert_eq!(read.stats, Stats::default());
    }
}
