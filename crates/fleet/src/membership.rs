//! Who owns calls now: the members of the fleet under one generation number, with a digest.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::{Incarnation, InstanceId, Tier};

/// Rows of the table unless told otherwise (2¹⁸).
pub const ROWS_DEFAULT: u32 = 1 << 18;
/// The most rows a node takes: the table must fit a cache hierarchy, not a disk.
pub const ROWS_MAX: u32 = 1 << 22;
/// The weight of a member that takes an ordinary share.
pub const WEIGHT_NORMAL: u16 = 100;
/// The largest weight that an operator may give.
pub const WEIGHT_MAX: u16 = 1_000;

/// The most earlier sets of owners that a node takes: each costs a balancer a table of rows.
pub const EARLIER_SETS_MAX: usize = 8;

/// One worker of a proxy: an address that calls can be given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub instance: InstanceId,
    pub worker: u16,
    pub incarnation: Incarnation,
    pub address: SocketAddr,
    /// Share of the calls, relative to the others; [`WEIGHT_NORMAL`] is one full share.
    pub weight: u16,
}

/// One balancer: the address that proxies use and the one that clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BalancerMember {
    pub instance: InstanceId,
    pub incarnation: Incarnation,
    pub internal: SocketAddr,
    pub advertised: SocketAddr,
}

/// Orders generations: the fence of the manager's lease first, then its counter. Written `3.17`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationNumber {
    pub fence: u64,
    pub counter: u64,
}

impl fmt::Display for GenerationNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.fence, self.counter)
    }
}

/// Owners of an earlier time, which may still have transactions of theirs (protocol rule 19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierSet {
    /// The last generation in which they owned the calls.
    pub ended_with: GenerationNumber,
    /// Repeats of what was sent to them can come no more: 64·T1 have passed since the last live
    /// balancer took a later generation.
    pub is_settled: bool,
    pub proxies: Vec<Member>,
}

/// The members of one generation, before they get a number and a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// They own the calls.
    pub proxies: Vec<Member>,
    /// Alive and draining: their Vias are known, they own nothing.
    pub retired: Vec<Member>,
    pub balancers: Vec<BalancerMember>,
    /// Those of the balancers that are on their way out: nobody is led to them any more.
    pub leaving: Vec<InstanceId>,
    /// Former owners that are not known to be empty, oldest first.
    pub earlier: Vec<EarlierSet>,
}

/// One generation of the fleet's membership (ARCHITECTURE.md). Lists are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub generation: GenerationNumber,
    /// Over everything else in here; tells two contents under one number apart.
    pub digest: u64,
    /// Rows of the table, a power of two.
    pub rows: u32,
    /// The owners.
    pub proxies: Vec<Member>,
    /// Still alive, draining: their Vias are known, they own nothing.
    pub retired: Vec<Member>,
    pub balancers: Vec<BalancerMember>,
    /// Those of the balancers that are on their way out: nobody is led to them any more.
    pub leaving: Vec<InstanceId>,
    /// Former owners that are not known to be empty, oldest first.
    pub earlier: Vec<EarlierSet>,
}

impl Membership {
    /// Sorts the members and computes the digest.
    #[must_use]
    pub fn new(generation: GenerationNumber, rows: u32, members: Members) -> Self {
        let Members { mut proxies, mut retired, mut balancers, mut leaving, mut earlier } = members;
        proxies.sort_unstable();
        retired.sort_unstable();
        balancers.sort_unstable();
        leaving.sort_unstable();
        earlier.sort_by_key(|set| set.ended_with);
        earlier.iter_mut().for_each(|set| set.proxies.sort_unstable());
        let digest = 0;
        let mut made =
            Self { generation, digest, rows, proxies, retired, balancers, leaving, earlier };
        made.digest = made.computed_digest();
        made
    }

    /// Whether the digest is that of the content.
    #[must_use]
    pub fn verify_digest(&self) -> bool {
        self.digest == self.computed_digest()
    }

    /// The content without number and digest; equal content needs no new generation.
    #[must_use]
    pub fn members(&self) -> Members {
        Members {
            proxies: self.proxies.clone(),
            retired: self.retired.clone(),
            balancers: self.balancers.clone(),
            leaving: self.leaving.clone(),
            earlier: self.earlier.clone(),
        }
    }

    /// The worker at this address, owners before the retired.
    #[must_use]
    pub fn proxy_at(&self, address: SocketAddr) -> Option<&Member> {
        self.every_proxy().find(|member| member.address == address)
    }

    /// This worker in this life, owners before the retired.
    #[must_use]
    pub fn proxy(
        &self,
        instance: InstanceId,
        worker: u16,
        incarnation: Incarnation,
    ) -> Option<&Member> {
        self.every_proxy().find(|member| {
            (member.instance, member.worker, member.incarnation) == (instance, worker, incarnation)
        })
    }

    /// The balancer with this internal or advertised address.
    #[must_use]
    pub fn balancer_at(&self, address: SocketAddr) -> Option<&BalancerMember> {
        self.balancers.iter().find(|one| one.internal == address || one.advertised == address)
    }

    #[must_use]
    pub fn balancer(&self, instance: InstanceId) -> Option<&BalancerMember> {
        self.balancers.iter().find(|one| one.instance == instance)
    }

    /// Whether this balancer is on its way out.
    #[must_use]
    pub fn is_leaving(&self, balancer: InstanceId) -> bool {
        self.leaving.binary_search(&balancer).is_ok()
    }

    /// Whether a member has this IP address, whatever the port: workers send from their own ports,
    /// streams from any.
    #[must_use]
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.every_proxy().any(|member| member.address.ip() == ip)
            || self.balancers.iter().any(|one| one.internal.ip() == ip)
    }

    /// Owners, then the retired.
    pub fn every_proxy(&self) -> impl Iterator<Item = &Member> {
        self.proxies.iter().chain(&self.retired)
    }

    /// Whether this one can be used at all, by a node that has none yet.
    ///
    /// # Errors
    ///
    /// [`StaleGeneration`] if it has no owners, a wrong digest, a row count that is no power of two,
    /// or earlier sets that cannot be. None is worth retrying unchanged.
    pub fn validate(&self) -> Result<(), StaleGeneration> {
        if !self.verify_digest() {
            return Err(StaleGeneration::WrongDigest { offered: self.generation });
        }
        if self.proxies.is_empty() {
            return Err(StaleGeneration::Empty { offered: self.generation });
        }
        if !self.rows.is_power_of_two() || self.rows > ROWS_MAX {
            return Err(StaleGeneration::Rows { rows: self.rows });
        }
        if !self.has_sound_history() {
            return Err(StaleGeneration::EarlierSets { offered: self.generation });
        }
        Ok(())
    }

    /// Earlier sets have owners, ended one after the other, and before this generation began.
    fn has_sound_history(&self) -> bool {
        let ends = self.earlier.iter().map(|set| set.ended_with);
        self.earlier.len() <= EARLIER_SETS_MAX
            && self.earlier.iter().all(|set| !set.proxies.is_empty())
            && ends.chain([self.generation]).is_sorted_by(|before, after| before < after)
    }

    /// Whether a node that holds `held`, or none yet, may take this one. The very same one again is fine.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate); and an older one, or the same number with another digest.
    pub fn follows(&self, held: Option<&Self>) -> Result<(), StaleGeneration> {
        self.validate()?;
        let Some(held) = held else { return Ok(()) };
        let (have, offered) = (held.generation, self.generation);
        if offered < have {
            return Err(StaleGeneration::Older { have, offered });
        }
        if offered == have && self.digest != held.digest {
            return Err(StaleGeneration::SameNumberOtherDigest { have });
        }
        Ok(())
    }

    fn computed_digest(&self) -> u64 {
        // A fixed key: this guards against mistakes and mixed-up managers, not against forgers,
        // who are kept out by the node's token.
        let mut hasher = SipHasher24::new_with_keys(0x7369_7063_6c6f_7564, 0x6d65_6d62_6572_7331);
        hasher.write(&self.generation.fence.to_be_bytes());
        hasher.write(&self.generation.counter.to_be_bytes());
        hasher.write(&self.rows.to_be_bytes());
        write_members(&mut hasher, &self.proxies);
        write_members(&mut hasher, &self.retired);
        hasher.write(&(self.balancers.len() as u64).to_be_bytes());
        for balancer in &self.balancers {
            write_instance(&mut hasher, balancer.instance, balancer.incarnation);
            write_address(&mut hasher, balancer.internal);
            write_address(&mut hasher, balancer.advertised);
        }
        hasher.write(&(self.earlier.len() as u64).to_be_bytes());
        for set in &self.earlier {
            hasher.write(&set.ended_with.fence.to_be_bytes());
            hasher.write(&set.ended_with.counter.to_be_bytes());
            hasher.write(&[u8::from(set.is_settled)]);
            write_members(&mut hasher, &set.proxies);
        }
        for leaving in &self.leaving {
            write_instance(&mut hasher, *leaving, Incarnation(0));
        }
        hasher.finish128().h1
    }
}

fn write_members(hasher: &mut SipHasher24, members: &[Member]) {
    hasher.write(&(members.len() as u64).to_be_bytes());
    for member in members {
        write_instance(hasher, member.instance, member.incarnation);
        hasher.write(&member.worker.to_be_bytes());
        write_address(hasher, member.address);
        hasher.write(&member.weight.to_be_bytes());
    }
}

fn write_instance(hasher: &mut SipHasher24, instance: InstanceId, incarnation: Incarnation) {
    let tier: u8 = match instance.tier {
        Tier::LoadBalancer => 1,
        Tier::Proxy => 2,
        Tier::Store => 3,
    };
    hasher.write(&[tier]);
    hasher.write(&instance.slot.to_be_bytes());
    hasher.write(&incarnation.0.to_be_bytes());
}

fn write_address(hasher: &mut SipHasher24, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            hasher.write(&[4]);
            hasher.write(&ip.octets());
        }
        IpAddr::V6(ip) => {
            hasher.write(&[6]);
            hasher.write(&ip.octets());
        }
    }
    hasher.write(&address.port().to_be_bytes());
}

/// A generation that a node must not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaleGeneration {
    #[error("generation {offered} is older than {have}")]
    Older { have: GenerationNumber, offered: GenerationNumber },
    #[error("generation {have} is known with another digest")]
    SameNumberOtherDigest { have: GenerationNumber },
    #[error("generation {offered} has no owners")]
    Empty { offered: GenerationNumber },
    #[error("the digest of generation {offered} does not match its content")]
    WrongDigest { offered: GenerationNumber },
    #[error("{rows} rows: expected a power of two up to {ROWS_MAX}")]
    Rows { rows: u32 },
    #[error("the earlier owners of generation {offered} are too many, empty or out of order")]
    EarlierSets { offered: GenerationNumber },
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn member(slot: u16) -> Member {
        Member {
            instance: InstanceId::proxy(slot),
            worker: 0,
            incarnation: Incarnation(1),
            address: SocketAddr::from((Ipv4Addr::new(127, 0, 20, slot.to_be_bytes()[1]), 5060)),
            weight: WEIGHT_NORMAL,
        }
    }

    fn generation(counter: u64, slots: &[u16]) -> Membership {
        let proxies = slots.iter().map(|&slot| member(slot)).collect();
        let members = Members { proxies, ..Members::default() };
        Membership::new(GenerationNumber { fence: 1, counter }, ROWS_DEFAULT, members)
    }

    /// A node holding 1.5 is offered others; only newer content, or the same again, is taken.
    #[test]
    fn only_newer_generations_with_owners_are_accepted() {
        let have = generation(5, &[1, 2]);
        let mut forged = generation(6, &[1, 2]);
        forged.rows = 1 << 10;
        let mut odd = generation(6, &[1]);
        odd.rows = 1000;
        odd.digest = odd.computed_digest();
        let number = |counter| GenerationNumber { fence: 1, counter };
        let table = [
            ("newer", generation(6, &[1]), Ok(())),
            ("the same again", generation(5, &[2, 1]), Ok(())),
            (
                "older",
                generation(4, &[1, 2]),
                Err(StaleGeneration::Older { have: number(5), offered: number(4) }),
            ),
            (
                "same number, other content",
                generation(5, &[1]),
                Err(StaleGeneration::SameNumberOtherDigest { have: number(5) }),
            ),
            ("empty", generation(6, &[]), Err(StaleGeneration::Empty { offered: number(6) })),
            ("forged", forged, Err(StaleGeneration::WrongDigest { offered: number(6) })),
            ("odd rows", odd, Err(StaleGeneration::Rows { rows: 1000 })),
        ];
        for (name, offered, expected) in table {
            assert_eq!(offered.follows(Some(&have)), expected, "{name}");
        }
    }

    #[test]
    fn a_higher_fence_wins_over_a_higher_counter() {
        let mut newer = generation(1, &[1]);
        newer.generation.fence = 2;
        newer.digest = newer.computed_digest();
        assert_eq!(newer.follows(Some(&generation(900, &[1]))), Ok(()));
    }

    /// The digest is compared between processes of different builds, so its value is pinned.
    #[test]
    fn the_digest_is_pinned() {
        assert_eq!(generation(1, &[1, 2]).digest, 3_811_618_032_119_712_585);
    }

    #[test]
    fn earlier_owners_are_few_not_empty_and_in_order() {
        let set = |counter, slots: &[u16]| EarlierSet {
            ended_with: GenerationNumber { fence: 1, counter },
            is_settled: false,
            proxies: slots.iter().map(|&slot| member(slot)).collect(),
        };
        let with = |earlier: Vec<EarlierSet>| {
            let members = Members { proxies: vec![member(1)], earlier, ..Members::default() };
            Membership::new(GenerationNumber { fence: 1, counter: 20 }, ROWS_DEFAULT, members)
        };
        let refused = Err(StaleGeneration::EarlierSets {
            offered: GenerationNumber { fence: 1, counter: 20 },
        });
        let many = |count| (1..=count).map(|counter| set(counter, &[1])).collect::<Vec<_>>();
        let table = [
            ("two", with(vec![set(9, &[2]), set(5, &[1, 2])]), Ok(())),
            ("as many as may be", with(many(8)), Ok(())),
            ("too many", with(many(9)), refused.clone()),
            ("of nobody", with(vec![set(5, &[])]), refused.clone()),
            ("twice the same end", with(vec![set(5, &[1]), set(5, &[2])]), refused.clone()),
            ("not yet ended", with(vec![set(20, &[1])]), refused),
        ];
        for (name, offered, expected) in table {
            assert_eq!(offered.validate(), expected, "{name}");
        }
        let (open, mut settled) = (with(vec![set(5, &[2])]), with(vec![set(5, &[2])]));
        settled.earlier[0].is_settled = true;
        assert!(open.verify_digest() && !settled.verify_digest(), "the digest is over all of it");
    }

    /// Otherwise a node that has the generation would never be told.
    #[test]
    fn the_digest_tells_who_is_leaving() {
        let mut membership = generation(5, &[1]);
        membership.leaving = vec![InstanceId::balancer(2)];
        assert!(!membership.verify_digest());
        membership.digest = membership.computed_digest();
        assert!(membership.is_leaving(InstanceId::balancer(2)));
        assert!(!membership.is_leaving(InstanceId::balancer(1)));
        let members = membership.members();
        assert_eq!(Membership::new(membership.generation, membership.rows, members), membership);
    }

    #[test]
    fn a_retired_worker_is_still_found() {
        let members =
            Members { proxies: vec![member(1)], retired: vec![member(2)], ..Members::default() };
        let membership = Membership::new(GenerationNumber::default(), 1, members);
        assert_eq!(membership.proxy_at(member(2).address), Some(&member(2)));
        assert!(membership.proxy(InstanceId::proxy(2), 0, Incarnation(2)).is_none());
        assert!(membership.has_ip(member(2).address.ip()));
    }
}
