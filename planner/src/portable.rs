//! Types of PostgreSQL's own: number and binary form are the same on every server. Those of users
//! have numbers of their own on each, which arrays and composites carry.

/// A type that values may keep their binary form of, from one server to another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Portable {
    /// As `format_type` prints it, without what stands in parentheses.
    printed: &'static str,
    /// In `pg_catalog`.
    pub(crate) name: &'static str,
    pub(crate) oid: u32,
    /// Equal values have equal bytes.
    pub(crate) exact: bool,
}

const fn exact(printed: &'static str, name: &'static str, oid: u32) -> Portable {
    Portable { printed, name, oid, exact: true }
}

const fn loose(printed: &'static str, name: &'static str, oid: u32) -> Portable {
    Portable { printed, name, oid, exact: false }
}

const ALL: &[Portable] = &[
    exact("smallint", "int2", 21),
    exact("integer", "int4", 23),
    exact("bigint", "int8", 20),
    loose("numeric", "numeric", 1700),
    loose("real", "float4", 700),
    loose("double precision", "float8", 701),
    exact("text", "text", 25),
    loose("character", "bpchar", 1042),
    exact("character varying", "varchar", 1043),
    exact("boolean", "bool", 16),
    exact("bytea", "bytea", 17),
    exact("uuid", "uuid", 2950),
    exact("date", "date", 1082),
    exact("time without time zone", "time", 1083),
    exact("timestamp without time zone", "timestamp", 1114),
    exact("timestamp with time zone", "timestamptz", 1184),
    loose("interval", "interval", 1186),
    loose("json", "json", 114),
    loose("jsonb", "jsonb", 3802),
    loose("inet", "inet", 869),
    loose("cidr", "cidr", 650),
];

/// The type that `format_type` has printed, and what stood in parentheses, with them.
pub(crate) fn find(type_name: &str) -> Option<(&'static Portable, &str)> {
    let (printed, modifiers) = match (type_name.find('('), type_name.find(')')) {
        (Some(open), Some(close)) => {
            let printed = format!("{}{}", &type_name[..open], &type_name[close + 1..]);
            (std::borrow::Cow::Owned(printed), &type_name[open..=close])
        }
        _ => (std::borrow::Cow::Borrowed(type_name), ""),
    };
    ALL.iter().find(|portable| portable.printed == printed).map(|portable| (portable, modifiers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_as_they_are_printed() {
        let found = |printed: &'static str| find(printed).map(|(found, rest)| (found.name, rest));
        assert_eq!(found("integer"), Some(("int4", "")));
        assert_eq!(found("numeric(12,2)"), Some(("numeric", "(12,2)")));
        assert_eq!(found("timestamp(3) without time zone"), Some(("timestamp", "(3)")));
        assert_eq!(found("character(4)"), Some(("bpchar", "(4)")));
        assert_eq!(found("time with time zone"), None);
        assert_eq!(found("integer[]"), None);
        assert_eq!(found("mood"), None);
    }
}
