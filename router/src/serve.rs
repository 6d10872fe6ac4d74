//! A running router: worker threads, one acceptor, the map watch, recovery, metrics.
//!
//! Each worker is one thread with a current_thread runtime of its own. The acceptor deals
//! connections to the worker with the fewest clients; from then on a connection never changes
//! threads. Everything that is not a client's statement runs on the control runtime.

mod drain;
mod listen;
mod unix_socket;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pgherd_shard_map::{Epoch, ShardId, store};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use unix_socket::UnixSocket;

use crate::client::Stream;
use crate::config::{Config, Dsn};
use crate::dial::Dialer;
use crate::numbers::Numbers;
use crate::telemetry::{Answers, Metrics};
use crate::throttle::Throttle;
use crate::tls::server::Acceptor;
use crate::verifiers::Verifiers;
use crate::worker::{Live, Mail, Phase, Shared, Worker, WorkerSettings};
use crate::{frontend, recovery, reload, reshard};

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// How often it is looked what the roles of `warm_users` are now.
const WARM: Duration = Duration::from_secs(60);

/// How long a change of the schema waits for the other routers, and how often it looks.
const FOLLOWERS_WAIT: Duration = Duration::from_secs(3);
const FOLLOWERS_POLL: Duration = Duration::from_millis(2);
/// How long a router waits for itself, as a follower, before it loads a map beside.
const OWN_WAIT: Duration = Duration::from_millis(500);

/// How often it is looked whether the certificate has changed.
const CERTIFICATE: Duration = Duration::from_secs(1);

/// Messages that may wait for a worker.
const MAILBOX: usize = 4096;

struct WorkerHandle {
    mail: mpsc::Sender<Mail>,
    clients: Arc<AtomicUsize>,
}

impl WorkerHandle {
    /// Connections that it has, those that log in included.
    fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }
}

/// Runs a router until it is told to stop (SIGTERM, SIGINT, SHUTDOWN on the console) and has.
///
/// # Errors
/// One sentence: what could not be started, and why.
pub fn run(config: Config) -> Result<(), String> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("pgherd-control")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the control runtime: {error}"))?;
    control.block_on(serve(config, control.handle().clone()))
}

async fn serve(config: Config, control: tokio::runtime::Handle) -> Result<(), String> {
    let dialer = Arc::new(Dialer::new(config.shard_tls.clone())?);
    let address = &config.catalog;
    let unreachable = |error: &dyn std::fmt::Display| {
        format!(
            "cannot reach the catalog at {address}: {error}\n\
             Does PostgreSQL run there, and does its pg_hba.conf let this user in? The \
             configuration's \"catalog\" says where it is."
        )
    };
    let target = dialer.catalog(address.as_str()).map_err(|error| unreachable(&error))?;
    let catalog = store::Catalog::connect(target).await.map_err(|error| unreachable(&error))?;
    let map = catalog
        .load()
        .await
        .map_err(|error| format!("cannot load the shard map from {address}: {error}"))?;
    drop(catalog);
    let bind = |address| {
        listen::listen(address, config.reuse_port)
            .map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let listener = bind(config.listen)?;
    let http = config.http.map(bind).transpose()?;
    let tls = config.tls.clone().map(Acceptor::new).transpose()?;
    let settings = WorkerSettings::from_config(&config);
    let workers = settings.workers;
    let metrics = Arc::new(Metrics::new(workers));
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| format!("no random bytes: {error}"))?;
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| format!("no random bytes: {error}"))?;
    let live = Live::from_config(&config);
    let tickets = live.share(workers).size;
    let shared = Arc::new(Shared {
        id: format!("{:016x}", u64::from_ne_bytes(id)).into(),
        reshard: ArcSwap::default(),
        loaded: watch::Sender::new(map.epoch.0),
        known: watch::Sender::new(map.epoch.0),
        map: ArcSwap::from_pointee(map),
        reload: Notify::new(),
        contact: crate::contact::CatalogContact::default(),
        control,
        settings,
        verifiers: Verifiers::new(Arc::clone(&dialer), secret),
        throttle: Throttle::new(config.auth.max_failures, config.auth.failure_window),
        seats: Arc::default(),
        proofs: Arc::default(),
        numbers: Numbers::default(),
        asks_numbers: AtomicBool::new(false),
        dialer,
        tls,
        gate: crate::gate::Gate::default(),
        health: ArcSwap::default(),
        mailboxes: std::sync::OnceLock::new(),
        live: ArcSwap::from_pointee(live),
        config: ArcSwap::from_pointee(config.clone()),
        phase: watch::Sender::new(Phase::Serving),
        paused: ArcSwap::default(),
        generation: AtomicU32::new(0),
        metrics: Arc::clone(&metrics),
        disabled: AtomicBool::new(false),
        admissions: (0..workers).map(|_| Arc::new(Semaphore::new(tickets))).collect(),
    });
    let mut handles = Vec::with_capacity(workers);
    for index in 0..workers {
        handles.push(start_worker(index, &shared, &metrics)?);
    }
    let boxes = handles.iter().map(|handle| handle.mail.clone()).collect();
    shared.mailboxes.set(boxes).map_err(|_| "the workers were started twice".to_owned())?;
    tokio::spawn(watch_map(Arc::clone(&shared), config.catalog.as_str().to_owned()));
    tokio::spawn(watch_certificate(Arc::clone(&shared)));
    tokio::spawn(recover(Arc::clone(&shared), config.catalog.clone()));
    tokio::spawn(crate::deadlock::watch(Arc::clone(&shared)));
    tokio::spawn(keep_warm(Arc::clone(&shared)));
    let http = http.map(|listener| {
        tokio::spawn(crate::admin::serve_http(listener, Arc::clone(&metrics), Arc::clone(&shared)))
    });
    tokio::spawn(obey_signals(Arc::clone(&shared), config.reuse_port));
    // Port 0 is answered with the one that was found.
    let listen = listener.local_addr().unwrap_or(config.listen);
    let socket = match &config.unix_socket_dir {
        Some(dir) => Some(UnixSocket::bind(dir, listen.port(), config.unix_socket_permissions)?),
        None => None,
    };
    tracing::info!(%listen, workers, "ready");
    // For whoever started this process and waits for it.
    println!("ready {listen}");
    accept(listener, socket, &handles, &shared, config.reuse_port).await;
    if let Some(http) = http.filter(|_| config.reuse_port) {
        // The address is the successor's.
        http.abort();
    }
    drain::drain(&shared, &handles).await;
    Ok(())
}

fn start_worker(
    index: usize,
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
) -> Result<WorkerHandle, String> {
    let (sender, mut mail) = mpsc::channel(MAILBOX);
    let clients = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&clients);
    let shared = Arc::clone(shared);
    let metrics = metrics.worker(index);
    let (started, starting) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        // Made on its own thread, which it cannot leave: tasks go to its queue without a lock.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        // Whoever starts the workers waits for this.
        drop(started.send(Ok(())));
        let worker = Rc::new(Worker::new(index, shared, metrics));
        let mail = async move {
            let mut sweep = tokio::time::interval(SWEEP);
            tokio::task::spawn_local(Rc::clone(&worker).beg());
            loop {
                tokio::select! {
                    mail = mail.recv() => match mail {
                        Some(Mail::Client(stream)) => {
                            let worker = Rc::clone(&worker);
                            let counted = Arc::clone(&counted);
                            tokio::task::spawn_local(async move {
                                frontend::serve_client(worker, stream).await;
                                counted.fetch_sub(1, Ordering::Relaxed);
                            });
                        }
                        Some(Mail::Cancel { pid, secret }) => {
                            tokio::task::spawn_local(
                                frontend::cancel(Rc::clone(&worker), pid, secret));
                        }
                        Some(Mail::Figures(answer)) => {
                            // Whoever asked may have given up.
                            drop(answer.send(worker.figures()));
                        }
                        Some(Mail::Moving(answer)) => drop(answer.send(worker.moving_sessions())),
                        Some(Mail::Deadlock { session, turn, server }) => {
                            worker.end_deadlock(session, turn, server);
                        }
                        Some(Mail::People(answer)) => drop(answer.send(worker.people())),
                        Some(Mail::Kill { pid, answer }) => drop(answer.send(worker.kill(pid))),
                        Some(Mail::KillAll) => worker.kill_all(),
                        Some(Mail::Usages(answer)) => {
                            drop(answer.send(worker.plans.borrow().usage.figures()));
                        }
                        Some(Mail::Live(live)) => worker.set_live(live),
                        Some(Mail::Warm(users)) => worker.warm(users),
                        Some(Mail::Phase(phase)) => worker.enter(phase),
                        Some(Mail::Pause { shards, generation }) => {
                            worker.pause(&shards, generation);
                        }
                        Some(Mail::Resume { shards }) => worker.pools.resume(&shards),
                        Some(Mail::Renew { shards, generation }) => {
                            worker.pools.renew(&shards, generation);
                        }
                        Some(Mail::Borrow { want, from }) => worker.lend(want, from),
                        Some(Mail::Lent { want, lent }) => worker.borrow_places(&want, lent),
                        None => return,
                    },
                    _ = sweep.tick() => worker.sweep(Instant::now()),
                }
            }
        };
        runtime.block_on(mail);
    };
    std::thread::Builder::new()
        .name(format!("pgherd-{index}"))
        .spawn(body)
        .map_err(|error| format!("cannot start a worker: {error}"))?;
    match starting.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("cannot start a worker: {error}")),
        Err(_) => return Err("a worker ended before it had started".to_owned()),
    }
    Ok(WorkerHandle { mail: sender, clients })
}

/// Deals connections to the worker with the fewest clients, until the router is to end; then
/// closes the door.
async fn accept(
    listener: TcpListener,
    socket: Option<UnixSocket>,
    workers: &[WorkerHandle],
    shared: &Arc<Shared>,
    reuse_port: bool,
) {
    let mut phases = shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = next_client(&listener, socket.as_ref()) => accepted,
            _ = phases.wait_for(|phase| *phase > Phase::Serving) => break,
        };
        match accepted {
            Ok(stream) => deal(stream, workers).await,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to be closed.
                tracing::error!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    tracing::info!(phase = ?*shared.phase.borrow(), "stopping");
    let successor = reuse_port && *shared.phase.borrow() == Phase::HandOver;
    listen::close(listener, successor, async |stream| {
        if let Ok(stream) = prepare(stream) {
            deal(stream, workers).await;
        }
    })
    .await;
    if let Some(socket) = socket {
        // Whoever waits in its queue; a successor's clients are in another.
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::ZERO, socket.accept()).await {
            if let Ok(stream) = stream.into_std() {
                deal(Stream::Unix(stream), workers).await;
            }
        }
    }
}

async fn deal(stream: Stream, workers: &[WorkerHandle]) {
    let Some(worker) = workers.iter().min_by_key(|worker| worker.clients()) else { return };
    worker.clients.fetch_add(1, Ordering::Relaxed);
    if worker.mail.send(Mail::Client(stream)).await.is_err() {
        worker.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client of either listener. Cancel safe.
async fn next_client(
    listener: &TcpListener,
    socket: Option<&UnixSocket>,
) -> std::io::Result<Stream> {
    let local = async {
        match socket {
            Some(socket) => socket.accept().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        accepted = listener.accept() => {
            let (stream, _) = accepted?;
            prepare(stream)
        }
        accepted = local => Ok(Stream::Unix(accepted?.into_std()?)),
    }
}

/// For a worker's runtime.
fn prepare(stream: TcpStream) -> std::io::Result<Stream> {
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream.into_std()?))
}

/// Loads the map anew when the catalog says so, or this router itself has changed the schema.
async fn watch_map(shared: Arc<Shared>, dsn: String) {
    let watching = Arc::clone(&shared);
    let (dialer, url) = (Arc::clone(&shared.dialer), dsn.clone());
    let find = move || dialer.catalog(&url).map_err(|error| error.to_string());
    tokio::spawn(async move {
        let shared = &*watching;
        let at_hand = || Some(shared.map.load_full());
        let on_map = |map| shared.take_map(map);
        let on_contact = |state| shared.contact.note(state);
        store::watch(find, &shared.id, Duration::from_secs(1), at_hand, on_map, on_contact).await;
    });
    let mut catalog = None;
    loop {
        shared.reload.notified().await;
        if catalog.is_none() {
            catalog = match shared.dialer.catalog(&dsn) {
                Ok(target) => store::Catalog::connect(target).await.ok(),
                Err(_) => None,
            };
        }
        let newest = match &catalog {
            Some(catalog) => {
                catalog.announce().await.ok();
                take_newest(&shared, catalog).await
            }
            None => None,
        };
        match (&catalog, newest) {
            (Some(known), Some(epoch)) => {
                if wait_for_followers(known, epoch).await {
                    shared.known.send_replace(epoch.0);
                }
            }
            _ => catalog = None,
        }
    }
}

/// The newest epoch, once this router has its map: by the transaction that made it, or by following the
/// catalog; where neither has brought it soon, it is loaded here.
async fn take_newest(shared: &Shared, catalog: &store::Catalog) -> Option<Epoch> {
    let newest = catalog.epoch().await.ok()?;
    let mut loaded = shared.loaded.subscribe();
    let comes = loaded.wait_for(|epoch| *epoch >= newest.0);
    if tokio::time::timeout(OWN_WAIT, comes).await.is_ok() {
        return Some(newest);
    }
    let map = catalog.load().await.ok()?;
    let epoch = map.epoch;
    shared.take_map(Arc::new(map));
    Some(epoch)
}

/// Until every router has this map, so that a client who has been told of a change finds it
/// wherever it asks next. Not for long: one that is stopped looks at the catalog before it goes on.
async fn wait_for_followers(catalog: &store::Catalog, epoch: Epoch) -> bool {
    let deadline = Instant::now() + FOLLOWERS_WAIT;
    loop {
        match catalog.followers_behind(epoch).await {
            Ok(0) => return true,
            Ok(behind) if Instant::now() >= deadline => {
                tracing::warn!(behind, %epoch, "routers have not taken the new shard map in time");
                return false;
            }
            Ok(_) => tokio::time::sleep(FOLLOWERS_POLL).await,
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether all routers have the new shard map");
                return false;
            }
        }
    }
}

/// Looks at the files of the certificate for clients, every second.
async fn watch_certificate(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(CERTIFICATE);
    loop {
        ticks.tick().await;
        if let Some(acceptor) = &shared.tls {
            acceptor.refresh();
        }
    }
}

/// Roles come, go and change: `warm_users` names them only.
async fn keep_warm(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(WARM);
    loop {
        ticks.tick().await;
        if !shared.live.load().warm_users.is_empty() {
            shared.warm().await;
        }
    }
}

/// Finishes in-doubt transactions, at start and every few seconds.
async fn recover(shared: Arc<Shared>, catalog: Dsn) {
    let mut ticks = tokio::time::interval(recovery::INTERVAL);
    let mut recovery = recovery::Recovery::default();
    let mut before: BTreeMap<ShardId, Answers> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let map = shared.map.load_full();
        let shards: Vec<_> =
            map.shards().map(|shard| (shard.id, catalog.login_for(&shard.dsn))).collect();
        let health = recovery.sweep(&shared.dialer, &shards).await;
        shared.health.store(Arc::new(health));
        if !map.changing.is_empty()
            && let Err(error) = shared.end_changes().await
        {
            tracing::warn!(%error, "tables that are being distributed could not be looked at");
        }
        let mut seen = None;
        if !map.moving.is_empty() {
            let p99s: Vec<_> = shards
                .iter()
                .filter_map(|(shard, _)| {
                    let before = before.entry(*shard).or_default();
                    Some((*shard, shared.metrics.p99_since(*shard, before)?))
                })
                .collect();
            let answered = reshard::Answered { router: &shared.settings.router_name, p99s: &p99s };
            match reshard::rescue(&shared.dialer, &catalog, answered).await {
                Ok(run) => seen = run,
                // Most of the time somebody does drive it.
                Err(problem) => tracing::debug!(%problem, "a run of pgherd reshard was left alone"),
            }
        }
        shared.reshard.store(Arc::new(seen));
    }
}

/// SIGTERM drains (where another router may listen on the same address, it hands over), SIGINT
/// stops at once, SIGHUP reloads.
async fn obey_signals(shared: Arc<Shared>, reuse_port: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = signals else {
        tracing::error!("signals cannot be received: only SIGKILL ends this router");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => shared.enter(match reuse_port {
                true => Phase::HandOver,
                false => Phase::Drain,
            }),
            _ = int.recv() => shared.enter(Phase::Stop),
            _ = hup.recv() => {
                if let Err(error) = reload::reload(&shared).await {
                    tracing::error!(%error, "the configuration was not reloaded");
                }
            }
        }
    }
}
