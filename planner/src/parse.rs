//! The second witness: the only file that names the SQL parser.
//!
//! Plans are made from our own reading of the tokens. Before one that involves a sharded table is
//! handed out, the parser must accept the statement and see the same relations. Its AST is looked
//! at and dropped, on a thread with a stack of its own: dropping a deep one recurses.

use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, ObjectNamePart, visit_relations};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserOptions};

/// Enough for [`crate::token::DEPTH_MAX`] levels and long chains of operators.
const STACK: usize = 64 << 20;
const RECURSION: usize = 400;

/// The relations that the statement names, each as its parts; an error text where it cannot be
/// parsed.
pub(crate) fn relations(sql: &str) -> Result<Vec<Vec<String>>, String> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || read(sql))
            .map_err(|error| format!("no thread for the parser: {error}"))?;
        worker.join().map_err(|_| "the parser failed".to_owned())?
    })
}

fn read(sql: &str) -> Result<Vec<Vec<String>>, String> {
    let dialect = PostgreSqlDialect {};
    let statements = Parser::new(&dialect)
        .with_options(ParserOptions::new().with_unescape(false))
        .with_recursion_limit(RECURSION)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| error.to_string())?;
    if statements.len() != 1 {
        return Err("not exactly one statement".to_owned());
    }
    let mut found = Vec::new();
    let _ = visit_relations(&statements, |name: &ObjectName| {
        found.push(name.0.iter().map(part).collect());
        ControlFlow::<()>::Continue(())
    });
    Ok(found)
}

fn part(part: &ObjectNamePart) -> String {
    match part {
        ObjectNamePart::Identifier(name) if name.quote_style.is_some() => {
            // Raw text: with_unescape(false) leaves doubled quotes.
            name.value.replace("\"\"", "\"")
        }
        ObjectNamePart::Identifier(name) => name.value.to_ascii_lowercase(),
        ObjectNamePart::Function(_) => String::new(),
    }
}
