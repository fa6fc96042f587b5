//! Server and client against each other, over loopback addresses of these tests' own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fleet::{GenerationNumber, Incarnation, Member, Members};

use super::*;
use crate::ManagerClient;
use crate::client::{ClientError, NodeClient};
use crate::wire::{Generation, SipAddresses};

/// Longer than an answer takes.
const BRIEF: Duration = Duration::from_millis(200);

#[derive(Default)]
struct FakeNode {
    draining: AtomicBool,
    membership: Mutex<Option<fleet::Membership>>,
}

impl NodeHandle for FakeNode {
    fn status(&self) -> NodeStatus {
        let sip = SocketAddr::from(([127, 33, 1, 1], 5060));
        let sip = SipAddresses { internal: sip, advertised: sip, extra: Vec::new() };
        let mut status = NodeStatus::started(InstanceId::proxy(1), Incarnation(7), sip);
        status.draining = self.draining.load(Ordering::Relaxed);
        let membership = self.membership.lock().expect("not poisoned");
        status.generation = membership.as_ref().map(|have| Generation::from(have.generation));
        status
    }

    fn membership(&self) -> Option<fleet::Membership> {
        self.membership.lock().expect("not poisoned").clone()
    }

    fn put_membership(&self, membership: fleet::Membership) -> Result<(), StaleGeneration> {
        let mut have = self.membership.lock().expect("not poisoned");
        membership.follows(have.as_ref())?;
        *have = Some(membership);
        Ok(())
    }

    fn drain(&self, on: bool) {
        self.draining.store(on, Ordering::Relaxed);
    }

    fn metrics(&self) -> String {
        "# TYPE up gauge\nup 1\n".to_owned()
    }
}

fn generation(counter: u64) -> fleet::Membership {
    numbered(1, counter)
}

fn numbered(fence: u64, counter: u64) -> fleet::Membership {
    let member = Member {
        instance: InstanceId::proxy(1),
        worker: 0,
        incarnation: Incarnation(7),
        address: SocketAddr::from(([127, 33, 1, 1], 5060)),
        weight: 100,
    };
    let members = Members { proxies: vec![member], ..Members::default() };
    fleet::Membership::new(GenerationNumber { fence, counter }, 1 << 8, members)
}

fn origin() -> Origin {
    Origin { fence: 1, build: "a build".to_owned() }
}

async fn node(last: u8) -> (Server, NodeClient) {
    let token = Secret::new("open sesame");
    let listen = SocketAddr::from(([127, 33, 1, last], 0));
    let server =
        serve(listen, &token, &origin(), Arc::new(FakeNode::default())).await.expect("serves");
    let client = NodeClient::new(server.local_addr(), &token, Duration::from_secs(10));
    (server, client.expect("a client"))
}

#[tokio::test]
async fn a_node_is_polled_given_generations_and_drained() {
    let (server, client) = node(1).await;
    assert_eq!(client.status().await.expect("polled").generation, None);

    assert_eq!(client.membership().await, Ok(None));
    let after = client.put_membership(&generation(4)).await.expect("taken");
    assert_eq!(client.membership().await, Ok(Some(generation(4))), "as the next manager reads it");
    assert_eq!(after.generation, Some(Generation { fence: 1, counter: 4 }));
    client.put_membership(&generation(4)).await.expect("the same again is fine");
    let older = client.put_membership(&generation(3)).await.expect_err("older");
    assert!(matches!(older, ClientError::Refused { status: 409, .. }), "{older}");

    assert!(client.drain(true, 1).await.expect("drained").draining);
    assert!(client.status().await.expect("polled").draining);
    assert!(!client.drain(false, 1).await.expect("undrained").draining);
    assert!(client.metrics().await.expect("metrics").contains("up 1"));
    server.stop().await;
    let gone = client.status().await.expect_err("stopped");
    assert!(gone.is_transient(), "{gone}");
}

/// Goal: a deaf node answers nobody, and hears again by itself.
///
/// Method: deaf for a second, asked at once by a client that waits for ten: its answer is the first.
#[tokio::test]
async fn a_deaf_node_answers_when_its_time_is_over() {
    let (server, client) = node(8).await;
    let began = tokio::time::Instant::now();
    client.deafen(Duration::from_secs(1)).await.expect("asked");
    client.status().await.expect("answered in the end");
    assert!(began.elapsed() >= Duration::from_secs(1), "it heard all the time");
    let impatient = NodeClient::new(server.local_addr(), &Secret::new("open sesame"), BRIEF);
    let impatient = impatient.expect("a client");
    client.deafen(Duration::from_secs(60)).await.expect("asked again");
    let error = impatient.status().await.expect_err("nothing is heard");
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    drop(server);
}

#[tokio::test]
async fn a_node_is_not_deaf_for_ever() {
    let (_server, client) = node(9).await;
    let refused = client.deafen(Duration::from_secs(601)).await.expect_err("too long");
    assert!(matches!(refused, ClientError::Refused { status: 422, .. }), "{refused}");
    client.status().await.expect("it hears");
}

/// Once a manager with a higher fence was obeyed, in whatever it asked, one with a lower fence is not.
#[tokio::test]
async fn an_older_manager_is_obeyed_in_nothing() {
    let (server, client) = node(4).await;
    let stale = |error: ClientError| matches!(error, ClientError::Refused { status: 409, .. });
    assert!(stale(client.drain(true, 0).await.expect_err("older than the one that made it")));
    assert_eq!(client.status().await.expect("polled").build, "a build");

    client.drain(true, 3).await.expect("the first sign of another manager");
    assert!(stale(client.drain(false, 2).await.expect_err("older")));
    assert!(stale(client.put_membership(&numbered(2, 99)).await.expect_err("older")));
    let status = client.status().await.expect("polled");
    assert!(status.draining && status.generation.is_none(), "nothing came of it: {status:?}");

    client.put_membership(&numbered(5, 1)).await.expect("newer");
    assert!(stale(client.drain(false, 4).await.expect_err("older than the generation")));
    client.drain(false, 5).await.expect("the one that leads");
    server.stop().await;
}

/// Every path, also one that does not exist, looks the same without the token.
#[tokio::test]
async fn nothing_is_answered_without_the_token() {
    let (server, client) = node(2).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    for path in ["/v1/status", "/live", "/ready", "/metrics", "/nowhere"] {
        for token in [None, Some("open sesam"), Some("open sesame!"), Some("")] {
            let mut request = http.get(format!("http://{}{path}", server.local_addr()));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), 401, "{path} with {token:?}");
            let problem: Problem = response.json().await.expect("a JSON error");
            assert!(problem.error.contains("token"), "{problem:?}");
        }
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn refusals_are_json_and_bodies_are_limited() {
    let (server, client) = node(3).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let base = format!("http://{}", server.local_addr());
    let put = |body: Vec<u8>| {
        http.put(format!("{base}/v1/membership")).bearer_auth("open sesame").body(body)
    };
    let table = [
        ("no such path", http.get(format!("{base}/x")).bearer_auth("open sesame"), 404),
        ("no such method", http.post(format!("{base}/v1/status")).bearer_auth("open sesame"), 405),
        ("not JSON", put(b"{".to_vec()), 400),
        ("not ready", http.get(format!("{base}/ready")).bearer_auth("open sesame"), 503),
    ];
    for (name, request, expected) in table {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), expected, "{name}");
        response.json::<Problem>().await.expect(name);
    }
    // The server may close before it has read all of it: either way it was not taken.
    if let Ok(response) = put(vec![b' '; BODY_BYTES_MAX + 1]).send().await {
        assert_eq!(response.status().as_u16(), 413);
    }
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn an_empty_token_opens_nothing() {
    let listen = SocketAddr::from(([127, 33, 1, 4], 0));
    let refused = serve(listen, &Secret::new(""), &origin(), Arc::new(FakeNode::default())).await;
    assert!(refused.is_err());
}

struct FakeManager;

impl ManagerHandle for FakeManager {
    fn fleet(&self) -> FleetStatus {
        FleetStatus {
            at_ms: 1,
            manager: crate::wire::ManagerStatus {
                pid: 1,
                started_at_ms: 1,
                rounds_total: 1,
                poll_interval_ms: 5_000,
                dry_run: false,
                frozen: false,
                name: "manager-1".to_owned(),
                leads: true,
                leader: "manager-1".to_owned(),
                fence: 1,
                trouble: String::new(),
                version: String::new(),
                build: String::new(),
            },
            generation: None,
            tiers: Vec::new(),
            instances: Vec::new(),
            dns: Vec::new(),
            store: None,
        }
    }

    fn events(&self, after: u64, _limit: usize) -> EventsPage {
        EventsPage { events: Vec::new(), last: after, first_kept: 0 }
    }

    fn drain(&self, instance: InstanceId, _why: &str) -> Result<(), OrderError> {
        if instance == InstanceId::proxy(1) {
            Ok(())
        } else {
            Err(OrderError::Unknown { instance })
        }
    }

    fn keep(&self, instance: InstanceId) -> Result<(), OrderError> {
        self.drain(instance, "")
    }

    fn weigh(&self, instance: InstanceId, weight: u16, _why: &str) -> Result<(), OrderError> {
        match weight {
            1..=WEIGHT_MAX => self.drain(instance, ""),
            _ => Err(OrderError::Weight { instance, weight }),
        }
    }

    fn note(&self, _text: &str) -> Result<(), OrderError> {
        Err(OrderError::NotLeading { leader: "manager-2".to_owned() })
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

#[tokio::test]
async fn the_manager_shows_the_fleet_and_takes_orders() {
    let token = Secret::new("manager");
    let listen = SocketAddr::from(([127, 33, 1, 5], 0));
    let server = serve_manager(listen, &token, Arc::new(FakeManager)).await.expect("serves");
    let client = ManagerClient::new(server.local_addr(), &token, Duration::from_secs(10));
    let client = client.expect("a client");
    assert_eq!(client.fleet().await.expect("shown").at_ms, 1);
    assert_eq!(client.events(17).await.expect("shown").last, 17);
    client.drain(InstanceId::proxy(1), "a reason").await.expect("taken");
    client.keep(InstanceId::proxy(1)).await.expect("taken back");
    let given = client.weigh(InstanceId::proxy(1), 50, "a reason").await.expect("taken");
    assert_eq!(given.weight, 50);
    let wrong = client.weigh(InstanceId::proxy(1), 0, "").await.expect_err("no weight");
    assert!(matches!(wrong, ClientError::Refused { status: 422, .. }), "{wrong}");
    let standby = client.note("a note").await.expect_err("it does not lead");
    assert!(standby.to_string().contains("manager-2 leads"), "{standby}");
    let unknown = client.drain(InstanceId::proxy(9), "").await.expect_err("unknown");
    assert!(matches!(unknown, ClientError::Refused { status: 404, .. }), "{unknown}");
    server.stop().await;
}
