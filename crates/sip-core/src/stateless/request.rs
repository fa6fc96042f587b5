//! Requests: a client's goes to the owner of its Call-ID, a member's over the flow of its Path.

use std::net::SocketAddr;

use sip_message::{
    Edits, HeaderName, MaxForwards, Message, Method, Span, StatusCode, Transport, Via, parse_ip,
};

use super::{
    BalancerView, DropReason, PATH_BYTES, PRIVATE_PREFIX, ReplyReason, Verdict, earlier,
    edit_client_via, is_usable, owner,
};
use crate::branch::{
    BalancerBranch, BalancerVia, ProxyIdentity, TierVia, read_tier_via, write_balancer_via,
};
use crate::flow_token::{Flow, ToTag, is_our_to_tag, read_path, write_path};
use crate::text::push_number;

/// Bytes that our Via, `received` and `rport` add over IPv4, roughly: a Via names the transport that
/// its own length decides.
const ADDED_BYTES: usize = 160;

pub(super) fn handle(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    source: &Flow,
    edits: &mut Edits,
) -> Verdict {
    let Ok(top) = message.top_via() else { return Verdict::Drop(DropReason::NoTopVia) };
    if view.directory.is_empty() {
        return Verdict::Drop(DropReason::NoTable);
    }
    let is_members_address = view.directory.at(source.remote).is_some();
    let may_be_member = match source.transport {
        Transport::Udp => is_members_address,
        _ => view.directory.has_ip(source.remote.ip()),
    };
    // A proxy that another balancer has heard of and we have not yet.
    let is_newcomer = || {
        parse_ip(top.host()).is_some_and(|ip| {
            let sent_by: SocketAddr = (ip, top.port().unwrap_or(5060)).into();
            match source.transport {
                Transport::Udp => sent_by == source.remote,
                _ => ip == source.remote.ip(),
            }
        })
    };
    if may_be_member || is_newcomer() {
        match read_tier_via(view.ring, &top) {
            TierVia::Proxy(identity) => {
                return from_member(view, message, source, &top, &identity, edits);
            }
            // Nothing but our proxy sends from exactly that address.
            _ if is_members_address && source.transport == Transport::Udp => {
                return Verdict::Drop(DropReason::MemberWithoutMac);
            }
            _ => {}
        }
    }
    from_client(view, message, source, &top, edits)
}

fn from_client(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    source: &Flow,
    top: &Via<'_>,
    edits: &mut Edits,
) -> Verdict {
    edit_client_via(top, source.remote, edits);
    if message.max_forwards().is_some_and(|left| left.hops() == 0) {
        let is_for_us = message.method() == Some(Method::Options) && names_us(view, message);
        return if is_for_us {
            reply(message, StatusCode::OK, ReplyReason::Options)
        } else {
            reply(message, StatusCode::TOO_MANY_HOPS, ReplyReason::TooManyHops)
        };
    }
    if top_path(view, message).is_some() {
        return reply(message, StatusCode::FORBIDDEN, ReplyReason::PathFromStranger);
    }
    let Some((member, address)) = owner(view, message) else {
        return reply(message, StatusCode::SERVICE_UNAVAILABLE, ReplyReason::NoMember);
    };
    for field in message.all(HeaderName::OTHER).filter(|field| is_private(field.raw_name)) {
        edits.remove(field.line);
    }
    edit_max_forwards(message, edits);
    let is_register = message.method() == Some(Method::Register);
    if is_register {
        edits.insert_with(message.headers_start(), |out| {
            // The last proxy on the way comes first (RFC 3327 §5.2).
            out.extend_from_slice(b"Path: ");
            write_path(view.ring, source, view.me.internal, out);
            out.extend_from_slice(b"\r\n");
        });
    }
    let way = earlier::way(view, message, member, address);
    let added = if is_register { ADDED_BYTES + PATH_BYTES } else { ADDED_BYTES };
    let added = added + way.length_max();
    let via = BalancerVia {
        transport: view.transport_for(message.bytes().len() + added),
        sent_by: view.me.internal,
        key_id: None,
        branch: branch_of(message, top, None),
        flow: source,
        answered_to_source: false,
    };
    edits.insert_with(message.headers_start(), |out| {
        write_balancer_via(view.ring, &via, out);
        way.write(view.ring, message.call_id(), out);
    });
    Verdict::ToMember { member, address: way.first(), transport: via.transport, also: None }
}

fn from_member(
    view: &BalancerView<'_>,
    message: &Message<'_>,
    source: &Flow,
    top: &Via<'_>,
    identity: &ProxyIdentity,
    edits: &mut Edits,
) -> Verdict {
    if message.max_forwards().is_some_and(|left| left.hops() == 0) {
        return reply(message, StatusCode::TOO_MANY_HOPS, ReplyReason::TooManyHops);
    }
    let Some((path, balancer, route)) = top_path(view, message) else {
        return reply(message, StatusCode::FORBIDDEN, ReplyReason::NoPath);
    };
    let is_ours = view.me.is_me(balancer);
    if is_for_own_answer(view, message) {
        return Verdict::Drop(DropReason::AckForUs);
    }
    // A phone that has come to us since: what went to it through the dead one is cancelled over its
    // new connection.
    if !is_ours && path.transport != Transport::Udp && !view.me.has_connection(&path) {
        let gone = StatusCode::FLOW_FAILED;
        return reply(message, gone, ReplyReason::OtherBalancersFlow);
    }
    // For a dead one in its name, or the callee would take the request for another transaction than
    // the one that it began through that one (RFC 3261 §17.2.3).
    let (path, sent_by) = if is_ours {
        (path, view.me.advertised(&path))
    } else {
        (view.me.stand_in(path), view.directory.advertised(balancer).unwrap_or(balancer))
    };
    if !is_usable(path.remote) {
        return Verdict::Drop(DropReason::UnusableAddress);
    }
    // The Route alone: further ones, and the Request-URI, do not steer us.
    edits.remove(route);
    edit_max_forwards(message, edits);
    let via = BalancerVia {
        transport: path.transport,
        sent_by,
        key_id: Some(identity.key_id),
        branch: branch_of(message, top, Some(identity)),
        flow: source,
        answered_to_source: !is_ours,
    };
    edits.insert_with(message.headers_start(), |out| write_balancer_via(view.ring, &via, out));
    Verdict::ToFlow { flow: path, otherwise: None }
}

/// An answer; or nothing, if it is an ACK.
fn reply(message: &Message<'_>, status: StatusCode, reason: ReplyReason) -> Verdict {
    if message.method() == Some(Method::Ack) {
        return Verdict::Drop(DropReason::Ack(reason));
    }
    Verdict::Reply { status, reason }
}

/// Whether this is the ACK to an answer of ours, a 430 for instance: the phone has seen nothing of
/// its INVITE. No answer of the tier itself travels in this direction.
fn is_for_own_answer(view: &BalancerView<'_>, message: &Message<'_>) -> bool {
    if message.method() != Some(Method::Ack) {
        return false;
    }
    let answered = ToTag {
        call_id: message.call_id(),
        from_tag: message.from_tag().unwrap_or_default(),
        cseq: message.cseq().number,
    };
    message.to_tag().is_some_and(|tag| is_our_to_tag(view.ring, tag, &answered))
}

/// The flow of the topmost Route, if that is a Path token of the tier, the balancer that it names, and
/// what to remove of the message to take it away.
fn top_path(view: &BalancerView<'_>, message: &Message<'_>) -> Option<(Flow, SocketAddr, Span)> {
    let route = message.top_route()?.ok()?;
    let uri = route.uri().ok()?;
    let flow = read_path(view.ring, uri.user()?)?;
    let ip = parse_ip(uri.host())?;
    let balancer = (ip, uri.port().unwrap_or(5060)).into();
    Some((flow, balancer, route.value.removal_span()))
}

fn branch_of<'a>(
    message: &Message<'a>,
    top: &Via<'a>,
    proxy: Option<&ProxyIdentity>,
) -> BalancerBranch<'a> {
    BalancerBranch {
        received_branch: top.branch().unwrap_or_default(),
        received_sent_by: if proxy.is_some() { None } else { Some(top.sent_by()) },
        call_id: message.call_id(),
        from_tag: message.from_tag().unwrap_or_default(),
        cseq: message.cseq().number,
    }
}

/// One hop less; 70 if the field is missing (RFC 3261 §16.6 step 3).
fn edit_max_forwards(message: &Message<'_>, edits: &mut Edits) {
    let field = message.field(HeaderName::MAX_FORWARDS);
    match (field, message.max_forwards().and_then(MaxForwards::forwarded)) {
        (Some(field), Some(left)) => {
            edits.replace_with(field.value_span, |out| {
                push_number(u64::from(left.hops()), out);
            });
        }
        _ => edits.insert(message.headers_start(), b"Max-Forwards: 70\r\n"),
    }
}

fn is_private(name: &[u8]) -> bool {
    let start = name.get(..PRIVATE_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PRIVATE_PREFIX))
}

/// Whether the Request-URI is the tier itself: its name or an address of ours, without a user.
fn names_us(view: &BalancerView<'_>, message: &Message<'_>) -> bool {
    let Ok(uri) = message.uri() else { return false };
    if uri.user().is_some() {
        return false;
    }
    let host = uri.host();
    if view.service_names.iter().any(|name| host.eq_ignore_ascii_case(name.as_bytes())) {
        return true;
    }
    let address = parse_ip(host).map(|ip| (ip, uri.port().unwrap_or(5060)).into());
    address.is_some_and(|address| view.me.is_me(address))
}
