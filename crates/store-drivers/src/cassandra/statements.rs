//! Each query as prepared CQL, and each row as a value. Every column is named.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{ExecutionError, PrepareError};
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};
use store::limits::{PAGE_ROWS_MAX, ROWS_PER_AOR_MAX};
use store::{
    Answer, Aor, Binding, BindingId, BindingKey, Credential, CredentialKey, Query, Registration,
    StoreError, UnixMillis,
};

use super::codec::{ReadRow, WrittenRow, removal_stamp};
use super::options::{CassandraOptions, ReadConsistency};
use super::{cluster, schema};

/// Listings walk a part of the table, and a new user takes four rounds between the replicas.
pub(super) const SLOW_DEADLINE: Duration = Duration::from_secs(10);

/// Addresses remembered for having too many rows. One that does not fit waits for its next read.
const CROWDED_MAX: usize = 1024;

/// Why a query failed: one row is unreadable, or the cluster did not answer.
#[derive(Debug)]
pub(super) enum Fault {
    Row(StoreError),
    Cluster(String),
}

impl From<ExecutionError> for Fault {
    fn from(error: ExecutionError) -> Self {
        Self::Cluster(error.to_string())
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Row(error) => error,
            Fault::Cluster(detail) => Self::Unavailable { detail },
        }
    }
}

/// A session and everything that is prepared on it.
pub(super) struct Statements {
    pub(super) session: Session,
    probe: PreparedStatement,
    credential: PreparedStatement,
    create_credential: PreparedStatement,
    put_credential: PreparedStatement,
    delete_credential: PreparedStatement,
    list_credentials: PreparedStatement,
    list_credentials_after: PreparedStatement,
    bindings: PreparedStatement,
    upsert: PreparedStatement,
    binding_stamp: PreparedStatement,
    delete_binding: PreparedStatement,
    list_bindings: PreparedStatement,
    list_bindings_after: PreparedStatement,
    list_bindings_within: PreparedStatement,
    /// Addresses that were read with too many rows: the next write removes the excess.
    crowded: Mutex<BTreeSet<Aor>>,
}

const BINDING_COLUMNS: &str = "aor, id, contact, path, received, q, call_id, cseq, expires_at, \
     updated_at, user_agent, has_instance, instance, reg_id, direct";

const CREDENTIAL_VALUES: &str = "credentials (realm, username, md5, sha256, sha512_256) \
     VALUES (?, ?, ?, ?, ?)";

/// Prepares statements with what belongs to all of them.
struct Preparer<'a> {
    session: &'a Session,
    keyspace: &'a str,
    reads: ReadConsistency,
}

impl Preparer<'_> {
    /// `verb` stands before the table's name, `rest` begins with it.
    async fn prepare(&self, verb: &str, rest: &str) -> Result<PreparedStatement, PrepareError> {
        let text = format!("{verb} {}.{rest}", self.keyspace);
        let mut statement = self.session.prepare(text).await?;
        // Every write carries its own timestamp or is an operator's; but see `create`.
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    async fn read(&self, columns: &str, rest: &str) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.prepare(&format!("SELECT {columns} FROM"), rest).await?;
        statement.set_consistency(cluster::consistency(self.reads));
        Ok(statement)
    }

    async fn listing(&self, columns: &str, rest: &str) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.read(columns, rest).await?;
        statement.set_request_timeout(Some(SLOW_DEADLINE));
        Ok(statement)
    }

    async fn create(&self) -> Result<PreparedStatement, PrepareError> {
        let rest = format!("{CREDENTIAL_VALUES} IF NOT EXISTS");
        let mut statement = self.prepare("INSERT INTO", &rest).await?;
        // A second try would find the user that the first one has made.
        statement.set_is_idempotent(false);
        statement.set_request_timeout(Some(SLOW_DEADLINE));
        Ok(statement)
    }
}

impl Statements {
    pub(super) async fn prepare(
        session: Session,
        options: &CassandraOptions,
    ) -> Result<Self, PrepareError> {
        let of = Preparer {
            session: &session,
            keyspace: &options.keyspace,
            reads: options.read_consistency,
        };
        let upsert = format!(
            "location ({BINDING_COLUMNS}) VALUES (:aor, :id, :contact, :path, :received, :q, \
             :call_id, :cseq, :expires_at, :updated_at, :user_agent, :has_instance, :instance, \
             :reg_id, :direct) USING TIMESTAMP :stamp AND TTL :ttl",
        );
        let after_name = "credentials WHERE token(realm, username) > token(?, ?) LIMIT ?";
        let within = "location WHERE aor = ? AND id > ? LIMIT ?";
        let by_name = "credentials WHERE realm = ? AND username = ?";
        Ok(Self {
            probe: of.read("version", "schema_version WHERE component = 'store'").await?,
            credential: of.read("md5, sha256, sha512_256", by_name).await?,
            create_credential: of.create().await?,
            put_credential: of.prepare("INSERT INTO", CREDENTIAL_VALUES).await?,
            delete_credential: of.prepare("DELETE FROM", by_name).await?,
            list_credentials: of.listing("realm, username", "credentials LIMIT ?").await?,
            list_credentials_after: of.listing("realm, username", after_name).await?,
            bindings: of.read(BINDING_COLUMNS, "location WHERE aor = ?").await?,
            upsert: of.prepare("INSERT INTO", &upsert).await?,
            binding_stamp: of.read("updated_at", "location WHERE aor = ? AND id = ?").await?,
            delete_binding: of
                .prepare("DELETE FROM", "location USING TIMESTAMP ? WHERE aor = ? AND id = ?")
                .await?,
            list_bindings: of.listing(BINDING_COLUMNS, "location LIMIT ?").await?,
            list_bindings_after: of
                .listing(BINDING_COLUMNS, "location WHERE token(aor) > token(?) LIMIT ?")
                .await?,
            list_bindings_within: of.listing(BINDING_COLUMNS, within).await?,
            crowded: Mutex::default(),
            session,
        })
    }

    /// Asks for one row, as a query of the call path does.
    pub(super) async fn probe(&self) -> Result<(), Fault> {
        let rows = self.rows(&self.probe, ()).await?;
        match rows.maybe_first_row::<(i32,)>() {
            Ok(Some((schema::VERSION..,))) => Ok(()),
            Ok(_) => Err(Fault::Cluster("the keyspace has no schema of this program".to_owned())),
            Err(error) => Err(Fault::Cluster(error.to_string())),
        }
    }

    pub(super) async fn carry_out(&self, query: &Query) -> Result<Answer, Fault> {
        match query {
            Query::Credential { realm, username } => self.credential(realm, username).await,
            Query::Bindings { aor } => self.bindings(aor).await,
            Query::Write { aor, upserts, now } => self.write(aor, upserts, *now).await,
            Query::CreateCredential { realm, username, credential } => {
                self.create(realm, username, credential).await
            }
            Query::PutCredential { realm, username, credential } => {
                self.done(&self.put_credential, columns(realm, username, credential)).await
            }
            Query::DeleteCredential { realm, username } => {
                self.done(&self.delete_credential, (realm, username)).await
            }
            Query::ListCredentials { realm, after, limit } => {
                self.list_credentials(realm.as_deref(), after.as_ref(), *limit).await
            }
            Query::ListBindings { after, limit } => {
                self.list_bindings(after.as_ref(), *limit).await
            }
            Query::DeleteBinding { aor, id } => self.delete_binding(aor, *id).await,
        }
    }

    async fn credential(&self, realm: &str, username: &str) -> Result<Answer, Fault> {
        let rows = self.rows(&self.credential, (realm, username)).await?;
        let unreadable = |column: &str| {
            Fault::Row(StoreError::Corrupt {
                row: format!("credentials {username}@{realm}: {column}"),
            })
        };
        let row = rows.maybe_first_row::<(Vec<u8>, Vec<u8>, Vec<u8>)>();
        let Some((md5, sha256, sha512_256)) = row.map_err(|_| unreadable("null"))? else {
            return Ok(Answer::Credential(None));
        };
        Ok(Answer::Credential(Some(Credential {
            md5: md5.try_into().map_err(|_| unreadable("md5"))?,
            sha256: sha256.try_into().map_err(|_| unreadable("sha256"))?,
            sha512_256: sha512_256.try_into().map_err(|_| unreadable("sha512_256"))?,
        })))
    }

    async fn create(
        &self,
        realm: &str,
        username: &str,
        credential: &Credential,
    ) -> Result<Answer, Fault> {
        let values = columns(realm, username, credential);
        let rows = self.rows(&self.create_credential, values).await?;
        // The row that was there comes with a refusal, so that the number of columns varies.
        let first = rows.maybe_first_row::<Row>().ok().flatten();
        let applied = first.and_then(|row| row.columns.into_iter().next().flatten());
        match applied {
            Some(CqlValue::Boolean(is_new)) => Ok(Answer::Created(is_new)),
            _ => Err(Fault::Cluster("the answer does not say whether the user is new".to_owned())),
        }
    }

    async fn bindings(&self, aor: &Aor) -> Result<Answer, Fault> {
        let rows = self.rows(&self.bindings, (aor.as_bytes(),)).await?;
        let mut bindings = Vec::with_capacity(rows.rows_num());
        let rows = rows.rows::<ReadRow>().map_err(|error| unreadable(aor, &error.to_string()))?;
        for row in rows {
            bindings.push(binding(aor, row.map_err(|_| "null"))?);
        }
        bindings.sort_by(Binding::preference);
        if bindings.len() > ROWS_PER_AOR_MAX {
            let mut crowded = self.crowded.lock().unwrap_or_else(PoisonError::into_inner);
            if crowded.len() < CROWDED_MAX {
                crowded.insert(aor.clone());
            }
        }
        Ok(Answer::Bindings(bindings))
    }

    /// One REGISTER: one partition, so that the batch is one mutation, applied whole or not at all.
    async fn write(
        &self,
        aor: &Aor,
        upserts: &[Binding],
        now: UnixMillis,
    ) -> Result<Answer, Fault> {
        let row = |binding| WrittenRow::new(aor.as_bytes(), binding, now);
        match upserts {
            [] => {}
            [one] => {
                self.done(&self.upsert, row(one)).await?;
            }
            several => {
                let rows: Vec<WrittenRow<'_>> = several.iter().map(row).collect();
                self.batch(&self.upsert, &rows).await?;
            }
        }
        let is_crowded = self.crowded.lock().unwrap_or_else(PoisonError::into_inner).remove(aor);
        if is_crowded {
            self.remove_excess(aor, now).await?;
        }
        Ok(Answer::Done)
    }

    /// Keeps a partition within its limit at the cost of the expired rows written longest ago.
    async fn remove_excess(&self, aor: &Aor, now: UnixMillis) -> Result<(), Fault> {
        let Answer::Bindings(mut rows) = self.bindings(aor).await? else { return Ok(()) };
        let excess = rows.len().saturating_sub(ROWS_PER_AOR_MAX);
        rows.retain(|row| !row.is_live(now));
        rows.sort_by_key(|row| (row.updated_at, row.id));
        rows.truncate(excess);
        let removed: Vec<_> =
            rows.iter().map(|row| removal(aor, &row.id, row.updated_at.0)).collect();
        if !removed.is_empty() {
            self.batch(&self.delete_binding, &removed).await?;
        }
        self.crowded.lock().unwrap_or_else(PoisonError::into_inner).remove(aor);
        Ok(())
    }

    async fn delete_binding(&self, aor: &Aor, id: BindingId) -> Result<Answer, Fault> {
        let rows = self.rows(&self.binding_stamp, (aor.as_bytes(), &id.0[..])).await?;
        let stamp = rows.maybe_first_row::<(i64,)>();
        let Some((updated_at,)) = stamp.map_err(|error| unreadable(aor, &error.to_string()))?
        else {
            return Ok(Answer::Done);
        };
        let updated_at = u64::try_from(updated_at).unwrap_or_default();
        self.done(&self.delete_binding, removal(aor, &id, updated_at)).await
    }

    async fn list_credentials(
        &self,
        realm: Option<&str>,
        after: Option<&CredentialKey>,
        limit: usize,
    ) -> Result<Answer, Fault> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let (mut keys, mut last) = (Vec::new(), after.cloned());
        // A realm is spread over all partitions: pages are read until enough of them belong to it.
        while keys.len() < limit {
            let rows = match &last {
                None => self.rows(&self.list_credentials, (count(PAGE_ROWS_MAX),)).await?,
                Some(CredentialKey { realm, username }) => {
                    let after = (realm, username, count(PAGE_ROWS_MAX));
                    self.rows(&self.list_credentials_after, after).await?
                }
            };
            let is_last = rows.rows_num() < PAGE_ROWS_MAX;
            let page = rows.rows::<(String, String)>().map_err(unreadable_listing)?;
            for row in page {
                let (row_realm, username) = row.map_err(unreadable_listing)?;
                let key = CredentialKey { realm: row_realm, username };
                last = Some(key.clone());
                if keys.len() < limit && realm.is_none_or(|realm| realm == key.realm) {
                    keys.push(key);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(Answer::Credentials(keys))
    }

    async fn list_bindings(
        &self,
        after: Option<&BindingKey>,
        limit: usize,
    ) -> Result<Answer, Fault> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let mut found = match after {
            None => registrations(self.rows(&self.list_bindings, (count(limit),)).await?)?,
            Some(BindingKey { aor, id }) => {
                let within = (aor.as_bytes(), &id.0[..], count(limit));
                registrations(self.rows(&self.list_bindings_within, within).await?)?
            }
        };
        let left = limit.saturating_sub(found.len());
        if let Some(BindingKey { aor, .. }) = after.filter(|_| left > 0) {
            let beyond = (aor.as_bytes(), count(left));
            let rows = self.rows(&self.list_bindings_after, beyond).await?;
            found.extend(registrations(rows)?);
        }
        Ok(Answer::Registrations(found))
    }

    async fn rows(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, Fault> {
        let result = self.session.execute_unpaged(statement, values).await?;
        result.into_rows_result().map_err(|error| Fault::Cluster(error.to_string()))
    }

    async fn done(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Answer, Fault> {
        self.session.execute_unpaged(statement, values).await?;
        Ok(Answer::Done)
    }

    /// The same statement with several values, all of one partition.
    async fn batch<T: SerializeRow>(
        &self,
        statement: &PreparedStatement,
        values: &[T],
    ) -> Result<(), Fault> {
        let statements =
            values.iter().map(|_| BatchStatement::PreparedStatement(statement.clone())).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        self.session.batch(&batch, values).await?;
        Ok(())
    }
}

fn columns<'a>(
    realm: &'a str,
    username: &'a str,
    credential: &'a Credential,
) -> (&'a str, &'a str, &'a [u8], &'a [u8], &'a [u8]) {
    let Credential { md5, sha256, sha512_256 } = credential;
    (realm, username, md5, sha256, sha512_256)
}

fn removal<'a>(aor: &'a Aor, id: &'a BindingId, updated_at: u64) -> (i64, &'a [u8], &'a [u8]) {
    let stamp = removal_stamp(i64::try_from(updated_at).unwrap_or(i64::MAX));
    (stamp, aor.as_bytes(), &id.0)
}

fn binding(aor: &Aor, row: Result<ReadRow, &'static str>) -> Result<Binding, Fault> {
    row.and_then(ReadRow::into_binding).map_err(|column| unreadable(aor, column))
}

fn unreadable(aor: &Aor, column: &str) -> Fault {
    Fault::Row(StoreError::Corrupt { row: format!("location {aor}: {column}") })
}

fn unreadable_listing(error: impl std::fmt::Display) -> Fault {
    Fault::Row(StoreError::Corrupt { row: error.to_string() })
}

fn registrations(rows: QueryRowsResult) -> Result<Vec<Registration>, Fault> {
    let mut found = Vec::with_capacity(rows.rows_num());
    for row in rows.rows::<ReadRow>().map_err(unreadable_listing)? {
        let row = row.map_err(unreadable_listing)?;
        let Some(aor) = Aor::from_bytes(&row.aor) else {
            return Err(unreadable_listing("location: an address without a domain"));
        };
        let binding = binding(&aor, Ok(row))?;
        found.push(Registration { aor, binding });
    }
    Ok(found)
}

fn count(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}
