//! Who is challenged, in which realm, and whose credentials are good (protocol rule 17).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use sip_message::{Message, Method, Uri, parse_ip};
use store::{Aor, Binding, BindingId};

use crate::flow_token::{Reach, Side};
use crate::names::LocalNames;
use crate::reject::{Forbidden, Reject};
use crate::route::{Addressee, InDialog, Routed};

/// A network whose requests are believed without credentials: `192.0.2.7`, `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedTrunk {
    address: IpAddr,
    prefix_bits: u32,
}

impl TrustedTrunk {
    /// Whether `ip` is in the network. IPv4 in IPv6 is IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let differing = u32::from(network) ^ u32::from(ip);
                differing.leading_zeros() >= self.prefix_bits
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let differing = u128::from(network) ^ u128::from(ip);
                differing.leading_zeros() >= self.prefix_bits
            }
            _ => false,
        }
    }
}

impl FromStr for TrustedTrunk {
    type Err = TrustedTrunkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || TrustedTrunkError { text: text.to_owned() };
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let prefix_bits = bits.map_or(Ok(longest), str::parse).map_err(|_| wrong())?;
        if prefix_bits > longest { Err(wrong()) } else { Ok(Self { address, prefix_bits }) }
    }
}

impl fmt::Display for TrustedTrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is neither an address nor a network such as 192.0.2.0/24")]
pub struct TrustedTrunkError {
    text: String,
}

/// Whether callers of other domains may reach our users without an account here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignCallers {
    #[default]
    Challenged,
    Admitted,
}

/// The operator's choices.
#[derive(Clone, Copy, Debug)]
pub struct IdentityPolicy<'a> {
    pub names: &'a LocalNames,
    pub trusted_trunks: &'a [TrustedTrunk],
    pub foreign_callers: ForeignCallers,
    /// Methods that are challenged inside a dialog; ACK and CANCEL never are.
    pub dialog_methods: &'a [String],
}

/// What becomes of a request before its target is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on without credentials.
    NotChallenged,
    /// Needs credentials.
    Challenge(Demand),
    /// The sender is a direct side: look up this binding; if [`comes_from`] holds the request goes
    /// on without credentials, otherwise the demand stands.
    ChallengeUnlessFrom { aor: Aor, binding: BindingId, demand: Demand },
    /// Is refused, whatever it shows.
    Refuse(Reject),
}

/// The credentials that a request owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// A served domain.
    pub realm: String,
    pub role: ChallengeRole,
    pub owner: Owner,
}

/// As whom we challenge: 401 as the one who answers (RFC 3261 §22.2), 407 as the one who passes on
/// (§22.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeRole {
    UserAgentServer,
    Proxy,
}

/// Whose credentials are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The one in From; in a dialog the one of the token's side.
    Sender(Aor),
    /// The one in To of a REGISTER.
    Registrant(Aor),
    /// A foreign or anonymous From proves only that it belongs to somebody here.
    AnyoneOfRealm,
}

/// Decides who must show credentials. `source` is the client's address: from the flow in the
/// balancer's Via, or the packet's own for a peer that reaches the proxy itself.
pub fn decide(
    policy: &IdentityPolicy<'_>,
    request: &Message<'_>,
    routed: &Routed<'_>,
    source: SocketAddr,
) -> Verdict {
    let method = request.method();
    if matches!(method, Some(Method::Ack | Method::Cancel)) {
        return Verdict::NotChallenged;
    }
    if let Some(dialog) = &routed.dialog {
        return in_dialog(policy, method, dialog, source);
    }
    // Whether somebody is here may be asked by anybody.
    if method == Some(Method::Options) && routed.addressee == Addressee::Tier {
        return Verdict::NotChallenged;
    }
    let is_trunk = policy.trusted_trunks.iter().any(|it| it.contains(source.ip()));
    if method == Some(Method::Register) && routed.addressee == Addressee::Tier {
        return registration(policy, request, is_trunk);
    }
    out_of_dialog(policy, request, routed, is_trunk)
}

fn in_dialog(
    policy: &IdentityPolicy<'_>,
    method: Option<Method<'_>>,
    dialog: &InDialog,
    source: SocketAddr,
) -> Verdict {
    let is_named = |method: Method<'_>| {
        policy.dialog_methods.iter().any(|name| name.as_bytes() == method.as_bytes())
    };
    if !method.is_some_and(is_named) {
        return Verdict::NotChallenged;
    }
    let side = dialog.sending_side();
    // A side without an address-of-record was let in without credentials and has none to show.
    let Some(aor) = &side.aor else { return Verdict::NotChallenged };
    let Some(realm) = policy.names.domain(aor.domain()) else { return Verdict::NotChallenged };
    if policy.trusted_trunks.iter().any(|it| it.contains(source.ip())) {
        return Verdict::NotChallenged;
    }
    let owner = Owner::Sender(aor.clone());
    let demand = Demand { realm: realm.to_owned(), role: ChallengeRole::Proxy, owner };
    match side {
        Side { reach: Reach::Direct, binding: Some(binding), .. } => {
            Verdict::ChallengeUnlessFrom { aor: aor.clone(), binding: *binding, demand }
        }
        _ => Verdict::Challenge(demand),
    }
}

fn registration(policy: &IdentityPolicy<'_>, request: &Message<'_>, is_trunk: bool) -> Verdict {
    match crate::registrar::aor_of(request, policy.names) {
        Ok(_) if is_trunk => Verdict::NotChallenged,
        Ok(aor) => Verdict::Challenge(Demand {
            realm: String::from_utf8_lossy(aor.domain()).into_owned(),
            role: ChallengeRole::UserAgentServer,
            owner: Owner::Registrant(aor),
        }),
        Err(reject) => Verdict::Refuse(reject),
    }
}

fn out_of_dialog(
    policy: &IdentityPolicy<'_>,
    request: &Message<'_>,
    routed: &Routed<'_>,
    is_trunk: bool,
) -> Verdict {
    let from = request.from().ok().and_then(|from| {
        let uri = from.uri().ok()?;
        // A number without a domain is nobody's account.
        uri.host().first().and_then(|_| policy.names.aor(&uri))
    });
    // Only what is for somebody of ours, or for us, is not a relay.
    let callee_domain = match &routed.addressee {
        Addressee::User { domain } => Some(domain.as_str()),
        Addressee::Tier => policy.names.default_domain(),
        Addressee::Foreign => None,
    };
    let demand = |realm: &str, owner| {
        let realm = realm.to_owned();
        Verdict::Challenge(Demand { realm, role: ChallengeRole::Proxy, owner })
    };
    match (from, callee_domain) {
        (None, None) => {
            let why = Forbidden::RelayBetweenForeignDomains;
            Verdict::Refuse(Reject::Forbidden { why })
        }
        _ if is_trunk => Verdict::NotChallenged,
        (Some(aor), _) => {
            let realm = String::from_utf8_lossy(aor.domain()).into_owned();
            demand(&realm, Owner::Sender(aor))
        }
        (None, Some(_)) if policy.foreign_callers == ForeignCallers::Admitted => {
            Verdict::NotChallenged
        }
        (None, Some(realm)) => demand(realm, Owner::AnyoneOfRealm),
    }
}

/// Whether `source` is the host that a direct binding's contact names. The port is not asked: a
/// trunk may send from another than it listens on. A contact by name is challenged instead.
pub fn comes_from(binding: &Binding, source: SocketAddr) -> bool {
    let Ok(uri) = Uri::parse(&binding.contact) else { return false };
    let host = uri.param(b"maddr").flatten().unwrap_or_else(|| uri.host());
    binding.direct && parse_ip(host).is_some_and(|ip| ip == source.ip().to_canonical())
}

/// Whether the user that has proved who it is may send this request.
///
/// # Errors
///
/// 403: credentials that are right, but somebody else's.
pub fn check_owner(demand: &Demand, authenticated: &Aor) -> Result<(), Reject> {
    let (owner, why) = match &demand.owner {
        Owner::Sender(owner) => (owner, Forbidden::NotTheSender),
        Owner::Registrant(owner) => (owner, Forbidden::NotTheRegistrant),
        Owner::AnyoneOfRealm => return Ok(()),
    };
    if owner == authenticated { Ok(()) } else { Err(Reject::Forbidden { why }) }
}

#[cfg(test)]
mod tests;
