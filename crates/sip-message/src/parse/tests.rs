//! What is refused, with what and where; what passes although it is odd.

use super::*;
use crate::error::UriError;
use crate::status::StatusCode;

const GOOD: &str = "OPTIONS sip:bob@example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
    From: <sip:alice@example.com>;tag=1\r\n\
    To: <sip:bob@example.com>\r\n\
    Call-ID: x\r\n\
    CSeq: 1 OPTIONS\r\n\
    \r\n";

fn refusal(bytes: &[u8]) -> (ParseError, bool) {
    let mut index = Index::new();
    match parse(bytes, &mut index, Framing::Datagram) {
        Ok(_) => panic!("must be refused: {}", bytes.escape_ascii()),
        Err(malformed) => (malformed.error, malformed.message.is_some()),
    }
}

fn passes(bytes: &[u8]) -> bool {
    parse(bytes, &mut Index::new(), Framing::Datagram).is_ok()
}

/// Changes one thing of a good message; the fault must be the one that is given.
fn each_is_refused(cases: &[(&str, &str, ParseError)]) {
    for (old, new, wanted) in cases {
        assert!(GOOD.contains(old), "{old}");
        let (error, _) = refusal(GOOD.replacen(old, new, 1).as_bytes());
        assert_eq!(error, *wanted, "{new}: {error}");
    }
}

#[test]
fn fault_in_a_required_part_is_named_with_its_place() {
    let name = HeaderName::VIA;
    let via_at = GOOD.find("192").unwrap();
    each_is_refused(&[
        ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", ParseError::Version { at: 28 }),
        ("SIP/2.0\r\nVia", "SIP/two\r\nVia", ParseError::StartLine { at: 28 }),
        ("SIP/2.0\r\nVia", "HTTP/1.1\r\nVia", ParseError::StartLine { at: 28 }),
        (
            "sip:bob@example.com ",
            "sip:bob@ ",
            ParseError::RequestUri { at: 8, error: UriError::Host },
        ),
        ("sip:bob@example.com ", "bob ", ParseError::RequestUri { at: 8, error: UriError::Scheme }),
        ("192.0.2.1", "192.0.2.1:port", ParseError::Field { name, at: via_at + 10 }),
        ("192.0.2.1", "[1:2", ParseError::Field { name, at: via_at }),
        ("z9hG4bK1", "z9hG4bK1;;", ParseError::Field { name, at: via_at + 26 }),
        ("Call-ID: x\r\n", "", ParseError::Missing { name: HeaderName::CALL_ID }),
        ("CSeq: 1 OPTIONS\r\n", "", ParseError::Missing { name: HeaderName::CSEQ }),
        (
            "Call-ID: x\r\n",
            "Call-ID: x\r\ni: x\r\n",
            ParseError::Repeated { name: HeaderName::CALL_ID, at: GOOD.find("CSeq").unwrap() },
        ),
        (
            "Call-ID: x",
            "Call-ID: x y",
            ParseError::Field { name: HeaderName::CALL_ID, at: GOOD.find("x\r\nCSeq").unwrap() },
        ),
        (
            "1 OPTIONS",
            "1 INVITE",
            ParseError::MethodMismatch { at: GOOD.find("1 OPTIONS").unwrap() + 2 },
        ),
        (
            "1 OPTIONS",
            "4294967296 OPTIONS",
            ParseError::OutOfRange { name: HeaderName::CSEQ, at: GOOD.find("1 OPTIONS").unwrap() },
        ),
    ]);
}

#[test]
fn fault_in_another_field_is_named_with_its_place() {
    each_is_refused(&[
        (
            "Call-ID: x\r\n",
            "Call-ID: x\r\nMax-Forwards: 256\r\n",
            ParseError::OutOfRange {
                name: HeaderName::MAX_FORWARDS,
                at: GOOD.find("CSeq").unwrap() + 14,
            },
        ),
        (
            "Call-ID: x\r\n",
            "Call-ID: x\r\nExpires: soon\r\n",
            ParseError::Field { name: HeaderName::EXPIRES, at: GOOD.find("CSeq").unwrap() + 9 },
        ),
        (
            "Call-ID: x\r\n",
            "Call-ID: x\r\nno colon here\r\n",
            ParseError::NoColon { at: GOOD.find("CSeq").unwrap() },
        ),
        (
            "Call-ID: x\r\n",
            "Call-ID: x\r\nbad name: y\r\n",
            ParseError::FieldName { at: GOOD.find("CSeq").unwrap() },
        ),
        (
            "Call-ID: x\r\n",
            "Call-ID: x\r\n: y\r\n",
            ParseError::FieldName { at: GOOD.find("CSeq").unwrap() },
        ),
    ]);
}

#[test]
fn fault_in_framing_is_named_with_its_place() {
    each_is_refused(&[
        (
            "Call-ID: x\r\n",
            "Call-ID: x\n",
            ParseError::LineEnd { at: GOOD.find("x\r\nCSeq").unwrap() + 1 },
        ),
        (
            "Call-ID: x\r\n",
            "Call-ID: x\ry\r\n",
            ParseError::LineEnd { at: GOOD.find("x\r\nCSeq").unwrap() + 1 },
        ),
        ("OPTIONS\r\n\r\n", "OPTIONS\r\n", ParseError::Unended { at: GOOD.len() - 2 }),
        (
            "OPTIONS\r\n\r\n",
            "OPTIONS\r\nl: 3\r\n\r\nab",
            ParseError::BodyCut { at: GOOD.len() + 1, announced: 3, present: 2 },
        ),
        (
            "OPTIONS\r\n\r\n",
            "OPTIONS\r\nl: 1\r\nl: 2\r\n\r\nab",
            ParseError::LengthConflict { at: GOOD.len() + 7 },
        ),
        (
            "OPTIONS\r\n\r\n",
            "OPTIONS\r\nl: +1\r\n\r\nab",
            ParseError::Field { name: HeaderName::CONTENT_LENGTH, at: GOOD.len() + 1 },
        ),
        (
            "OPTIONS\r\n\r\n",
            "OPTIONS\r\nl: 1, 1\r\n\r\nab",
            ParseError::Field { name: HeaderName::CONTENT_LENGTH, at: GOOD.len() + 1 },
        ),
    ]);
}

#[test]
fn nothing_but_line_ends_is_empty() {
    for bytes in [&b""[..], b"\r\n", b"\r\n\r\n"] {
        assert_eq!(refusal(bytes), (ParseError::Empty, false));
    }
    assert!(passes(format!("\r\n\r\n{GOOD}").as_bytes()));
}

#[test]
fn what_is_not_sip_is_not_answered() {
    for text in [
        "hello",
        "hello\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\u{0}\u{1}\r\n\r\n",
        "@ a SIP/2.0\r\n\r\n",
    ] {
        let (error, can_answer) = refusal(text.as_bytes());
        assert!(!can_answer, "{text}: {error}");
    }
    let (_, can_answer) =
        refusal(GOOD.replace("OPTIONS", "ACK").replacen("Call-ID: x", "a", 1).as_bytes());
    assert!(!can_answer, "an ACK is never answered");
    let (_, can_answer) = refusal(
        GOOD.replacen("OPTIONS sip:bob@example.com SIP/2.0", "SIP/2.0 099 Low", 1).as_bytes(),
    );
    assert!(!can_answer, "a response is never answered");
}

#[test]
fn a_request_without_any_via_can_be_answered_at_its_source() {
    let bare = GOOD.lines().filter(|line| !line.starts_with("Via")).collect::<Vec<_>>();
    let (_, can_answer) = refusal((bare.join("\r\n") + "\r\n\r\n").as_bytes());
    assert!(can_answer);
    let stray = "OPTIONS sip:bob@example.com SIP/2.0\r\nVia: ,\r\nCall-ID: x\r\n\r\n";
    assert!(!refusal(stray.as_bytes()).1, "a Via that cannot be read hides the way back");
}

/// The second Via must not be taken for the first: the answer would go astray.
#[test]
fn unreadable_top_via_is_not_replaced_by_the_next() {
    let text = GOOD.replacen("Via: ", "Via: nonsense\r\nVia: ", 1);
    assert!(!refusal(text.as_bytes()).1);
}

#[test]
fn too_much_is_refused_with_513() {
    let fields = "X: y\r\n".repeat(crate::limits::FIELDS_MAX);
    let long = format!("X: {}\r\n", "y".repeat(HEADER_SECTION_BYTES_MAX));
    for text in [fields, long] {
        let (error, can_answer) = refusal(
            GOOD.replacen("Call-ID: x\r\n", &format!("Call-ID: x\r\n{text}"), 1).as_bytes(),
        );
        assert_eq!((error.status(), can_answer), (StatusCode::MESSAGE_TOO_LARGE, true), "{error}");
    }
    let (error, _) = refusal(&vec![b'a'; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(error.status(), StatusCode::MESSAGE_TOO_LARGE);
}

#[test]
fn odd_messages_pass() {
    for (old, new) in [
        ("Call-ID: x\r\n", "Call-ID: x\r\nX-Latin: caf\u{e9}\r\n"),
        ("Call-ID: x", "cALL-id \t: x"),
        ("Via: ", "v:"),
        ("sip:bob@example.com SIP", "tel:+15550100 SIP"),
        ("sip:bob@example.com SIP", "urn:service:sos SIP"),
        ("Call-ID: x\r\n", "Call-ID: x\r\nContact: *\r\n"),
        ("Call-ID: x\r\n", "Call-ID: x\r\nl: 0\r\nContent-Length: 00\r\n"),
        ("Call-ID: x\r\n", "Call-ID: x\r\nSupported:\r\n"),
        ("SIP/2.0\r\nVia", "sip/2.0\r\nVia"),
        ("192.0.2.1", "under_score.example.com"),
        ("1 OPTIONS", "4294967295 OPTIONS"),
    ] {
        assert!(GOOD.contains(old), "{old}");
        assert!(passes(GOOD.replacen(old, new, 1).as_bytes()), "{new}");
    }
    let mut latin = GOOD.replacen("Call-ID: x", "Call-ID: x\r\nSubject: ?", 1).into_bytes();
    let place = latin.iter().position(|octet| *octet == b'?').unwrap();
    latin[place] = 0xe9;
    assert!(passes(&latin));
}

#[test]
fn framing_decides_where_a_message_without_length_ends() {
    let text = format!("{GOOD}behind");
    for (framing, body) in [(Framing::Datagram, &b"behind"[..]), (Framing::Stream, b"")] {
        let mut index = Index::new();
        let message = parse(text.as_bytes(), &mut index, framing).unwrap();
        assert_eq!(message.body(), body);
        assert!(message.bytes().ends_with(body));
    }
}

#[test]
fn responses_are_read() {
    let response = |line: &str| GOOD.replacen("OPTIONS sip:bob@example.com SIP/2.0", line, 1);
    for (line, code, reason) in [
        ("SIP/2.0 180 Ringing", 180, "Ringing"),
        ("SIP/2.0 200 ", 200, ""),
        ("SIP/2.0 699", 699, ""),
    ] {
        let text = response(line);
        let mut index = Index::new();
        let message = parse(text.as_bytes(), &mut index, Framing::Datagram).unwrap();
        assert_eq!(message.status().unwrap().code(), code);
        assert_eq!(message.reason(), reason.as_bytes());
        assert_eq!(message.request_uri_bytes(), b"");
    }
    for line in
        ["SIP/2.0 99 Low", "SIP/2.0 700 High", "SIP/2.0 2000 Long", "SIP/2.0 abc", "SIP/9.0 200 OK"]
    {
        assert!(!passes(response(line).as_bytes()), "{line}");
    }
}
