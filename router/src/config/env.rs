//! The environment over the file: `pool.size` is `PGHERD_POOL_SIZE`.
//!
//! [`KEYS`] is the one list of settings: it says which variables exist, and a test holds the file's
//! fields and the documentation to it.

use toml::{Table, Value};

use super::ConfigError;

/// A setting as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `section.name`, or `name` at the top.
    pub path: &'static str,
    pub kind: KeyKind,
    /// RELOAD changes it; any other setting needs a new process.
    pub live: bool,
}

/// How the text of a variable is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Text,
    Number,
    /// `true` or `false`.
    Flag,
    /// Separated by commas.
    List,
}

/// Every setting that there is, but the table `[[auth.hba]]`, which no variable can hold.
pub const KEYS: &[Key] = &[
    text("listen"),
    text("http"),
    text("catalog"),
    text("database"),
    number("workers"),
    number("max_clients").live(),
    flag("reuse_port"),
    text("shutdown_timeout").live(),
    text("unix_socket_dir"),
    text("unix_socket_permissions"),
    text("max_message_size"),
    text("router_name"),
    text("pool.mode"),
    number("pool.size").live(),
    number("pool.min_size").live(),
    list("pool.warm_users").live(),
    text("pool.wait").live(),
    text("pool.pause_wait").live(),
    number("pool.max_waiting").live(),
    text("pool.idle_timeout").live(),
    text("pool.max_lifetime").live(),
    text("pool.connect_timeout").live(),
    text("auth.method").live(),
    number("auth.max_failures"),
    text("auth.failure_window"),
    text("tls.cert"),
    text("tls.key"),
    text("tls.client_ca"),
    flag("tls.require"),
    text("shard_tls.sslmode"),
    text("shard_tls.sslrootcert"),
    text("shard_tls.sslcert"),
    text("shard_tls.sslkey"),
    list("sharding.auto_distribute").live(),
    text("query.borrow_max").live(),
    text("query.ddl_lock_timeout").live(),
    number("query.ddl_attempts").live(),
    text("query.broadcast_max").live(),
    text("log.format"),
    text("log.level").live(),
    text("log.slow_statement").live(),
];

impl Key {
    const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    /// The name of its variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("PGHERD_{}", self.path.replace('.', "_").to_uppercase())
    }
}

/// The settings that the environment gives.
pub(super) fn overrides(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(&'static Key, Value)>, ConfigError> {
    KEYS.iter()
        .filter_map(|key| environment(&key.variable()).map(|text| (key, text)))
        .map(|(key, text)| Ok((key, read(key, text)?)))
        .collect()
}

/// Lays them over the file's table.
pub(super) fn apply(
    table: &mut Table,
    overrides: Vec<(&'static Key, Value)>,
) -> Result<(), ConfigError> {
    for (key, value) in overrides {
        let Some((section, name)) = key.path.split_once('.') else {
            table.insert(key.path.to_owned(), value);
            continue;
        };
        let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(section) = section else {
            return Err(ConfigError::Invalid {
                key: key.path,
                problem: "its section is not a table".into(),
            });
        };
        section.insert(name.to_owned(), value);
    }
    Ok(())
}

fn read(key: &Key, text: String) -> Result<Value, ConfigError> {
    Ok(match key.kind {
        KeyKind::Text => Value::String(text),
        KeyKind::Number => {
            text.trim().parse().map(Value::Integer).map_err(|_| ConfigError::Environment {
                variable: key.variable(),
                problem: format!("'{text}' is not a whole number"),
            })?
        }
        KeyKind::Flag => {
            text.trim().parse().map(Value::Boolean).map_err(|_| ConfigError::Environment {
                variable: key.variable(),
                problem: format!("'{text}' is neither true nor false"),
            })?
        }
        KeyKind::List => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Value::String(item.to_owned()))
            .collect::<Vec<_>>()
            .into(),
    })
}

const fn text(path: &'static str) -> Key {
    Key { path, kind: KeyKind::Text, live: false }
}

const fn number(path: &'static str) -> Key {
    Key { path, kind: KeyKind::Number, live: false }
}

const fn flag(path: &'static str) -> Key {
    Key { path, kind: KeyKind::Flag, live: false }
}

const fn list(path: &'static str) -> Key {
    Key { path, kind: KeyKind::List, live: false }
}
