//! Users that a load makes for itself and takes away when it ends, with what they registered.

use std::path::{Path, PathBuf};

use anyhow::Result;
use load_client::Credentials;
use sip_net::clock;
use store::CredentialKey;
use store_drivers::admin::{Admin, AdminError, Which, parse_aor};

use crate::command::{explain, open_store};

/// Users of one realm with one password that nobody else knows. Dropping it removes them.
pub(crate) struct Guests {
    data: PathBuf,
    realm: String,
    password: String,
    names: Vec<String>,
}

impl Guests {
    /// Adds the users to the store of a data directory. Those of an earlier run that was killed are
    /// taken over.
    pub(crate) fn invite<'a>(data: &Path, names: impl Iterator<Item = &'a str>) -> Result<Self> {
        let (mut store, config) = open_store(data)?;
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
        let mut guests = Self {
            data: data.to_owned(),
            realm: config.service_name().to_owned(),
            password: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            names: Vec::new(),
        };
        for name in names {
            store.put_user(&guests.key(name), guests.password.as_bytes()).map_err(explain)?;
            guests.names.push(name.to_owned());
        }
        Ok(guests)
    }

    pub(crate) fn realm(&self) -> &str {
        &self.realm
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        Credentials { user: name.to_owned(), password: self.password.clone() }
    }

    fn key(&self, name: &str) -> CredentialKey {
        CredentialKey { realm: self.realm.clone(), username: name.to_owned() }
    }

    fn remove_all(&self) -> Result<()> {
        let (mut store, _) = open_store(&self.data)?;
        for name in &self.names {
            self.remove(&mut store, name)?;
        }
        Ok(())
    }

    fn remove(&self, store: &mut Admin, name: &str) -> Result<()> {
        store.remove_user(&self.key(name)).map_err(explain)?;
        let aor = parse_aor(&format!("{name}@{}", self.realm)).map_err(explain)?;
        let now = store::UnixMillis(clock::unix_millis());
        match store.remove_registrations(&aor, &Which::All, now) {
            // Callers never register.
            Ok(_) | Err(AdminError::NoSuchRegistration { .. }) => Ok(()),
            Err(error) => Err(explain(error)),
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            let (names, data) = (self.names.join(", "), self.data.display());
            eprintln!("the users {names} of {} stay in {data}: {error}", self.realm);
        }
    }
}
