//! Where clients come in, and how the door is closed without hitting anybody.
//!
//! With `reuse_port` a second router may listen on the same address, and the kernel deals new
//! connections to both. A listener that is closed resets those that wait in its queue and those
//! whose handshake is under way. So it first stops taking part in new handshakes: a filter on the
//! socket drops their first packet, which the client's kernel sends again a second later, to the
//! other router then. Those under way complete, are accepted, and the door closes on an empty
//! queue.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Handshakes that have begun take no longer, short of a lost packet.
const HANDSHAKE: Duration = Duration::from_millis(250);

/// Drops segments that have SYN set, and nothing else: byte 13 of a TCP header holds the flags.
const NO_NEW_HANDSHAKES: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, 0xffff_ffff),
];

/// # Errors
/// The system's: the address is taken, mostly.
pub(super) fn listen(address: SocketAddr, reuse_port: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts what has come so far, then closes. `successor`: another router listens on the address,
/// and nobody may be turned away.
pub(super) async fn close(
    listener: TcpListener,
    successor: bool,
    mut take: impl AsyncFnMut(TcpStream),
) {
    let until =
        if successor && bar(&listener) { Instant::now() + HANDSHAKE } else { Instant::now() };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, listener.accept()).await {
            Ok(Ok((stream, _))) => take(stream).await,
            Ok(Err(error)) => {
                tracing::warn!(%error, "accept failed while the listener was being closed");
                return;
            }
            Err(_) => return,
        }
    }
}

/// From now on nobody new is heard; false where the system has no such filter.
fn bar(listener: &TcpListener) -> bool {
    let barred = socket2::SockRef::from(listener).attach_filter(&NO_NEW_HANDSHAKES);
    if let Err(error) = &barred {
        tracing::warn!(%error, "connections that come at this moment may be reset");
    }
    barred.is_ok()
}
