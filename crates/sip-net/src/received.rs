//! What the receiver of a request writes on its top Via: where it really came from
//! (RFC 3261 §18.2.1, RFC 3581 §4).

use std::io::Write;
use std::net::SocketAddr;

use sip_message::{Edits, HeaderError, Message};

/// Notes in `edits` that `message` came from `source`: `received` always, `rport` if the client
/// asked for it. Values that the client wrote there itself are replaced.
///
/// `received` is written even when it equals sent-by: so it need not be looked up whether a name
/// means the same address, and the way back never depends on the DNS.
///
/// # Errors
///
/// The top Via cannot be read; the edits are as before.
pub fn edit(
    message: &Message<'_>,
    source: SocketAddr,
    edits: &mut Edits,
) -> Result<(), HeaderError> {
    let via = message.top_via()?;
    // A parameter's span begins with its semicolon. Writing to a `Vec` cannot fail.
    if let Some(rport) = via.find_param(b"rport") {
        edits.replace_with(rport.span, |out| {
            let _ = write!(out, ";rport={}", source.port());
        });
    }
    let ip = source.ip();
    match via.find_param(b"received") {
        Some(received) => edits.replace_with(received.span, |out| {
            let _ = write!(out, ";received={ip}");
        }),
        None => edits.insert_with(via.end(), |out| {
            let _ = write!(out, ";received={ip}");
        }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sip_message::{Framing, Index, parse};

    use super::*;

    /// The Via lines of a request with `vias` after it came from `source`.
    fn edited(vias: &str, source: &str) -> String {
        let request = format!(
            "OPTIONS sip:a@example.com SIP/2.0\r\n{vias}\r\nFrom: <sip:b@example.com>;tag=1\r\n\
             To: <sip:a@example.com>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        let mut index = Index::new();
        let parsed = parse(request.as_bytes(), &mut index, Framing::Datagram);
        let message = parsed.unwrap_or_else(|refused| panic!("{vias}: {}", refused.error));
        let mut edits = Edits::new();
        edit(&message, source.parse().expect("an address"), &mut edits).expect("a top Via");
        let mut out = Vec::new();
        edits.apply(message.bytes(), &mut out);
        let text = String::from_utf8(out).expect("text");
        let (_, rest) = text.split_once("SIP/2.0\r\n").expect("a start line");
        let (vias, _) = rest.split_once("\r\nFrom").expect("a From");
        vias.to_owned()
    }

    #[test]
    fn top_via_says_where_the_request_came_from() {
        struct Row {
            name: &'static str,
            vias: &'static str,
            source: &'static str,
            expected: &'static str,
        }
        #[rustfmt::skip]
        let table = [
            Row {
                name: "always received, even if it is sent-by",
                vias: "Via: SIP/2.0/UDP 127.1.2.3:5070;branch=z9hG4bKa", source: "127.1.2.3:5070",
                expected: "Via: SIP/2.0/UDP 127.1.2.3:5070;branch=z9hG4bKa;received=127.1.2.3",
            },
            Row {
                name: "rport is filled in its place",
                vias: "Via: SIP/2.0/UDP a.test;rport;branch=z9hG4bKa", source: "127.1.2.3:40000",
                expected: "Via: SIP/2.0/UDP a.test;rport=40000;branch=z9hG4bKa;received=127.1.2.3",
            },
            Row {
                name: "the client's own claims are replaced",
                vias: "Via: SIP/2.0/UDP a.test;Received=192.0.2.9;RPORT=1;branch=z9hG4bKa",
                source: "127.1.2.3:40000",
                expected: "Via: SIP/2.0/UDP a.test;received=127.1.2.3;rport=40000;branch=z9hG4bKa",
            },
            Row {
                name: "only the topmost of several values",
                vias: "v: SIP/2.0/TCP a.test;branch=z9hG4bKa , SIP/2.0/UDP b.test;rport;branch=z9hG4bKb",
                source: "127.1.2.3:40000",
                expected: "v: SIP/2.0/TCP a.test;branch=z9hG4bKa;received=127.1.2.3 , SIP/2.0/UDP b.test;rport;branch=z9hG4bKb",
            },
            Row {
                name: "only the topmost of several fields",
                vias: "Via: SIP/2.0/UDP a.test\r\nVia: SIP/2.0/UDP b.test", source: "[2001:db8::1]:5060",
                expected: "Via: SIP/2.0/UDP a.test;received=2001:db8::1\r\nVia: SIP/2.0/UDP b.test",
            },
        ];
        for row in table {
            assert_eq!(edited(row.vias, row.source), row.expected, "{}", row.name);
        }
    }
}
