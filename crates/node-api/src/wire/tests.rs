//! What is written is read back, and what must not be shown is not.

use std::net::SocketAddr;

use fleet::{FleetKey, FleetKeys, GenerationNumber, Incarnation, InstanceId, Members};

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a test address")
}

fn configuration() -> NodeConfiguration {
    let sip = address("127.0.20.3:5060");
    let keys = FleetKeys { keys: vec![FleetKey { id: 1, secret: [0xC5; 32] }], signing: 1 };
    NodeConfiguration {
        instance: InstanceId::proxy(3),
        sip: SipAddresses { internal: sip, advertised: sip, extra: Vec::new() },
        workers: 2,
        control: Control { listen: address("127.0.20.3:8060"), token: Secret::new("hush") },
        keys: Keys::from(&keys),
        domains: vec!["example.net".to_owned()],
        service_names: vec!["sip.example.net".to_owned()],
        store: StoreConfiguration::file(StoreKind::Sqlite, "/data/store.db"),
        timers: Timers::default(),
        limits: Limits::default(),
        probing: Probing::default(),
        registration: Registration::default(),
        digest: Digest::default(),
        trusted_trunks: Vec::new(),
        foreign_callers: false,
        capacity_cps: 200,
        internal_mtu_bytes: 1_400,
        rows: 1 << 18,
        log: Log::default(),
        origin: Origin { fence: 3, build: "b".to_owned() },
    }
}

#[test]
fn a_configuration_survives_the_file() {
    let text = serde_json::to_string_pretty(&configuration()).expect("writes");
    assert_eq!(serde_json::from_str::<NodeConfiguration>(&text).expect("reads"), configuration());
    assert!(text.contains("\"proxy-3\""), "names are text: {text}");
}

#[test]
fn debug_of_a_configuration_shows_no_secret() {
    let text = format!("{:?}", configuration());
    assert!(!text.contains("hush") && !text.contains("c5c5"), "{text}");
}

#[test]
fn keys_survive_and_bad_ones_are_named() {
    let keys = FleetKeys { keys: vec![FleetKey { id: 4, secret: [7; 32] }], signing: 4 };
    assert_eq!(FleetKeys::try_from(&Keys::from(&keys)), Ok(keys.clone()));

    let mut short = Keys::from(&keys);
    short.keys[0].secret = Secret::new("07");
    assert_eq!(FleetKeys::try_from(&short), Err(KeyError::Secret { id: 4 }));
    let mut unsigned = Keys::from(&keys);
    unsigned.signing = 5;
    assert_eq!(FleetKeys::try_from(&unsigned), Err(KeyError::NoSigningKey { id: 5 }));
    let mut twice = Keys::from(&keys);
    twice.keys.push(twice.keys[0].clone());
    assert_eq!(FleetKeys::try_from(&twice), Err(KeyError::Twice { id: 4 }));
}

/// The digest still holds on the other side, and a change on the way shows.
#[test]
fn a_membership_keeps_its_digest_over_the_wire() {
    let member = |slot: u16| fleet::Member {
        instance: InstanceId::proxy(slot),
        worker: 0,
        incarnation: Incarnation(1_700_000_000),
        address: address("127.0.20.1:5060"),
        weight: 100,
    };
    let members = Members {
        proxies: vec![member(2), member(1)],
        retired: vec![member(3)],
        balancers: vec![fleet::BalancerMember {
            instance: InstanceId::balancer(1),
            incarnation: Incarnation(5),
            internal: address("127.0.10.1:5060"),
            advertised: address("192.0.2.1:5060"),
        }],
        leaving: vec![InstanceId::balancer(1)],
        earlier: vec![fleet::EarlierSet {
            ended_with: GenerationNumber { fence: 1, counter: 7 },
            is_settled: true,
            proxies: vec![member(3), member(1)],
        }],
    };
    let sent = fleet::Membership::new(GenerationNumber { fence: 1, counter: 9 }, 1 << 10, members);
    let text = serde_json::to_string(&Membership::from(&sent)).expect("writes");
    let wire: Membership = serde_json::from_str(&text).expect("reads");
    let received = fleet::Membership::from(&wire);
    assert_eq!(received, sent);
    assert!(received.verify_digest());

    let mut altered = wire;
    altered.proxies[0].weight = 1;
    assert!(!fleet::Membership::from(&altered).verify_digest());
}

/// A manager must be able to read a node that knows fewer fields.
#[test]
fn a_status_may_lack_what_came_later() {
    let text = r#"{"instance":"balancer-1","incarnation":5,"pid":1,"started_at_ms":5000,
        "uptime_ms":1,"live":true,"ready":true,"draining":false,
        "sip":{"internal":"127.0.10.1:5060","advertised":"127.0.10.1:5060"},
        "calls_total":1,"requests_total":2,"a_field_of_the_future":1}"#;
    let status: NodeStatus = serde_json::from_str(text).expect("reads");
    assert_eq!((status.generation, status.store), (None, StoreHealth::Unused));
}
