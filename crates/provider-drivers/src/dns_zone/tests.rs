//! What is answered to which query.

use std::time::Duration;

use super::*;

fn zone(addresses: &[&str]) -> Zone {
    let target = |(number, address): (usize, &&str)| DnsTarget {
        name: format!("balancer-{}", number + 1),
        address: address.parse().expect("an address"),
        port: 5060,
        priority: 10,
        weight: 100,
    };
    Zone {
        service_names: vec!["Example.NET".to_owned()],
        balancers: addresses.iter().enumerate().map(target).collect(),
        ttl: Duration::from_secs(30),
    }
}

fn records(zone: &Zone) -> Records {
    let server = "127.0.10.250:5300".parse().expect("an address");
    Records::new(zone, server, 7).expect("good names")
}

fn ask(records: &Records, name: &str, kind: RecordType, turn: usize) -> Lookup {
    let name = Name::from_ascii(name).expect("a name");
    records.lookup(&LowerName::from(&name), kind, turn)
}

/// The data of the answers as text, in their order.
fn texts(lookup: Lookup) -> Vec<String> {
    match lookup {
        Lookup::Found { answers, .. } => {
            answers.iter().map(|record| record.data.to_string()).collect()
        }
        other => panic!("expected records: {other:?}"),
    }
}

#[test]
fn a_client_is_led_from_naptr_to_addresses() {
    let records = records(&zone(&["127.0.10.1", "127.0.10.2"]));
    let naptr = texts(ask(&records, "example.net.", RecordType::NAPTR, 0));
    assert!(naptr[0].contains("SIP+D2U _sip._udp.example.net.") || naptr[0].contains("SIP+D2U"));
    assert!(naptr[1].contains("SIP+D2T"), "{naptr:?}");
    for transport in ["_udp", "_tcp"] {
        let name = format!("_sip.{transport}.EXAMPLE.net.");
        let Lookup::Found { answers, additionals } = ask(&records, &name, RecordType::SRV, 0)
        else {
            panic!("no SRV under {name}");
        };
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].ttl, 30);
        let hosts: Vec<String> = additionals.iter().map(|it| it.name.to_ascii()).collect();
        assert_eq!(hosts.len(), 2, "addresses come along: {hosts:?}");
    }
    assert_eq!(texts(ask(&records, "balancer-2.example.net.", RecordType::A, 0)), ["127.0.10.2"]);
    assert_eq!(texts(ask(&records, "ns.example.net.", RecordType::A, 0)), ["127.0.10.250"]);
}

#[test]
fn equal_records_take_turns() {
    let records = records(&zone(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]));
    let first = |turn| texts(ask(&records, "example.net.", RecordType::A, turn)).remove(0);
    let firsts: Vec<String> = (0..4).map(first).collect();
    assert_eq!(firsts, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"]);
}

#[test]
fn what_is_not_there_is_told_apart() {
    let records = records(&zone(&["192.0.2.1"]));
    let table = [
        ("example.net.", RecordType::AAAA, "no data"),
        ("_udp.example.net.", RecordType::SRV, "no data"),
        ("_sip._tcp.example.net.", RecordType::A, "no data"),
        ("balancer-1.example.net.", RecordType::AAAA, "no data"),
        ("balancer-2.example.net.", RecordType::A, "no name"),
        ("_sip._sctp.example.net.", RecordType::SRV, "no name"),
        ("example.org.", RecordType::A, "not ours"),
        ("net.", RecordType::NS, "not ours"),
        (".", RecordType::NS, "not ours"),
    ];
    for (name, kind, expected) in table {
        let found = match ask(&records, name, kind, 0) {
            Lookup::Found { .. } => "found",
            Lookup::NoData { .. } => "no data",
            Lookup::NoName { .. } => "no name",
            Lookup::NotOurs => "not ours",
        };
        assert_eq!(found, expected, "{name} {kind}");
    }
    assert_eq!(ask(&Records::default(), "example.net.", RecordType::A, 0), Lookup::NotOurs);
}

#[test]
fn an_address_of_six_is_an_aaaa_record() {
    let records = records(&zone(&["2001:db8::1"]));
    assert_eq!(texts(ask(&records, "example.net.", RecordType::AAAA, 0)), ["2001:db8::1"]);
    assert!(matches!(ask(&records, "example.net.", RecordType::A, 0), Lookup::NoData { .. }));
}

/// A client that knows addresses only would try port 5060.
#[test]
fn the_bare_name_leads_only_to_balancers_on_the_standard_port() {
    let mut zone = zone(&["192.0.2.1", "192.0.2.2"]);
    zone.balancers[1].port = 5070;
    let records = records(&zone);
    assert_eq!(texts(ask(&records, "example.net.", RecordType::A, 0)), ["192.0.2.1"]);
    assert_eq!(texts(ask(&records, "_sip._udp.example.net.", RecordType::SRV, 0)).len(), 2);
}

#[test]
fn the_service_exists_without_a_balancer() {
    let records = records(&zone(&[]));
    let lookup = ask(&records, "_sip._udp.example.net.", RecordType::SRV, 0);
    assert!(matches!(lookup, Lookup::NoData { .. }), "{lookup:?}");
    assert_eq!(texts(ask(&records, "example.net.", RecordType::SOA, 0)).len(), 1);
}
