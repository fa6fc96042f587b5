//! The way of a request past earlier owners of its call, and the stamp of the balancer that sent it
//! (protocol rules 19 and 20); likewise of a response whose proxy is dead (rule 21). This is a wire
//! format between members.
//!
//! `X-SipCloud-Way: KEY GENERATION STOPS MAC`, where STOPS is `-` for a request that has but one
//! stop, otherwise `FIRST,…,PRESENT/BACK,…`: the earlier owners and the present one, then those to
//! whom a CANCEL or an ACK walks back that matched nothing.

use std::net::SocketAddr;

use fleet::{EARLIER_SETS_MAX, GenerationNumber};
use sip_message::Message;

use crate::mac::{KeyRing, MAC_BYTES, Purpose, push_hex, read_hex};
use crate::text::{push_address, push_number};

/// The name of the field.
pub const WAY_FIELD: &[u8] = b"X-SipCloud-Way";

/// An owner of each earlier set, and the present one.
const STOPS_MAX: usize = EARLIER_SETS_MAX + 1;
/// Octets of the field without stops: name, two numbers of 20 digits, MAC, separators.
const FIELD_BYTES: usize = 84;
/// Octets of a stop: an IPv6 address, its brackets and port, a separator.
const STOP_BYTES: usize = 48;

/// The stops of one request: made by the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    stamp: GenerationNumber,
    stops: [Option<SocketAddr>; STOPS_MAX],
    len: usize,
    /// Which stop is the present owner; those behind it are only walked back to.
    present: usize,
}

impl Way {
    /// No stops yet; `stamp` is the generation that the balancer works with.
    pub const fn new(stamp: GenerationNumber) -> Self {
        Self { stamp, stops: [None; STOPS_MAX], len: 0, present: 0 }
    }

    /// An earlier owner that comes first. Each is visited once.
    pub fn push_earlier(&mut self, stop: Option<SocketAddr>) {
        self.push(stop);
    }

    /// The present owner, after all that come first.
    pub fn push_present(&mut self, stop: SocketAddr) {
        self.present = self.len;
        self.push(Some(stop));
    }

    /// An earlier owner that is walked back to.
    pub fn push_back(&mut self, stop: Option<SocketAddr>) {
        self.push(stop);
    }

    fn push(&mut self, stop: Option<SocketAddr>) {
        // More stops than sets cannot be: a node takes no generation with more.
        let is_new = stop.is_some() && !self.stops().any(|known| Some(known) == stop);
        if let Some(place) = self.stops.get_mut(self.len).filter(|_| is_new) {
            *place = stop;
            self.len += 1;
        }
    }

    fn stops(&self) -> impl Iterator<Item = SocketAddr> {
        self.stops.iter().copied().flatten()
    }

    /// Whether the present owner is the only stop.
    pub const fn is_direct(&self) -> bool {
        self.len < 2
    }

    /// Where the request goes from the balancer. Unspecified if there is no stop.
    pub fn first(&self) -> SocketAddr {
        self.stops().next().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// No more octets than this are written.
    pub const fn length_max(&self) -> usize {
        FIELD_BYTES + if self.is_direct() { 0 } else { self.len * STOP_BYTES }
    }

    /// Writes the whole line with its CRLF. No allocation once `out` has grown.
    pub fn write(&self, ring: &KeyRing, call_id: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(WAY_FIELD);
        out.extend_from_slice(b": ");
        push_hex(&[ring.signing_id()], out);
        out.push(b' ');
        let start = out.len();
        push_number(self.stamp.fence, out);
        out.push(b'.');
        push_number(self.stamp.counter, out);
        out.push(b' ');
        if self.is_direct() {
            out.push(b'-');
        } else {
            for (number, stop) in self.stops().enumerate() {
                if number > 0 {
                    out.push(if number == self.present + 1 { b'/' } else { b',' });
                }
                push_address(stop, out);
            }
        }
        let said = out.get(start..).unwrap_or_default();
        let mac = ring.sign(Purpose::Way).field(call_id).field(said).short();
        out.push(b' ');
        push_hex(&mac, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a proxy reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The generation of the balancer that sent the request.
    pub stamp: GenerationNumber,
    pub next: Next,
}

/// Where a request goes that matches nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nowhere: it is dealt with here.
    Nowhere,
    /// Whatever it is, on to this member; the present owner is still to come.
    On(SocketAddr),
    /// A CANCEL or an ACK to a refusal, back to this earlier owner.
    Back(SocketAddr),
}

/// Reads the field for the member at `me`. `None` if there is none or its MAC does not hold: then it
/// is not a balancer's.
pub fn read(ring: &KeyRing, message: &Message<'_>, me: SocketAddr) -> Option<Handover> {
    let value = message.named(WAY_FIELD).next()?.value;
    let (key_id, rest) = value.split_at_checked(3)?;
    let [key_id] = read_hex::<1>(key_id.strip_suffix(b" ")?)?;
    let (said, claimed) = rest.split_at_checked(rest.len().checked_sub(1 + 2 * MAC_BYTES)?)?;
    let claimed: [u8; MAC_BYTES] = read_hex(claimed.strip_prefix(b" ")?)?;
    let mac = ring.with_key(Purpose::Way, key_id)?.field(message.call_id()).field(said);
    if !mac.holds(&claimed) {
        return None;
    }
    let (stamp, stops) = std::str::from_utf8(said).ok()?.split_once(' ')?;
    let (fence, counter) = stamp.split_once('.')?;
    let stamp = GenerationNumber { fence: fence.parse().ok()?, counter: counter.parse().ok()? };
    let (ahead, back) = stops.split_once('/').unwrap_or((stops, ""));
    Some(Handover { stamp, next: next(ahead, back, me) })
}

fn next(ahead: &str, back: &str, me: SocketAddr) -> Next {
    let parse = |stop: &str| stop.parse::<SocketAddr>().ok();
    let ahead_of_me = ahead.split(',').filter_map(parse).skip_while(|stop| *stop != me);
    let mut here = ahead_of_me.peekable();
    if here.peek().is_some() {
        if let Some(next) = here.nth(1) {
            return Next::On(next);
        }
        return back.split(',').find_map(parse).map_or(Next::Nowhere, Next::Back);
    }
    let mut behind_me = back.split(',').filter_map(parse).skip_while(|stop| *stop != me);
    behind_me.nth(1).map_or(Next::Nowhere, Next::Back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{check, earlier_ring, ring};

    fn stop(slot: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 20, slot], 5060))
    }

    fn way(earlier: &[u8], present: u8, back: &[u8]) -> Way {
        let mut way = Way::new(GenerationNumber { fence: 3, counter: 17 });
        earlier.iter().for_each(|&slot| way.push_earlier(Some(stop(slot))));
        way.push_present(stop(present));
        back.iter().for_each(|&slot| way.push_back(Some(stop(slot))));
        way
    }

    fn line(way: &Way) -> String {
        let mut out = Vec::new();
        way.write(&ring(), b"a84b4c76e66710", &mut out);
        assert!(out.len() <= way.length_max());
        String::from_utf8(out).expect("ASCII")
    }

    fn request(call_id: &str, line: &str) -> sip_message::OwnedMessage {
        testkit::request(&format!(
            "CANCEL sip:bob@example.com SIP/2.0\n{}Call-ID: {call_id}\n",
            line.replace('\r', "")
        ))
    }

    #[test]
    fn ways_are_pinned() {
        let mut golden = String::new();
        for one in [way(&[], 1, &[]), way(&[1, 2], 3, &[]), way(&[1], 2, &[4, 3])] {
            golden.push_str(&line(&one));
        }
        check("way.golden", &golden);
    }

    #[test]
    fn a_request_walks_from_stop_to_stop_and_only_then_back() {
        let text = line(&way(&[1, 2], 3, &[5, 4]));
        let request = request("a84b4c76e66710", &text);
        let next = |slot| read(&ring(), &request.view(), stop(slot)).expect("a way").next;
        let expected = [
            (1, Next::On(stop(2))),
            (2, Next::On(stop(3))),
            (3, Next::Back(stop(5))),
            (5, Next::Back(stop(4))),
            (4, Next::Nowhere),
            (9, Next::Nowhere),
        ];
        for (slot, expected) in expected {
            assert_eq!(next(slot), expected, "at proxy {slot}");
        }
    }

    #[test]
    fn each_member_is_visited_once() {
        assert_eq!(way(&[1, 2, 1], 3, &[2, 4]), way(&[1, 2], 3, &[4]));
    }

    /// Nobody but a balancer says where a request goes next, and only for this call.
    #[test]
    fn a_way_is_believed_only_if_its_mac_holds() {
        let text = line(&way(&[1], 2, &[]));
        let read_at_1 = |text: &str, call_id: &str, ring: &KeyRing| {
            read(ring, &request(call_id, text).view(), stop(1)).map(|it| it.next)
        };
        let good = Some(Next::On(stop(2)));
        assert_eq!(read_at_1(&text, "a84b4c76e66710", &ring()), good);
        assert_eq!(read_at_1(&text, "a84b4c76e66710", &earlier_ring()), good, "another key signs");
        assert_eq!(read_at_1(&text, "another-call", &ring()), None);
        let moved = text.replace("127.0.20.2", "127.0.20.9");
        assert_eq!(read_at_1(&moved, "a84b4c76e66710", &ring()), None);
        for broken in ["X-SipCloud-Way: \n", "X-SipCloud-Way: 02 3.17 -\n", "X-SipCloud-Way: zz\n"]
        {
            assert_eq!(read_at_1(broken, "a84b4c76e66710", &ring()), None, "{broken}");
        }
    }
}
