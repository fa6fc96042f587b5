//! Which counts of which nonces have been used (RFC 7616 §3.4.5), in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use store::UnixMillis;

/// How many counts below the highest may still come late.
const WINDOW: u32 = 64;
/// Of how many recent counts it is remembered which request used them.
const REMEMBERED: usize = 4;

/// One use of a nonce by credentials that were right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    /// The nonce's MAC.
    pub(super) nonce: u128,
    pub(super) issued: UnixMillis,
    pub(super) number: u32,
    /// Hash of the request, see `fingerprint`.
    pub(super) request: u64,
}

/// The counts of every nonce that is in use.
///
/// Two generations: when the younger one is full or as old as a nonce may get, it becomes the older
/// one and the one before is forgotten. Were a nonce used again after it was forgotten, its counts
/// would pass once more; so whatever was issued before a forgotten nonce, and is not remembered,
/// counts as stale. A client of ours then answers one challenge more.
#[derive(Debug)]
pub(super) struct NonceWindows {
    young: Windows,
    old: Windows,
    /// When the young generation began.
    since: UnixMillis,
    /// The latest nonce of the young and of the old generation.
    latest: [UnixMillis; 2],
    /// Nonces up to here may have been forgotten.
    forgotten_until: Option<UnixMillis>,
    each_max: usize,
    lifetime: Duration,
}

/// By the nonce's MAC, which is a hash already, and chosen by nobody.
type Windows = HashMap<u128, Window, BuildHasherDefault<AsItIs>>;

#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u32,
    /// Bit `n` is set if `highest - n` has been used.
    used: u64,
    recent: [(u32, u64); REMEMBERED],
    next: usize,
}

impl NonceWindows {
    pub(super) fn new(nonces_max: usize, lifetime: Duration) -> Self {
        Self {
            young: Windows::default(),
            old: Windows::default(),
            since: UnixMillis(0),
            latest: [UnixMillis(0); 2],
            forgotten_until: None,
            each_max: (nonces_max / 2).max(1),
            lifetime,
        }
    }

    /// Whether the count is new, or the same request again.
    pub(super) fn accept(&mut self, count: Count, now: UnixMillis) -> bool {
        if let Some(window) = self.young.get_mut(&count.nonce) {
            return window.accept(count);
        }
        if let Some(window) = self.old.get_mut(&count.nonce) {
            return window.accept(count);
        }
        if self.forgotten_until.is_some_and(|until| count.issued <= until) {
            return false;
        }
        let is_full = self.young.len() >= self.each_max;
        if is_full || now.since(self.since) > self.lifetime {
            self.forget(now);
        }
        let [latest, _] = &mut self.latest;
        *latest = (*latest).max(count.issued);
        self.young.entry(count.nonce).or_default().accept(count)
    }

    fn forget(&mut self, now: UnixMillis) {
        let [young, old] = self.latest;
        if !self.old.is_empty() {
            self.forgotten_until = self.forgotten_until.max(Some(old));
        }
        std::mem::swap(&mut self.old, &mut self.young);
        self.young.clear();
        self.latest = [UnixMillis(0), young];
        self.since = now;
    }
}

impl Window {
    fn accept(&mut self, count: Count) -> bool {
        let number = count.number;
        if self.used == 0 {
            self.highest = number;
        } else if number > self.highest {
            self.used = self.used.checked_shl(number - self.highest).unwrap_or(0);
            self.highest = number;
        }
        let age = self.highest - number;
        if age >= WINDOW {
            return false;
        }
        let bit = 1_u64 << age;
        if self.used & bit != 0 {
            return self.recent.contains(&(number, count.request));
        }
        self.used |= bit;
        if let Some(place) = self.recent.get_mut(self.next) {
            *place = (number, count.request);
        }
        self.next = (self.next + 1) % REMEMBERED;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(nonce: u128, number: u32, request: u64) -> Count {
        Count { nonce, issued: UnixMillis(1_000 + nonce as u64), number, request }
    }

    /// Counts of one nonce, in the order in which they come.
    #[test]
    fn a_count_passes_once_or_for_the_same_request() {
        let table: [(&str, u32, u64, bool); 9] = [
            ("the first", 1, 10, true),
            ("the same request again", 1, 10, true),
            ("the same count for another request", 1, 11, false),
            ("a jump", 5, 12, true),
            ("a late one below it", 3, 13, true),
            ("the late one for another request", 3, 14, false),
            ("far ahead", 200, 15, true),
            ("the edge of the window", 137, 16, true),
            ("below the window", 136, 17, false),
        ];
        let mut windows = NonceWindows::new(100, Duration::from_secs(300));
        for (name, number, request, expected) in table {
            let accepted = windows.accept(count(1, number, request), UnixMillis(5_000));
            assert_eq!(accepted, expected, "{name}");
        }
    }

    /// With room for two generations of two nonces, the fifth makes the first two be forgotten.
    #[test]
    fn a_forgotten_nonce_is_stale_and_a_newer_one_is_not() {
        let mut windows = NonceWindows::new(4, Duration::from_secs(300));
        for nonce in 1..=5 {
            assert!(windows.accept(count(nonce, 1, 0), UnixMillis(5_000)), "nonce {nonce}");
        }
        assert!(!windows.accept(count(1, 1, 9), UnixMillis(5_000)), "a replay of a forgotten one");
        assert!(!windows.accept(count(3, 1, 9), UnixMillis(5_000)), "a replay of a known one");
        assert!(windows.accept(count(3, 2, 9), UnixMillis(5_000)), "the next count of a known one");
        assert!(windows.accept(count(6, 1, 0), UnixMillis(5_000)), "a new nonce");
        assert!(windows.young.len() + windows.old.len() <= 4, "bounded");
    }

    #[test]
    fn a_generation_is_forgotten_after_two_lifetimes() {
        let mut windows = NonceWindows::new(100, Duration::from_secs(300));
        for (nonce, now_ms) in [(1, 0), (400_000, 400_000), (800_000, 800_000)] {
            assert!(windows.accept(count(nonce, 1, 0), UnixMillis(now_ms)));
        }
        assert!(!windows.old.contains_key(&1) && !windows.young.contains_key(&1));
    }
}
