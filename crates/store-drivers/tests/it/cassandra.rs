//! The Cassandra driver against a real node: the contract, and what happens without a node.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scylla::client::session_builder::SessionBuilder;
use store::contract::{self, Fixture};
use store::limits::ROWS_PER_AOR_MAX;
use store::{Answer, Binding, Blocking, Query, Store, StoreError, UnixMillis, Wake};
use store_drivers::cassandra::{self, CassandraLogin, Replication, ReplicationStrategy};
use store_drivers::{CassandraOptions, CassandraStore, OpenError, StoreLocation};

use super::{NOW, aor, binding, write};

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
    was_running: bool,
}

impl Node {
    fn up() -> Option<Self> {
        let was_running = script(&["status"]) == Some(0);
        match script(&["up"]) {
            Some(0) => Some(Self { was_running }),
            Some(CANNOT_BE_HAD) => {
                // Past the test runner, which shows nothing of a test that passes.
                let said = "SKIPPED: no Java or no Maven: nothing is known about Cassandra\n";
                std::io::stderr().write_all(said.as_bytes()).expect("said");
                None
            }
            other => panic!("scripts/cassandra up: {other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.was_running {
            script(&["down"]);
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
        execute(&["credentials", "location"].map(|table| format!("TRUNCATE {keyspace}.{table}")));
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

type Client = Blocking<CassandraStore>;

fn open(options: CassandraOptions) -> Result<Client, OpenError> {
    Blocking::open(Duration::from_secs(20), |wake| CassandraStore::open(options, wake))
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
    let Some(_node) = Node::up() else { return };
    contract::run(&|| Box::new(Keyspace::fresh()));
    an_address_keeps_its_live_rows_and_the_latest_of_the_expired();
    two_writers_of_one_millisecond_do_not_mix_their_rows();
    an_unreadable_row_is_named_and_the_others_are_served();
    a_keyspace_of_a_newer_program_is_refused();
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

fn a_keyspace_of_a_newer_program_is_refused() {
    let version = |version: u32| {
        let table = format!("{}.schema_version", options().keyspace);
        format!("INSERT INTO {table} (component, version) VALUES ('store', {version})")
    };
    execute(&[version(2)]);
    for refusal in [
        open(options()).map(|_| ()).expect_err("refused"),
        cassandra::init(&options(), &replication()).map(|_| ()).expect_err("refused"),
    ] {
        assert!(
            matches!(refusal, OpenError::NewerSchema { found: 2, known: 1, .. }),
            "{refusal:?}"
        );
    }
    execute(&[version(1)]);
    let report = cassandra::check(&options()).expect("as it was");
    assert_eq!((report.version, report.nodes.len()), (1, 1));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
