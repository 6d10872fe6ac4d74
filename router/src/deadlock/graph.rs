//! Who waits for whom over all shards, and who has to give way. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use pgherd_shard_map::ShardId;

/// A session of some router that waits, as its router has published it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session {
    pub(super) router: Box<str>,
    pub(super) session: u32,
    /// It changes with each statement.
    pub(super) turn: u32,
    /// By the clock of the shard where it waits.
    pub(super) started: f64,
    /// Its server processes.
    pub(super) servers: Vec<(ShardId, i32)>,
}

/// A server process that waits for a lock.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wait {
    pub(super) shard: ShardId,
    pub(super) pid: i32,
    /// The processes that keep it; 0 is a prepared transaction.
    pub(super) by: Vec<i32>,
    pub(super) transaction_started: f64,
    pub(super) statement_started: f64,
}

/// Whoever may wait and be waited for, in one statement: the next one is another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    Session {
        router: Box<str>,
        session: u32,
        turn: u32,
    },
    /// A process of no published session: of a transaction on one shard, or of no router.
    Process {
        shard: ShardId,
        pid: i32,
        statement: u64,
    },
}

/// The first waits for the second.
pub(super) type Edge = (Node, Node);

impl Session {
    pub(super) fn owns(&self, shard: ShardId, pid: i32) -> bool {
        self.servers.contains(&(shard, pid))
    }

    fn node(&self) -> Node {
        let (router, session, turn) = (self.router.clone(), self.session, self.turn);
        Node::Session { router, session, turn }
    }
}

/// Edges between those that wait. Whoever does not wait ends by itself, and is no part of a circle.
pub(super) fn edges(sessions: &[Session], waits: &[Wait]) -> HashSet<Edge> {
    let mut nodes: HashMap<(ShardId, i32), Node> = HashMap::new();
    for wait in waits {
        let (shard, pid, statement) = (wait.shard, wait.pid, wait.statement_started.to_bits());
        nodes.insert((shard, pid), Node::Process { shard, pid, statement });
    }
    for session in sessions {
        for server in &session.servers {
            nodes.insert(*server, session.node());
        }
    }
    let mut edges = HashSet::new();
    for wait in waits {
        for by in &wait.by {
            let ends = (nodes.get(&(wait.shard, wait.pid)), nodes.get(&(wait.shard, *by)));
            // Workers of a parallel query wait for their own leader.
            if let (Some(from), Some(to)) = ends
                && from != to
            {
                edges.insert((from.clone(), to.clone()));
            }
        }
    }
    edges
}

/// The youngest session of each circle. Every router finds the same ones.
pub(super) fn victims<'a>(sessions: &'a [Session], edges: &HashSet<Edge>) -> Vec<&'a Session> {
    let mut from: BTreeMap<&Node, Vec<&Node>> = BTreeMap::new();
    for (waits, keeps) in edges {
        from.entry(waits).or_default().push(keeps);
    }
    let nodes: Vec<Node> = sessions.iter().map(Session::node).collect();
    let reached: Vec<HashSet<&Node>> = nodes.iter().map(|node| reachable(node, &from)).collect();
    let mut victims: Vec<usize> = Vec::new();
    for at in 0..sessions.len() {
        let circle = (0..sessions.len())
            .filter(|other| reached[at].contains(&nodes[*other]))
            .filter(|other| reached[*other].contains(&nodes[at]));
        let youngest = circle.max_by(|a, b| {
            let (a, b) = (&sessions[*a], &sessions[*b]);
            let names = || (&a.router, a.session).cmp(&(&b.router, b.session));
            a.started.total_cmp(&b.started).then_with(names)
        });
        if let Some(youngest) = youngest.filter(|youngest| !victims.contains(youngest)) {
            victims.push(youngest);
        }
    }
    victims.into_iter().map(|at| &sessions[at]).collect()
}

/// What is waited for in the end; the node itself only if it stands in a circle.
fn reachable<'a>(node: &Node, from: &BTreeMap<&'a Node, Vec<&'a Node>>) -> HashSet<&'a Node> {
    let mut reached = HashSet::new();
    let mut next: Vec<&Node> = from.get(node).cloned().unwrap_or_default();
    while let Some(node) = next.pop() {
        if reached.insert(node) {
            next.extend(from.get(node).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(router: &str, number: u32, started: f64, servers: &[(u32, i32)]) -> Session {
        let servers = servers.iter().map(|(shard, pid)| (ShardId(*shard), *pid)).collect();
        Session { router: router.into(), session: number, turn: 1, started, servers }
    }

    fn wait(shard: u32, pid: i32, by: &[i32]) -> Wait {
        let (transaction_started, statement_started) = (0.0, 0.0);
        let by = by.to_vec();
        Wait { shard: ShardId(shard), pid, by, transaction_started, statement_started }
    }

    fn found(sessions: &[Session], waits: &[Wait]) -> Vec<u32> {
        victims(sessions, &edges(sessions, waits)).iter().map(|victim| victim.session).collect()
    }

    #[test]
    fn the_youngest_of_a_circle_over_two_shards_gives_way() {
        let sessions = [
            session("a", 1, 10.0, &[(0, 11), (1, 12)]),
            session("b", 2, 20.0, &[(0, 21), (1, 22)]),
        ];
        let circle = [wait(0, 11, &[21]), wait(1, 22, &[12])];
        assert_eq!(found(&sessions, &circle), [2]);
        // The same process numbers on other shards are other processes.
        assert_eq!(found(&sessions, &[wait(0, 11, &[21]), wait(0, 22, &[12])]), [0; 0]);
        assert_eq!(found(&sessions, &circle[..1]), [0; 0]);
    }

    #[test]
    fn a_circle_may_go_through_a_transaction_of_one_shard() {
        let sessions = [
            session("a", 1, 20.0, &[(0, 11), (1, 12)]),
            session("b", 2, 10.0, &[(0, 21), (1, 22)]),
        ];
        let waits = [wait(0, 11, &[99]), wait(0, 99, &[21]), wait(1, 22, &[12])];
        assert_eq!(found(&sessions, &waits), [1]);
    }

    #[test]
    fn whoever_waits_for_a_circle_is_not_part_of_it() {
        let sessions = [
            session("a", 1, 10.0, &[(0, 11), (1, 12)]),
            session("b", 2, 20.0, &[(0, 21), (1, 22)]),
            session("c", 3, 30.0, &[(0, 31), (1, 32)]),
        ];
        let waits = [wait(0, 11, &[21]), wait(1, 22, &[12]), wait(0, 31, &[11])];
        assert_eq!(found(&sessions, &waits), [2]);
    }

    #[test]
    fn a_session_in_its_next_statement_is_another_node() {
        let mut sessions = [
            session("a", 1, 10.0, &[(0, 11), (1, 12)]),
            session("b", 2, 20.0, &[(0, 21), (1, 22)]),
        ];
        let circle = [wait(0, 11, &[21]), wait(1, 22, &[12])];
        let before = edges(&sessions, &circle);
        sessions[0].turn = 2;
        let stable: HashSet<Edge> =
            edges(&sessions, &circle).intersection(&before).cloned().collect();
        assert_eq!(victims(&sessions, &stable), Vec::<&Session>::new());
    }
}
