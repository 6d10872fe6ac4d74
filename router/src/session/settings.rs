//! The run-time settings that a client has changed, and the way to bring a server to the same.

use std::collections::BTreeMap;

/// PostgreSQL's default.
pub const SEARCH_PATH: &str = "\"$user\", public";

/// What the router does itself: a pooled server is idle for other reasons than its client.
pub const IDLE_SESSION_TIMEOUT: &str = "idle_session_timeout";

/// Of the client's texts.
pub const ENCODING: &str = "client_encoding";

/// Whom the session acts as. The first one's change ends the second.
const WHO: [&str; 2] = ["session_authorization", "role"];

/// Settings that the router reads itself, and what PostgreSQL has for them: a role or database may
/// have values of its own.
pub const READ_HERE: [(&str, &str); 12] = [
    ("search_path", SEARCH_PATH),
    ("role", "none"),
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "0"),
    ("extra_float_digits", "1"),
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("pgherd.shard", ""),
    ("pgherd.scatter", ""),
    ("pgherd.multi_shard_commit", ""),
    ("pgherd.read_consistency", ""),
    ("pgherd.read_preference", ""),
];

/// Settings by name in lower case; values as they are written after `SET name TO`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    values: BTreeMap<Box<str>, Box<str>>,
}

impl Settings {
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        if name == WHO[0] {
            self.values.remove(WHO[1]);
        }
        match value {
            Some(value) => self.values.insert(name.into(), value.into()),
            None => self.values.remove(name),
        };
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// These, and of `other` what is not among them.
    pub fn add_missing(&mut self, other: &Self) {
        for (name, value) in &other.values {
            self.values.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// All but whom the session acts as, and what the router does itself.
    pub fn plain(&self) -> impl Iterator<Item = (&str, &str)> {
        let plain = |name: &str| !WHO.contains(&name) && name != IDLE_SESSION_TIMEOUT;
        let values = self.values.iter().map(|(name, value)| (&**name, &**value));
        values.filter(move |(name, _)| plain(name))
    }

    /// As RESET ALL: whom the session acts as stays.
    pub fn clear(&mut self) {
        self.values.retain(|name, _| WHO.contains(&&**name));
    }

    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(AsRef::as_ref)
    }

    /// The value of a setting that is one word or one string, without its quotes.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| value.trim_matches('\''))
    }

    /// SQL that turns a server with the settings `from` into one with these: first its encoding,
    /// in which the rest is sent then. Both are empty if these are equal.
    #[must_use]
    pub fn change_from(&self, from: &Self) -> [String; 2] {
        let differs = self.value(ENCODING) != from.value(ENCODING);
        let encoding = if differs { self.statement(ENCODING) } else { String::new() };
        [encoding, self.change_of_others(from)]
    }

    /// [`Self::change_from`] but for the encoding.
    ///
    /// Whom the session acts as comes first where it ends and last where it begins: what only the
    /// login may set is set as the login.
    fn change_of_others(&self, from: &Self) -> String {
        let who_differs = WHO.iter().any(|name| self.value(name) != from.value(name));
        let mut sql = String::new();
        if who_differs {
            for name in WHO.iter().rev().filter(|name| from.values.contains_key(**name)) {
                sql.push_str(&format!("RESET {name};"));
            }
        }
        let plain =
            |name: &str| !WHO.contains(&name) && name != IDLE_SESSION_TIMEOUT && name != ENCODING;
        for name in from.values.keys().filter(|name| !self.values.contains_key(*name)) {
            if plain(name) {
                sql.push_str(&self.statement(name));
            }
        }
        for (name, value) in &self.values {
            if plain(name) && from.values.get(name) != Some(value) {
                sql.push_str(&self.statement(name));
            }
        }
        if who_differs {
            for name in WHO.iter().filter(|name| self.values.contains_key(**name)) {
                sql.push_str(&self.statement(name));
            }
        }
        sql
    }

    /// The statement that gives a server this one setting, with its semicolon.
    ///
    /// Without a value of its own a session has the server's default, but for search_path: there
    /// it has PostgreSQL's, so that names are found on all servers as the planner found them.
    #[must_use]
    pub fn statement(&self, name: &str) -> String {
        match self.value(name) {
            Some(value) => format!("SET {} TO {value};", quoted_name(name)),
            None if name == "search_path" => format!("SET search_path TO {SEARCH_PATH};"),
            None => format!("RESET {};", quoted_name(name)),
        }
    }

    /// Whom the session acts as, where that is not the login: `"$user"` is that role.
    #[must_use]
    pub fn acting_as(&self) -> Option<String> {
        let role = self.value("role").map(|value| split_names(value).concat());
        role.filter(|role| role != "none").or_else(|| {
            self.value("session_authorization").map(|value| split_names(value).concat())
        })
    }

    /// `search_path` as a list of schemas; `"$user"` is replaced, `pg_catalog` stays if named.
    #[must_use]
    pub fn search_path(&self, user: &str) -> Vec<Box<str>> {
        let acting = self.acting_as();
        let user = acting.as_deref().unwrap_or(user);
        split_names(self.value("search_path").unwrap_or(SEARCH_PATH))
            .into_iter()
            .map(|name| if name == "$user" { user.to_owned() } else { name })
            .map(String::into_boxed_str)
            .collect()
    }
}

/// Splits `a, "B c", 'd'` into names, folding what is not quoted.
fn split_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quote = None;
    for c in list.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => name.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == ',' => names.push(std::mem::take(&mut name)),
            None if c.is_whitespace() => {}
            None => name.extend(c.to_lowercase()),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// A setting's name as SQL: `a.b` stays two parts.
fn quoted_name(name: &str) -> String {
    name.split('.')
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect::<Vec<_>>()
        .join(".")
}

/// A value of a startup packet as it is written after `SET name TO`.
#[must_use]
pub fn startup_value(name: &str, value: &str) -> Box<str> {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let sql = if matches!(name, "search_path" | "temp_tablespaces") {
        match split_names(value) {
            names if names.is_empty() => quote(""),
            names => names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", "),
        }
    } else {
        quote(value)
    };
    sql.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_brought_from_one_state_to_another() {
        let mut a = Settings::default();
        a.set("timezone", Some("'UTC'"));
        a.set("work_mem", Some("'1MB'"));
        let mut b = Settings::default();
        b.set("timezone", Some("'Asia/Tokyo'"));
        b.set("app.user", Some("7"));
        assert_eq!(
            b.change_from(&a).concat(),
            "RESET \"work_mem\";SET \"app\".\"user\" TO 7;SET \"timezone\" TO 'Asia/Tokyo';"
        );
        assert_eq!(a.change_from(&a.clone()).concat(), "");
        b.set(ENCODING, Some("'LATIN1'"));
        assert_eq!(b.change_from(&a)[0], "SET \"client_encoding\" TO 'LATIN1';");
        assert_eq!(a.change_from(&b)[0], "RESET \"client_encoding\";");
    }

    #[test]
    fn a_role_is_left_before_and_taken_after_everything_else() {
        let mut a = Settings::default();
        a.set("role", Some("clerk"));
        a.set("search_path", Some("a"));
        let mut b = Settings::default();
        b.set("session_authorization", Some("ada"));
        b.set("role", Some("boss"));
        b.set("work_mem", Some("'1MB'"));
        assert_eq!(
            b.change_from(&a).concat(),
            "RESET role;SET search_path TO \"$user\", public;SET \"work_mem\" TO '1MB';\
             SET \"session_authorization\" TO ada;SET \"role\" TO boss;"
        );
        b.clear();
        assert_eq!(b.value("role"), Some("boss"), "RESET ALL leaves it");
        assert_eq!(&*b.search_path("login")[0], "boss");
        b.set("session_authorization", Some("eve"));
        assert_eq!(b.value("role"), None);
    }

    #[test]
    fn search_path_is_read_as_postgres_reads_it() {
        let mut settings = Settings::default();
        settings.set("search_path", Some("\"$user\", App, \"Mixed Case\""));
        let path: Vec<_> = settings.search_path("ada").iter().map(ToString::to_string).collect();
        assert_eq!(path, ["ada", "app", "Mixed Case"]);
        assert_eq!(&*startup_value("search_path", "a, b"), "'a', 'b'");
    }
}
