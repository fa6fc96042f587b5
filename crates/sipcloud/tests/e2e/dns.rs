//! DNS leads clients to the live balancers.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use fleet::Tier;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use load_client::{Plan, Service, Transport};
use node_api::wire::FleetStatus;

use crate::cloud::{Cloud, DOMAIN, Data, PATIENCE, eventually, instances, tier};
use crate::load::{self, CALLERS};

/// The records of one name and type, as text.
fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Vec<RData> {
    let socket = UdpSocket::bind((server.ip(), 0)).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    socket.send_to(&question.to_vec().expect("small"), server).expect("sent");
    let mut buffer = [0; 4_096];
    let (length, _) = socket.recv_from(&mut buffer).expect("an answer");
    let answer = Message::from_vec(&buffer[..length]).expect("DNS");
    answer.answers.iter().map(|record| record.data.clone()).collect()
}

/// Where SRV and A records lead.
fn balancers(cloud: &Cloud<'_>) -> BTreeSet<String> {
    let servers = ask(cloud.dns(), &format!("_sip._udp.{DOMAIN}."), RecordType::SRV);
    let addresses = servers.iter().flat_map(|record| {
        let RData::SRV(record) = record else { panic!("{record:?} is no SRV record") };
        assert_eq!(record.port, 5060);
        ask(cloud.dns(), &record.target.to_ascii(), RecordType::A)
    });
    addresses.map(|record| record.to_string()).collect()
}

/// Goal: a client that knows only the service's name reaches every balancer, over UDP and TCP, and
/// its dialogs too, whose route set has the name.
#[test]
fn calls_by_name_reach_every_balancer() {
    let data = Data::claim(158).with_users(&CALLERS);
    let cloud = data.up("--balancers 2..2", "");
    let _callees = load::direct_callees(&cloud);
    for transport in [Transport::Udp, Transport::Tcp] {
        let name_servers = vec![cloud.dns()];
        let service = Service { name: DOMAIN.to_owned(), port: None, name_servers };
        let plan = Plan {
            service: Some(service),
            transport: Some(transport),
            ..load::figure_4(&cloud, Vec::new(), &["trunk"], "50@2s")
        };
        load::assert_no_call_failed(&load::run(&plan));
    }
    let carried = |fleet: &FleetStatus| {
        instances(fleet, Tier::LoadBalancer).iter().all(|balancer| balancer.calls_total > 0)
    };
    cloud.wait("calls through both balancers", PATIENCE, carried);
}

/// Goal: NAPTR leads to SRV, SRV to the addresses, and these are the balancers in service, while the
/// tier grows under load and shrinks without.
#[test]
fn records_follow_the_balancers() {
    let data = Data::claim(157).with_users(&CALLERS);
    let config = "timers.t1_ms = 100\nmanager.up_polls = 2\nmanager.down_polls = 3\n\
                  balancers.capacity_cps = 20\ndns.ttl_s = 1\n";
    let cloud = data.up("--balancers 1..2", config);
    let _callees = load::direct_callees(&cloud);
    let addresses = |count: u8| -> BTreeSet<String> {
        (1..=count).map(|slot| cloud.balancer(slot).ip().to_string()).collect()
    };
    assert_eq!(balancers(&cloud), addresses(1));
    let services: BTreeSet<String> = ask(cloud.dns(), &format!("{DOMAIN}."), RecordType::NAPTR)
        .iter()
        .map(ToString::to_string)
        .collect();
    for (service, name) in [("SIP+D2U", "_sip._udp"), ("SIP+D2T", "_sip._tcp")] {
        let is_there =
            services.iter().any(|it| it.contains(service) && it.contains(&format!("{name}.")));
        assert!(is_there, "{service} in {services:?}");
    }
    let by_name = ask(cloud.dns(), &format!("{DOMAIN}."), RecordType::A);
    assert_eq!(by_name.len(), 1, "{by_name:?}");

    let plan = load::figure_4(&cloud, vec![cloud.balancer(1)], &["trunk"], "40@8s");
    let running = load::start(plan);
    let leads_to = |count: u8| {
        eventually(Duration::from_secs(30), || {
            (balancers(&cloud) == addresses(count)).then_some(())
        })
    };
    assert_eq!(leads_to(2), Some(()), "the second balancer is found");
    load::assert_no_call_failed(&running.join().expect("the callers"));
    // Which of the two leaves is the manager's choice; here it is the one that served nobody.
    let is_one = || (balancers(&cloud).len() == 1).then_some(());
    assert_eq!(eventually(Duration::from_secs(30), is_one), Some(()), "one is enough again");
    let fleet = cloud.wait("the end of the drain", Duration::from_secs(30), |fleet| {
        let balancers = tier(fleet, Tier::LoadBalancer);
        (balancers.in_service, balancers.draining) == (1, 0)
    });
    let published: BTreeSet<String> =
        fleet.dns.iter().map(|record| record.address.ip().to_string()).collect();
    assert_eq!(balancers(&cloud), published, "status and DNS agree");
}
