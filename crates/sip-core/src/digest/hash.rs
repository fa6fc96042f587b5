//! The hashes of digest (RFC 7616 §3.3, RFC 8760 §2.1), and what a user's HA1 is under each.

use std::str::FromStr;

use md5::{Digest, Md5};
use sha2::{Sha256, Sha512_256};
use store::Credential;

/// A digest algorithm that can be offered. The `-sess` variants are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha256,
    Sha512Trunc256,
}

/// The text names no algorithm that we offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not one of MD5, SHA-256, SHA-512-256")]
pub struct UnknownAlgorithm {
    text: String,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Md5, Self::Sha256, Self::Sha512Trunc256];

    /// The registered name.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512Trunc256 => "SHA-512-256",
        }
    }

    /// The algorithm of a name, in any case.
    pub fn from_token(token: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.token().as_bytes().eq_ignore_ascii_case(token))
    }

    /// The hash of the parts in one piece, in lower-case hex.
    pub(super) fn hash_hex(self, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Md5 => hash_hex::<Md5>(parts),
            Self::Sha256 => hash_hex::<Sha256>(parts),
            Self::Sha512Trunc256 => hash_hex::<Sha512_256>(parts),
        }
    }

    /// HA1 in hex. Nobody's is all zeros: the same work, and no password has it.
    pub(super) fn ha1_hex(self, credential: Option<&Credential>) -> Vec<u8> {
        match self {
            Self::Md5 => hex(&credential.map_or([0; 16], |it| it.md5)),
            Self::Sha256 => hex(&credential.map_or([0; 32], |it| it.sha256)),
            Self::Sha512Trunc256 => hex(&credential.map_or([0; 32], |it| it.sha512_256)),
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_token(text.as_bytes()).ok_or_else(|| UnknownAlgorithm { text: text.to_owned() })
    }
}

fn hash_hex<H: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = H::new();
    parts.iter().for_each(|part| hash.update(part));
    hex(&hash.finalize())
}

fn hex(octets: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(2 * octets.len());
    crate::mac::push_hex(octets, &mut text);
    text
}
