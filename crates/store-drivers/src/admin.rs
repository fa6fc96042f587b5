//! Users and registrations for the command line: asks and waits, says what went wrong in words.

mod bulk;

use std::time::Duration;

use store::limits::PAGE_ROWS_MAX;
use store::{
    Answer, Aor, Binding, BindingId, Blocking, Credential, CredentialKey, Query, Registration,
    Store, StoreError, UnixMillis,
};

use crate::{Driver, OpenError, StoreLocation, open};

/// Longer than the driver itself waits for a lock.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the operator's command was not carried out. `Display` reads after "failed to …: ".
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("`{text}` is no USER@DOMAIN")]
    Name { text: String },

    #[error("the password is empty")]
    EmptyPassword,

    #[error("{user} exists already; `sipcloud user passwd` changes the password")]
    UserExists { user: CredentialKey },

    #[error("there is no user {user}")]
    NoSuchUser { user: CredentialKey },

    #[error("{aor} has no such registration")]
    NoSuchRegistration { aor: Aor },

    #[error(transparent)]
    Store(#[from] StoreError),

    #[error("the store gave an answer that belongs to another question")]
    Confused,
}

/// A registration that an operator provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRegistration {
    pub aor: Aor,
    /// As the registrar would compute it, so that the device's own REGISTER takes the row over.
    pub id: BindingId,
    /// The contact's URI.
    pub contact: Vec<u8>,
    /// Preference in thousandths, 0 to 1000.
    pub q: u16,
    /// Reached from the proxy itself, not through a balancer.
    pub direct: bool,
    pub lifetime: Lifetime,
}

impl NewRegistration {
    /// The row to write, later than the one that it replaces.
    fn binding(&self, rows: &[Binding], now: UnixMillis) -> Binding {
        let last = rows.iter().find(|row| row.id == self.id).map(|row| row.updated_at);
        Binding {
            id: self.id,
            contact: self.contact.clone(),
            path: Vec::new(),
            received: None,
            q: self.q.min(1000),
            call_id: Vec::new(),
            cseq: 0,
            expires_at: match self.lifetime {
                Lifetime::Permanent => UnixMillis::NEVER,
                Lifetime::For(lifetime) => now.plus(lifetime),
            },
            updated_at: UnixMillis::of_write(now, last),
            user_agent: b"sipcloud registration add".to_vec(),
            instance: None,
            reg_id: None,
            direct: self.direct,
        }
    }
}

/// How long an operator's registration holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Permanent,
    For(Duration),
}

/// Which registrations of an address an operator removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// The one with this contact URI, byte for byte.
    Contact(Vec<u8>),
    Id(BindingId),
}

/// A store and an operator who waits for it.
pub struct Admin<S: Store = Driver> {
    store: Blocking<S>,
}

impl Admin {
    /// Opens the store that the proxies use; they may be running.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(location: &StoreLocation) -> Result<Self, OpenError> {
        Ok(Self { store: Blocking::open(PATIENCE, |wake| open(location, wake))? })
    }
}

impl<S: Store> Admin<S> {
    /// Works on a store that is open already.
    pub fn on(store: Blocking<S>) -> Self {
        Self { store }
    }

    /// Adds a user. Of the password only the HA1s are kept.
    ///
    /// # Errors
    ///
    /// [`AdminError::UserExists`], [`AdminError::EmptyPassword`], and the store's.
    pub fn add_user(&mut self, user: &CredentialKey, password: &[u8]) -> Result<(), AdminError> {
        let credential = credential(user, password)?;
        let CredentialKey { realm, username } = user.clone();
        match self.store.ask(Query::CreateCredential { realm, username, credential })? {
            Answer::Created(true) => Ok(()),
            Answer::Created(false) => Err(AdminError::UserExists { user: user.clone() }),
            _ => Err(AdminError::Confused),
        }
    }

    /// Replaces a user's password.
    ///
    /// # Errors
    ///
    /// [`AdminError::NoSuchUser`], [`AdminError::EmptyPassword`], and the store's.
    pub fn change_password(
        &mut self,
        user: &CredentialKey,
        password: &[u8],
    ) -> Result<(), AdminError> {
        let credential = credential(user, password)?;
        self.expect_user(user)?;
        let CredentialKey { realm, username } = user.clone();
        self.done(Query::PutCredential { realm, username, credential })
    }

    /// Adds a user or replaces the password: what a script that runs again and again wants.
    ///
    /// # Errors
    ///
    /// [`AdminError::EmptyPassword`], and the store's.
    pub fn put_user(&mut self, user: &CredentialKey, password: &[u8]) -> Result<(), AdminError> {
        let credential = credential(user, password)?;
        let CredentialKey { realm, username } = user.clone();
        self.done(Query::PutCredential { realm, username, credential })
    }

    /// Removes a user. Registrations stay until they expire.
    ///
    /// # Errors
    ///
    /// [`AdminError::NoSuchUser`], and the store's.
    pub fn remove_user(&mut self, user: &CredentialKey) -> Result<(), AdminError> {
        self.expect_user(user)?;
        let CredentialKey { realm, username } = user.clone();
        self.done(Query::DeleteCredential { realm, username })
    }

    /// Every user, of one realm or of all, in order.
    ///
    /// # Errors
    ///
    /// The store's.
    pub fn users(&mut self, realm: Option<&str>) -> Result<Vec<CredentialKey>, AdminError> {
        let mut users = Vec::new();
        loop {
            let (realm, after) = (realm.map(str::to_owned), users.last().cloned());
            let query = Query::ListCredentials { realm, after, limit: PAGE_ROWS_MAX };
            let Answer::Credentials(page) = self.store.ask(query)? else {
                return Err(AdminError::Confused);
            };
            let is_last = page.len() < PAGE_ROWS_MAX;
            users.extend(page);
            if is_last {
                users.sort();
                return Ok(users);
            }
        }
    }

    /// Adds a registration, or replaces the one with the same id.
    ///
    /// # Errors
    ///
    /// The store's.
    pub fn add_registration(
        &mut self,
        new: &NewRegistration,
        now: UnixMillis,
    ) -> Result<(), AdminError> {
        let binding = new.binding(&self.bindings(&new.aor)?, now);
        self.done(Query::Write { aor: new.aor.clone(), upserts: vec![binding], now })
    }

    /// The registrations that hold at `now`, of one address or of all.
    ///
    /// # Errors
    ///
    /// The store's.
    pub fn registrations(
        &mut self,
        aor: Option<&Aor>,
        now: UnixMillis,
    ) -> Result<Vec<Registration>, AdminError> {
        let mut live = match aor {
            Some(aor) => {
                let of = |binding| Registration { aor: aor.clone(), binding };
                self.bindings(aor)?.into_iter().map(of).collect()
            }
            None => self.every_registration()?,
        };
        live.retain(|registration| registration.binding.is_live(now));
        Ok(live)
    }

    /// Ends live registrations and returns how many. The rows stay for a day, expired, as if the
    /// device had unregistered: a delayed refresh of its does not bring them back.
    ///
    /// # Errors
    ///
    /// [`AdminError::NoSuchRegistration`], and the store's.
    pub fn remove_registrations(
        &mut self,
        aor: &Aor,
        which: &Which,
        now: UnixMillis,
    ) -> Result<usize, AdminError> {
        let is_meant = |binding: &Binding| match which {
            Which::All => true,
            Which::Contact(contact) => binding.contact == *contact,
            Which::Id(id) => binding.id == *id,
        };
        let mut upserts = self.bindings(aor)?;
        upserts.retain(|binding| binding.is_live(now) && is_meant(binding));
        if upserts.is_empty() {
            return Err(AdminError::NoSuchRegistration { aor: aor.clone() });
        }
        for binding in &mut upserts {
            binding.expires_at = now;
            binding.updated_at = UnixMillis::of_write(now, Some(binding.updated_at));
        }
        let count = upserts.len();
        self.done(Query::Write { aor: aor.clone(), upserts, now })?;
        Ok(count)
    }

    fn expect_user(&mut self, user: &CredentialKey) -> Result<(), AdminError> {
        let CredentialKey { realm, username } = user.clone();
        match self.store.ask(Query::Credential { realm, username })? {
            Answer::Credential(Some(_)) => Ok(()),
            Answer::Credential(None) => Err(AdminError::NoSuchUser { user: user.clone() }),
            _ => Err(AdminError::Confused),
        }
    }

    fn bindings(&mut self, aor: &Aor) -> Result<Vec<Binding>, AdminError> {
        match self.store.ask(Query::Bindings { aor: aor.clone() })? {
            Answer::Bindings(bindings) => Ok(bindings),
            _ => Err(AdminError::Confused),
        }
    }

    fn every_registration(&mut self) -> Result<Vec<Registration>, AdminError> {
        let mut all: Vec<Registration> = Vec::new();
        loop {
            let after = all.last().map(Registration::key);
            let query = Query::ListBindings { after, limit: PAGE_ROWS_MAX };
            let Answer::Registrations(page) = self.store.ask(query)? else {
                return Err(AdminError::Confused);
            };
            let is_last = page.len() < PAGE_ROWS_MAX;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    fn done(&mut self, query: Query) -> Result<(), AdminError> {
        match self.store.ask(query)? {
            Answer::Done => Ok(()),
            _ => Err(AdminError::Confused),
        }
    }
}

/// Reads `USER@REALM`. The realm is a domain of ours and becomes lower case, as the proxies write
/// it in their challenges; the user stays as it is.
///
/// # Errors
///
/// [`AdminError::Name`] if a part is missing, or holds what a digest username or a domain cannot.
pub fn parse_user(text: &str) -> Result<CredentialKey, AdminError> {
    let wrong = || AdminError::Name { text: text.to_owned() };
    let (username, realm) = text.rsplit_once('@').ok_or_else(wrong)?;
    let is_username = !username.is_empty() && !username.contains([':', '"', '\\']);
    if !is_username || username.contains(char::is_control) || !is_domain(realm) {
        return Err(wrong());
    }
    Ok(CredentialKey { realm: realm.to_ascii_lowercase(), username: username.to_owned() })
}

/// Reads `USER@DOMAIN`, with or without `sip:`; the user may be escaped (`%40`).
///
/// # Errors
///
/// [`AdminError::Name`].
pub fn parse_aor(text: &str) -> Result<Aor, AdminError> {
    let wrong = || AdminError::Name { text: text.to_owned() };
    let bare = text.strip_prefix("sip:").or_else(|| text.strip_prefix("sips:")).unwrap_or(text);
    let (user, domain) = bare.rsplit_once('@').ok_or_else(wrong)?;
    if user.is_empty() || !is_domain(domain) {
        return Err(wrong());
    }
    let user = unescape(user.as_bytes()).ok_or_else(wrong)?;
    Ok(Aor::new(&user, domain.as_bytes()))
}

fn is_domain(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

fn unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut user = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        if *first != b'%' {
            user.push(*first);
            continue;
        }
        let ([high, low], rest) = rest.split_first_chunk()?;
        user.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        text = rest;
    }
    Some(user)
}

fn credential(user: &CredentialKey, password: &[u8]) -> Result<Credential, AdminError> {
    if password.is_empty() {
        return Err(AdminError::EmptyPassword);
    }
    Ok(Credential::new(&user.username, &user.realm, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_or_refused() {
        let user = |text| parse_user(text).map(|key| key.to_string()).ok();
        assert_eq!(user("Alice@Example.COM"), Some("Alice@example.com".to_owned()));
        assert_eq!(user("a@b@example.com"), Some("a@b@example.com".to_owned()));
        for wrong in ["", "alice", "@example.com", "alice@", "a:b@x", "a\n@x", "a@x y", "a\"@x"] {
            assert_eq!(user(wrong), None, "{wrong}");
        }
        let aor = |text| parse_aor(text).map(|aor| aor.as_bytes().to_vec()).ok();
        assert_eq!(aor("sip:Alice@Example.COM"), Some(b"Alice@example.com".to_vec()));
        assert_eq!(aor("a%40b%00@x"), Some(b"a@b\0@x".to_vec()));
        assert_eq!(aor("+49%2030@x"), Some(b"+49 30@x".to_vec()));
        for wrong in ["alice", "@x", "a%4@x", "a%zz@x", "sip:@x", "a@x;lr"] {
            assert_eq!(aor(wrong), None, "{wrong}");
        }
    }
}
