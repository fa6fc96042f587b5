//! Requests that nobody answers: what they leave behind.

use std::time::Duration;

use sip_transaction::Timing;

use super::phone::Phone;
use super::{direct_binding, start, start_with};

/// Nobody may be told 408 for anything but an INVITE (RFC 4320 §4.1), so no answer of ours ends the
/// server transaction. It must end all the same, or a phone that is switched off fills the table.
#[test]
fn a_request_that_nobody_answers_leaves_nothing_behind() {
    let callee = Phone::at("127.31.7.2:5060");
    let mut caller = Phone::at("127.31.7.3:5060");
    let short = Duration::from_millis(5);
    let timing = Timing { t1: short, t2: short * 4, t4: short * 5 };
    let (proxy, address) =
        start_with("127.31.7.1", direct_binding(callee.address()), |it| it.timing = timing);

    let uri = "sip:bob@example.com";
    caller.send(address, &caller.request("MESSAGE", uri, "example.com"));
    let challenge = caller.expect("407");
    let credentials = caller.credentials(&challenge, "MESSAGE", uri);
    let again = caller.request("MESSAGE", uri, "example.com").replace("CSeq: 1", "CSeq: 2");
    let again = again.replace("Content-Length", &format!("{credentials}\r\nContent-Length"));
    caller.send(address, &again);

    let counted = || proxy.handle().status().server_transactions;
    let start = sip_net::clock::now();
    while counted() == 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "it is in the table for a while");
        std::thread::yield_now();
    }
    while counted() > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "it stays for ever");
        std::thread::yield_now();
    }
    proxy.stop();
}

/// A stranger who guesses passwords and never acknowledges must not fill the table: a refusal that was
/// kept for its ACK would stay for 32 seconds.
#[test]
fn wrong_credentials_leave_nothing_behind() {
    let callee = Phone::at("127.31.8.2:5060");
    let mut caller = Phone::at("127.31.8.3:5060");
    let (proxy, address) = start("127.31.8.1", callee.address());

    caller.be("alice", "wrong");
    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    let guess = caller.invite(2, Some(&credentials));
    caller.send(address, &guess);
    let refused = caller.next();
    assert!(refused.starts_with("SIP/2.0 407"), "and no 100 before it: {refused}");
    caller.send(address, &guess);
    let again = caller.next();
    assert_eq!(again.split("nonce").next(), refused.split("nonce").next(), "the same To tag");

    // Counts are shown when a turn of the loop is over: one question later, they are.
    for _ in 0..2 {
        caller.send(address, &caller.request("OPTIONS", &format!("sip:{address}"), "example.com"));
        caller.expect("200");
    }
    assert!(proxy.handle().status().server_transactions <= 2, "the questions alone");
    proxy.stop();
}

/// A challenge within a dialog keeps its transaction, for its ACK looks like that to a 2xx. A To tag makes
/// no dialog: without our token in the route nothing is kept.
#[test]
fn an_invented_to_tag_leaves_nothing_behind() {
    let callee = Phone::at("127.31.12.2:5060");
    let mut caller = Phone::at("127.31.12.3:5060");
    let (proxy, address) = start("127.31.12.1", callee.address());

    for cseq in 1..=20 {
        let to = "To: <sip:bob@example.com>";
        let invented = caller.invite(cseq, None).replace(to, &format!("{to};tag=invented"));
        caller.send(address, &invented);
        caller.expect("407");
    }
    for _ in 0..2 {
        caller.send(address, &caller.request("OPTIONS", &format!("sip:{address}"), "example.com"));
        caller.expect("200");
    }
    assert!(proxy.handle().status().server_transactions <= 2, "the questions alone");
    proxy.stop();
}
