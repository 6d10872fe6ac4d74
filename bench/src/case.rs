//! What is compared: a workload, the protocol it is spoken in, and how many clients do so.

use clap::ValueEnum;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// pgbench's select-only: one row by its key
    Select,
    /// pgbench's tpcb-like with every table distributed by its own key: several shards commit
    TpcbCrossShard,
    /// tpcb within one branch, every table distributed by bid: one shard commits
    TpcbCoLocated,
}

/// How the tables are distributed. All contenders get the same schema for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// accounts by aid, tellers by tid, branches by bid, history by aid.
    ByOwnKey,
    /// All four by bid.
    ByBranch,
}

/// pgbench's `-M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    Simple,
    Extended,
    Prepared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub workload: Workload,
    pub protocol: Protocol,
    pub clients: u32,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::TpcbCrossShard => "tpcb-cross-shard",
            Self::TpcbCoLocated => "tpcb-co-located",
        }
    }

    pub(crate) fn layout(self) -> Layout {
        match self {
            Self::Select | Self::TpcbCrossShard => Layout::ByOwnKey,
            Self::TpcbCoLocated => Layout::ByBranch,
        }
    }
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    /// Empty: all.
    pub workloads: &'a [Workload],
    pub protocols: &'a [Protocol],
    pub clients: &'a [u32],
    pub tpcb_clients: &'a [u32],
}

impl Selection<'_> {
    /// All cases, those of one layout together, so that tables are loaded once for each.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let mut workloads = if self.workloads.is_empty() {
            Workload::value_variants().to_vec()
        } else {
            self.workloads.to_vec()
        };
        workloads.sort_unstable();
        workloads.dedup();
        let mut cases = Vec::new();
        for workload in workloads {
            let clients = match workload {
                Workload::Select => self.clients,
                Workload::TpcbCrossShard | Workload::TpcbCoLocated => self.tpcb_clients,
            };
            for &clients in clients {
                for &protocol in self.protocols {
                    cases.push(Case { workload, protocol, clients });
                }
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(workloads: &[Workload]) -> Selection<'_> {
        Selection {
            workloads,
            protocols: &[Protocol::Simple, Protocol::Prepared],
            clients: &[1, 256],
            tpcb_clients: &[16],
        }
    }

    #[test]
    fn every_workload_is_compared_unless_some_are_named() {
        assert_eq!(selection(&[]).cases().len(), 2 * 2 + 2 + 2);
        let only = selection(&[Workload::TpcbCoLocated]).cases();
        let case = |protocol| Case { workload: Workload::TpcbCoLocated, protocol, clients: 16 };
        assert_eq!(only, [case(Protocol::Simple), case(Protocol::Prepared)]);
    }

    #[test]
    fn a_workload_that_is_named_twice_runs_once() {
        assert_eq!(selection(&[Workload::TpcbCoLocated; 2]).cases().len(), 2);
    }

    #[test]
    fn cases_of_one_layout_stand_together() {
        let named = [Workload::TpcbCoLocated, Workload::Select, Workload::TpcbCrossShard];
        let mut layouts: Vec<Layout> =
            selection(&named).cases().iter().map(|case| case.workload.layout()).collect();
        layouts.dedup();
        assert_eq!(layouts, [Layout::ByOwnKey, Layout::ByBranch]);
    }
}
