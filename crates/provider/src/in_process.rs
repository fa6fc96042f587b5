//! A cloud and a name server in memory, with scripted boot times and faults.
//!
//! For tests and simulations. Time moves only in [`InProcessCompute::advance_to`], so that a run
//! can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fleet::{InstanceId, Tier};

use crate::compute::{
    Addresses, ComputeProvider, Machine, MachineId, MachineRequest, MachineState,
};
use crate::dns::{DnsProvider, Zone};
use crate::error::ProviderError;

/// A cloud in memory.
#[derive(Debug)]
pub struct InProcessCompute {
    /// The first two octets of every address.
    network: [u8; 2],
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    now_ms: u64,
    boot_time: Duration,
    machines: BTreeMap<InstanceId, Born>,
    /// Second machines in slots that are taken.
    strays: Vec<Born>,
    /// What lists leave out.
    hidden: BTreeSet<InstanceId>,
    next_fault: Option<Fault>,
    next_create_fault: Option<Fault>,
    created_total: u64,
}

#[derive(Clone, Debug)]
struct Born {
    id: MachineId,
    token: String,
    at_ms: u64,
    boots_at_ms: u64,
    is_dead: bool,
    request: MachineRequest,
}

/// What the next call meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens and the call fails.
    Fails(ProviderError),
    /// It happens, and the call fails all the same: the answer was lost.
    HappensAndFails(ProviderError),
}

impl InProcessCompute {
    /// An empty cloud at `now_ms` (UNIX milliseconds) whose machines take `boot_time` to run.
    #[must_use]
    pub fn new(now_ms: u64, boot_time: Duration) -> Self {
        let inner = Inner {
            now_ms,
            boot_time,
            machines: BTreeMap::new(),
            strays: Vec::new(),
            hidden: BTreeSet::new(),
            next_fault: None,
            next_create_fault: None,
            created_total: 0,
        };
        Self { network: [10, 0], inner: Mutex::new(inner) }
    }

    /// The same cloud with other addresses: `[127, 9]` gives 127.9.10.n to balancers and 127.9.20.n
    /// to proxies.
    #[must_use]
    pub const fn in_network(mut self, network: [u8; 2]) -> Self {
        self.network = network;
        self
    }

    /// Moves this cloud's clock forward; a time in the past changes nothing.
    pub fn advance_to(&self, now_ms: u64) {
        let mut inner = self.lock();
        inner.now_ms = inner.now_ms.max(now_ms);
    }

    /// The boot time of machines asked for from now on.
    pub fn set_boot_time(&self, boot_time: Duration) {
        self.lock().boot_time = boot_time;
    }

    /// What the next call of any kind meets, once.
    pub fn fault_next(&self, fault: Fault) {
        self.lock().next_fault = Some(fault);
    }

    /// What the next creation meets, once.
    pub fn fault_next_create(&self, fault: Fault) {
        self.lock().next_create_fault = Some(fault);
    }

    /// Ends the process of an instance; the machine stays listed as dead.
    pub fn kill(&self, instance: InstanceId) {
        if let Some(born) = self.lock().machines.get_mut(&instance) {
            born.is_dead = true;
        }
    }

    /// Lists leave this slot out from now on, whatever is in it, or show it again.
    pub fn hide(&self, instance: InstanceId, is_hidden: bool) {
        let hidden = &mut self.lock().hidden;
        if is_hidden {
            hidden.insert(instance);
        } else {
            hidden.remove(&instance);
        }
    }

    /// Every machine that there is, whatever lists say.
    ///
    /// # Errors
    ///
    /// None: every machine was given a place.
    pub fn machines(&self) -> Result<Vec<Machine>, ProviderError> {
        let inner = self.lock();
        let all = inner.machines.values().chain(&inner.strays).map(|born| {
            let state = match born.is_dead {
                true => MachineState::Dead,
                false if born.boots_at_ms <= inner.now_ms => MachineState::Running,
                false => MachineState::Booting,
            };
            let instance = born.request.instance;
            let (id, created_at_ms) = (born.id.clone(), born.at_ms);
            let addresses = self.addresses(instance)?;
            Ok(Machine { id, instance, state, addresses, created_at_ms })
        });
        all.collect()
    }

    /// Makes a second machine like the one in this slot, as a cloud does that does not know tokens.
    pub fn duplicate(&self, instance: InstanceId) {
        let mut inner = self.lock();
        let Some(born) = inner.machines.get(&instance).cloned() else { return };
        let id = inner.next_id();
        let (at_ms, boots_at_ms) = (inner.now_ms, inner.now_ms);
        inner.strays.push(Born { id, at_ms, boots_at_ms, ..born });
    }

    /// What an instance was made from.
    #[must_use]
    pub fn request(&self, instance: InstanceId) -> Option<MachineRequest> {
        self.lock().machines.get(&instance).map(|born| born.request.clone())
    }

    /// Machines ever made.
    #[must_use]
    pub fn created_total(&self) -> u64 {
        self.lock().created_total
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ComputeProvider for InProcessCompute {
    fn addresses(&self, instance: InstanceId) -> Result<Addresses, ProviderError> {
        let third = match instance.tier {
            Tier::LoadBalancer => 10,
            Tier::Proxy => 20,
            Tier::Store => 30,
        };
        let no_place = |why: &str| ProviderError::NoPlace { instance, why: why.to_owned() };
        let slot = u8::try_from(instance.slot).map_err(|_| no_place("a tier has 255 slots"))?;
        if slot == 0 {
            return Err(no_place("slots count from 1"));
        }
        let [first, second] = self.network;
        let ip = Ipv4Addr::new(first, second, third, slot);
        Ok(Addresses { sip: SocketAddr::from((ip, 5060)), control: SocketAddr::from((ip, 8060)) })
    }

    async fn create(&self, request: &MachineRequest) -> Result<MachineId, ProviderError> {
        self.addresses(request.instance)?;
        let mut inner = self.lock();
        if let Some(fault) = inner.next_create_fault.take() {
            inner.next_fault = Some(fault);
        }
        inner.with_fault(|inner| inner.create(request))
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        let hidden = {
            let mut inner = self.lock();
            inner.with_fault(|inner| Ok(inner.hidden.clone()))?
        };
        let is_shown = |machine: &Machine| !hidden.contains(&machine.instance);
        Ok(self.machines()?.into_iter().filter(is_shown).collect())
    }

    async fn terminate(&self, id: &MachineId) -> Result<(), ProviderError> {
        self.lock().with_fault(|inner| {
            inner.machines.retain(|_, born| born.id != *id);
            inner.strays.retain(|born| born.id != *id);
            Ok(())
        })
    }
}

impl Inner {
    fn create(&mut self, request: &MachineRequest) -> Result<MachineId, ProviderError> {
        let instance = request.instance;
        if let Some(born) = self.machines.get(&instance) {
            return match born.token == request.token {
                true => Ok(born.id.clone()),
                false => Err(ProviderError::SlotTaken { instance }),
            };
        }
        let id = self.next_id();
        let boot_ms = u64::try_from(self.boot_time.as_millis()).unwrap_or(u64::MAX);
        let born = Born {
            id: id.clone(),
            token: request.token.clone(),
            at_ms: self.now_ms,
            boots_at_ms: self.now_ms.saturating_add(boot_ms),
            is_dead: false,
            request: request.clone(),
        };
        self.machines.insert(instance, born);
        Ok(id)
    }

    fn next_id(&mut self) -> MachineId {
        self.created_total += 1;
        MachineId::new(format!("machine-{}", self.created_total))
    }

    fn with_fault<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        match self.next_fault.take() {
            None => act(self),
            Some(Fault::Fails(error)) => Err(error),
            Some(Fault::HappensAndFails(error)) => act(self).and(Err(error)),
        }
    }
}

/// A name server in memory.
#[derive(Debug, Default)]
pub struct InProcessDns {
    inner: Mutex<DnsInner>,
}

#[derive(Debug, Default)]
struct DnsInner {
    zone: Option<Zone>,
    next_error: Option<ProviderError>,
    changes_total: u64,
}

impl InProcessDns {
    /// Makes the next call fail, once.
    pub fn fail_next(&self, error: ProviderError) {
        self.lock().next_error = Some(error);
    }

    /// How often the zone changed.
    #[must_use]
    pub fn changes_total(&self) -> u64 {
        self.lock().changes_total
    }

    fn lock(&self) -> MutexGuard<'_, DnsInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DnsProvider for InProcessDns {
    async fn publish(&self, zone: &Zone) -> Result<(), ProviderError> {
        let mut inner = self.lock();
        inner.next_error.take().map_or(Ok(()), Err)?;
        if inner.zone.as_ref() != Some(zone) {
            inner.zone = Some(zone.clone());
            inner.changes_total += 1;
        }
        Ok(())
    }

    async fn published(&self) -> Result<Option<Zone>, ProviderError> {
        let mut inner = self.lock();
        inner.next_error.take().map_or(Ok(()), Err)?;
        Ok(inner.zone.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Nothing in memory ever waits, so one poll is a whole run.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the in-process provider waits for nothing"),
        }
    }

    fn request(slot: u16) -> MachineRequest {
        MachineRequest {
            instance: InstanceId::proxy(slot),
            token: format!("test/proxy-{slot}"),
            files: Vec::new(),
            arguments: Vec::new(),
        }
    }

    #[test]
    fn the_in_process_cloud_keeps_the_contract() {
        now(crate::contract::compute(&InProcessCompute::new(0, Duration::ZERO)));
    }

    #[test]
    fn the_in_process_names_keep_the_contract() {
        now(crate::contract::dns(&InProcessDns::default()));
    }

    #[test]
    fn a_machine_runs_after_its_boot_time_and_stays_listed_when_dead() {
        let cloud = InProcessCompute::new(1_000, Duration::from_secs(150));
        now(cloud.create(&request(1))).expect("created");
        let state = || now(cloud.list()).expect("listed").first().map(|machine| machine.state);
        cloud.advance_to(150_999);
        assert_eq!(state(), Some(MachineState::Booting));
        cloud.advance_to(151_000);
        assert_eq!(state(), Some(MachineState::Running));
        cloud.kill(InstanceId::proxy(1));
        assert_eq!(state(), Some(MachineState::Dead));
    }

    #[test]
    fn a_list_may_miss_a_machine_and_show_another_twice() {
        let cloud = InProcessCompute::new(0, Duration::ZERO);
        for slot in [1, 2] {
            now(cloud.create(&request(slot))).expect("created");
        }
        cloud.hide(InstanceId::proxy(1), true);
        cloud.duplicate(InstanceId::proxy(2));
        let listed = || now(cloud.list()).expect("listed");
        assert_eq!(listed().iter().map(|one| one.instance.slot).collect::<Vec<_>>(), [2, 2]);
        now(cloud.terminate(&listed()[1].id)).expect("removed");
        cloud.hide(InstanceId::proxy(1), false);
        assert_eq!(listed().iter().map(|one| one.instance.slot).collect::<Vec<_>>(), [1, 2]);
    }

    /// The answer to a creation is lost; the same request again finds the machine.
    #[test]
    fn a_lost_answer_makes_no_second_machine() {
        let cloud = InProcessCompute::new(0, Duration::ZERO);
        let lost = ProviderError::Unavailable { why: "the answer was lost".to_owned() };
        cloud.fault_next(Fault::HappensAndFails(lost.clone()));
        assert_eq!(now(cloud.create(&request(1))), Err(lost));
        now(cloud.create(&request(1))).expect("the same again");
        assert_eq!(cloud.created_total(), 1);
    }

    #[test]
    fn debug_of_a_request_shows_no_file_content() {
        let mut request = request(1);
        let content = b"hush".to_vec();
        request.files.push(crate::MachineFile { name: "node.json".to_owned(), content });
        let text = format!("{request:?}");
        assert!(text.contains("node.json") && !text.contains("104"), "{text}");
    }
}
