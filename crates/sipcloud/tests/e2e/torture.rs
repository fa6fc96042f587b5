//! Messages that are hard to read, sent to a running cloud.

use std::path::Path;

use xtask::torture::{Plan, run};

use crate::cloud::Data;

/// RFC 4475 and RFC 5118: every message of ours gets the answer that it is owed, over UDP and TCP,
/// and an OPTIONS after each finds the cloud alive.
#[test]
fn every_torture_message_gets_what_it_is_owed() {
    let data = Data::claim(158);
    let cloud = data.up("--proxies 2..2", "");
    let messages = concat!(env!("CARGO_MANIFEST_DIR"), "/../sip-message/testdata/torture");
    let plan = Plan {
        directory: Path::new(messages).to_owned(),
        address: cloud.balancer(1),
        from: data.address(40, 1, 0).ip(),
        wait_ms: 400,
    };
    run(&plan).expect("all verdicts hold");
    let fleet = cloud.fleet();
    assert!(fleet.instances.iter().all(|it| it.answers), "{fleet:?}");
}
