//! Many users or registrations at once: as fast as the store takes them.

use store::{Answer, CredentialKey, Query, Store, UnixMillis};

use super::{Admin, AdminError, NewRegistration, credential};
use crate::copy::IN_FLIGHT;

impl<S: Store> Admin<S> {
    /// Adds users, or replaces their passwords: it may be repeated. `progress` hears how many are
    /// done.
    ///
    /// # Errors
    ///
    /// [`AdminError::EmptyPassword`] before anything is written, and the store's; what was written
    /// until then stays.
    pub fn put_users(
        &mut self,
        users: &[(CredentialKey, String)],
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), AdminError> {
        if users.iter().any(|(_, password)| password.is_empty()) {
            return Err(AdminError::EmptyPassword);
        }
        let mut done = 0;
        for page in users.chunks(IN_FLIGHT) {
            let mut queries = Vec::with_capacity(page.len());
            for (user, password) in page {
                let credential = credential(user, password.as_bytes())?;
                let CredentialKey { realm, username } = user.clone();
                queries.push(Query::PutCredential { realm, username, credential });
            }
            self.all_done(queries)?;
            done += page.len();
            progress(done);
        }
        Ok(())
    }

    /// Adds registrations, or replaces those with the same ids: it may be repeated. `progress`
    /// hears how many are done.
    ///
    /// # Errors
    ///
    /// The store's; what was written until then stays.
    pub fn put_registrations(
        &mut self,
        registrations: &[NewRegistration],
        now: UnixMillis,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), AdminError> {
        let mut done = 0;
        for page in registrations.chunks(IN_FLIGHT) {
            let ask = |new: &NewRegistration| Query::Bindings { aor: new.aor.clone() };
            let answers = self.store.ask_all(page.iter().map(ask).collect())?;
            let mut queries = Vec::with_capacity(page.len());
            for (new, answer) in page.iter().zip(answers) {
                let Answer::Bindings(rows) = answer else { return Err(AdminError::Confused) };
                let upserts = vec![new.binding(&rows, now)];
                queries.push(Query::Write { aor: new.aor.clone(), upserts, now });
            }
            self.all_done(queries)?;
            done += page.len();
            progress(done);
        }
        Ok(())
    }

    fn all_done(&mut self, queries: Vec<Query>) -> Result<(), AdminError> {
        let answers = self.store.ask_all(queries)?;
        let is_done = answers.iter().all(|answer| *answer == Answer::Done);
        if is_done { Ok(()) } else { Err(AdminError::Confused) }
    }
}
