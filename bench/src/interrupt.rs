//! SIGINT and SIGTERM become an ordinary error, so that every `Drop` cleans up on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The longest time until an interruption is noticed while waiting.
const STEP: Duration = Duration::from_millis(20);

/// Listens from now on. Only a hard kill ends the program without cleaning up.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub(crate) fn listen() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let (mut interrupts, mut terminations) = {
        let _context = runtime.enter();
        let register =
            |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
        (register(SignalKind::interrupt())?, register(SignalKind::terminate())?)
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terminations.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
                eprintln!("stopping what was started …");
                // The handlers stay, so that a second signal cannot cut the cleaning short.
                std::future::pending::<()>().await;
            });
        })
        .map(drop)
        .map_err(|error| format!("cannot listen for signals: {error}"))
}

/// # Errors
/// When a signal has arrived.
pub(crate) fn check() -> Result<(), String> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err("interrupted".to_owned()) } else { Ok(()) }
}

/// Waits until `moment`, or fails earlier as [`check`] does.
///
/// # Errors
/// When a signal has arrived.
pub(crate) fn wait_until(moment: Instant) -> Result<(), String> {
    loop {
        check()?;
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::park_timeout(left.min(STEP));
    }
}
