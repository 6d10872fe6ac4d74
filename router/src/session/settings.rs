//! The run-time settings that a client has changed, and the way to bring a server to the same.

use std::collections::BTreeMap;

/// Settings by name in lower case; values as they are written after `SET name TO`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    values: BTreeMap<Box<str>, Box<str>>,
}

impl Settings {
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.values.insert(name.into(), value.into()),
            None => self.values.remove(name),
        };
    }

    pub fn clear(&mut self) {
        self.values.clear();
    }

    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(AsRef::as_ref)
    }

    /// SQL that turns a server with the settings `from` into one with these; empty if equal.
    #[must_use]
    pub fn change_from(&self, from: &Self) -> String {
        let mut sql = String::new();
        for name in from.values.keys().filter(|name| !self.values.contains_key(*name)) {
            sql.push_str(&format!("RESET {};", quoted_name(name)));
        }
        for (name, value) in &self.values {
            if from.values.get(name) != Some(value) {
                sql.push_str(&format!("SET {} TO {value};", quoted_name(name)));
            }
        }
        sql
    }

    /// `search_path` as a list of schemas; `"$user"` is replaced, `pg_catalog` stays if named.
    #[must_use]
    pub fn search_path(&self, user: &str) -> Vec<Box<str>> {
        let Some(value) = self.value("search_path") else {
            return vec![user.into(), "public".into()];
        };
        let value = value.trim();
        // `SET search_path TO 'a, b'` names one schema in SQL but a list in a startup packet,
        // which is how such values get here quoted: split inside the quotes as the server does
        // for a single string only when it came from there (see `startup_value`).
        split_names(value)
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
    let sql = if name == "search_path" {
        split_names(value).iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
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
            b.change_from(&a),
            "RESET \"work_mem\";SET \"app\".\"user\" TO 7;SET \"timezone\" TO 'Asia/Tokyo';"
        );
        assert_eq!(a.change_from(&a.clone()), "");
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
