//! Which addresses the routers of a local cluster get.
//!
//! The first router has what `--listen` and `--http` say. Each further one has the next ports
//! that no other address of the cluster has: 6432 and 6433, 6434 and 6435, and so on. Port 0
//! takes free ports instead.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

/// Where one router listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouterAddresses {
    pub(super) listen: SocketAddr,
    pub(super) http: SocketAddr,
}

/// The addresses of all routers, checked to be free.
///
/// # Errors
/// Which address is taken, by which option it came, and what to do.
pub(super) fn assign(
    listen: SocketAddr,
    http: SocketAddr,
    routers: u16,
) -> Result<Vec<RouterAddresses>, String> {
    let mut taken = BTreeSet::new();
    if listen.port() != 0 && listen == http {
        return Err(format!("--listen and --http are both {listen}\nGive them different ports."));
    }
    // The first HTTP port is spoken for, so that no further router meets it.
    taken.extend([listen.port(), http.port()].into_iter().filter(|port| *port != 0));
    let mut found: Vec<RouterAddresses> = Vec::new();
    for _ in 0..routers {
        let last = found.last().copied();
        let listen = following(listen, last.map(|last| last.listen), &mut taken, "--listen")?;
        let http = following(http, last.map(|last| last.http), &mut taken, "--http")?;
        found.push(RouterAddresses { listen, http });
    }
    Ok(found)
}

fn following(
    base: SocketAddr,
    last: Option<SocketAddr>,
    taken: &mut BTreeSet<u16>,
    option: &str,
) -> Result<SocketAddr, String> {
    let port = match (base.port(), last) {
        (0, _) => loop {
            let port = free_port()?;
            if !taken.contains(&port) {
                break port;
            }
        },
        (port, None) => port,
        (_, Some(last)) => (last.port()..=u16::MAX)
            .find(|port| !taken.contains(port))
            .ok_or_else(|| format!("no port is left above {last}\nChoose a lower {option}."))?,
    };
    taken.insert(port);
    let address = SocketAddr::new(base.ip(), port);
    TcpListener::bind(address).map_err(|error| {
        format!("cannot listen on {address}: {error}\nChoose another address with {option}.")
    })?;
    Ok(address)
}

/// Where free ports are looked for: below what Linux gives to outgoing connections, since one of
/// those could have the port before the server that it is meant for.
const FREE_PORTS: Range<u16> = 10_000..32_768;

/// How many of them are tried.
const PORT_TRIES: usize = 100;

/// A port that was free a moment ago. Any of many, so that clusters which start at the same time
/// seldom choose the same.
pub(super) fn free_port() -> Result<u16, String> {
    let mut last = String::new();
    for _ in 0..PORT_TRIES {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
        let span = FREE_PORTS.end - FREE_PORTS.start;
        let port = FREE_PORTS.start + u16::from_ne_bytes(bytes) % span;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("cannot find a free port: {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_take_the_next_ports_that_no_other_address_has() {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // The range is found free as a whole, so that real listeners do not disturb.
        let base = (20_000..60_000)
            .step_by(16)
            .find(|base| (*base..base + 16).all(|port| TcpListener::bind(at(port)).is_ok()))
            .expect("sixteen free ports in a row");
        let ports = |listen, http, routers| -> Vec<(u16, u16)> {
            let found = assign(at(base + listen), at(base + http), routers).expect("free ports");
            found.iter().map(|a| (a.listen.port() - base, a.http.port() - base)).collect()
        };
        assert_eq!(ports(0, 1, 3), [(0, 1), (2, 3), (4, 5)]);
        assert_eq!(ports(0, 8, 3), [(0, 8), (1, 9), (2, 10)]);
        assert_eq!(ports(1, 0, 2), [(1, 0), (2, 3)]);
    }

    #[test]
    fn a_taken_port_is_named_with_its_option() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let taken = holder.local_addr().expect("an address");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let error = assign(any, taken, 1).expect_err("taken");
        assert!(error.contains(&taken.to_string()) && error.contains("--http"), "{error}");
        let error = assign(taken, any, 1).expect_err("taken");
        assert!(error.contains(&taken.to_string()) && error.contains("--listen"), "{error}");
    }
}
