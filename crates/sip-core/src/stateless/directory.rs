//! Who is at which address: the membership, sorted for questions by packet.

use std::net::{IpAddr, SocketAddr};

use fleet::{Incarnation, Membership};

/// One worker of a proxy at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: SocketAddr,
    pub incarnation: Incarnation,
    /// Its place in [`Membership::every_proxy`]; owners come first, as in the table of rows.
    pub member: usize,
}

/// The members of one generation.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Sorted by address.
    places: Vec<Place>,
    /// In the order of [`Membership::every_proxy`].
    addresses: Vec<SocketAddr>,
    /// Sorted.
    ips: Vec<IpAddr>,
    /// What proxies and what clients see of each balancer, sorted.
    balancers: Vec<(SocketAddr, SocketAddr)>,
}

impl Directory {
    /// Sorts the members of `membership`.
    pub fn new(membership: &Membership) -> Self {
        let place = |(member, one): (usize, &fleet::Member)| Place {
            address: one.address,
            incarnation: one.incarnation,
            member,
        };
        let mut places: Vec<Place> = membership.every_proxy().enumerate().map(place).collect();
        let addresses: Vec<SocketAddr> = places.iter().map(|one| one.address).collect();
        // An owner comes before a retired worker of the same address, and is the one that is found.
        places.sort_by_key(|one| (one.address, one.member));
        places.dedup_by_key(|one| one.address);
        let mut ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
        ips.sort_unstable();
        ips.dedup();
        let names = membership.balancers.iter().map(|one| (one.internal, one.advertised));
        let mut balancers: Vec<(SocketAddr, SocketAddr)> = names.collect();
        balancers.sort_unstable();
        Self { places, addresses, ips, balancers }
    }

    /// What clients see of the balancer that proxies know by this address.
    pub fn advertised(&self, internal: SocketAddr) -> Option<SocketAddr> {
        let found = self.balancers.binary_search_by_key(&internal, |(address, _)| *address).ok()?;
        self.balancers.get(found).map(|(_, advertised)| *advertised)
    }

    /// The worker at exactly this address.
    pub fn at(&self, address: SocketAddr) -> Option<&Place> {
        let found = self.places.binary_search_by_key(&address, |one| one.address).ok()?;
        self.places.get(found)
    }

    /// Whether a worker has this IP address: a stream comes from any port.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.binary_search(&ip).is_ok()
    }

    /// The address of a member, by its place in [`Membership::every_proxy`].
    pub fn address(&self, member: usize) -> Option<SocketAddr> {
        self.addresses.get(member).copied()
    }

    /// How many members there are, retired ones included.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}
