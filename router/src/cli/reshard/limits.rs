//! What rows on their way leave to others, as options.

use std::fmt::Write as _;

use serde_json::Value;

use super::status::bytes;
use crate::config::parse_bytes;
use crate::reshard::Limits;

#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[group(id = "limits", multiple = true)]
pub(in crate::cli) struct LimitArgs {
    /// Hold rows while a standby of a shard that is involved, or the new shard, is further behind
    /// than this, for example 512MB. 1GB, if nothing else is said; or off.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_lag: Option<Limit<u64>>,
    /// Hold rows while the disk of a shard that is involved has less than this left, for example
    /// 20GB. 1GB, if nothing else is said; or off.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_free: Option<Limit<u64>>,
    /// Hold rows while more than one of a hundred statements on a shard that is involved takes
    /// longer at a router than this, for example 50ms. off, if nothing else is said.
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    max_p99: Option<Limit<f64>>,
}

/// `None`: it is lifted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit<T>(Option<T>);

impl LimitArgs {
    pub(super) const fn is_given(&self) -> bool {
        self.max_lag.is_some() || self.min_free.is_some() || self.max_p99.is_some()
    }

    pub(super) fn apply(self, limits: &mut Limits) {
        if let Some(Limit(lag)) = self.max_lag {
            limits.max_lag = lag;
        }
        if let Some(Limit(free)) = self.min_free {
            limits.min_free = free;
        }
        if let Some(Limit(p99)) = self.max_p99 {
            limits.max_p99_ms = p99;
        }
    }
}

/// Limits as options.
pub(super) fn said(limits: &Limits) -> String {
    let size = |limit: Option<u64>| limit.map_or_else(|| "off".to_owned(), bytes);
    let p99 = limits.max_p99_ms.map_or_else(|| "off".to_owned(), |ms| format!("{ms} ms"));
    let (lag, free) = (size(limits.max_lag), size(limits.min_free));
    format!("--max-lag {lag}, --min-free {free}, --max-p99 {p99}")
}

/// What was measured, a line for each shard, and why rows are held, if they are.
pub(super) fn measured(all: &Value) -> String {
    let mut page = String::new();
    for shard in all["load"]["shards"].as_array().into_iter().flatten() {
        let size = |key: &str| shard[key].as_u64().map(bytes);
        let _ = write!(
            page,
            "shard {}: followed by {} behind",
            shard["shard"],
            size("lag").unwrap_or_default()
        );
        let _ = write!(page, ", slots keep {} of log", size("kept").unwrap_or_default());
        let free = size("free").unwrap_or_else(|| "it does not say how much".to_owned());
        let _ = writeln!(page, ", {free} of disk left");
    }
    if let Some(p99) = all["load"]["p99_ms"].as_f64() {
        let _ = writeln!(page, "99 of 100 statements take {p99} ms at most at the routers");
    }
    if let Some(why) = all["held"].as_str() {
        let _ = writeln!(page, "held: {why}");
    }
    page
}

fn size(text: &str) -> Result<Limit<u64>, String> {
    match text {
        "off" => Ok(Limit(None)),
        _ => parse_bytes(text).map(|bytes| Limit(Some(bytes))),
    }
}

fn milliseconds(text: &str) -> Result<Limit<f64>, String> {
    match text {
        "off" => Ok(Limit(None)),
        _ => Ok(Limit(Some(super::duration(text)?.as_secs_f64() * 1000.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_off() {
        assert_eq!(size("512MB"), Ok(Limit(Some(512 << 20))));
        assert_eq!(size("3 GB"), Ok(Limit(Some(3 << 30))));
        assert_eq!(size("off"), Ok(Limit(None)));
        assert!(size("much").is_err() && size("5 XB").is_err() && size("99999999TB").is_err());
        assert_eq!(milliseconds("50ms"), Ok(Limit(Some(50.0))));
    }

    #[test]
    fn what_is_not_said_stays() {
        let mut limits = Limits::default();
        let args = LimitArgs { min_free: Some(Limit(None)), ..LimitArgs::default() };
        args.apply(&mut limits);
        assert_eq!(limits, Limits { min_free: None, ..Limits::default() });
        assert_eq!(said(&limits), "--max-lag 1.0 GB, --min-free off, --max-p99 off");
    }
}
