//! What a key type is called in SQL, and the expressions that compute its hash there.
//!
//! All of them are immutable and built in, so that a publication's row filter accepts them; the
//! enum's is not, since its output function is only stable.

use super::KeyType;

impl KeyType {
    /// From what `format_type` prints, with or without a length or precision, and `enum` for any
    /// enum; `None` for a type that cannot distribute a table.
    #[must_use]
    pub fn from_type_name(name: &str) -> Option<Self> {
        let without_length = match (name.find('('), name.rfind(')')) {
            (Some(open), Some(close)) if open < close => {
                format!("{}{}", &name[..open], &name[close + 1..])
            }
            _ => name.to_owned(),
        };
        Some(match without_length.trim() {
            "smallint" => Self::Int2,
            "integer" => Self::Int4,
            "bigint" => Self::Int8,
            "text" => Self::Text,
            "character varying" => Self::Varchar,
            "character" | "bpchar" => Self::Bpchar,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time without time zone" => Self::Time,
            "timestamp without time zone" => Self::Timestamp,
            "timestamp with time zone" => Self::Timestamptz,
            "numeric" => Self::Numeric,
            "bytea" => Self::Bytea,
            "boolean" => Self::Bool,
            "inet" => Self::Inet,
            "enum" => Self::Enum,
            _ => return None,
        })
    }

    /// As SQL calls it: what [`Self::from_type_name`] reads.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Text => "text",
            Self::Varchar => "character varying",
            Self::Bpchar => "character",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Time => "time without time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::Timestamptz => "timestamp with time zone",
            Self::Numeric => "numeric",
            Self::Bytea => "bytea",
            Self::Bool => "boolean",
            Self::Inet => "inet",
            Self::Enum => "enum",
        }
    }

    /// The type's OID; 0 for enums, whose OIDs differ from server to server.
    #[must_use]
    pub const fn oid(self) -> u32 {
        match self {
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Text => 25,
            Self::Varchar => 1043,
            Self::Bpchar => 1042,
            Self::Uuid => 2950,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Numeric => 1700,
            Self::Bytea => 17,
            Self::Bool => 16,
            Self::Inet => 869,
            Self::Enum => 0,
        }
    }

    /// Whether the order of values is computed here as on the server, so that ranges of values can
    /// place rows. Text is ordered by its bytes, as under the collation C.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Inet | Self::Enum)
    }

    /// SQL that computes the hash on a server; NULL for NULL. `column` is quoted already.
    #[must_use]
    pub fn hash_expression(self, column: &str) -> Option<String> {
        Some(match self {
            Self::Int2 | Self::Int4 | Self::Int8 => {
                format!("pg_catalog.hashint8extended(({column})::pg_catalog.int8, 0)")
            }
            Self::Text | Self::Varchar | Self::Enum => {
                format!("pg_catalog.hashtextextended(({column})::pg_catalog.text, 0)")
            }
            Self::Bpchar => {
                format!("pg_catalog.hashbpcharextended(({column})::pg_catalog.bpchar, 0)")
            }
            Self::Uuid => format!("pg_catalog.uuid_hash_extended({column}, 0)"),
            Self::Time => format!("pg_catalog.time_hash_extended({column}, 0)"),
            Self::Timestamp => format!("pg_catalog.timestamp_hash_extended({column}, 0)"),
            // The cast between the two types looks at the session's zone; this does not.
            Self::Timestamptz => format!(
                "pg_catalog.timestamp_hash_extended(pg_catalog.timezone('UTC', {column}), 0)"
            ),
            Self::Numeric => format!("pg_catalog.hash_numeric_extended({column}, 0)"),
            Self::Bool => {
                format!("pg_catalog.hashint4extended(({column})::pg_catalog.int4, 0)")
            }
            Self::Inet => format!("pg_catalog.hashinetextended({column}, 0)"),
            // No function of their own can be called for these; a row of one column has the hash
            // of that column.
            Self::Date | Self::Bytea => format!(
                "CASE WHEN ({column}) IS NOT NULL \
                 THEN pg_catalog.hash_record_extended(ROW({column}), 0) END"
            ),
        })
    }

    /// The column as values are compared with it: see [`Self::literal`].
    pub(crate) fn comparable(self, column: &str) -> String {
        match self {
            Self::Text | Self::Varchar | Self::Bpchar => {
                format!("({column})::pg_catalog.text COLLATE pg_catalog.\"C\"")
            }
            Self::Enum => format!("({column})::pg_catalog.text"),
            _ => column.to_owned(),
        }
    }

    /// A value of the catalog as an SQL constant, to stand beside [`Self::comparable`].
    pub(crate) fn literal(self, value: &str) -> String {
        let type_name = match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Text | Self::Varchar | Self::Bpchar | Self::Enum => "text",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Numeric => "numeric",
            Self::Bytea => "bytea",
            Self::Bool => "bool",
            Self::Inet => "inet",
        };
        let value = value.replace('\'', "''");
        // Right whatever standard_conforming_strings says.
        if value.contains('\\') {
            format!(" E'{}'::pg_catalog.{type_name}", value.replace('\\', "\\\\"))
        } else {
            format!("'{value}'::pg_catalog.{type_name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_known_by_its_name() {
        use KeyType::*;
        for key_type in [
            Int2,
            Int4,
            Int8,
            Text,
            Varchar,
            Bpchar,
            Uuid,
            Date,
            Time,
            Timestamp,
            Timestamptz,
            Numeric,
            Bytea,
            Bool,
            Inet,
            Enum,
        ] {
            assert_eq!(KeyType::from_type_name(key_type.type_name()), Some(key_type));
        }
    }
}
