//! How long a new generation takes to a hundred balancers, as rows of a table for people:
//! `cargo bench -p lsm --bench publish`. The manager's own way to its nodes, over HTTP on loopback, to a
//! hundred control interfaces that take it as a balancer does; the balancers' tables excluded, which
//! each makes on a machine of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleet::{GenerationNumber, Incarnation, InstanceId, Members, Membership, StaleGeneration};
use lsm::{HttpNodes, NodeAccess as _};
use node_api::wire::{NodeStatus, Origin, Secret, SipAddresses};
use node_api::{NodeHandle, Server, serve};
use tokio::task::JoinSet;

const BALANCERS: u16 = 100;
const PROXIES: [u16; 3] = [10, 100, 1_000];
const GENERATIONS: u64 = 5;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A balancer without calls.
struct Balancer {
    instance: InstanceId,
    sip: SocketAddr,
    membership: Mutex<Option<Membership>>,
}

impl NodeHandle for Balancer {
    fn status(&self) -> NodeStatus {
        let sip = SipAddresses { internal: self.sip, advertised: self.sip, extra: Vec::new() };
        NodeStatus::started(self.instance, Incarnation(1), sip)
    }

    fn membership(&self) -> Option<Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        let mut have = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        membership.follows(have.as_ref())?;
        *have = Some(membership);
        Ok(())
    }

    fn drain(&self, _: bool) {}

    fn metrics(&self) -> String {
        String::new()
    }
}

fn generation(counter: u64, proxies: u16) -> Membership {
    let members = Members { proxies: testkit::proxies(proxies), ..Members::default() };
    Membership::new(GenerationNumber { fence: 1, counter }, fleet::ROWS_DEFAULT, members)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

async fn start(token: &Secret) -> Vec<Server> {
    let mut servers = Vec::new();
    for slot in 1..=BALANCERS {
        let listen = SocketAddr::from(([127, 115, 30, slot as u8], 8060));
        let balancer = Balancer {
            instance: InstanceId::balancer(slot),
            sip: listen,
            membership: Mutex::new(None),
        };
        let server = serve(listen, token, &Origin::default(), Arc::new(balancer)).await;
        servers.push(server.expect("a free address"));
    }
    servers
}

/// Gives all of them one generation at the same time, as the manager does.
async fn publish(nodes: &Arc<HttpNodes>, servers: &[Server], membership: &Membership) -> Duration {
    let begun = now();
    let mut acts = JoinSet::new();
    for control in servers.iter().map(Server::local_addr) {
        let (nodes, membership) = (Arc::clone(nodes), membership.clone());
        acts.spawn(async move { nodes.put_membership(control, &membership).await });
    }
    while let Some(done) = acts.join_next().await {
        done.expect("it ends").expect("the balancer takes it");
    }
    begun.elapsed()
}

#[tokio::main]
async fn main() {
    let token = Secret::new("token");
    let servers = start(&token).await;
    let nodes = Arc::new(HttpNodes::new(&token, TIMEOUT).expect("a client"));
    println!("| proxies | to {BALANCERS} balancers: least, median, most of {GENERATIONS} |");
    println!("|---|---|");
    let mut counter = 0;
    for proxies in PROXIES {
        let mut times = Vec::new();
        for _ in 0..GENERATIONS {
            counter += 1;
            times.push(publish(&nodes, &servers, &generation(counter, proxies)).await);
        }
        times.sort_unstable();
        let ms = |place: usize| times[place].as_secs_f64() * 1_000.0;
        let (least, median, most) = (ms(0), ms(times.len() / 2), ms(times.len() - 1));
        println!("| {proxies} | {least:.0}, {median:.0}, {most:.0} ms |");
    }
    for server in servers {
        server.stop().await;
    }
}
