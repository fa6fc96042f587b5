//! What is kept of a password: the HA1 of each digest algorithm (RFC 7616 §3.4.2, RFC 8760).

use std::fmt;

use md5::{Digest, Md5};
use sha2::{Sha256, Sha512_256};

/// H(username ":" realm ":" password) for every algorithm that may ever be offered.
///
/// Whoever has it can pass for the user in this realm, so it is treated like the password itself:
/// `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub md5: [u8; 16],
    pub sha256: [u8; 32],
    pub sha512_256: [u8; 32],
}

impl Credential {
    /// The password is used here and kept nowhere.
    #[must_use]
    pub fn new(
        username: impl AsRef<[u8]>,
        realm: impl AsRef<[u8]>,
        password: impl AsRef<[u8]>,
    ) -> Self {
        let parts = [username.as_ref(), b":", realm.as_ref(), b":", password.as_ref()];
        Self {
            md5: hash::<Md5>(&parts).into(),
            sha256: hash::<Sha256>(&parts).into(),
            sha512_256: hash::<Sha512_256>(&parts).into(),
        }
    }
}

fn hash<H: Digest>(parts: &[&[u8]]) -> md5::digest::Output<H> {
    let mut hash = H::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize()
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Names one user of one realm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialKey {
    pub realm: String,
    pub username: String,
}

impl fmt::Display for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.username, self.realm)
    }
}
