//! RELOAD and SIGHUP: the configuration file is read again, and what can change while clients are
//! served does. What cannot is named, not dropped in silence.

use std::sync::Arc;

use crate::config::Config;
use crate::telemetry;
use crate::worker::{Live, Mail, Shared};

/// What a reload has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings with a new value.
    pub changed: Vec<&'static str>,
    /// Settings whose new value a new process is needed for.
    pub pending: Vec<&'static str>,
}

/// Reads the file and takes what it says. A file that is not right changes nothing.
///
/// # Errors
/// One sentence: why nothing was changed.
pub async fn reload(shared: &Shared) -> Result<Reloaded, String> {
    let before = shared.config.load_full();
    let Some(path) = &before.file else {
        return Err("the router was started without a configuration file".to_owned());
    };
    let config = Config::load(path).map_err(|error| error.to_string())?;
    let reloaded = compare(&before, &config);
    if reloaded.changed.contains(&"log.level") {
        telemetry::set_log_level(&config.log.level)?;
    }
    if let Some(acceptor) = &shared.tls {
        acceptor.refresh();
    }
    let live = Arc::new(Live::from_config(&config));
    shared.live.store(Arc::clone(&live));
    shared.tell(|| Mail::Live(Arc::clone(&live))).await;
    shared.config.store(Arc::new(config));
    shared.warm().await;
    tracing::info!(changed = ?reloaded.changed, needs_restart = ?reloaded.pending, "reloaded");
    Ok(reloaded)
}

fn compare(before: &Config, after: &Config) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for ((key, old), (_, new)) in before.values().into_iter().zip(after.values()) {
        if old != new {
            let list = if key.live { &mut reloaded.changed } else { &mut reloaded.pending };
            list.push(key.path);
        }
    }
    if before.auth.hba != after.auth.hba {
        reloaded.changed.push("auth.hba");
    }
    reloaded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("catalog = 'postgres://postgres@h/app'\n{text}");
        Config::parse(&text, |_| None).expect("a configuration")
    }

    #[test]
    fn what_changes_now_and_what_needs_a_restart_are_told_apart() {
        let before = config("");
        assert_eq!(compare(&before, &before.clone()), Reloaded::default());
        let after = config("workers = 77\n[pool]\nsize = 7\nwait = '1s'\n");
        let reloaded = compare(&before, &after);
        assert_eq!(reloaded.changed, ["pool.size", "pool.wait"]);
        assert_eq!(reloaded.pending, ["workers"]);
        let table = config("[[auth.hba]]\ntype = 'local'\nmethod = 'trust'\n");
        assert_eq!(compare(&before, &table).changed, ["auth.hba"]);
    }
}
