//! Where a response goes, from the top Via alone (RFC 3261 §18.2.2, RFC 3581 §4).

use std::net::{IpAddr, SocketAddr};

use sip_message::header::{Rport, Via};
use sip_message::{Transport, parse_ip};

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
    let received = via.received().and_then(parse_ip);
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
