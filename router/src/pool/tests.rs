//! Pools against a shard that is played by a task: it lets everybody in and has no rows.

use std::cell::RefCell;

use pgherd_shard_map::Epoch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::config::ServerTls;

const SHARD: ShardId = ShardId(0);

fn limits(size: usize) -> PoolLimits {
    PoolLimits {
        size,
        min_size: 0,
        wait: Duration::from_secs(30),
        pause_wait: Duration::from_secs(30),
        waiting_max: 1000,
        connect: Duration::from_secs(30),
        idle: Duration::from_secs(600),
        lifetime: None,
    }
}

fn pools_of(limits: PoolLimits) -> Pools {
    let dialer = Arc::new(Dialer::new(ServerTls::default()).expect("no files"));
    let admissions = [Arc::new(Semaphore::new(limits.size))].into();
    let metrics = crate::telemetry::Metrics::new(1).worker(0);
    let router = Membership { id: "test".into(), loaded: watch::channel(0).1 };
    Pools::new(limits, 0, admissions, dialer, Arc::default(), metrics, router)
}

fn login() -> Login {
    let role = RoleVersion { oid: 10, settings: 0 };
    Login { user: "ada".into(), database: "app".into(), role, proof: Proof::None, seat: None }
}

/// Where the played shard is; it lets as many in as the semaphore has permits.
async fn shard(doors: Arc<Semaphore>, inside: Rc<Cell<usize>>) -> ShardMap {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let dsn =
        format!("postgres://{}/app?sslmode=disable", listener.local_addr().expect("an address"));
    spawn_local(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            inside.set(inside.get() + 1);
            let doors = Arc::clone(&doors);
            spawn_local(async move {
                doors.acquire().await.expect("never closed").forget();
                let mut hello = [0; 512];
                let _ = stream.read(&mut hello).await;
                let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
                // Open until the router closes it.
                while stream.read(&mut hello).await.is_ok_and(|size| size > 0) {
                    // A row that says epoch 0.
                    let answer = b"D\0\0\0\x0b\0\x01\0\0\0\x010Z\0\0\0\x05I";
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    map(&dsn)
}

fn map(dsn: &str) -> ShardMap {
    let shard = pgherd_shard_map::Shard { id: SHARD, dsn: dsn.into() };
    ShardMap::try_new(Epoch::FIRST, SHARD, true, vec![shard], vec![], vec![]).expect("a map")
}

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_queue_is_served_in_the_order_in_which_it_formed() {
    let work = async {
        let map = Rc::new(shard(Arc::new(Semaphore::new(100)), Rc::default()).await);
        let pools = Rc::new(pools_of(limits(1)));
        let held = pools.checkout(SHARD, &login(), &map, None).await.expect("a connection");
        let served = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..5 {
            let (pools, map, served) = (Rc::clone(&pools), Rc::clone(&map), Rc::clone(&served));
            tasks.push(spawn_local(async move {
                let server = pools.checkout(SHARD, &login(), &map, None).await.expect("its turn");
                served.borrow_mut().push(number);
                tokio::task::yield_now().await;
                pools.give_back(&login(), server);
            }));
            settle().await;
        }
        // One leaves the queue; a newcomer comes just when the connection is given back.
        tasks.remove(2).abort();
        pools.give_back(&login(), held);
        assert!(pools.idle(SHARD, &login()).is_none(), "a newcomer passes the queue");
        for task in tasks {
            task.await.expect("served");
        }
        assert_eq!(*served.borrow(), [0, 1, 3, 4]);
        assert_eq!(pools.figures()[0].idle, 1);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_place_that_comes_free_goes_to_the_first_in_the_queue_as_well() {
    let work = async {
        let map = Rc::new(shard(Arc::new(Semaphore::new(100)), Rc::default()).await);
        let pools = Rc::new(pools_of(limits(1)));
        let mut held = pools.checkout(SHARD, &login(), &map, None).await.expect("a connection");
        let served = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..3 {
            let (pools, map, served) = (Rc::clone(&pools), Rc::clone(&map), Rc::clone(&served));
            tasks.push(spawn_local(async move {
                let mut server =
                    pools.checkout(SHARD, &login(), &map, None).await.expect("its turn");
                served.borrow_mut().push(number);
                server.spoiled = true;
                pools.give_back(&login(), server);
            }));
            settle().await;
        }
        held.spoiled = true;
        pools.give_back(&login(), held);
        for task in tasks {
            task.await.expect("served");
        }
        assert_eq!(*served.borrow(), [0, 1, 2]);
        assert_eq!(pools.connects(), (4, 0), "nothing unclean is used again");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_storm_opens_a_few_connections_at_a_time() {
    let work = async {
        let doors = Arc::new(Semaphore::new(0));
        let inside = Rc::new(Cell::new(0));
        let map = Rc::new(shard(Arc::clone(&doors), Rc::clone(&inside)).await);
        let pools = Rc::new(pools_of(limits(64)));
        let mut tasks = Vec::new();
        for number in 0..200 {
            let login = Login { user: format!("user{}", number % 10).into(), ..login() };
            let (pools, map) = (Rc::clone(&pools), Rc::clone(&map));
            tasks.push(spawn_local(async move {
                let server = pools.checkout(SHARD, &login, &map, None).await.expect("its turn");
                tokio::task::yield_now().await;
                pools.give_back(&login, server);
            }));
        }
        while inside.get() < 8 {
            tokio::task::yield_now().await;
        }
        settle().await;
        assert_eq!(inside.get(), 8, "more at a time, over all users");
        doors.add_permits(1000);
        for task in tasks {
            task.await.expect("served");
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_dead_shard_is_an_error_at_once_for_all_who_wait() {
    let work = async {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dsn =
            format!("postgres://{}/app?sslmode=disable", closed.local_addr().expect("an address"));
        drop(closed);
        let map = map(&dsn);
        let pools = Rc::new(pools_of(limits(2)));
        let login = login();
        let waiting = (0..20).map(|_| pools.checkout(SHARD, &login, &map, None));
        for outcome in futures_util::future::join_all(waiting).await {
            assert_eq!(outcome.expect_err("nobody is there").sqlstate, "08006");
        }
        let error = pools.checkout(SHARD, &login, &map, None).await.expect_err("left alone");
        assert!(error.message.contains("a moment ago"), "{}", error.message);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_dead_shard_is_an_error_at_once_while_a_session_holds_what_it_had() {
    let work = async {
        let map = Rc::new(shard(Arc::new(Semaphore::new(1)), Rc::default()).await);
        let pools = Rc::new(pools_of(limits(2)));
        let login = login();
        let held = pools.checkout(SHARD, &login, &map, None).await.expect("a connection");
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dsn =
            format!("postgres://{}/app?sslmode=disable", closed.local_addr().expect("an address"));
        drop(closed);
        let map = self::map(&dsn);
        for _ in 0..2 {
            let error =
                pools.checkout(SHARD, &login, &map, None).await.expect_err("nobody is there");
            assert_eq!(error.sqlstate, "08006", "{}", error.message);
        }
        pools.give_back(&login, held);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_pause_lets_transactions_finish_that_had_begun() {
    let work = async {
        let map = Rc::new(shard(Arc::new(Semaphore::new(100)), Rc::default()).await);
        let pools = Rc::new(pools_of(limits(4)));
        let login = login();
        let warm = pools.checkout(SHARD, &login, &map, None).await.expect("a connection");
        let before = pools.try_admit().expect("a ticket");
        pools.give_back(&login, warm);
        pools.pause(&[SHARD], 1);
        assert_eq!((pools.figures()[0].idle, pools.figures()[0].paused), (0, true));
        let after = pools.try_admit().expect("a ticket");
        let newcomer = {
            let (pools, map, login) = (Rc::clone(&pools), Rc::clone(&map), login.clone());
            spawn_local(async move { pools.checkout(SHARD, &login, &map, Some(&after)).await })
        };
        let old =
            pools.checkout(SHARD, &login, &map, Some(&before)).await.expect("it began before");
        assert!(!newcomer.is_finished());
        pools.give_back(&login, old);
        settle().await;
        assert_eq!(pools.figures()[0].active + pools.figures()[0].idle, 0, "closed, not kept");
        assert!(!newcomer.is_finished());
        pools.resume(&[SHARD]);
        assert!(newcomer.await.expect("it ran").is_ok());
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn places_move_to_the_worker_that_needs_them() {
    let work = async {
        let map = Rc::new(shard(Arc::new(Semaphore::new(100)), Rc::default()).await);
        let (rich, poor) = (Rc::new(pools_of(limits(1))), Rc::new(pools_of(limits(1))));
        let login = login();
        let idle = rich.checkout(SHARD, &login, &map, None).await.expect("a connection");
        rich.give_back(&login, idle);
        let held = poor.checkout(SHARD, &login, &map, None).await.expect("a connection");
        let waiting = {
            let (poor, map, login) = (Rc::clone(&poor), Rc::clone(&map), login.clone());
            spawn_local(async move { poor.checkout(SHARD, &login, &map, None).await })
        };
        poor.hungry.notified().await;
        let wants = poor.wants();
        assert_eq!((wants.len(), wants[0].count), (1, 1));
        let lent = rich.lend(&wants[0]);
        assert!(matches!(lent.as_slice(), [Some(_)]), "{lent:?}");
        assert!(rich.lend(&wants[0]).is_empty(), "it has only one");
        poor.borrow_places(&wants[0], lent, Rc::new);
        let got = waiting.await.expect("it ran").expect("the neighbour's");
        assert_eq!(poor.connects(), (1, 0), "the connection itself has moved");
        assert_eq!((poor.figures()[0].size, rich.figures()[0].size), (2, 0));
        for server in [held, got] {
            poor.give_back(&login, server);
        }
        // Whoever is done with the pool passes the place on, until it is back.
        let later = Instant::now() + rich.limits.get().idle;
        let [unused] = &*poor.sweep(later, &map, |_, _| false) else { panic!("one place") };
        assert_eq!(unused.count, 1);
        rich.borrow_places(unused, vec![None], Rc::new);
        assert_eq!(rich.figures()[0].size, 1);
        assert!(rich.sweep(later, &map, |_, _| false).is_empty());
        assert_eq!((poor.figures().len(), rich.figures().len()), (0, 0));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn what_is_too_old_or_unused_is_closed_and_what_is_to_be_warm_is_opened() {
    let work = async {
        let map = Rc::new(shard(Arc::new(Semaphore::new(100)), Rc::default()).await);
        let warm = PoolLimits { min_size: 2, lifetime: Some(Duration::from_secs(60)), ..limits(4) };
        let pools = Rc::new(pools_of(warm));
        let login = login();
        pools.expect(&login, &map);
        while pools.figures()[0].idle < 2 {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        let far = pools.limits.get().idle;
        pools.set_limits(PoolLimits { lifetime: None, ..warm });
        pools.sweep(now, &map, |_, _| true);
        assert_eq!(pools.figures()[0].idle, 2, "kept warm");
        pools.sweep(now + Duration::from_secs(61), &map, |_, _| true);
        assert_eq!(pools.figures()[0].idle, 0, "too old");
        assert_eq!(pools.figures()[0].opening, 2, "replaced");
        while pools.figures()[0].idle < 2 {
            tokio::task::yield_now().await;
        }
        pools.sweep(now + far + Duration::from_secs(100), &map, |_, _| false);
        assert!(pools.figures().is_empty(), "nobody is here who would need it");
    };
    LocalSet::new().run_until(work).await;
}
