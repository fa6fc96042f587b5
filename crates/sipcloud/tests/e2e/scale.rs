//! The fleet follows the load, and says why.

use std::time::Duration;

use fleet::Tier;
use node_api::wire::EventKind;

use crate::cloud::{Data, instances, tier};
use crate::load::{self, CALLERS};

/// Short transactions, so that a drain ends within seconds; a quick eye for load.
const QUICK: &str = "timers.t1_ms = 100\nmanager.up_polls = 2\nmanager.down_polls = 3\n";

/// Goal: under a load that climbs and falls the proxy tier goes 1 → 3 → 1, no call fails, and the
/// journal has a reason for every change.
#[test]
fn proxies_come_and_go_with_the_load_and_no_call_fails() {
    let data = Data::claim(151).with_users(&CALLERS);
    let cloud = data.up("--proxies 1..3 --capacity 25", QUICK);
    let _callees = load::direct_callees(&cloud);
    let schedule = "8@2s,8..60@4s,60@6s,60..8@2s,8@9s";
    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], schedule);
    let running = load::start(plan);
    let within = Duration::from_secs(30);
    cloud.wait("growth", within, |fleet| tier(fleet, Tier::Proxy).in_service == 3);
    cloud.wait("shrinking", within, |fleet| tier(fleet, Tier::Proxy).in_service == 1);
    load::assert_no_call_failed(&running.join().expect("the callers"));
    let fleet = cloud
        .wait("the end of the drains", within, |fleet| instances(fleet, Tier::Proxy).len() == 1);

    let events = cloud.events();
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.number, number, "no gaps: {event:?}");
        assert!(!event.text.is_empty(), "{event:?}");
    }
    let of_proxies = |kind: EventKind| {
        events.iter().filter(move |it| it.kind == kind && it.tier.as_deref() == Some("proxy"))
    };
    let decisions: Vec<_> = of_proxies(EventKind::Decision).collect();
    let mut planned = 0;
    for decision in &decisions {
        let why = decision.text.split_once(": ").map_or("", |(_, why)| why);
        assert!(why.len() > 5, "a decision has its reason: {decision:?}");
        assert_eq!(decision.before, Some(planned), "they follow one another: {decision:?}");
        planned = decision.desired.expect("a number");
    }
    assert_eq!(planned, tier(&fleet, Tier::Proxy).desired, "journal and status agree");
    let changes = decisions.iter().map(|it| it.desired.expect("a number"));
    assert_eq!(changes.max(), Some(3), "{decisions:?}");
}
