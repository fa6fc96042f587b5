//! Requests that may not be handled, and loops.

use super::*;
use crate::testing::{request, with};

fn user() -> Addressee {
    Addressee::User { domain: "example.com".to_owned() }
}

fn extension(options: &[&str]) -> Result<(), Reject> {
    Err(Reject::BadExtension { options: options.iter().map(|&it| it.to_owned()).collect() })
}

/// RFC 3261 §16.3, one rule a row.
#[test]
fn requests_that_may_not_be_handled_are_refused() {
    struct Row {
        name: &'static str,
        start: &'static str,
        fields: &'static [&'static str],
        addressee: Addressee,
        expected: Result<(), Reject>,
    }
    let fax = Reject::UnsupportedUriScheme { scheme: "fax".to_owned() };
    #[rustfmt::skip]
    let table = [
        Row { name: "sound",                        start: "INVITE sip:bob@example.com",  fields: &[],                                    addressee: user(),             expected: Ok(()) },
        Row { name: "without Max-Forwards",         start: "INVITE sip:bob@example.com",  fields: &["Max-Forwards:"],                     addressee: user(),             expected: Ok(()) },
        Row { name: "one hop is left",              start: "INVITE sip:bob@example.com",  fields: &["Max-Forwards: 1"],                   addressee: user(),             expected: Ok(()) },
        Row { name: "no hop is left",               start: "INVITE sip:bob@example.com",  fields: &["Max-Forwards: 0"],                   addressee: user(),             expected: Err(Reject::TooManyHops) },
        Row { name: "OPTIONS asks who is here",     start: "OPTIONS sip:example.com",     fields: &["Max-Forwards: 0"],                   addressee: Addressee::Tier,    expected: Ok(()) },
        Row { name: "OPTIONS for somebody",         start: "OPTIONS sip:bob@example.com", fields: &["Max-Forwards: 0"],                   addressee: user(),             expected: Err(Reject::TooManyHops) },
        Row { name: "a telephone number",           start: "INVITE tel:+4930123",         fields: &[],                                    addressee: user(),             expected: Ok(()) },
        Row { name: "an unknown scheme",            start: "INVITE fax:+4930123",         fields: &[],                                    addressee: Addressee::Foreign, expected: Err(fax) },
        Row { name: "an extension that we know",    start: "INVITE sip:bob@example.com",  fields: &["Proxy-Require: path"],               addressee: user(),             expected: Ok(()) },
        Row { name: "some that we do not",          start: "INVITE sip:bob@example.com",  fields: &["Proxy-Require: foo, path, bar"],     addressee: user(),             expected: extension(&["foo", "bar"]) },
        Row { name: "Require is the callee's",      start: "INVITE sip:bob@example.com",  fields: &["Require: 100rel"],                   addressee: user(),             expected: Ok(()) },
        Row { name: "Require of the registrar",     start: "REGISTER sip:example.com",    fields: &["Require: gruu"],                     addressee: Addressee::Tier,    expected: extension(&["gruu"]) },
        Row { name: "what the registrar knows",     start: "REGISTER sip:example.com",    fields: &["Require: outbound"],                 addressee: Addressee::Tier,    expected: Ok(()) },
        Row { name: "an ACK is never answered",     start: "ACK sip:bob@example.com",     fields: &["Proxy-Require: foo"],                addressee: user(),             expected: Ok(()) },
    ];
    for row in table {
        let bytes = request(row.start, row.fields);
        let found = with(&bytes, |request| validate(request, &row.addressee));
        assert_eq!(found, row.expected, "{}", row.name);
    }
}

/// Protocol rule 10: what a spiral has and a loop has not is another branch.
#[test]
fn a_branch_of_ours_below_is_a_loop_and_another_is_not() {
    let bytes = request(
        "INVITE sip:bob@example.com",
        &[
            "Via: SIP/2.0/UDP 127.0.10.1;branch=z9hG4bKscbtop",
            "Via: SIP/2.0/UDP 127.0.20.1:5061;branch=z9hG4bKscpbelow",
        ],
    );
    with(&bytes, |request| {
        assert!(is_loop(request, b"z9hG4bKscpbelow"));
        assert!(!is_loop(request, b"z9hG4bKscpother"));
    });
}
