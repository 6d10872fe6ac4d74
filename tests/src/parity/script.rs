//! A parity script: its statements and what was said about them.

use std::ops::RangeInclusive;

use crate::wire::Mode;

/// A script file.
#[derive(Debug)]
pub struct Script {
    pub name: String,
    pub units: Vec<Unit>,
}

/// One statement, or several in one text, as a client sends them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Where its text begins in the file, from 1.
    pub line: usize,
    last_line: usize,
    pub sql: String,
    /// Rows for COPY FROM STDIN.
    pub copy: Option<String>,
    /// Values of its parameters.
    pub bind: Vec<Option<String>>,
    /// The modes in which it runs; all of them when nothing was said.
    pub modes: Option<Vec<Mode>>,
    /// Sent in the simple protocol in every mode.
    pub setup: bool,
    /// Has an ORDER BY of its own, so the order of rows counts.
    pub ordered: bool,
    /// Tables whose contents may differ from here on.
    pub apart: Vec<String>,
    expected: Vec<(Option<Vec<Mode>>, Expected)>,
}

/// How the router's answer relates to PostgreSQL's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Same,
    RouterOnly,
    /// With this SQLSTATE.
    Refused(String),
    /// For this reason.
    KnownDifference(String),
}

/// What directives say about the next statement.
#[derive(Debug, Default)]
struct Directives {
    bind: Vec<Option<String>>,
    modes: Option<Vec<Mode>>,
    setup: bool,
    apart: Vec<String>,
    expected: Vec<(Option<Vec<Mode>>, Expected)>,
}

impl Unit {
    /// The lines of its text.
    #[must_use]
    pub fn lines(&self) -> RangeInclusive<usize> {
        self.line..=self.last_line
    }

    /// What is expected in a mode.
    #[must_use]
    pub fn expected_in(&self, mode: Mode) -> &Expected {
        let applies =
            |modes: &Option<Vec<Mode>>| modes.as_ref().is_none_or(|modes| modes.contains(&mode));
        let said = self.expected.iter().find(|(modes, _)| applies(modes));
        said.map_or(&Expected::Same, |(_, expected)| expected)
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Line and reason: a directive that does not exist, or a statement without an end.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut units = Vec::new();
        let mut directives = Directives::default();
        let mut lines = text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            let problem = |problem: String| format!("{name}:{number}: {problem}");
            if let Some(directive) = line.strip_prefix("--@") {
                let only = directives.read(directive.trim()).map_err(problem)?;
                units.extend(only.map(|sql| router_only(number, sql)));
                continue;
            }
            if line.trim().is_empty() || line.starts_with("--") {
                continue;
            }
            let mut sql = line.to_owned();
            let mut last_line = number;
            while !sql.ends_with(';') {
                let Some((more, number)) = lines.next() else {
                    return Err(problem("no line that ends with ';' follows".to_owned()));
                };
                sql = sql + "\n" + more.trim_end();
                last_line = number;
            }
            sql.pop();
            let upper = sql.to_uppercase();
            let copy = (upper.starts_with("COPY") && upper.contains("FROM STDIN")).then(|| {
                let rows = lines.by_ref().map(|(row, _)| row).take_while(|row| *row != "\\.");
                rows.map(|row| row.to_owned() + "\n").collect()
            });
            let Directives { bind, modes, setup, apart, expected } =
                std::mem::take(&mut directives);
            // Only the extended protocol carries parameters.
            let modes =
                modes.or_else(|| (!bind.is_empty()).then(|| vec![Mode::Text, Mode::Binary]));
            let ordered = is_ordered(&upper);
            units.push(Unit {
                line: number,
                last_line,
                sql,
                copy,
                bind,
                modes,
                setup,
                ordered,
                apart,
                expected,
            });
        }
        Ok(Self { name: name.to_owned(), units })
    }
}

impl Directives {
    /// Takes one directive; `router:` is a statement of its own and is given back.
    fn read(&mut self, directive: &str) -> Result<Option<String>, String> {
        let end = directive.find(|c: char| !c.is_ascii_alphabetic() && c != '-');
        let (word, rest) = directive.split_at(end.unwrap_or(directive.len()));
        let (modes, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((modes, rest)) => (Some(read_modes(modes)?), rest),
            None => (None, rest),
        };
        let value = rest.strip_prefix(':').unwrap_or(rest).trim();
        match (word, modes.is_some(), value.is_empty()) {
            ("router", false, false) => return Ok(Some(value.trim_end_matches(';').to_owned())),
            ("refused", _, false) if value.len() == 5 => {
                self.expected.push((modes, Expected::Refused(value.to_owned())));
            }
            ("known-difference", _, false) => {
                self.expected.push((modes, Expected::KnownDifference(value.to_owned())));
            }
            ("bind", false, false) => {
                let values = value.split('|');
                self.bind = values.map(|v| (v != "NULL").then(|| v.to_owned())).collect();
            }
            ("apart", false, false) => {
                self.apart = value.split_whitespace().map(str::to_owned).collect();
            }
            ("setup", false, true) => self.setup = true,
            ("modes", false, false) => self.modes = Some(read_modes(value)?),
            _ => return Err(format!("no such directive: --@ {directive}")),
        }
        Ok(None)
    }
}

fn router_only(line: usize, sql: String) -> Unit {
    Unit {
        line,
        last_line: line,
        sql,
        copy: None,
        bind: Vec::new(),
        modes: None,
        setup: true,
        ordered: false,
        apart: Vec::new(),
        expected: vec![(None, Expected::RouterOnly)],
    }
}

fn read_modes(text: &str) -> Result<Vec<Mode>, String> {
    let mode = |name: &str| Mode::ALL.into_iter().find(|mode| mode.name() == name);
    text.split_whitespace()
        .map(|name| mode(name).ok_or_else(|| format!("no such mode: {name}")))
        .collect()
}

/// Has ORDER BY outside of parentheses.
fn is_ordered(upper: &str) -> bool {
    let mut depth = 0_i32;
    upper.char_indices().any(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0 && upper[at..].starts_with("ORDER BY")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_directive_is_an_error() {
        for directive in ["refuse 0A000", "refused", "known-diference: x", "modes: simpel", "bind"]
        {
            let error = Script::parse("s", &format!("--@ {directive}\nSELECT 1;\n"));
            assert!(error.is_err(), "{directive}");
        }
        assert!(Script::parse("s", "SELECT 1\n").is_err());
    }

    #[test]
    fn statements_carry_their_directives_rows_and_lines() {
        let text = "--@ router: SELECT 0\n\n--@ known-difference[simple text]: why\n\
                    --@ bind: 1|NULL\nSELECT $1,\n $2 ORDER BY 1;\nCOPY t FROM STDIN;\n1\n\\.\n";
        let script = Script::parse("s", text).expect("a good script");
        let [only, select, copy] = script.units.as_slice() else { panic!("{script:?}") };
        assert_eq!(*only.expected_in(Mode::Text), Expected::RouterOnly);
        assert_eq!(select.lines(), 5..=6);
        assert_eq!(*select.expected_in(Mode::Text), Expected::KnownDifference("why".to_owned()));
        assert_eq!(*select.expected_in(Mode::Binary), Expected::Same);
        assert_eq!(select.bind, [Some("1".to_owned()), None]);
        assert_eq!(select.modes.as_deref(), Some([Mode::Text, Mode::Binary].as_slice()));
        assert!(select.ordered && !copy.ordered);
        assert_eq!(copy.copy.as_deref(), Some("1\n"));
    }
}
