//! What is ours: the domains that we serve, the names and the addresses of the tier.

use std::net::{IpAddr, SocketAddr};

use sip_message::{Scheme, Uri, parse_ip, uri};
use store::Aor;

/// Ports that a URI without a port means (RFC 3261 §19.1.2).
const DEFAULT_PORTS: [u16; 2] = [5060, 5061];

/// What only makes a telephone number easier to read and does not count.
const VISUAL_SEPARATORS: &[u8] = b"-.()";

/// The names under which this cloud is addressed.
#[derive(Clone, Debug, Default)]
pub struct LocalNames {
    domains: Vec<String>,
    service_names: Vec<String>,
    /// In order: a large fleet has many.
    addresses: Vec<SocketAddr>,
}

impl LocalNames {
    /// - `domains`: the domains whose users are ours; names or address literals.
    /// - `service_names`: names that lead to the tier without being a domain of users.
    /// - `addresses`: every address of the tier, internal and advertised, balancers and proxies.
    pub fn new(domains: &[String], service_names: &[String], addresses: Vec<SocketAddr>) -> Self {
        let lower = |names: &[String]| names.iter().map(|it| it.to_ascii_lowercase()).collect();
        let addresses = sorted(addresses);
        Self { domains: lower(domains), service_names: lower(service_names), addresses }
    }

    /// The same names after the membership has changed.
    pub fn set_addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = sorted(addresses);
    }

    /// The served domain that `host` names, in lower case. Exact, case-insensitive.
    pub fn domain(&self, host: &[u8]) -> Option<&str> {
        let mut domains = self.domains.iter();
        domains.find(|it| it.as_bytes().eq_ignore_ascii_case(host)).map(String::as_str)
    }

    /// Every served domain, lower case.
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// The domain that stands for the tier's own names and for `tel` URIs: the first one served.
    pub fn default_domain(&self) -> Option<&str> {
        self.domains.first().map(String::as_str)
    }

    /// The served domain whose user a URI names.
    ///
    /// A phone that knows only an address of the tier means the default domain by it; so does a
    /// telephone number.
    pub fn domain_of(&self, uri: &Uri<'_>) -> Option<&str> {
        match uri.scheme() {
            Scheme::Sip | Scheme::Sips => {}
            Scheme::Tel => return self.default_domain(),
            Scheme::Other(_) => return None,
        }
        let served = self.domain(uri.host()).filter(|_| self.is_port_ours(uri));
        served.or_else(|| if self.names_tier(uri) { self.default_domain() } else { None })
    }

    /// Whether a SIP URI's host and port name the tier: a served domain, a service name or an
    /// address of ours. The user is not looked at.
    pub fn is_tier(&self, uri: &Uri<'_>) -> bool {
        match uri.scheme() {
            Scheme::Sip | Scheme::Sips => {
                self.names_tier(uri)
                    || (self.domain(uri.host()).is_some() && self.is_port_ours(uri))
            }
            Scheme::Tel | Scheme::Other(_) => false,
        }
    }

    /// Whether `host` (a `maddr`) is a domain, a service name or an address of ours.
    pub fn is_our_host(&self, host: &[u8]) -> bool {
        let is_service = || self.is_service_name(host);
        let is_address = || parse_ip(host).is_some_and(|ip| self.has_ip(ip));
        self.domain(host).is_some() || is_service() || is_address()
    }

    /// The address-of-record that a URI names in a domain of ours; `None` for anything else.
    ///
    /// The user is unescaped (`%61lice` is alice, and an escaped NUL stays one octet of many).
    pub fn aor(&self, uri: &Uri<'_>) -> Option<Aor> {
        let domain = self.domain_of(uri)?;
        let mut user = Vec::new();
        uri::unescape(user_of(uri)?, &mut user);
        if uri.scheme() == Scheme::Tel {
            user.retain(|octet| !VISUAL_SEPARATORS.contains(octet));
        }
        Some(Aor::new(&user, domain.as_bytes()))
    }

    pub fn is_service_name(&self, host: &[u8]) -> bool {
        self.service_names.iter().any(|it| it.as_bytes().eq_ignore_ascii_case(host))
    }

    fn names_tier(&self, uri: &Uri<'_>) -> bool {
        if self.is_service_name(uri.host()) {
            return true;
        }
        let Some(ip) = parse_ip(uri.host()) else { return false };
        match uri.port() {
            Some(port) => self.has_address(ip, port),
            None => DEFAULT_PORTS.iter().any(|port| self.has_address(ip, *port)),
        }
    }

    fn has_address(&self, ip: IpAddr, port: u16) -> bool {
        self.addresses.binary_search(&SocketAddr::new(ip, port)).is_ok()
    }

    fn has_ip(&self, ip: IpAddr) -> bool {
        let lowest = SocketAddr::new(ip, 0);
        let first = self.addresses.partition_point(|it| *it < lowest);
        self.addresses.get(first).is_some_and(|it| it.ip() == ip)
    }

    /// A domain that is a name is ours on every port. On one that is an address there may be a
    /// phone beside us: another port of the same machine is not ours.
    fn is_port_ours(&self, uri: &Uri<'_>) -> bool {
        let Some(port) = uri.port() else { return true };
        let Some(ip) = parse_ip(uri.host()) else { return true };
        is_default_port(port) || self.has_address(ip, port)
    }
}

/// Who is named in a URI, still escaped: the user, or the number of a `tel` URI.
pub fn user_of<'a>(uri: &Uri<'a>) -> Option<&'a [u8]> {
    let user = match uri.scheme() {
        Scheme::Tel => {
            let number = uri.bytes().splitn(2, |&octet| octet == b':').nth(1)?;
            number.split(|&octet| octet == b';').next()
        }
        Scheme::Sip | Scheme::Sips | Scheme::Other(_) => uri.user(),
    };
    user.filter(|user| !user.is_empty())
}

fn sorted(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    // Without what an IPv6 address may carry besides.
    let mut addresses: Vec<SocketAddr> =
        addresses.into_iter().map(|it| SocketAddr::new(it.ip(), it.port())).collect();
    addresses.sort_unstable();
    addresses
}

fn is_default_port(port: u16) -> bool {
    DEFAULT_PORTS.contains(&port)
}

#[cfg(test)]
mod tests;
