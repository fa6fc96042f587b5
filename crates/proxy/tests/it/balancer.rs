//! What a balancer writes on the requests that it brings.

use std::net::SocketAddr;

use sip_core::branch::{BalancerBranch, BalancerVia, write_balancer_via};
use sip_core::flow_token::Flow;
use sip_core::mac::KeyRing;
use sip_message::{Message, Transport};

/// The flow of a client at `remote`.
pub(crate) fn flow_from(remote: SocketAddr) -> Flow {
    Flow { listener: 0, transport: Transport::Udp, remote, connection: None }
}

/// The Via of the balancer at `sent_by` on `request`, which a client at `remote` sent.
pub(crate) fn via_line(
    ring: &KeyRing,
    sent_by: SocketAddr,
    remote: SocketAddr,
    request: &Message<'_>,
) -> Vec<u8> {
    let top = request.top_via().expect("a Via");
    let via = BalancerVia {
        transport: Transport::Udp,
        sent_by,
        key_id: None,
        branch: BalancerBranch {
            received_branch: top.branch().expect("a branch"),
            received_sent_by: Some(top.sent_by()),
            call_id: request.call_id(),
            from_tag: request.from_tag().expect("a tag"),
            cseq: request.cseq().number,
        },
        flow: &flow_from(remote),
        answered_to_source: false,
    };
    let mut line = Vec::new();
    write_balancer_via(ring, &via, &mut line);
    line
}
