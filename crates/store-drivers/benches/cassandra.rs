//! What one Cassandra node answers through our driver: lookups by key, at the pace of calls and as
//! many as it can, with few and with many subscribers.
//!
//! `scripts/cassandra up && cargo bench -p store-drivers --bench cassandra [-- SUBSCRIBERS… OPTIONS]`,
//! where the options are
//!
//! - `--contact-point HOST`: another node than that of `scripts/cassandra`;
//! - `--capacity`: only credentials, few subscribers, and of all loads the one with the most answers;
//! - `--json`: that one as a line of JSON.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use store::{Aor, Binding, BindingId, Blocking, Credential, Query, Ticket, UnixMillis};
use store_drivers::cassandra::{self, Replication, ReplicationStrategy};
use store_drivers::{CassandraOptions, CassandraStore};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Handles (one per worker of a proxy) and queries that each of them keeps in flight.
const LOADS: [(usize, usize); 6] = [(1, 1), (1, 8), (1, 32), (1, 128), (2, 64), (4, 64)];
const ROUND: Duration = Duration::from_secs(5);

/// What a hundred calls per second ask.
const PACED_PER_S: u32 = 300;

type Client = Blocking<CassandraStore>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|word| word == name);
    let at = arguments.iter().position(|word| word == "--contact-point");
    let contact_points = at.and_then(|at| arguments.get(at + 1)).cloned().into_iter().collect();
    let mut options = CassandraOptions::default();
    if at.is_some() {
        options.contact_points = contact_points;
    }
    if has("--capacity") {
        return capacity(&options, has("--json"));
    }
    let mut subscribers: Vec<usize> =
        arguments.iter().filter_map(|word| word.parse().ok()).collect();
    if subscribers.is_empty() {
        subscribers = vec![1_000, 100_000];
    }
    for count in subscribers {
        let mut clients = filled(&options, count);
        for (what, query) in [("credential", &credential as &Ask), ("bindings", &bindings)] {
            if let Some(first) = clients.first_mut() {
                let found = Measured::of(|| vec![paced(first, count, query)]);
                found.show(what, count, &format!("{PACED_PER_S}/s asked"));
            }
            for (handles, in_flight) in LOADS {
                let clients = clients.get_mut(..handles).unwrap_or_default();
                let found = Measured::of(|| round(clients, in_flight, count, query));
                found.show(what, count, &format!("{handles} x {in_flight:>3} in flight"));
            }
        }
    }
}

/// As many handles as any load needs, on a keyspace with so many subscribers; warm.
fn filled(options: &CassandraOptions, count: usize) -> Vec<Client> {
    let options = CassandraOptions { keyspace: format!("bench_{count}"), ..options.clone() };
    let replication = Replication { strategy: ReplicationStrategy::NetworkTopology, factor: 1 };
    cassandra::init(&options, &replication).expect("a node: scripts/cassandra up");
    let open = || {
        let open = |_| CassandraStore::open(options.clone());
        Blocking::open(Duration::from_secs(20), open).expect("opened")
    };
    let handles_max = LOADS.iter().map(|(handles, _)| *handles).max().unwrap_or(1);
    let mut clients: Vec<Client> = (0..handles_max).map(|_| open()).collect();
    if let Some(first) = clients.first_mut() {
        fill(first, count);
    }
    // A Java machine is slow until it has compiled what it does.
    round(&mut clients, 64, count, &credential);
    clients
}

/// The most authentication queries that a node answers.
fn capacity(options: &CassandraOptions, is_json: bool) {
    const SUBSCRIBERS: usize = 1_000;
    let mut clients = filled(options, SUBSCRIBERS);
    let mut best: Option<Measured> = None;
    for (handles, in_flight) in LOADS {
        let clients = clients.get_mut(..handles).unwrap_or_default();
        let found = Measured::of(|| round(clients, in_flight, SUBSCRIBERS, &credential));
        if !is_json {
            let load = format!("{handles} x {in_flight:>3} in flight");
            found.show("credential", SUBSCRIBERS, &load);
        }
        let is_better = best.as_ref().is_none_or(|best| best.per_s() < found.per_s());
        if found.failures == 0 && is_better {
            best = Some(found);
        }
    }
    let best = best.expect("some load is carried without a failure");
    if is_json {
        let (per_s, driver, node) = (best.per_s(), best.ours, best.others);
        println!(r#"{{"per_s":{per_s:.0},"driver_cores":{driver:.3},"node_cores":{node:.3}}}"#);
    }
}

type Ask = dyn Fn(usize) -> Query + Sync;

fn credential(number: usize) -> Query {
    Query::Credential { realm: "example.com".to_owned(), username: format!("user-{number}") }
}

fn bindings(number: usize) -> Query {
    Query::Bindings { aor: aor(number) }
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

/// One answer after the other.
type Answers = Vec<(Duration, bool)>;

/// All keys in an order that no cache likes; each handle begins elsewhere.
fn next(number: usize, count: usize) -> usize {
    (number * 7_919 + 104_729) % count
}

/// Every handle keeps so many queries in flight.
fn round(clients: &mut [Client], in_flight: usize, count: usize, query: &Ask) -> Vec<Answers> {
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(first, client)| {
                scope.spawn(move || busy(client, first, in_flight, count, query))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("measured")).collect()
    })
}

fn busy(client: &mut Client, first: usize, in_flight: usize, count: usize, query: &Ask) -> Answers {
    let mut sent: BTreeMap<Ticket, Instant> = BTreeMap::new();
    let (mut number, mut answers) = (first, Vec::new());
    let begun = now();
    while begun.elapsed() < ROUND || !sent.is_empty() {
        while sent.len() < in_flight && begun.elapsed() < ROUND {
            number = next(number, count);
            sent.insert(client.submit(query(number)), now());
        }
        let done = client.next_completion().expect("an answer");
        let latency = sent.remove(&done.ticket).map(|at| at.elapsed()).expect("asked");
        answers.push((latency, done.result.is_ok()));
    }
    answers
}

/// One query after the other, each at its time.
fn paced(client: &mut Client, count: usize, query: &Ask) -> Answers {
    let (mut number, mut answers) = (0, Vec::new());
    let begun = now();
    for place in 0..PACED_PER_S * u32::try_from(ROUND.as_secs()).unwrap_or(1) {
        let at = begun + Duration::from_secs(1) / PACED_PER_S * place;
        thread::park_timeout(at.saturating_duration_since(now()));
        number = next(number, count);
        // What waited for the one before counts: the call waited too.
        let is_good = client.ask(query(number)).is_ok();
        answers.push((now().saturating_duration_since(at), is_good));
    }
    answers
}

struct Measured {
    latencies: Vec<Duration>,
    failures: usize,
    seconds: f64,
    /// Cores that this process and the rest of the machine used.
    ours: f64,
    others: f64,
}

impl Measured {
    fn of(run: impl FnOnce() -> Vec<Answers>) -> Self {
        let (begun, process, machine) = (now(), process_seconds(), machine_seconds());
        let answers: Answers = run().into_iter().flatten().collect();
        let seconds = begun.elapsed().as_secs_f64();
        let ours = (process_seconds() - process) / seconds;
        let others = (machine_seconds() - machine) / seconds - ours;
        let mut latencies: Vec<Duration> = answers.iter().map(|(latency, _)| *latency).collect();
        latencies.sort_unstable();
        let failures = answers.iter().filter(|(_, is_good)| !is_good).count();
        Self { latencies, failures, seconds, ours, others }
    }

    fn per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    fn show(&self, what: &str, count: usize, load: &str) {
        let per_second = self.per_s();
        let at = |share: usize| {
            let place = self.latencies.len() * share / 100;
            self.latencies.get(place).copied().unwrap_or_default()
        };
        println!(
            "{what:<10} {count:>7} subscribers  {load:<17} {per_second:>7.0}/s  p50 {:>9.2?}  p99 \
             {:>9.2?}  {} failed  cores: driver {:.2}, the rest {:.2}",
            at(50),
            at(99),
            self.failures,
            self.ours,
            self.others,
        );
    }
}

/// User and system time of this process.
fn process_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Time that the cores of the machine were busy, all together.
fn machine_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("Linux");
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, (idle, waiting), interrupts, soft interrupts.
    ticks
        .iter()
        .enumerate()
        .filter(|(place, _)| [0, 1, 2, 5, 6].contains(place))
        .map(|(_, it)| it)
        .sum::<f64>()
        / 100.0
}
