//! Users and bindings from one store into another, while both are in use if need be.
//!
//! It may be repeated: users are written again, and a binding that is newer in the target stays.

use std::collections::BTreeSet;

use store::limits::{EXPIRED_ROW_LIFETIME, PAGE_ROWS_MAX};
use store::{
    Answer, Binding, BindingKey, Blocking, CredentialKey, Query, Registration, Store, UnixMillis,
};

use crate::admin::AdminError;

/// Queries that are on their way at the same time.
pub(crate) const IN_FLIGHT: usize = 256;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    pub what: &'static str,
    pub done: usize,
    pub total: usize,
}

/// What was copied, and how much of it was then found in the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    pub users: usize,
    pub users_found: usize,
    pub bindings: usize,
    pub bindings_found: usize,
}

impl CopyReport {
    /// Whether all that was copied is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.users == self.users_found && self.bindings == self.bindings_found
    }
}

/// Copies everything. `now` decides which bindings expired so long ago that nobody needs them.
///
/// # Errors
///
/// Those of either store; what was copied until then stays.
pub fn copy<S: Store, T: Store>(
    from: &mut Blocking<S>,
    to: &mut Blocking<T>,
    now: UnixMillis,
    progress: &mut dyn FnMut(CopyProgress),
) -> Result<CopyReport, AdminError> {
    let users = users(from)?;
    let (keys, total) = (users.iter().collect::<Vec<_>>(), users.len());
    let mut done = 0;
    for page in keys.chunks(IN_FLIGHT) {
        copy_users(from, to, page)?;
        done += page.len();
        progress(CopyProgress { what: "users", done, total });
    }
    let bindings = bindings(from)?;
    let is_needed = |row: &&Registration| now.minus(EXPIRED_ROW_LIFETIME) < row.binding.expires_at;
    let bindings: Vec<&Registration> = bindings.iter().filter(is_needed).collect();
    let total = bindings.len();
    let mut done = 0;
    for page in bindings.chunks(IN_FLIGHT) {
        write_bindings(to, page, now)?;
        done += page.len();
        progress(CopyProgress { what: "bindings", done, total });
    }
    let there = self::users(to)?;
    let keys_there: BTreeSet<BindingKey> =
        self::bindings(to)?.iter().map(Registration::key).collect();
    Ok(CopyReport {
        users: users.len(),
        users_found: users.intersection(&there).count(),
        bindings: bindings.len(),
        bindings_found: bindings.iter().filter(|row| keys_there.contains(&row.key())).count(),
    })
}

fn copy_users<S: Store, T: Store>(
    from: &mut Blocking<S>,
    to: &mut Blocking<T>,
    keys: &[&CredentialKey],
) -> Result<(), AdminError> {
    let ask = |key: &&CredentialKey| Query::Credential {
        realm: key.realm.clone(),
        username: key.username.clone(),
    };
    let answers = from.ask_all(keys.iter().map(ask).collect())?;
    let mut puts = Vec::new();
    for (key, answer) in keys.iter().zip(answers) {
        let CredentialKey { realm, username } = (*key).clone();
        match answer {
            Answer::Credential(Some(credential)) => {
                puts.push(Query::PutCredential { realm, username, credential });
            }
            // Removed meanwhile.
            Answer::Credential(None) => {}
            _ => return Err(AdminError::Confused),
        }
    }
    to.ask_all(puts)?;
    Ok(())
}

fn write_bindings<T: Store>(
    to: &mut Blocking<T>,
    rows: &[&Registration],
    now: UnixMillis,
) -> Result<(), AdminError> {
    let mut writes: Vec<Query> = Vec::new();
    for of_one in rows.chunk_by(|one, other| one.aor == other.aor) {
        let Some(first) = of_one.first() else { continue };
        let upserts: Vec<Binding> = of_one.iter().map(|row| row.binding.clone()).collect();
        writes.push(Query::Write { aor: first.aor.clone(), upserts, now });
    }
    to.ask_all(writes)?;
    Ok(())
}

fn users<S: Store>(store: &mut Blocking<S>) -> Result<BTreeSet<CredentialKey>, AdminError> {
    let (mut users, mut after) = (BTreeSet::new(), None);
    loop {
        let query = Query::ListCredentials { realm: None, after, limit: PAGE_ROWS_MAX };
        let Answer::Credentials(page) = store.ask(query)? else {
            return Err(AdminError::Confused);
        };
        let is_last = page.len() < PAGE_ROWS_MAX;
        after = page.last().cloned();
        users.extend(page);
        if is_last {
            return Ok(users);
        }
    }
}

fn bindings<S: Store>(store: &mut Blocking<S>) -> Result<Vec<Registration>, AdminError> {
    let mut rows: Vec<Registration> = Vec::new();
    loop {
        let after = rows.last().map(Registration::key);
        let query = Query::ListBindings { after, limit: PAGE_ROWS_MAX };
        let Answer::Registrations(page) = store.ask(query)? else {
            return Err(AdminError::Confused);
        };
        let is_last = page.len() < PAGE_ROWS_MAX;
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use store::{Aor, BindingId, Credential, MemoryStore};

    use super::*;

    fn store() -> Blocking<MemoryStore> {
        let open = |wake| Ok::<_, Infallible>(MemoryStore::new(wake));
        Blocking::open(Duration::from_secs(1), open).unwrap_or_else(|never| match never {})
    }

    fn binding(id: u8, expires_at: UnixMillis, updated_at: u64) -> Binding {
        Binding {
            id: BindingId([id; 16]),
            contact: b"sip:device@192.0.2.1".to_vec(),
            path: Vec::new(),
            received: None,
            q: 0,
            call_id: Vec::new(),
            cseq: 1,
            expires_at,
            updated_at: UnixMillis(updated_at),
            user_agent: Vec::new(),
            instance: None,
            reg_id: None,
            direct: false,
        }
    }

    fn write_rows(
        store: &mut Blocking<MemoryStore>,
        aor: &Aor,
        rows: Vec<Binding>,
        now: UnixMillis,
    ) {
        let query = Query::Write { aor: aor.clone(), upserts: rows, now };
        assert_eq!(store.ask(query), Ok(Answer::Done));
    }

    #[test]
    fn everything_that_is_needed_arrives_and_what_is_newer_stays() {
        let now = UnixMillis(1_800_000_000_000);
        let day = Duration::from_secs(24 * 3600);
        let (mut from, mut to) = (store(), store());
        for number in 0..700 {
            let (realm, username) = ("example.com".to_owned(), format!("user-{number}"));
            let credential = Credential::new(&username, &realm, "secret");
            let put = Query::PutCredential { realm, username, credential };
            assert_eq!(from.ask(put), Ok(Answer::Done));
            let aor = Aor::new(format!("user-{number}").as_bytes(), b"example.com");
            let rows = vec![
                binding(1, UnixMillis::NEVER, 5),
                binding(2, now.minus(day / 2), 5),
                binding(3, now.minus(day * 2), 5),
            ];
            write_rows(&mut from, &aor, rows, now.minus(day));
        }
        let aor = Aor::new(b"user-1", b"example.com");
        write_rows(&mut to, &aor, vec![binding(1, now, 9)], now);

        let mut steps = Vec::new();
        let report = copy(&mut from, &mut to, now, &mut |step| steps.push(step)).expect("copied");
        let all = CopyReport { users: 700, users_found: 700, bindings: 1400, bindings_found: 1400 };
        assert_eq!(report, all, "the third binding of each is forgotten");
        assert!(report.is_complete());
        assert_eq!(steps.last().map(|step| (step.done, step.total)), Some((1400, 1400)));
        let Ok(Answer::Bindings(rows)) = to.ask(Query::Bindings { aor }) else { panic!("rows") };
        let newer = rows.iter().find(|row| row.id == BindingId([1; 16])).expect("there");
        assert_eq!(newer.updated_at, UnixMillis(9));
        let again = copy(&mut from, &mut to, now, &mut |_| ()).expect("copied");
        assert_eq!(again, all, "a second time as well");
    }
}
