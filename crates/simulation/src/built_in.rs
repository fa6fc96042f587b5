//! The scenarios that come with the program.

macro_rules! scenario {
    ($name:literal) => {
        ($name, include_str!(concat!("../scenarios/", $name, ".toml")))
    };
}

const SCENARIOS: &[(&str, &str)] = &[
    scenario!("balancer-dies"),
    scenario!("blind"),
    scenario!("blind-in-a-rise"),
    scenario!("blind-new-manager"),
    scenario!("clock-jumps"),
    scenario!("disaster"),
    scenario!("drain-limit"),
    scenario!("drain-reversed"),
    scenario!("dry-run"),
    scenario!("empty-list"),
    scenario!("failed-boots"),
    scenario!("flash-crowd"),
    scenario!("freeze"),
    scenario!("half-launch"),
    scenario!("held-dead"),
    scenario!("last-proxy-dies"),
    scenario!("launch-limit"),
    scenario!("left-out"),
    scenario!("list-fails"),
    scenario!("lost-polls"),
    scenario!("maximum"),
    scenario!("never-boots"),
    scenario!("night"),
    scenario!("no-machines"),
    scenario!("no-manager"),
    scenario!("only-balancer-dies"),
    scenario!("operator-drains"),
    scenario!("operator-weighs"),
    scenario!("orphans"),
    scenario!("overload-seen-by-balancers"),
    scenario!("paper-figure-5"),
    scenario!("paper-load-default-policy"),
    scenario!("paper-load-slow-cloud"),
    scenario!("partial-list"),
    scenario!("proxy-dies"),
    scenario!("restart-in-scale-in"),
    scenario!("restart-in-scale-out"),
    scenario!("sawtooth"),
    scenario!("silent-for-good"),
    scenario!("slow-boots"),
    scenario!("slow-start"),
    scenario!("two-proxies-die"),
    scenario!("unreached"),
];

/// Name and text of every scenario in `scenarios/`.
#[must_use]
pub const fn built_in() -> &'static [(&'static str, &'static str)] {
    SCENARIOS
}
