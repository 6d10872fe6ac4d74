//! Why a statement goes where it goes, in sentences: which value of which column is on which shard,
//! or what is missing that all shards are asked.

use pgherd_planner::{
    KeyColumn, KeySource, KeyUse, ParamValue, Params, PlanError, ShardSet, Target,
};
use pgherd_shard_map::{GroupId, KeyType, ShardMap};

use crate::executor::Statement;

/// Of longer lists of keys only these are told.
const KEYS_SHOWN: usize = 10;

/// Of a key's value so many characters are.
const VALUE_SHOWN: usize = 60;

/// What a statement's keys are looked up in.
pub(super) struct Why<'a> {
    pub(super) map: &'a ShardMap,
    /// The distributed tables that the statement names.
    pub(super) tables: &'a [KeyColumn],
    pub(super) statement: Statement<'a>,
    pub(super) params: &'a dyn Params,
}

impl Why<'_> {
    /// Of a statement, or of a part of it that reads the table `only`.
    pub(super) fn of(
        &self,
        target: &Target,
        only: Option<&KeyColumn>,
    ) -> Result<Vec<String>, PlanError> {
        Ok(match target {
            Target::Home if self.tables.is_empty() => {
                vec!["it needs no distributed table, and the home shard has all the others".into()]
            }
            Target::Home => vec!["it runs on the home shard only".into()],
            Target::Any => {
                vec![
                    "every shard can answer it: it reads reference tables and constants only"
                        .into(),
                ]
            }
            Target::Shard(_) => vec!["pgherd.shard, or a hint in the statement, says so".into()],
            Target::All => match only {
                Some(table) => vec![missing(table)],
                None => self.tables.iter().map(missing).collect(),
            },
            Target::Keys { group, keys, why } => self.keys(*group, keys, *why, only)?,
        })
    }

    fn keys(
        &self,
        group: GroupId,
        keys: &[KeySource],
        why: KeyUse,
        only: Option<&KeyColumn>,
    ) -> Result<Vec<String>, PlanError> {
        let column = only.map_or_else(|| self.column(group), KeyColumn::to_string);
        if keys.is_empty() {
            return Ok(vec![format!("no value of {column} can pass its conditions")]);
        }
        let mut told = Vec::new();
        for key in keys.iter().take(KEYS_SHOWN) {
            let target = Target::Keys { group, keys: [key.clone()].into(), why };
            let (sql, literals) = (self.statement.sql.as_bytes(), self.statement.literals);
            let place = match target.resolve(self.map, sql, literals, self.params)? {
                ShardSet::Some(shards) if shards.len() == 1 => format!("is on shard {}", shards[0]),
                ShardSet::Some(shards) => {
                    let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
                    format!("is on shards {}", shards.join(", "))
                }
                ShardSet::Any => "can be no row's, so any shard's empty answer is right".to_owned(),
                ShardSet::Home | ShardSet::All => {
                    "may be on any shard: its value cannot be placed before it runs".to_owned()
                }
            };
            told.push(format!("{column} = {} {place}", self.value(group, key)));
        }
        if keys.len() > KEYS_SHOWN {
            told.push(format!("… and {} more values", keys.len() - KEYS_SHOWN));
        }
        Ok(told)
    }

    /// The key's column, as far as one name says it.
    fn column(&self, group: GroupId) -> String {
        let mut columns = self.tables.iter().filter(|table| table.group == group);
        let Some(first) = columns.next() else { return "the distribution column".to_owned() };
        match columns.clone().count() {
            0 => first.to_string(),
            _ if columns.all(|other| other.column == first.column) => first.column.to_string(),
            _ => "the distribution column".to_owned(),
        }
    }

    /// A key as it is written, and what is bound to it.
    fn value(&self, group: GroupId, key: &KeySource) -> String {
        match key {
            KeySource::Null => "NULL".to_owned(),
            KeySource::Literal { index, negative } => {
                let literal = self.statement.literals.get(*index as usize);
                let text = literal.and_then(|literal| {
                    self.statement.sql.get(literal.start as usize..literal.end as usize)
                });
                let sign = if *negative { "-" } else { "" };
                format!("{sign}{}", shortened(text.unwrap_or("?")))
            }
            KeySource::Param { number, .. } => format!("${number}{}", self.bound(group, *number)),
            KeySource::ParamArray { number, .. } => {
                format!("ANY (${number}){}", self.bound(group, *number))
            }
        }
    }

    fn bound(&self, group: GroupId, number: u16) -> String {
        // A type that the client leaves to the server is the key's.
        let key_type = self.map.group(group).map(|group| group.key_type);
        let integer = matches!(key_type, Some(KeyType::Int2 | KeyType::Int4 | KeyType::Int8));
        let value = self.params.param(number).and_then(|value| readable(&value, integer));
        value.map_or_else(String::new, |value| format!(" ({})", shortened(&value)))
    }
}

fn missing(table: &KeyColumn) -> String {
    format!("no condition fixes {table}, so its rows may be on any shard")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A bound value as text, where its form is known.
fn readable(value: &ParamValue<'_>, integer: bool) -> Option<String> {
    let Some(bytes) = value.bytes else { return Some("NULL".to_owned()) };
    let text = || std::str::from_utf8(bytes).ok().map(str::to_owned);
    match (value.binary, value.type_oid) {
        (false, _) | (true, 25 | 1042 | 1043) => text(),
        (true, oid) if matches!(oid, 20 | 21 | 23) || oid == 0 && integer => match *bytes {
            [a, b] => Some(i16::from_be_bytes([a, b]).to_string()),
            [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).to_string()),
            _ => Some(i64::from_be_bytes(bytes.try_into().ok()?).to_string()),
        },
        _ => None,
    }
}
