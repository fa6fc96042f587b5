//! The words of the location service (RFC 3261 §10): who, where, until when.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Wall-clock time in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Later than every instant: the expiry of a permanent binding. Fits a signed 64-bit column.
    pub const NEVER: Self = Self(i64::MAX as u64);

    /// The instant `later` after this one, at most [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis).min(Self::NEVER.0))
    }

    /// The instant `earlier` before this one, at least 1970.
    #[must_use]
    pub fn minus(self, earlier: Duration) -> Self {
        let millis = u64::try_from(earlier.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The timestamp of a write that was received at `received` and replaces a row last written at
    /// `last`: max(received, last + 1), so that it wins even if our clock is behind the writer's.
    #[must_use]
    pub fn of_write(received: Self, last: Option<Self>) -> Self {
        last.map_or(received, |last| received.max(Self(last.0.saturating_add(1))))
    }
}

const BALANCER: &str = "balancer:";

/// An address-of-record in canonical form: unescaped user, `@`, lower-case domain.
///
/// Both parts are bytes: a user part may hold NUL, `@` or bytes that are no UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor {
    bytes: Box<[u8]>,
    user_len: usize,
}

impl Aor {
    /// `user` is already unescaped (RFC 3261 §19.1.4); `domain` may come in any case.
    #[must_use]
    pub fn new(user: &[u8], domain: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(user.len() + 1 + domain.len());
        bytes.extend_from_slice(user);
        bytes.push(b'@');
        bytes.extend(domain.iter().map(u8::to_ascii_lowercase));
        Self { bytes: bytes.into_boxed_slice(), user_len: user.len() }
    }

    /// Reads back [`as_bytes`](Self::as_bytes). The domain is what follows the last `@`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().rposition(|byte| *byte == b'@')?;
        Some(Self::new(bytes.get(..at)?, bytes.get(at + 1..)?))
    }

    /// Under which the registrars note until when a binding may live whose Path names this balancer
    /// (the address that proxies know): nobody's address-of-record, since no domain has a colon.
    #[must_use]
    pub fn of_balancer(internal: SocketAddr) -> Self {
        Self::new(b"", format!("{BALANCER}{internal}").as_bytes())
    }

    /// Whether it is such a note, and no user's.
    #[must_use]
    pub fn is_of_balancer(&self) -> bool {
        self.user().is_empty() && self.domain().starts_with(BALANCER.as_bytes())
    }

    /// The unescaped user part; empty for an address that is a domain alone.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        self.bytes.get(..self.user_len).unwrap_or_default()
    }

    /// The domain in lower case.
    #[must_use]
    pub fn domain(&self) -> &[u8] {
        self.bytes.get(self.user_len + 1..).unwrap_or_default()
    }

    /// `user@domain`: the key under which the store keeps it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes.escape_ascii())
    }
}

impl fmt::Debug for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aor({self})")
    }
}

/// Which of an address-of-record's bindings: made from instance and reg-id when both are there
/// (RFC 5626 §6), otherwise from the normalised contact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(pub [u8; 16]);

impl BindingId {
    /// Reads back `Display`: 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                *byte = *byte << 4 | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            }
        }
        Some(Self(id))
    }
}

impl fmt::Display for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BindingId({self})")
    }
}

/// One row of the location service: where an address-of-record is reached, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub id: BindingId,
    /// The contact's URI, as it was registered.
    pub contact: Vec<u8>,
    /// The Path of the REGISTER (RFC 3327): name-addr texts, the topmost first.
    pub path: Vec<Vec<u8>>,
    /// Where the REGISTER came from, when that is not what the contact says.
    pub received: Option<SocketAddr>,
    /// Preference in thousandths, 0 to 1000 (RFC 3261 §20.10).
    pub q: u16,
    /// Call-ID of the last REGISTER that wrote this row.
    pub call_id: Vec<u8>,
    /// CSeq number of that REGISTER: a lower one with the same Call-ID is late (RFC 3261 §10.3).
    pub cseq: u32,
    /// From this instant on the binding is no longer live; the row stays for a day.
    pub expires_at: UnixMillis,
    /// The write's timestamp ([`UnixMillis::of_write`]): of two writes the later one stands.
    pub updated_at: UnixMillis,
    pub user_agent: Vec<u8>,
    /// `+sip.instance` (RFC 5626 §4.1).
    pub instance: Option<Vec<u8>>,
    /// `reg-id` (RFC 5626 §4.2).
    pub reg_id: Option<u32>,
    /// Reached from the proxy itself, not through a balancer: a trunk that the operator provided.
    pub direct: bool,
}

impl Binding {
    /// Whether the binding still holds at `now`.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        now < self.expires_at
    }

    /// Seconds until it expires, rounded up, as a REGISTER's 200 states them; zero if it has.
    #[must_use]
    pub fn seconds_left(&self, now: UnixMillis) -> u32 {
        let millis = self.expires_at.0.saturating_sub(now.0);
        u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// The order in which bindings are answered: falling q, then the most recent write, then id.
    #[must_use]
    pub fn preference(&self, other: &Self) -> std::cmp::Ordering {
        (other.q, other.updated_at, self.id).cmp(&(self.q, self.updated_at, other.id))
    }
}

/// Names one binding of the whole store; the place where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingKey {
    pub aor: Aor,
    pub id: BindingId,
}

/// A binding together with its address-of-record: one entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub aor: Aor,
    pub binding: Binding,
}

impl Registration {
    /// The place after which the next page of a listing begins.
    #[must_use]
    pub fn key(&self) -> BindingKey {
        BindingKey { aor: self.aor.clone(), id: self.binding.id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_canonical_and_reads_back() {
        // Goal: equal addresses have equal bytes, and bytes give the same parts again.
        let table: [(&[u8], &[u8], &[u8]); 4] = [
            (b"alice", b"Example.COM", b"alice@example.com"),
            (b"Alice", b"example.com", b"Alice@example.com"),
            (b"a@b\0\xff", b"x", b"a@b\0\xff@x"),
            (b"", b"example.com", b"@example.com"),
        ];
        for (user, domain, bytes) in table {
            let aor = Aor::new(user, domain);
            assert_eq!(aor.as_bytes(), bytes);
            assert_eq!(aor.user(), user);
            assert_eq!(aor.domain(), domain.to_ascii_lowercase());
            assert_eq!(Aor::from_bytes(bytes), Some(aor));
        }
        assert_eq!(Aor::from_bytes(b"no-domain"), None);
    }

    #[test]
    fn a_note_of_a_balancer_is_no_users_address() {
        let note = Aor::of_balancer(SocketAddr::from(([10, 0, 10, 1], 5070)));
        assert!(note.is_of_balancer());
        assert_eq!(Aor::from_bytes(note.as_bytes()), Some(note));
        for user in [Aor::new(b"", b"example.com"), Aor::new(b"balancer:", b"example.com")] {
            assert!(!user.is_of_balancer(), "{user}");
        }
    }

    #[test]
    fn a_binding_id_reads_back_from_its_text() {
        let id = BindingId(*b"\x00\x01\x7f\x80\xff\xaa\xbb\xcc\xdd\xee\x10\x20\x30\x40\x50\x60");
        assert_eq!(BindingId::from_hex(&id.to_string()), Some(id));
        for wrong in ["", "0", &"0".repeat(31), &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(BindingId::from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_write_is_later_than_what_it_replaces() {
        let table = [(10, None, 10), (10, Some(5), 10), (10, Some(10), 11), (10, Some(99), 100)];
        for (received, last, expected) in table {
            let stamp = UnixMillis::of_write(UnixMillis(received), last.map(UnixMillis));
            assert_eq!(stamp, UnixMillis(expected), "{received} {last:?}");
        }
        assert_eq!(UnixMillis::NEVER.plus(Duration::MAX), UnixMillis::NEVER);
        assert_eq!(UnixMillis(5).minus(Duration::from_secs(1)), UnixMillis(0));
    }
}
