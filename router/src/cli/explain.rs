//! `pgherd explain`: where a statement goes and why, as EXPLAIN through a router says it.

use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::SimpleQueryMessage;

use super::catalog::{connect, parse};
use super::{Failure, one_line, serve};
use crate::config::{Config, Dsn, ServerTls};
use crate::dial::Dialer;

/// Where a statement goes and why, what moves, and the shards' own plans.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgherd explain --router postgres://postgres@127.0.0.1:6432/app \\
    \"SELECT count(*) FROM orders WHERE customer_id = 5\"
  pgherd explain --config pgherd.toml --json \"SELECT * FROM orders\" | jq '.[0].Plan.Tier'
  PGHERD_ROUTER=postgres://postgres@127.0.0.1:6432/app pgherd explain --analyze \"TABLE orders\"")]
pub(super) struct ExplainArgs {
    /// One statement, without EXPLAIN before it.
    #[arg(value_name = "SQL")]
    sql: String,
    /// The router's address: a database URL.
    #[arg(long, env = "PGHERD_ROUTER", value_name = "URL", hide_env_values = true)]
    router: Option<String>,
    /// A router's configuration file, to take the address from; the user is the catalog's.
    #[arg(long, env = "PGHERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run the statement, for real, and measure: one that writes does write.
    #[arg(long)]
    analyze: bool,
    /// Each shard's plan in full, and more of each.
    #[arg(long)]
    verbose: bool,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let text = args.statement()?;
    let dsn = args.router()?;
    let client = connect(&Dialer::new(ServerTls::default())?, &dsn).await?;
    // A Parse takes one statement only: nothing behind it is run.
    client.prepare(&text).await.map_err(|error| refused(&error))?;
    let answer = client.simple_query(&text).await.map_err(|error| refused(&error))?;
    for message in answer {
        if let SimpleQueryMessage::Row(row) = message {
            println!("{}", row.get(0).unwrap_or_default());
        }
    }
    Ok(())
}

impl ExplainArgs {
    fn statement(&self) -> Result<String, Failure> {
        let first = self.sql.split_whitespace().next().unwrap_or_default();
        if first.eq_ignore_ascii_case("explain") {
            return Err(Failure::new(
                "the statement has an EXPLAIN of its own",
                "Leave EXPLAIN out; --analyze, --verbose and --json are its options.",
            ));
        }
        let mut options = vec![if self.json { "FORMAT JSON" } else { "FORMAT TEXT" }];
        options.extend(self.analyze.then_some("ANALYZE"));
        options.extend(self.verbose.then_some("VERBOSE"));
        Ok(format!("EXPLAIN ({}) {}", options.join(", "), self.sql))
    }

    fn router(&self) -> Result<Dsn, Failure> {
        match (&self.router, &self.config) {
            (Some(url), _) => parse("--router", url),
            (None, Some(file)) => parse("the router of the file", &url_of(&serve::load(file)?)),
            (None, None) => Err(Failure::new(
                "nothing says where the router is",
                "Give --router postgres://user@host:6432/database, or set PGHERD_ROUTER, or name \
                 its file with --config.",
            )),
        }
    }
}

/// Where the router of this file listens, seen from its own machine.
fn url_of(config: &Config) -> String {
    let mut address = config.listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let database = utf8_percent_encode(&config.database, NON_ALPHANUMERIC);
    config.catalog.login_for(&format!("postgres://{address}/{database}"))
}

/// What the router says of the statement.
fn refused(error: &tokio_postgres::Error) -> Failure {
    let Some(said) = error.as_db_error() else { return super::catalog::database_error(error) };
    let more: Vec<&str> = said.detail().into_iter().chain(said.hint()).collect();
    Failure {
        problem: one_line(&format!("{} ({})", said.message(), said.code().code())),
        hint: (!more.is_empty()).then(|| one_line(&more.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(sql: &str) -> ExplainArgs {
        ExplainArgs {
            sql: sql.to_owned(),
            router: None,
            config: None,
            analyze: true,
            verbose: false,
            json: true,
        }
    }

    #[test]
    fn the_options_stand_before_the_statement() {
        let text = args("SELECT 1").statement().expect("a statement");
        assert_eq!(text, "EXPLAIN (FORMAT JSON, ANALYZE) SELECT 1");
        let failure = args(" explain SELECT 1").statement().expect_err("it has one");
        assert!(failure.hint.is_some_and(|hint| hint.contains("Leave EXPLAIN out")));
    }

    #[test]
    fn a_file_says_where_its_router_is() {
        let file = "listen = \"0.0.0.0:6432\"\ndatabase = \"my app\"\n\
                    catalog = \"postgres://boss:secret@db0/app\"\n";
        let config = Config::parse(file, |_| None).expect("a configuration");
        assert_eq!(url_of(&config), "postgres://boss:secret@127.0.0.1:6432/my%20app");
    }
}
