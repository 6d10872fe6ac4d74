//! The transactions that the clients send: statements with places for numbers, as pgbench's scripts
//! have them, in each of its three protocols.

use crate::case::{Protocol, Workload};
use crate::load::random_key;
use crate::wire::Connection;

/// A number that is drawn anew for each transaction.
#[derive(Debug, Clone, Copy)]
enum Variable {
    /// What the rows are distributed by: aid of the select, bid of tpcb.
    Key,
    /// An account of the branch that the key names.
    Account,
    /// A teller of the branch that the key names.
    Teller,
    Delta,
}

use Variable::{Account, Delta, Key, Teller};

/// `?` stands for each variable in turn.
type Statement = (&'static str, &'static [Variable]);

const SELECT: &[Statement] = &[("SELECT abalance FROM pgbench_accounts WHERE aid = ?", &[Key])];

/// The same as `scripts/tpcb-co-located.sql`.
const TPCB: &[Statement] = &[
    ("BEGIN", &[]),
    (
        "UPDATE pgbench_accounts SET abalance = abalance + ? WHERE bid = ? AND aid = ?",
        &[Delta, Key, Account],
    ),
    ("SELECT abalance FROM pgbench_accounts WHERE bid = ? AND aid = ?", &[Key, Account]),
    (
        "UPDATE pgbench_tellers SET tbalance = tbalance + ? WHERE bid = ? AND tid = ?",
        &[Delta, Key, Teller],
    ),
    ("UPDATE pgbench_branches SET bbalance = bbalance + ? WHERE bid = ?", &[Delta, Key]),
    (
        "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) \
         VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP)",
        &[Teller, Key, Account, Delta],
    ),
    ("END", &[]),
];

/// What one client sends again and again.
#[derive(Debug)]
pub(super) struct Transaction {
    statements: &'static [Statement],
    /// With `$1`, `$2` and so on.
    parameterized: Vec<String>,
    protocol: Protocol,
}

impl Transaction {
    pub(super) fn new(workload: Workload, protocol: Protocol) -> Self {
        let statements = match workload {
            Workload::Select => SELECT,
            Workload::TpcbCoLocated | Workload::TpcbCrossShard => TPCB,
        };
        let parameterized =
            statements.iter().map(|(text, _)| fill(text, (1..).map(|number| format!("${number}"))));
        Self { statements, parameterized: parameterized.collect(), protocol }
    }

    /// Makes a connection ready for [`Self::send`].
    ///
    /// # Errors
    /// The server's message, or that of the socket.
    pub(super) fn prepare(&self, connection: &mut Connection) -> Result<(), String> {
        if self.protocol == Protocol::Prepared {
            for (at, text) in self.parameterized.iter().enumerate() {
                connection.prepare(&name(at), text)?;
            }
        }
        Ok(())
    }

    /// Runs the transaction, one statement after the other. `drawn` tells its numbers apart from
    /// those of others with the same key.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub(super) fn send(
        &self,
        connection: &mut Connection,
        key: u64,
        drawn: u64,
    ) -> Result<(), String> {
        let value = |variable: &Variable| match variable {
            Key => key.to_string(),
            Account => ((key - 1) * 100_000 + random_key(drawn, 100_000)).to_string(),
            Teller => ((key - 1) * 10 + random_key(drawn, 10)).to_string(),
            Delta => random_key(drawn, 5000).to_string(),
        };
        for (at, (text, variables)) in self.statements.iter().enumerate() {
            let values = variables.iter().map(value);
            match self.protocol {
                Protocol::Simple => connection.query(&fill(text, values))?,
                Protocol::Extended => {
                    connection.run(&self.parameterized[at], &values.collect::<Vec<_>>())?;
                }
                Protocol::Prepared => {
                    connection.execute(&name(at), &values.collect::<Vec<_>>())?;
                }
            }
        }
        Ok(())
    }
}

fn name(at: usize) -> String {
    format!("bench{at}")
}

fn fill(text: &str, mut values: impl Iterator<Item = String>) -> String {
    let mut filled = String::with_capacity(text.len() + 16);
    for part in text.split_inclusive('?') {
        match part.strip_suffix('?') {
            Some(before) => {
                filled.push_str(before);
                filled.extend(values.next());
            }
            None => filled.push_str(part),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_variable() {
        for (text, variables) in SELECT.iter().chain(TPCB) {
            assert_eq!(text.matches('?').count(), variables.len(), "{text}");
        }
    }

    #[test]
    fn parameters_are_numbered_in_the_order_of_their_places() {
        let transaction = Transaction::new(Workload::TpcbCoLocated, Protocol::Extended);
        let select = "SELECT abalance FROM pgbench_accounts WHERE bid = $1 AND aid = $2";
        assert_eq!(transaction.parameterized[2], select);
        assert_eq!(transaction.parameterized[0], "BEGIN");
    }
}
