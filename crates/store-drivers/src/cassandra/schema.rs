//! The keyspace: made, checked and moved forward. Tables are only ever added to.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::{Consistency, Statement};

use super::cluster;
use super::options::{CassandraOptions, Replication, ReplicationStrategy};
use crate::error::OpenError;

/// What this program knows.
pub(super) const VERSION: i32 = 1;

/// The oldest program that may use a keyspace of [`VERSION`]. It stays as long as versions only add
/// to one another, so that proxies of both run side by side while a fleet is upgraded.
const OLDEST_PROGRAM: i32 = 1;

/// The rows of `schema_version`: what the keyspace has, and which program it needs.
const HAS: &str = "store";
const NEEDS: &str = "store needs program";

/// How often, and how long apart, nodes are counted that are said to be there.
const JOIN_LOOKS: u32 = 20;
const JOIN_PAUSE: Duration = Duration::from_millis(500);

const SCHEMA: &str = include_str!("schema.cql");

/// Stands for the keyspace in `schema.cql`.
const PLACE: &str = "KEYSPACE";

/// What an operator is told of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceReport {
    pub keyspace: String,
    pub version: i32,
    /// As the cluster describes it.
    pub replication: String,
    pub nodes: Vec<ClusterNode>,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    pub address: std::net::SocketAddr,
    pub datacenter: String,
    pub is_up: bool,
}

/// Makes the keyspace and its tables, or what of them is missing. May be repeated, and may run
/// while proxies do.
///
/// # Errors
///
/// A cluster that does not answer, has fewer nodes than copies are wanted, or whose keyspace is of
/// a newer program.
pub(super) async fn init(
    options: &CassandraOptions,
    replication: &Replication,
) -> Result<KeyspaceReport, OpenError> {
    let session = cluster::connect(options).await?;
    let keyspace = &options.keyspace;
    match version(&session, keyspace).await? {
        Some(found) if found.needs > VERSION => return Err(newer(keyspace, &found)),
        // A table that came without a version of its own may be missing.
        Some(found) if found.has >= VERSION => add_tables(&session, keyspace).await?,
        Some(_) | None => make(&session, options, replication).await?,
    }
    report(&session, keyspace).await
}

/// What is there.
///
/// # Errors
///
/// As [`init`], and a keyspace that is missing or older than this program.
pub(super) async fn check(options: &CassandraOptions) -> Result<KeyspaceReport, OpenError> {
    let session = cluster::connect(options).await?;
    require(&session, &options.keyspace).await?;
    report(&session, &options.keyspace).await
}

/// Refuses a keyspace that this program cannot use.
pub(super) async fn require(session: &Session, keyspace: &str) -> Result<(), OpenError> {
    match version(session, keyspace).await? {
        Some(found) if found.needs > VERSION => Err(newer(keyspace, &found)),
        Some(found) if found.has < VERSION => Err(OpenError::NoKeyspace {
            keyspace: keyspace.to_owned(),
            detail: format!("has schema version {}, this program needs {VERSION}", found.has),
        }),
        Some(_) => Ok(()),
        None => Err(OpenError::NoKeyspace {
            keyspace: keyspace.to_owned(),
            detail: "is missing or has no tables of sipcloud".to_owned(),
        }),
    }
}

fn newer(keyspace: &str, found: &Version) -> OpenError {
    OpenError::NewerSchema {
        path: format!("keyspace {keyspace}").into(),
        found: i64::from(found.has),
        known: i64::from(VERSION),
    }
}

async fn make(
    session: &Session,
    options: &CassandraOptions,
    replication: &Replication,
) -> Result<(), OpenError> {
    let keyspace = &options.keyspace;
    let there = nodes_in_time(session, usize::from(replication.factor)).await;
    let factor = match replication.factor {
        0 => there.clamp(1, 3),
        wanted => usize::from(wanted),
    };
    if factor > there {
        let detail = format!(
            "{factor} copies need {factor} nodes, the cluster has {there}: set \
             store.replication_factor, or add nodes",
        );
        return Err(OpenError::Cluster { detail });
    }
    let class = match (replication.strategy, &options.datacenter) {
        (ReplicationStrategy::NetworkTopology, Some(datacenter)) => format!(
            "'class': 'NetworkTopologyStrategy', '{}': {factor}",
            datacenter.replace('\'', "''"),
        ),
        (ReplicationStrategy::NetworkTopology, None) => {
            format!("'class': 'NetworkTopologyStrategy', 'replication_factor': {factor}")
        }
        (ReplicationStrategy::Simple, _) => {
            format!("'class': 'SimpleStrategy', 'replication_factor': {factor}")
        }
    };
    let create = format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{{class}}}");
    change(session, create).await?;
    add_tables(session, keyspace).await?;
    for (component, version) in [(NEEDS, OLDEST_PROGRAM), (HAS, VERSION)] {
        let row = format!("(component, version) VALUES ('{component}', {version})");
        change(session, format!("INSERT INTO {keyspace}.schema_version {row}")).await?;
    }
    Ok(())
}

/// How many nodes there are, if need be a little later: the one that we ask hears of those that have
/// just joined after they serve.
async fn nodes_in_time(session: &Session, wanted: usize) -> usize {
    for _ in 0..JOIN_LOOKS {
        if nodes(session).len() >= wanted {
            break;
        }
        tokio::time::sleep(JOIN_PAUSE).await;
        // A failure shows in what is known afterwards.
        let _ = session.refresh_metadata().await;
    }
    nodes(session).len()
}

async fn add_tables(session: &Session, keyspace: &str) -> Result<(), OpenError> {
    for statement in statements() {
        change(session, statement.replace(PLACE, keyspace)).await?;
    }
    Ok(())
}

/// The statements of the file without its comments.
fn statements() -> impl Iterator<Item = String> {
    let lines = SCHEMA.lines().map(|line| line.split("--").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    let statements: Vec<String> = text
        .split(';')
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect();
    statements.into_iter()
}

async fn change(session: &Session, statement: String) -> Result<(), OpenError> {
    let mut statement = Statement::new(statement);
    // Every node has to hear of it, and writes its tables to the disk.
    statement.set_request_timeout(Some(Duration::from_secs(20)));
    let refused = |error: ExecutionError| OpenError::Cluster { detail: error.to_string() };
    session.query_unpaged(statement, ()).await.map(|_| ()).map_err(refused)
}

struct Version {
    has: i32,
    /// The oldest program that may use it.
    needs: i32,
}

/// The version of the keyspace; `None` if there is none.
async fn version(session: &Session, keyspace: &str) -> Result<Option<Version>, OpenError> {
    let away = |detail: String| OpenError::ClusterAway { detail };
    let mut statement =
        Statement::new(format!("SELECT component, version FROM {keyspace}.schema_version"));
    statement.set_consistency(Consistency::LocalQuorum);
    let result = match session.query_unpaged(statement, ()).await {
        Ok(result) => result,
        // The keyspace or the table is unknown.
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Invalid,
            _,
        ))) => return Ok(None),
        Err(error) => return Err(away(error.to_string())),
    };
    let rows = result.into_rows_result().map_err(|error| away(error.to_string()))?;
    let (mut has, mut needs) = (None, None);
    for row in rows.rows::<(String, i32)>().map_err(|error| away(error.to_string()))? {
        match row.map_err(|error| away(error.to_string()))? {
            (component, version) if component == HAS => has = Some(version),
            (component, version) if component == NEEDS => needs = Some(version),
            _ => {}
        }
    }
    Ok(has.map(|has| Version { has, needs: needs.unwrap_or(has) }))
}

async fn report(session: &Session, keyspace: &str) -> Result<KeyspaceReport, OpenError> {
    let text = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let away = |detail: String| OpenError::ClusterAway { detail };
    let result =
        session.query_unpaged(text, (keyspace,)).await.map_err(|error| away(error.to_string()))?;
    let rows = result.into_rows_result().map_err(|error| away(error.to_string()))?;
    let first = rows
        .maybe_first_row::<(std::collections::BTreeMap<String, String>,)>()
        .map_err(|error| away(error.to_string()))?;
    let replication = first.map_or_else(String::new, |(options,)| {
        let show = |(key, value): (String, String)| {
            let value = value.rsplit('.').next().unwrap_or_default().to_owned();
            format!("{key} {value}")
        };
        options.into_iter().map(show).collect::<Vec<_>>().join(", ")
    });
    let version = version(session, keyspace).await?;
    Ok(KeyspaceReport {
        keyspace: keyspace.to_owned(),
        version: version.map_or(0, |found| found.has),
        replication,
        nodes: nodes(session),
    })
}

/// Every node that the cluster knows, and whether we have a connection to it.
pub(super) fn nodes(session: &Session) -> Vec<ClusterNode> {
    let state = session.get_cluster_state();
    let mut nodes: Vec<ClusterNode> = state
        .get_nodes_info()
        .iter()
        .map(|node| ClusterNode {
            address: std::net::SocketAddr::new(node.address.ip(), node.address.port()),
            datacenter: node.datacenter.clone().unwrap_or_default(),
            is_up: node.is_connected(),
        })
        .collect();
    nodes.sort_by_key(|node| node.address);
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_whole_statements_that_may_be_repeated() {
        let statements: Vec<String> = statements().collect();
        assert_eq!(statements.len(), 4);
        for statement in statements {
            assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS KEYSPACE."), "{statement}");
            assert!(!statement.contains("--"));
        }
    }
}
