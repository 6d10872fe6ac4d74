//! One router: a child process `pgherd serve` that ends when its owner does.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::addresses::RouterAddresses;
use super::process;

/// A router connects to every server before it serves.
const READY_WAIT: Duration = Duration::from_secs(60);

/// A started router.
#[derive(Debug)]
pub(super) struct Router {
    child: Child,
    /// Its end tells the router that the owner has died.
    _input: Option<ChildStdin>,
    /// Held open, so that the router never writes to nobody.
    output: Option<BufReader<ChildStdout>>,
    listen: SocketAddr,
    ended: bool,
}

impl Router {
    /// Writes the configuration and starts the process; [`Self::wait_ready`] waits for it.
    pub(super) fn spawn(
        program: &Path,
        config_file: &PathBuf,
        name: &str,
        catalog: &str,
        at: RouterAddresses,
    ) -> Result<Self, String> {
        // The shards and the clients run on the same cores, and one thread that finds several
        // clients ready at once spends less on each than two that find one.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = format!(
            "listen = \"{}\"\nhttp = \"{}\"\ncatalog = \"{catalog}\"\nworkers = {}\n\
             router_name = \"{name}\"\nshutdown_timeout = \"1s\"\n\n[auth]\nmethod = \"trust\"\n",
            at.listen,
            at.http,
            (cores / 4).max(1),
        );
        std::fs::write(config_file, config)
            .map_err(|error| format!("cannot write {}: {error}", config_file.display()))?;
        let mut command = Command::new(program);
        // Variables go before the file, and these are meant for other commands.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PGHERD_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .args(["serve", "--stop-with-stdin", "--config"])
            .arg(config_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Control-C in a terminal is the owner's to pass on, in the right order.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { child, _input: input, output, listen: at.listen, ended: false })
    }

    /// Waits for the line that a router prints when it serves; it closes its output when it fails.
    pub(super) fn wait_ready(&mut self) -> Result<(), String> {
        let (sender, line) = mpsc::channel();
        if let Some(mut output) = self.output.take() {
            std::thread::spawn(move || {
                let mut line = String::new();
                // An error leaves the line empty, which says enough.
                let _ = output.read_line(&mut line);
                let _ = sender.send((line, output));
            });
        }
        match line.recv_timeout(READY_WAIT) {
            Ok((line, output)) if line.starts_with("ready") => {
                self.output = Some(output);
                Ok(())
            }
            _ => Err(format!(
                "the router on {} did not start\nIts own message stands above.",
                self.listen
            )),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, told once, unless it still runs.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let news = !std::mem::replace(&mut self.ended, true);
        news.then(|| format!("the router on {} ended: {status}", self.listen))
    }

    /// Ends it as a crash would.
    pub(super) fn crash(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn terminate(&mut self) {
        // The id of a child that was waited for may be another process' by now.
        if let Ok(None) = self.child.try_wait() {
            process::terminate(self.child.id());
        }
    }

    pub(super) fn reap(&mut self) {
        process::reap(&mut self.child);
    }
}
