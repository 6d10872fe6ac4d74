//! Views over distributed tables: what a statement that names one means.
//!
//! A view is a *part* where each shard's rows of it are that shard's part of the whole: some columns
//! and rows of a table, tables joined on their keys, groups of the key. To planning such a view is a
//! distributed table, and the statement goes on naming it wherever it runs: whose rights hold, which
//! columns there are and which rows may be seen is what PostgreSQL says.
//!
//! Of any other view each shard has something else than a part. It is read *whole*: where PostgreSQL
//! runs the statement over copies (`borrow`), the view's own query stands in parentheses in the
//! place of its name.
//!
//! The query is read as a statement is. Its second witness is PostgreSQL, which says what it reads
//! and whether anything in it makes one row of several.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgherd_shard_map::{
    Column, ColumnDefault, RelationKind, Table, TableKind, TableName, View, quoted,
};

use crate::analyze::{Analysis, Scope, Whole};
use crate::borrow;
use crate::functions::{self, Nature};
use crate::query::{Distinct, From, Query, Select};
use crate::route::view_refused;
use crate::token::{Range, Tokens};
use crate::witness::{unread, witness};
use crate::{Borrow, Context, PlanError, Target, aggregate, ordered, scatter, windows};

/// Views in views: each level is read with a level of the stack.
const DEPTH_MAX: u32 = 16;

/// Views that name one view twice double the text with every level.
const TEXT_MAX: usize = 1 << 20;

/// A view that is as a distributed table.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The view's columns, and the one that is the key.
    pub(crate) table: Arc<Table>,
    /// Its rows come in an order.
    pub(crate) ordered: bool,
    /// UPDATE and DELETE change the rows of one table with the same keys.
    pub(crate) writable: bool,
    /// So does INSERT, and no shard would take a number from a sequence.
    pub(crate) takes_rows: bool,
}

/// What the views that a statement has led to are.
#[derive(Default)]
pub(crate) struct Parts {
    known: Vec<(TableName, Option<Part>)>,
    depth: u32,
}

/// `None`: it must be read whole.
pub(crate) fn part(view: &View, context: &Context<'_>, parts: &mut Parts) -> Option<Part> {
    if let Some((_, known)) = parts.known.iter().find(|(name, _)| *name == view.name) {
        return known.clone();
    }
    if parts.depth == DEPTH_MAX {
        return None;
    }
    let number = parts.known.len();
    // Until more is known: a view can be made to read itself.
    parts.known.push((view.name.clone(), None));
    parts.depth += 1;
    let part = read(view, &of_queries(context), parts);
    parts.depth -= 1;
    parts.known[number].1.clone_from(&part);
    part
}

impl Context<'_> {
    /// A distributed or reference table, or a view that is as one.
    pub(crate) fn spread(&self, parts: &[&str]) -> Option<Arc<Table>> {
        match self.relation(parts)?.1 {
            RelationKind::Sharded(table) => Some(Arc::clone(table)),
            RelationKind::View(view) => {
                part(view, self, &mut Parts::default()).map(|part| part.table)
            }
            _ => None,
        }
    }
}

/// Names in views' queries have their schemas with them.
fn of_queries<'a>(context: &Context<'a>) -> Context<'a> {
    Context { search_path: &[], temporary: &[], copies: &[], ..*context }
}

fn read(view: &View, context: &Context<'_>, parts: &mut Parts) -> Option<Part> {
    let tokens = Tokens::new(&view.body.query);
    tokens.check_limits().ok()?;
    let query = Query::read(&tokens, tokens.all()).ok()?;
    let plain = query.ctes.is_empty()
        && query.limit.is_none()
        && query.offset.is_none()
        && query.locks.is_none();
    if !plain || view.body.may_write {
        return None;
    }
    let mut named = BTreeSet::new();
    let part = if query.only_select().is_some() {
        Branch { view, context, tokens: &tokens, query: &query }.read(parts, &mut named)?
    } else {
        if !query.order.is_empty() {
            return None;
        }
        let mut all: Option<Part> = None;
        for range in union_all(&tokens)? {
            let tokens = Tokens::known(tokens.text(&range), context);
            let query = Query::read(&tokens, tokens.all()).ok()?;
            let branch = Branch { view, context, tokens: &tokens, query: &query };
            let part = branch.read(parts, &mut named)?;
            all = Some(match all {
                None => Part { writable: false, takes_rows: false, ..part },
                Some(before) => both(view, &before, &part)?,
            });
        }
        all?
    };
    let reads: BTreeSet<&TableName> = view.body.reads.iter().collect();
    (named.iter().collect::<BTreeSet<_>>() == reads).then_some(part)
}

/// The operands of UNION ALL, where there are no other set operations.
fn union_all(tokens: &Tokens<'_>) -> Option<Vec<Range>> {
    let mut operands = Vec::new();
    let mut start = 0;
    let operator = |at: usize| {
        tokens.is_any(at, &["union", "intersect", "except"]) && !tokens.sign(at - 1, ".")
    };
    while let Some(at) = tokens.find(&(start..tokens.len()), |at| at > 0 && operator(at)) {
        if !tokens.are(at, &["union", "all"]) {
            return None;
        }
        operands.push(start..at);
        start = at + 2;
    }
    operands.push(start..tokens.len());
    Some(operands)
}

/// Rows of both, which show the key in the same column or not at all.
fn both(view: &View, a: &Part, b: &Part) -> Option<Part> {
    let (
        TableKind::Distributed { key, key_type, group },
        TableKind::Distributed { key: other, group: its, .. },
    ) = (a.table.kind, b.table.kind)
    else {
        return None;
    };
    if group != its {
        return None;
    }
    let key = if key == other { key } else { view.columns.len() };
    let kind = TableKind::Distributed { key, key_type, group };
    let table = Table { name: view.name.clone(), kind, columns: view.columns.clone() };
    let ordered = a.ordered || b.ordered;
    Some(Part { table: Arc::new(table), ordered, writable: false, takes_rows: false })
}

/// A view's query, or an operand of it.
struct Branch<'a> {
    view: &'a View,
    context: &'a Context<'a>,
    tokens: &'a Tokens<'a>,
    query: &'a Query,
}

impl Branch<'_> {
    /// `named` gets the relations that it reads.
    fn read(&self, parts: &mut Parts, named: &mut BTreeSet<TableName>) -> Option<Part> {
        let Self { view, context, tokens, query } = self;
        let select = query.only_select()?;
        let mut analysis = Analysis { parts: std::mem::take(parts), ..Analysis::default() };
        let read = analysis.query(tokens, context, query, &Scope::default());
        *parts = std::mem::take(&mut analysis.parts);
        read.ok()?;
        analysis.settle();
        let known = analysis.view_read_whole().is_none()
            && analysis.home.is_empty()
            && !analysis.locks
            && !analysis.data_modifying_cte;
        if !known
            || select.items.len() != view.columns.len()
            || scatter::joins_stay(select, &analysis).is_err()
            || !self.rows_stay(select, &analysis)
        {
            return None;
        }
        named.extend(analysis.known.iter().map(|table| table.name.clone()));
        let is_key = |item: &Range| {
            ordered::is_key(tokens, select, &analysis, &aggregate::unlabelled(tokens, item))
        };
        let used = analysis.uses.first()?;
        let shown = select.items.iter().filter(|item| is_key(item)).count();
        let key = select.items.iter().position(is_key).unwrap_or(view.columns.len());
        let kind = TableKind::Distributed { key, key_type: used.key_type, group: used.group };
        let base = parts.known.iter().find(|(name, _)| *name == used.table.name);
        let base = base.and_then(|(_, base)| base.as_ref());
        let one = matches!(&*select.from, [From::Table { .. }]);
        let writable =
            view.body.updatable && one && shown <= 1 && base.is_none_or(|base| base.writable);
        let numbers = |column: &Column| matches!(column.default, ColumnDefault::Sequence(_));
        let takes_rows = writable
            && shown == 1
            && view.columns.iter().all(|column| column.default == ColumnDefault::None)
            && !used.table.columns.iter().any(numbers)
            && base.is_none_or(|base| base.takes_rows);
        let table = Table { name: view.name.clone(), kind, columns: view.columns.clone() };
        Some(Part {
            table: Arc::new(table),
            ordered: !query.order.is_empty() || analysis.ordered_view,
            writable,
            takes_rows,
        })
    }

    /// What makes one row of several finds all of these on one shard.
    fn rows_stay(&self, select: &Select, analysis: &Analysis) -> bool {
        let tokens = self.tokens;
        let is_key = |range: &Range| ordered::is_key(tokens, select, analysis, range);
        let grouped = select.group.is_some();
        let sets = select.group.iter().flatten();
        let sets = sets.filter(|range| tokens.is_any(range.start, &["rollup", "cube", "grouping"]));
        if sets.count() > 0
            || (grouped && !scatter::groups_stay(tokens, select, analysis))
            || (select.having.is_some() && !grouped)
        {
            return false;
        }
        let distinct = match select.distinct {
            Distinct::No => true,
            Distinct::Yes => scatter::rows_stay(tokens, select, analysis),
            Distinct::On => tokens.split(&select.on).iter().any(is_key),
        };
        if !distinct {
            return false;
        }
        let mut folds = false;
        for at in tokens.all() {
            let Some((nature, open)) = functions::called(tokens, at) else { continue };
            let own = is_own_function(self.view, tokens, at);
            let folding = match nature {
                Nature::Sequence => return false,
                Nature::Combined | Nature::OtherAggregate | Nature::Window => true,
                Nature::Unknown if own => self.view.body.folds,
                Nature::Unknown => return false,
                _ => false,
            };
            folds |= folding;
            // An aggregate in groups of the key, or a window function over partitions of it.
            let stays = match windows::over(tokens, open) {
                None => grouped,
                Some(over) => windows::stay(tokens, select, over, &is_key),
            };
            if folding && !stays {
                return false;
            }
        }
        folds || !self.view.body.folds
    }
}

/// Runs a SELECT over copies, with queries in the places of the views that must be read whole, and
/// of those whose rows have an order, which copies would lose.
pub(crate) fn borrow(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    why: String,
) -> Result<Borrow, PlanError> {
    // Then functions and operators in the queries could be others than PostgreSQL's own.
    if context.search_path.iter().skip(1).any(|schema| &**schema == "pg_catalog") {
        return Err(PlanError::unsupported(
            "this view cannot be read with pg_catalog behind other schemas in search_path",
            "Its query is run as a part of the statement.",
            "Put pg_catalog first in search_path, or leave it out.",
        ));
    }
    let client = names(tokens, context)?;
    let sql = expanded(tokens, context, &client, 0)?;
    let inner = Tokens::known(&sql, context);
    inner.check_limits()?;
    let read = if inner.balanced { inner.strip_parens(&inner.all()) } else { inner.all() };
    let query = Query::read(&inner, read).map_err(|_| unread(tokens))?;
    let mut analysis = Analysis::of_query(&inner, context, &query).map_err(|_| unread(tokens))?;
    analysis.stars_elsewhere = client.uses.is_empty();
    if let Some(name) = analysis.view_read_whole() {
        return Err(view_refused(name));
    }
    witness(&inner, context, &analysis, None)?;
    let mut borrow = borrow::plan(&inner, context, &analysis, why)?;
    for pull in &mut borrow.pulls {
        // Keys in the queries are none of the statement's literals.
        pull.target = Target::All;
    }
    let views: BTreeSet<TableName> =
        client.wholes.iter().map(|whole| whole.view.name.clone()).collect();
    borrow.views = views.into_iter().collect();
    Ok(borrow)
}

/// What a statement, or a view's query, names, where views whose rows have an order are whole.
fn names(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Analysis, PlanError> {
    let read = if tokens.balanced { tokens.strip_parens(&tokens.all()) } else { tokens.all() };
    let query = Query::read(tokens, read).map_err(|_| unread(tokens))?;
    let mut analysis = Analysis { keep_order: true, ..Analysis::default() };
    let read = analysis.query(tokens, context, &query, &Scope::default());
    read.map_err(|_| unread(tokens))?;
    match &analysis.view_over_distributed {
        Some(opaque) => Err(view_refused(opaque)),
        None => Ok(analysis),
    }
}

/// The text with the queries of whole views in it.
fn expanded(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    analysis: &Analysis,
    depth: u32,
) -> Result<String, PlanError> {
    let mut edits = Vec::new();
    let mut named: Vec<&TableName> = Vec::new();
    for whole in &analysis.wholes {
        let place = place(tokens, whole)?;
        let name = &whole.view.name;
        if whole.alias.is_none() && !named.contains(&name) {
            named.push(name);
            let same = analysis.wholes.iter().filter(|other| other.view.name == *name);
            let places: Vec<Range> = same.filter_map(|other| other.place.clone()).collect();
            edits.extend(borrow::without_schema(tokens, name, &places)?);
        }
        let query = whole_query(&whole.view, context, depth)?;
        let name = match &whole.alias {
            Some(_) => String::new(),
            None => format!(" AS {}", quoted(&whole.view.name.name)),
        };
        // `TABLE v`
        let bare = place.start > 0 && tokens.is(place.start - 1, "table");
        edits.push(match bare {
            true => {
                let bytes = tokens.bytes(&(place.start - 1..place.end));
                (bytes, format!("SELECT * FROM (\n{query}\n){name}"))
            }
            false => (tokens.bytes(&place), format!("(\n{query}\n){name}")),
        });
    }
    edits.sort_by_key(|(bytes, _)| bytes.start);
    let mut sql = String::with_capacity(tokens.sql.len());
    let mut from = 0;
    for (bytes, text) in &edits {
        sql.push_str(&tokens.sql[from..bytes.start]);
        sql.push_str(text);
        from = bytes.end;
        if sql.len() > TEXT_MAX {
            return Err(PlanError::new("54001", "the views' queries are too long together"));
        }
    }
    sql.push_str(&tokens.sql[from..]);
    Ok(sql)
}

fn whole_query(view: &View, context: &Context<'_>, depth: u32) -> Result<String, PlanError> {
    if view.body.row_security {
        return Err(PlanError::unsupported(
            format!("the view {} cannot be read over copies", view.name),
            "A table under it has row security, which would ask another user than the view's owner.",
            "Let GROUP BY, DISTINCT, PARTITION BY and joins in the view include the distribution \
             column.",
        ));
    }
    let query = view.body.query.trim_end().trim_end_matches(';');
    let tokens = Tokens::new(query);
    tokens.check_limits()?;
    refuse_writing(view, &tokens)?;
    let context = &of_queries(context);
    let analysis = names(&tokens, context)?;
    let known = analysis.known.iter().map(|table| table.name.to_string());
    let wholes = analysis.wholes.iter().map(|whole| whole.view.name.to_string());
    let named: BTreeSet<String> =
        known.chain(wholes).chain(analysis.home.iter().cloned()).collect();
    // Relations of PostgreSQL's own, whose names a statement could hide, are not among what it reads.
    let reads: BTreeSet<String> = view.body.reads.iter().map(TableName::to_string).collect();
    if named != reads || depth == DEPTH_MAX {
        return Err(view_refused(&view.name));
    }
    expanded(&tokens, context, &analysis, depth + 1)
}

/// The rows are made apart from the client's transaction.
fn refuse_writing(view: &View, tokens: &Tokens<'_>) -> Result<(), PlanError> {
    let could_write = |at: &usize| {
        // Not a function: refused for what it is.
        if *at > 0 && tokens.is(*at - 1, "tablesample") {
            return false;
        }
        let Some((nature, _)) = functions::called(tokens, *at) else { return false };
        match nature {
            Nature::Sequence => true,
            Nature::Unknown => view.body.may_write || !is_own_function(view, tokens, *at),
            _ => false,
        }
    };
    match tokens.all().find(could_write) {
        None => Ok(()),
        Some(at) if tokens.is(at, "operator") => Err(PlanError::unsupported(
            "operators of your own are not supported in a view that is read over copies",
            format!("The rows of {} are made of those of several shards.", view.name),
            "Write the condition where the view is read.",
        )),
        Some(at) => Err(PlanError::unsupported(
            format!(
                "the function {}() is not supported in a view that is read over copies",
                tokens.list[at].text
            ),
            format!(
                "The rows of {} are made of those of several shards; it could write.",
                view.name
            ),
            "Call it where the view is read, or declare a function of your own as STABLE or \
             IMMUTABLE if it is.",
        )),
    }
}

/// What is called here is one of the functions that are not PostgreSQL's own.
fn is_own_function(view: &View, tokens: &Tokens<'_>, at: usize) -> bool {
    view.body.functions.iter().any(|own| Some(&**own) == tokens.name(at))
}

/// Where the view's name stands.
fn place(tokens: &Tokens<'_>, whole: &Whole) -> Result<Range, PlanError> {
    let name = &whole.view.name;
    let certain = |place: &Range| !whole.part && !tokens.sign(place.end, "*");
    whole.place.clone().filter(certain).ok_or_else(|| {
        PlanError::unsupported(
            "ONLY is not supported for this view",
            format!("The query of {name} is read in the place of its name."),
            "Leave ONLY out: a view has no children.",
        )
    })
}
