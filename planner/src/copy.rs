//! COPY: the head's options in all their spellings, and where the rows go.

use pgherd_shard_map::{RelationKind, Table, TableKind, quoted};

use crate::insert::{make_of, must_make};
use crate::literal::{Value, decode};
use crate::query::starts_query;
use crate::route::{home, one, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::{
    Access, Action, Coding, Context, CopyFormat, CopyIn, CopyKey, CopyMake, CopyOut, CopyQuery,
    CopyRows, Encoding, ForceQuote, Make, ManyShards, Merge, OneShard, Plan, PlanError, Reuse,
    StatementKind, Target, classify, functions, route, straying, write,
};

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let kind = StatementKind::Copy;
    if tokens.kind(1) == Some(Kind::Open) {
        return query_out(tokens, context);
    }
    let start = 1 + usize::from(tokens.is(1, "binary"));
    let Some((parts, mut at)) = tokens.qualified(start) else {
        return Ok(home(context, Access::Write, kind));
    };
    let columns = (tokens.kind(at) == Some(Kind::Open)).then(|| {
        let inside = at + 1..tokens.list[at].close;
        at = tokens.after(at);
        inside
    });
    let from = tokens.is(at, "from");
    match context.relation(&parts) {
        Some((name, RelationKind::ViewOverDistributed)) => Err(route::view_refused(&name)),
        // A trigger of the view could write anywhere. COPY … TO is what PostgreSQL refuses.
        Some((name, RelationKind::View(_))) if from => Err(write::view_not_written(&name)),
        Some((_, RelationKind::Sharded(table))) => {
            let table = table.clone();
            let direct = tokens.is_any(at + 1, &["stdin", "stdout"]);
            if !direct {
                return Err(PlanError::unsupported(
                    "COPY of sharded tables from or to files and programs is not supported",
                    "A file would lie on one server.",
                    "Use COPY … FROM STDIN or TO STDOUT (\\copy in psql).",
                ));
            }
            if !from && table.kind == TableKind::Reference {
                return Ok(one(context, Target::Any, Access::Read, kind));
            }
            let Said { format, encoding, filtered } = options(tokens, at + 2, &table)?;
            if !from {
                let out = CopyOut { target: Target::All, format };
                let action = Action::CopyOut(out);
                return Ok(plan_of(context, action, Access::Read, Reuse::SameText, kind));
            }
            if filtered && functions::worst(tokens, &tokens.all()).0 > functions::Nature::Immutable
            {
                return Err(PlanError::unsupported(
                    "COPY … WHERE with such functions is not supported on sharded tables",
                    "The function could decide differently on each shard.",
                    "Filter the rows before copying them.",
                ));
            }
            let copy = copy_in(tokens, columns.as_ref(), &table, (format, encoding))?;
            let action = Action::CopyIn(copy);
            Ok(plan_of(context, action, Access::Write, Reuse::SameText, kind))
        }
        _ => Ok(home(context, if from { Access::Write } else { Access::Read }, kind)),
    }
}

fn column_names<'t>(tokens: &'t Tokens<'_>, columns: &Range) -> Vec<&'t str> {
    tokens.split(columns).iter().filter_map(|c| tokens.name(c.start)).collect()
}

fn copy_in(
    tokens: &Tokens<'_>,
    columns: Option<&Range>,
    table: &Table,
    (format, encoding): (CopyFormat, Encoding),
) -> Result<CopyIn, PlanError> {
    let all = || table.columns.iter().map(|c| &*c.name).collect();
    let names: Vec<&str> = columns.map_or_else(all, |range| column_names(tokens, range));
    let mut added: Vec<usize> = Vec::new();
    for (at, column) in table.columns.iter().enumerate() {
        if must_make(table, at) && !names.contains(&&*column.name) {
            added.push(at);
        }
    }
    let rows = match table.kind {
        TableKind::Reference => CopyRows::Everywhere,
        TableKind::Distributed { key, key_type, group } => {
            write::refuse_rounded_key(table)?;
            let name = &*table.columns[key].name;
            let made = added.iter().position(|at| *at == key);
            let field = names.iter().position(|given| *given == name);
            let key = match (field, made) {
                (Some(field), _) => CopyKey::Field(field as u16),
                (None, Some(made)) => CopyKey::Made(made as u16),
                (None, None) => return Err(key_not_named(table, name, &names)),
            };
            CopyRows::Split { group, key, key_type }
        }
    };
    if encoding.coding == Coding::Odd && (rows != CopyRows::Everywhere || !added.is_empty()) {
        return Err(PlanError::unsupported(
            format!("COPY of rows in the encoding {} is not supported here", encoding.name),
            "Where a row ends is known only when it is converted.",
            "Convert the data to UTF-8.",
        ));
    }
    let binary = format == CopyFormat::Binary;
    let makes: Vec<CopyMake> =
        added.iter().map(|at| made(table, *at, binary)).collect::<Result<_, _>>()?;
    let odd = makes.iter().find(|made| !made.column.is_ascii());
    if let Some(made) = odd.filter(|_| encoding != Encoding::UTF8 && format.has_header()) {
        return Err(PlanError::unsupported(
            "COPY with this header in another encoding than UTF8 is not supported",
            format!("The router writes the name of column \"{}\" into it.", made.column),
            "Convert the data to UTF-8.",
        ));
    }
    let sql = (!makes.is_empty()).then(|| with_columns(tokens, table, &added, &names, columns));
    let columns = names.len() as u16;
    let (table, makes) = (table.name.clone(), makes.into());
    Ok(CopyIn { table, rows, format, encoding, columns, makes, sql })
}

fn made(table: &Table, at: usize, binary: bool) -> Result<CopyMake, PlanError> {
    let column = &table.columns[at];
    let make = make_of(table, column);
    let bytes = match &*column.type_name {
        "smallint" => 2,
        "integer" => 4,
        "bigint" => 8,
        "uuid" => 16,
        _ => 0,
    };
    if matches!(make, Make::Default { .. }) || (binary && bytes == 0) {
        return Err(PlanError::unsupported(
            "COPY into a sharded table must name this column",
            format!("Each shard would compute column \"{}\" by itself.", column.name),
            "Add the column and its values to the data.",
        ));
    }
    Ok(CopyMake { column: column.name.clone(), make, bytes })
}

/// The statement with more columns, before those of the rows.
fn with_columns(
    tokens: &Tokens<'_>,
    table: &Table,
    added: &[usize],
    names: &[&str],
    columns: Option<&Range>,
) -> Box<str> {
    let made = added.iter().map(|at| &*table.columns[*at].name);
    let list: Vec<String> = made.chain(names.iter().copied()).map(quoted).collect();
    let list = format!("({})", list.join(", "));
    let start = 1 + usize::from(tokens.is(1, "binary"));
    let name_end = tokens.qualified(start).map_or(start, |(_, end)| end);
    let rest = columns.map_or(name_end, |columns| columns.end + 1);
    let (head, tail) = (tokens.text(&(0..name_end)), tokens.text(&(rest..tokens.len())));
    format!("{head} {list} {tail}").into()
}

/// Without its distribution column a row has no shard.
fn key_not_named(table: &Table, key: &str, names: &[&str]) -> PlanError {
    let relation = &table.name.name;
    let unknown = names.iter().find(|name| !table.columns.iter().any(|c| *c.name == ***name));
    if let Some(name) = unknown {
        let message = format!("column \"{name}\" of relation \"{relation}\" does not exist");
        return PlanError::new("42703", message);
    }
    if table.key_column().is_some_and(|column| column.has_default()) {
        return PlanError::unsupported(
            "COPY must give a value for the distribution column",
            format!("The rows of {} go to the shard of column \"{key}\".", table.name),
            format!("Add \"{key}\" to the column list and to the data."),
        );
    }
    PlanError::new(
        "23502",
        format!(
            "null value in column \"{key}\" of relation \"{relation}\" violates not-null constraint"
        ),
    )
    .with_detail("The distribution column decides which shard holds the row.")
    .with_hint(format!("Add \"{key}\" to the column list and to the data."))
}

/// COPY (query) TO STDOUT
fn query_out(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let close = tokens.list[1].close;
    let kind = StatementKind::Copy;
    let inner_range = 2..close;
    if context.may_name_sharded(tokens, &inner_range).is_none() {
        return Ok(home(context, Access::Write, kind));
    }
    let inner = Tokens::known(tokens.text(&inner_range), context);
    let plan = match inner.word(0) {
        _ if !tokens.are(close + 1, &["to", "stdout"]) => return Err(not_to_client()),
        Some("insert" | "update" | "delete" | "with") => classify::unpinned(&inner, context)?,
        _ if starts_query(tokens, 2) => route::select(&inner, context)?,
        _ => return Err(not_to_client()),
    };
    if plan.access == Access::Write {
        straying::refuse(&inner, context)?;
    }
    match &plan.action {
        // No literal stands before the query, so their numbers are those of the whole.
        Action::One(one) if !several(one) => {
            let action = Action::One(OneShard { otherwise: None, ..one.clone() });
            Ok(plan_of(context, action, plan.access, plan.reuse, kind))
        }
        Action::Many(many) if plain_concat(many) || each_writes(many) => {
            let Said { format, .. } = options(tokens, close + 3, &nothing())?;
            let out = CopyOut { target: many.target.clone(), format };
            Ok(plan_of(context, Action::CopyOut(out), plan.access, Reuse::SameText, kind))
        }
        _ => {
            let (format, encoding, force_quote) = written(tokens, close + 3)?;
            let (query, tail) = (2..close, close + 1..tokens.len());
            let access = plan.access;
            let (query, tail) = (tokens.span(&query), tokens.span(&tail));
            let copy = CopyQuery { query, plan, tail, format, encoding, force_quote };
            let action = Action::CopyQuery(Box::new(copy));
            Ok(plan_of(context, action, access, Reuse::SameText, kind))
        }
    }
}

fn not_to_client() -> PlanError {
    PlanError::unsupported(
        "this form of COPY is not supported on sharded tables",
        "Only rows that go to the client can come from shards.",
        "Use COPY (SELECT …) TO STDOUT, or INSERT, UPDATE or DELETE with RETURNING in its place.",
    )
}

/// Keys of several shards, where that is known from the text.
fn several(one: &OneShard) -> bool {
    one.otherwise.is_some() && matches!(&one.target, Target::Keys { keys, .. } if keys.len() > 1)
}

fn plain_concat(many: &ManyShards) -> bool {
    many.sql.is_none()
        && matches!(&many.merge, Merge::Concat { limit } if limit.count.is_none() && limit.offset.is_none())
}

/// Each shard changes rows of its own, and returns them.
fn each_writes(many: &ManyShards) -> bool {
    many.sql.is_none() && many.merge == Merge::Sum
}

fn nothing() -> Table {
    Table {
        name: pgherd_shard_map::TableName::new("", ""),
        kind: TableKind::Reference,
        columns: Box::new([]),
    }
}

/// What the options say of the data.
struct Said {
    format: CopyFormat,
    encoding: Encoding,
    /// There is a WHERE.
    filtered: bool,
}

/// Both spellings: `WITH (FORMAT csv, HEADER)` and the old `WITH CSV HEADER DELIMITER AS ','`.
fn options(tokens: &Tokens<'_>, at: usize, table: &Table) -> Result<Said, PlanError> {
    let (seen, at) = read_options(tokens, at, table)?;
    let encoding = seen.encoding();
    Ok(Said { format: seen.format()?, encoding, filtered: tokens.is(at, "where") })
}

/// The format that the router itself is to write.
fn written(
    tokens: &Tokens<'_>,
    at: usize,
) -> Result<(CopyFormat, Encoding, ForceQuote), PlanError> {
    let (mut seen, _) = read_options(tokens, at, &nothing())?;
    let quoted = std::mem::take(&mut seen.force_quote);
    let quoted = quoted.unwrap_or_else(|| ForceQuote::Columns(Box::default()));
    let encoding = seen.encoding();
    if !matches!(encoding.coding, Coding::Utf8 | Coding::Single) {
        return Err(PlanError::unsupported(
            format!("COPY of this query in the encoding {} is not supported", encoding.name),
            "Its rows are made of those of several shards, and written by the router.",
            "Use UTF8, or an encoding of single bytes.",
        ));
    }
    Ok((seen.format()?, encoding, quoted))
}

/// What is said of the format, and the token after it.
fn read_options(
    tokens: &Tokens<'_>,
    mut at: usize,
    table: &Table,
) -> Result<(Options, usize), PlanError> {
    let mut seen = Options::default();
    if tokens.is(1, "binary") {
        seen.format = Some("binary".into());
    }
    if tokens.is_any(at, &["with"]) {
        at += 1;
    }
    if tokens.kind(at) == Some(Kind::Open) {
        let inside = at + 1..tokens.list[at].close;
        for option in tokens.split(&inside) {
            let name = tokens.word(option.start).unwrap_or_default().to_owned();
            seen.set(tokens, &name, &(option.start + 1..option.end), table)?;
        }
        at = tokens.after(at);
    } else {
        while at < tokens.len() && !tokens.is(at, "where") {
            let name = tokens.word(at).unwrap_or_default().to_owned();
            at += 1;
            match name.as_str() {
                "binary" | "csv" => seen.format = Some(name),
                "header" => seen.header = true,
                // `USING DELIMITERS '|' WITH …` is the oldest spelling.
                "freeze" | "using" | "with" => {}
                "delimiter" | "null" | "quote" | "escape" | "encoding" => {
                    at += usize::from(tokens.is(at, "as"));
                    seen.set(tokens, &name, &(at..at + 1), table)?;
                    at += 1;
                }
                "delimiters" => {
                    at += usize::from(tokens.is(at, "as"));
                    seen.set(tokens, "delimiter", &(at..at + 1), table)?;
                    at += 1;
                }
                "force" => {
                    let name = match () {
                        () if tokens.are(at, &["not", "null"]) => "force_not_null",
                        () if tokens.is(at, "null") => "force_null",
                        () => "force_quote",
                    };
                    at += if name == "force_not_null" { 2 } else { 1 };
                    let start = at;
                    at += 1;
                    while tokens.sign(at, ",") {
                        at += 2;
                    }
                    seen.set(tokens, name, &(start..at), table)?;
                }
                _ => return Err(bad_option(&name)),
            }
        }
    }
    Ok((seen, at))
}

#[derive(Default)]
struct Options {
    force_quote: Option<ForceQuote>,
    format: Option<String>,
    delimiter: Option<u8>,
    null: Option<Box<[u8]>>,
    quote: Option<u8>,
    escape: Option<u8>,
    encoding: Option<Encoding>,
    header: bool,
    force_not_null_key: bool,
    force_null_key: bool,
}

impl Options {
    fn set(
        &mut self,
        tokens: &Tokens<'_>,
        name: &str,
        value: &Range,
        table: &Table,
    ) -> Result<(), PlanError> {
        let text = || -> Result<Value, PlanError> {
            let token = tokens.list.get(value.start).filter(|_| value.len() == 1);
            let mut out = Value::new();
            match token.map(|t| (t.kind, &t.text)) {
                Some((Kind::Literal { kind, .. }, text)) => {
                    decode(text.as_bytes(), kind, &mut out).ok_or_else(|| bad_option(name))?;
                }
                Some((Kind::Word | Kind::Quoted, text)) => out.extend_from_slice(text.as_bytes()),
                _ => return Err(bad_option(name)),
            }
            Ok(out)
        };
        let byte = || match text()?.as_slice() {
            [byte] => Ok(*byte),
            _ => Err(PlanError::new(
                "0A000",
                format!("COPY {name} must be a single one-byte character"),
            )),
        };
        let on = || -> Result<bool, PlanError> {
            if value.is_empty() {
                return Ok(true);
            }
            match text()?.to_ascii_lowercase().as_slice() {
                b"true" | b"on" | b"1" | b"match" => Ok(true),
                b"false" | b"off" | b"0" => Ok(false),
                _ => Err(PlanError::new(
                    "42601",
                    format!("{name} requires a Boolean value or \"match\""),
                )),
            }
        };
        let names_key = || {
            tokens.sign(value.start, "*")
                || table
                    .key_column()
                    .is_some_and(|key| value.clone().any(|at| tokens.name(at) == Some(&*key.name)))
        };
        match name {
            "format" => {
                let format = text()?;
                self.format = Some(String::from_utf8_lossy(&format).to_lowercase());
            }
            "delimiter" => self.delimiter = Some(byte()?),
            "null" => self.null = Some(text()?.as_slice().into()),
            "quote" => self.quote = Some(byte()?),
            "escape" => self.escape = Some(byte()?),
            "header" => self.header = on()?,
            "force_not_null" => self.force_not_null_key = names_key(),
            "force_null" => self.force_null_key = names_key(),
            "freeze" => {}
            "force_quote" => {
                let names = value.clone().filter_map(|at| tokens.name(at)).map(Into::into);
                self.force_quote = Some(match tokens.sign(value.start, "*") {
                    true => ForceQuote::All,
                    false => ForceQuote::Columns(names.collect()),
                });
            }
            "encoding" => {
                self.encoding = Some(Encoding::named(&text()?).ok_or_else(|| {
                    let message = "argument to option \"encoding\" must be a valid encoding name";
                    PlanError::new("22023", message)
                })?);
            }
            // Newer than what is understood here: they change which rows there are.
            "default" | "on_error" | "log_verbosity" | "reject_limit" => {
                return Err(bad_option(name));
            }
            _ => {
                return Err(PlanError::new("42601", format!("option \"{name}\" not recognized")));
            }
        }
        Ok(())
    }

    /// A binary value is in the session's encoding, whatever the option says.
    fn encoding(&self) -> Encoding {
        let binary = self.format.as_deref() == Some("binary");
        self.encoding.filter(|_| !binary).unwrap_or(Encoding::UTF8)
    }

    fn format(self) -> Result<CopyFormat, PlanError> {
        match self.format.as_deref().unwrap_or("text") {
            "text" => Ok(CopyFormat::Text {
                delimiter: self.delimiter.unwrap_or(b'\t'),
                null: self.null.unwrap_or_else(|| (*b"\\N").into()),
                header: self.header,
            }),
            "csv" => {
                let quote = self.quote.unwrap_or(b'"');
                Ok(CopyFormat::Csv {
                    delimiter: self.delimiter.unwrap_or(b','),
                    quote,
                    escape: self.escape.unwrap_or(quote),
                    null: self.null.unwrap_or_default(),
                    header: self.header,
                    force_not_null_key: self.force_not_null_key,
                    force_null_key: self.force_null_key,
                })
            }
            "binary" => Ok(CopyFormat::Binary),
            other => {
                Err(PlanError::new("22023", format!("COPY format \"{other}\" not recognized")))
            }
        }
    }
}

fn bad_option(name: &str) -> PlanError {
    PlanError::unsupported(
        format!("the COPY option \"{name}\" or its value is not supported on sharded tables"),
        "Rows are cut and routed by the options' meaning.",
        "Use FORMAT, DELIMITER, NULL, QUOTE, ESCAPE, HEADER, FORCE_NULL, FORCE_NOT_NULL, ENCODING.",
    )
}
