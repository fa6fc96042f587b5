//! The drills there are: for each the cloud that it needs, the load, and what is played.

use load_client::{Schedule, ScheduleError};

use super::scene::{Played, Scene};
use super::traffic::Way;
use super::{faults, scaling};
use crate::cli::DrillName;

/// How large the drill's own cloud is.
pub(super) struct Shape {
    /// Minimum and maximum.
    pub(super) proxies: (u32, u32),
    pub(super) balancers: (u32, u32),
    /// What one proxy is trusted with.
    pub(super) capacity_cps: u32,
    pub(super) poll_interval_ms: u64,
}

/// One drill.
pub(super) struct Spec {
    pub(super) name: DrillName,
    pub(super) what: &'static str,
    pub(super) way: Way,
    load: Load,
    size: Size,
    pub(super) play: fn(&mut Scene<'_>) -> Played,
}

#[derive(Clone, Copy)]
enum Load {
    /// At once to the top, until the play is over.
    Steady,
    /// Up to the top, and there until the play is over.
    Climb,
    /// Up, the top for the time that was asked for, down, and there until the play is over.
    UpAndDown,
}

#[derive(Clone, Copy)]
enum Size {
    /// Proxies and balancers, as many as they are.
    Fixed { proxies: u32, balancers: u32 },
    /// One balancer, and from one proxy to so many at the top of the load.
    Grows { proxies: u32 },
}

pub(super) const ALL: [Spec; 11] = [
    Spec {
        name: DrillName::ScaleOut,
        what: "the load climbs until a proxy is added",
        way: Way::Addresses,
        load: Load::Climb,
        size: Size::Grows { proxies: 2 },
        play: scaling::scale_out,
    },
    Spec {
        name: DrillName::ScaleIn,
        what: "the load falls until a proxy is drained and gone",
        way: Way::Addresses,
        load: Load::UpAndDown,
        size: Size::Grows { proxies: 2 },
        play: scaling::scale_in,
    },
    Spec {
        name: DrillName::OneFourOne,
        what: "from one proxy to four and back to one, with the shares of each",
        way: Way::Addresses,
        load: Load::UpAndDown,
        size: Size::Grows { proxies: 4 },
        play: scaling::one_four_one,
    },
    Spec {
        name: DrillName::Upgrade,
        what: "every node of both tiers is replaced, one at a time",
        way: Way::Name,
        load: Load::Steady,
        size: Size::Fixed { proxies: 2, balancers: 2 },
        play: scaling::upgrade,
    },
    Spec {
        name: DrillName::KillProxy,
        what: "kill -9 of a proxy",
        way: Way::Addresses,
        load: Load::Steady,
        size: Size::Fixed { proxies: 3, balancers: 1 },
        play: faults::kill_proxy,
    },
    Spec {
        name: DrillName::KillBalancer,
        what: "kill -9 of one of two balancers",
        way: Way::Name,
        load: Load::Steady,
        size: Size::Fixed { proxies: 2, balancers: 2 },
        play: faults::kill_balancer,
    },
    Spec {
        name: DrillName::KillManager,
        what: "kill -9 of the manager while it adds a proxy, and once more",
        way: Way::Addresses,
        load: Load::Climb,
        size: Size::Grows { proxies: 2 },
        play: faults::kill_manager,
    },
    Spec {
        name: DrillName::KillStoreNode,
        what: "kill -9 of a node of the database, which comes back",
        way: Way::Addresses,
        load: Load::Steady,
        size: Size::Fixed { proxies: 2, balancers: 1 },
        play: faults::kill_store_node,
    },
    Spec {
        name: DrillName::CutMetrics,
        what: "the manager cannot poll while the load falls: nothing may shrink",
        way: Way::Addresses,
        load: Load::UpAndDown,
        size: Size::Grows { proxies: 2 },
        play: scaling::cut_metrics,
    },
    Spec {
        name: DrillName::SlowStore,
        what: "the database takes no writes for a while (SQLite), or a node of it stands still",
        way: Way::Addresses,
        load: Load::Steady,
        size: Size::Fixed { proxies: 2, balancers: 1 },
        play: faults::slow_store,
    },
    Spec {
        name: DrillName::DrainWithNoise,
        what: "a proxy and a balancer drain while strangers keep sending to them",
        way: Way::Name,
        load: Load::Steady,
        size: Size::Fixed { proxies: 2, balancers: 2 },
        play: faults::drain_with_noise,
    },
];

/// Long enough for everything that is waited for after the last change of the load.
const OPEN_END: &str = "1200s";

impl Spec {
    /// The cloud for it, at `rate` calls per second.
    pub(super) fn shape(&self, rate: u32) -> Shape {
        let (proxies, balancers, capacity_cps) = match self.size {
            Size::Fixed { proxies, balancers } => {
                // Far from growing, even when one proxy is missing.
                ((proxies, proxies), (balancers, balancers), rate.saturating_mul(4).max(50))
            }
            // Two proxies want all of three quarters, four want what three have.
            Size::Grows { proxies } => ((1, proxies), (1, 1), (rate / (proxies - 1)).max(1)),
        };
        Shape { proxies, balancers, capacity_cps, poll_interval_ms: 1_000 }
    }

    /// When calls start.
    pub(super) fn schedule(&self, rate: u32, seconds: u64) -> Result<Schedule, ScheduleError> {
        let top = f64::from(rate);
        let low = top / 8.0;
        match self.load {
            Load::Steady => format!("{top}@{OPEN_END}"),
            Load::Climb => format!("{low}@8s,{low}..{top}@15s,{top}@{OPEN_END}"),
            Load::UpAndDown => {
                format!(
                    "{low}@8s,{low}..{top}@15s,{top}@{seconds}s,{top}..{low}@15s,{low}@{OPEN_END}"
                )
            }
        }
        .parse()
    }
}

pub(super) fn of(name: DrillName) -> Option<&'static Spec> {
    ALL.iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_name_has_a_drill_whose_load_can_be_read() {
        for name in DrillName::value_variants() {
            let spec = of(*name).expect("a drill");
            for rate in [1, 20, 300] {
                spec.schedule(rate, 40).expect("a schedule");
                let shape = spec.shape(rate);
                assert!(shape.capacity_cps > 0 && shape.proxies.0 <= shape.proxies.1);
            }
        }
        assert_eq!(ALL.len(), DrillName::value_variants().len());
    }
}
