//! Connections to the cluster: who is asked, how it is encrypted, which node answers next.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::{Consistency, SerialConsistency};

use super::options::{CassandraOptions, CassandraTls, ReadConsistency};
use crate::error::OpenError;

/// One connection attempt to one node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// All of them together; a node that accepts and stays silent must not hold us.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is asked this often, and is dead if it does not answer in time.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes that joined are found this often, should the cluster's own news not arrive.
const METADATA_INTERVAL: Duration = Duration::from_secs(30);

/// A session with the cluster.
///
/// # Errors
///
/// [`OpenError::Cluster`] for what only an operator can mend, [`OpenError::ClusterAway`] if no node
/// answers.
pub(super) async fn connect(options: &CassandraOptions) -> Result<Session, OpenError> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &options.datacenter {
        policy = policy.prefer_datacenter(datacenter.clone());
    }
    let second_try = SimpleSpeculativeExecutionPolicy {
        max_retry_count: 1,
        retry_interval: options.query_timeout,
    };
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(options.deadline))
        .load_balancing_policy(policy.build())
        .speculative_execution_policy(Some(Arc::new(second_try)))
        .build();
    let one = std::num::NonZeroUsize::MIN;
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.contact_points)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(CONNECT_TIMEOUT)
        .keepalive_interval(KEEPALIVE_INTERVAL)
        .keepalive_timeout(KEEPALIVE_TIMEOUT)
        .cluster_metadata_refresh_interval(METADATA_INTERVAL)
        .keyspaces_to_fetch([options.keyspace.as_str()])
        .pool_size(PoolSize::PerHost(one));
    if let Some(login) = &options.login {
        builder = builder.user(&login.user, &login.password);
    }
    if let Some(tls) = &options.tls {
        builder = builder.tls_context(Some(tls_configuration(tls)?));
    }
    match tokio::time::timeout(SESSION_TIMEOUT, builder.build()).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(OpenError::ClusterAway { detail: error.to_string() }),
        Err(_) => {
            let nodes = options.contact_points.join(", ");
            let detail = format!("no answer of {nodes} within {SESSION_TIMEOUT:?}");
            Err(OpenError::ClusterAway { detail })
        }
    }
}

/// The consistency of reads, as the protocol names it.
pub(super) fn consistency(reads: ReadConsistency) -> Consistency {
    match reads {
        ReadConsistency::LocalQuorum => Consistency::LocalQuorum,
        ReadConsistency::LocalOne => Consistency::LocalOne,
    }
}

fn tls_configuration(tls: &CassandraTls) -> Result<Arc<rustls::ClientConfig>, OpenError> {
    let wrong = |path: &Path, detail: &dyn std::fmt::Display| OpenError::Cluster {
        detail: format!("{}: {detail}", path.display()),
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, OpenError> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(path, &error))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).map_err(|error| wrong(&tls.ca_file, &error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&tls.ca_file, &"holds no certificate"));
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let configuration = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| wrong(key, &error))?
        }
    };
    Ok(Arc::new(configuration))
}
