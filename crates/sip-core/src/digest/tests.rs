//! Challenges and their answers, played by a client that can also be wrong.

use super::*;
use crate::golden::{earlier_ring, ring};
use crate::identity::Owner;
use crate::testing::{names, request, with};

const NOW: UnixMillis = UnixMillis(1_700_000_000_123);
const URI: &str = "sip:bob@example.com";

fn demand() -> Demand {
    Demand {
        realm: "example.com".to_owned(),
        role: ChallengeRole::Proxy,
        owner: Owner::AnyoneOfRealm,
    }
}

fn digest(algorithms: &[Algorithm]) -> Digest {
    Digest::new(DigestPolicy { algorithms: algorithms.to_vec(), ..DigestPolicy::default() })
}

fn credential() -> Credential {
    Credential::new("alice", "example.com", "secret")
}

fn challenge_text(digest: &Digest, bytes: &[u8], staleness: Staleness, now: UnixMillis) -> String {
    let fields =
        with(bytes, |request| digest.challenge(&ring(), request, &demand(), staleness, now));
    let (_, value) = fields.into_iter().next().expect("one challenge");
    String::from_utf8(value).expect("text")
}

fn nonce_of(challenge: &str) -> String {
    challenge.split("nonce=\"").nth(1).and_then(|it| it.split('"').next()).expect("one").to_owned()
}

/// A client that answers challenges.
#[derive(Clone)]
struct Client {
    algorithm: Algorithm,
    username: &'static str,
    password: &'static str,
    realm: &'static str,
    uri: &'static str,
    method: &'static str,
    nonce: String,
    nc: &'static str,
    qop: Option<&'static str>,
}

impl Client {
    fn new(nonce: &str) -> Self {
        Self {
            algorithm: Algorithm::Md5,
            username: "alice",
            password: "secret",
            realm: "example.com",
            uri: URI,
            method: "INVITE",
            nonce: nonce.to_owned(),
            nc: "00000001",
            qop: Some("auth"),
        }
    }

    fn field(&self) -> String {
        let Self { algorithm, username, password, realm, uri, method, nonce, nc, qop } = self;
        let hash =
            |text: String| String::from_utf8(algorithm.hash_hex(&[text.as_bytes()])).expect("hex");
        let ha1 = hash(format!("{username}:{realm}:{password}"));
        let ha2 = hash(format!("{method}:{uri}"));
        let (response, tail) = match qop {
            Some(qop) => (
                hash(format!("{ha1}:{nonce}:{nc}:cc:{qop}:{ha2}")),
                format!(", qop={qop}, nc={nc}, cnonce=\"cc\""),
            ),
            None => (hash(format!("{ha1}:{nonce}:{ha2}")), String::new()),
        };
        format!(
            "Proxy-Authorization: Digest username=\"{username}\", realm=\"{realm}\", \
             nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={}{tail}",
            algorithm.token()
        )
    }
}

/// Both halves, as the proxy plays them; alice alone has an account.
fn checked(digest: &mut Digest, bytes: &[u8], now: UnixMillis) -> Verification {
    with(bytes, |request| match digest.present(&ring(), request, &demand(), &names(), now) {
        Presented::Challenge(staleness) => Verification::Challenge(staleness),
        Presented::Ask(claim) => {
            let stored = (claim.username == "alice").then(credential);
            digest.verify(request, &claim, stored.as_ref(), now)
        }
    })
}

fn alice() -> Verification {
    Verification::Authentic(Aor::new(b"alice", b"example.com"))
}

const FRESH: Verification = Verification::Challenge(Staleness::Fresh);
const STALE: Verification = Verification::Challenge(Staleness::Stale);

fn invite(fields: &[&str]) -> Vec<u8> {
    request(&format!("INVITE {URI}"), fields)
}

/// Pins the nonce, which every proxy of the fleet must be able to read, and the order of what SIPp
/// and old phones parse by hand.
#[test]
fn challenges_are_pinned() {
    let all = [Algorithm::Sha512Trunc256, Algorithm::Sha256, Algorithm::Md5];
    let mut golden = String::new();
    for (role, staleness) in [
        (ChallengeRole::Proxy, Staleness::Fresh),
        (ChallengeRole::UserAgentServer, Staleness::Stale),
    ] {
        let demand = Demand { role, ..demand() };
        let bytes = invite(&[]);
        let fields = with(&bytes, |request| {
            digest(&all).challenge(&ring(), request, &demand, staleness, NOW)
        });
        golden.push_str(&format!("{}\n", challenge_status(role).code()));
        for (name, value) in fields {
            golden.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
        }
    }
    crate::golden::check("challenge.golden", &golden);
}

#[test]
fn the_right_password_is_accepted_by_every_algorithm_with_and_without_qop() {
    let all = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512Trunc256];
    for algorithm in all {
        for qop in [Some("auth"), None] {
            let mut digest = digest(&all);
            let nonce = nonce_of(&challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW));
            let field = Client { algorithm, qop, ..Client::new(&nonce) }.field();
            let found = checked(&mut digest, &invite(&[&field]), NOW);
            assert_eq!(found, alice(), "{algorithm:?} {qop:?}");
        }
    }
}

#[test]
fn what_is_wrong_decides_between_a_fresh_and_a_stale_challenge() {
    struct Row {
        name: &'static str,
        change: fn(&mut Client),
        call_id: &'static str,
        after_s: u64,
        expected: Verification,
    }
    let right: fn(&mut Client) = |_| {};
    #[rustfmt::skip]
    let table = [
        Row { name: "right",                           change: right,                                       call_id: "call-1", after_s: 0,   expected: alice() },
        Row { name: "right, at the end of its life",   change: right,                                       call_id: "call-1", after_s: 300, expected: alice() },
        Row { name: "too old",                         change: right,                                       call_id: "call-1", after_s: 301, expected: STALE },
        Row { name: "for another Call-ID",             change: right,                                       call_id: "call-2", after_s: 0,   expected: STALE },
        Row { name: "a nonce of nobody",               change: |it| it.nonce = "nobody".into(),             call_id: "call-1", after_s: 0,   expected: STALE },
        Row { name: "wrong password",                  change: |it| it.password = "guess",                  call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "unknown user",                    change: |it| it.username = "mallory",                call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "another realm",                   change: |it| it.realm = "elsewhere.net",             call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "the realm in another case",       change: |it| it.realm = "Example.com",               call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "another URI",                     change: |it| it.uri = "sip:carol@example.com",       call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "an equal URI",                    change: |it| it.uri = "sip:%62ob@EXAMPLE.com",       call_id: "call-1", after_s: 0,   expected: alice() },
        Row { name: "the tier, as SIPp writes it",     change: |it| it.uri = "sip:127.0.10.1:5060",         call_id: "call-1", after_s: 0,   expected: alice() },
        Row { name: "another method in the hash",      change: |it| it.method = "BYE",                      call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "an algorithm not offered",        change: |it| it.algorithm = Algorithm::Sha256,       call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "auth-int was not offered",        change: |it| it.qop = Some("auth-int"),              call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "a count of zero",                 change: |it| it.nc = "00000000",                     call_id: "call-1", after_s: 0,   expected: FRESH },
        Row { name: "a count of seven digits",         change: |it| it.nc = "0000001",                      call_id: "call-1", after_s: 0,   expected: FRESH },
    ];
    for row in table {
        let mut digest = digest(&[Algorithm::Md5]);
        let nonce = nonce_of(&challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW));
        let mut client = Client::new(&nonce);
        (row.change)(&mut client);
        let call_id = format!("Call-ID: {}", row.call_id);
        let bytes = invite(&[&client.field(), &call_id]);
        let now = UnixMillis(NOW.0 + row.after_s * 1_000);
        assert_eq!(checked(&mut digest, &bytes, now), row.expected, "{}", row.name);
    }
}

#[test]
fn without_credentials_the_challenge_is_fresh() {
    assert_eq!(checked(&mut digest(&[Algorithm::Md5]), &invite(&[]), NOW), FRESH);
    let basic = "Proxy-Authorization: Basic realm=\"example.com\"";
    assert_eq!(checked(&mut digest(&[Algorithm::Md5]), &invite(&[basic]), NOW), FRESH);
}

#[test]
fn of_several_credentials_ours_are_taken() {
    let mut digest = digest(&[Algorithm::Md5]);
    let nonce = nonce_of(&challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW));
    let other = Client { realm: "elsewhere.net", ..Client::new("theirs") }.field();
    let ours = Client::new(&nonce).field();
    assert_eq!(checked(&mut digest, &invite(&[&other, &ours]), NOW), alice());
}

/// Some phones keep the answer to an earlier challenge and add the new one below it.
#[test]
fn an_outdated_answer_does_not_hide_a_good_one() {
    let mut digest = digest(&[Algorithm::Md5]);
    let nonce = nonce_of(&challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW));
    let (outdated, good) = (Client::new("outdated").field(), Client::new(&nonce).field());
    assert_eq!(checked(&mut digest, &invite(&[&outdated, &good]), NOW), alice());
    assert_eq!(checked(&mut digest, &invite(&[&outdated]), NOW), STALE);
}

/// Digest vouches for method and URI. What else makes a request do something may not change when a
/// count comes again, or whoever overhears a REGISTER binds a contact of his own.
#[test]
fn an_overheard_request_is_of_no_use_with_other_content() {
    let contact = "Contact: <sip:alice@192.0.2.1>";
    let with_credentials = |field: &str, fields: &[&str]| {
        let fields: Vec<&str> = fields.iter().copied().chain([field, "CSeq: 2 INVITE"]).collect();
        invite(&fields)
    };
    let table: [(&str, &[&str], Verification); 5] = [
        ("by another way", &[contact, "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb"], alice()),
        ("another contact", &["Contact: <sip:mallory@192.0.2.66>"], STALE),
        ("one contact more", &[contact, "Contact: <sip:mallory@192.0.2.66>"], STALE),
        ("another tag", &[contact, "From: <sip:alice@example.com>;tag=other"], STALE),
        ("another lifetime", &[contact, "Expires: 0"], STALE),
    ];
    for (name, fields, expected) in table {
        let mut digest = digest(&[Algorithm::Md5]);
        let nonce = nonce_of(&challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW));
        let field = Client::new(&nonce).field();
        assert_eq!(checked(&mut digest, &with_credentials(&field, &[contact]), NOW), alice());
        assert_eq!(
            checked(&mut digest, &with_credentials(&field, fields), NOW),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_name_with_our_realm_is_the_bare_name() {
    let table = [
        ("alice", Some("alice")),
        ("alice@example.com", Some("alice")),
        ("alice@EXAMPLE.com", Some("alice")),
        ("alice@elsewhere.net", Some("alice@elsewhere.net")),
    ];
    for (username, expected) in table {
        let found = bare_username(username.as_bytes(), "example.com");
        assert_eq!(found.as_deref(), expected, "{username}");
    }
    assert_eq!(bare_username(b"al\xffice", "example.com"), None);
}

/// The same count again only for the same CSeq, method and URI.
#[test]
fn a_replayed_count_is_stale_and_a_repeated_request_is_not() {
    let mut digest = digest(&[Algorithm::Md5]);
    let nonce = nonce_of(&challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW));
    let field = Client::new(&nonce).field();
    let (first, later) = ("CSeq: 2 INVITE", "CSeq: 3 INVITE");
    assert_eq!(checked(&mut digest, &invite(&[&field, first]), NOW), alice());
    assert_eq!(checked(&mut digest, &invite(&[&field, first]), NOW), alice(), "repeated");
    assert_eq!(checked(&mut digest, &invite(&[&field, later]), NOW), STALE, "replayed");
    let next = Client { nc: "00000002", ..Client::new(&nonce) }.field();
    assert_eq!(checked(&mut digest, &invite(&[&next, later]), NOW), alice(), "counted on");
}

#[test]
fn challenges_of_one_millisecond_differ_by_request() {
    let digest = digest(&[Algorithm::Md5]);
    let one = challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW);
    let bye = request("BYE sip:bob@example.com", &["CSeq: 2 BYE"]);
    let other = challenge_text(&digest, &bye, Staleness::Fresh, NOW);
    assert_ne!(nonce_of(&one), nonce_of(&other));
    assert_eq!(one, challenge_text(&digest, &invite(&[]), Staleness::Fresh, NOW), "repeated");
}

#[test]
fn a_nonce_of_a_proxy_that_signs_with_another_key_is_good() {
    let mut digest = digest(&[Algorithm::Md5]);
    let bytes = invite(&[]);
    let fields = with(&bytes, |request| {
        digest.challenge(&earlier_ring(), request, &demand(), Staleness::Fresh, NOW)
    });
    let (_, value) = fields.into_iter().next().expect("one challenge");
    let nonce = nonce_of(&String::from_utf8(value).expect("text"));
    let field = Client::new(&nonce).field();
    assert_eq!(checked(&mut digest, &invite(&[&field]), NOW), alice());
}
