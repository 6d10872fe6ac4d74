//! What a statement reads: names resolved through search_path and map, and for each distributed
//! table what its key is known to equal.
//!
//! A *pin* says: rows of this table whose key is none of these values cannot change the answer. An
//! *edge* says: such a statement about one table holds for the other as well, because their keys
//! must be equal. Pins come only from top-level conjuncts of WHERE and of join conditions, edges
//! only from `a.key = b.key` there; a conjunct counts only if all its tokens fit the pattern.

use std::sync::Arc;

use pgherd_shard_map::{GroupId, KeyType, RelationKind, Table, TableKind, TableName};

use crate::query::{Body, From, JoinKind, JoinOn, Query, Select, Unread, starts_query};
use crate::token::{Kind, Range, Tokens};
use crate::{Context, KeySource, LiteralKind};

/// A distributed table in a FROM list (or the target of UPDATE and DELETE).
pub(crate) struct Use {
    pub(crate) table: Arc<Table>,
    pub(crate) group: GroupId,
    pub(crate) key: usize,
    pub(crate) key_type: KeyType,
    pub(crate) odd: bool,
    /// Where a FROM list names it, and what it is called there.
    pub(crate) place: Option<Range>,
    pub(crate) alias: Option<String>,
    pub(crate) pins: Vec<KeySource>,
    /// One equality with one value: not IN, not ANY, not several conjuncts.
    pub(crate) pinned: bool,
}

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
    merged: Vec<(String, usize)>,
    outer: Option<Box<Self>>,
    ctes: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Analysis {
    pub(crate) uses: Vec<Use>,
    /// Pins flow from the first to the second.
    pub(crate) edges: Vec<(usize, usize)>,
    pub(crate) references: usize,
    pub(crate) home: Vec<String>,
    pub(crate) view_over_distributed: Option<TableName>,
    pub(crate) views: usize,
    pub(crate) data_modifying_cte: bool,
    pub(crate) into: bool,
    pub(crate) locks: bool,
    pub(crate) blocks: usize,
    /// Tables whose columns are known.
    pub(crate) known: Vec<Arc<Table>>,
    /// Names of columns with a collation of their own.
    pub(crate) collated: Vec<Box<str>>,
}

impl Context<'_> {
    /// What a name in a statement is; `None` for what the map does not list.
    pub(crate) fn relation(&self, parts: &[&str]) -> Option<(TableName, &RelationKind)> {
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

    pub(crate) fn sharded(&self, parts: &[&str]) -> Option<&Arc<Table>> {
        match self.relation(parts)?.1 {
            RelationKind::Sharded(table) => Some(table),
            _ => None,
        }
    }

    /// The first name in the tokens that could be a sharded table or a view over one.
    pub(crate) fn may_name_sharded(&self, tokens: &Tokens<'_>, range: &Range) -> Option<TableName> {
        let mut at = range.start;
        while at < range.end {
            let Some((parts, after)) = tokens.qualified(at) else {
                at += 1;
                continue;
            };
            // `schema.table.column` may be a column: every prefix counts.
            for length in 1..=parts.len().min(3) {
                if let Some((name, kind)) = self.relation(&parts[..length])
                    && !matches!(kind, RelationKind::Home)
                {
                    return Some(name);
                }
            }
            at = after;
        }
        None
    }
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
            From::Table { parts, place, alias, odd } => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let item = self.table(context, &parts, alias.as_deref(), *odd, scope)?;
                if let Some(used) = scope.items[item].used {
                    self.uses[used].place = Some(place.clone());
                    self.uses[used].alias.clone_from(alias);
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
            Some((_, RelationKind::Sharded(table))) => {
                item.table = (!odd).then(|| table.clone());
                self.known.push(table.clone());
                let own = table.columns.iter().filter(|c| c.collation.is_some());
                self.collated.extend(own.map(|c| c.name.clone()));
                match table.kind {
                    TableKind::Distributed { key, key_type, group } => {
                        item.used = Some(self.uses.len());
                        let table = table.clone();
                        let pins = Vec::new();
                        self.uses.push(Use {
                            table,
                            group,
                            key,
                            key_type,
                            odd,
                            place: None,
                            alias: None,
                            pins,
                            pinned: false,
                        });
                    }
                    TableKind::Reference => self.references += 1,
                }
            }
            Some((name, RelationKind::ViewOverDistributed)) => {
                self.view_over_distributed = Some(name);
            }
            Some((name, RelationKind::ViewOverReference)) => {
                self.views += 1;
                self.home.push(name.to_string());
            }
            Some((name, RelationKind::Home)) => self.home.push(name.to_string()),
            None => self.home.push(parts.join(".")),
        }
        scope.items.push(item);
        Ok(scope.items.len() - 1)
    }

    fn merge(
        &mut self,
        scope: &mut Scope,
        left: &[usize],
        right: &[usize],
        kind: JoinKind,
        column: &str,
        side: &Side,
    ) {
        let owner = |scope: &Scope, items: &[usize]| {
            let mut owners = items.iter().copied().filter(|i| scope.items[*i].has(column));
            let unknown = items.iter().any(|i| scope.items[*i].table.is_none());
            match (owners.next(), owners.next()) {
                (Some(one), None) if !unknown => Some(one),
                _ => None,
            }
        };
        // USING again over a merged column: the side's own merged owner.
        let known = scope.merged.iter().find(|(name, _)| name == column).map(|(_, at)| *at);
        let left = known.filter(|at| left.contains(at)).or_else(|| owner(scope, left));
        let right = owner(scope, right);
        let (Some(left), Some(right)) = (left, right) else { return };
        let preserved = if kind == JoinKind::Right { right } else { left };
        scope.merged.retain(|(name, _)| name != column);
        if kind != JoinKind::Full {
            scope.merged.push((column.to_owned(), preserved));
        }
        if let (Some(a), Some(b)) =
            (self.key_of(scope, left, column), self.key_of(scope, right, column))
        {
            self.edge(a, b, side);
        }
    }

    fn key_of(&self, scope: &Scope, item: usize, column: &str) -> Option<usize> {
        let used = scope.items[item].used?;
        let u = &self.uses[used];
        (!u.odd && &*u.table.columns[u.key].name == column).then_some(used)
    }

    fn edge(&mut self, a: usize, b: usize, side: &Side) {
        if self.uses[a].group != self.uses[b].group {
            return;
        }
        match side {
            Side::Both => self.edges.extend([(a, b), (b, a)]),
            Side::To(from, to) => {
                for (x, y) in [(a, b), (b, a)] {
                    if from.contains(&x) && to.contains(&y) {
                        self.edges.push((x, y));
                    }
                }
            }
            Side::Neither => {}
        }
    }

    /// Top-level AND parts of a condition.
    pub(crate) fn conjuncts(
        &mut self,
        tokens: &Tokens<'_>,
        scope: &Scope,
        range: &Range,
        side: &Side,
    ) {
        for part in split_and(tokens, range) {
            let inner = tokens.strip_parens(&part);
            if inner != part && !starts_query(tokens, inner.start) {
                self.conjuncts(tokens, scope, &inner, side);
            } else {
                self.conjunct(tokens, scope, &part, side);
            }
        }
    }

    fn conjunct(&mut self, tokens: &Tokens<'_>, scope: &Scope, range: &Range, side: &Side) {
        let Some(equal) = tokens.find(range, |at| tokens.sign(at, "=")) else {
            self.in_list(tokens, scope, range, side);
            return;
        };
        let left = tokens.strip_parens(&(range.start..equal));
        let right = tokens.strip_parens(&(equal + 1..range.end));
        match (self.column(tokens, scope, &left), self.column(tokens, scope, &right)) {
            (Some((a, depth_a)), Some((b, depth_b))) => match (depth_a, depth_b) {
                (0, 0) => self.edge(a, b, side),
                // Correlated: the outer row's key restricts this block's table.
                (0, _) if *side == Side::Both => self.outer_edge(b, a),
                (_, 0) if *side == Side::Both => self.outer_edge(a, b),
                _ => {}
            },
            (Some((used, 0)), None) => self.pin(tokens, used, &right, side),
            (None, Some((used, 0))) => self.pin(tokens, used, &left, side),
            _ => {}
        }
    }

    fn outer_edge(&mut self, outer: usize, inner: usize) {
        if self.uses[outer].group == self.uses[inner].group {
            self.edges.push((outer, inner));
        }
    }

    fn in_list(&mut self, tokens: &Tokens<'_>, scope: &Scope, range: &Range, side: &Side) {
        let Some(word) = tokens.find(range, |at| tokens.is(at, "in")) else { return };
        let list = word + 1..range.end;
        if tokens.kind(word + 1) != Some(Kind::Open)
            || tokens.list[word + 1].close + 1 != range.end
            || starts_query(tokens, word + 1)
        {
            return;
        }
        let column = tokens.strip_parens(&(range.start..word));
        let Some((used, 0)) = self.column(tokens, scope, &column) else { return };
        let inside = list.start + 1..list.end - 1;
        let key_type = self.uses[used].key_type;
        let values: Option<Vec<_>> =
            tokens.split(&inside).iter().map(|v| value(tokens, v, key_type)).collect();
        if let Some(values) = values {
            self.add_pin(used, values, side);
        }
    }

    fn pin(&mut self, tokens: &Tokens<'_>, used: usize, range: &Range, side: &Side) {
        let key_type = self.uses[used].key_type;
        if let Some(value) = value(tokens, range, key_type) {
            self.add_pin(used, vec![value], side);
            return;
        }
        if tokens.is_any(range.start, &["any", "some"])
            && tokens.kind(range.start + 1) == Some(Kind::Open)
            && tokens.list[range.start + 1].close + 1 == range.end
        {
            let inside = tokens.strip_parens(&(range.start + 1..range.end));
            if let Some(values) = array(tokens, &inside, key_type) {
                self.add_pin(used, values, side);
            }
        }
    }

    fn add_pin(&mut self, used: usize, values: Vec<KeySource>, side: &Side) {
        let allowed = match side {
            Side::Both => true,
            // ON of an outer join restricts the rows of the side that may be missing.
            Side::To(_, to) => to.contains(&used),
            Side::Neither => false,
        };
        let u = &mut self.uses[used];
        // Every conjunct must hold: any one of them is enough, the shortest is best.
        if allowed && !u.odd && (!u.pinned || values.len() < u.pins.len()) {
            u.pins = values;
            u.pinned = true;
        }
    }

    /// A column that is the key of a distributed table: its use, and how many queries outwards.
    pub(crate) fn column(
        &self,
        tokens: &Tokens<'_>,
        scope: &Scope,
        range: &Range,
    ) -> Option<(usize, usize)> {
        let (parts, after) = tokens.qualified(range.start)?;
        if after != range.end {
            return None;
        }
        let mut level = Some(scope);
        let mut depth = 0;
        while let Some(this) = level {
            match this.item(&parts) {
                Found::Item(at) => {
                    return self.key_of(this, at, parts.last()?).map(|used| (used, depth));
                }
                Found::Unknown => return None,
                Found::Outside => {}
            }
            level = this.outer.as_deref();
            depth += 1;
        }
        None
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
                let query = Query::read(tokens, inside)?;
                self.query(tokens, context, &query, scope)?;
                at = tokens.after(at);
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

    /// Lets pins flow along edges until nothing changes.
    pub(crate) fn settle(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for at in 0..self.edges.len() {
                let (from, to) = self.edges[at];
                if self.uses[from].pinned && !self.uses[to].pinned {
                    self.uses[to].pins = self.uses[from].pins.clone();
                    self.uses[to].pinned = true;
                    changed = true;
                }
            }
        }
    }

    pub(crate) fn sharded(&self) -> usize {
        self.uses.len() + self.references
    }
}

/// Which way a join condition restricts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Side {
    /// WHERE and inner joins.
    Both,
    /// Outer join: from the uses of the side that is kept to those of the other.
    To(Vec<usize>, Vec<usize>),
    Neither,
}

enum Found {
    Item(usize),
    Unknown,
    Outside,
}

impl Item {
    fn has(&self, column: &str) -> bool {
        self.table.as_ref().is_some_and(|t| t.columns.iter().any(|c| &*c.name == column))
    }
}

impl Scope {
    fn unknown(&mut self, alias: Option<&str>) -> usize {
        let alias = alias.unwrap_or_default().to_owned();
        self.items.push(Item { alias, used: None, table: None });
        self.items.len() - 1
    }

    fn uses_of(&self, items: &[usize]) -> Vec<usize> {
        items.iter().filter_map(|i| self.items[*i].used).collect()
    }

    fn item(&self, parts: &[&str]) -> Found {
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

impl Item {
    fn is_table(&self, schema: &str) -> bool {
        self.table
            .as_ref()
            .is_some_and(|t| &*t.name.schema == schema && *t.name.name == *self.alias)
    }
}

/// The parts of a condition that must all hold. Where an OR stands outside of parentheses there is
/// but one part; the AND of BETWEEN and those inside CASE do not count.
pub(crate) fn split_and(tokens: &Tokens<'_>, range: &Range) -> Vec<Range> {
    let mut parts = Vec::new();
    let mut start = range.start;
    let mut case = 0_u32;
    let mut between = 0_u32;
    let mut at = range.start;
    while at < range.end {
        if at > range.start && tokens.sign(at - 1, ".") {
            at = tokens.after(at);
            continue;
        }
        match tokens.word(at) {
            Some("case") => case += 1,
            Some("end") => case = case.saturating_sub(1),
            Some("between") if case == 0 => between += 1,
            Some("or") if case == 0 => return vec![range.clone()],
            Some("and") if case == 0 && between > 0 => between -= 1,
            Some("and") if case == 0 => {
                parts.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
        at = tokens.after(at);
    }
    parts.push(start..range.end);
    parts
}

/// A literal or parameter that a key of this type may equal, with a sign or a harmless cast.
pub(crate) fn value(tokens: &Tokens<'_>, range: &Range, key_type: KeyType) -> Option<KeySource> {
    let range = tokens.strip_parens(range);
    let (mut inner, mut cast) = (range.clone(), None);
    if let Some(at) = tokens.find(&range, |at| tokens.sign(at, "::")) {
        cast = Some(tokens.text(&(at + 1..range.end)).to_ascii_lowercase());
        inner = tokens.strip_parens(&(range.start..at));
    } else if tokens.is(range.start, "cast")
        && tokens.kind(range.start + 1) == Some(Kind::Open)
        && tokens.list[range.start + 1].close + 1 == range.end
    {
        let inside = range.start + 2..range.end - 1;
        let at = tokens.find(&inside, |at| tokens.is(at, "as"))?;
        cast = Some(tokens.text(&(at + 1..inside.end)).to_ascii_lowercase());
        inner = tokens.strip_parens(&(inside.start..at));
    } else if range.len() == 2 && tokens.word(range.start).is_some() {
        // date '2025-01-01'
        cast = tokens.word(range.start).map(str::to_owned);
        inner = range.start + 1..range.end;
        if !matches!(tokens.kind(inner.start), Some(Kind::Literal { .. })) {
            return None;
        }
    }
    let oid = match &cast {
        Some(name) => cast_oid(name, key_type)?,
        None => 0,
    };
    let negative = inner.len() == 2 && tokens.sign(inner.start, "-");
    if negative {
        // `-1::int` is -(1::int): the same for every type that keys have.
        inner.start += 1;
    }
    if inner.len() != 1 {
        return None;
    }
    match tokens.kind(inner.start)? {
        Kind::Literal { kind, index } => fits(kind, key_type, negative, cast.is_some())
            .then_some(KeySource::Literal { index, negative }),
        Kind::Param(number) if !negative => Some(KeySource::Param { number, cast_oid: oid }),
        Kind::Word if !negative && tokens.is(inner.start, "null") => Some(KeySource::Null),
        _ => None,
    }
}

fn fits(kind: LiteralKind, key_type: KeyType, negative: bool, _cast: bool) -> bool {
    let integer = matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
    match kind {
        LiteralKind::Integer => integer || key_type == KeyType::Numeric,
        LiteralKind::Decimal => key_type == KeyType::Numeric,
        LiteralKind::String | LiteralKind::EscapeString | LiteralKind::DollarString => !negative,
        LiteralKind::OtherString => false,
    }
}

/// `ARRAY[…]`, `$n`, each with a cast: the elements of `= ANY (…)`.
fn array(tokens: &Tokens<'_>, range: &Range, key_type: KeyType) -> Option<Vec<KeySource>> {
    let (mut inner, mut oid) = (range.clone(), 0);
    if let Some(at) = tokens.find(range, |at| tokens.sign(at, "::")) {
        let name = tokens.text(&(at + 1..range.end)).to_ascii_lowercase();
        let element = name.trim_end().strip_suffix("[]")?;
        oid = array_oid(cast_oid(element, key_type)?)?;
        inner = tokens.strip_parens(&(range.start..at));
    }
    if inner.len() == 1
        && let Some(Kind::Param(number)) = tokens.kind(inner.start)
    {
        return Some(vec![KeySource::ParamArray { number, cast_oid: oid }]);
    }
    if tokens.is(inner.start, "array")
        && tokens.sign(inner.start + 1, "[")
        && tokens.list[inner.start + 1].close + 1 == inner.end
    {
        let inside = inner.start + 2..inner.end - 1;
        return tokens.split(&inside).iter().map(|v| value(tokens, v, key_type)).collect();
    }
    None
}

/// The OID of a cast's type, if comparing the cast value with the key compares what was written.
fn cast_oid(name: &str, key_type: KeyType) -> Option<u32> {
    let (oid, same) = match name.trim() {
        "int" | "int4" | "integer" => (23, is_integer(key_type)),
        "int8" | "bigint" => (20, is_integer(key_type)),
        "int2" | "smallint" => (21, is_integer(key_type)),
        "text" => (25, matches!(key_type, KeyType::Text | KeyType::Varchar)),
        "varchar" | "character varying" => {
            (1043, matches!(key_type, KeyType::Text | KeyType::Varchar))
        }
        "uuid" => (2950, key_type == KeyType::Uuid),
        "date" => (1082, key_type == KeyType::Date),
        "time" | "time without time zone" => (1083, key_type == KeyType::Time),
        "timestamp" | "timestamp without time zone" => (1114, key_type == KeyType::Timestamp),
        "timestamptz" | "timestamp with time zone" => (1184, key_type == KeyType::Timestamptz),
        "numeric" | "decimal" => (1700, key_type == KeyType::Numeric),
        "bytea" => (17, key_type == KeyType::Bytea),
        "bool" | "boolean" => (16, key_type == KeyType::Bool),
        "inet" => (869, key_type == KeyType::Inet),
        _ => return None,
    };
    same.then_some(oid)
}

fn is_integer(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
}

fn array_oid(element: u32) -> Option<u32> {
    Some(match element {
        21 => 1005,
        23 => 1007,
        20 => 1016,
        25 => 1009,
        1043 => 1015,
        2950 => 2951,
        1082 => 1182,
        1083 => 1183,
        1114 => 1115,
        1184 => 1185,
        1700 => 1231,
        17 => 1001,
        16 => 1000,
        869 => 1041,
        _ => return None,
    })
}
