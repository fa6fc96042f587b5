//! The proxy with real sockets, and phones that speak to it directly.

mod balancer;
mod death;
mod departure;
mod handover;
mod joining;
mod orphan;
mod phone;
mod queries;
mod silence;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet::{FleetKey, FleetKeys, Incarnation, InstanceId, Tier};
use phone::Phone;
use proxy::{Config, Running};
use store::memory::MemoryStore;
use store::{Aor, Binding, BindingId, Blocking, Credential, Query, Store, StoreError, UnixMillis};

const DOMAIN: &str = "example.com";
const PASSWORD: &str = "secret";

/// A proxy at port 5060 of `ip` with the user alice, and bob directly at `bob`.
fn start(ip: &str, bob: SocketAddr) -> (Running, SocketAddr) {
    start_with(ip, direct_binding(bob), |_| {})
}

/// The same with another binding of bob, and a configuration changed by `adapt`.
fn start_with(ip: &str, bob: Binding, adapt: impl FnOnce(&mut Config)) -> (Running, SocketAddr) {
    start_over(ip, bob, adapt, |handle| Box::new(handle))
}

/// The same with a store that `dress` puts before the one in memory.
fn start_over(
    ip: &str,
    bob: Binding,
    adapt: impl FnOnce(&mut Config),
    dress: impl Fn(MemoryStore) -> Box<dyn Store> + Send + Sync + 'static,
) -> (Running, SocketAddr) {
    let listen: SocketAddr = format!("{ip}:5060").parse().expect("an address");
    let store = MemoryStore::new(Arc::new(|| {}));
    let patience = Duration::from_secs(5);
    let opened = Blocking::open(patience, |wake| Ok::<_, StoreError>(store.handle(wake)));
    let mut filler = opened.expect("a store");
    for user in ["alice", "bob"] {
        let credential = Credential::new(user, DOMAIN, PASSWORD);
        let (realm, username) = (DOMAIN.to_owned(), user.to_owned());
        filler.ask(Query::PutCredential { realm, username, credential }).expect("a user");
    }
    let aor = Aor::new(b"bob", DOMAIN.as_bytes());
    let upserts = vec![bob];
    filler.ask(Query::Write { aor, upserts, now: UnixMillis(1) }).expect("a binding");
    let mut config = Config {
        instance: InstanceId { tier: Tier::Proxy, slot: 1 },
        incarnation: Incarnation(1),
        listen,
        workers: 1,
        keys: keys(),
        domains: vec![DOMAIN.to_owned()],
        service_names: Vec::new(),
        trusted_trunks: Vec::new(),
        foreign_callers: Default::default(),
        dialog_methods: vec!["INVITE".to_owned(), "BYE".to_owned()],
        digest: Default::default(),
        registrar: Default::default(),
        timing: sip_transaction::Timing::RFC_3261,
        timer_c: Duration::from_secs(181),
        limits: Default::default(),
        internal_mtu: 1_400,
        receive_buffer_bytes: 1 << 20,
        name_servers: Vec::new(),
    };
    adapt(&mut config);
    let open = Box::new(move |wake| Ok(dress(store.handle(wake))));
    (proxy::start(config, open).expect("a proxy"), listen)
}

fn keys() -> FleetKeys {
    FleetKeys { keys: vec![FleetKey { id: 1, secret: [7; 32] }], signing: 1 }
}

fn direct_binding(at: SocketAddr) -> Binding {
    Binding {
        id: BindingId([9; 16]),
        contact: format!("sip:bob@{at}").into_bytes(),
        path: Vec::new(),
        received: None,
        q: 1_000,
        call_id: Vec::new(),
        cseq: 0,
        expires_at: UnixMillis::NEVER,
        updated_at: UnixMillis(1),
        user_agent: Vec::new(),
        instance: None,
        reg_id: None,
        direct: true,
    }
}

/// The paper's Figure 4: every message in its order, and the ACK and BYE by the recorded route.
#[test]
fn figure_4_runs_from_invite_to_the_end_of_the_call() {
    let mut callee = Phone::at("127.31.1.2:5060");
    let mut caller = Phone::at("127.31.1.3:5060");
    let (proxy, address) = start("127.31.1.1", callee.address());

    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    caller.send(address, &caller.invite(2, Some(&credentials)));
    caller.expect("100");
    let invite = callee.expect("INVITE");
    assert!(!invite.contains("Proxy-Authorization"), "credentials stay here: {invite}");
    callee.answer(&invite, "180 Ringing");
    caller.expect("180");
    callee.answer(&invite, "200 OK");
    let answered = caller.expect("200");
    caller.send(address, &caller.ack(2, &answered, Some(&answered)));
    callee.expect("ACK");
    caller.send(address, &caller.bye(3, &answered, None));
    let challenge = caller.expect("407");
    let uri = phone::contact_of(&answered);
    let credentials = caller.credentials(&challenge, "BYE", &uri);
    caller.send(address, &caller.bye(4, &answered, Some(&credentials)));
    let bye = callee.expect("BYE");
    callee.answer(&bye, "200 OK");
    caller.expect("200");

    let status = proxy.handle().status();
    assert_eq!(status.calls_total, 1, "two INVITEs are one call");
    proxy.stop();
}

/// A CANCEL while the callee rings ends the call at both sides: 200 to the CANCEL, 487 to the INVITE.
#[test]
fn cancel_while_ringing_stops_the_callee() {
    let mut callee = Phone::at("127.31.2.2:5060");
    let mut caller = Phone::at("127.31.2.3:5060");
    let (proxy, address) = start("127.31.2.1", callee.address());

    caller.send(address, &caller.invite(1, None));
    let challenge = caller.expect("407");
    caller.send(address, &caller.ack(1, &challenge, None));
    let credentials = caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
    caller.send(address, &caller.invite(2, Some(&credentials)));
    caller.expect("100");
    let invite = callee.expect("INVITE");
    callee.answer(&invite, "180 Ringing");
    caller.expect("180");
    caller.send(address, &caller.cancel(2));
    caller.expect("200");
    let cancel = callee.expect("CANCEL");
    callee.answer(&cancel, "200 OK");
    callee.answer(&invite, "487 Request Terminated");
    callee.expect("ACK");
    let ended = caller.expect("487");
    caller.send(address, &caller.ack(2, &ended, None));
    proxy.stop();
}

/// A wrong password is challenged again, like an unknown user; nobody learns which it was.
#[test]
fn wrong_password_and_unknown_user_are_challenged_alike() {
    let callee = Phone::at("127.31.3.2:5060");
    let mut caller = Phone::at("127.31.3.3:5060");
    let (proxy, address) = start("127.31.3.1", callee.address());

    for (user, password) in [("alice", "wrong"), ("nobody", PASSWORD)] {
        caller.be(user, password);
        caller.send(address, &caller.register(1, None));
        let challenge = caller.expect("401");
        let credentials = caller.credentials(&challenge, "REGISTER", "sip:example.com");
        caller.send(address, &caller.register(2, Some(&credentials)));
        let again = caller.expect("401");
        assert!(!again.contains("stale=true"), "{again}");
    }
    proxy.stop();
}

/// REGISTER binds, lists and removes.
#[test]
fn registration_is_bound_listed_and_removed() {
    let callee = Phone::at("127.31.4.2:5060");
    let mut caller = Phone::at("127.31.4.3:5060");
    let (proxy, address) = start("127.31.4.1", callee.address());

    caller.send(address, &caller.register(1, None));
    let challenge = caller.expect("401");
    let credentials = caller.credentials(&challenge, "REGISTER", "sip:example.com");
    caller.send(address, &caller.register(2, Some(&credentials)));
    let bound = caller.expect("200");
    assert!(bound.contains("<sip:alice@127.31.4.3:5060>;expires=3600"), "{bound}");
    let credentials = caller.credentials(&challenge, "REGISTER", "sip:example.com");
    caller.send(address, &caller.register(3, Some(&format!("{credentials}\r\nExpires: 0"))));
    let removed = caller.expect("200");
    assert!(!removed.contains("Contact"), "{removed}");
    proxy.stop();
}

/// OPTIONS to the tier is answered by it; a foreign domain's user gets nowhere.
#[test]
fn options_to_the_tier_is_answered_and_relaying_is_refused() {
    let callee = Phone::at("127.31.5.2:5060");
    let mut caller = Phone::at("127.31.5.3:5060");
    let (proxy, address) = start("127.31.5.1", callee.address());

    caller.send(address, &caller.request("OPTIONS", &format!("sip:{address}"), "foreign.test"));
    let answer = caller.expect("200");
    assert!(answer.contains("Allow: "), "{answer}");
    caller.send(address, &caller.request("MESSAGE", "sip:x@elsewhere.test", "foreign.test"));
    caller.expect("403");
    proxy.stop();
}
