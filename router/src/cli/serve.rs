//! `pgherd serve`: a router, until SIGINT or SIGTERM.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::{Config, ConfigError, LogFormat};
use crate::telemetry::on_log_level;
use tracing_subscriber::EnvFilter;

/// Serve clients.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgherd serve --config pgherd.toml")]
pub(super) struct ServeArgs {
    /// The configuration file; docs/configuration.md has every key.
    #[arg(long, env = "PGHERD_CONFIG")]
    config: PathBuf,
    /// End when the standard input ends: whoever started this router has died.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let filter = EnvFilter::try_new(&config.log.level)
        .map_err(|error| format!("{}: log.level: {error}", args.config.display()))?;
    let builder = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    match config.log.format {
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            on_log_level(Box::new(move |level| change_level(level, |new| handle.reload(new))));
            builder.init();
        }
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            on_log_level(Box::new(move |level| change_level(level, |new| handle.reload(new))));
            builder.init();
        }
    }
    if args.stop_with_stdin {
        std::thread::spawn(|| {
            // An error is as good as the end.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            tracing::warn!("the process that started this router has died");
            // At once: nobody is there who would wait for a drain, and recovery finishes the rest.
            std::process::exit(1);
        });
    }
    Ok(crate::serve::run(config)?)
}

fn change_level(
    level: &str,
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>,
) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("log.level: {error}"))?;
    reload(filter).map_err(|error| format!("log.level: {error}"))
}

/// Reads a configuration file.
pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| {
        let hint = match error {
            ConfigError::Read { .. } => "Name the file with --config or PGHERD_CONFIG.",
            _ => "docs/configuration.md lists every key with its default.",
        };
        Failure::new(without_picture(&error.to_string()), hint)
    })
}

/// A TOML error shows the line as a picture; place and reason are enough on one line.
fn without_picture(text: &str) -> String {
    let is_picture = |line: &&str| {
        let line = line.trim_start();
        !line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|')
    };
    text.lines().filter(is_picture).collect::<Vec<_>>().join(": ")
}
