//! Whatever comes: no panic, and what is not edited leaves as it came.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use sip_message::{
    AuthParams, Contacts, Edits, Framer, Framing, HeaderName, Index, Message, Reply, Span,
    StatusCode, parse, uri, write_ack, write_cancel, write_reply,
};

/// The same cases in every run.
fn config(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(20_030_612),
        failure_persistence: None,
        ..Config::default()
    }
}

/// Uses everything that can be asked of a message.
fn ask_everything(message: &Message<'_>) {
    let mut out = Vec::new();
    for field in message.fields() {
        assert!(field.line.range().contains(&field.value_span.range().start));
        assert_eq!(message.text(field.value_span), field.value);
        for value in message.values(field.name) {
            assert_eq!(message.text(value.span), value.text);
            assert!(value.removal_span().len() >= value.span.len());
        }
        if let Some(auth) = AuthParams::parse(field.value) {
            auth.get(b"nonce");
            assert!(auth.iter().count() <= field.value.len());
        }
    }
    for via in message.vias().chain([message.top_via()]).flatten() {
        assert!(via.end() <= message.headers_end());
        let _ = (via.received_ip(), via.port(), via.rport(), via.sent_by(), via.params().count());
    }
    for address in [message.from(), message.to()].into_iter().flatten() {
        let _ = (address.q(), address.expires(), address.tag(), address.params().count());
        if let Ok(uri) = address.uri() {
            uri::normalised(&uri, &mut out);
            assert!(uri::equivalent(&uri, &uri));
        }
    }
    if let Ok(Contacts::List(contacts)) = message.contacts() {
        for contact in contacts.flatten() {
            let _ = contact.uri();
        }
    }
    let _ = (message.routes().count(), message.record_routes().count(), message.paths().count());
    let _ = (message.call_id(), message.cseq(), message.expires(), message.max_forwards());
    let _ = (message.option_tags(HeaderName::REQUIRE).count(), message.reason(), message.uri());
    write_reply(message, &Reply::new(StatusCode::OK), &mut out);
    write_ack(message, message, &mut out);
    write_cancel(message, &mut out);
    for name in [HeaderName::VIA, HeaderName::ROUTE, HeaderName::CONTACT] {
        let mut edits = Edits::new();
        edits.remove_first(message, name, 2);
        edits.apply(message.bytes(), &mut out);
    }
}

fn survive(bytes: &[u8]) {
    for framing in [Framing::Datagram, Framing::Stream] {
        let mut index = Index::new();
        match parse(bytes, &mut index, framing) {
            Ok(message) => ask_everything(&message),
            Err(malformed) => {
                let _ = (malformed.error.to_string(), malformed.error.status());
                if let Some(message) = malformed.message {
                    ask_everything(&message);
                }
            }
        }
    }
    let mut framer = Framer::new();
    framer.push(bytes);
    while let Ok(Some(_)) = framer.next() {}
}

/// Method: every prefix of every torture message.
#[test]
fn truncated_messages_do_not_panic() {
    for (_, bytes, _) in crate::torture::messages() {
        for end in 0..bytes.len() {
            let mut index = Index::new();
            let _ = parse(&bytes[..end], &mut index, Framing::Datagram);
        }
        survive(&bytes[..bytes.len() / 2]);
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn random_octets_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survive(&bytes);
    }

    /// Method: octets that mean something to the grammar, in any order, behind a start line.
    #[test]
    fn grammar_salad_does_not_panic(
        pieces in prop::collection::vec(
            prop::sample::select(&[
                "Via: ", "v:", "From: ", "To:", "Call-ID: x", "CSeq: 1 INVITE", "Contact: ", "Route:",
                "Content-Length: ", "SIP/2.0/UDP ", "host", "[::1]", ":5060", ";branch=z9hG4bK1", ";tag=",
                "<sip:a@b>", "\"", "\\", "<", ">", ",", ";", "=", "\r\n", "\r\n ", "\r\n\r\n", "\n", "\r",
                " ", "*", "?", "@", "%41", "sip:", "0", "99999999999", "\u{0}", "é",
            ][..]),
            0..60,
        ),
    ) {
        survive(format!("INVITE sip:a@b SIP/2.0\r\n{}", pieces.concat()).as_bytes());
    }

    /// Method: torture messages with octets changed, lost, and doubled.
    #[test]
    fn mutated_messages_do_not_panic(
        which in 0_usize..62,
        mutations in prop::collection::vec((any::<u16>(), 0_u8..3, any::<u8>()), 1..8),
    ) {
        let mut bytes = crate::torture::messages().swap_remove(which).1;
        for (place, kind, octet) in mutations {
            let place = usize::from(place) % bytes.len();
            match kind {
                0 => bytes[place] = octet,
                1 => { bytes.remove(place); }
                _ => bytes.insert(place, bytes[place]),
            }
        }
        survive(&bytes);
    }

    /// Method: private fields with any octets between known ones; edit one of them.
    #[test]
    fn untouched_fields_leave_as_they_came(
        fields in prop::collection::vec(("[A-Za-z][A-Za-z0-9.!%*_+`'~-]{0,20}", "[^\r\n\u{0}]{0,40}"), 1..20),
        body in prop::collection::vec(any::<u8>(), 0..200),
        edited in any::<prop::sample::Index>(),
    ) {
        let mut head = String::from(
            "OPTIONS sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n",
        );
        for (name, value) in &fields {
            head.push_str(&format!("X-{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        let mut index = Index::new();
        let message = parse(&bytes, &mut index, Framing::Datagram).unwrap();
        prop_assert_eq!(message.bytes(), &bytes[..]);
        prop_assert_eq!(message.body(), &body[..]);
        prop_assert_eq!(message.fields().count(), fields.len() + 5);
        let lines: Vec<Span> = message.fields().map(|field| field.line).collect();
        let gone = lines[edited.index(lines.len())];
        let mut edits = Edits::new();
        edits.remove(gone);
        edits.insert(message.headers_end(), b"X-New: 1\r\n");
        let mut out = Vec::new();
        edits.apply(&bytes, &mut out);
        let mut wanted = bytes[..gone.range().start].to_vec();
        wanted.extend_from_slice(&bytes[gone.range().end..message.headers_end() as usize]);
        wanted.extend_from_slice(b"X-New: 1\r\n");
        wanted.extend_from_slice(&bytes[message.headers_end() as usize..]);
        prop_assert_eq!(out, wanted);
    }

    /// Method: against a model that rebuilds the text octet by octet.
    #[test]
    fn edits_may_be_recorded_in_any_order(
        text in prop::collection::vec(any::<u8>(), 1..60),
        cuts in prop::collection::btree_set(0_u32..60, 2..12),
        order in any::<u64>(),
    ) {
        // Disjoint spans: each pair of neighbouring cuts is one, every second of them is replaced.
        let cuts: Vec<u32> = cuts.into_iter().filter(|cut| (*cut as usize) < text.len()).collect();
        let mut spans: Vec<Span> =
            cuts.chunks_exact(2).map(|pair| Span::new(pair[0], pair[1])).collect();
        let mut wanted = Vec::new();
        let mut done = 0;
        for span in &spans {
            wanted.extend_from_slice(&text[done..span.range().start]);
            wanted.extend_from_slice(format!("<{}>", span.start).as_bytes());
            done = span.range().end;
        }
        wanted.extend_from_slice(&text[done..]);
        let length = spans.len().max(1);
        spans.rotate_left(order as usize % length);
        let mut edits = Edits::new();
        for span in spans {
            edits.replace_with(span, |out| out.extend_from_slice(format!("<{}>", span.start).as_bytes()));
        }
        let mut out = Vec::new();
        edits.apply(&text, &mut out);
        prop_assert_eq!(out, wanted);
    }

    /// Method: a URI and the same one spelt otherwise.
    #[test]
    fn normalised_uris_are_equal_when_equivalent(
        user in "[a-z0-9_!~*'()-]{1,12}",
        host in "[a-z][a-z0-9-]{0,10}\\.example",
        params in prop::collection::btree_map("[a-z]{1,6}", "[a-z0-9]{1,6}", 0..4),
    ) {
        let plain: String = params.iter().map(|(name, value)| format!(";{name}={value}")).collect();
        let turned: String = params
            .iter()
            .rev()
            .map(|(name, value)| format!(";{}={}", name.to_uppercase(), value.to_uppercase()))
            .collect();
        let escaped: String = user.bytes().map(|octet| format!("%{octet:02x}")).collect();
        let one = format!("sip:{user}@{host}{plain}");
        let other = format!("SIP:{escaped}@{}{turned}", host.to_uppercase());
        let one = sip_message::Uri::parse(one.as_bytes()).unwrap();
        let other = sip_message::Uri::parse(other.as_bytes()).unwrap();
        prop_assert!(uri::equivalent(&one, &other));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        uri::normalised(&one, &mut a);
        uri::normalised(&other, &mut b);
        prop_assert_eq!(&a, &b);
        let again = sip_message::Uri::parse(&a).unwrap();
        prop_assert!(uri::equivalent(&one, &again));
    }
}
