//! The fleet's keys, and the one way in which this crate authenticates what it wrote.
//!
//! Everything the tier hands to strangers and believes on return (Via parameters, tokens, To tags)
//! carries a SipHash-2-4-128 over a type byte, a key id byte and length-prefixed fields.

use std::fmt;
use std::hash::Hasher;

use fleet::FleetKeys;
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;

/// Octets of a MAC that is only checked (64 bits).
pub const MAC_BYTES: usize = 8;

/// What a MAC vouches for. The number is the type byte of the MAC input and is a wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The branch of a proxy's Via.
    ProxyBranch = 1,
    /// The identity beside a proxy's branch.
    ProxyVia = 2,
    /// The branch of a balancer's Via.
    BalancerBranch = 3,
    /// The flow beside a balancer's branch.
    BalancerVia = 4,
    /// The user part of a Path URI.
    Path = 5,
    /// The user part of a Record-Route URI.
    Dialog = 6,
    /// The To tag of a stateless answer.
    ToTag = 7,
    /// A digest nonce.
    Nonce = 8,
    /// Not a MAC: the key of the table of rows.
    Selection = 9,
    /// The way of a request past earlier owners.
    Way = 10,
    /// Not a MAC: hides what a Record-Route token says from those who carry it.
    Veil = 11,
}

/// How many purposes there are.
const PURPOSES: usize = 11;

impl Purpose {
    const ALL: [Self; PURPOSES] = [
        Self::ProxyBranch,
        Self::ProxyVia,
        Self::BalancerBranch,
        Self::BalancerVia,
        Self::Path,
        Self::Dialog,
        Self::ToTag,
        Self::Nonce,
        Self::Selection,
        Self::Way,
        Self::Veil,
    ];
}

/// The accepted keys of the fleet, one of which signs.
#[derive(Clone)]
pub struct KeyRing {
    signing: Keys,
    /// Every accepted key but the signing one.
    others: Box<[Keys]>,
    selection: [u8; 16],
}

/// One key of the fleet, split by purpose so that no MAC of one kind says anything about another.
#[derive(Clone)]
struct Keys {
    id: u8,
    subkeys: [[u8; 16]; PURPOSES],
}

/// The keys that were handed over cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Nobody could verify what this node signs.
    #[error("the signing key {signing} is not among the accepted keys")]
    SigningKeyMissing {
        /// The id that was named.
        signing: u8,
    },
    /// Which of them is meant would depend on the order of a list.
    #[error("key id {id} is given twice")]
    IdTwice {
        /// The id.
        id: u8,
    },
}

impl KeyRing {
    /// Derives the keys of every purpose.
    ///
    /// # Errors
    ///
    /// Two keys with one id, or a signing id without a key. Not worth a retry.
    pub fn new(keys: &FleetKeys) -> Result<Self, KeyRingError> {
        let signing = keys
            .signing_key()
            .ok_or(KeyRingError::SigningKeyMissing { signing: keys.signing })
            .map(|key| Keys::derive(key.id, &key.secret))?;
        let mut others = Vec::new();
        for key in keys.keys.iter().filter(|key| key.id != keys.signing) {
            if others.iter().any(|other: &Keys| other.id == key.id) {
                return Err(KeyRingError::IdTwice { id: key.id });
            }
            others.push(Keys::derive(key.id, &key.secret));
        }
        if keys.keys.len() != others.len() + 1 {
            return Err(KeyRingError::IdTwice { id: keys.signing });
        }
        let eldest = keys.keys.first().map_or(signing.id, |key| key.id);
        let selection = others
            .iter()
            .find(|key| key.id == eldest)
            .map_or_else(|| signing.subkey(Purpose::Selection), |k| k.subkey(Purpose::Selection));
        Ok(Self { signing, others: others.into(), selection })
    }

    /// The key that signs what this node writes.
    pub const fn signing_id(&self) -> u8 {
        self.signing.id
    }

    /// Every accepted key, the signing one first.
    pub fn ids(&self) -> impl Iterator<Item = u8> {
        std::iter::once(self.signing.id).chain(self.others.iter().map(|key| key.id))
    }

    /// The key of the table of rows.
    ///
    /// It comes from the first key of the list, whichever of them signs: a new signing key must
    /// not move every call to another owner.
    pub const fn selection_key(&self) -> [u8; 16] {
        self.selection
    }

    /// Begins a MAC with the signing key.
    pub fn sign(&self, purpose: Purpose) -> Mac {
        self.signing.start(purpose)
    }

    /// Begins a MAC with the key `id`, or `None` if that key is not accepted (any more).
    pub fn with_key(&self, purpose: Purpose, id: u8) -> Option<Mac> {
        if id == self.signing.id {
            return Some(self.signing.start(purpose));
        }
        self.others.iter().find(|key| key.id == id).map(|key| key.start(purpose))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("signing", &self.signing.id).finish_non_exhaustive()
    }
}

impl Keys {
    fn derive(id: u8, secret: &[u8; 32]) -> Self {
        let subkeys = Purpose::ALL.map(|purpose| {
            let mut hash = Sha256::new();
            hash.update(b"sipcloud key");
            hash.update([purpose as u8]);
            hash.update(secret);
            let mut subkey = [0; 16];
            for (to, from) in subkey.iter_mut().zip(hash.finalize()) {
                *to = from;
            }
            subkey
        });
        Self { id, subkeys }
    }

    fn subkey(&self, purpose: Purpose) -> [u8; 16] {
        let [
            proxy_branch,
            proxy_via,
            balancer_branch,
            balancer_via,
            path,
            dialog,
            to_tag,
            nonce,
            selection,
            way,
            veil,
        ] = self.subkeys;
        match purpose {
            Purpose::ProxyBranch => proxy_branch,
            Purpose::ProxyVia => proxy_via,
            Purpose::BalancerBranch => balancer_branch,
            Purpose::BalancerVia => balancer_via,
            Purpose::Path => path,
            Purpose::Dialog => dialog,
            Purpose::ToTag => to_tag,
            Purpose::Nonce => nonce,
            Purpose::Selection => selection,
            Purpose::Way => way,
            Purpose::Veil => veil,
        }
    }

    fn start(&self, purpose: Purpose) -> Mac {
        let mut hasher = SipHasher24::new_with_key(&self.subkey(purpose));
        hasher.write(&[purpose as u8, self.id]);
        Mac { hasher }
    }
}

/// A MAC that is being computed: one `field` per field, in the order of the format.
#[derive(Clone, Debug)]
#[must_use]
pub struct Mac {
    hasher: SipHasher24,
}

impl Mac {
    /// The next field. An absent one is empty.
    pub fn field(mut self, octets: &[u8]) -> Self {
        const LENGTH: usize = size_of::<u32>();
        let length = u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes();
        // What is short is hashed in one piece with its length: each piece costs as much again.
        let mut together = [0; LENGTH + 60];
        if let Some(place) = together.get_mut(..LENGTH + octets.len()) {
            let (front, back) = place.split_at_mut(LENGTH);
            front.copy_from_slice(&length);
            back.copy_from_slice(octets);
            self.hasher.write(place);
        } else {
            self.hasher.write(&length);
            self.hasher.write(octets);
        }
        self
    }

    /// All 128 bits.
    pub fn finish(self) -> [u8; 16] {
        self.hasher.finish128().as_bytes()
    }

    /// The first 64 bits.
    pub fn short(self) -> [u8; MAC_BYTES] {
        let [a, b, c, d, e, f, g, h, ..] = self.finish();
        [a, b, c, d, e, f, g, h]
    }

    /// Whether `claimed` is the first 64 bits of this MAC, in constant time.
    pub fn holds(self, claimed: &[u8]) -> bool {
        self.short().ct_eq(claimed).into()
    }
}

/// Writes lower-case hex.
pub(crate) fn push_hex(octets: &[u8], out: &mut Vec<u8>) {
    for octet in octets {
        out.push(hex_digit(octet >> 4));
        out.push(hex_digit(octet & 0xf));
    }
}

/// Reads exactly `N` octets of lower-case hex. Upper case is refused: we never write it, and one
/// value must have one spelling.
pub(crate) fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut octets = [0; N];
    for (octet, pair) in octets.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *octet = hex_value(high)? << 4 | hex_value(low)?;
    }
    Some(octets)
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use fleet::{FleetKey, FleetKeys};

    use super::*;
    use crate::golden::{check, ring};

    fn hex(octets: &[u8]) -> String {
        let mut out = Vec::new();
        push_hex(octets, &mut out);
        String::from_utf8(out).expect("hex is text")
    }

    #[test]
    fn mac_input_is_type_key_id_and_length_prefixed_fields() {
        // The same octets hashed in one piece, as rule 2 of docs/protocol.md spells them.
        let ring = ring();
        let mac = ring.sign(Purpose::Path).field(b"ab").field(b"").finish();
        let key = ring.signing.subkey(Purpose::Path);
        let mut input = vec![Purpose::Path as u8, ring.signing_id()];
        input.extend_from_slice(&[0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0]);
        assert_eq!(mac, SipHasher24::new_with_key(&key).hash(&input).as_bytes());
    }

    #[test]
    fn moving_an_octet_between_fields_changes_the_mac() {
        let ring = ring();
        let one = ring.sign(Purpose::ToTag).field(b"ab").field(b"c").finish();
        let other = ring.sign(Purpose::ToTag).field(b"a").field(b"bc").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn purposes_and_keys_never_share_a_mac() {
        let ring = ring();
        let mut seen: Vec<[u8; 16]> = Vec::new();
        for purpose in Purpose::ALL {
            for id in ring.ids() {
                let mac = ring.with_key(purpose, id).expect("accepted").field(b"x").finish();
                assert!(!seen.contains(&mac), "{purpose:?} with key {id}");
                seen.push(mac);
            }
        }
        assert!(ring.with_key(Purpose::Path, 99).is_none(), "an unknown key verifies nothing");
    }

    #[test]
    fn keys_with_one_id_or_without_a_signer_are_refused() {
        let key = |id| FleetKey { id, secret: [id; 32] };
        let missing = FleetKeys { keys: vec![key(1)], signing: 2 };
        assert_eq!(
            KeyRing::new(&missing).err(),
            Some(KeyRingError::SigningKeyMissing { signing: 2 })
        );
        for signing in [1, 2] {
            let twice = FleetKeys { keys: vec![key(1), key(1), key(2)], signing };
            assert_eq!(KeyRing::new(&twice).err(), Some(KeyRingError::IdTwice { id: 1 }));
        }
    }

    #[test]
    fn a_new_signing_key_keeps_the_key_of_the_table() {
        let key = |id| FleetKey { id, secret: [id; 32] };
        let before = FleetKeys { keys: vec![key(1)], signing: 1 };
        let after = FleetKeys { keys: vec![key(1), key(2)], signing: 2 };
        let selection = |keys: &FleetKeys| KeyRing::new(keys).expect("valid").selection_key();
        assert_eq!(selection(&before), selection(&after));
    }

    #[test]
    fn macs_are_pinned() {
        let ring = ring();
        let mut golden = String::new();
        for purpose in Purpose::ALL {
            for id in ring.ids() {
                let mac = ring.with_key(purpose, id).expect("accepted");
                let mac = mac.field(b"a84b4c76e66710").field(b"").field(b"1928301774").finish();
                golden.push_str(&format!("{purpose:?} {id} {}\n", hex(&mac)));
            }
        }
        golden.push_str(&format!("selection-key {}\n", hex(&ring.selection_key())));
        check("mac.golden", &golden);
    }

    #[test]
    fn hex_has_one_spelling() {
        assert_eq!(read_hex::<2>(b"0af9"), Some([0x0a, 0xf9]));
        for wrong in [b"0AF9".as_slice(), b"0af", b"0af9a", b"0ag9"] {
            assert_eq!(read_hex::<2>(wrong), None);
        }
    }
}
