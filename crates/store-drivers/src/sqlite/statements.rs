//! Each query as SQL, and each row as a value. Every column is named.

use std::fmt::Display;

use rusqlite::types::{Type, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, params};
use store::limits::{EXPIRED_ROW_LIFETIME, PAGE_ROWS_MAX, ROWS_PER_AOR_MAX};
use store::{
    Answer, Aor, Binding, BindingId, BindingKey, Credential, CredentialKey, Query, Registration,
    StoreError, UnixMillis,
};

use super::codec::{join_path, split_path};

/// Expired rows that one batch removes at most, so that no batch holds the lock for long.
pub(super) const SWEPT_ROWS_MAX: usize = 200;

/// Why a query failed: one row is unreadable, or SQLite refused.
#[derive(Debug)]
pub(super) enum Fault {
    Row(StoreError),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Carries out one query inside the transaction that the lane has begun.
pub(super) fn carry_out(db: &Connection, query: &Query) -> Result<Answer, Fault> {
    match query {
        Query::Credential { realm, username } => credential(db, realm, username),
        Query::Bindings { aor } => bindings(db, aor),
        Query::Write { aor, upserts, now } => write(db, aor, upserts, *now),
        Query::CreateCredential { realm, username, credential } => {
            let sql = "INSERT INTO credentials (realm, username, md5, sha256, sha512_256) \
                       VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            let rows = put(db, sql, realm, username, credential)?;
            Ok(Answer::Created(rows == 1))
        }
        Query::PutCredential { realm, username, credential } => {
            let sql = "INSERT INTO credentials (realm, username, md5, sha256, sha512_256) \
                       VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET \
                       md5 = excluded.md5, sha256 = excluded.sha256, \
                       sha512_256 = excluded.sha512_256";
            put(db, sql, realm, username, credential)?;
            Ok(Answer::Done)
        }
        Query::DeleteCredential { realm, username } => {
            let sql = "DELETE FROM credentials WHERE realm = ?1 AND username = ?2";
            db.prepare_cached(sql)?.execute(params![realm, username])?;
            Ok(Answer::Done)
        }
        Query::ListCredentials { realm, after, limit } => {
            list_credentials(db, realm.as_deref(), after.as_ref(), *limit)
        }
        Query::ListBindings { after, limit } => list_bindings(db, after.as_ref(), *limit),
        Query::DeleteBinding { aor, id } => {
            let sql = "DELETE FROM location WHERE aor = ?1 AND id = ?2";
            db.prepare_cached(sql)?.execute(params![aor.as_bytes(), id.0])?;
            Ok(Answer::Done)
        }
    }
}

/// Removes rows that expired more than a day before `now`; returns how many.
pub(super) fn sweep(db: &Connection, now: UnixMillis) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM location WHERE (aor, id) IN (\
               SELECT aor, id FROM location WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    let until = integer(now.minus(EXPIRED_ROW_LIFETIME).0);
    db.prepare_cached(sql)?.execute(params![until, count(SWEPT_ROWS_MAX)])
}

fn credential(db: &Connection, realm: &str, username: &str) -> Result<Answer, Fault> {
    let sql = "SELECT md5, sha256, sha512_256 FROM credentials WHERE realm = ?1 AND username = ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![realm, username])?;
    let Some(row) = rows.next()? else { return Ok(Answer::Credential(None)) };
    let column = Columns { row, first: 0, name: &format_args!("credentials {username}@{realm}") };
    Ok(Answer::Credential(Some(Credential {
        md5: column.array(0)?,
        sha256: column.array(1)?,
        sha512_256: column.array(2)?,
    })))
}

fn put(
    db: &Connection,
    sql: &str,
    realm: &str,
    username: &str,
    credential: &Credential,
) -> Result<usize, Fault> {
    let Credential { md5, sha256, sha512_256 } = credential;
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.execute(params![realm, username, md5, sha256, sha512_256])?)
}

fn bindings(db: &Connection, aor: &Aor) -> Result<Answer, Fault> {
    let sql = "SELECT id, contact, path, received, q, call_id, cseq, expires_at, updated_at, \
               user_agent, instance, reg_id, direct FROM location WHERE aor = ?1";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![aor.as_bytes()])?;
    let mut bindings = Vec::new();
    while let Some(row) = rows.next()? {
        bindings.push(binding(&Columns { row, first: 0, name: &format_args!("location {aor}") })?);
    }
    bindings.sort_by(Binding::preference);
    Ok(Answer::Bindings(bindings))
}

fn write(
    db: &Connection,
    aor: &Aor,
    upserts: &[Binding],
    now: UnixMillis,
) -> Result<Answer, Fault> {
    let sql = "INSERT INTO location (aor, id, contact, path, received, q, call_id, cseq, \
               expires_at, updated_at, user_agent, instance, reg_id, direct) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
               ON CONFLICT DO UPDATE SET contact = excluded.contact, path = excluded.path, \
               received = excluded.received, q = excluded.q, call_id = excluded.call_id, \
               cseq = excluded.cseq, expires_at = excluded.expires_at, \
               updated_at = excluded.updated_at, user_agent = excluded.user_agent, \
               instance = excluded.instance, reg_id = excluded.reg_id, direct = excluded.direct \
               WHERE location.updated_at <= excluded.updated_at";
    let mut upsert = db.prepare_cached(sql)?;
    for binding in upserts {
        upsert.execute(params![
            aor.as_bytes(),
            binding.id.0,
            binding.contact,
            join_path(&binding.path),
            binding.received.map(|received| received.to_string()),
            binding.q.min(1000),
            binding.call_id,
            binding.cseq,
            integer(binding.expires_at.0),
            integer(binding.updated_at.0),
            binding.user_agent,
            binding.instance,
            binding.reg_id,
            binding.direct,
        ])?;
    }
    remove_excess(db, aor, now)?;
    Ok(Answer::Done)
}

/// Keeps a partition within its limit at the cost of the expired rows written longest ago.
fn remove_excess(db: &Connection, aor: &Aor, now: UnixMillis) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM location WHERE aor = ?1";
    let rows: i64 = db.prepare_cached(sql)?.query_row(params![aor.as_bytes()], |row| row.get(0))?;
    let excess = rows - count(ROWS_PER_AOR_MAX);
    if excess > 0 {
        let sql = "DELETE FROM location WHERE aor = ?1 AND id IN (SELECT id FROM location \
                   WHERE aor = ?1 AND expires_at <= ?2 ORDER BY updated_at, id LIMIT ?3)";
        let now = integer(now.0);
        db.prepare_cached(sql)?.execute(params![aor.as_bytes(), now, excess])?;
    }
    Ok(())
}

fn list_credentials(
    db: &Connection,
    realm: Option<&str>,
    after: Option<&CredentialKey>,
    limit: usize,
) -> Result<Answer, Fault> {
    let after = after.map(|after| (after.realm.as_str(), after.username.as_str()));
    let limit = count(limit.min(PAGE_ROWS_MAX));
    // Four statements rather than one with `?1 IS NULL OR …`, which would walk the whole table.
    let every = "SELECT realm, username FROM credentials";
    let order = "ORDER BY realm, username LIMIT";
    let prepare = |rest: &str| db.prepare_cached(&format!("{every} {rest}"));
    match (realm, after) {
        (None, None) => names(prepare(&format!("{order} ?1"))?, params![limit]),
        (None, Some((realm, username))) => names(
            prepare(&format!("WHERE (realm, username) > (?1, ?2) {order} ?3"))?,
            params![realm, username, limit],
        ),
        (Some(realm), None) => {
            names(prepare(&format!("WHERE realm = ?1 {order} ?2"))?, params![realm, limit])
        }
        (Some(realm), Some((from, username))) => names(
            prepare(&format!("WHERE realm = ?1 AND (realm, username) > (?2, ?3) {order} ?4"))?,
            params![realm, from, username, limit],
        ),
    }
}

fn names(
    mut statement: CachedStatement<'_>,
    params: &[&dyn rusqlite::ToSql],
) -> Result<Answer, Fault> {
    let mut rows = statement.query(params)?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let column = Columns { row, first: 0, name: &"credentials" };
        keys.push(CredentialKey { realm: column.text(0)?, username: column.text(1)? });
    }
    Ok(Answer::Credentials(keys))
}

fn list_bindings(
    db: &Connection,
    after: Option<&BindingKey>,
    limit: usize,
) -> Result<Answer, Fault> {
    let sql = "SELECT aor, id, contact, path, received, q, call_id, cseq, expires_at, updated_at, \
               user_agent, instance, reg_id, direct FROM location \
               WHERE (aor, id) > (?1, ?2) ORDER BY aor, id LIMIT ?3";
    let limit = count(limit.min(PAGE_ROWS_MAX));
    // No address is shorter than its `@`, so nothing stands before the empty one.
    let (aor, id) =
        after.map_or((&[][..], &[][..]), |after| (after.aor.as_bytes(), &after.id.0[..]));
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![aor, id, limit])?;
    let mut registrations = Vec::new();
    while let Some(row) = rows.next()? {
        let column = Columns { row, first: 0, name: &"location" };
        let aor = Aor::from_bytes(column.bytes(0)?).ok_or_else(|| column.fault("aor"))?;
        let name = format_args!("location {aor}").to_string();
        let binding = binding(&Columns { row, first: 1, name: &name })?;
        registrations.push(Registration { aor, binding });
    }
    Ok(Answer::Registrations(registrations))
}

fn binding(column: &Columns<'_, '_>) -> Result<Binding, Fault> {
    let received = match column.optional(3)? {
        None => None,
        Some(value) => {
            let address = value.as_str().ok().and_then(|text| text.parse().ok());
            Some(address.ok_or_else(|| column.fault("received"))?)
        }
    };
    let instance = match column.optional(10)? {
        None => None,
        Some(value) => Some(value.as_blob().map_err(|_| column.fault("instance"))?.to_vec()),
    };
    let reg_id = match column.optional(11)? {
        None => None,
        Some(_) => Some(column.number(11)?),
    };
    Ok(Binding {
        id: BindingId(column.array(0)?),
        contact: column.bytes(1)?.to_vec(),
        path: split_path(column.bytes(2)?).ok_or_else(|| column.fault("path"))?,
        received,
        q: column.number(4)?,
        call_id: column.bytes(5)?.to_vec(),
        cseq: column.number(6)?,
        expires_at: UnixMillis(column.number(7)?),
        updated_at: UnixMillis(column.number(8)?),
        user_agent: column.bytes(9)?.to_vec(),
        instance,
        reg_id,
        direct: column.number::<u8>(12)? != 0,
    })
}

/// The columns of one row from `first` on, and how the row is called when one is unreadable.
struct Columns<'row, 'name> {
    row: &'row Row<'row>,
    first: usize,
    name: &'name dyn Display,
}

impl Columns<'_, '_> {
    fn value(&self, place: usize) -> Result<ValueRef<'_>, Fault> {
        Ok(self.row.get_ref(self.first + place)?)
    }

    fn optional(&self, place: usize) -> Result<Option<ValueRef<'_>>, Fault> {
        self.value(place).map(|value| (value.data_type() != Type::Null).then_some(value))
    }

    fn bytes(&self, place: usize) -> Result<&[u8], Fault> {
        self.value(place)?.as_blob().map_err(|error| self.fault(error))
    }

    fn text(&self, place: usize) -> Result<String, Fault> {
        let value = self.value(place)?;
        value.as_str().map(str::to_owned).map_err(|error| self.fault(error))
    }

    fn array<const N: usize>(&self, place: usize) -> Result<[u8; N], Fault> {
        self.bytes(place)?.try_into().map_err(|error| self.fault(error))
    }

    fn number<N: TryFrom<i64>>(&self, place: usize) -> Result<N, Fault> {
        let value = self.value(place)?.as_i64().map_err(|error| self.fault(error))?;
        N::try_from(value).map_err(|_| self.fault(format_args!("{value} is out of range")))
    }

    fn fault(&self, what: impl Display) -> Fault {
        Fault::Row(StoreError::Corrupt { row: format!("{}: {what}", self.name) })
    }
}

/// SQLite's integers are signed; what is beyond them is never.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
