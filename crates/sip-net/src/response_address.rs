//! Where a response goes, from the top Via alone (RFC 3261 §18.2.2, RFC 3581 §4).

use std::net::{IpAddr, SocketAddr};

use sip_message::{Rport, Transport, Via, parse_ip};

use crate::resolve::default_port;

/// Where a response goes if it does not go back over the stream that the request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseAddress<'a> {
    Address {
        address: SocketAddr,
        transport: Transport,
    },
    /// To be resolved (RFC 3263 §5): a port as it stands, otherwise SRV records.
    Name {
        host: &'a [u8],
        port: Option<u16>,
        transport: Transport,
    },
    /// The Via names a transport that we do not know: there is no way back.
    UnknownTransport,
}

/// The address for a response whose top Via, after ours was removed, is `via`.
///
/// Over a stream first use the connection that the request came on; this is the address for when
/// it is gone. Over UDP the order is `maddr`, `received` with `rport`, sent-by.
pub fn of<'a>(via: &Via<'a>) -> ResponseAddress<'a> {
    let Some(transport) = via.transport_kind() else {
        return ResponseAddress::UnknownTransport;
    };
    let port = via.port();
    let at = |ip: IpAddr, port: Option<u16>| {
        let port = port.unwrap_or_else(|| default_port(transport));
        ResponseAddress::Address { address: SocketAddr::new(ip, port), transport }
    };
    let maddr = via.param(b"maddr").flatten().filter(|_| !transport.is_reliable());
    let received = via.received_ip();
    match (maddr, received) {
        (Some(host), _) => match parse_ip(host) {
            Some(ip) => at(ip, port),
            None => ResponseAddress::Name { host, port, transport },
        },
        (None, Some(ip)) => match via.rport() {
            // A stream's source port is the client's own: it listens on the port of its Via.
            Rport::Port(rport) if !transport.is_reliable() => at(ip, Some(rport)),
            _ => at(ip, port),
        },
        (None, None) => match parse_ip(via.host()) {
            Some(ip) => at(ip, port),
            None => ResponseAddress::Name { host: via.host(), port, transport },
        },
    }
}

#[cfg(test)]
mod tests {
    use sip_message::{Framing, Index, parse};

    use super::*;

    /// The address of a response with `via`, as text.
    fn address(via: &str) -> String {
        let response = format!(
            "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: <sip:b@example.com>;tag=1\r\n\
             To: <sip:a@example.com>;tag=2\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let mut index = Index::new();
        let parsed = parse(response.as_bytes(), &mut index, Framing::Datagram);
        let message = parsed.unwrap_or_else(|refused| panic!("{via}: {}", refused.error));
        match of(&message.top_via().expect("a top Via")) {
            ResponseAddress::Address { address, transport } => {
                format!("{} {address}", transport.as_str())
            }
            ResponseAddress::Name { host, port, transport } => {
                let host = String::from_utf8_lossy(host);
                format!("{} {host} {port:?}", transport.as_str())
            }
            ResponseAddress::UnknownTransport => "unknown".to_owned(),
        }
    }

    /// RFC 3261 §18.2.2 with RFC 3581 §4.
    #[test]
    fn response_goes_where_its_top_via_says() {
        #[rustfmt::skip]
        let table = [
            ("sent-by",               "SIP/2.0/UDP 127.1.2.3:5070",                                  "UDP 127.1.2.3:5070"),
            ("default port",          "SIP/2.0/UDP 127.1.2.3",                                       "UDP 127.1.2.3:5060"),
            ("default port of tls",   "SIP/2.0/TLS 127.1.2.3",                                       "TLS 127.1.2.3:5061"),
            ("ipv6",                  "SIP/2.0/UDP [2001:db8::1]:5070",                              "UDP [2001:db8::1]:5070"),
            ("received, own port",    "SIP/2.0/UDP a.test:5070;received=127.1.2.3",                  "UDP 127.1.2.3:5070"),
            ("received and rport",    "SIP/2.0/UDP a.test:5070;received=127.1.2.3;rport=40000",      "UDP 127.1.2.3:40000"),
            ("rport left empty",      "SIP/2.0/UDP a.test:5070;received=127.1.2.3;rport",            "UDP 127.1.2.3:5070"),
            ("received ipv6",         "SIP/2.0/UDP a.test;received=2001:db8::2",                     "UDP [2001:db8::2]:5060"),
            ("a stream that is gone", "SIP/2.0/TCP a.test:5070;received=127.1.2.3;rport=40000",      "TCP 127.1.2.3:5070"),
            ("maddr before received", "SIP/2.0/UDP a.test:5070;maddr=127.9.9.9;received=127.1.2.3",  "UDP 127.9.9.9:5070"),
            ("no maddr on a stream",  "SIP/2.0/TCP a.test:5070;maddr=127.9.9.9;received=127.1.2.3",  "TCP 127.1.2.3:5070"),
            ("a name",                "SIP/2.0/UDP a.test",                                          "UDP a.test None"),
            ("a name with a port",    "SIP/2.0/TCP a.test:5070",                                     "TCP a.test Some(5070)"),
            ("another transport",     "SIP/2.0/SCTP 127.1.2.3",                                      "unknown"),
        ];
        for (name, via, expected) in table {
            assert_eq!(address(via), expected, "{name}");
        }
    }
}
