//! What a statement reads: names resolved through search_path and map, and for each distributed
//! table what its key is known to equal.
//!
//! A *pin* says: rows of this table whose key is none of these values cannot change the answer. An
//! *edge* says: such a statement about one table holds for the other as well, because their keys
//! must be equal. The statement is walked here; `names` says what a name means, `pins` what a
//! condition says, `key_value` which literal or parameter stands for a key.

mod key_value;
mod names;
mod pins;

use std::sync::Arc;

use pgherd_shard_map::{GroupId, KeyType, RelationKind, Table, TableKind, TableName, View};

pub(crate) use key_value::value;
use names::Item;
pub(crate) use names::Scope;
pub(crate) use pins::{Side, split_and};

use crate::query::{Body, From, JoinKind, JoinOn, Query, Select, Unread, starts_query};
use crate::token::{Kind, Range, Tokens};
use crate::view::{self, Parts};
use crate::{Context, KeySource};

/// A distributed table in a FROM list (or the target of UPDATE and DELETE), or a view of which
/// each shard has its part.
pub(crate) struct Use {
    pub(crate) table: Arc<Table>,
    pub(crate) group: GroupId,
    pub(crate) key_type: KeyType,
    /// Its columns are called otherwise here.
    pub(crate) odd: bool,
    /// ONLY or TABLESAMPLE: not all of its rows are meant.
    pub(crate) part: bool,
    /// Where a FROM list names it, and what it is called there.
    pub(crate) place: Option<Range>,
    pub(crate) alias: Option<String>,
    pub(crate) pins: Vec<KeySource>,
    /// One equality with one value: not IN, not ANY, not several conjuncts.
    pub(crate) pinned: bool,
}

impl Use {
    /// The distribution column; a view may not show it.
    pub(crate) fn key_name(&self) -> Option<&str> {
        self.table.key_column().map(|column| &*column.name)
    }
}

/// A relation of the home shard in a FROM list.
pub(crate) struct HomeUse {
    pub(crate) place: Range,
    pub(crate) alias: Option<String>,
    pub(crate) odd: bool,
}

/// A view that no shard has a part of: its rows are made of those of several shards together.
pub(crate) struct Whole {
    pub(crate) view: Arc<View>,
    /// As in [`Use`].
    pub(crate) place: Option<Range>,
    pub(crate) alias: Option<String>,
    /// ONLY, TABLESAMPLE.
    pub(crate) part: bool,
}

#[derive(Default)]
pub(crate) struct Analysis {
    pub(crate) uses: Vec<Use>,
    /// Pins flow from the first to the second.
    pub(crate) edges: Vec<(usize, usize)>,
    /// `key IN (SELECT …)` among the conditions: the parenthesis, and whose key it is.
    pub(crate) matched: Vec<(usize, usize)>,
    pub(crate) references: usize,
    /// ONLY or TABLESAMPLE of a reference table, which each shard would choose for itself.
    pub(crate) part_of_reference: bool,
    pub(crate) home: Vec<String>,
    /// Those of `home` that stand in a FROM list.
    pub(crate) home_uses: Vec<HomeUse>,
    /// One whose query is not known.
    pub(crate) view_over_distributed: Option<TableName>,
    pub(crate) wholes: Vec<Whole>,
    /// A view's query has an ORDER BY, and so its rows an order.
    pub(crate) ordered_view: bool,
    /// Such a view is read whole.
    pub(crate) keep_order: bool,
    /// A `*` means the columns of other things than `uses`.
    pub(crate) stars_elsewhere: bool,
    /// What the views that were met are.
    pub(crate) parts: Parts,
    pub(crate) data_modifying_cte: bool,
    pub(crate) into: bool,
    pub(crate) locks: bool,
    pub(crate) blocks: usize,
    /// Tables whose columns are known.
    pub(crate) known: Vec<Arc<Table>>,
    /// Names of columns with a collation of their own.
    pub(crate) collated: Vec<Box<str>>,
}

impl Analysis {
    pub(crate) fn of_query(
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        query: &Query,
    ) -> Result<Self, Unread> {
        let mut analysis = Self::default();
        analysis.query(tokens, context, query, &Scope::default())?;
        analysis.settle();
        Ok(analysis)
    }

    pub(crate) fn query(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        query: &Query,
        outer: &Scope,
    ) -> Result<(), Unread> {
        self.read_query(tokens, context, query, outer).map(drop)
    }

    /// With the scope of the query's last block, for its columns.
    pub(crate) fn query_with_scope(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        query: &Query,
    ) -> Result<Scope, Unread> {
        self.read_query(tokens, context, query, &Scope::default())
    }

    fn read_query(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        query: &Query,
        outer: &Scope,
    ) -> Result<Scope, Unread> {
        let mut scope = outer.clone();
        if query.recursive {
            scope.ctes.extend(query.ctes.iter().map(|cte| cte.name.clone()));
        }
        for cte in &query.ctes {
            match &cte.query {
                Some(inner) => self.query(tokens, context, inner, &scope)?,
                None => {
                    self.data_modifying_cte = true;
                    self.words(tokens, context, &cte.range);
                }
            }
            scope.ctes.push(cte.name.clone());
        }
        self.locks |= query.locks.is_some();
        let mut inner = scope.clone();
        for body in &query.body {
            match body {
                Body::Select(select) => inner = self.select(tokens, context, select, &scope)?,
                Body::Values(range) => self.expression(tokens, context, range, &scope)?,
                Body::Nested(nested) => self.query(tokens, context, nested, &scope)?,
            }
        }
        for part in query.order.iter().chain(&query.limit).chain(&query.offset) {
            self.expression(tokens, context, part, &inner)?;
        }
        Ok(inner)
    }

    fn select(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        select: &Select,
        outer: &Scope,
    ) -> Result<Scope, Unread> {
        self.blocks += 1;
        self.into |= select.into;
        let mut scope = Scope {
            items: Vec::new(),
            merged: Vec::new(),
            outer: Some(Box::new(outer.clone())),
            ctes: outer.ctes.clone(),
        };
        let mut conditions = Vec::new();
        for item in &select.from {
            self.from(tokens, context, item, &mut scope, &mut conditions)?;
        }
        self.conditions(tokens, context, &scope, &conditions)?;
        if let Some(filter) = &select.filter {
            self.conjuncts(tokens, &scope, filter, &Side::Both);
            self.expression(tokens, context, filter, &scope)?;
        }
        let rest = select.items.iter().chain(select.group.iter().flatten()).chain(&select.having);
        for part in rest {
            self.expression(tokens, context, part, &scope)?;
        }
        Ok(scope)
    }

    /// Join conditions, once all items of the FROM list are known.
    pub(crate) fn conditions(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        scope: &Scope,
        conditions: &[(Range, Side)],
    ) -> Result<(), Unread> {
        for (range, side) in conditions {
            self.conjuncts(tokens, scope, range, side);
            self.expression(tokens, context, range, scope)?;
        }
        Ok(())
    }

    /// Adds the items of one FROM item to the scope and returns their numbers.
    pub(crate) fn from(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        item: &From,
        scope: &mut Scope,
        conditions: &mut Vec<(Range, Side)>,
    ) -> Result<Vec<usize>, Unread> {
        match item {
            From::Table { parts, place, alias, odd, part } => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let (wholes, home) = (self.wholes.len(), self.home.len());
                let item = self.table(context, &parts, alias.as_deref(), *odd, scope)?;
                if let Some(used) = scope.items[item].used {
                    self.uses[used].place = Some(place.clone());
                    self.uses[used].alias.clone_from(alias);
                    self.uses[used].part = *part;
                } else if self.wholes.len() > wholes
                    && let Some(whole) = self.wholes.last_mut()
                {
                    whole.place = Some(place.clone());
                    whole.alias.clone_from(alias);
                    whole.part = *part;
                } else if self.home.len() > home {
                    let (place, alias) = (place.clone(), alias.clone());
                    self.home_uses.push(HomeUse { place, alias, odd: *odd || *part });
                } else {
                    self.part_of_reference |= part;
                }
                Ok(vec![item])
            }
            From::Subquery { query, alias, lateral } => {
                let visible = match lateral {
                    true => scope.clone(),
                    false => scope.outer.as_deref().cloned().unwrap_or_default(),
                };
                let visible = Scope { ctes: scope.ctes.clone(), ..visible };
                self.query(tokens, context, query, &visible)?;
                Ok(vec![scope.unknown(alias.as_deref())])
            }
            From::Function { range, alias } => {
                let visible = scope.clone();
                self.expression(tokens, context, range, &visible)?;
                Ok(vec![scope.unknown(alias.as_deref())])
            }
            From::Join { left, right, kind, on } => {
                let mut left = self.from(tokens, context, left, scope, conditions)?;
                let right = self.from(tokens, context, right, scope, conditions)?;
                let side = match kind {
                    JoinKind::Inner => Side::Both,
                    JoinKind::Left => Side::To(scope.uses_of(&left), scope.uses_of(&right)),
                    JoinKind::Right => Side::To(scope.uses_of(&right), scope.uses_of(&left)),
                    JoinKind::Full => Side::Neither,
                };
                match on {
                    JoinOn::Condition(range) => conditions.push((range.clone(), side)),
                    JoinOn::Using(columns) => {
                        for column in columns {
                            self.merge(scope, &left, &right, *kind, column, &side);
                        }
                    }
                    JoinOn::Natural | JoinOn::Nothing => {}
                }
                left.extend(right);
                Ok(left)
            }
        }
    }

    pub(crate) fn table(
        &mut self,
        context: &Context<'_>,
        parts: &[&str],
        alias: Option<&str>,
        odd: bool,
        scope: &mut Scope,
    ) -> Result<usize, Unread> {
        let last = parts.last().copied().unwrap_or_default();
        let name = alias.unwrap_or(last).to_owned();
        if let [single] = parts
            && scope.ctes.iter().any(|cte| cte == single)
        {
            return Ok(scope.unknown(Some(&name)));
        }
        let mut item = Item { alias: name, used: None, table: None };
        match context.relation(parts) {
            Some((_, RelationKind::Sharded(table))) => self.sharded_table(table, odd, &mut item),
            Some((_, RelationKind::View(view))) => {
                match view::part(view, context, &mut self.parts) {
                    Some(part) if !(part.ordered && self.keep_order) => {
                        self.ordered_view |= part.ordered;
                        self.sharded_table(&part.table, odd, &mut item);
                    }
                    _ => {
                        let view = Arc::clone(view);
                        self.wholes.push(Whole { view, place: None, alias: None, part: false });
                    }
                }
            }
            Some((name, RelationKind::ViewOverDistributed)) => {
                self.view_over_distributed = Some(name);
            }
            Some((name, RelationKind::ViewOverReference | RelationKind::Home)) => {
                self.home.push(name.to_string());
            }
            None => self.home.push(parts.join(".")),
        }
        scope.items.push(item);
        Ok(scope.items.len() - 1)
    }

    fn sharded_table(&mut self, table: &Arc<Table>, odd: bool, item: &mut Item) {
        item.table = (!odd).then(|| Arc::clone(table));
        self.known.push(Arc::clone(table));
        let own = table.columns.iter().filter(|c| c.collation.is_some());
        self.collated.extend(own.map(|c| c.name.clone()));
        match table.kind {
            TableKind::Distributed { key_type, group, .. } => {
                item.used = Some(self.uses.len());
                self.uses.push(Use {
                    table: Arc::clone(table),
                    group,
                    key_type,
                    odd,
                    part: false,
                    place: None,
                    alias: None,
                    pins: Vec::new(),
                    pinned: false,
                });
            }
            TableKind::Reference => self.references += 1,
        }
    }

    /// Subqueries anywhere in an expression.
    pub(crate) fn expression(
        &mut self,
        tokens: &Tokens<'_>,
        context: &Context<'_>,
        range: &Range,
        scope: &Scope,
    ) -> Result<(), Unread> {
        let mut at = range.start;
        while at < range.end {
            if tokens.kind(at) == Some(Kind::Open) && starts_query(tokens, at + 1) {
                let inside = at + 1..tokens.list[at].close;
                match Query::read(tokens, inside) {
                    Ok(query) => {
                        let inner = self.read_query(tokens, context, &query, scope)?;
                        self.match_key(tokens, at, &query, &inner);
                        at = tokens.after(at);
                    }
                    // `((SELECT 1), 2)` is a row.
                    Err(Unread) if tokens.kind(at + 1) == Some(Kind::Open) => at += 1,
                    Err(Unread) => return Err(Unread),
                }
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Names in tokens whose structure is not read: enough to know that they are there.
    pub(crate) fn words(&mut self, tokens: &Tokens<'_>, context: &Context<'_>, range: &Range) {
        if let Some(name) = context.may_name_sharded(tokens, range) {
            let _ =
                self.table(context, &[&name.schema, &name.name], None, true, &mut Scope::default());
        }
    }

    /// A view that no shard has a part of.
    pub(crate) fn view_read_whole(&self) -> Option<&TableName> {
        let whole = self.wholes.first().map(|whole| &whole.view.name);
        self.view_over_distributed.as_ref().or(whole)
    }

    pub(crate) fn sharded(&self) -> usize {
        self.uses.len() + self.references
    }
}
