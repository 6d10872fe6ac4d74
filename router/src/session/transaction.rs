//! The client's transaction: what it said at its start, what a shard that joins later must be
//! told, and whether it has failed.

use std::rc::Rc;
use std::sync::Arc;

use pgherd_planner::Isolation;
use pgherd_shard_map::{ShardMap, TableName};

use super::Settings;

#[derive(Debug, Default)]
pub enum Transaction {
    #[default]
    Idle,
    Open(Box<Block>),
}

/// An open transaction block, the client's own or one that the router opened around a statement
/// that touches several shards (then it ends with the statement).
#[derive(Debug)]
pub struct Block {
    /// Sent to each shard when it joins: BEGIN with the client's options.
    pub begin: Box<str>,
    /// Then these, in order: SET, SET TRANSACTION, SAVEPOINT.
    pub replay: Vec<Replay>,
    pub implicit: bool,
    pub failed: bool,
    /// The client's settings when it began: a shard that joins has these first, and a rollback
    /// brings them back.
    pub settings: Rc<Settings>,
    /// What the client's settings are after a commit: without what was SET LOCAL.
    pub lasting: Rc<Settings>,
    /// The map as this transaction has changed it.
    pub map: Option<Arc<ShardMap>>,
    /// Something changed the schema: the map is loaded anew after the commit.
    pub schema_changed: bool,
    /// Tables that it distributes, or brings home, and that others knew before.
    pub distributing: Vec<TableName>,
    /// What it has said of its isolation level.
    pub isolation: Option<Isolation>,
    /// What holds if it says nothing.
    usual_isolation: Isolation,
    /// Its snapshots on all shards are still to be taken, at its first statement.
    pub cut_due: bool,
}

#[derive(Debug, Clone)]
pub enum Replay {
    Statement(Box<str>),
    Savepoint {
        name: Box<str>,
        sql: Box<str>,
        /// What ROLLBACK TO brings back: the client's settings, and the transaction's own map.
        settings: Rc<Settings>,
        lasting: Rc<Settings>,
        map: Option<Arc<ShardMap>>,
        schema_changed: bool,
    },
}

impl Transaction {
    /// The status byte of ReadyForQuery.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Open(block) if block.failed => b'E',
            Self::Open(block) if !block.implicit => b'T',
            _ => b'I',
        }
    }

    #[must_use]
    pub fn block(&self) -> Option<&Block> {
        match self {
            Self::Open(block) => Some(block),
            Self::Idle => None,
        }
    }

    pub fn block_mut(&mut self) -> Option<&mut Block> {
        match self {
            Self::Open(block) => Some(block),
            Self::Idle => None,
        }
    }

    #[must_use]
    pub fn failed(&self) -> bool {
        self.block().is_some_and(|block| block.failed)
    }
}

impl Block {
    #[must_use]
    pub fn new(begin: &str, implicit: bool, settings: Rc<Settings>) -> Self {
        let usual = settings.word("default_transaction_isolation").map(str::to_ascii_lowercase);
        let usual_isolation = match usual.as_deref() {
            Some("serializable") => Isolation::Serializable,
            Some("repeatable read") => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        Self {
            begin: begin.into(),
            replay: Vec::new(),
            implicit,
            failed: false,
            lasting: Rc::clone(&settings),
            settings,
            map: None,
            schema_changed: false,
            distributing: Vec::new(),
            isolation: None,
            usual_isolation,
            cut_due: !implicit,
        }
    }

    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.isolation.unwrap_or(self.usual_isolation)
    }

    /// SERIALIZABLE does not compose over shards: it may use one only.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.isolation() == Isolation::Serializable
    }

    /// From now on it has this level; a shard that joins hears of it.
    pub fn isolate(&mut self, isolation: Isolation) {
        self.isolation = Some(isolation);
        self.replay.push(Replay::Statement(isolation_statement(isolation).into()));
    }

    /// REPEATABLE READ, unless it has said what it wants.
    pub fn keep_snapshot(&mut self) {
        if self.isolation.is_none() && self.usual_isolation == Isolation::ReadCommitted {
            self.isolate(Isolation::RepeatableRead);
        }
    }

    /// The block that AND CHAIN opens after this one's end.
    #[must_use]
    pub fn chained(&self, settings: Rc<Settings>) -> Self {
        let mut block = Self::new(&self.begin, false, settings);
        if let Some(isolation) = self.isolation {
            block.isolate(isolation);
        }
        block
    }

    /// Everything that a shard is sent when it joins, one statement each.
    pub fn join_statements(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.begin).chain(self.replay.iter().map(|replay| match replay {
            Replay::Statement(sql) | Replay::Savepoint { sql, .. } => &**sql,
        }))
    }

    /// A savepoint of now.
    pub fn save(&mut self, name: &str, sql: &str, settings: Rc<Settings>) {
        self.replay.push(Replay::Savepoint {
            name: name.into(),
            sql: sql.into(),
            settings,
            lasting: Rc::clone(&self.lasting),
            map: self.map.clone(),
            schema_changed: self.schema_changed,
        });
    }

    fn position(&self, wanted: &str) -> Option<usize> {
        self.replay.iter().rposition(
            |replay| matches!(replay, Replay::Savepoint { name, .. } if &**name == wanted),
        )
    }

    #[must_use]
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// How many savepoints there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        let savepoint = |replay: &&Replay| matches!(replay, Replay::Savepoint { .. });
        self.replay.iter().filter(savepoint).count()
    }

    /// The savepoint that an error goes back to, as far as locks are concerned.
    #[must_use]
    pub fn last_savepoint(&self) -> Option<&str> {
        self.replay.iter().rev().find_map(|replay| match replay {
            Replay::Savepoint { name, .. } => Some(&**name),
            Replay::Statement(_) => None,
        })
    }

    /// RELEASE: the savepoint and those after it are gone, what was set since stays.
    pub fn release(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            let mut index = 0;
            self.replay.retain(|replay| {
                index += 1;
                index <= at || matches!(replay, Replay::Statement(_))
            });
        }
    }

    /// ROLLBACK TO: the savepoint stays, what came after it is forgotten, the schema's changes
    /// included. Gives the settings that the client had then.
    pub fn roll_back_to(&mut self, name: &str) -> Option<Rc<Settings>> {
        let at = self.position(name)?;
        self.replay.truncate(at + 1);
        self.failed = false;
        match self.replay.last() {
            Some(Replay::Savepoint { settings, lasting, map, schema_changed, .. }) => {
                self.lasting = Rc::clone(lasting);
                self.map.clone_from(map);
                self.schema_changed = *schema_changed;
                Some(Rc::clone(settings))
            }
            _ => None,
        }
    }
}

#[must_use]
fn isolation_statement(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        Isolation::ReadCommitted => "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        Isolation::RepeatableRead => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        Isolation::Serializable => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let settings = Rc::new(Settings::default());
        let mut block = Block::new("BEGIN", false, Rc::clone(&settings));
        for name in ["a", "b"] {
            block.save(name, &format!("SAVEPOINT {name}"), Rc::clone(&settings));
            block.replay.push(Replay::Statement(format!("SET LOCAL x TO {name}").into()));
        }
        block
    }

    #[test]
    fn a_shard_that_joins_late_hears_what_still_holds() {
        let mut block = block();
        block.roll_back_to("b");
        let told: Vec<_> = block.join_statements().collect();
        assert_eq!(told, ["BEGIN", "SAVEPOINT a", "SET LOCAL x TO a", "SAVEPOINT b"]);
        block.release("a");
        let told: Vec<_> = block.join_statements().collect();
        assert_eq!(told, ["BEGIN", "SET LOCAL x TO a"]);
        assert!(!block.has_savepoint("b"));
    }
}
