//! Responses: our Via is taken off, and the one below says where they go.

use std::net::SocketAddr;

use sip_message::{Edits, Message, Transport, Via, parse_ip};

use super::top_via::reopening_target;
use super::{
    BalancerView, DropReason, FLOW_FIELD, PATH_BYTES, SUSPECT_PARAM, Verdict, earlier, is_usable,
    owner, response_target,
};
use crate::branch::{ProxyIdentity, TierVia, read_tier_via};
use crate::flow_token::{Flow, write_path};

/// Any balancer's Via will do, not only our own: proxies answer through us while the balancer that
/// the request came by is dead, and whoever has its address now is as good.
pub(super) fn handle(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    source: &Flow,
    edits: &mut Edits,
) -> Verdict {
    let mut vias = message.vias();
    let Some(Ok(top)) = vias.next() else { return Verdict::Drop(DropReason::NoTopVia) };
    let TierVia::Balancer { flow } = read_tier_via(view.ring, &top) else {
        return Verdict::Drop(DropReason::ResponseNotOurs);
    };
    let Some(Ok(next)) = vias.next() else { return Verdict::Drop(DropReason::ResponseForUs) };
    edits.remove(top.value.removal_span());
    match read_tier_via(view.ring, &next) {
        TierVia::Proxy(identity) => to_proxy(view, message, source, (&next, &identity), edits),
        TierVia::Balancer { .. } | TierVia::Foreign => {
            let is_ours = sent_by_of(&top).is_some_and(|address| view.me.is_me(address));
            let flow = if is_ours { flow } else { view.me.stand_in(flow) };
            to_client(&next, flow)
        }
    }
}

/// To the worker that the Via names; if it is dead, or is another by now, past the earlier owners to
/// the present owner of the call, who speaks for it; if it may be dead, to it and to whom the call
/// would then be.
fn to_proxy(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    source: &Flow,
    (via, identity): (&Via<'_>, &ProxyIdentity),
    edits: &mut Edits,
) -> Verdict {
    let place = sent_by_of(via)
        .and_then(|address| view.directory.at(address))
        .filter(|place| place.incarnation == identity.incarnation && !(view.is_dead)(place.member));
    let named = place.map(|place| (place.member, place.address));
    let Some((member, address)) = named.or_else(|| owner(view, message)) else {
        let is_early = view.directory.is_empty();
        let reason = if is_early { DropReason::NoTable } else { DropReason::ResponseWithoutMember };
        return Verdict::Drop(reason);
    };
    let also = heir(view, message, member);
    let way = named.is_none().then(|| earlier::way_of_stray(view, message, member, address));
    let way = way.filter(|way| !way.is_direct());
    let mut length = message.bytes().len();
    if named.is_none() || also.is_some() {
        length += FLOW_FIELD.len() + PATH_BYTES + way.map_or(0, |way| way.length_max());
        edits.insert_with(message.headers_start(), |out| {
            out.extend_from_slice(FLOW_FIELD);
            out.extend_from_slice(b": ");
            write_path(view.ring, source, view.me.internal, out);
            if named.is_some() {
                out.extend_from_slice(SUSPECT_PARAM);
            }
            out.extend_from_slice(b"\r\n");
            if let Some(way) = way {
                way.write(view.ring, message.call_id(), out);
            }
        });
    }
    let address = way.map_or(address, |way| way.first());
    Verdict::ToMember { member, address, transport: view.transport_for(length), also }
}

/// Whose the call would be if `member` were dead, which is suspect.
fn heir(view: &BalancerView<'_>, message: &Message<'_>, member: usize) -> Option<SocketAddr> {
    if !(view.is_suspect)(member) {
        return None;
    }
    let is_doubtful = |one: usize| (view.is_dead)(one) || (view.is_suspect)(one);
    let heir = view.selection.owner(message.call_id(), is_doubtful)?;
    view.directory.address(heir)
}

fn sent_by_of(via: &Via<'_>) -> Option<SocketAddr> {
    Some((parse_ip(via.host())?, via.port().unwrap_or(5060)).into())
}

/// Back over the flow that the request came on.
fn to_client(via: &Via<'_>, mut flow: Flow) -> Verdict {
    let otherwise = match flow.transport {
        Transport::Udp => {
            flow.remote = response_target(via, flow.remote, flow.transport);
            None
        }
        _ => Some(reopening_target(via, flow.remote)).filter(|address| is_usable(*address)),
    };
    if !is_usable(flow.remote) {
        return Verdict::Drop(DropReason::UnusableAddress);
    }
    Verdict::ToFlow { flow, otherwise }
}
