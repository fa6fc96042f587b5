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

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The response of RFC 7616 §3.4.1 with `qop=auth`, from a stored HA1.
    fn response<H: Digest>(ha1: &[u8], nonce: &str, cnonce: &str, uri: &str) -> String {
        let ha2 = hex(&hash::<H>(&[b"GET:", uri.as_bytes()]));
        let text = format!("{}:{nonce}:00000001:{cnonce}:auth:{ha2}", hex(ha1));
        hex(&hash::<H>(&[text.as_bytes()]))
    }

    #[test]
    fn a_stored_ha1_gives_the_responses_of_the_standard() {
        // RFC 7616 §3.9.1.
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let mufasa = Credential::new("Mufasa", "http-auth@example.org", "Circle of Life");
        let md5 = response::<Md5>(&mufasa.md5, nonce, cnonce, "/dir/index.html");
        assert_eq!(md5, "8ca523f5e9506fed4657c9700eebdbec");
        let sha256 = response::<Sha256>(&mufasa.sha256, nonce, cnonce, "/dir/index.html");
        assert_eq!(sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    #[test]
    fn sha_512_256_is_the_standard_one_and_no_truncation() {
        // The example of FIPS 180-4 for "abc". What RFC 7616 §3.9.2 prints was made with a
        // truncated SHA-512 and is no vector, so its input is checked against OpenSSL's output.
        let abc = hex(&hash::<Sha512_256>(&[b"abc"]));
        assert_eq!(abc, "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23");
        let jason = Credential::new("Jäsøn Doe", "api@example.org", "Secret, or not?");
        let nonce = "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK";
        let cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm";
        let response = response::<Sha512_256>(&jason.sha512_256, nonce, cnonce, "/doe.json");
        assert_eq!(response, "7a4e1192babbba02e91182d2895bfdbf7adafc6e48d4e517ca301974843d840c");
    }

    #[test]
    fn a_credential_shows_nothing() {
        let credential = Credential::new("alice", "example.com", "secret");
        assert_eq!(format!("{credential:?}"), "Credential(…)");
    }
}
