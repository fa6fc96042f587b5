//! Random fleets whose owners change again and again, on a clock of their own: every request finds
//! the transaction that it belongs to, and a new one ends at the present owner, whatever came before.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use fleet::{EarlierSet, GenerationNumber, InstanceId, Member, Members, Membership};
use sip_core::handover::{self, Next};
use sip_core::mac::KeyRing;
use sip_core::selection::Selection;
use sip_core::stateless::{
    self, BalancerIdentity, BalancerView, Directory, EarlierOwners, Verdict,
};
use sip_message::Edits;
use testkit::Random;

use crate::world::{owned, udp};

/// How long a client may repeat a request, in ticks.
const REPEATS: u64 = 32;
const ROWS: u32 = 1 << 6;
const PROXIES: u16 = 6;

/// A server transaction of an INVITE: where it lives, since when, and under which generation.
struct Ringing {
    call: String,
    holder: SocketAddr,
    since: u64,
    stamp: GenerationNumber,
}

struct Fleet {
    ring: KeyRing,
    all: Vec<Member>,
    membership: Membership,
    selection: Arc<Selection>,
    /// When each earlier set ended, in the order of the sets.
    ended: Vec<u64>,
    earlier: Vec<Arc<Selection>>,
    now: u64,
}

impl Fleet {
    fn new() -> Self {
        let ring = KeyRing::new(&testkit::keys()).expect("sound keys");
        let all = testkit::proxies(PROXIES);
        let members = Members { proxies: all.clone(), ..Members::default() };
        let number = GenerationNumber { fence: 1, counter: 1 };
        let selection = Arc::new(Selection::new(ROWS, ring.selection_key(), &all));
        let membership = Membership::new(number, ROWS, members);
        Self { ring, all, membership, selection, ended: Vec::new(), earlier: Vec::new(), now: 0 }
    }

    /// What the manager does: other owners, and what became of the earlier ones.
    fn publish(&mut self, owners: Vec<Member>, calls: &[Ringing]) {
        let before = &self.membership;
        let mut kept = Vec::new();
        let sets = before.earlier.iter().zip(&self.ended).zip(&self.earlier);
        for ((set, &ended), selection) in sets {
            if calls.iter().any(|call| call.stamp <= set.ended_with) {
                let is_settled = self.now > ended + REPEATS;
                kept.push((EarlierSet { is_settled, ..set.clone() }, ended, Arc::clone(selection)));
            }
        }
        if owners != before.proxies {
            let set = EarlierSet {
                ended_with: before.generation,
                is_settled: false,
                proxies: before.proxies.clone(),
            };
            kept.push((set, self.now, Arc::clone(&self.selection)));
        }
        if kept.len() > fleet::EARLIER_SETS_MAX {
            return;
        }
        let retired = self.all.iter().filter(|one| !owners.contains(one)).copied().collect();
        let number = GenerationNumber { fence: 1, counter: before.generation.counter + 1 };
        self.ended = kept.iter().map(|(_, ended, _)| *ended).collect();
        self.earlier = kept.iter().map(|(_, _, selection)| Arc::clone(selection)).collect();
        let earlier = kept.into_iter().map(|(set, ..)| set).collect();
        self.selection = Arc::new(Selection::new(ROWS, self.ring.selection_key(), &owners));
        let members = Members { proxies: owners, retired, earlier, ..Members::default() };
        self.membership = Membership::new(number, ROWS, members);
        self.membership.validate().expect("what a manager may publish");
    }

    /// Every member that sees the request if none of them matches it, in order; `true` for those to
    /// whom it is only walked back.
    fn way(&self, method: &str, call: &str) -> Vec<(SocketAddr, bool)> {
        let directory = Directory::new(&self.membership);
        let sets = self.membership.earlier.iter().zip(&self.earlier);
        let owners = |(set, table): (_, &Arc<_>)| {
            EarlierOwners::new(set, Arc::clone(table), &self.membership)
        };
        let earlier: Vec<EarlierOwners> = sets.map(owners).collect();
        let me = BalancerIdentity {
            instance: InstanceId::balancer(1),
            connections: 1,
            internal: SocketAddr::from(([10, 0, 10, 1], 5070)),
            listeners: vec![SocketAddr::from(([10, 0, 11, 1], 5060))],
        };
        let view = BalancerView {
            ring: &self.ring,
            me: &me,
            directory: &directory,
            selection: &self.selection,
            generation: self.membership.generation,
            earlier: &earlier,
            service_names: &[],
            internal_mtu_bytes: 1_400,
            is_dead: &|_| false,
            is_suspect: &|_| false,
        };
        let text = format!("{method} sip:bob@example.com SIP/2.0\nCall-ID: {call}\n");
        let request = testkit::request(&text);
        let mut edits = Edits::new();
        let source = udp("192.0.2.7:5060");
        let verdict = stateless::handle(&view, &request.view(), &source, &mut edits);
        let Verdict::ToMember { address, .. } = verdict else { panic!("{verdict:?}") };
        let mut out = Vec::new();
        edits.apply(request.view().bytes(), &mut out);
        let sent = owned(&out);
        let mut visited = vec![(address, false)];
        loop {
            let here = visited.last().expect("at least one").0;
            let read = handover::read(&self.ring, &sent.view(), here).expect("a way");
            match read.next {
                Next::Nowhere => return visited,
                Next::On(next) => visited.push((next, false)),
                Next::Back(next) => visited.push((next, true)),
            }
        }
    }

    fn present_owner(&self, call: &str) -> SocketAddr {
        let place = self.selection.owner(call.as_bytes(), |_| false).expect("an owner");
        self.membership.proxies[place].address
    }

    fn check_new(&self, method: &str, call: &str) {
        let way = self.way(method, call);
        let addresses: BTreeSet<SocketAddr> = way.iter().map(|(at, _)| *at).collect();
        assert_eq!(addresses.len(), way.len(), "each once: {way:?}");
        let last = way.iter().rfind(|(_, is_back)| !is_back).expect("somebody");
        assert_eq!(last.0, self.present_owner(call), "{method} {way:?}");
    }

    fn check_ringing(&self, call: &Ringing) {
        let is_held = |(at, _): &(SocketAddr, bool)| *at == call.holder;
        for method in ["CANCEL", "ACK"] {
            let way = self.way(method, &call.call);
            assert!(way.iter().any(is_held), "{method}, held by {}: {way:?}", call.holder);
        }
        if self.now <= call.since + REPEATS {
            let way = self.way("INVITE", &call.call);
            assert!(way.iter().any(is_held), "again, held by {}: {way:?}", call.holder);
            assert!(way.iter().all(|(_, is_back)| !is_back));
        }
    }
}

#[test]
fn every_request_finds_its_transaction_through_any_changes_of_owners() {
    for seed in 1..=15 {
        let mut random = Random::new(seed);
        let mut fleet = Fleet::new();
        let mut calls: Vec<Ringing> = Vec::new();
        for step in 0..150_u64 {
            fleet.now += random.below(12);
            if random.below(3) == 0 {
                let mut owners = fleet.all.clone();
                owners.retain(|_| random.below(2) == 0);
                if owners.is_empty() {
                    owners = fleet.all.clone();
                }
                fleet.publish(owners, &calls);
            } else {
                // The manager looks again: sets get settled, or go.
                let same = fleet.membership.proxies.clone();
                fleet.publish(same, &calls);
            }
            let call = format!("{seed}-{step}@example.com");
            fleet.check_new("INVITE", &call);
            calls.push(Ringing {
                holder: fleet.present_owner(&call),
                since: fleet.now,
                stamp: fleet.membership.generation,
                call,
            });
            // A call rings for up to a hundred ticks.
            calls.retain(|call| fleet.now < call.since + 100 && random.below(20) > 0);
            calls.iter().for_each(|call| fleet.check_ringing(call));
        }
    }
}
