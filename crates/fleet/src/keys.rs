//! The fleet's shared secrets, from which branches, tokens and nonces get their MACs (rules 1 and 2
//! of docs/protocol.md).

use std::fmt;

/// One shared secret with the id that travels beside what it signed.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetKey {
    pub id: u8,
    pub secret: [u8; 32],
}

/// Every key that is accepted, and the one that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetKeys {
    pub keys: Vec<FleetKey>,
    /// Id of the key that signs.
    pub signing: u8,
}

impl FleetKeys {
    #[must_use]
    pub fn key(&self, id: u8) -> Option<&FleetKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The key that signs; `None` if the set does not hold it.
    #[must_use]
    pub fn signing_key(&self) -> Option<&FleetKey> {
        self.key(self.signing)
    }
}

impl fmt::Debug for FleetKey {
    /// The id alone: secrets do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_keys_shows_no_secret() {
        let keys = FleetKeys { keys: vec![FleetKey { id: 7, secret: [0xAB; 32] }], signing: 7 };
        let text = format!("{keys:?}");
        assert!(text.contains('7'), "{text}");
        assert!(!text.contains("171") && !text.to_lowercase().contains("ab,"), "{text}");
    }
}
