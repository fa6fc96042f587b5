//! Bindings as rows: no nulls, a write timestamp that orders all writers, a lifetime.

use std::time::Duration;

use scylla::{DeserializeRow, SerializeRow};
use store::limits::EXPIRED_ROW_LIFETIME;
use store::{Binding, BindingId, UnixMillis};

/// Beyond it a row has no TTL: servers refuse lifetimes that end after 2038.
const TTL_MAX: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// Added to each TTL, for clocks of servers that are ahead.
const TTL_MARGIN: Duration = Duration::from_secs(60);

/// What is written; the names are those of the statement's markers.
#[derive(SerializeRow)]
pub(super) struct WrittenRow<'a> {
    aor: &'a [u8],
    id: &'a [u8],
    contact: &'a [u8],
    path: &'a [Vec<u8>],
    received: String,
    q: i16,
    call_id: &'a [u8],
    cseq: i64,
    expires_at: i64,
    updated_at: i64,
    user_agent: &'a [u8],
    has_instance: bool,
    instance: &'a [u8],
    reg_id: i64,
    direct: bool,
    stamp: i64,
    ttl: i32,
}

impl<'a> WrittenRow<'a> {
    pub(super) fn new(aor: &'a [u8], binding: &'a Binding, now: UnixMillis) -> Self {
        Self {
            aor,
            id: &binding.id.0,
            contact: &binding.contact,
            path: &binding.path,
            received: binding.received.map(|address| address.to_string()).unwrap_or_default(),
            q: i16::try_from(binding.q.min(1000)).unwrap_or(1000),
            call_id: &binding.call_id,
            cseq: i64::from(binding.cseq),
            expires_at: integer(binding.expires_at),
            updated_at: integer(binding.updated_at),
            user_agent: &binding.user_agent,
            has_instance: binding.instance.is_some(),
            instance: binding.instance.as_deref().unwrap_or_default(),
            reg_id: binding.reg_id.map_or(-1, i64::from),
            direct: binding.direct,
            stamp: stamp(binding),
            ttl: ttl(binding.expires_at, now),
        }
    }
}

/// What is read; every column by its name.
#[derive(DeserializeRow)]
pub(super) struct ReadRow {
    pub(super) aor: Vec<u8>,
    id: Vec<u8>,
    contact: Vec<u8>,
    path: Vec<Vec<u8>>,
    received: String,
    q: i16,
    call_id: Vec<u8>,
    cseq: i64,
    expires_at: i64,
    updated_at: i64,
    user_agent: Vec<u8>,
    has_instance: bool,
    instance: Vec<u8>,
    reg_id: i64,
    direct: bool,
}

impl ReadRow {
    /// The binding, or the column that cannot be one.
    pub(super) fn into_binding(self) -> Result<Binding, &'static str> {
        let received = match self.received.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| "received")?),
        };
        let millis = |column: i64, name| u64::try_from(column).map(UnixMillis).map_err(|_| name);
        Ok(Binding {
            id: BindingId(self.id.try_into().map_err(|_| "id")?),
            contact: self.contact,
            path: self.path,
            received,
            q: u16::try_from(self.q).ok().filter(|q| *q <= 1000).ok_or("q")?,
            call_id: self.call_id,
            cseq: u32::try_from(self.cseq).map_err(|_| "cseq")?,
            expires_at: millis(self.expires_at, "expires_at")?,
            updated_at: millis(self.updated_at, "updated_at")?,
            user_agent: self.user_agent,
            instance: self.has_instance.then_some(self.instance),
            reg_id: match self.reg_id {
                -1 => None,
                number => Some(u32::try_from(number).map_err(|_| "reg_id")?),
            },
            direct: self.direct,
        })
    }
}

/// The write timestamp in microseconds: the milliseconds of `updated_at`, and below them a number
/// made from the content.
///
/// Of two cells with one timestamp Cassandra keeps the greater value, cell by cell: two writers of
/// the same millisecond would leave a row that is half of each. With a number from the content one
/// of them wins as a whole, and a repeated write still has the timestamp of the first.
fn stamp(binding: &Binding) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(&binding.contact);
    add(&binding.call_id);
    add(&binding.cseq.to_be_bytes());
    add(&binding.expires_at.0.to_be_bytes());
    add(&binding.q.to_be_bytes());
    binding.path.iter().for_each(|path| add(path));
    let below = i64::try_from((hash >> 16) % 999).unwrap_or_default();
    micros(binding.updated_at).saturating_add(below)
}

/// A timestamp that removes what was written at `updated_at`, and nothing later.
pub(super) fn removal_stamp(updated_at: i64) -> i64 {
    updated_at.saturating_mul(1000).saturating_add(999)
}

/// Seconds after which the server may forget a row: a day after it expired, since its CSeq is
/// needed so long. Zero: never.
fn ttl(expires_at: UnixMillis, now: UnixMillis) -> i32 {
    let live = expires_at.since(now);
    if live > TTL_MAX {
        return 0;
    }
    let seconds = (live + EXPIRED_ROW_LIFETIME + TTL_MARGIN).as_secs() + 1;
    i32::try_from(seconds).unwrap_or(0)
}

fn micros(at: UnixMillis) -> i64 {
    integer(at).saturating_mul(1000)
}

fn integer(at: UnixMillis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(updated_at: u64, contact: &[u8]) -> Binding {
        Binding {
            id: BindingId([1; 16]),
            contact: contact.to_vec(),
            path: Vec::new(),
            received: None,
            q: 0,
            call_id: Vec::new(),
            cseq: 1,
            expires_at: UnixMillis(0),
            updated_at: UnixMillis(updated_at),
            user_agent: Vec::new(),
            instance: None,
            reg_id: None,
            direct: false,
        }
    }

    #[test]
    fn a_later_millisecond_wins_and_within_one_the_content_decides() {
        let at = |millis, contact: &[u8]| stamp(&binding(millis, contact));
        assert_eq!(at(7, b"a"), at(7, b"a"), "a repeated write is the same write");
        assert_ne!(at(7, b"a"), at(7, b"b"), "two contents are two writes");
        for contact in [b"a", b"b", b"c", b"d"] {
            assert!((7000..7999).contains(&at(7, contact)));
            assert!(at(7, contact) < removal_stamp(7), "a removal takes it away");
            assert!(removal_stamp(7) < at(8, contact), "but nothing later");
        }
        let last = stamp(&binding(u64::MAX, b"a"));
        assert_eq!(last, i64::MAX);
    }

    #[test]
    fn a_row_outlives_its_binding_by_a_day() {
        const DAY: i32 = 24 * 3600;
        let now = UnixMillis(1_800_000_000_000);
        let of = |seconds| ttl(now.plus(Duration::from_secs(seconds)), now);
        assert_eq!(of(3600), 3600 + DAY + 61);
        assert_eq!(ttl(UnixMillis(0), now), DAY + 61, "an unregistered one as well");
        assert_eq!(of(10 * 365 * 24 * 3600), 0);
        assert_eq!(ttl(UnixMillis::NEVER, now), 0, "a permanent one stays");
    }
}
