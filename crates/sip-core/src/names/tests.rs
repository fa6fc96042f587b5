//! What counts as ours.

use super::*;
use crate::testing::names;

#[test]
fn domains_names_and_addresses_of_ours_are_known() {
    struct Row {
        uri: &'static str,
        domain: Option<&'static str>,
        is_tier: bool,
        why: &'static str,
    }
    #[rustfmt::skip]
    let table = [
        Row { uri: "sip:bob@example.com",          domain: Some("example.com"), is_tier: true,  why: "a served domain" },
        Row { uri: "sips:bob@EXAMPLE.ORG:5070",    domain: Some("example.org"), is_tier: true,  why: "in any case, on any port" },
        Row { uri: "sip:bob@sub.example.com",      domain: None,                is_tier: false, why: "exact, not below" },
        Row { uri: "sip:bob@sip.example.net",      domain: Some("example.com"), is_tier: true,  why: "the service name means the default domain" },
        Row { uri: "sip:bob@127.0.10.1:5060",      domain: Some("example.com"), is_tier: true,  why: "so does an address of the tier" },
        Row { uri: "sip:bob@127.0.10.1",           domain: Some("example.com"), is_tier: true,  why: "without a port the default one" },
        Row { uri: "sip:bob@127.0.20.1:5061",      domain: Some("example.com"), is_tier: true,  why: "a proxy's" },
        Row { uri: "sip:bob@127.0.10.1:5070",      domain: None,                is_tier: false, why: "a phone beside a balancer" },
        Row { uri: "sip:bob@192.0.2.9",            domain: None,                is_tier: false, why: "a stranger" },
        Row { uri: "tel:+4930123",                 domain: Some("example.com"), is_tier: false, why: "a number is looked up in the default domain" },
    ];
    let names = names();
    for row in table {
        let uri = Uri::parse(row.uri.as_bytes()).expect(row.uri);
        assert_eq!(names.domain_of(&uri), row.domain, "{}: {}", row.uri, row.why);
        assert_eq!(names.is_tier(&uri), row.is_tier, "{}: {}", row.uri, row.why);
    }
}

#[test]
fn address_of_record_is_unescaped_and_never_cut() {
    type Row = (&'static str, Option<(&'static [u8], &'static [u8])>);
    #[rustfmt::skip]
    let table: [Row; 6] = [
        ("sip:%61lice@Example.COM;user=phone", Some((b"alice", b"example.com"))),
        ("sip:null-%00-null@example.com",      Some((b"null-\0-null", b"example.com"))),
        ("sip:Alice@example.com",              Some((b"Alice", b"example.com"))),
        ("sip:bob@elsewhere.net",              None),
        ("sip:example.com",                    None),
        ("tel:+49-(30).123;phone-context=x",   Some((b"+4930123", b"example.com"))),
    ];
    let names = names();
    for (text, expected) in table {
        let uri = Uri::parse(text.as_bytes()).expect(text);
        let expected = expected.map(|(user, domain)| Aor::new(user, domain));
        assert_eq!(names.aor(&uri), expected, "{text}");
    }
}

#[test]
fn an_address_that_is_a_domain_is_ours_on_its_own_ports_only() {
    let address = "192.0.2.5:5080".parse().expect("an address");
    let names = LocalNames::new(&["192.0.2.5".to_owned()], &[], vec![address]);
    #[rustfmt::skip]
    let table = [
        ("sip:bob@192.0.2.5",      true),
        ("sip:bob@192.0.2.5:5060", true),
        ("sip:bob@192.0.2.5:5080", true),
        ("sip:bob@192.0.2.5:6000", false),
    ];
    for (text, expected) in table {
        let uri = Uri::parse(text.as_bytes()).expect(text);
        assert_eq!(names.domain_of(&uri).is_some(), expected, "{text}");
    }
}
