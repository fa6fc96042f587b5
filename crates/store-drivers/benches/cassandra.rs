//! What one Cassandra node answers through our driver: lookups by key at several loads.
//!
//! `scripts/cassandra up && cargo bench -p store-drivers --bench cassandra [-- SUBSCRIBERS…]`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use store::{Aor, Binding, BindingId, Blocking, Credential, Query, Store as _, Ticket, UnixMillis};
use store_drivers::cassandra::{self, Replication, ReplicationStrategy};
use store_drivers::{CassandraOptions, CassandraStore};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const IN_FLIGHT: [usize; 4] = [1, 8, 32, 128];
const ROUND: Duration = Duration::from_secs(5);

type Client = Blocking<CassandraStore>;

fn main() {
    let numbers = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let mut subscribers: Vec<usize> = numbers.collect();
    if subscribers.is_empty() {
        subscribers = vec![1_000, 100_000];
    }
    for count in subscribers {
        let keyspace = format!("bench_{count}");
        let options = CassandraOptions { keyspace, ..CassandraOptions::default() };
        let replication = Replication { strategy: ReplicationStrategy::NetworkTopology, factor: 1 };
        cassandra::init(&options, &replication).expect("a node: scripts/cassandra up");
        let open = |wake| CassandraStore::open(options, wake);
        let mut client = Blocking::open(Duration::from_secs(20), open).expect("opened");
        fill(&mut client, count);
        let credential = |number: usize| Query::Credential {
            realm: "example.com".to_owned(),
            username: format!("user-{number}"),
        };
        let bindings = |number: usize| Query::Bindings { aor: aor(number) };
        for in_flight in IN_FLIGHT {
            measure(&mut client, ("credential", count, in_flight), &credential);
        }
        for in_flight in IN_FLIGHT {
            measure(&mut client, ("bindings", count, in_flight), &bindings);
        }
    }
}

fn aor(number: usize) -> Aor {
    Aor::new(format!("user-{number}").as_bytes(), b"example.com")
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

fn fill(client: &mut Client, count: usize) {
    let begun = now();
    let credential = Credential::new("user", "example.com", "secret");
    let put = |number: usize| Query::PutCredential {
        realm: "example.com".to_owned(),
        username: format!("user-{number}"),
        credential: credential.clone(),
    };
    let write =
        |number: usize| Query::Write { aor: aor(number), upserts: vec![binding()], now: NOW };
    let (mut waiting, mut failures) = (0, 0);
    for number in 0..count {
        for query in [put(number), write(number)] {
            client.submit(query);
            waiting += 1;
        }
        while waiting > 128 {
            failures += usize::from(client.next_completion().is_none_or(|it| it.result.is_err()));
            waiting -= 1;
        }
    }
    for _ in 0..waiting {
        failures += usize::from(client.next_completion().is_none_or(|it| it.result.is_err()));
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} users and {count} bindings written in {seconds:.1} s, {failures} failed");
}

fn binding() -> Binding {
    Binding {
        id: BindingId([1; 16]),
        contact: b"sip:device@192.0.2.1:5060".to_vec(),
        path: vec![b"<sip:0123456789abcdef0123456789abcdef@192.0.2.200;lr;ob>".to_vec()],
        received: None,
        q: 1000,
        call_id: b"call@192.0.2.1".to_vec(),
        cseq: 1,
        expires_at: UnixMillis::NEVER,
        updated_at: NOW,
        user_agent: b"bench".to_vec(),
        instance: None,
        reg_id: None,
        direct: false,
    }
}

fn measure(
    client: &mut Client,
    (what, count, in_flight): (&str, usize, usize),
    query: &dyn Fn(usize) -> Query,
) {
    let mut sent: BTreeMap<Ticket, Instant> = BTreeMap::new();
    let (mut number, mut latencies, mut failures) = (1, Vec::new(), 0);
    let begun = now();
    while begun.elapsed() < ROUND || !sent.is_empty() {
        while sent.len() < in_flight && begun.elapsed() < ROUND {
            // All keys in an order that no cache likes.
            number = (number * 7_919 + 104_729) % count;
            sent.insert(client.submit(query(number)), now());
        }
        let Some(done) = client.next_completion() else { break };
        failures += usize::from(done.result.is_err());
        latencies.extend(sent.remove(&done.ticket).map(|at| at.elapsed()));
    }
    let per_second = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at =
        |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
    println!(
        "{what:<10} {count:>7} subscribers  {in_flight:>3} in flight  {per_second:>7.0}/s  p50 {:>9.2?}  \
         p99 {:>9.2?}  {failures} failed, {} overloaded",
        at(50),
        at(99),
        client.store().counters().overloaded,
    );
}
