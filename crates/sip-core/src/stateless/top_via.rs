//! What a balancer writes on a client's Via, and where a response to it goes (RFC 3261 §18.2,
//! RFC 3581).

use std::net::SocketAddr;

use sip_message::{Edits, Rport, Transport, Via};

use crate::branch::OUR_PARAM_PREFIX;
use crate::text::{push_number, push_received};

/// Adds `received` always and fills `rport` if it is there; removes what only members may write.
///
/// Always, and not only when the sent-by differs: a later hop then never has to guess.
pub fn edit_client_via(via: &Via<'_>, source: SocketAddr, edits: &mut Edits) {
    for param in via.params() {
        if param.name.eq_ignore_ascii_case(b"received") || is_ours(param.name) {
            edits.remove(param.span);
        } else if param.name.eq_ignore_ascii_case(b"rport") {
            edits.replace_with(param.span, |out| {
                out.extend_from_slice(b";rport=");
                push_number(u64::from(source.port()), out);
            });
        }
    }
    edits.insert_with(via.end(), |out| {
        out.extend_from_slice(b";received=");
        push_received(source.ip(), out);
    });
}

fn is_ours(name: &[u8]) -> bool {
    let start = name.get(..OUR_PARAM_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(OUR_PARAM_PREFIX))
}

/// Where a response to a request goes that came from `source` with `via` on top: to its source;
/// over UDP without `rport`, to the port of the sent-by there.
pub fn response_target(via: &Via<'_>, source: SocketAddr, transport: Transport) -> SocketAddr {
    if transport != Transport::Udp || via.rport() != Rport::Absent {
        return source;
    }
    // 5060 whatever transport the Via names: a datagram is answered by a datagram.
    SocketAddr::new(source.ip(), via.port().unwrap_or(5060))
}

/// Where a new connection may be opened for a response whose own is gone (RFC 3261 §18.2.2).
pub(super) fn reopening_target(via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    let default = if via.transport_kind() == Some(Transport::Tls) { 5061 } else { 5060 };
    SocketAddr::new(source.ip(), via.port().unwrap_or(default))
}
