//! Several shards and one answer: what each of them runs, and how their answers are made into one.

use pgherd_shard_map::{GroupId, TableName, quoted};

use super::{KeySource, Target};

/// Several shards, one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ManyShards {
    pub target: Target,
    /// The text that every shard gets; `None` is the statement's own, untouched.
    pub sql: Option<Box<str>>,
    pub merge: Merge,
}

impl ManyShards {
    /// The same with a WITH clause before what the shards run.
    #[must_use]
    pub fn with(&self, clause: &str) -> Self {
        let mut many = self.clone();
        let put = |text: &mut Box<str>| *text = format!("{clause}{text}").into();
        many.sql.iter_mut().for_each(put);
        match &mut many.merge {
            Merge::Ordered(ordered) => put(&mut ordered.text[0]),
            Merge::Combine(combine) => put(&mut combine.head),
            _ => {}
        }
        many
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Merge {
    /// Every shard does the same and the client sees one answer, the home shard's (or that of the
    /// first shard): DDL, writes to reference tables, SET. Tags must agree.
    Same,
    /// As [`Merge::Same`], but only inside a transaction block: LOCK TABLE.
    SameInBlock,
    /// As [`Merge::Same`], but the home shard alone fills the new table: the others get this text.
    HomeFills { elsewhere: Box<str> },
    /// As [`Merge::Same`], but on each shard outside any transaction block: VACUUM,
    /// CREATE INDEX CONCURRENTLY. Refused inside one, as PostgreSQL does.
    EachAlone(Alone),
    /// As [`Merge::Same`], and then the rows get numbers that no two shards give.
    Numbered(Numbering),
    /// UPDATE and DELETE: counts are added up, RETURNING rows follow each other.
    Sum,
    /// As [`Merge::Sum`], and then rows whose new keys are other shards' go there.
    Rekeyed(Rekey),
    /// Rows in any order, as they arrive; the count in the tag is that of the rows sent on.
    Concat { limit: Limit },
    /// Each shard's rows are in order; merge them.
    Ordered(Ordered),
    /// Collect the shards' partial rows (bounded) and let PostgreSQL finish on one shard.
    Combine(Combine),
}

/// What a statement leaves behind that has run on some shards only, and what its repetition finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alone {
    /// Nothing: it can be run again anywhere.
    Again,
    /// What is done is done; the others are to follow.
    Rest,
    /// An index, which is not valid where it failed. The table as it is written.
    Index { name: Box<str>, table: Box<str> },
    /// The same, where PostgreSQL chooses its name.
    Unnamed(Box<UnnamedIndex>),
    /// An index that is gone, or still there. Its name as it is written.
    NoIndex { name: Box<str> },
}

/// `CREATE INDEX CONCURRENTLY ON table …`, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnnamedIndex {
    /// `CREATE [UNIQUE] INDEX`, then with CONCURRENTLY.
    pub verb: Box<str>,
    pub head: Box<str>,
    /// From ON to the end.
    pub tail: Box<str>,
    /// The table as it is written, its name alone, and what follows.
    pub table: Box<str>,
    pub name: Box<str>,
    pub rest: Box<str>,
}

/// New columns of a distributed table that sequences fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbering {
    pub table: TableName,
    pub columns: Box<[Box<str>]>,
}

/// An UPDATE that sets the distribution column.
#[derive(Debug, Clone, PartialEq)]
pub struct Rekey {
    pub table: TableName,
    pub group: GroupId,
    /// The column's place in the table, from 0.
    pub key: u16,
    /// What every row gets, where that is one value.
    pub to: Option<KeySource>,
}

/// LIMIT and OFFSET, applied by the router after the merge. Shards get `LIMIT count + offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub count: Option<RowCount>,
    pub offset: Option<RowCount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowCount {
    Rows(u64),
    /// `$n`, from 1; a NULL means no limit (no offset).
    Param(u16),
}

/// Each shard sorts, and sends what it has sorted by in columns before the client's own; the router
/// merges the rows as they arrive, in bounded memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// The shards' first columns, which the client does not see. Compared in turn.
    pub keys: Box<[SortKey]>,
    /// Of rows that are equal in so many first keys the first one only; 0 keeps all.
    pub distinct: u16,
    /// How many columns the client gets, where `keys` were made from what the map knows of them.
    pub width: Option<u16>,
    pub limit: Limit,
    /// FETCH … WITH TIES: rows that are equal to the last one follow.
    pub ties: bool,
    /// The shards' statement around the keys: `SELECT DISTINCT `, then the client's columns up to
    /// the end of HAVING, then LIMIT and FOR UPDATE.
    pub text: [Box<str>; 3],
    /// Where the client gets all keys as columns of its own: their names. Rows are then sorted as
    /// the client's, and the keys put in front of what is sorted, so that nothing is sorted twice
    /// as wide as it is.
    pub selected: Option<Box<[Box<str>]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    pub expression: Box<str>,
    pub descending: bool,
    pub nulls_first: bool,
    /// Its collation, where that is not the database's default one.
    pub collation: Option<Box<str>>,
    /// The client did not ask for this order, so that any order of its values will do.
    pub free: bool,
}

impl Ordered {
    /// What each shard runs. Free keys that are `text` may be sorted by bytes, which the router can
    /// compare: `bytewise` says which keys are.
    #[must_use]
    pub fn shard_query(&self, bytewise: impl Fn(usize) -> bool) -> String {
        let [head, body, tail] = &self.text;
        let order = self.order(|number, _| (number + 1).to_string());
        if let Some(names) = &self.selected {
            let keys: Vec<String> =
                names.iter().map(|name| format!("pgherd_sorted.{}", quoted(name))).collect();
            let inner = self.order(|_, key| key.expression.to_string());
            return format!(
                "SELECT {}, pgherd_sorted.* FROM ({head}{body} ORDER BY {inner}{tail}) AS \
                 pgherd_sorted ORDER BY {order}",
                keys.join(", ")
            );
        }
        let keys = self.keys.iter().enumerate().map(|(number, key)| match bytewise(number) {
            true => format!("({}) COLLATE \"C\"", key.expression),
            false => key.expression.to_string(),
        });
        let keys: Vec<String> = keys.collect();
        let comma = if body.starts_with(' ') { "" } else { ", " };
        format!("{head}{}{comma}{body} ORDER BY {order}{tail}", keys.join(", "))
    }

    /// What stands behind ORDER BY, with these names for the keys.
    fn order(&self, name: impl Fn(usize, &SortKey) -> String) -> String {
        let items = self.keys.iter().enumerate().map(|(number, key)| {
            let direction = if key.descending { " DESC" } else { "" };
            let nulls = match (key.nulls_first == key.descending, key.nulls_first) {
                (true, _) => "",
                (false, true) => " NULLS FIRST",
                (false, false) => " NULLS LAST",
            };
            format!("{}{direction}{nulls}", name(number, key))
        });
        items.collect::<Vec<String>>().join(", ")
    }
}

/// The shards' rows become arrays, and one shard runs the final statement over them:
/// `SELECT … FROM unnest($1::T0[], $2::T1[], …) AS pgherd_partial(c0, c1, …) …`. So averages, text
/// order and HAVING are PostgreSQL's own. Where the router can compare the groups and add up what the
/// shards send, they send their groups in order, and the arrays hold each group once, a part of
/// them at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Combine {
    /// What the rows are grouped by: the first partial columns.
    pub groups: Box<[Box<str>]>,
    /// How the other partial columns of one group are added up.
    pub sums: Box<[PartialSum]>,
    /// The final statement.
    pub statement: Box<[Piece]>,
    /// It has to see all groups at once: ORDER BY, LIMIT, DISTINCT.
    pub whole: bool,
    /// The partial columns that are the client's as they are, once each group is there only once:
    /// nothing is left to be computed.
    pub direct: Option<Box<[u16]>>,
    /// What stands before the shards' SELECT.
    pub head: Box<str>,
    /// The shards' statement around the groups: the other columns up to the end of WHERE, and what
    /// follows GROUP BY.
    pub text: [Box<str>; 2],
}

/// Of which aggregate a partial column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartialSum {
    /// A count or a sum.
    Sum,
    Min,
    Max,
    And,
    Or,
    /// Only its type counts.
    Any,
}

impl Combine {
    /// How many columns each partial row has: `c0`, `c1`, …
    #[must_use]
    pub fn columns(&self) -> usize {
        self.groups.len() + self.sums.len()
    }

    /// What each shard runs. With `bytewise` the groups come in order, those for which it says so
    /// in the order of their bytes.
    #[must_use]
    pub fn shard_query(&self, bytewise: Option<&dyn Fn(usize) -> bool>) -> String {
        let [body, tail] = &self.text;
        let groups = self.groups.iter().enumerate().map(|(number, group)| {
            match bytewise.is_some_and(|bytewise| bytewise(number)) {
                true => format!("({group}) COLLATE \"C\""),
                false => group.to_string(),
            }
        });
        let places = (1..=self.groups.len()).map(|place| place.to_string());
        let places = places.collect::<Vec<String>>().join(", ");
        let by = match (self.groups.is_empty(), bytewise) {
            (true, _) => String::new(),
            (false, None) => format!(" GROUP BY {places}"),
            (false, Some(_)) => format!(" GROUP BY {places} ORDER BY {places}"),
        };
        let groups = groups.collect::<Vec<String>>().join(", ");
        let comma = if groups.is_empty() || self.sums.is_empty() { "" } else { ", " };
        format!("{}SELECT {groups}{comma}{body}{by}{tail}", self.head)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(Box<str>),
    /// Here comes `unnest(…) AS pgherd_partial(…)`.
    Source,
    /// Here comes the SQL name of the type that partial column n has on the shards.
    TypeOf(u16),
    /// Here comes the value of `$n` (from 1) as a literal.
    Param(u16),
}
