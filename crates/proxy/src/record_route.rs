//! The Record-Route values of one copy (RFC 3261 §16.6 step 4): they name the tier and carry how each
//! side of the dialog is reached, so that any balancer and any proxy can serve it.

use std::net::SocketAddr;

use sip_core::flow_token::{
    DialogToken, Flow, Reach, Side, read_path, tag_hash, write_dialog_token, write_path,
};
use sip_core::target::{Target, TargetIdentity, TargetReach, uri_of};
use sip_core::{forwarding, registrar};
use sip_message::{Message, NameAddr, Transport, Uri};

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
    let address = address_host(world, context);
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
fn address_host(world: &World, context: &Context) -> Vec<u8> {
    let carrier = context.arrival.carrier.as_ref();
    let address = carrier.map_or(world.address, |carrier| carrier.advertised);
    address.to_string().into_bytes()
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
    let uri = Uri::parse(uri_of(target.routes.first()?)).ok()?;
    let flow = read_path(&world.ring, uri.user()?)?;
    let ip = sip_message::parse_ip(uri.host())?;
    Some((SocketAddr::new(ip, uri.port().unwrap_or(5060)), flow))
}

/// Leads a target whose balancer has left the fleet through another one (rule 23 of
/// docs/protocol.md). That reaches a UDP client that is not bound to one address of ours.
pub(crate) fn replace_gone_balancer(world: &World, target: &mut Target) {
    let Some(members) = world.membership.as_deref() else { return };
    let Some((address, flow)) = read_first_route(world, target) else { return };
    // A connection's number means another connection at another balancer.
    if flow.transport != Transport::Udp || members.balancer_at(address).is_some() {
        return;
    }
    if let (Some(other), Some(route)) = (members.balancers.first(), target.routes.first_mut()) {
        route.clear();
        write_path(&world.ring, &flow, other.internal, route);
    }
}
