//! Callees that register, against a registrar of a few lines.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Duration;

use load_client::{Registration, Uas, UasOptions};
use sip_message::{Framing, HeaderName, Index, Reply, StatusCode, parse, write_reply};

use crate::{FAST, REALM, address, users};

/// Goal: every user registers with digest, at the target it is given to, and refreshes in time.
///
/// Method: a registrar that challenges every REGISTER without credentials and grants two seconds;
/// three users, two rounds each.
#[test]
fn users_register_with_digest_and_refresh_at_half_time() {
    let registrar = UdpSocket::bind("127.83.1.1:0").expect("an address of our own");
    registrar.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let target = registrar.local_addr().expect("bound");
    let uas = Uas::start(UasOptions {
        users: users(3),
        registration: Some(Registration { per_second: 1_000.0, ..Registration::at(vec![target]) }),
        timing: FAST,
        ..UasOptions::direct(vec![address("127.83.1.2:0"), address("127.83.1.2:0")], REALM)
    })
    .expect("callees");

    let mut granted: HashMap<String, u32> = HashMap::new();
    let mut buffer = [0; 4_096];
    let mut index = Index::new();
    while granted.len() < 3 || granted.values().any(|rounds| *rounds < 2) {
        let (length, source) = registrar.recv_from(&mut buffer).expect("a REGISTER in time");
        let request = parse(&buffer[..length], &mut index, Framing::Datagram).expect("SIP");
        let contact = request.field(HeaderName::CONTACT).expect("a contact").value;
        let granted_contact = [contact, b";expires=2"].concat();
        let challenge: &[u8] = b"Digest realm=\"example.com\",nonce=\"n\",qop=\"auth\"";
        let credentials = request.field(HeaderName::AUTHORIZATION);
        let (code, field) = match credentials {
            None => (401, ("WWW-Authenticate", challenge)),
            Some(_) => (200, ("Contact", granted_contact.as_slice())),
        };
        if credentials.is_some() {
            let call_id = String::from_utf8_lossy(request.call_id()).into_owned();
            *granted.entry(call_id).or_default() += 1;
        }
        let status = StatusCode::new(code).expect("a status");
        let mut out = Vec::new();
        let reply = Reply { status, reason: None, to_tag: None, fields: &[field], body: b"" };
        write_reply(&request, &reply, &mut out);
        registrar.send_to(&out, source).expect("sent");
    }
    assert!(uas.wait_registered(3, Duration::from_secs(5)));
    let counters = uas.stop();
    assert_eq!((counters.registered, counters.registration_failures), (3, 0));
}

/// A target that is silent is left for the next one.
#[test]
fn a_user_whose_target_is_silent_registers_at_another() {
    let silent = UdpSocket::bind("127.83.2.1:0").expect("an address of our own");
    let registrar = UdpSocket::bind("127.83.2.3:0").expect("an address of our own");
    registrar.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let uas = Uas::start(UasOptions {
        users: users(1),
        registration: Some(Registration {
            per_second: 10.0,
            ..Registration::at(
                [&silent, &registrar].map(|it| it.local_addr().expect("bound")).to_vec(),
            )
        }),
        timing: FAST,
        ..UasOptions::direct(vec![address("127.83.2.2:0")], REALM)
    })
    .expect("a callee");
    let mut buffer = [0; 4_096];
    let (length, source) = registrar.recv_from(&mut buffer).expect("a REGISTER in time");
    let mut index = Index::new();
    let request = parse(&buffer[..length], &mut index, Framing::Datagram).expect("SIP");
    let mut out = Vec::new();
    let reply =
        Reply { status: StatusCode::OK, reason: None, to_tag: None, fields: &[], body: b"" };
    write_reply(&request, &reply, &mut out);
    registrar.send_to(&out, source).expect("sent");
    assert!(uas.wait_registered(1, Duration::from_secs(5)));
    assert_eq!(uas.stop().registration_failures, 1);
}
