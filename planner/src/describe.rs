//! A plan as stable text: logs and golden tests read the same words.

use std::fmt::Write;

use crate::{
    Action, Alone, Borrow, CarriedTo, CopiedTable, CopyKey, CopyRows, CursorStatement, Declare,
    Encoding, GatherPlace, KeySource, KeyUse, Limit, Make, ManyShards, Merge, Otherwise, Piece,
    Plan, Pull, RowCount, StepPart, Target,
};

/// How much of the cluster a plan needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    Route,
    Scatter,
    Borrow,
    Session,
    Cluster,
}

impl Tier {
    /// Each in its place: `ALL[tier as usize]` is that tier.
    pub const ALL: [Self; 5] =
        [Self::Route, Self::Scatter, Self::Borrow, Self::Session, Self::Cluster];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Scatter => "scatter",
            Self::Borrow => "borrow",
            Self::Session => "session",
            Self::Cluster => "cluster",
        }
    }
}

impl Plan {
    #[must_use]
    pub fn tier(&self) -> Tier {
        match &self.action {
            Action::One(_) | Action::Stateful(_) => Tier::Route,
            Action::Many(_)
            | Action::Insert(_)
            | Action::Role(_)
            | Action::CopyIn(_)
            | Action::CopyOut(_) => Tier::Scatter,
            Action::CopyQuery(copy) => copy.plan.tier(),
            Action::Borrow(_)
            | Action::Gather(_)
            | Action::Informed(_)
            | Action::Carried(_)
            | Action::Steps(_)
            | Action::MadeTable(_) => Tier::Borrow,
            Action::Session(_) | Action::Empty => Tier::Session,
            Action::Cluster(_) | Action::Live(_) => Tier::Cluster,
            Action::Explain(explain) => explain.plan.tier(),
            Action::Cursor(statement) => match statement {
                CursorStatement::Declare(declare) => declare.plan.tier(),
                _ => Tier::Route,
            },
        }
    }

    /// One line for what is done, further lines (indented) for how.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        let access = format!("{:?}", self.access).to_lowercase();
        let reuse = match self.reuse {
            crate::Reuse::AnyLiterals => "any literals",
            crate::Reuse::SameText => "same text",
            crate::Reuse::Once => "once",
        };
        let _ = write!(out, "\n  {access}; good for {reuse}");
        if let Some(then) = &self.then {
            let _ = write!(out, "\n  then {then:?}");
        }
        if let Some(touches) = &self.touches {
            let stays = if touches.stays { ", servers stay" } else { "" };
            let settings = touches.settings.join(", ");
            let _ = write!(out, "\n  may change its servers' sessions: [{settings}]{stays}");
        }
        out
    }

    fn write(&self, out: &mut String) {
        let _ = match &self.action {
            Action::One(one) => {
                let _ = write!(out, "route to {}", target(&one.target));
                if let Some(otherwise) = &one.otherwise {
                    out.push_str("\n  or, on several shards:");
                    match &**otherwise {
                        Otherwise::Many(many) => write_many(out, many),
                        Otherwise::Borrow => out.push_str(" borrow PostgreSQL on the home shard"),
                    }
                }
                Ok(())
            }
            Action::Many(many) => {
                let _ = write!(out, "scatter to {}", target(&many.target));
                write_many(out, many);
                Ok(())
            }
            Action::Borrow(borrow) => {
                out.push_str("borrow PostgreSQL on the home shard");
                write_borrow(out, borrow);
                Ok(())
            }
            Action::Insert(insert) => {
                let by = if insert.group.is_some() { "by key" } else { "on all shards" };
                let rows = insert.rows.len();
                let _ = write!(out, "split INSERT into {} {by}: {rows} rows", insert.table);
                insert.makes.iter().for_each(|make| write_make(out, make));
                Ok(())
            }
            Action::Informed(informed) => {
                let with = if informed.moment { "the time" } else { "copies" };
                let _ = write!(out, "write on {}, with {with}", target(&informed.target));
                for copy in &informed.home {
                    let _ = write!(out, "\n  copy {} of the home shard", copy.name);
                }
                write_pulls(out, &informed.pulls, &informed.sql);
                Ok(())
            }
            Action::Carried(carried) => {
                out.push_str("make the source's rows on the home shard");
                write_borrow(out, &carried.borrow);
                let _ = match &carried.to {
                    CarriedTo::ByKey { column, .. } => {
                        write!(out, "\n  each to the shard of its \"{column}\"")
                    }
                    CarriedTo::Keys(keys) => write!(out, "\n  all to {}", target(keys)),
                    CarriedTo::All => write!(out, "\n  all to all shards"),
                    CarriedTo::Same => write!(out, "\n  all to all shards, one answer"),
                    CarriedTo::Home => write!(out, "\n  all to the home shard"),
                };
                carried.numbers.iter().for_each(|make| write_make(out, make));
                write!(out, "\n  there: {}", carried.sql)
            }
            Action::MadeTable(made) => {
                let _ =
                    write!(out, "one after another\n  {}\n  and then: {}", made.create, made.fill);
                match &made.unless {
                    None => Ok(()),
                    Some(_) => write!(out, "\n  if it was not there"),
                }
            }
            Action::Steps(steps) => {
                out.push_str("one after another");
                for step in &steps.steps {
                    let _ = write!(out, "\n  {}: ", step.name);
                    write_step(out, &step.text);
                }
                out.push_str("\n  and then: ");
                write_step(out, &steps.last);
                Ok(())
            }
            Action::Gather(gather) => {
                let _ = write!(out, "gather rows for {} on the home shard", gather.table);
                write_borrow(out, &gather.borrow);
                let to = match gather.place {
                    GatherPlace::Split { .. } => "the shards of their keys",
                    GatherPlace::Everywhere => "all shards",
                    GatherPlace::Home => "the home shard",
                };
                write!(out, "\n  rows to {to}")
            }
            Action::Role(_) => write!(out, "all same, one password verifier"),
            Action::CopyIn(copy) => {
                let _ = match &copy.rows {
                    CopyRows::Split { key: CopyKey::Field(field), .. } => {
                        write!(out, "split COPY into {} by field {field}", copy.table)
                    }
                    CopyRows::Split { key: CopyKey::Made(_), .. } => {
                        write!(out, "split COPY into {} by a key that is made", copy.table)
                    }
                    CopyRows::Everywhere => write!(out, "COPY into {} on all shards", copy.table),
                };
                copy.makes.iter().for_each(|made| write_make(out, &made.make));
                let _ = write!(out, "\n  {} columns, {:?}", copy.columns, copy.format);
                write_encoding(out, copy.encoding)
            }
            Action::CopyQuery(copy) => {
                let _ = write!(out, "COPY {:?}, quoting {:?}", copy.format, copy.force_quote);
                let _ = write_encoding(out, copy.encoding);
                out.push_str(": ");
                copy.plan.write(out);
                Ok(())
            }
            Action::CopyOut(copy) => {
                write!(out, "COPY out of {}\n  {:?}", target(&copy.target), copy.format)
            }
            Action::Stateful(state) => write!(out, "route to home, in its session: {state:?}"),
            Action::Session(statement) => write!(out, "session {statement:?}"),
            Action::Cluster(function) => write!(out, "cluster {function:?}"),
            Action::Live(live) => {
                let views: Vec<&str> = live.views.iter().map(|view| view.name()).collect();
                write!(out, "rows of {}, and PostgreSQL over them", views.join(", "))
            }
            Action::Explain(explain) => {
                let analyze = if explain.options.analyze { " analyze" } else { "" };
                let _ = write!(out, "explain{analyze}: ");
                explain.plan.write(out);
                Ok(())
            }
            Action::Cursor(statement) => match statement {
                CursorStatement::Declare(declare) => {
                    let Declare { name, scroll, hold, plan, .. } = &**declare;
                    let scroll = match scroll {
                        Some(true) => " scroll",
                        Some(false) => " no scroll",
                        None => "",
                    };
                    let hold = if *hold { " with hold" } else { "" };
                    let _ = write!(out, "cursor {name}{scroll}{hold}: ");
                    plan.write(out);
                    Ok(())
                }
                CursorStatement::DeclareAtHome { name, hold } => {
                    let hold = if *hold { " with hold" } else { "" };
                    write!(out, "cursor {name} of the home shard{hold}")
                }
                CursorStatement::Move(moved) => {
                    let what = if moved.shows { "fetch" } else { "move" };
                    write!(out, "{what} {:?}, wherever cursor {} is", moved.step, moved.name)
                }
                CursorStatement::Close(Some(name)) => write!(out, "close cursor {name}"),
                CursorStatement::Close(None) => write!(out, "close all cursors"),
            },
            Action::Empty => write!(out, "nothing"),
        };
    }
}

fn write_encoding(out: &mut String, encoding: Encoding) -> std::fmt::Result {
    match encoding {
        Encoding::UTF8 => Ok(()),
        encoding => write!(out, " in {}", encoding.name),
    }
}

fn write_make(out: &mut String, make: &Make) {
    let _ = match make {
        Make::Number { sequence, .. } => write!(out, ", numbers of {sequence}"),
        Make::RandomUuid => write!(out, ", random uuids"),
        Make::Default { column, .. } => write!(out, ", the default of {column}"),
    };
}

fn target(target: &Target) -> String {
    match target {
        Target::Home => "the home shard".into(),
        Target::Any => "any shard".into(),
        Target::Shard(shard) => format!("shard {shard}"),
        Target::All => "all shards".into(),
        Target::Keys { keys, why, .. } => {
            let filters = match why {
                KeyUse::Filter => keys.len(),
                KeyUse::NewRow => 0,
                KeyUse::Both { filters } => *filters as usize,
            };
            let (old, new) = keys.split_at(filters.min(keys.len()));
            let list = |what: &str, keys: &[KeySource]| {
                let keys: Vec<String> = keys.iter().map(key).collect();
                format!("{what} {}", keys.join(", "))
            };
            match (old, new) {
                (old, []) => format!("the shard of {}", list("key", old)),
                ([], new) => format!("the shard of {}", list("new key", new)),
                (old, new) => {
                    format!("the shard of {} and {}", list("key", old), list("new key", new))
                }
            }
        }
    }
}

fn key(key: &KeySource) -> String {
    match key {
        KeySource::Literal { index, negative } => {
            format!("{}literal {index}", if *negative { "minus " } else { "" })
        }
        KeySource::Param { number, cast_oid: 0 } => format!("${number}"),
        KeySource::Param { number, cast_oid } => format!("${number} (type {cast_oid})"),
        KeySource::ParamArray { number, cast_oid: 0 } => format!("any of ${number}"),
        KeySource::ParamArray { number, cast_oid } => format!("any of ${number} (type {cast_oid})"),
        KeySource::Null => "NULL".into(),
    }
}

fn write_many(out: &mut String, many: &ManyShards) {
    if let Some(sql) = &many.sql {
        let _ = write!(out, "\n  shards run: {sql}");
    }
    let _ = match &many.merge {
        Merge::Same => write!(out, "\n  merge: one answer"),
        Merge::SameInBlock => write!(out, "\n  merge: one answer, in a transaction block"),
        Merge::HomeFills { elsewhere } => {
            write!(out, "\n  merge: one answer\n  other shards: {elsewhere}")
        }
        Merge::EachAlone(alone) => {
            let _ = write!(out, "\n  merge: one answer, outside any transaction block");
            match alone {
                Alone::Again => Ok(()),
                Alone::Rest => write!(out, "; can be resumed"),
                Alone::Index { name, table } => write!(out, "; index {name} on {table} to resume"),
                Alone::Unnamed(index) => write!(out, "; an index on {} gets a name", index.table),
                Alone::NoIndex { name } => write!(out, "; no index {name} to resume"),
            }
        }
        Merge::Numbered(numbering) => write!(
            out,
            "\n  merge: one answer, then {} of {} get their numbers shard by shard",
            numbering.columns.join(", "),
            numbering.table
        ),
        Merge::Sum => write!(out, "\n  merge: counts added"),
        Merge::Rekeyed(rekey) => {
            let to = rekey.to.as_ref().map_or_else(|| "whatever it is".into(), key);
            write!(
                out,
                "\n  merge: counts added, then rows go to the shards of their new key: {to}"
            )
        }
        Merge::Concat { limit } => write!(out, "\n  merge: concatenate{}", limit_text(limit)),
        Merge::Ordered(ordered) => {
            out.push_str("\n  merge: in order of");
            for (number, key) in ordered.keys.iter().enumerate() {
                let comma = if number > 0 { "," } else { "" };
                let order = if key.descending { " desc" } else { "" };
                let nulls = if key.nulls_first { " nulls first" } else { "" };
                let free = if key.free { " (any order)" } else { "" };
                let _ = write!(out, "{comma} {}{order}{nulls}{free}", key.expression);
                if let Some(collation) = &key.collation {
                    let _ = write!(out, " as {collation}");
                }
            }
            if ordered.distinct > 0 {
                let _ = write!(out, ", the first of those equal in {}", ordered.distinct);
            }
            let ties = if ordered.ties { " with ties" } else { "" };
            write!(out, "{}{ties}", limit_text(&ordered.limit))
        }
        Merge::Combine(combine) => {
            let direct = if combine.direct.is_some() { ", or as they are" } else { "" };
            let _ = write!(out, "\n  merge: combine {} columns{direct}: ", combine.columns());
            for piece in &combine.statement {
                let _ = match piece {
                    Piece::Text(text) => write!(out, "{text}"),
                    Piece::Source => write!(out, "<partial>"),
                    Piece::TypeOf(n) => write!(out, "<type {n}>"),
                    Piece::Param(n) => write!(out, "<${n}>"),
                };
            }
            Ok(())
        }
    };
}

fn write_step(out: &mut String, parts: &[StepPart]) {
    for part in parts {
        let _ = match part {
            StepPart::Text(text) => write!(out, "{text}"),
            StepPart::Rows(number) => write!(out, "<rows of step {}>", number + 1),
        };
    }
}

fn write_borrow(out: &mut String, borrow: &Borrow) {
    for view in &borrow.views {
        let _ = write!(out, "\n  for who may read {view}");
    }
    for own in &borrow.own {
        let _ = write!(out, "\n  copy {}, which is the session's own", own.table);
    }
    write_pulls(out, &borrow.pulls, &borrow.sql);
    for broadcast in &borrow.broadcasts {
        out.push_str("\n  or, if small enough,");
        for CopiedTable { pull, .. } in &broadcast.tables {
            write_pull(out, pull);
        }
        let _ = write!(out, "\n  to {}", target(&broadcast.many.target));
        write_many(out, &broadcast.many);
    }
}

fn write_pulls(out: &mut String, pulls: &[Pull], sql: &str) {
    pulls.iter().for_each(|pull| write_pull(out, pull));
    let _ = write!(out, "\n  run: {sql}");
}

fn write_pull(out: &mut String, pull: &Pull) {
    let columns = pull.columns.join(", ");
    let _ = write!(out, "\n  copy {} ({columns}) from {}", pull.table, target(&pull.target));
    if let Some(filter) = &pull.filter {
        let _ = write!(out, " where {filter}");
    }
    for bound in &pull.bound {
        let _ = write!(out, " where bound {}", bound.sql);
    }
}

fn limit_text(limit: &Limit) -> String {
    let rows = |rows: &RowCount| match rows {
        RowCount::Rows(n) => n.to_string(),
        RowCount::Param(n) => format!("${n}"),
    };
    let mut text = String::new();
    if let Some(count) = &limit.count {
        let _ = write!(text, ", limit {}", rows(count));
    }
    if let Some(offset) = &limit.offset {
        let _ = write!(text, ", offset {}", rows(offset));
    }
    text
}
