//! A caller that hears nothing repeats its INVITE through another balancer, with a new branch (protocol
//! rule 10).

use super::departure::{brought, tell, vias};
use super::phone::Phone;
use super::{direct_binding, start_with};

/// Goal: the phone rings once, both tries hear of it, and the second one may cancel.
#[test]
fn a_caller_that_fails_over_joins_its_call() {
    let at = |host: u8| Phone::at(&format!("127.31.18.{host}:5060"));
    let (mut first, mut second, caller, mut callee) = (at(8), at(9), at(3), at(2));
    let (proxy, address) = start_with("127.31.18.1", direct_binding(callee.address()), |_| {});
    tell(&proxy, address, &[first.address(), second.address()], &[]);
    first.send(address, &brought(&first, &caller, &caller.invite(1, None)));
    let challenge = first.expect("407");
    first.send(address, &brought(&first, &caller, &caller.ack(1, &challenge, None)));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    let invite = caller.invite(2, Some(&credentials));
    first.send(address, &brought(&first, &caller, &invite));
    let rings = callee.expect("INVITE");

    let again = caller.invite(2, Some(&credentials));
    assert_ne!(vias(&again), vias(&invite), "a new branch");
    second.send(address, &brought(&second, &caller, &again));
    second.expect("100");
    callee.answer(&rings, "180 Ringing");
    assert_eq!(vias(&first.expect("180"))[1], vias(&invite)[0]);
    assert_eq!(vias(&second.expect("180"))[1], vias(&again)[0]);

    second.send(address, &brought(&second, &caller, &caller.cancel(2)));
    let cancel = callee.expect("CANCEL");
    assert_eq!(vias(&cancel)[0], vias(&rings)[0], "one transaction, which has rung once");
    callee.answer(&rings, "487 Request Terminated");
    first.expect("SIP/2.0 487");
    second.expect("SIP/2.0 487");
    proxy.stop();
}
