//! What the manager sees and tells.

use fleet::{InstanceId, StaleGeneration};
use node_api::server::NodeHandle;

use crate::bed::{Bed, request};

const VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport\r\n";

#[test]
fn only_newer_generations_are_taken_and_the_last_good_one_is_kept() {
    let mut bed = Bed::new(51);
    let node = bed.balancer.node();
    assert!(!node.status().ready, "not without a membership");
    bed.put(&[1, 2]);
    bed.put(&[1, 2, 3]);
    let older = bed.generation(1, &[1]);
    assert!(matches!(node.put_membership(older), Err(StaleGeneration::Older { .. })));
    let empty = bed.generation(9, &[]);
    assert!(matches!(node.put_membership(empty), Err(StaleGeneration::Empty { .. })));
    let other = bed.generation(2, &[1]);
    assert!(matches!(
        node.put_membership(other),
        Err(StaleGeneration::SameNumberOtherDigest { .. })
    ));
    let same = bed.generation(2, &[3, 2, 1]);
    assert_eq!(node.put_membership(same.clone()), Ok(()), "the same again");
    let status = node.status();
    assert_eq!(status.generation, Some(same.generation.into()));
    assert_eq!(status.digest, Some(format!("{:016x}", same.digest)));
    assert!(status.ready);
}

#[test]
fn calls_are_counted_by_member_and_outlive_a_generation() {
    let mut bed = Bed::new(52);
    let (client, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    bed.put(&[1]);
    let with_credentials = format!("{VIA}Proxy-Authorization: Digest username=\"alice\"\r\n");
    client.send(request("INVITE", "one", VIA));
    client.send(request("INVITE", "one", &with_credentials));
    client.send(request("BYE", "one", &with_credentials));
    for _ in 0..3 {
        proxy.receive();
    }
    bed.put(&[1, 2]);
    let status = bed.balancer.node().status();
    let first = &status.calls_to_members[0];
    assert_eq!((first.instance, first.calls_total), (InstanceId::proxy(1), 1));
    assert_eq!((status.calls_total, status.requests_total), (1, 3));
    assert_eq!(status.messages_sent_total, 3);
}

#[test]
fn a_draining_balancer_is_not_ready_and_still_works() {
    let mut bed = Bed::new(53);
    let (client, proxy) = (bed.peer("30.1:5060"), bed.peer("20.1:5060"));
    bed.put(&[1]);
    let node = bed.balancer.node();
    node.drain(true);
    assert!(!node.status().ready && node.status().live && node.status().draining);
    client.send(request("INVITE", "one", VIA));
    proxy.receive();
    node.drain(false);
    assert!(node.status().ready);
}

#[test]
fn every_metric_has_help_type_and_one_sample_per_name() {
    let mut bed = Bed::new(54);
    bed.put(&[1]);
    let text = bed.balancer.node().metrics();
    let mut described = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(!described.contains(&name), "{name} is described twice");
            described.push(name);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert_eq!(described.last(), Some(&name), "a sample outside its family: {line}");
        }
    }
    assert!(text.contains("sipcloud_balancer_generation_counter 1\n"), "{text}");
    assert!(described.len() > 20, "{described:?}");
}
