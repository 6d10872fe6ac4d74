//! The text of a wire script: read into cases, and written back with other answers.

use std::fmt::Write as _;

/// One file.
#[derive(Debug)]
pub struct Script {
    pub name: String,
    /// Comments before the first case.
    head: String,
    pub cases: Vec<Case>,
}

#[derive(Debug, Default)]
pub struct Case {
    pub title: String,
    pub line: usize,
    /// What was written between the title and the first step, to be written back.
    preamble: String,
    pub sql: Vec<String>,
    pub router: Vec<String>,
    pub login: String,
    pub raw: bool,
    pub whole: bool,
    pub unordered: bool,
    pub steps: Vec<Step>,
}

/// Messages of one write, and what is answered.
#[derive(Debug, Default, Clone)]
pub struct Step {
    pub line: usize,
    /// Comments above it.
    pub(super) comments: String,
    pub connection: String,
    pub send: Vec<String>,
    pub until: Option<String>,
    pub differs: Option<String>,
    pub plain: Vec<String>,
    pub router: Vec<String>,
    pub(super) read: bool,
}

impl Script {
    /// # Errors
    /// The line that is not understood.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut script = Self { name: name.to_owned(), head: String::new(), cases: Vec::new() };
        let mut step = Step::default();
        let mut connection = "a".to_owned();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            if let Some(title) = line.strip_prefix("case: ") {
                script.end_step(&mut step);
                "a".clone_into(&mut connection);
                let title = title.trim().to_owned();
                script.cases.push(Case { title, line: number, ..Case::default() });
                continue;
            }
            if script.cases.is_empty() {
                script.head.push_str(line);
                script.head.push('\n');
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim();
            let answer = matches!(word, "<" | "<p" | "<r");
            let opens = word == "on:"
                || word.starts_with('#')
                || word == ">" && (step.until.is_some() || step.differs.is_some());
            if step.read && !answer || !step.send.is_empty() && opens {
                script.end_step(&mut step);
            }
            let Some(case) = script.cases.last_mut() else { continue };
            match word {
                ">" => {
                    if step.send.is_empty() {
                        step.line = number;
                        step.connection.clone_from(&connection);
                    }
                    step.send.push(rest.to_owned());
                }
                "until:" => step.until = Some(rest.to_owned()),
                "differs:" => step.differs = Some(rest.to_owned()),
                "<" | "<p" | "<r" => {
                    step.read = true;
                    if word != "<r" {
                        step.plain.push(rest.to_owned());
                    }
                    if word != "<p" {
                        step.router.push(rest.to_owned());
                    }
                }
                "on:" => {
                    rest.clone_into(&mut connection);
                    let _ = writeln!(step.comments, "{line}");
                }
                "" => {}
                _ if word.starts_with('#') => {
                    let _ = writeln!(step.comments, "{line}");
                }
                _ => {
                    match word {
                        "sql:" => case.sql.push(rest.to_owned()),
                        "router:" => case.router.push(rest.to_owned()),
                        "login:" => rest.clone_into(&mut case.login),
                        "raw:" => case.raw = true,
                        "whole:" => case.whole = true,
                        "unordered:" => case.unordered = true,
                        _ => return Err(format!("{name}:{number}: what is {word}?")),
                    }
                    let _ = writeln!(case.preamble, "{line}");
                }
            }
        }
        script.end_step(&mut step);
        Ok(script)
    }

    fn end_step(&mut self, step: &mut Step) {
        let step = std::mem::take(step);
        if let Some(case) = self.cases.last_mut()
            && !step.send.is_empty()
        {
            case.steps.push(step);
        }
    }

    /// The text again, with the answers that the cases hold.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.head.clone();
        for case in &self.cases {
            let separator = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
            let _ = write!(text, "{separator}case: {}\n{}", case.title, case.preamble);
            for step in &case.steps {
                text += &step.comments;
                for line in &step.send {
                    let _ = writeln!(text, "> {line}");
                }
                if let Some(until) = &step.until {
                    let _ = writeln!(text, "until: {until}");
                }
                if let Some(why) = &step.differs {
                    let _ = writeln!(text, "differs: {why}");
                }
                if step.plain == step.router {
                    for line in &step.plain {
                        let _ = writeln!(text, "< {line}");
                    }
                    continue;
                }
                for (mark, lines) in [("<p", &step.plain), ("<r", &step.router)] {
                    for line in lines {
                        let _ = writeln!(text, "{mark} {line}");
                    }
                }
            }
        }
        text
    }
}
