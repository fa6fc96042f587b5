//! Two managers; the one that leads dies, or is held up, at each of its steps, one after the other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use fleet::{InstanceId, Membership};
use lsm::{Clock, Keeper, Lease, LsmConfiguration, Manager, NodeAccess, Pace, Seams};
use node_api::ClientError;
use node_api::wire::NodeStatus;
use provider::{
    Addresses, ComputeProvider, DnsProvider, Machine, MachineId, MachineRequest, ProviderError,
    Zone,
};
use scaling::{AdaptiveRule, Rule};
use tokio::sync::Notify;

use crate::world::{POLL, World};

/// What befalls the leader at one of its calls to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The call is not made.
    DiesBefore,
    /// It is made, and the answer not heard.
    DiesAfter,
    /// It is held up, the other one takes over, and then it goes on.
    Stalls,
}

/// The world as one manager reaches it: every call is a step at which something may befall it.
struct Steps {
    fate: Fate,
    at: usize,
    made: AtomicUsize,
    struck: Notify,
    resumed: Notify,
    compute: Arc<dyn ComputeProvider>,
    dns: Arc<dyn DnsProvider>,
    nodes: Arc<dyn NodeAccess>,
}

impl Steps {
    async fn step<T>(&self, call: impl Future<Output = T>) -> T {
        let is_the_one = self.made.fetch_add(1, Ordering::SeqCst) == self.at;
        if is_the_one && self.fate != Fate::DiesAfter {
            self.struck.notify_one();
            self.resumed.notified().await;
        }
        let answer = call.await;
        if is_the_one && self.fate == Fate::DiesAfter {
            self.struck.notify_one();
            self.resumed.notified().await;
        }
        answer
    }
}

#[async_trait]
impl ComputeProvider for Steps {
    fn addresses(&self, instance: InstanceId) -> Result<Addresses, ProviderError> {
        self.compute.addresses(instance)
    }

    async fn create(&self, request: &MachineRequest) -> Result<MachineId, ProviderError> {
        self.step(self.compute.create(request)).await
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        self.step(self.compute.list()).await
    }

    async fn terminate(&self, id: &MachineId) -> Result<(), ProviderError> {
        self.step(self.compute.terminate(id)).await
    }
}

#[async_trait]
impl DnsProvider for Steps {
    async fn publish(&self, zone: &Zone) -> Result<(), ProviderError> {
        self.step(self.dns.publish(zone)).await
    }

    async fn published(&self) -> Result<Option<Zone>, ProviderError> {
        self.step(self.dns.published()).await
    }
}

#[async_trait]
impl NodeAccess for Steps {
    async fn status(&self, control: SocketAddr) -> Result<NodeStatus, ClientError> {
        self.step(self.nodes.status(control)).await
    }

    async fn membership(&self, control: SocketAddr) -> Result<Option<Membership>, ClientError> {
        self.step(self.nodes.membership(control)).await
    }

    async fn put_membership(
        &self,
        control: SocketAddr,
        membership: &Membership,
    ) -> Result<(), ClientError> {
        self.step(self.nodes.put_membership(control, membership)).await
    }

    async fn drain(&self, control: SocketAddr, on: bool, fence: u64) -> Result<(), ClientError> {
        self.step(self.nodes.drain(control, on, fence)).await
    }
}

/// A manager and its turns.
struct One {
    manager: Manager,
    keeper: Keeper,
    steps: Arc<Steps>,
}

impl One {
    fn new(world: &World, name: &str, fate: Fate, at: usize) -> Self {
        let lease = Lease {
            store: Box::new(world.lease.clone()),
            holder: format!("{name}/1"),
            fence_min: 1,
            is_gone: Box::new(|_| false),
        };
        let clock: Arc<dyn Clock> = world.clock.clone();
        let keeper = Keeper::new(lease, POLL, Arc::clone(&clock));
        let steps = Arc::new(Steps {
            fate,
            at,
            made: AtomicUsize::new(0),
            struck: Notify::new(),
            resumed: Notify::new(),
            compute: world.compute.clone(),
            dns: world.dns.clone(),
            nodes: world.nodes.clone(),
        });
        let seams = Seams {
            compute: steps.clone(),
            dns: steps.clone(),
            nodes: steps.clone(),
            clock,
            leadership: keeper.leadership(),
        };
        let config = LsmConfiguration { name: name.to_owned(), ..world.config.clone() };
        Self { manager: Manager::new(config, seams).expect("a manager"), keeper, steps }
    }

    async fn round(&mut self) {
        self.keeper.turn();
        let mut pace = self.manager.round().await;
        for _ in 0..2 {
            if pace == Pace::Soon {
                pace = self.manager.settle().await;
            }
        }
    }

    fn leads(&self) -> bool {
        self.manager.handle().fleet().manager.leads
    }
}

/// A proxy tier that quickly goes from one to two and back.
fn quick(config: &mut LsmConfiguration) {
    let polls = |count| std::num::NonZeroUsize::new(count).expect("more than none");
    let rule = AdaptiveRule {
        trend_polls: 0,
        up_polls: polls(1),
        down_polls: polls(2),
        ..AdaptiveRule::default()
    };
    config.settings.proxies.rule = Rule::Adaptive(rule);
    config.settings.proxies.instances_max = 2;
}

/// By then nothing is in motion any more.
const QUIET: usize = 34;
/// Time for the other one to begin anew.
const ROUNDS: usize = 56;

fn load(round: usize) -> u32 {
    if (7..18).contains(&round) { 80 } else { 20 }
}

/// What must be true at the end, whoever died.
async fn expect_one_story(world: &World, other: &One, name: &str) {
    assert_eq!(world.owners(), [1], "{name}: and shrank");
    let machines = world.compute.list().await.expect("listed");
    let left: BTreeSet<InstanceId> = machines.iter().map(|machine| machine.instance).collect();
    let expected = BTreeSet::from([InstanceId::balancer(1), InstanceId::proxy(1)]);
    assert_eq!(left, expected, "{name}: none forgotten");
    assert_eq!(world.compute.created_total(), 3, "{name}: none made twice");
    let zone = world.dns.published().await.expect("published").expect("a zone");
    assert_eq!(zone.balancers.len(), 1, "{name}");
    let numbers: Vec<u64> = other
        .manager
        .handle()
        .events(0, usize::MAX)
        .events
        .iter()
        .map(|event| event.number)
        .collect();
    let in_order: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, in_order, "{name}: one story");
}

/// Plays the rise and the fall; returns whether the leader made as many steps.
async fn play(fate: Fate, at: usize) -> bool {
    let name = format!("{fate:?}, step {at}");
    // A disk would be the slowest of all.
    let folder = std::path::PathBuf::from(format!("/dev/shm/lsm-step-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir(&folder).expect("a folder in memory");
    let world = World::with(&format!("step-{at}"), |config| {
        quick(config);
        config.journal = folder.join("journal.jsonl");
        config.wishes = folder.join("wishes.json");
    });
    let mut one = Some(One::new(&world, "one", fate, at));
    // The fate of the other one is to live.
    let mut other = One::new(&world, "other", Fate::Stalls, usize::MAX);
    let (mut is_struck, mut most) = (false, 0);
    let mut round = 0;
    while round < ROUNDS {
        if !is_struck && round == QUIET {
            std::fs::remove_dir_all(&folder).expect("removed");
            return false;
        }
        world.pass_time(load(round)).await;
        if let Some(mut leader) = one.take() {
            let steps = Arc::clone(&leader.steps);
            let mut its_round = Box::pin(leader.round());
            let is_cut = tokio::select! {
                biased;
                () = steps.struck.notified() => true,
                () = &mut its_round => false,
            };
            if is_cut {
                is_struck = true;
                other.round().await;
                for _ in 0..4 {
                    round += 1;
                    world.pass_time(load(round)).await;
                    other.round().await;
                }
                assert!(other.leads(), "{name}: it has taken over");
            }
            if is_cut && fate == Fate::Stalls {
                steps.resumed.notify_one();
                its_round.await;
                assert!(!leader.leads(), "{name}: it does not act any more");
                one = Some(leader);
            } else if !is_cut {
                drop(its_round);
                one = Some(leader);
            }
        }
        other.round().await;
        let leaders = u32::from(other.leads()) + u32::from(one.as_ref().is_some_and(One::leads));
        assert_eq!(leaders, 1, "{name}: round {round}");
        most = most.max(world.owners().len());
        round += 1;
    }
    assert_eq!(most, 2, "{name}: it grew");
    expect_one_story(&world, &other, &name).await;
    std::fs::remove_dir_all(&folder).expect("removed");
    true
}

/// Goal: whatever the leader was about to do or to look at when it died, or was held up, the other
/// one finishes the change: nothing is made twice, nothing is forgotten, one leads at a time.
///
/// Method: every call of the leader to provider, names and nodes, in a run without a mishap, is once
/// the one at which it dies before, dies after, or is held up.
#[tokio::test]
async fn a_leader_may_die_or_stall_at_every_step() {
    for fate in [Fate::DiesBefore, Fate::DiesAfter, Fate::Stalls] {
        let mut steps = 0;
        while play(fate, steps).await {
            steps += 1;
        }
        assert!(steps > 100, "{fate:?}: {steps} steps were tried");
    }
}
