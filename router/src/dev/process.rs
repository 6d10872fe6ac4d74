//! Processes by their id: signals, and whether they are still there.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long a process may take to end after it was told to.
pub(super) const END_WAIT: Duration = Duration::from_secs(10);

/// Between two looks at something that tells nobody when it changes.
pub(super) fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}

pub(super) fn terminate(pid: u32) {
    send(pid, Signal::TERM);
}

pub(super) fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // A process that is gone needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Ended but not waited for counts as gone, where that can be seen.
pub(super) fn is_alive(pid: u32) -> bool {
    is_known(pid) && stat(pid).is_none_or(|(state, _)| state != 'Z')
}

/// The system has such a process, be it only to be waited for.
pub(super) fn is_known(pid: u32) -> bool {
    Pid::from_raw(pid as i32).is_some_and(|pid| {
        // Another user's process cannot be signalled, but it is there.
        !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
    })
}

/// The processes that `pid` has started, where the system tells.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| stat(*child).is_some_and(|(_, parent)| parent == pid)).collect()
}

/// Waits until all have ended.
pub(super) fn wait_until_gone(pids: &[u32]) -> bool {
    let deadline = Instant::now() + END_WAIT;
    loop {
        if !pids.iter().any(|pid| is_alive(*pid)) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        pause();
    }
}

/// Lets a child end by itself, and kills it when that takes too long.
pub(super) fn reap(child: &mut Child) {
    let deadline = Instant::now() + END_WAIT;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        pause();
    }
}

/// State letter and parent, from the line in `/proc` (the name in it may hold anything).
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
