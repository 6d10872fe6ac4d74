//! Statements that may change the session of their server where nobody sees it: inside a DO block, a
//! function, a trigger. The server is asked afterwards what it has become.
//!
//! Which functions do such things the map says; a statement is looked through for their names, and
//! for those of relations that call them. PostgreSQL does not list settings of an application's own,
//! so their names are taken from the texts.

use crate::literal::decode_str;
use crate::token::{Kind, Tokens};
use crate::{Context, Touches, functions, temporary};

/// Built-in functions that run any text.
const RUN_TEXT: [&str; 6] = [
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
    "cursor_to_xml",
];

/// How many names of settings are asked for at most; beyond that the server stays.
const NAMES_MAX: usize = 64;

/// How deep texts in texts are read: `DO` with an EXECUTE of a string.
const DEPTH_MAX: usize = 4;

/// What the statement may change in its server's session, if anything.
pub(crate) fn read(tokens: &Tokens<'_>, context: &Context<'_>) -> Option<Box<Touches>> {
    let effects = context.map.session_effects();
    if tokens.is(0, "prepare") {
        return None;
    }
    let block = tokens.is(0, "do");
    let found = || Found { literals: block, ..Found::default() };
    let mut found = (block || tokens.is(0, "call")).then(found);
    let reads = tokens.is_any(0, &["select", "values", "table", "declare"])
        && !tokens.all().any(|at| tokens.is_any(at, &["insert", "update", "delete", "merge"]));
    for at in tokens.all() {
        let Some(name) = tokens.name(at) else { continue };
        let called = tokens.kind(at + 1) == Some(Kind::Open);
        let effect = effects
            .functions
            .get(name)
            .filter(|_| called)
            .or_else(|| effects.read.get(name))
            .or_else(|| effects.written.get(name).filter(|_| !reads));
        if let Some(effect) = effect {
            let found = found.get_or_insert_default();
            found.settings.extend(effect.settings.iter().cloned());
            found.stays |= effect.stays;
        }
        // What a temporary function does is in nobody's catalog.
        let temporary = called
            && at > 1
            && tokens.sign(at - 1, ".")
            && tokens.name(at - 2).is_some_and(temporary::is_temporary_schema)
            && !tokens.is_any(0, &["create", "alter", "drop", "comment", "grant", "revoke"])
            && !(at > 2 && tokens.is(at - 3, "into"));
        if temporary {
            found.get_or_insert_default().stays = true;
        }
        let runs = called && RUN_TEXT.contains(&name);
        // UPDATE of this view is a set_config().
        if runs || name == "pg_settings" && tokens.is(0, "update") {
            found.get_or_insert_default();
        }
    }
    let mut found = found?;
    found.read_texts(tokens, block, 0);
    found.settings.sort_unstable();
    found.settings.dedup();
    found.stays |= found.settings.len() > NAMES_MAX;
    found.settings.truncate(NAMES_MAX);
    let Found { settings, stays, literals } = found;
    Some(Box::new(Touches { settings: settings.into(), stays, literals }))
}

#[derive(Default)]
struct Found {
    settings: Vec<Box<str>>,
    stays: bool,
    /// Another literal may mean something else.
    literals: bool,
}

impl Found {
    /// Names of settings in the statement's literals, and in what SQL there is in these. `body`: what
    /// is read is a body, so its calls count.
    fn read_texts(&mut self, tokens: &Tokens<'_>, body: bool, depth: usize) {
        for at in tokens.all() {
            if body && tokens.is(at, "set_config") && tokens.kind(at + 1) == Some(Kind::Open) {
                self.stays |= !functions::names_its_setting(tokens, at + 1);
            }
            if depth > 0 && tokens.is(at, "set") {
                let name = at + 1 + usize::from(tokens.is_any(at + 1, &["local", "session"]));
                if let Some((parts, _)) = tokens.qualified(name)
                    && parts.len() > 1
                {
                    self.name(&parts.join("."));
                }
            }
            let Some(Kind::Literal { kind, .. }) = tokens.kind(at) else { continue };
            let Some(text) = decode_str(&tokens.list[at].text, kind) else { continue };
            if is_setting(&text) {
                self.name(&text);
            } else if depth < DEPTH_MAX && text.contains(|c: char| !c.is_alphanumeric()) {
                self.read_texts(&Tokens::new(&text), body, depth + 1);
            }
        }
    }

    fn name(&mut self, name: &str) {
        self.literals = true;
        // Beyond the limit it is no matter which.
        if self.settings.len() <= 2 * NAMES_MAX {
            self.settings.push(name.to_lowercase().into());
        }
    }
}

/// `app.user`: what a setting of an application's own is called.
fn is_setting(text: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
    };
    text.contains('.') && text.split('.').all(word)
}
