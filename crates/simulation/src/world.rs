//! What exists, whether or not the manager knows: machines, nodes, names, faults, calls.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fleet::{
    BalancerMember, CallRate, GenerationNumber, Incarnation, InstanceId, Member, Members,
    Membership, Observation, Tier, WEIGHT_NORMAL,
};
use provider::in_process::{self, InProcessCompute};
use provider::{ComputeProvider, Machine, MachineId, MachineRequest, MachineState, ProviderError};
use scaling::ZoneEntry;

use crate::faults::{Event, Fault, Target};

pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
/// Rows of the simulated tables: nobody looks a call up in them.
pub(crate) const ROWS: u32 = 1 << 8;
/// Clients keep an answer of the DNS this long.
const DNS_TTL_MS: u64 = 30_000;

pub(crate) struct World {
    pub(crate) now_ms: u64,
    /// How far the manager's clock is off.
    pub(crate) clock_off_ms: i64,
    pub(crate) cloud: InProcessCompute,
    pub(crate) nodes: BTreeMap<InstanceId, Node>,
    pub(crate) dns: Observation<BTreeSet<InstanceId>>,
    /// When each balancer was last in the DNS.
    named_ms: BTreeMap<InstanceId, u64>,
    pub(crate) asked_to_drain: BTreeSet<InstanceId>,
    pub(crate) weights: BTreeMap<InstanceId, u16>,
    active: Vec<(Event, u64)>,
    boot_time: Duration,
    pub(crate) transaction_ms: u64,
    capacity: CallRate,
    pub(crate) offered: CallRate,
    pub(crate) totals: Totals,
    last_incarnation: u32,
}

pub(crate) use crate::nodes::{Node, Sound};

/// What became of the calls, and how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Time in which a proxy was given more than its capacity.
    pub(crate) overloaded_ms: u64,
    /// Calls that found no balancer or no proxy.
    pub(crate) calls_unserved: u64,
    pub(crate) machine_ms: u64,
    pub(crate) removed: u64,
}

impl World {
    pub(crate) fn new(boot_time: Duration, transaction: Duration, capacity: CallRate) -> Self {
        Self {
            now_ms: EPOCH_MS,
            clock_off_ms: 0,
            cloud: InProcessCompute::new(EPOCH_MS, boot_time),
            nodes: BTreeMap::new(),
            dns: Observation::Absent,
            named_ms: BTreeMap::new(),
            asked_to_drain: BTreeSet::new(),
            weights: BTreeMap::new(),
            active: Vec::new(),
            boot_time,
            transaction_ms: millis(transaction),
            capacity,
            offered: CallRate::ZERO,
            totals: Totals::default(),
            last_incarnation: 0,
        }
    }

    /// A fleet that an earlier manager made, in service.
    pub(crate) fn settle(&mut self, balancers: u16, proxies: u16) {
        self.cloud.set_boot_time(Duration::ZERO);
        let instances = (1..=balancers).map(InstanceId::balancer);
        let instances: Vec<_> = instances.chain((1..=proxies).map(InstanceId::proxy)).collect();
        for &instance in &instances {
            let made = now(self.cloud.create(&request(instance)));
            debug_assert!(made.is_ok(), "an empty cloud without faults");
        }
        self.cloud.set_boot_time(self.boot_time);
        self.live(0, CallRate::ZERO);
        let mut members = Members::default();
        for (&instance, node) in &self.nodes {
            let view = node.view(self.now_ms, 0, instance);
            let (incarnation, internal, advertised) =
                (view.incarnation, view.internal, view.advertised);
            match instance.tier {
                Tier::LoadBalancer => members.balancers.push(BalancerMember {
                    instance,
                    incarnation,
                    internal,
                    advertised,
                }),
                Tier::Proxy | Tier::Store => members.proxies.push(Member {
                    instance,
                    worker: 0,
                    incarnation,
                    address: internal,
                    weight: WEIGHT_NORMAL,
                }),
            }
        }
        if members.proxies.is_empty() {
            return;
        }
        let first = GenerationNumber { fence: 1, counter: 1 };
        let membership = Membership::new(first, ROWS, members);
        for node in self.nodes.values_mut() {
            node.membership = Some(membership.clone());
        }
        let named = (1..=balancers).map(InstanceId::balancer).collect();
        self.dns = Observation::Known(named);
    }

    /// What the manager's clock shows.
    pub(crate) const fn managers_time_ms(&self) -> u64 {
        self.now_ms.saturating_add_signed(self.clock_off_ms)
    }

    pub(crate) const fn elapsed_s(&self) -> u64 {
        (self.now_ms - EPOCH_MS) / 1_000
    }

    /// Something goes wrong from now on.
    pub(crate) fn begin(&mut self, event: &Event) {
        match (event.fault, event.on) {
            (Fault::Dies, Some(Target::One(instance))) => self.cloud.kill(instance),
            (Fault::Duplicate, Some(Target::One(instance))) => self.cloud.duplicate(instance),
            (Fault::Drain, Some(Target::One(instance))) => {
                self.asked_to_drain.insert(instance);
            }
            (Fault::Weight, Some(Target::One(instance))) => {
                let weight = event.value.and_then(|value| u16::try_from(value).ok());
                self.weights.insert(instance, weight.unwrap_or(WEIGHT_NORMAL));
            }
            (Fault::ClockJumps, _) => {
                self.clock_off_ms += event.value.unwrap_or(0).saturating_mul(1_000);
            }
            _ if event.lasts() => {
                self.active.push((event.clone(), self.now_ms + event.for_s * 1_000));
            }
            _ => {}
        }
        self.apply();
    }

    /// Ends what is over by now, or everything.
    pub(crate) fn heal(&mut self, everything: bool) {
        let before = self.active.len();
        let now_ms = self.now_ms;
        self.active.retain(|(_, until_ms)| !everything && *until_ms > now_ms);
        if self.active.len() != before {
            self.apply();
        }
    }

    fn apply(&mut self) {
        let slots =
            (1..=250).flat_map(|slot| [InstanceId::balancer(slot), InstanceId::proxy(slot)]);
        let is_listing_whole = self.active.iter().all(|(one, _)| one.fault != Fault::Unlisted);
        for instance in slots {
            let is_hidden = !is_listing_whole && self.is(Fault::Unlisted, instance);
            self.cloud.hide(instance, is_hidden);
        }
        let boot_time = match (self.value(Fault::BootTime), self.has(Fault::NeverBoots)) {
            (_, true) => Duration::from_secs(u64::from(u32::MAX)),
            (Some(value), false) => Duration::from_secs(value.unsigned_abs()),
            (None, false) => self.boot_time,
        };
        self.cloud.set_boot_time(boot_time);
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.active.iter().any(|(event, _)| event.fault == fault)
    }

    fn is(&self, fault: Fault, instance: InstanceId) -> bool {
        let meets = |event: &Event| event.on.is_some_and(|target| target.meets(instance));
        self.active.iter().any(|(event, _)| event.fault == fault && meets(event))
    }

    fn value(&self, fault: Fault) -> Option<i64> {
        self.active.iter().find(|(event, _)| event.fault == fault)?.0.value
    }

    /// Whether the manager gets an answer from it.
    pub(crate) fn answers(&self, instance: InstanceId) -> bool {
        self.nodes.contains_key(&instance)
            && !self.is(Fault::Silent, instance)
            && !self.is(Fault::Overloaded, instance)
    }

    /// Every machine, listed or not.
    pub(crate) fn machines(&self) -> Vec<Machine> {
        self.cloud.machines().unwrap_or_default()
    }

    /// `elapsed_ms` pass with `load`: machines boot and die, balancers give calls to proxies.
    pub(crate) fn live(&mut self, elapsed_ms: u64, load: CallRate) {
        self.cloud.advance_to(self.now_ms);
        self.follow_machines(elapsed_ms);
        self.offered = load;
        for node in self.nodes.values_mut() {
            (node.calls, node.offered) = (CallRate::ZERO, CallRate::ZERO);
            node.calls_to.clear();
        }
        let now_ms = self.now_ms;
        for instance in self.dns.known().into_iter().flatten() {
            self.named_ms.insert(*instance, now_ms);
        }
        self.named_ms.retain(|_, named_ms| *named_ms + DNS_TTL_MS > now_ms);
        let used = self.named_ms.keys().filter(|one| self.nodes.contains_key(one));
        let used: Vec<InstanceId> = used.copied().collect();
        self.look_around();
        let mut unserved = load;
        for (balancer, share) in shares(load, &used, |_| 1) {
            unserved = unserved - self.balance(balancer, share);
        }
        self.take_calls(elapsed_ms);
        self.totals.calls_unserved += unserved.millicps() * elapsed_ms / 1_000_000;
    }

    /// What is heard from the address of a proxy.
    fn sound(&self, proxy: InstanceId) -> Sound {
        match self.nodes.contains_key(&proxy) {
            false => Sound::Refuses,
            true if self.is(Fault::Unreached, proxy) => Sound::Silent,
            true => Sound::Answers,
        }
    }

    /// Whether balancers reach the proxy in this slot.
    pub(crate) fn is_reached(&self, proxy: InstanceId) -> bool {
        self.sound(proxy) == Sound::Answers
    }

    /// Balancers find out who is there.
    fn look_around(&mut self) {
        let proxies = self.nodes.keys().copied().filter(|one| one.tier == Tier::Proxy);
        let there: BTreeMap<InstanceId, Sound> =
            proxies.map(|proxy| (proxy, self.sound(proxy))).collect();
        let sound = |proxy: InstanceId| there.get(&proxy).copied().unwrap_or(Sound::Refuses);
        let is_balancer = |instance: &InstanceId| instance.tier == Tier::LoadBalancer;
        for (_, node) in self.nodes.iter_mut().filter(|(instance, _)| is_balancer(instance)) {
            node.look(sound);
        }
    }

    /// A balancer gives its share to the owners that it does not skip; returns what reached one.
    fn balance(&mut self, balancer: InstanceId, share: CallRate) -> CallRate {
        let Some(node) = self.nodes.get_mut(&balancer) else { return CallRate::ZERO };
        node.calls = share;
        let Some(table) = node.membership.clone() else { return CallRate::ZERO };
        let used: Vec<Member> =
            table.proxies.iter().copied().filter(|owner| !node.skips(owner)).collect();
        if share == CallRate::ZERO {
            return share;
        }
        let (mut calls_to, mut served) = (BTreeMap::new(), CallRate::ZERO);
        for (member, part) in shares(share, &used, |member| u64::from(member.weight)) {
            calls_to.insert(member.instance, part);
            let is_reached = self.is_reached(member.instance);
            if let Some(proxy) = self.nodes.get_mut(&member.instance).filter(|_| is_reached) {
                proxy.give(self.now_ms, balancer, table.generation, part);
                served += part;
            }
        }
        if let Some(node) = self.nodes.get_mut(&balancer) {
            node.calls_to = calls_to;
        }
        served
    }

    /// Proxies take what they are given, as far as they can.
    fn take_calls(&mut self, elapsed_ms: u64) {
        let (now_ms, transaction_ms) = (self.now_ms, self.transaction_ms);
        let instances: Vec<InstanceId> = self.nodes.keys().copied().collect();
        let mut is_overloaded = false;
        for instance in instances.into_iter().filter(|one| one.tier == Tier::Proxy) {
            let is_busy = self.is(Fault::Busy, instance);
            let accepts = self
                .value(Fault::Overloaded)
                .filter(|_| self.is(Fault::Overloaded, instance))
                .and_then(|cps| u32::try_from(cps).ok())
                .map(CallRate::from_cps);
            let capacity = self.capacity_of(instance);
            let Some(node) = self.nodes.get_mut(&instance) else { continue };
            node.age(now_ms, transaction_ms, is_busy);
            node.calls = accepts.map_or(node.offered, |accepts| accepts.min(node.offered));
            is_overloaded |= node.offered > capacity;
        }
        if is_overloaded {
            self.totals.overloaded_ms += elapsed_ms;
        }
    }

    /// What the operator trusts this proxy with.
    pub(crate) fn capacity_of(&self, proxy: InstanceId) -> CallRate {
        let weight = self.weights.get(&proxy).copied().unwrap_or(WEIGHT_NORMAL);
        self.capacity * u32::from(weight) / u32::from(WEIGHT_NORMAL)
    }

    /// Running machines have a node, others have none.
    fn follow_machines(&mut self, elapsed_ms: u64) {
        let machines = self.machines();
        self.totals.machine_ms += elapsed_ms * u64::try_from(machines.len()).unwrap_or(u64::MAX);
        let is_boot_fatal = self.has(Fault::BootDies);
        let runs = |machine: &&Machine| machine.state == MachineState::Running;
        self.nodes.retain(|instance, node| {
            machines
                .iter()
                .filter(runs)
                .any(|one| one.instance == *instance && one.id.as_str() == node.machine)
        });
        for machine in machines.iter().filter(runs) {
            let instance = machine.instance;
            if self.nodes.contains_key(&instance) {
                continue;
            }
            if is_boot_fatal && self.now_ms > EPOCH_MS {
                self.cloud.kill(instance);
                continue;
            }
            // Strictly larger at each start, as nodes hold it.
            let second = u32::try_from(self.now_ms / 1_000).unwrap_or(u32::MAX);
            self.last_incarnation = second.max(self.last_incarnation + 1);
            let (name, at) = (machine.id.to_string(), machine.addresses.sip);
            let node = Node::new(name, Incarnation(self.last_incarnation), at);
            self.nodes.insert(instance, node);
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        if self.has(Fault::ListFails) {
            return Err(out_of_order());
        }
        now(self.cloud.list())
    }

    pub(crate) fn create(&self, instance: InstanceId) -> Result<(), ProviderError> {
        self.script(Fault::CreateFails, Fault::CreateHalf);
        now(self.cloud.create(&request(instance))).map(|_| ())
    }

    pub(crate) fn terminate(&mut self, machine: &str) -> Result<(), ProviderError> {
        let is_there = |world: &Self| world.machines().iter().any(|one| one.id.as_str() == machine);
        let was_there = is_there(self);
        self.script(Fault::TerminateFails, Fault::TerminateHalf);
        let done = now(self.cloud.terminate(&MachineId::new(machine)));
        self.totals.removed += u64::from(was_there && !is_there(self));
        self.follow_machines(0);
        done
    }

    /// What the next call to the provider meets.
    fn script(&self, fails: Fault, half: Fault) {
        if self.has(fails) {
            self.cloud.fault_next(in_process::Fault::Fails(out_of_order()));
        } else if self.has(half) {
            self.cloud.fault_next(in_process::Fault::HappensAndFails(out_of_order()));
        }
    }

    /// Returns whether the node took it.
    pub(crate) fn publish(&mut self, membership: &Membership, to: InstanceId) -> bool {
        if !self.answers(to) {
            return false;
        }
        let Some(node) = self.nodes.get_mut(&to) else { return false };
        let is_taken = membership.follows(node.membership.as_ref()).is_ok();
        if is_taken {
            node.membership = Some(membership.clone());
        }
        is_taken
    }

    pub(crate) fn drain(&mut self, instance: InstanceId, on: bool) -> bool {
        let answers = self.answers(instance);
        if let Some(node) = self.nodes.get_mut(&instance).filter(|_| answers) {
            node.is_draining = on;
        }
        answers
    }

    pub(crate) fn name(&mut self, balancers: &[ZoneEntry]) {
        self.dns = Observation::Known(balancers.iter().map(|entry| entry.instance).collect());
    }
}

/// `whole` among `parts` by their weights, without a remainder.
fn shares<T: Copy>(whole: CallRate, parts: &[T], weight: impl Fn(&T) -> u64) -> Vec<(T, CallRate)> {
    let total = parts.iter().map(&weight).sum::<u64>().max(1);
    let mut before = 0;
    let mut given = 0;
    let share = |part: &T| {
        before += weight(part);
        let until = whole.millicps() * before / total;
        let share = CallRate::from_millicps(until - given);
        given = until;
        (*part, share)
    };
    parts.iter().map(share).collect()
}

fn out_of_order() -> ProviderError {
    ProviderError::Unavailable { why: "out of order".to_owned() }
}

fn request(instance: InstanceId) -> MachineRequest {
    MachineRequest {
        instance,
        token: instance.to_string(),
        files: Vec::new(),
        arguments: Vec::new(),
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The result of a future that waits for nothing: all is in memory.
fn now<T>(future: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ProviderError::Unavailable { why: "it waits".to_owned() }),
    }
}
