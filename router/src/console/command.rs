//! What an administrator can say. Pure: text in, [`Command`] out.

use pgherd_shard_map::ShardId;

use super::tables::{self, Show};
use crate::error::ErrorInfo;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Show(Show),
    /// Of one shard, or of all.
    Pause(Option<ShardId>),
    Resume(Option<ShardId>),
    Reconnect(Option<ShardId>),
    Reload,
    /// New clients are refused, or no longer.
    Enable(bool),
    /// One client, or all.
    Kill(Option<u32>),
    Shutdown(Shutdown),
}

/// How long clients may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    Now,
    /// Until their transactions have ended.
    WaitForServers,
    /// Until they leave.
    WaitForClients,
}

impl Command {
    /// The command of a text; `None` if it has none.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, ErrorInfo> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let words: Vec<String> = text.split_whitespace().map(word).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = match *words.as_slice() {
            [] => return Ok(None),
            ["show"] => Self::Show(Show::Help),
            ["show", what] => {
                let show = Show::named(what);
                Self::Show(show.ok_or_else(|| unknown(&format!("SHOW {}", what.to_uppercase())))?)
            }
            ["pause", ref of @ ..] => Self::Pause(shard(of)?),
            ["resume", ref of @ ..] => Self::Resume(shard(of)?),
            ["reconnect", ref of @ ..] => Self::Reconnect(shard(of)?),
            ["reload"] => Self::Reload,
            ["enable"] | ["enable", _] => Self::Enable(true),
            ["disable"] | ["disable", _] => Self::Enable(false),
            ["kill" | "kill_client", id] if id.parse::<u32>().is_ok() => {
                Self::Kill(id.parse().ok())
            }
            ["kill_client", ..] => {
                return Err(syntax("KILL_CLIENT needs the id of a client")
                    .hint("SHOW CLIENTS lists them in the column id."));
            }
            ["kill"] | ["kill", _] => Self::Kill(None),
            ["shutdown"] => Self::Shutdown(Shutdown::Now),
            ["shutdown", "wait_for_servers"] => Self::Shutdown(Shutdown::WaitForServers),
            ["shutdown", "wait_for_clients"] => Self::Shutdown(Shutdown::WaitForClients),
            _ => return Err(unknown(text)),
        };
        Ok(Some(command))
    }

    /// The columns of its answer, if it has rows.
    pub(super) fn columns(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Show(show) => Some(tables::columns(*show)),
            _ => None,
        }
    }
}

/// In lower case, without quotes.
fn word(text: &str) -> String {
    text.trim_matches(|c| c == '"' || c == '\'').to_lowercase()
}

/// `2`, `shard_2`, or nothing (or another name: the router's one database) for all.
fn shard(words: &[&str]) -> Result<Option<ShardId>, ErrorInfo> {
    match *words {
        [] => Ok(None),
        [name] => {
            let number = name.strip_prefix("shard_").unwrap_or(name);
            match number.parse() {
                Ok(number) => Ok(Some(ShardId(number))),
                Err(_) if name.starts_with("shard_") || name.starts_with(char::is_numeric) => {
                    Err(syntax(&format!("\"{name}\" is no shard")))
                }
                Err(_) => Ok(None),
            }
        }
        _ => Err(syntax("one shard at a time, or none for all")),
    }
}

fn syntax(problem: &str) -> ErrorInfo {
    ErrorInfo::new("42601", problem.to_owned())
}

fn unknown(text: &str) -> ErrorInfo {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    syntax(&format!("invalid command \"{shown}\"")).hint("SHOW HELP lists what the console knows.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_pgbouncer_reads_them() {
        let read = |text| Command::parse(text).expect("a command");
        assert_eq!(read(" ; "), None);
        assert_eq!(read("show pools;"), Some(Command::Show(Show::Pools)));
        assert_eq!(read("PAUSE"), Some(Command::Pause(None)));
        assert_eq!(read("pause app;"), Some(Command::Pause(None)));
        for text in ["PAUSE 2", "pause shard_2", "Pause \"shard_2\""] {
            assert_eq!(read(text), Some(Command::Pause(Some(ShardId(2)))), "{text}");
        }
        assert_eq!(read("KILL 513"), Some(Command::Kill(Some(513))));
        assert_eq!(read("KILL app"), Some(Command::Kill(None)));
        let gentle = Command::Shutdown(Shutdown::WaitForClients);
        assert_eq!(read("SHUTDOWN WAIT_FOR_CLIENTS"), Some(gentle));
        for text in ["SELECT 1", "SHOW FDS", "PAUSE 1 2", "PAUSE shard_x", "KILL_CLIENT ada"] {
            let error = Command::parse(text).expect_err("no command");
            assert_eq!(error.sqlstate, "42601", "{text}");
        }
    }
}
