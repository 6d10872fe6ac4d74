//! WITH queries that write on several shards: each is run by itself, as the planner would have it
//! alone, and the rows that it returns stand in the later ones. A table that is made from a query is
//! made, and then filled. All of it is one transaction.

use std::cell::OnceCell;
use std::rc::Rc;

use pgherd_planner::{MadeTable, NewName, Plan, Scan, StepPart, Steps, scan};
use postgres_protocol::escape::escape_literal;

use super::cursor::file_failed;
use super::many::piece_types;
use super::spelled::{Column, Rows, texts};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::session::{Portal, Prepared};
use crate::wire::{HEADER, backend, frontend};

impl Conn {
    pub(super) async fn run_steps(
        &mut self,
        steps: &Steps,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        self.open_implicit();
        let home = self.server_for(self.planning.map.home).await?;
        self.parse_first(home, statement).await?;
        self.refuse_odd_forms(home)?;
        self.refuse_acting(steps, home).await?;
        let mut done = Vec::with_capacity(steps.steps.len());
        for step in &steps.steps {
            let part = self.part(&joined(&step.text, &done), statement)?;
            let columns = self.columns_returned(home, &part).await?;
            let portal = part.portal(statement, true)?;
            let bound = part.bound(portal.as_ref());
            let (mut spool, _) = self.set_aside(bound).await?;
            let mut rows = Rows::new(columns.len());
            for number in 0..spool.rows() {
                let row = spool.row(number).await.map_err(|error| file_failed(&error))?;
                let row = row.and_then(|row| row.get(HEADER..)).unwrap_or_default();
                rows.add(texts(row)?.into_iter())?;
            }
            done.push(rows.with_query(&step.name, &columns));
        }
        let part = self.part(&joined(&steps.last, &done), statement)?;
        let portal = part.portal(statement, false)?;
        Box::pin(self.run_statement(part.bound(portal.as_ref()))).await
    }

    /// Makes a table and fills it.
    pub(super) async fn run_made_table(
        &mut self,
        made: &MadeTable,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        self.open_implicit();
        if let Some(name) = &made.unless
            && self.is_there(name).await?
        {
            let tag = self.run_alone(&made.create, statement).await?;
            self.client.complete(&tag);
            return Ok(());
        }
        let tag = self.run_alone(&made.create, statement).await?;
        if let Some(name) = &made.unless
            && !self.is_own(name).await?
        {
            // Somebody else has made it meanwhile.
            self.client.complete(&tag);
            return Ok(());
        }
        let filled = self.run_alone(&made.fill, statement).await?;
        let rows = filled.rsplit(' ').next().unwrap_or_default();
        self.client.complete(&format!("SELECT {rows}"));
        Ok(())
    }

    /// Runs one of several statements. Gives its tag.
    async fn run_alone(&mut self, sql: &str, whole: Statement<'_>) -> Result<String, Failure> {
        let part = self.part(sql, whole)?;
        let portal = part.portal(whole, true)?;
        let (_, tag) = self.set_aside(part.bound(portal.as_ref())).await?;
        if self.kept.is_some() {
            // The name of a temporary table is that of the session's own from here on.
            self.look().await?;
        }
        self.refresh_planning();
        Ok(tag)
    }

    /// Whether a table of this name could not be made.
    async fn is_there(&mut self, name: &NewName) -> Result<bool, Failure> {
        self.holds_of(name, "true").await
    }

    /// Whether it was made in this transaction, which has it for itself then.
    async fn is_own(&mut self, name: &NewName) -> Result<bool, Failure> {
        let locked = "EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.relation = c.oid \
             AND l.pid = pg_catalog.pg_backend_pid() AND l.mode = 'AccessExclusiveLock' \
             AND l.locktype = 'relation')";
        self.holds_of(name, locked).await
    }

    async fn holds_of(&mut self, name: &NewName, condition: &str) -> Result<bool, Failure> {
        let home = self.server_for(self.planning.map.home).await?;
        self.join(home).await?;
        let schema = match name.schema.as_deref() {
            None => "n.nspname = pg_catalog.current_schema()".to_owned(),
            Some("pg_temp") => "n.oid = pg_catalog.pg_my_temp_schema()".to_owned(),
            Some(schema) => format!("n.nspname = {}", escape_literal(schema)),
        };
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relname = {} AND {schema} AND {condition})",
            escape_literal(&name.name)
        );
        Ok(self.query(home, &sql).await?.scalar().as_deref() == Some("t"))
    }

    /// What acts on a write could write, too: in PostgreSQL after all parts, here after the first.
    async fn refuse_acting(&mut self, steps: &Steps, home: usize) -> Result<(), Failure> {
        let tables = steps.writes.iter().map(|name| escape_literal(&name.quoted()));
        let tables: Vec<String> = tables.collect();
        let sql = format!(
            "SELECT t.tgname, t.tgrelid::pg_catalog.regclass FROM pg_catalog.pg_trigger t \
             JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
             WHERE t.tgrelid = ANY (ARRAY[{}]::pg_catalog.regclass[]) AND (NOT t.tgisinternal \
               OR p.proname LIKE ANY ('{{RI_FKey_cascade%,RI_FKey_setnull%,RI_FKey_setdefault%}}'))",
            tables.join(", ")
        );
        match self.query(home, &sql).await?.first_row().as_slice() {
            [Some(name), Some(table)] => Err(ErrorInfo::new(
                "0A000",
                "this statement whose WITH queries write is not supported over several shards",
            )
            .detail(format!(
                "The trigger {name} of {table} acts when all parts are done, and here they run one \
                 after another."
            ))
            .hint("Run the parts one after another in a transaction.")
            .into()),
            _ => Ok(()),
        }
    }

    /// A part, planned by itself.
    pub(super) fn part(&self, sql: &str, whole: Statement<'_>) -> Result<Part, Failure> {
        let mut scanned = Scan::default();
        scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        let live = self.worker.live.borrow();
        let plan = pgherd_planner::plan(sql, &self.planning.context(&live.auto_distribute))?;
        let plan = Plan { consistency: whole.plan.consistency, ..plan };
        let types = match whole.portal {
            Some(portal) => piece_types(sql, portal, self.planning.map.home)?,
            None => Vec::new(),
        };
        Ok(Part(Rc::new(Prepared {
            params: None,
            sql: sql.into(),
            types: types.into(),
            id: 0,
            server_name: Box::default(),
            seed: None,
            plan: Rc::new(plan),
            literals: scanned.literals.into_boxed_slice(),
            foreign: OnceCell::new(),
            columns: OnceCell::new(),
        })))
    }

    /// The columns of a part's RETURNING, or of its query.
    pub(super) async fn columns_returned(
        &mut self,
        home: usize,
        part: &Part,
    ) -> Result<Vec<Column>, Failure> {
        let mut request = Vec::new();
        frontend::put_parse(&mut request, b"", &part.0.sql, &part.0.types);
        request.extend_from_slice(frontend::DESCRIBE_UNNAMED_STATEMENT);
        request.extend_from_slice(frontend::SYNC);
        let reply = self.request(home, &request).await?;
        let Some(description) = reply.description else { return Ok(Vec::new()) };
        let fields = backend::fields(&description)
            .map_err(|error| ErrorInfo::protocol(error.to_string()))?;
        self.fields_spelled(home, &fields).await
    }
}

pub(super) struct Part(Rc<Prepared>);

impl Part {
    /// With the whole statement's parameters; `as_text` has rows come as text, whatever the client
    /// wants.
    pub(super) fn portal(
        &self,
        whole: Statement<'_>,
        as_text: bool,
    ) -> Result<Option<Portal>, Failure> {
        let Some(portal) = whole.portal else { return Ok(None) };
        let mut tail = portal.tail.to_vec();
        if as_text {
            let bound = portal.params()?.tail;
            tail = bound.parameters.to_vec();
            tail.extend_from_slice(&[0, 0]);
        }
        Ok(Some(Portal::new(Rc::clone(&self.0), true, tail.into())))
    }

    pub(super) fn bound<'a>(&'a self, portal: Option<&'a Portal>) -> Statement<'a> {
        let Prepared { sql, plan, literals, .. } = &*self.0;
        Statement { sql, written: None, plan, literals, portal, copies: None }
    }
}

pub(super) fn joined(parts: &[StepPart], done: &[String]) -> String {
    let text = parts.iter().map(|part| match part {
        StepPart::Text(text) => text,
        StepPart::Rows(number) => done.get(usize::from(*number)).map_or("", String::as_str),
    });
    text.collect()
}
