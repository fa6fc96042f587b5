//! The Cassandra driver against a real node: the contract, and what happens without a node.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scylla::client::session_builder::SessionBuilder;
use store::contract::{Fixture, LeaseFixture, run_lease};
use store::limits::ROWS_PER_AOR_MAX;
use store::{Answer, Binding, Blocking, LeaseStore, Query, Store, StoreError, UnixMillis, Wake};
use store_drivers::cassandra::{
    self, CassandraLogin, CassandraTls, Replication, ReplicationStrategy,
};
use store_drivers::{CassandraOptions, CassandraStore, OpenError, StoreLocation, open_lease};

use super::{NOW, aor, binding, contract, write};

/// What `scripts/cassandra` says if the machine can have neither Java nor Maven.
const CANNOT_BE_HAD: i32 = 69;

/// One test at a time: they share the node, and the keyspace.
static TURN: Mutex<()> = Mutex::new(());

fn script(arguments: &[&str]) -> Option<i32> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/cassandra");
    let mut command = Command::new(script);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command.status().expect("the script runs").code()
}

/// A node that serves. One that was not there before ends with the test.
struct Node {
    /// Which one, and how it is.
    flags: Vec<String>,
    was_running: bool,
}

impl Node {
    fn up(flags: &[&str]) -> Option<Self> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut node = Self { flags, was_running: true };
        node.was_running = node.script(&["status"]) == Some(0);
        match node.script(&["up"]) {
            Some(0) => Some(node),
            Some(CANNOT_BE_HAD) => {
                // Past the test runner, which shows nothing of a test that passes.
                let said = "SKIPPED: no Java or no Maven: nothing is known about Cassandra\n";
                std::io::stderr().write_all(said.as_bytes()).expect("said");
                None
            }
            other => panic!("scripts/cassandra up: {other:?}"),
        }
    }

    fn script(&self, words: &[&str]) -> Option<i32> {
        let flags = self.flags.iter().map(String::as_str);
        script(&words.iter().copied().chain(flags).collect::<Vec<_>>())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.was_running {
            self.script(&["down"]);
        }
    }
}

fn options() -> CassandraOptions {
    let keyspace = format!("contract_{}", std::process::id());
    // A cold node on a busy machine: what is tested here is what it answers, not how fast.
    let deadline = Duration::from_secs(10);
    CassandraOptions { keyspace, deadline, ..CassandraOptions::default() }
}

fn replication() -> Replication {
    Replication { strategy: ReplicationStrategy::NetworkTopology, factor: 1 }
}

/// Runs CQL that the product has no use for.
fn execute(statements: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let session = SessionBuilder::new().known_nodes(options().contact_points);
        let session = session.build().await.expect("connected");
        for statement in statements {
            session.query_unpaged(statement.as_str(), ()).await.expect("carried out");
        }
    });
}

struct Keyspace;

impl Keyspace {
    /// An empty keyspace. Emptied tables are cheaper than new ones.
    fn fresh() -> Self {
        let keyspace = options().keyspace;
        cassandra::init(&options(), &replication()).expect("made");
        execute(
            &["credentials", "location", "lease"]
                .map(|table| format!("TRUNCATE {keyspace}.{table}")),
        );
        Self
    }

    fn drop_it() {
        execute(&[format!("DROP KEYSPACE IF EXISTS {}", options().keyspace)]);
    }
}

impl Fixture for Keyspace {
    fn open(&self, wake: Wake) -> Box<dyn Store> {
        let location = StoreLocation::Cassandra(options());
        Box::new(store_drivers::open(&location, wake).expect("opened"))
    }
}

impl LeaseFixture for Keyspace {
    fn open(&self) -> Box<dyn LeaseStore> {
        open_lease(&StoreLocation::Cassandra(options()), Duration::from_secs(10))
    }
}

type Client = Blocking<CassandraStore>;

fn open(options: CassandraOptions) -> Result<Client, OpenError> {
    Blocking::open(Duration::from_secs(20), |_| CassandraStore::open(options))
}

fn read(client: &mut Client, number: u64) -> Vec<Binding> {
    match client.ask(Query::Bindings { aor: aor(number) }) {
        Ok(Answer::Bindings(rows)) => rows,
        other => panic!("bindings were asked for: {other:?}"),
    }
}

#[test]
fn cassandra_keeps_the_contract() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(_node) = Node::up(&[]) else { return };
    contract::run(&|| Box::new(Keyspace::fresh()));
    run_lease(&|| Box::new(Keyspace::fresh()));
    an_address_keeps_its_live_rows_and_the_latest_of_the_expired();
    two_writers_of_one_millisecond_do_not_mix_their_rows();
    an_unreadable_row_is_named_and_the_others_are_served();
    versions_run_side_by_side_unless_a_newer_one_forbids_it();
    Keyspace::drop_it();
    let missing = open(options()).map(|_| ()).expect_err("there is none");
    assert!(matches!(missing, OpenError::NoKeyspace { .. }), "{missing:?}");
    assert!(missing.to_string().contains("sipcloud store init"), "{missing}");
}

fn an_address_keeps_its_live_rows_and_the_latest_of_the_expired() {
    Keyspace::fresh();
    let mut client = open(options()).expect("opened");
    let rows = |ids: std::ops::RangeInclusive<u8>, cseq: u32| -> Vec<Binding> {
        let row = |id| Binding {
            expires_at: if id < 3 { NOW.plus(Duration::from_secs(1)) } else { NOW },
            updated_at: UnixMillis(u64::from(id) * 10 + u64::from(cseq)),
            cseq,
            ..binding(id)
        };
        ids.map(row).collect()
    };
    assert_eq!(client.ask(write(1, rows(0..=255, 1))), Ok(Answer::Done));
    assert_eq!(read(&mut client, 1).len(), 256, "a write does not count them");
    assert_eq!(client.ask(write(1, rows(0..=0, 2))), Ok(Answer::Done), "the one after a read does");
    let mut left: Vec<u8> = read(&mut client, 1).iter().map(|row| row.id.0[0]).collect();
    left.sort_unstable();
    assert_eq!(left.len(), ROWS_PER_AOR_MAX);
    assert_eq!(left, (0..3).chain(131..=255).collect::<Vec<u8>>());
}

fn two_writers_of_one_millisecond_do_not_mix_their_rows() {
    let (mut one, mut two) = (open(options()).expect("opened"), open(options()).expect("opened"));
    for round in 100..120 {
        let with = |contact: &[u8], user_agent: &[u8]| Binding {
            contact: contact.to_vec(),
            user_agent: user_agent.to_vec(),
            ..binding(1)
        };
        // Each is greater in one column: cell by cell the result would be neither.
        let (a, b) = (with(b"sip:a", b"z"), with(b"sip:b", b"y"));
        one.submit(write(round, vec![a.clone()]));
        two.submit(write(round, vec![b.clone()]));
        for client in [&mut one, &mut two] {
            assert_eq!(client.next_completion().map(|done| done.result), Some(Ok(Answer::Done)));
        }
        let rows = read(&mut one, round);
        assert!(rows == [a] || rows == [b], "{rows:?}");
    }
}

fn an_unreadable_row_is_named_and_the_others_are_served() {
    let mut client = open(options()).expect("opened");
    let location = format!("{}.location", options().keyspace);
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    assert_eq!(client.ask(write(2, vec![binding(1)])), Ok(Answer::Done));
    let (aor, id): (String, String) = (hex(aor(1).as_bytes()), hex(&[1; 16]));
    let key = format!("aor = 0x{aor} AND id = 0x{id}");
    let stamp = (NOW.0 + 1000) * 1000;
    execute(&[format!("UPDATE {location} USING TIMESTAMP {stamp} SET q = 7000 WHERE {key}")]);
    let refused = client.ask(Query::Bindings { aor: super::aor(1) });
    let Err(StoreError::Corrupt { row }) = &refused else { panic!("{refused:?}") };
    assert_eq!(row, "location user-1@example.com: q");
    assert_eq!(read(&mut client, 2).len(), 1);
    assert!(client.store().health().is_serving(), "the store itself is well");
}

fn versions_run_side_by_side_unless_a_newer_one_forbids_it() {
    let table = format!("{}.schema_version", options().keyspace);
    let set = |component: &str, version: u32| {
        let row = format!("(component, version) VALUES ('{component}', {version})");
        execute(&[format!("INSERT INTO {table} {row}")]);
    };
    let mut running = open(options()).expect("opened");
    set("store", 2);
    drop(open(options()).expect("what is newer only adds"));
    let report = cassandra::init(&options(), &replication()).expect("nothing is done");
    assert_eq!(report.version, 2);

    set("store needs program", 2);
    for refusal in [
        open(options()).map(|_| ()).expect_err("refused"),
        cassandra::init(&options(), &replication()).map(|_| ()).expect_err("refused"),
    ] {
        assert!(
            matches!(refusal, OpenError::NewerSchema { found: 2, known: 1, .. }),
            "{refusal:?}"
        );
    }
    // An older one is moved forward, and who runs does not notice.
    set("store needs program", 0);
    set("store", 0);
    let refusal = open(options()).map(|_| ()).expect_err("refused");
    assert!(refusal.to_string().contains("sipcloud store init"), "{refusal}");
    cassandra::init(&options(), &replication()).expect("moved forward");
    let report = cassandra::check(&options()).expect("as it was");
    assert_eq!((report.version, report.nodes.len()), (1, 1));
    assert_eq!(running.ask(write(9, vec![binding(9)])), Ok(Answer::Done));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One node of this test's own, so that it may be silenced: what a cluster asks of its clients, and
/// what becomes of queries while it says nothing.
#[test]
fn a_cluster_with_tls_and_a_password_serves_and_its_silence_is_answered_in_time() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = super::folder();
    let data = folder.store_path().with_file_name("cluster");
    let data = data.to_str().expect("a path in UTF-8");
    let flags = ["--auth", "--tls", "--network", "127.0.41", "--data", data];
    let Some(node) = Node::up(&flags) else { return };
    let file = |name: &str| Path::new(data).join("tls").join(name);
    let identity = Some((file("client.pem"), file("client.key")));
    let ours = CassandraOptions {
        contact_points: vec!["127.0.41.1".to_owned()],
        login: Some(login("cassandra")),
        tls: Some(CassandraTls { ca_file: file("ca.pem"), identity }),
        ..CassandraOptions::default()
    };
    make_keyspace(&ours);
    strangers_are_refused(&ours);
    let mut client = open(ours).expect("opened");
    assert_eq!(client.ask(write(1, vec![binding(1)])), Ok(Answer::Done));
    a_silent_node_is_answered_for_and_served_from_again(&node, &mut client);
    client.store().close();
}

fn login(password: &str) -> CassandraLogin {
    CassandraLogin { user: "cassandra".to_owned(), password: password.to_owned() }
}

/// The node makes its first user a moment after it serves.
fn make_keyspace(options: &CassandraOptions) {
    let mut tries = 1;
    while let Err(error) = cassandra::init(options, &replication()) {
        assert!(tries < 200, "{error}");
        tries += 1;
        std::thread::park_timeout(Duration::from_millis(300));
    }
}

fn strangers_are_refused(ours: &CassandraOptions) {
    let tls = ours.tls.clone().expect("encrypted");
    let other_authority =
        Some(CassandraTls { ca_file: tls.identity.clone().expect("ours").0, ..tls.clone() });
    let anonymous = Some(CassandraTls { identity: None, ..tls });
    for (who, stranger) in [
        ("in clear", CassandraOptions { tls: None, ..ours.clone() }),
        ("without a certificate", CassandraOptions { tls: anonymous, ..ours.clone() }),
        (
            "that trusts another authority",
            CassandraOptions { tls: other_authority, ..ours.clone() },
        ),
        ("without a password", CassandraOptions { login: None, ..ours.clone() }),
        ("with a wrong password", CassandraOptions { login: Some(login("no")), ..ours.clone() }),
    ] {
        let refused = cassandra::check(&stranger).expect_err(who);
        assert!(!refused.to_string().is_empty(), "{who}");
    }
    cassandra::check(ours).expect("with everything it is served");
}

fn a_silent_node_is_answered_for_and_served_from_again(node: &Node, client: &mut Client) {
    const QUERIES: u64 = 500;
    assert_eq!(node.script(&["pause", "1"]), Some(0));
    for number in 0..QUERIES {
        client.submit(Query::Bindings { aor: aor(number) });
    }
    for _ in 0..QUERIES {
        let done = client.next_completion().expect("every query has its answer");
        assert!(matches!(done.result, Err(StoreError::Unavailable { .. })), "{done:?}");
    }
    assert!(!client.store().health().is_serving(), "and the operator is told");
    assert_eq!(client.store().counters().in_flight, 0, "nothing piles up");
    assert_eq!(node.script(&["resume", "1"]), Some(0));
    let mut tries = 1;
    while client.ask(Query::Bindings { aor: aor(1) }).is_err() {
        assert!(tries < 1000, "it heals by itself");
        tries += 1;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(read(client, 1), [binding(1)]);
    assert!(client.store().health().is_serving());
}

#[test]
fn without_a_node_every_query_is_answered_at_once_and_health_says_so() {
    let options = CassandraOptions {
        contact_points: vec!["127.0.40.99".to_owned(), "127.0.40.98:9043".to_owned()],
        login: Some(CassandraLogin { user: "u".to_owned(), password: "secret".to_owned() }),
        ..CassandraOptions::default()
    };
    assert!(!format!("{options:?}").contains("secret"), "a password is not shown");
    let mut client = open(options).expect("a cluster that is away is waited for");
    assert!(!client.store().health().is_serving());
    for number in 0..100 {
        let refused = client.ask(Query::Bindings { aor: aor(number) });
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    }
    assert_eq!(client.store().counters().in_flight, 0);
    client.store().close();
}
