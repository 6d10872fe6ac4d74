//! What conditions say of keys: pins, edges, and how pins flow along edges.
//!
//! Pins come only from top-level conjuncts of WHERE and of join conditions, edges only from
//! `a.key = b.key` there; a conjunct counts only if all its tokens fit the pattern.

use super::Analysis;
use super::key_value::{array, value};
use super::names::{Found, Scope};
use crate::KeySource;
use crate::query::{Distinct, JoinKind, Query, starts_query};
use crate::token::{Kind, Range, Tokens};

/// Which way a join condition restricts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Side {
    /// WHERE and inner joins.
    Both,
    /// Outer join: from the uses of the side that is kept to those of the other.
    To(Vec<usize>, Vec<usize>),
    Neither,
}

impl Analysis {
    pub(super) fn merge(
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
        (!u.odd && u.key_name() == Some(column)).then_some(used)
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
        if tokens.kind(word + 1) != Some(Kind::Open) || tokens.list[word + 1].close + 1 != range.end
        {
            return;
        }
        let column = tokens.strip_parens(&(range.start..word));
        let Some((used, 0)) = self.column(tokens, scope, &column) else { return };
        if starts_query(tokens, word + 1) {
            if *side == Side::Both {
                self.matched.push((word + 1, used));
            }
            return;
        }
        let inside = list.start + 1..list.end - 1;
        let key_type = self.uses[used].key_type;
        let values: Option<Vec<_>> =
            tokens.split(&inside).iter().map(|v| value(tokens, v, key_type)).collect();
        if let Some(values) = values {
            self.add_pin(used, values, side);
        }
    }

    /// `key IN (SELECT other_key …)`, once the subquery at this parenthesis has been read: rows of
    /// other keys give it other values, if each of its rows is made of one row's key.
    pub(super) fn match_key(
        &mut self,
        tokens: &Tokens<'_>,
        open: usize,
        query: &Query,
        scope: &Scope,
    ) {
        let matched = self.matched.iter().find(|(at, _)| *at == open);
        let (Some((_, outer)), Some(select)) = (matched.copied(), query.only_select()) else {
            return;
        };
        let [item] = select.items.as_slice() else { return };
        let cut = query.limit.is_some() || query.offset.is_some();
        // With or without a name of its own.
        let Some((_, end)) = tokens.qualified(item.start) else { return };
        let plain = match item.end.saturating_sub(end) {
            0 => true,
            1 => tokens.name(end).is_some(),
            rest => rest == 2 && tokens.is(end, "as"),
        };
        let Some((inner, 0)) = self.column(tokens, scope, &(item.start..end)) else { return };
        if !plain || cut || select.distinct == Distinct::On {
            return;
        }
        let mut groups = select.group.iter().flatten();
        let grouped = select.group.is_some() || select.having.is_some();
        if !grouped || groups.any(|group| self.column(tokens, scope, group) == Some((inner, 0))) {
            self.outer_edge(outer, inner);
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
