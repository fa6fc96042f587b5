//! Every trap of RFC 4475 and RFC 5118, by messages of our own in `testdata/torture`.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use sip_message::{
    Contacts, Edits, Frame, Framer, Framing, HeaderName, Index, Message, Reply, StatusCode,
    Transport, parse, uri, write_reply,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/torture")
}

/// Name, octets, and what the index demands of the parser.
pub(crate) fn messages() -> Vec<(String, Vec<u8>, Value)> {
    let index = fs::read_to_string(folder().join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let entries = index["messages"].as_array().unwrap();
    let read = |entry: &Value| {
        let bytes = fs::read(folder().join(entry["file"].as_str().unwrap())).unwrap();
        (entry["name"].as_str().unwrap().to_owned(), bytes, entry["parser"].clone())
    };
    entries.iter().map(read).collect()
}

fn octets(name: &str) -> Vec<u8> {
    messages().into_iter().find(|(found, ..)| found == name).unwrap().1
}

/// Method: parse each as a datagram; compare with what the index demands.
#[test]
fn every_message_gets_what_it_is_owed() {
    let messages = messages();
    assert_eq!(messages.len(), 62);
    for (name, bytes, demand) in messages {
        let mut index = Index::new();
        let wanted = demand["status"].as_u64();
        match parse(&bytes, &mut index, Framing::Datagram) {
            Ok(_) => assert_eq!(wanted, None, "{name} must be refused"),
            Err(malformed) => {
                let error = malformed.error;
                assert_eq!(wanted, Some(error.status().code().into()), "{name}: {error}");
                let can_answer = demand["answerable"].as_bool().unwrap();
                assert_eq!(malformed.message.is_some(), can_answer, "{name}: {error}");
                assert!(error.at() <= bytes.len(), "{name}: {error}");
            }
        }
    }
}

/// Method: the reply to every request that can be answered carries its Vias and its Call-ID.
#[test]
fn refusals_carry_the_fields_that_bring_them_home() {
    for (name, bytes, _) in messages() {
        let mut index = Index::new();
        let message = match parse(&bytes, &mut index, Framing::Datagram) {
            Ok(message) if message.is_request() => message,
            Err(malformed) if malformed.message.is_some() => malformed.message.unwrap(),
            _ => continue,
        };
        let mut out = Vec::new();
        let reply = Reply { to_tag: Some(b"ours"), ..Reply::new(StatusCode::BAD_REQUEST) };
        write_reply(&message, &reply, &mut out);
        let mut index = Index::new();
        if let Ok(response) = parse(&out, &mut index, Framing::Datagram) {
            assert_eq!(response.vias().count(), message.vias().count(), "{name}");
            assert_eq!(response.call_id(), message.call_id(), "{name}");
            assert!(response.to_tag().is_some(), "{name}");
        }
        assert!(out.starts_with(b"SIP/2.0 400 Bad Request\r\n"), "{name}");
    }
}

/// Method: without edits, what leaves is what came; on a stream the message is the same one.
#[test]
fn accepted_messages_leave_octet_for_octet() {
    for (name, bytes, _) in messages() {
        let mut index = Index::new();
        let Ok(message) = parse(&bytes, &mut index, Framing::Datagram) else { continue };
        let mut out = Vec::new();
        Edits::new().apply(message.bytes(), &mut out);
        assert!(bytes.starts_with(&out), "{name}");
        if message.field(HeaderName::CONTENT_LENGTH).is_none() {
            continue;
        }
        let mut framer = Framer::new();
        for piece in bytes.chunks(7) {
            framer.push(piece);
        }
        let Ok(Some(Frame::Message(framed))) = framer.next() else { panic!("{name}: no frame") };
        assert_eq!(framed, message.bytes(), "{name}");
        let mut again = Index::new();
        let streamed = parse(&framed, &mut again, Framing::Stream).unwrap();
        assert_eq!(streamed.body(), message.body(), "{name}");
    }
}

fn with<T>(name: &str, check: impl FnOnce(Message<'_>) -> T) -> T {
    let bytes = octets(name);
    let mut index = Index::new();
    match parse(&bytes, &mut index, Framing::Datagram) {
        Ok(message) => check(message),
        Err(malformed) => panic!("{name}: {}", malformed.error),
    }
}

#[test]
fn folds_and_spaces_hide_nothing() {
    with("white-space-everywhere", |message| {
        assert_eq!(message.max_forwards().unwrap().hops(), 42);
        assert_eq!((message.cseq().number, message.cseq().method.as_bytes()), (11, &b"INVITE"[..]));
        assert_eq!(message.from_tag(), Some(&b"kk21x9"[..]));
        assert_eq!(message.to_tag(), Some(&b"7700415q"[..]));
        let vias: Vec<_> = message.vias().map(Result::unwrap).collect();
        assert_eq!(vias.len(), 3);
        assert_eq!(vias[0].host(), b"192.0.2.71");
        assert_eq!(vias[1].branch(), Some(&b"z9hG4bKtm2"[..]));
        assert_eq!(vias[2].branch(), Some(&b"z9hG4bKtm3"[..]));
        assert_eq!(vias[1].transport_kind(), Some(Transport::Tcp));
        let Ok(Contacts::List(mut contacts)) = message.contacts() else { panic!("no list") };
        assert_eq!(contacts.next().unwrap().unwrap().q(), Some(710));
        assert!(message.routes().next().unwrap().unwrap().is_loose());
        assert_eq!(message.field(HeaderName::SUBJECT).unwrap().value, b"");
        let odd = message.named(b"Odd-Looking-Value").next().unwrap();
        assert_eq!(odd.value, b",;;,,;;;");
    });
}

#[test]
fn unusual_characters_are_carried() {
    with("unusual-characters", |message| {
        assert_eq!(message.method().unwrap().as_bytes(), b"*Winch'n-Hoist.0246`~%up!+_");
        let uri = message.uri().unwrap();
        assert_eq!(uri.user(), Some(&b"7_rope.Drum!(pull-it)&hold's+on$/never?,/;;*"[..]));
        assert_eq!(uri.host(), b"example.org");
        assert_eq!(message.from_tag(), Some(&b"~tag'9`+*%!_-."[..]));
        assert!(message.to().unwrap().display.unwrap().contains(&0));
    });
}

#[test]
fn escapes_are_compared_once_and_stay() {
    with("escapes-that-stay", |message| {
        let uri = message.uri().unwrap();
        assert_eq!(uri.user(), Some(&b"tel%3A7%40bridge.example.org"[..]));
        assert_eq!(uri.host(), b"quay.example.org");
        let Ok(Contacts::List(mut contacts)) = message.contacts() else { panic!("no list") };
        let contact = contacts.next().unwrap().unwrap().uri().unwrap();
        let twice = sip_message::Uri::parse(b"sip:mooring@192.0.2.72;lr;side=portB").unwrap();
        assert!(!uri::equivalent(&contact, &twice), "%2542 was unescaped twice");
    });
}

#[test]
fn addresses_are_told_apart() {
    with("escaped-nul", |message| {
        let Ok(Contacts::List(contacts)) = message.contacts() else { panic!("no list") };
        let users: Vec<_> = contacts
            .map(|contact| contact.unwrap().uri().unwrap().user().unwrap().to_vec())
            .collect();
        assert_eq!(users, [b"%00".to_vec(), b"%00%00".to_vec()]);
    });
    with("percent-is-no-escape", |message| {
        assert_eq!(message.values(HeaderName::CONTACT).count(), 2);
        assert_ne!(message.method(), Some(sip_message::Method::Register));
    });
    with("semicolons-in-user", |message| {
        let uri = message.uri().unwrap();
        assert_eq!(uri.user(), Some(&b"dock;berth=w%40est.example.org"[..]));
        assert_eq!(uri.params().count(), 0);
        assert_eq!(message.values(HeaderName::ACCEPT).count(), 5);
    });
    for (name, outside) in [("contact-parameter", true), ("uri-parameter", false)] {
        with(name, |message| {
            let Ok(Contacts::List(mut contacts)) = message.contacts() else { panic!("no list") };
            let contact = contacts.next().unwrap().unwrap();
            assert_eq!(contact.param(b"hammock").is_some(), outside, "{name}");
            assert_eq!(contact.uri().unwrap().param(b"hammock").is_some(), !outside, "{name}");
        });
    }
}

#[test]
fn bodies_end_where_they_are_said_to_end() {
    with("request-behind-request", |message| {
        assert_eq!(message.body(), b"");
        assert!(message.bytes().ends_with(b"Content-Length: 0\r\n\r\n"));
    });
    with("binary-multipart", |message| {
        assert!(message.body().ends_with(b"--plank-7f--\r\n"));
        assert!(message.body().contains(&0));
    });
    with("long-values", |message| assert_eq!(message.vias().count(), 34));
    with("empty-reason", |message| assert_eq!(message.reason(), b""));
    with("rfc-2543-request", |message| {
        assert_eq!(message.top_via().unwrap().branch(), None);
        assert_eq!(message.from_tag(), None);
        assert!(message.body().starts_with(b"v=0"));
    });
}

#[test]
fn ipv6_references_are_understood() {
    let port = |name| with(name, |message| message.uri().unwrap().port());
    assert_eq!(port("v6-port-inside"), None);
    assert_eq!(port("v6-port-outside"), Some(5080));
    for name in ["v6-received-in-brackets", "v6-received-without-brackets"] {
        let received = with(name, |message| message.top_via().unwrap().received_ip());
        assert_eq!(received, Some("2001:db8::a:ff".parse().unwrap()), "{name}");
    }
    let host = |name| with(name, |message| uri::parse_ip(message.uri().unwrap().host()));
    assert!(host("v6-three-colons").is_some());
    assert_eq!(host("v6-three-colons"), host("v6-two-colons"));
    with("v4-mapped", |message| {
        let via = message.top_via().unwrap();
        assert_eq!(via.port(), Some(19824));
        assert!(uri::parse_ip(via.host()).is_some());
    });
}
