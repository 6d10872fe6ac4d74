//! Commands are carried out: on all workers, and not answered before it is so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgherd_shard_map::ShardId;

use super::command::{Command, Shutdown};
use super::{Answer, tables};
use crate::error::ErrorInfo;
use crate::reload::{self, Reloaded};
use crate::worker::{Mail, Phase, Shared};

/// Between two looks at what a PAUSE waits for.
const LOOK: Duration = Duration::from_millis(10);

pub(super) async fn run(shared: &Arc<Shared>, command: Command) -> Result<Answer, ErrorInfo> {
    match command {
        Command::Show(show) => return Ok(Answer::Table(tables::show(shared, show).await)),
        Command::Pause(shard) => {
            pause(shared, &shards(shared, shard)?).await?;
            Ok(Answer::Done("PAUSE"))
        }
        Command::Resume(shard) => {
            let shards = shards(shared, shard)?;
            let paused = shared.paused.load_full();
            if !paused.iter().any(|paused| shards.contains(paused)) {
                return Err(ErrorInfo::new("55000", "nothing of this is paused"));
            }
            set_paused(shared, |paused| paused.retain(|paused| !shards.contains(paused)));
            shared.tell(|| Mail::Resume { shards: Arc::clone(&shards) }).await;
            Ok(Answer::Done("RESUME"))
        }
        Command::Reconnect(shard) => {
            let shards = shards(shared, shard)?;
            let generation = shared.next_generation();
            shared.tell(|| Mail::Renew { shards: Arc::clone(&shards), generation }).await;
            Ok(Answer::Done("RECONNECT"))
        }
        Command::Reload => {
            // On the control runtime, which may read files.
            let of_task = Arc::clone(shared);
            let reloading = shared.control.spawn(async move { reload::reload(&of_task).await });
            let reloaded = reloading.await.unwrap_or_else(|error| Err(error.to_string()));
            match reloaded {
                Ok(Reloaded { pending, .. }) if !pending.is_empty() => Err(ErrorInfo::new(
                    "55P02",
                    format!("these settings need a restart: {}", pending.join(", ")),
                )
                .detail("Everything else in the file holds now.")),
                Ok(_) => Ok(Answer::Done("RELOAD")),
                Err(error) => Err(ErrorInfo::new("F0000", error).detail("Nothing was changed.")),
            }
        }
        Command::Enable(enable) => {
            shared.disabled.store(!enable, Ordering::Relaxed);
            Ok(Answer::Done(if enable { "ENABLE" } else { "DISABLE" }))
        }
        Command::Kill(pid) => {
            let known = match pid {
                Some(pid) => shared.kill(pid).await,
                None => {
                    shared.tell(|| Mail::KillAll).await;
                    true
                }
            };
            match known {
                true => Ok(Answer::Done("KILL")),
                false => Err(ErrorInfo::new("42704", "there is no client with this id")
                    .hint("SHOW CLIENTS lists them in the column id.")),
            }
        }
        Command::Shutdown(how) => {
            shared.enter(match how {
                Shutdown::Now => Phase::Stop,
                Shutdown::WaitForServers => Phase::Drain,
                Shutdown::WaitForClients => Phase::HandOver,
            });
            Ok(Answer::Done("SHUTDOWN"))
        }
    }
}

fn shards(shared: &Shared, one: Option<ShardId>) -> Result<Arc<[ShardId]>, ErrorInfo> {
    let map = shared.map.load();
    match one {
        None => Ok(map.shards().map(|shard| shard.id).collect()),
        Some(id) if map.shard(id).is_some() => Ok([id].into()),
        Some(id) => Err(ErrorInfo::new("42704", format!("there is no shard {id}"))
            .hint("SHOW SHARDS lists them.")),
    }
}

fn set_paused(shared: &Shared, change: impl Fn(&mut Vec<ShardId>)) {
    shared.paused.rcu(|paused| {
        let mut paused = paused.to_vec();
        change(&mut paused);
        paused.sort_unstable();
        paused.dedup();
        paused
    });
}

/// Holds new work back and waits until what runs has ended.
async fn pause(shared: &Shared, shards: &Arc<[ShardId]>) -> Result<(), ErrorInfo> {
    set_paused(shared, |paused| paused.extend(shards.iter()));
    let generation = shared.next_generation();
    shared.tell(|| Mail::Pause { shards: Arc::clone(shards), generation }).await;
    let begun = Instant::now();
    loop {
        let workers = shared.figures().await;
        let pools = workers.iter().flat_map(|worker| &worker.pools);
        let of_shards = pools.filter(|pool| shards.contains(&pool.shard));
        let pooled: usize = of_shards.map(|pool| pool.active + pool.opening).sum();
        let apart = workers.iter().flat_map(|worker| &worker.apart);
        let of_shards = apart.filter(|(shard, _)| shards.contains(shard));
        let busy = pooled + of_shards.map(|(_, count)| count).sum::<usize>();
        // A worker that did not answer may have some.
        if busy == 0 && workers.len() == shared.settings.workers {
            return Ok(());
        }
        if begun.elapsed() >= shared.live.load().pool.pause_wait {
            return Err(ErrorInfo::new(
                "57014",
                format!("{busy} server connections are still in use"),
            )
            .detail("New work is held back all the same, until RESUME.")
            .hint("SHOW SERVERS says which clients use them; KILL ends one."));
        }
        tokio::time::sleep(LOOK).await;
    }
}
