//! What names in a statement mean: relations through search_path and map, columns through the
//! items of the FROM lists around them.

use std::sync::Arc;

use pgherd_shard_map::{RelationKind, Table, TableKind, TableName};

use crate::Context;
use crate::temporary::is_temporary_schema;
use crate::token::{Range, Tokens};

/// An item of a FROM list that has a name.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) alias: String,
    /// Number in [`Analysis::uses`].
    pub(crate) used: Option<usize>,
    /// `None`: columns are not known (home tables, subqueries, functions).
    pub(crate) table: Option<Arc<Table>>,
}

#[derive(Clone, Default)]
pub(crate) struct Scope {
    pub(crate) items: Vec<Item>,
    /// Columns merged by USING, and the item whose column it is.
    pub(super) merged: Vec<(String, usize)>,
    pub(super) outer: Option<Box<Self>>,
    pub(super) ctes: Vec<String>,
}

pub(super) enum Found {
    Item(usize),
    Unknown,
    Outside,
}

impl Context<'_> {
    /// What a name in a statement is; `None` for what the map does not list.
    pub(crate) fn relation(&self, parts: &[&str]) -> Option<(TableName, &RelationKind)> {
        if let [name] = parts
            && let Some((known, kind)) = self.copies.iter().find(|(known, _)| *known.name == **name)
        {
            return Some((known.clone(), kind));
        }
        match parts {
            [name] if self.is_temporary(name) => None,
            [name] => self.search_path.iter().find_map(|schema| {
                let name = TableName::new(schema, name);
                self.map.relation(&name).map(|kind| (name, kind))
            }),
            [schema, name] | [_, schema, name] => {
                let name = TableName::new(schema, name);
                self.map.relation(&name).map(|kind| (name, kind))
            }
            _ => None,
        }
    }

    pub(crate) fn is_temporary(&self, name: &str) -> bool {
        self.temporary.iter().any(|temporary| **temporary == *name)
    }

    /// The name is that of a relation in the session's temporary schema.
    pub(crate) fn names_temporary(&self, parts: &[&str]) -> bool {
        match parts {
            [name] => self.is_temporary(name),
            [schema, _] => is_temporary_schema(schema),
            _ => false,
        }
    }

    pub(crate) fn sharded(&self, parts: &[&str]) -> Option<&Arc<Table>> {
        match self.relation(parts)?.1 {
            RelationKind::Sharded(table) => Some(table),
            _ => None,
        }
    }

    /// The first name in the tokens that could be a sharded table or a view over one.
    pub(crate) fn may_name_sharded(&self, tokens: &Tokens<'_>, range: &Range) -> Option<TableName> {
        self.may_name(tokens, range, |kind| !matches!(kind, RelationKind::Home))
    }

    /// Whether a name in the tokens could be that of something whose rows one shard has not all.
    pub(crate) fn may_name_distributed(&self, tokens: &Tokens<'_>, range: &Range) -> bool {
        let distributed = |kind: &RelationKind| match kind {
            RelationKind::Sharded(table) => matches!(table.kind, TableKind::Distributed { .. }),
            RelationKind::View(_) | RelationKind::ViewOverDistributed => true,
            RelationKind::Home | RelationKind::ViewOverReference => false,
        };
        self.may_name(tokens, range, distributed).is_some()
    }

    fn may_name(
        &self,
        tokens: &Tokens<'_>,
        range: &Range,
        wanted: impl Fn(&RelationKind) -> bool,
    ) -> Option<TableName> {
        let mut at = range.start;
        while at < range.end {
            let Some((parts, after)) = tokens.qualified(at) else {
                at += 1;
                continue;
            };
            // `schema.table.column` may be a column: every prefix counts.
            for length in 1..=parts.len().min(3) {
                if let Some((name, kind)) = self.relation(&parts[..length])
                    && wanted(kind)
                {
                    return Some(name);
                }
            }
            at = after;
        }
        None
    }
}

impl Item {
    pub(super) fn has(&self, column: &str) -> bool {
        self.table.as_ref().is_some_and(|t| t.columns.iter().any(|c| &*c.name == column))
    }
    fn is_table(&self, schema: &str) -> bool {
        self.table
            .as_ref()
            .is_some_and(|t| &*t.name.schema == schema && *t.name.name == *self.alias)
    }
}

impl Scope {
    pub(crate) fn add_ctes(&mut self, names: impl IntoIterator<Item = String>) {
        self.ctes.extend(names);
    }

    pub(crate) fn names_cte(&self, name: &str) -> bool {
        self.ctes.iter().any(|cte| cte == name)
    }

    pub(super) fn unknown(&mut self, alias: Option<&str>) -> usize {
        let alias = alias.unwrap_or_default().to_owned();
        self.items.push(Item { alias, used: None, table: None });
        self.items.len() - 1
    }

    pub(super) fn uses_of(&self, items: &[usize]) -> Vec<usize> {
        items.iter().filter_map(|i| self.items[*i].used).collect()
    }

    pub(super) fn item(&self, parts: &[&str]) -> Found {
        match parts {
            [column] => {
                if let Some((_, at)) = self.merged.iter().find(|(name, _)| name == column) {
                    return Found::Item(*at);
                }
                let mut owners = (0..self.items.len()).filter(|i| self.items[*i].has(column));
                match (owners.next(), owners.next()) {
                    // Were it also a column of an unknown item, PostgreSQL would call it ambiguous.
                    (Some(at), None) => Found::Item(at),
                    (Some(_), Some(_)) => Found::Unknown,
                    _ if self.items.iter().any(|item| item.table.is_none()) => Found::Unknown,
                    _ => Found::Outside,
                }
            }
            [alias, _] | [_, alias, _] => {
                let mut items = (0..self.items.len()).filter(|i| self.items[*i].alias == **alias);
                match (items.next(), items.next()) {
                    (Some(at), None) if parts.len() == 2 || self.items[at].is_table(parts[0]) => {
                        Found::Item(at)
                    }
                    (None, _) => Found::Outside,
                    _ => Found::Unknown,
                }
            }
            _ => Found::Unknown,
        }
    }
}
