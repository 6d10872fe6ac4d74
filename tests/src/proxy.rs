//! Links that can be cut, stalled and watched: a small proxy between routers and one shard.
//!
//! It knows the protocol's frames, so that a [`Trap`] springs exactly between two steps: when a
//! request is about to reach the shard, or when its answer is about to leave it. What sprang a
//! trap is not passed on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a trap waits for.
#[derive(Debug, Clone, Copy)]
pub enum Sight {
    /// A statement of the simple protocol, on its way to the shard.
    Request(fn(&str) -> bool),
    /// The command tag of one that the shard has done.
    Reply(fn(&str) -> bool),
}

/// Something that is done once, between two steps.
pub struct Trap {
    pub sight: Sight,
    /// At the n-th time, from 1.
    pub nth: u32,
    pub spring: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trap").field("nth", &self.nth).finish_non_exhaustive()
    }
}

/// The one trap that all proxies of a cluster watch for.
#[derive(Debug, Default)]
pub struct Traps(Mutex<Option<Trap>>);

impl Traps {
    pub fn set(&self, trap: Trap) {
        *lock(&self.0) = Some(trap);
    }

    /// Whether it has sprung.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_none()
    }

    /// Springs the trap if this is what it waits for.
    fn see(&self, text: &str, is_reply: bool) -> bool {
        let mut slot = lock(&self.0);
        let Some(trap) = &mut *slot else { return false };
        let seen = match trap.sight {
            Sight::Request(matches) => !is_reply && matches(text),
            Sight::Reply(matches) => is_reply && matches(text),
        };
        if !seen {
            return false;
        }
        trap.nth -= 1;
        if trap.nth > 0 {
            return false;
        }
        if let Some(trap) = slot.take() {
            (trap.spring)();
        }
        true
    }
}

/// A proxy to one server; it ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    /// Both ends of each connection that was made.
    links: Mutex<Vec<TcpStream>>,
    stalled: Mutex<bool>,
    flows: Condvar,
    refusing: AtomicBool,
    /// Milliseconds that each request takes longer.
    delay: AtomicU64,
    stopped: AtomicBool,
    traps: Arc<Traps>,
}

impl FaultProxy {
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn start(target: SocketAddr, traps: Arc<Traps>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of our own");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            target,
            links: Mutex::default(),
            stalled: Mutex::new(false),
            flows: Condvar::new(),
            refusing: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            traps,
        });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || accepting.accept(&listener));
        Self { address, state }
    }

    /// Ends every connection that there is. New ones are let through.
    pub fn cut(&self) {
        for link in lock(&self.state.links).drain(..) {
            // It may be closed already.
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    /// New connections are ended at once, or let through again.
    pub fn refuse(&self, refuses: bool) {
        self.state.refusing.store(refuses, Ordering::Relaxed);
    }

    /// What is requested together arrives together, so much later: a long way.
    pub fn delay(&self, delay: Duration) {
        self.state.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Nothing passes, and nobody is told; or everything passes again.
    pub fn stall(&self, stalls: bool) {
        *lock(&self.state.stalled) = stalls;
        self.state.flows.notify_all();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        self.stall(false);
        self.cut();
        // The accepting thread wakes up and ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            if self.refusing.load(Ordering::Relaxed) {
                continue;
            }
            let Ok(server) = TcpStream::connect(self.target) else { continue };
            // What cannot be set up is closed, as a network does.
            let _ = self.link(&client, &server);
        }
    }

    fn link(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) -> std::io::Result<()> {
        let asked_for_tls = Arc::new(AtomicBool::new(false));
        let entering = Arc::new(AtomicBool::new(false));
        let mut links = lock(&self.links);
        for (from, to, is_reply) in [(client, server, false), (server, client, true)] {
            from.set_nodelay(true)?;
            links.push(from.try_clone()?);
            let pump = Pump {
                state: Arc::clone(self),
                frames: Frames {
                    is_reply,
                    asked_for_tls: Arc::clone(&asked_for_tls),
                    entering: Arc::clone(&entering),
                    started: false,
                },
            };
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            std::thread::spawn(move || pump.run(from, to));
        }
        Ok(())
    }
}

/// One direction of one connection.
struct Pump {
    state: Arc<State>,
    frames: Frames,
}

impl Pump {
    fn run(mut self, mut from: TcpStream, mut to: TcpStream) {
        let mut held: Vec<u8> = Vec::new();
        let mut chunk = [0; 16 * 1024];
        'link: while let Ok(length @ 1..) = from.read(&mut chunk) {
            held.extend_from_slice(&chunk[..length]);
            let delay = self.state.delay.load(Ordering::Relaxed);
            if delay > 0 && !self.frames.is_reply {
                // Nobody wakes this thread before.
                std::thread::park_timeout(Duration::from_millis(delay));
            }
            let mut passed = 0;
            while let Some(size) = self.frames.next(&held[passed..]) {
                self.wait_while_stalled();
                let frame = &held[passed..passed + size];
                let sprung = self
                    .frames
                    .text(frame)
                    .is_some_and(|text| self.state.traps.see(&text, self.frames.is_reply));
                if sprung || to.write_all(frame).is_err() {
                    break 'link;
                }
                passed += size;
            }
            held.drain(..passed);
        }
        // The other direction ends with this one.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn wait_while_stalled(&self) {
        let stalled = lock(&self.state.stalled);
        drop(self.state.flows.wait_while(stalled, |stalled| *stalled));
    }
}

/// Where frames begin and end.
struct Frames {
    is_reply: bool,
    asked_for_tls: Arc<AtomicBool>,
    /// The router tells the shard whose session this is, in a transaction that is no client's.
    entering: Arc<AtomicBool>,
    started: bool,
}

impl Frames {
    /// The size of the whole frame at the start.
    fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        if self.started {
            return Some(1 + number(1)? as usize).filter(|size| *size <= bytes.len());
        }
        if self.is_reply {
            bytes.first()?;
            self.started = true;
            // The answer to a request for TLS is one byte.
            let single = self.asked_for_tls.load(Ordering::Relaxed);
            return if single { Some(1) } else { self.next(bytes) };
        }
        let size = number(0).map(|size| size as usize).filter(|size| *size <= bytes.len())?;
        match number(4)? {
            80_877_103 => self.asked_for_tls.store(true, Ordering::Relaxed),
            80_877_104 => {}
            _ => self.started = true,
        }
        Some(size)
    }

    /// A Query's statement, a CommandComplete's tag.
    fn text(&self, frame: &[u8]) -> Option<String> {
        let tag = if self.is_reply { b'C' } else { b'Q' };
        let body = frame.get(5..frame.len() - 1)?;
        if self.is_reply && frame[0] == b'Z' {
            self.entering.store(false, Ordering::Relaxed);
        }
        let text = (frame[0] == tag).then(|| String::from_utf8_lossy(body).into_owned())?;
        if text.contains("pgherd.enter(") {
            self.entering.store(true, Ordering::Relaxed);
        }
        (!self.entering.load(Ordering::Relaxed)).then_some(text)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
