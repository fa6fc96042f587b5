//! Queries over UDP and TCP against a running server.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use provider::DnsTarget;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

fn zone(balancers: u8) -> Zone {
    let target = |number: u8| DnsTarget {
        name: format!("balancer-{number}"),
        address: [192, 0, 2, number].into(),
        port: 5060,
        priority: 10,
        weight: 100,
    };
    Zone {
        service_names: vec!["example.net".to_owned()],
        balancers: (1..=balancers).map(target).collect(),
        ttl: Duration::from_secs(30),
    }
}

async fn server() -> EmbeddedDns {
    let any_port = "127.3.10.250:0".parse().expect("an address");
    EmbeddedDns::start(any_port, 1_000).await.expect("started")
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

async fn ask(server: &EmbeddedDns, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.3.0.1:0").await.expect("bound");
    let bytes = message.to_vec().expect("written");
    socket.send_to(&bytes, server.address()).await.expect("sent");
    let mut answer = [0; 4_096];
    let length = socket.recv(&mut answer).await.expect("answered");
    Message::from_vec(&answer[..length]).expect("read")
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn the_contract_holds() {
    provider::contract::dns(&server().await).await;
}

#[tokio::test]
async fn the_zone_follows_the_balancers_and_answers_rotate() {
    let server = server().await;
    let name = "example.net.";
    let before = ask(&server, &query(name, RecordType::A)).await;
    assert_eq!(before.metadata.response_code, ResponseCode::Refused, "no zone yet");

    server.publish(&zone(2)).await.expect("published");
    let first = ask(&server, &query(name, RecordType::A)).await;
    let second = ask(&server, &query(name, RecordType::A)).await;
    assert!(first.metadata.authoritative);
    assert_eq!(addresses(&first).len(), 2);
    assert_ne!(addresses(&first), addresses(&second), "equal records take turns");

    server.publish(&zone(1)).await.expect("published");
    let after = ask(&server, &query(name, RecordType::A)).await;
    assert_eq!(addresses(&after), ["192.0.2.1"]);
    let gone = ask(&server, &query("balancer-2.example.net.", RecordType::A)).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    assert!(matches!(gone.authorities[0].data, RData::SOA(_)), "so that resolvers may cache it");
    server.stop().await;
}

#[tokio::test]
async fn the_serial_grows_with_every_change_and_only_then() {
    let server = server().await;
    let mut serials = Vec::new();
    for balancers in [1, 1, 2] {
        server.publish(&zone(balancers)).await.expect("published");
        let answer = ask(&server, &query("example.net.", RecordType::SOA)).await;
        let RData::SOA(soa) = &answer.answers[0].data else {
            panic!("no SOA: {answer:?}");
        };
        serials.push(soa.serial);
    }
    assert_eq!(serials, [1_000, 1_000, 1_001]);
}

#[tokio::test]
async fn what_is_no_plain_query_is_refused() {
    let server = server().await;
    server.publish(&zone(1)).await.expect("published");

    let mut update = query("example.net.", RecordType::SOA);
    update.metadata.op_code = OpCode::Notify;
    let answer = ask(&server, &update).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);

    let mut chaos = query("example.net.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(ask(&server, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let foreign = ask(&server, &query("example.com.", RecordType::A)).await;
    assert_eq!(foreign.metadata.response_code, ResponseCode::Refused);
    assert!(!foreign.metadata.authoritative);
}

/// Goal: an answer that does not fit a datagram comes truncated, and whole over TCP.
#[tokio::test]
async fn a_long_answer_comes_by_tcp() {
    let server = server().await;
    server.publish(&zone(60)).await.expect("published");
    let message = query("_sip._udp.example.net.", RecordType::SRV);
    let short = ask(&server, &message).await;
    assert!(short.metadata.truncation);

    let bytes = message.to_vec().expect("written");
    let mut stream = TcpStream::connect(server.address()).await.expect("connected");
    let length = u16::try_from(bytes.len()).expect("short");
    stream.write_all(&length.to_be_bytes()).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let length = stream.read_u16().await.expect("answered");
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.expect("answered");
    let answer = Message::from_vec(&answer).expect("read");
    assert_eq!(answer.answers.len(), 60);
}

/// The client says how much it can take (EDNS); it is believed up to a limit.
#[tokio::test]
async fn an_edns_query_is_answered_with_edns() {
    let server = server().await;
    server.publish(&zone(20)).await.expect("published");
    let mut message = query("_sip._udp.example.net.", RecordType::SRV);
    let mut edns = Edns::new();
    edns.set_max_payload(65_000);
    message.set_edns(edns);
    let answer = ask(&server, &message).await;
    assert_eq!(answer.edns.as_ref().map(Edns::max_payload), Some(UDP_ANSWER_BYTES_MAX));
    assert_eq!(answer.answers.len(), 20);
}
