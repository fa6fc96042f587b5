//! Who is challenged, one case a row.

use super::*;
use crate::flow_token::DialogToken;
use crate::flow_token::{Flow, tag_hash};
use crate::route::{Party, RouteLeft};
use crate::testing::{names, request, with};
use store::UnixMillis;

const CLIENT: &str = "192.0.2.1:5060";
const TRUNK: &str = "203.0.113.7:5060";

fn decided(start: &str, fields: &[&str], source: &str, callers: ForeignCallers) -> Verdict {
    decided_after(start, fields, source, callers, |_| {})
}

fn decided_after(
    start: &str,
    fields: &[&str],
    source: &str,
    foreign_callers: ForeignCallers,
    change: impl FnOnce(&mut Routed<'_>),
) -> Verdict {
    let names = names();
    let trunk: TrustedTrunk = "203.0.113.0/28".parse().expect("a network");
    let policy = IdentityPolicy {
        names: &names,
        trusted_trunks: &[trunk],
        foreign_callers,
        dialog_methods: &["INVITE".to_owned(), "BYE".to_owned(), "REFER".to_owned()],
    };
    let ring = crate::golden::ring();
    with(&request(start, fields), |request| {
        let mut routed = crate::route::preprocess(request, &ring, &names).expect("routable");
        change(&mut routed);
        decide(&policy, request, &routed, source.parse().expect("an address"))
    })
}

fn demand(realm: &str, role: ChallengeRole, owner: Owner) -> Verdict {
    Verdict::Challenge(Demand { realm: realm.to_owned(), role, owner })
}

fn aor(user: &str, domain: &str) -> Aor {
    Aor::new(user.as_bytes(), domain.as_bytes())
}

/// Protocol rule 17, outside of dialogs.
#[test]
fn who_is_challenged_depends_on_whose_domain_it_is() {
    struct Row {
        name: &'static str,
        start: &'static str,
        from: &'static str,
        source: &'static str,
        callers: ForeignCallers,
        expected: Verdict,
    }
    use ForeignCallers::{Admitted, Challenged};
    let alice =
        || demand("example.com", ChallengeRole::Proxy, Owner::Sender(aor("alice", "example.com")));
    let anyone = || demand("example.com", ChallengeRole::Proxy, Owner::AnyoneOfRealm);
    let relay = || {
        let why = Forbidden::RelayBetweenForeignDomains;
        Verdict::Refuse(Reject::Forbidden { why })
    };
    let here = "From: <sip:alice@example.com>;tag=a";
    let foreign = "From: <sip:carol@elsewhere.net>;tag=a";
    let anonymous = "From: <sip:anonymous@anonymous.invalid>;tag=a";
    #[rustfmt::skip]
    let table = [
        Row { name: "one of ours calls one of ours",      start: "INVITE sip:bob@example.com",    from: here,      source: CLIENT, callers: Challenged, expected: alice() },
        Row { name: "one of ours calls out",              start: "INVITE sip:bob@elsewhere.net",  from: here,      source: CLIENT, callers: Challenged, expected: alice() },
        Row { name: "realm of From, not of Request-URI",  start: "INVITE sip:bob@example.org",    from: here,      source: CLIENT, callers: Challenged, expected: alice() },
        Row { name: "any method",                         start: "MESSAGE sip:bob@example.com",   from: here,      source: CLIENT, callers: Challenged, expected: alice() },
        Row { name: "a foreigner calls one of ours",      start: "INVITE sip:bob@example.com",    from: foreign,   source: CLIENT, callers: Challenged, expected: anyone() },
        Row { name: "an anonymous one",                   start: "INVITE sip:bob@example.com",    from: anonymous, source: CLIENT, callers: Challenged, expected: anyone() },
        Row { name: "foreign callers are admitted",       start: "INVITE sip:bob@example.com",    from: foreign,   source: CLIENT, callers: Admitted,   expected: Verdict::NotChallenged },
        Row { name: "which does not help our own",        start: "INVITE sip:bob@example.com",    from: here,      source: CLIENT, callers: Admitted,   expected: alice() },
        Row { name: "between two foreign domains",        start: "INVITE sip:bob@elsewhere.net",  from: foreign,   source: CLIENT, callers: Admitted,   expected: relay() },
        Row { name: "a trunk calls one of ours",          start: "INVITE sip:bob@example.com",    from: foreign,   source: TRUNK,  callers: Challenged, expected: Verdict::NotChallenged },
        Row { name: "a trunk with one of our numbers",    start: "INVITE sip:bob@example.com",    from: here,      source: TRUNK,  callers: Challenged, expected: Verdict::NotChallenged },
        Row { name: "not even a trunk relays",            start: "INVITE sip:bob@elsewhere.net",  from: foreign,   source: TRUNK,  callers: Admitted,   expected: relay() },
        Row { name: "anybody may ask who is here",        start: "OPTIONS sip:example.com",       from: foreign,   source: CLIENT, callers: Challenged, expected: Verdict::NotChallenged },
        Row { name: "but not after somebody",             start: "OPTIONS sip:bob@example.com",   from: here,      source: CLIENT, callers: Challenged, expected: alice() },
        Row { name: "an ACK cannot be challenged",        start: "ACK sip:bob@example.com",       from: here,      source: CLIENT, callers: Challenged, expected: Verdict::NotChallenged },
        Row { name: "nor a CANCEL",                       start: "CANCEL sip:bob@example.com",    from: here,      source: CLIENT, callers: Challenged, expected: Verdict::NotChallenged },
    ];
    for row in table {
        let found = decided(row.start, &[row.from], row.source, row.callers);
        assert_eq!(found, row.expected, "{}", row.name);
    }
}

#[test]
fn a_route_beyond_us_makes_a_foreigners_request_a_relay() {
    let fields = ["From: <sip:carol@elsewhere.net>;tag=a", "Route: <sip:edge.elsewhere.net;lr>"];
    let found = decided("INVITE sip:bob@example.com", &fields, CLIENT, ForeignCallers::Admitted);
    let why = Forbidden::RelayBetweenForeignDomains;
    assert_eq!(found, Verdict::Refuse(Reject::Forbidden { why }));
}

#[test]
fn a_register_is_challenged_for_the_one_it_registers() {
    let registrant = |user, domain| {
        demand(domain, ChallengeRole::UserAgentServer, Owner::Registrant(aor(user, domain)))
    };
    #[rustfmt::skip]
    let table = [
        ("To: <sip:alice@example.org>",   CLIENT, registrant("alice", "example.org")),
        ("To: <sip:alice@127.0.10.1>",    CLIENT, registrant("alice", "example.com")),
        ("To: <sip:alice@elsewhere.net>", CLIENT, Verdict::Refuse(Reject::NotFound)),
        ("To: <sip:alice@example.org>",   TRUNK,  Verdict::NotChallenged),
    ];
    for (to, source, expected) in table {
        let found = decided("REGISTER sip:example.com", &[to], source, ForeignCallers::Admitted);
        assert_eq!(found, expected, "{to} from {source}");
    }
}

fn side(user: Option<&str>, reach: Reach) -> Side {
    let aor = user.map(|user| aor(user, "example.com"));
    Side { reach, aor, binding: Some(BindingId([3; 16])) }
}

/// In a dialog the token says who somebody is; From may say anything.
#[test]
fn in_a_dialog_the_credentials_must_be_the_sides() {
    let flow = Flow {
        listener: 0,
        transport: sip_message::Transport::Udp,
        remote: CLIENT.parse().expect("an address"),
        connection: None,
    };
    let flow = Reach::Flow { balancer: fleet::InstanceId::balancer(1), flow };
    let bob = || Demand {
        realm: "example.com".to_owned(),
        role: ChallengeRole::Proxy,
        owner: Owner::Sender(aor("bob", "example.com")),
    };
    let direct = || Verdict::ChallengeUnlessFrom {
        aor: aor("bob", "example.com"),
        binding: BindingId([3; 16]),
        demand: bob(),
    };
    #[rustfmt::skip]
    let table = [
        ("BYE",     side(Some("bob"), flow),          Verdict::Challenge(bob())),
        ("INVITE",  side(Some("bob"), flow),          Verdict::Challenge(bob())),
        ("UPDATE",  side(Some("bob"), flow),          Verdict::NotChallenged),
        ("REFER",   side(Some("bob"), flow),          Verdict::Challenge(bob())), // named by the operator
        ("MESSAGE", side(Some("bob"), flow),          Verdict::NotChallenged),
        ("BYE",     side(Some("bob"), Reach::Direct), direct()),
        ("BYE",     side(None, flow),                 Verdict::NotChallenged),
    ];
    for (method, callee, expected) in table {
        let start = format!("{method} sip:alice@192.0.2.1");
        let fields =
            ["From: <sip:whoever@elsewhere.net>;tag=b", "To: <sip:alice@example.com>;tag=a"];
        let found = decided_after(&start, &fields, CLIENT, ForeignCallers::Challenged, |routed| {
            let caller = side(Some("alice"), flow);
            let token = DialogToken { caller, callee, caller_tag_hash: tag_hash(b"call-1", b"a") };
            routed.dialog = Some(InDialog { token, sender: Party::Callee });
            routed.routes = Vec::<RouteLeft<'_>>::new();
        });
        assert_eq!(found, expected, "{method}");
    }
}

#[test]
fn a_direct_side_is_known_by_its_contacts_host() {
    #[rustfmt::skip]
    let table = [
        ("sip:bob@192.0.2.1:5070",                 true,  true),
        ("sip:bob@192.0.2.1:5070",                 false, false),
        ("sip:bob@192.0.2.2",                      true,  false),
        ("sip:bob@elsewhere.net;maddr=192.0.2.1",  true,  true),
        ("sip:bob@elsewhere.net",                  true,  false),
    ];
    for (contact, direct, expected) in table {
        let binding = Binding {
            id: BindingId([1; 16]),
            contact: contact.as_bytes().to_vec(),
            path: Vec::new(),
            received: None,
            q: 1_000,
            call_id: Vec::new(),
            cseq: 0,
            expires_at: UnixMillis::NEVER,
            updated_at: UnixMillis(0),
            user_agent: Vec::new(),
            instance: None,
            reg_id: None,
            direct,
        };
        let source = CLIENT.parse().expect("an address");
        assert_eq!(comes_from(&binding, source), expected, "{contact} direct: {direct}");
    }
}

#[test]
fn credentials_of_somebody_else_are_forbidden() {
    let alice = aor("alice", "example.com");
    let demand = |owner| Demand { realm: "example.com".into(), role: ChallengeRole::Proxy, owner };
    let forbidden = |why| Err(Reject::Forbidden { why });
    #[rustfmt::skip]
    let table = [
        (Owner::Sender(alice.clone()),                    Ok(())),
        (Owner::Sender(aor("bob", "example.com")),        forbidden(Forbidden::NotTheSender)),
        (Owner::Sender(aor("alice", "example.org")),      forbidden(Forbidden::NotTheSender)),
        (Owner::Registrant(aor("bob", "example.com")),    forbidden(Forbidden::NotTheRegistrant)),
        (Owner::AnyoneOfRealm,                            Ok(())),
    ];
    for (owner, expected) in table {
        let demand = demand(owner);
        assert_eq!(check_owner(&demand, &alice), expected, "{:?}", demand.owner);
    }
}

#[test]
fn trusted_trunks_are_addresses_and_networks() {
    #[rustfmt::skip]
    let table = [
        ("192.0.2.7",       "192.0.2.7",          true),
        ("192.0.2.7",       "192.0.2.8",          false),
        ("192.0.2.0/24",    "192.0.2.255",        true),
        ("192.0.2.0/24",    "192.0.3.0",          false),
        ("0.0.0.0/0",       "198.51.100.1",       true),
        ("192.0.2.7",       "::ffff:192.0.2.7",   true),
        ("2001:db8::/32",   "2001:db8:1::1",      true),
        ("2001:db8::/32",   "192.0.2.7",          false),
    ];
    for (network, ip, expected) in table {
        let trunk: TrustedTrunk = network.parse().expect(network);
        assert_eq!(trunk.contains(ip.parse().expect(ip)), expected, "{ip} in {network}");
    }
    for wrong in ["", "trunk.example.com", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/-1"] {
        assert!(wrong.parse::<TrustedTrunk>().is_err(), "{wrong}");
    }
}
