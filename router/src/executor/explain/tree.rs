//! The distributed plan as a tree, and its four forms.
//!
//! A node is written as PostgreSQL writes its own, and the shards' plans hang below it as they came:
//! so in the structured formats the whole is one tree with PostgreSQL's names (`Node Type`, `Plans`,
//! `Plan Rows`), which tools that draw plans can read.

use pgherd_planner::ExplainFormat;

use super::shard_plan::{ShardPlan, Stats};

#[derive(Debug, Default)]
pub(super) struct Node {
    /// `Node Type`, of the structured formats.
    pub(super) kind: &'static str,
    /// The first line of the text format.
    pub(super) title: String,
    pub(super) fields: Vec<Field>,
    /// Estimates and measures of the whole.
    pub(super) stats: Stats,
    /// PostgreSQL's plan of what this node runs.
    pub(super) plan: Option<ShardPlan>,
    pub(super) children: Vec<Self>,
}

#[derive(Debug)]
pub(super) struct Field {
    name: &'static str,
    value: Value,
    shown: Shown,
}

/// Where a field is seen.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Everywhere,
    /// The text format says it in other words.
    Structured,
    Text,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// A number or a truth value, as it is written.
    Plain(String),
    Texts(Vec<String>),
    Numbers(Vec<String>),
}

impl Node {
    pub(super) fn new(kind: &'static str, title: impl Into<String>) -> Self {
        Self { kind, title: title.into(), ..Self::default() }
    }

    pub(super) fn text(&mut self, name: &'static str, text: impl Into<String>) {
        self.add(name, Value::Text(text.into()), Shown::Everywhere);
    }

    pub(super) fn texts(&mut self, name: &'static str, texts: Vec<String>) {
        if !texts.is_empty() {
            self.add(name, Value::Texts(texts), Shown::Everywhere);
        }
    }

    /// What only programs are told.
    pub(super) fn hidden(&mut self, name: &'static str, value: Value) {
        self.add(name, value, Shown::Structured);
    }

    /// What only people are told.
    pub(super) fn spoken(&mut self, name: &'static str, text: impl Into<String>) {
        self.add(name, Value::Text(text.into()), Shown::Text);
    }

    fn add(&mut self, name: &'static str, value: Value, shown: Shown) {
        self.fields.push(Field { name, value, shown });
    }
}

/// The answer to the client: its rows. `time` is what the router measured, in milliseconds.
pub(super) fn render(format: ExplainFormat, root: &Node, time: Option<f64>) -> Vec<String> {
    if format == ExplainFormat::Text {
        let mut out = Vec::new();
        write_text(root, 0, true, &mut out);
        out.extend(time.map(|time| format!("Execution Time: {time:.3} ms")));
        return out;
    }
    let mut query = vec![object(format, "Plan", &members(format, root))];
    query.extend(time.map(|time| member(format, "Execution Time", &plain(time, 3))));
    let lines = match format {
        ExplainFormat::Json => {
            let mut lines = vec!["[".to_owned(), "  {".to_owned()];
            lines.extend(indented(&joined(format, &query), "    "));
            lines.extend(["  }".to_owned(), "]".to_owned()]);
            lines
        }
        ExplainFormat::Yaml => item(&joined(format, &query), "- "),
        _ => {
            let head = "<explain xmlns=\"http://www.postgresql.org/2009/explain\">";
            let mut lines = vec![head.to_owned(), "  <Query>".to_owned()];
            lines.extend(indented(&joined(format, &query), "    "));
            lines.extend(["  </Query>".to_owned(), "</explain>".to_owned()]);
            lines
        }
    };
    vec![lines.join("\n")]
}

/// As PostgreSQL: a child has an arrow before it, and what belongs to it is further right.
fn write_text(node: &Node, indent: usize, root: bool, out: &mut Vec<String>) {
    let numbers = numbers(&node.stats);
    let (arrow, inside) = if root { ("", 2) } else { ("->  ", indent + 6) };
    out.push(format!("{:indent$}{arrow}{}{numbers}", "", node.title));
    for field in node.fields.iter().filter(|field| field.shown != Shown::Structured) {
        let name = field.name;
        let lines: Vec<&str> = match &field.value {
            Value::Text(text) | Value::Plain(text) => text.lines().collect(),
            Value::Texts(texts) | Value::Numbers(texts) => {
                texts.iter().map(String::as_str).collect()
            }
        };
        for (at, line) in lines.into_iter().enumerate() {
            let name = if at == 0 { format!("{name}: ") } else { " ".repeat(name.len() + 2) };
            out.push(format!("{:inside$}{name}{line}", ""));
        }
    }
    if let Some(plan) = &node.plan {
        for (at, line) in plan.plan.iter().enumerate() {
            let arrow = if at == 0 { "->  " } else { "    " };
            out.push(format!("{:inside$}{arrow}{line}", ""));
        }
    }
    for child in &node.children {
        write_text(child, inside, false, out);
    }
    if let Some(plan) = &node.plan {
        out.extend(plan.beside.iter().map(|line| format!("{:inside$}{line}", "")));
    }
}

/// `  (cost=… rows=… width=…) (actual … rows=…)`, as far as known.
fn numbers(stats: &Stats) -> String {
    let mut text = String::new();
    if let (Some(startup), Some(total), Some(rows), Some(width)) =
        (stats.startup_cost, stats.total_cost, stats.rows, stats.width)
    {
        text += &format!("  (cost={startup:.2}..{total:.2} rows={rows:.0} width={width:.0})");
    }
    if let Some(rows) = stats.actual_rows {
        let blanks = if text.is_empty() { "  " } else { " " };
        let time = stats.actual_time.map_or_else(String::new, |time| format!("time={time:.3} "));
        text += &format!("{blanks}(actual {time}rows={rows:.0})");
    }
    text
}

/// The members of a node's object, each as its lines.
fn members(format: ExplainFormat, node: &Node) -> Vec<Vec<String>> {
    let mut out = vec![member(format, "Node Type", &Value::Text(node.kind.to_owned()))];
    for field in node.fields.iter().filter(|field| field.shown != Shown::Text) {
        out.push(member(format, field.name, &field.value));
    }
    let stats = &node.stats;
    let numbers = [
        ("Startup Cost", stats.startup_cost, 2),
        ("Total Cost", stats.total_cost, 2),
        ("Plan Rows", stats.rows, 0),
        ("Plan Width", stats.width, 0),
        ("Actual Total Time", stats.actual_time, 3),
        ("Actual Rows", stats.actual_rows, 0),
    ];
    for (name, value, digits) in numbers {
        out.extend(value.map(|value| member(format, name, &plain(value, digits))));
    }
    let own = node.plan.as_ref().filter(|plan| !plan.plan.is_empty());
    let mut plans: Vec<Vec<String>> = own.map(|plan| plan.plan.clone()).into_iter().collect();
    plans.extend(node.children.iter().map(|child| joined(format, &members(format, child))));
    if !plans.is_empty() {
        out.push(list(format, "Plans", "Plan", &plans));
    }
    if let Some(plan) = node.plan.as_ref().filter(|plan| !plan.beside.is_empty()) {
        out.push(plan.beside.clone());
    }
    out
}

fn plain(value: f64, digits: usize) -> Value {
    Value::Plain(format!("{value:.digits$}"))
}

/// Members after each other, with what their format has between them.
fn joined(format: ExplainFormat, members: &[Vec<String>]) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, member) in members.iter().enumerate() {
        lines.extend(member.iter().cloned());
        if format == ExplainFormat::Json
            && at + 1 < members.len()
            && let Some(last) = lines.last_mut()
        {
            last.push(',');
        }
    }
    lines
}

/// A member with a text.
pub(super) fn text_member(format: ExplainFormat, name: &str, text: &str) -> Vec<String> {
    member(format, name, &Value::Text(text.to_owned()))
}

fn member(format: ExplainFormat, name: &str, value: &Value) -> Vec<String> {
    let (texts, quoted) = match value {
        Value::Text(text) => (vec![text], true),
        Value::Plain(text) => (vec![text], false),
        Value::Texts(texts) => (texts.iter().collect(), true),
        Value::Numbers(texts) => (texts.iter().collect(), false),
    };
    let written: Vec<String> = texts.into_iter().map(|text| scalar(format, text, quoted)).collect();
    let several = matches!(value, Value::Texts(_) | Value::Numbers(_));
    match format {
        ExplainFormat::Text => vec![format!("{name}: {}", written.join(", "))],
        ExplainFormat::Json if several => vec![format!("\"{name}\": [{}]", written.join(", "))],
        ExplainFormat::Json => vec![format!("\"{name}\": {}", written.concat())],
        ExplainFormat::Yaml if several => {
            let items = written.iter().map(|text| format!("  - {text}"));
            std::iter::once(format!("{name}: ")).chain(items).collect()
        }
        ExplainFormat::Yaml => vec![format!("{name}: {}", written.concat())],
        ExplainFormat::Xml => {
            let tag = name.replace(' ', "-");
            if !several {
                return vec![format!("<{tag}>{}</{tag}>", written.concat())];
            }
            let items = written.iter().map(|text| format!("  <Item>{text}</Item>"));
            let head = std::iter::once(format!("<{tag}>"));
            head.chain(items).chain([format!("</{tag}>")]).collect()
        }
    }
}

fn scalar(format: ExplainFormat, text: &str, quoted: bool) -> String {
    match format {
        ExplainFormat::Text => text.to_owned(),
        // A text in quotes with JSON's escapes is YAML's, too.
        ExplainFormat::Json | ExplainFormat::Yaml if quoted => {
            serde_json::Value::from(text).to_string()
        }
        ExplainFormat::Json | ExplainFormat::Yaml => text.to_owned(),
        ExplainFormat::Xml => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
    }
}

/// A member that is an object.
fn object(format: ExplainFormat, name: &str, members: &[Vec<String>]) -> Vec<String> {
    let (open, close) = match format {
        ExplainFormat::Json => (format!("\"{name}\": {{"), Some("}".to_owned())),
        ExplainFormat::Xml => (format!("<{name}>"), Some(format!("</{name}>"))),
        _ => (format!("{name}: "), None),
    };
    let mut lines = vec![open];
    lines.extend(indented(&joined(format, members), "  "));
    lines.extend(close);
    lines
}

/// A member that is a list of objects, each given as its lines.
fn list(format: ExplainFormat, name: &str, each: &str, objects: &[Vec<String>]) -> Vec<String> {
    match format {
        ExplainFormat::Json => {
            let mut lines = vec![format!("\"{name}\": [")];
            for (at, object) in objects.iter().enumerate() {
                let comma = if at + 1 < objects.len() { "," } else { "" };
                lines.push("  {".to_owned());
                lines.extend(indented(object, "    "));
                lines.push(format!("  }}{comma}"));
            }
            lines.push("]".to_owned());
            lines
        }
        ExplainFormat::Xml => {
            let mut lines = vec![format!("<{name}>")];
            for object in objects {
                lines.push(format!("  <{each}>"));
                lines.extend(indented(object, "    "));
                lines.push(format!("  </{each}>"));
            }
            lines.push(format!("</{name}>"));
            lines
        }
        _ => {
            let mut lines = vec![format!("{name}: ")];
            lines.extend(objects.iter().flat_map(|object| item(object, "  - ")));
            lines
        }
    }
}

/// A YAML list's item: its first line has the mark, the others stand below it.
fn item(lines: &[String], mark: &str) -> Vec<String> {
    let blanks = " ".repeat(mark.len());
    let before = |at: usize| if at == 0 { mark } else { &blanks };
    lines.iter().enumerate().map(|(at, line)| format!("{}{line}", before(at))).collect()
}

fn indented<'a>(lines: &'a [String], by: &'a str) -> impl Iterator<Item = String> + 'a {
    lines.iter().map(move |line| format!("{by}{line}"))
}
