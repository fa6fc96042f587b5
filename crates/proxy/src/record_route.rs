//! The Record-Route values of one copy (RFC 3261 §16.6 step 4): they name the tier and carry how each
//! side of the dialog is reached, so that any balancer and any proxy can serve it.

use std::net::SocketAddr;

use bytes::Bytes;
use sip_core::flow_token::{
    DialogToken, Flow, Reach, Side, read_dialog_token, read_path, tag_hash, write_dialog_token,
    write_path,
};
use sip_core::mac::KeyRing;
use sip_core::target::{Target, TargetIdentity, TargetReach, uri_of};
use sip_core::{forwarding, registrar};
use sip_message::{Edits, Framing, Index, Message, NameAddr, Transport, Uri};

use crate::balancers::Health;
use crate::context::Context;
use crate::leave::Way;
use crate::worker::World;

/// None inside a dialog and for methods that make none; one if both sides use one transport and one
/// host; otherwise two, the topmost for the side that the copy goes to.
pub(crate) fn write(
    world: &World,
    request: &Message<'_>,
    context: &Context,
    target: &Target,
    way: Way,
) -> Vec<Vec<u8>> {
    let makes_dialog = request.method().is_some_and(|method| forwarding::opens_dialog(method));
    if !makes_dialog || request.to_tag().is_some() {
        return Vec::new();
    }
    let (callee, callee_transport) = callee_side(world, target, way);
    let token = DialogToken {
        caller: caller_side(request, context),
        callee,
        caller_tag_hash: tag_hash(request.call_id(), request.from_tag().unwrap_or_default()),
    };
    let mut user = Vec::with_capacity(256);
    write_dialog_token(&world.ring, &token, &mut user);
    let address = address_host(world, request, context);
    let caller_host = named_host(world, request).unwrap_or_else(|| address.clone());
    let caller_transport = context.arrival.transport;
    let mut routes = Vec::with_capacity(2);
    // What the caller can resolve, the callee perhaps cannot.
    if callee_transport != caller_transport || caller_host != address {
        routes.push(uri(&user, &address, callee_transport));
    }
    routes.push(uri(&user, &caller_host, caller_transport));
    routes
}

/// The service's name, if the caller's route says that it found us by it. A name in the Request-URI
/// proves nothing: behind an outbound proxy's address it may never be resolved.
fn named_host(world: &World, request: &Message<'_>) -> Option<Vec<u8>> {
    let top = request.routes().next()?.ok()?;
    let uri = top.address.uri().ok()?;
    let is_name = uri.port().is_none() && world.names.is_service_name(uri.host());
    is_name.then(|| uri.host().to_vec())
}

/// The address of the balancer that brought the request: everybody who reaches the tier reaches it.
/// Of another one if that one is on its way out: a dialog may last longer.
fn address_host(world: &World, request: &Message<'_>, context: &Context) -> Vec<u8> {
    let Some(carrier) = &context.arrival.carrier else {
        return world.address.to_string().into_bytes();
    };
    let known = world.membership.as_deref();
    let member = known.and_then(|known| known.balancer(carrier.balancer?));
    let leaving = member.filter(|one| known.is_some_and(|it| it.is_leaving(one.instance)));
    let other = leaving.and_then(|one| world.detours.stand_in(one.internal, request.call_id()));
    other.map_or(carrier.advertised, |one| one.advertised).to_string().into_bytes()
}

/// A response to a client whose balancer is dead: where its Record-Route values of ours name that one
/// they name the one that stands in for it (RFC 3261 §16.7 step 8), or the client's ACK and BYE would
/// go nowhere.
pub(crate) fn lead_around(world: &World, context: &Context, response: Bytes) -> Bytes {
    let (Way::Tier(balancer), Some(carrier)) = (context.arrival.reply, &context.arrival.carrier)
    else {
        return response;
    };
    if world.detours.health(balancer) == Health::Well {
        return response;
    }
    let mut index = Index::new();
    let Ok(view) = sip_message::parse(&response, &mut index, Framing::Datagram) else {
        return response;
    };
    let Some(other) = world.detours.stand_in(balancer, view.call_id()) else { return response };
    let (old, new) = (format!("@{};", carrier.advertised), format!("@{};", other.advertised));
    let mut edits = Edits::new();
    for route in view.record_routes().filter_map(Result::ok) {
        let user = route.uri().ok().and_then(|uri| uri.user());
        if user.and_then(|user| read_dialog_token(&world.ring, user)).is_none() {
            continue;
        }
        let text = route.value.text;
        let found = text.windows(old.len()).position(|part| part == old.as_bytes());
        let parts = found.and_then(|at| Some((text.get(..at)?, text.get(at + old.len()..)?)));
        if let Some((before, after)) = parts {
            edits.replace(route.value.span, &[before, new.as_bytes(), after].concat());
        }
    }
    if edits.is_empty() {
        return response;
    }
    let mut out = Vec::with_capacity(response.len() + 32);
    edits.apply(view.bytes(), &mut out);
    Bytes::from(out)
}

fn uri(user: &[u8], host: &[u8], transport: Transport) -> Vec<u8> {
    let parameter: &[u8] = match transport {
        Transport::Udp => b"",
        Transport::Tcp | Transport::Tls => b";transport=tcp",
        Transport::Ws | Transport::Wss => b";transport=ws",
    };
    [b"<sip:".as_slice(), user, b"@", host, parameter, b";lr>"].concat()
}

fn caller_side(request: &Message<'_>, context: &Context) -> Side {
    let carrier = context.arrival.carrier.as_ref();
    let reach = carrier
        .and_then(|carrier| Some(Reach::Flow { balancer: carrier.balancer?, flow: carrier.flow }))
        .unwrap_or(Reach::Direct);
    let contact = first_contact(request);
    let binding = contact.and_then(|it| registrar::binding_id_of(&it).ok());
    Side { reach, aor: context.identity.clone(), binding }
}

fn first_contact<'a>(request: &Message<'a>) -> Option<NameAddr<'a>> {
    match request.contacts().ok()? {
        sip_message::Contacts::Star => None,
        sip_message::Contacts::List(mut contacts) => contacts.next()?.ok(),
    }
}

fn callee_side(world: &World, target: &Target, way: Way) -> (Side, Transport) {
    let binding = match &target.identity {
        TargetIdentity::Binding(id) => Some(*id),
        TargetIdentity::Dialog { binding, .. } => *binding,
        TargetIdentity::RequestUri => None,
    };
    let by_flow = match target.reach {
        TargetReach::Flow => path_of(world, target),
        TargetReach::Direct => None,
    };
    let transport = match (&by_flow, way) {
        (Some(Reach::Flow { flow, .. }), _) => flow.transport,
        (_, Way::Peer { transport, .. }) => transport,
        _ => Transport::Udp,
    };
    let reach = by_flow.unwrap_or(Reach::Direct);
    (Side { reach, aor: target.aor.clone(), binding }, transport)
}

/// The flow that the target's first route, a Path of ours, names.
fn path_of(world: &World, target: &Target) -> Option<Reach> {
    let (address, flow) = read_first_route(world, target)?;
    let balancer = world.membership.as_deref()?.balancer_at(address)?.instance;
    Some(Reach::Flow { balancer, flow })
}

fn read_first_route(world: &World, target: &Target) -> Option<(SocketAddr, Flow)> {
    read_path_value(&world.ring, target.routes.first()?)
}

/// The balancer and the flow of a Path of ours.
pub(crate) fn read_path_value(ring: &KeyRing, path: &[u8]) -> Option<(SocketAddr, Flow)> {
    let uri = Uri::parse(uri_of(path)).ok()?;
    let flow = read_path(ring, uri.user()?)?;
    let ip = sip_message::parse_ip(uri.host())?;
    Some((SocketAddr::new(ip, uri.port().unwrap_or(5060)), flow))
}

/// Leads a target whose balancer has left the fleet through another one (rule 23 of
/// docs/protocol.md). That reaches a UDP client that is not bound to one address of ours.
pub(crate) fn replace_gone_balancer(world: &World, call_id: &[u8], target: &mut Target) {
    let Some(members) = world.membership.as_deref() else { return };
    let Some((address, flow)) = read_first_route(world, target) else { return };
    // A connection's number means another connection at another balancer.
    if flow.transport != Transport::Udp || members.balancer_at(address).is_some() {
        return;
    }
    let other = world.detours.stand_in(address, call_id).or_else(|| members.balancers.first());
    if let (Some(other), Some(route)) = (other, target.routes.first_mut()) {
        route.clear();
        write_path(&world.ring, &flow, other.internal, route);
    }
}
