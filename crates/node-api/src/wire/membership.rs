//! The membership as the manager sends it.

use std::net::SocketAddr;

use fleet::{GenerationNumber, Incarnation, InstanceId};
use serde::{Deserialize, Serialize};

use crate::text;

/// See [`fleet::GenerationNumber`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation {
    pub fence: u64,
    pub counter: u64,
}

/// See [`fleet::Membership`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub generation: Generation,
    #[serde(with = "text::hex64")]
    pub digest: u64,
    pub rows: u32,
    pub proxies: Vec<Member>,
    pub retired: Vec<Member>,
    pub balancers: Vec<Balancer>,
    #[serde(default)]
    pub earlier: Vec<EarlierSet>,
}

/// See [`fleet::EarlierSet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierSet {
    pub ended_with: Generation,
    pub is_settled: bool,
    pub proxies: Vec<Member>,
}

/// See [`fleet::Member`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub worker: u16,
    pub incarnation: u32,
    pub address: SocketAddr,
    pub weight: u16,
}

/// See [`fleet::BalancerMember`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balancer {
    #[serde(with = "text")]
    pub instance: InstanceId,
    pub incarnation: u32,
    pub internal: SocketAddr,
    pub advertised: SocketAddr,
    /// On its way out: see [`fleet::Membership::leaving`].
    #[serde(default)]
    pub leaving: bool,
}

impl From<GenerationNumber> for Generation {
    fn from(number: GenerationNumber) -> Self {
        Self { fence: number.fence, counter: number.counter }
    }
}

impl From<Generation> for GenerationNumber {
    fn from(number: Generation) -> Self {
        Self { fence: number.fence, counter: number.counter }
    }
}

impl From<&fleet::Membership> for Membership {
    fn from(membership: &fleet::Membership) -> Self {
        let balancer = |one: &fleet::BalancerMember| Balancer {
            leaving: membership.is_leaving(one.instance),
            ..Balancer::from(one)
        };
        Self {
            generation: membership.generation.into(),
            digest: membership.digest,
            rows: membership.rows,
            proxies: membership.proxies.iter().map(Member::from).collect(),
            retired: membership.retired.iter().map(Member::from).collect(),
            balancers: membership.balancers.iter().map(balancer).collect(),
            earlier: membership.earlier.iter().map(EarlierSet::from).collect(),
        }
    }
}

impl From<&Membership> for fleet::Membership {
    /// Order and digest stay as they came, so that the digest still tells whether all is well.
    fn from(wire: &Membership) -> Self {
        let leaving = wire.balancers.iter().filter(|one| one.leaving);
        Self {
            generation: wire.generation.into(),
            digest: wire.digest,
            rows: wire.rows,
            proxies: wire.proxies.iter().map(fleet::Member::from).collect(),
            retired: wire.retired.iter().map(fleet::Member::from).collect(),
            balancers: wire.balancers.iter().map(fleet::BalancerMember::from).collect(),
            leaving: leaving.map(|one| one.instance).collect(),
            earlier: wire.earlier.iter().map(fleet::EarlierSet::from).collect(),
        }
    }
}

impl From<&fleet::EarlierSet> for EarlierSet {
    fn from(set: &fleet::EarlierSet) -> Self {
        Self {
            ended_with: set.ended_with.into(),
            is_settled: set.is_settled,
            proxies: set.proxies.iter().map(Member::from).collect(),
        }
    }
}

impl From<&EarlierSet> for fleet::EarlierSet {
    fn from(wire: &EarlierSet) -> Self {
        Self {
            ended_with: wire.ended_with.into(),
            is_settled: wire.is_settled,
            proxies: wire.proxies.iter().map(fleet::Member::from).collect(),
        }
    }
}

impl From<&fleet::Member> for Member {
    fn from(member: &fleet::Member) -> Self {
        Self {
            instance: member.instance,
            worker: member.worker,
            incarnation: member.incarnation.0,
            address: member.address,
            weight: member.weight,
        }
    }
}

impl From<&Member> for fleet::Member {
    fn from(wire: &Member) -> Self {
        Self {
            instance: wire.instance,
            worker: wire.worker,
            incarnation: Incarnation(wire.incarnation),
            address: wire.address,
            weight: wire.weight,
        }
    }
}

impl From<&fleet::BalancerMember> for Balancer {
    fn from(member: &fleet::BalancerMember) -> Self {
        Self {
            instance: member.instance,
            incarnation: member.incarnation.0,
            internal: member.internal,
            advertised: member.advertised,
            leaving: false,
        }
    }
}

impl From<&Balancer> for fleet::BalancerMember {
    fn from(wire: &Balancer) -> Self {
        Self {
            instance: wire.instance,
            incarnation: Incarnation(wire.incarnation),
            internal: wire.internal,
            advertised: wire.advertised,
        }
    }
}
