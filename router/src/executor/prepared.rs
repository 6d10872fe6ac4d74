//! Prepared statements, of the protocol and of SQL: one namespace, kept by the router.
//!
//! PREPARE is checked by the home shard, which also says the types of the parameters; then only
//! the router has it. EXECUTE binds it as the protocol would, with the arguments as text: literals
//! as they are, any other expression evaluated by the home shard first. So it is routed, scattered
//! and split like a bound statement.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;

use pgherd_planner::{Action, LiteralKind, Scan, Span, StatementKind, Target, scan};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::{Conn, Ready, Route, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::oids::Unknown;
use crate::pool::server::Reply;
use crate::session::foreign::ForeignTypes;
use crate::session::{Portal, Prepared};
use crate::wire::backend::{self, FIRST_USER_OID, Numbered};
use crate::wire::encoding::Encoding;
use crate::wire::frontend::{self, BindTail};
use crate::wire::reply::Expect;
use crate::worker::statements::statement_id;

/// Types that an integer literal is stored in without a question.
const NUMBERS: [u32; 8] = [20, 21, 23, 25, 700, 701, 1043, 1700];

impl Conn {
    /// The statement of a Parse: one that this worker has already, or a new one.
    ///
    /// # Errors
    /// The planner's; 42601 for several statements.
    pub fn prepare(&self, query: &str, types: &[u8]) -> Result<Rc<Prepared>, Failure> {
        let sql = query.trim_end().trim_end_matches(';');
        let id = statement_id(sql, types, self.planning.map.epoch);
        self.prepare_as(id, sql, types).map_err(|failure| failure.with_text(query))
    }

    /// As [`Self::prepare`], under a name that it has already.
    fn prepare_as(&self, id: u128, sql: &str, types: &[u8]) -> Result<Rc<Prepared>, Failure> {
        let seed = self.planning.shared_seed();
        if let Some(seed) = seed
            && let Some(known) = self.worker.statements.borrow_mut().find(id, seed, sql, types)
        {
            return Ok(known);
        }
        let mut scanned = Scan::default();
        let end = scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        if end < sql.len() && !sql[end..].trim().is_empty() {
            return Err(ErrorInfo::new(
                "42601",
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let plan = self.find_plan(sql, &scanned).map_err(|failure| failure.with_types(types))?;
        let declared = (types.len() / 4) as u16;
        let prepared = Rc::new(Prepared {
            params: match plan.kind {
                _ if scanned.params == 0 => Some(declared),
                // Those of an inner statement are not its own.
                StatementKind::Session | StatementKind::Transaction => Some(declared),
                kind => has_parameters(kind).then_some(scanned.params.max(declared)),
            },
            plan,
            sql: sql.into(),
            types: types.into(),
            id,
            server_name: format!("pgherd_{id:032x}").into_bytes().into(),
            seed,
            literals: scanned.literals.into_boxed_slice(),
            foreign: OnceCell::new(),
            columns: OnceCell::new(),
        });
        if let Some(seed) = seed {
            self.worker.statements.borrow_mut().keep(seed, &prepared);
        }
        Ok(prepared)
    }

    /// Learns what the user-defined types that a statement declares are on the other shards.
    pub async fn learn_types(&self, statement: &Prepared) {
        let types: Unknown = statement.user_types().map(|oid| (Numbered::Type, oid)).collect();
        if types.is_empty() || statement.foreign.get().is_some() {
            return;
        }
        let map = &self.planning.map;
        let mut foreign = Vec::new();
        for shard in map.shards().map(|shard| shard.id).filter(|id| *id != map.home) {
            let asked = self.worker.ask_oids(map, map.home, shard, types.clone());
            // Where they cannot be had, the shard refuses the statement, and the next Parse asks.
            let Some(found) = Box::pin(asked).await else { return };
            foreign.push(ForeignTypes::new(shard, statement, &found));
        }
        // Another session may have been quicker.
        let _ = statement.foreign.set(foreign.into());
    }

    /// A statement by the client's name for it, planned for the map and settings of now.
    ///
    /// # Errors
    /// 26000; the planner's.
    pub fn statement(&mut self, name: &[u8]) -> Result<Rc<Prepared>, Failure> {
        let statement = self.session.statements.get(name).cloned().ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                let name = String::from_utf8_lossy(name);
                format!("prepared statement \"{name}\" does not exist")
            };
            Failure::from(ErrorInfo::new("26000", message))
        })?;
        let seed = self.planning.shared_seed();
        if seed.is_some() && statement.seed == seed {
            return Ok(statement);
        }
        let statement = self.planned_anew(&statement)?;
        self.session.statements.insert(name.into(), Rc::clone(&statement));
        Ok(statement)
    }

    /// A statement planned for the map and settings of now.
    pub(super) fn planned_anew(&self, statement: &Prepared) -> Result<Rc<Prepared>, Failure> {
        self.prepare_as(statement.id, &statement.sql, &statement.types)
    }

    /// PREPARE name (types) AS text
    pub(super) async fn prepare_by_sql(
        &mut self,
        name: &str,
        types: &[Box<str>],
        span: Span,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        if self.session.statements.contains_key(name.as_bytes()) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(ErrorInfo::new("42P05", message).into());
        }
        let text = span.of(statement.sql);
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        self.join(at).await?;
        let mut declared = Vec::new();
        if !types.is_empty() {
            let asked: Vec<String> = types
                .iter()
                .map(|name| format!("{}::pg_catalog.regtype::pg_catalog.oid", escape_literal(name)))
                .collect();
            let reply = self.query(at, &format!("SELECT {}", asked.join(", "))).await?;
            let oid = |value: Option<String>| value.and_then(|v| v.parse().ok()).unwrap_or(0u32);
            declared.extend(reply.first_row().into_iter().map(oid));
        }
        // What the home shard makes of it: errors, and the types that were not declared.
        let types = oids(declared.iter().map(|oid| usable(*oid)));
        // It stands where it stood in the PREPARE, so that positions are right.
        let before = statement.sql[..span.start as usize].chars().count();
        let reply = self.describe_at(at, &format!("{:before$}{text}", ""), &types).await?;
        let known = types_told(&reply);
        for (at, oid) in declared.iter().enumerate() {
            if *oid >= FIRST_USER_OID && known.get(at) != Some(oid) {
                return Err(ErrorInfo::new(
                    "0A000",
                    format!("the type of parameter ${} cannot be declared", at + 1),
                )
                .detail("A type that is not built in has another OID on each shard.")
                .hint("Leave the types out of PREPARE, and cast the parameter in the statement.")
                .into());
            }
        }
        let types = oids(known.into_iter().map(usable));
        let prepared = self.prepare(text, &types)?;
        if prepared.lacks_columns() {
            self.note_columns(at, &prepared, reply.description.unwrap_or_default()).await;
        }
        self.session.statements.insert(name.as_bytes().into(), prepared);
        self.client.complete("PREPARE");
        Ok(())
    }

    /// The types of a text's parameters, by OIDs of this server.
    async fn parameter_types(
        &mut self,
        at: usize,
        text: &str,
        types: &[u8],
    ) -> Result<Vec<u32>, Failure> {
        Ok(types_told(&self.describe_at(at, text, types).await?))
    }

    /// What this server makes of a text: its parameters and columns.
    pub(super) async fn describe_at(
        &mut self,
        at: usize,
        text: &str,
        types: &[u8],
    ) -> Result<Reply, Failure> {
        let mut request = Vec::new();
        frontend::put_parse(&mut request, b"", text, types);
        request.extend_from_slice(frontend::DESCRIBE_UNNAMED_STATEMENT);
        request.extend_from_slice(frontend::SYNC);
        self.request(at, &request).await
    }

    /// EXECUTE name (arguments)
    pub(super) async fn execute_by_sql(
        &mut self,
        name: &str,
        arguments: &[Span],
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let sql = statement.sql;
        let (prepared, values) = self.executed(name, arguments, sql, sql).await?;
        // The client's text is EXECUTE, in which the statement has no place.
        let place = self.statement_at.take();
        let ran = self.run_executed(&prepared, &values, statement).await;
        self.statement_at = place;
        ran.map_err(without_place)
    }

    async fn run_executed(
        &mut self,
        prepared: &Rc<Prepared>,
        values: &[Option<String>],
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let results = match statement.portal {
            Some(portal) => portal.params()?.tail.results.to_vec(),
            None => vec![0, 0],
        };
        let tail = bind_tail(values, &results, self.planning.encoding)?;
        let portal = Portal::new(Rc::clone(prepared), false, tail).encoded(self.planning.encoding);
        let route = {
            let params = portal.params()?;
            self.route(&prepared.plan, &prepared.sql, &prepared.literals, &params)?
        };
        let simple = statement.portal.is_none();
        if let Route::One(shard) = route {
            return self.run_bound(shard, &portal, simple).await;
        }
        let before = self.client.out.len();
        if simple {
            self.take_ticket().await?;
            self.describe_at_home(&portal, &[]).await?;
        }
        let described = self.client.out.len();
        let ran = Box::pin(self.run_statement(Statement::bound(&portal))).await;
        if ran.is_err() && self.client.out.len() == described {
            // Columns come with the first row, and there was none.
            self.client.out.truncate(before);
        }
        ran
    }

    /// CREATE TABLE … AS EXECUTE …: of the query itself, with the arguments in the places of its
    /// parameters, since the table is made on every shard.
    pub(super) async fn create_as_execute(
        &mut self,
        create: Span,
        name: &str,
        arguments: &[Span],
        data: Span,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let sql = statement.sql;
        let execute = Span { start: create.end, end: data.start }.of(sql);
        let (create, data) = (create.of(sql), data.of(sql));
        let (prepared, values) = self.executed(name, arguments, sql, execute).await?;
        if prepared.plan.kind != StatementKind::Select {
            return Err(ErrorInfo::new("42809", "prepared statement is not a SELECT").into());
        }
        let types = if values.is_empty() {
            Vec::new()
        } else {
            let at = self.server_for(self.planning.map.home).await?;
            self.join(at).await?;
            let known = self.parameter_types(at, &prepared.sql, &prepared.types).await?;
            let names: Vec<String> =
                known.iter().map(|oid| format!("pg_catalog.format_type({oid}, NULL)")).collect();
            self.query(at, &format!("SELECT {}", names.join(", "))).await?.first_row()
        };
        let query = pgherd_planner::with_parameters(&prepared.sql, |number| {
            let at = usize::from(number).wrapping_sub(1);
            let value = values.get(at).and_then(Option::as_deref);
            let value = value.map_or_else(|| "NULL".to_owned(), escape_literal);
            let name = types.get(at).and_then(Option::as_deref).unwrap_or("text");
            format!("CAST({value} AS {name})")
        });
        let made = self.prepare(&format!("{create} {query}\n{data}"), &[])?;
        let portal = Portal::new(made, false, bind_tail(&[], &[0, 0], None)?)
            .encoded(self.planning.encoding);
        Box::pin(self.run_statement(Statement::bound(&portal))).await?;
        // That of a table without data says otherwise only where it is not made by EXECUTE.
        let mut tag = Vec::new();
        backend::command_complete(&mut tag, "CREATE TABLE AS");
        let no_data = data.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("no"));
        if no_data && self.client.out.ends_with(&tag) {
            self.client.out.truncate(self.client.out.len() - tag.len());
            self.client.complete("SELECT 0");
        }
        Ok(())
    }

    /// EXPLAIN of an EXECUTE (`sql`), as that of its statement, bound. `head`: all before EXECUTE.
    pub(super) async fn explained_execute(
        &mut self,
        name: &str,
        arguments: &[Span],
        head: &str,
        sql: &str,
    ) -> Result<Portal, Failure> {
        let (prepared, values) = self.executed(name, arguments, sql, sql).await?;
        let explained = self.prepare(&format!("{head} {}", prepared.sql), &prepared.types)?;
        let tail = bind_tail(&values, &[0, 0], self.planning.encoding)?;
        Ok(Portal::new(explained, true, tail).encoded(self.planning.encoding))
    }

    /// The statement of an EXECUTE that stands in `sql`, and its values.
    async fn executed(
        &mut self,
        name: &str,
        arguments: &[Span],
        sql: &str,
        execute: &str,
    ) -> Result<(Rc<Prepared>, Vec<Option<String>>), Failure> {
        self.keep_to_columns(name.as_bytes()).await.map_err(without_place)?;
        let prepared = self.statement(name.as_bytes())?;
        let named = pgherd_planner::parameters(&prepared.sql).last().map_or(0, |n| usize::from(*n));
        let expected = (prepared.types.len() / 4).max(named);
        // PostgreSQL does not look at arguments of a statement that takes none.
        let arguments = if expected == 0 { &[] } else { arguments };
        if expected != arguments.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {expected} parameters but got {}.", arguments.len());
            return Err(ErrorInfo::new("42601", message).detail(detail).into());
        }
        if matches!(prepared.plan.action, Action::Session(_)) {
            let message = format!("EXECUTE of \"{name}\" is not supported");
            return Err(ErrorInfo::new("0A000", message)
                .detail("The statement was prepared by the protocol, and controls the session.")
                .hint("Send the statement itself.")
                .into());
        }
        let texts: Vec<&str> = arguments.iter().map(|span| span.of(sql)).collect();
        let values = self.argument_values(&prepared, name, &texts, execute).await?;
        Ok((prepared, values))
    }

    /// One shard runs the statement under its name there.
    async fn run_bound(
        &mut self,
        shard: pgherd_shard_map::ShardId,
        portal: &Portal,
        columns: bool,
    ) -> Result<(), Failure> {
        let at = self.server_for(shard).await?;
        let statement = &portal.statement;
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        self.scanner.reset();
        let hidden = self.put_join(at, &mut request);
        let known = self.servers[at].statements.contains(&statement.id);
        if !known {
            let name = &statement.server_name;
            frontend::put_parse(&mut request, name, &statement.sql, statement.types_on(shard));
            self.scanner.expects.push_back(Expect::HiddenParse);
        }
        let tail = portal.tail_on(shard);
        frontend::put_bind(&mut request, b"", &statement.server_name, &tail, &[]);
        self.scanner.expects.push_back(Expect::HiddenBind);
        if columns {
            frontend::put_describe(&mut request, b'P', b"");
            self.scanner.expects.push_back(Expect::Columns);
        }
        frontend::put_execute(&mut request, b"", 0);
        self.scanner.expects.push_back(Expect::Execute);
        request.extend_from_slice(frontend::SYNC);
        let end = self.relay(at, &request, hidden, Ready::Keep, &statement.plan).await;
        self.keep_request(request);
        let end = end?;
        let server = &mut self.servers[at];
        if !known && self.scanner.parsed > 0 {
            server.statements.insert(statement.id);
            server.forget |= !server.has_room();
        }
        if end.failed {
            server.forget |= self.last_sqlstate == *b"0A000";
            return Err(Failure::Told);
        }
        Ok(())
    }

    /// The arguments as text, as their types read it. Expressions are evaluated by the home shard:
    /// it executes a statement of the same name with the same parameters that returns just these.
    async fn argument_values(
        &mut self,
        prepared: &Prepared,
        name: &str,
        arguments: &[&str],
        execute: &str,
    ) -> Result<Vec<Option<String>>, Failure> {
        let (types, _) = prepared.types.as_chunks::<4>();
        let oid = |at: usize| types.get(at).map_or(0, |oid| u32::from_be_bytes(*oid));
        let values: Option<Vec<_>> =
            arguments.iter().enumerate().map(|(at, text)| plain(text, oid(at))).collect();
        if let Some(values) = values {
            return Ok(values);
        }
        self.check_arguments(arguments)?;
        self.take_ticket().await?;
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        self.join(at).await?;
        let known = self.parameter_types(at, &prepared.sql, &prepared.types).await?;
        let list: Vec<String> = known.iter().map(u32::to_string).collect();
        let names = format!(
            "SELECT pg_catalog.string_agg(pg_catalog.format_type(oid, NULL), ', ' ORDER BY n), \
             pg_catalog.string_agg('$' || n, ', ' ORDER BY n) \
             FROM pg_catalog.unnest('{{{}}}'::oid[]) WITH ORDINALITY AS t(oid, n)",
            list.join(",")
        );
        let row = self.query(at, &names).await?.first_row();
        let [Some(types), Some(columns)] = row.as_slice() else { return Ok(Vec::new()) };
        let name = escape_identifier(name);
        self.query(at, &format!("PREPARE {name} ({types}) AS SELECT {columns}")).await?;
        // Whatever comes of it, the name is free again.
        self.servers[at].forget = true;
        let values = self.query(at, execute).await?.first_row();
        self.query(at, &format!("DEALLOCATE {name}")).await?;
        self.servers[at].forget = false;
        Ok(values)
    }

    /// Arguments are expressions without tables and subqueries, and leave nothing in the session.
    fn check_arguments(&self, arguments: &[&str]) -> Result<(), Failure> {
        let sql = format!("SELECT {}", arguments.join(", "));
        let mut scanned = Scan::default();
        scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        let plan = self.find_plan(&sql, &scanned)?;
        let plain = matches!(&plan.action, Action::One(one)
            if matches!(one.target, Target::Home | Target::Any));
        let query = arguments.iter().any(|text| text.to_ascii_lowercase().contains("select"));
        if query || !plain {
            return Err(ErrorInfo::new("0A000", "cannot use subquery in EXECUTE parameter").into());
        }
        Ok(())
    }

    pub(super) fn deallocate(&mut self, name: Option<&str>) -> Result<(), Failure> {
        match name {
            Some(name) => {
                if self.session.statements.remove(name.as_bytes()).is_none() {
                    let message = format!("prepared statement \"{name}\" does not exist");
                    return Err(ErrorInfo::new("26000", message).into());
                }
                self.client.complete("DEALLOCATE");
            }
            None => {
                self.session.forget_statements();
                self.client.complete("DEALLOCATE ALL");
            }
        }
        Ok(())
    }

    /// The columns of an EXECUTE: those of its statement, bound to nothing.
    ///
    /// # Errors
    /// What the home shard says.
    pub async fn describe_executed(&mut self, name: &str, results: &[u8]) -> Result<(), Failure> {
        self.keep_to_columns(name.as_bytes()).await.map_err(without_place)?;
        let Ok(statement) = self.statement(name.as_bytes()) else {
            // Its execution will say that it does not exist.
            self.client.out.extend_from_slice(backend::NO_DATA);
            return Ok(());
        };
        let named =
            pgherd_planner::parameters(&statement.sql).last().map_or(0, |n| usize::from(*n));
        let values = vec![None; named.max(statement.types.len() / 4)];
        let tail = bind_tail(&values, results, None)?;
        let portal = Portal::new(statement, false, tail);
        self.describe_at_home(&portal, backend::NO_DATA).await
    }

    /// Binds and describes on the home shard; the client sees the description only, or `nothing`
    /// where there are no columns.
    ///
    /// # Errors
    /// What the home shard says.
    pub async fn describe_at_home(
        &mut self,
        portal: &Portal,
        nothing: &[u8],
    ) -> Result<(), Failure> {
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        self.join(at).await?;
        let mut request = Vec::new();
        let statement = &portal.statement;
        frontend::put_parse(&mut request, b"", &statement.sql, &statement.types);
        frontend::put_bind(&mut request, b"", b"", &portal.tail, &[]);
        request.extend_from_slice(frontend::DESCRIBE_UNNAMED_PORTAL);
        request.extend_from_slice(frontend::SYNC);
        let reply = self.request(at, &request).await?;
        self.client.out.extend_from_slice(reply.description.as_deref().unwrap_or(nothing));
        Ok(())
    }
}

/// The types of parameters in a reply to Describe.
fn types_told(reply: &Reply) -> Vec<u32> {
    let body = reply.parameters.as_deref().unwrap_or_default();
    let (oids, _) = body.get(2..).unwrap_or_default().as_chunks::<4>();
    oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect()
}

/// Statements of which PostgreSQL counts the parameters when it reads them.
fn has_parameters(kind: StatementKind) -> bool {
    matches!(
        kind,
        StatementKind::Select
            | StatementKind::Insert
            | StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Merge
            | StatementKind::Explain
    )
}

/// An error in a text that the client has not sent.
pub(super) fn without_place(failure: Failure) -> Failure {
    match failure {
        Failure::Shard(frame) => {
            let mut report = Vec::new();
            backend::put_moved_report(&mut report, &frame, None);
            Failure::Shard(report.into())
        }
        Failure::Statement(error) => Failure::Statement(ErrorInfo { position: None, ..error }),
        other => other,
    }
}

/// An OID that means the same on all shards, else 0: each finds the type by itself.
fn usable(oid: u32) -> u32 {
    if oid < FIRST_USER_OID { oid } else { 0 }
}

fn oids(oids: impl Iterator<Item = u32>) -> Vec<u8> {
    oids.flat_map(u32::to_be_bytes).collect()
}

/// A Bind message after its names: values as text, results as asked.
/// Values in the text format, in the client's encoding.
fn bind_tail(
    values: &[Option<String>],
    results: &[u8],
    encoding: Option<&Encoding>,
) -> Result<Box<[u8]>, ErrorInfo> {
    let mut tail = vec![0, 0];
    tail.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Some(value) => {
                let value = match encoding {
                    None => Cow::Borrowed(value.as_bytes()),
                    Some(encoding) => encoding.encode(value)?.into(),
                };
                tail.extend_from_slice(&(value.len() as i32).to_be_bytes());
                tail.extend_from_slice(&value);
            }
            None => tail.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    tail.extend_from_slice(results);
    debug_assert!(BindTail::new(&tail).is_ok());
    Ok(tail.into())
}

/// The value of an argument that needs no server to be read: a string, which its type reads, NULL,
/// or an integer where the type is one of numbers.
#[expect(clippy::option_option, reason = "NULL is a value")]
fn plain(text: &str, oid: u32) -> Option<Option<String>> {
    if text.eq_ignore_ascii_case("null") {
        return Some(None);
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return NUMBERS.contains(&oid).then(|| Some(text.to_owned()));
    }
    let mut scanned = Scan::default();
    scan(text.as_bytes(), 0, 0, &mut scanned);
    match scanned.literals.as_slice() {
        [literal] if literal.start == 0 && literal.end as usize == text.len() && oid != 0 => {
            string(text, literal.kind).map(Some)
        }
        _ => None,
    }
}

/// The value of `'…'`; of other forms a server knows better.
fn string(text: &str, kind: LiteralKind) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    (kind == LiteralKind::String).then(|| inner.replace("''", "'"))
}
