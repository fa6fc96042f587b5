//! Responses to the requests of a proxy that is dead (protocol rule 21): which go upstream at once,
//! and which are withheld because another phone may yet answer.
//!
//! Whoever owns the call now knows of a dead proxy's branches only what their Vias say. A refusal of
//! one of several branches is acknowledged and kept; the best goes upstream when no other has come
//! for 64·T1, unless one was answered meanwhile.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use fleet::Membership;
use sip_message::{Message, Method, ResponseClass, StatusCode, Uri, parse_ip};

use crate::branch::{ProxyIdentity, TierVia, read_tier_via};
use crate::flow_token::read_path;
use crate::mac::KeyRing;
use crate::response::rank;
use crate::stateless::{FLOW_FIELD, SUSPECT_PARAM};
use crate::target::uri_of;

/// Of how many calls the refusals are withheld at once. Beyond it a refusal goes upstream at once,
/// and the other phones ring on until they give up.
pub const CALLS_MAX: usize = 10_000;
/// How many branches of one call are remembered; each puts off its end once.
const BRANCHES_MAX: usize = 60;

/// Whether the proxy that sent the request is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The balancer does not know, and has sent the response to that proxy as well.
    Suspect,
    Dead,
}

/// A response to a request of another proxy.
#[derive(Clone, Copy, Debug)]
pub struct Stray<'a> {
    /// Who sent the request.
    pub writer: ProxyIdentity,
    pub certainty: Certainty,
    /// The branch of that proxy.
    pub branch: &'a [u8],
    /// The branch of the balancer that the request came by: the same for an INVITE and its CANCEL.
    pub call: &'a [u8],
    /// The flow that the response came on, as a Path value, and the balancer in it.
    pub flow: Option<&'a [u8]>,
}

impl<'a> Stray<'a> {
    /// Reads the two topmost Vias: the dead proxy's, and below it a balancer's. Whoever has seen one
    /// Via of ours could put any other below it, so both MACs must hold.
    pub fn read(
        ring: &KeyRing,
        membership: Option<&Membership>,
        response: &Message<'a>,
    ) -> Option<Self> {
        let mut vias = response.vias();
        let (top, below) = (vias.next()?.ok()?, vias.next()?.ok()?);
        let TierVia::Proxy(writer) = read_tier_via(ring, &top) else { return None };
        let TierVia::Balancer { .. } = read_tier_via(ring, &below) else { return None };
        let field = response.named(FLOW_FIELD).next().map(|field| field.value);
        let is_suspect = field.is_some_and(|value| value.ends_with(SUSPECT_PARAM));
        Some(Self {
            writer,
            certainty: if is_suspect { Certainty::Suspect } else { Certainty::Dead },
            branch: top.branch()?,
            call: below.branch()?,
            flow: field.filter(|value| is_flow(ring, membership, value)),
        })
    }
}

/// Whether this is a Path of ours at a balancer of ours.
fn is_flow(ring: &KeyRing, membership: Option<&Membership>, value: &[u8]) -> bool {
    let Ok(uri) = Uri::parse(uri_of(value)) else { return false };
    let is_ours = uri.user().is_some_and(|user| read_path(ring, user).is_some());
    let address = parse_ip(uri.host()).map(|ip| (ip, uri.port().unwrap_or(5060)).into());
    let is_balancer = |address| membership.is_some_and(|it| it.balancer_at(address).is_some());
    is_ours && address.is_some_and(is_balancer)
}

/// What a response to a dead proxy's request is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Upstream, without its topmost Via. With another status if its own is not for a peer to hear.
    Pass(Option<StatusCode>),
    /// A refusal of an INVITE that may not be the last word.
    Withhold,
    /// It was for that proxy alone: a 100, or whatever answers a CANCEL.
    HopByHop,
    /// The client repeats its request, and then hears the right answer; or the phone repeats its
    /// refusal until somebody knows whether the proxy lives, which then acknowledges it.
    ComesAgain,
}

/// Judges by the response alone.
pub fn judge(stray: &Stray<'_>, response: &Message<'_>) -> Judgement {
    let Some(status) = response.status() else { return Judgement::HopByHop };
    let method = response.cseq().method;
    if status == StatusCode::TRYING || method == Method::Cancel {
        return Judgement::HopByHop;
    }
    if status.class() != ResponseClass::Failure {
        return Judgement::Pass(None);
    }
    // A flow that is gone may have been replaced by the next one (protocol rules 13 and 14).
    let is_open = stray.writer.several || status == StatusCode::FLOW_FAILED;
    let is_timeout = status == StatusCode::REQUEST_TIMEOUT;
    match method {
        Method::Invite if is_open && stray.certainty == Certainty::Suspect => Judgement::ComesAgain,
        Method::Invite if is_open => Judgement::Withhold,
        Method::Invite => Judgement::Pass(speakable(status)),
        _ if is_open || is_timeout => Judgement::ComesAgain,
        _ => Judgement::Pass(speakable(status)),
    }
}

/// What a peer is told instead of what only members say to each other.
pub fn speakable(status: StatusCode) -> Option<StatusCode> {
    match status {
        StatusCode::FLOW_FAILED => Some(StatusCode::TEMPORARILY_UNAVAILABLE),
        StatusCode::SERVICE_UNAVAILABLE => Some(StatusCode::SERVER_INTERNAL_ERROR),
        _ => None,
    }
}

/// Appends the ACK to a refusal of an INVITE that another proxy has sent: by its Via, over the flow
/// that the refusal came on. The Request-URI of the INVITE is not known; the To's stands for it,
/// since an ACK is found by its Via (RFC 3261 §17.2.3).
pub fn write_ack(response: &Message<'_>, flow: &[u8], out: &mut Vec<u8>) {
    use sip_message::HeaderName;
    let (Ok(via), Ok(to)) = (response.top_via(), response.to()) else { return };
    let cseq = response.cseq().number.to_string();
    let text = |name| response.field(name).map_or(&b""[..], |field| field.value);
    let parts: [&[u8]; 15] = [
        b"ACK ",
        to.uri_bytes(),
        b" SIP/2.0\r\nVia: ",
        via.value.text,
        b"\r\nRoute: ",
        flow.strip_suffix(SUSPECT_PARAM).unwrap_or(flow),
        b"\r\nMax-Forwards: 70\r\nFrom: ",
        text(HeaderName::FROM),
        b"\r\nTo: ",
        text(HeaderName::TO),
        b"\r\nCall-ID: ",
        response.call_id(),
        b"\r\nCSeq: ",
        cseq.as_bytes(),
        b" ACK\r\nContent-Length: 0\r\n\r\n",
    ];
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What becomes of a refusal that should be withheld. All but [`Fate::Full`] are acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate<H> {
    Kept,
    /// The call was cancelled: this is what the caller waits for.
    Released(H),
    /// The caller has had its answer.
    TooLate,
    /// No room: it goes upstream as if it were the only one.
    Full,
}

/// Calls of dead proxies of which refusals are withheld. `H` is the owner's handle of a response.
#[derive(Debug)]
pub struct Withheld<H> {
    patience: Duration,
    calls: HashMap<Box<[u8]>, Call<H>>,
    /// When each call may be over: what its own `until` does not confirm is out of date.
    queue: BinaryHeap<Reverse<(Instant, Box<[u8]>)>>,
}

#[derive(Debug)]
struct Call<H> {
    until: Instant,
    stage: Stage<H>,
    /// A branch was cancelled: the end is near, and nothing puts it off.
    is_ending: bool,
}

#[derive(Debug)]
enum Stage<H> {
    Waiting(Vec<Refused<H>>),
    Cancelled,
    Answered,
}

/// What one branch said.
#[derive(Debug)]
struct Refused<H> {
    branch: Box<[u8]>,
    rank: (u16, u8),
    response: H,
}

fn best<H>(refused: Vec<Refused<H>>) -> Option<H> {
    refused.into_iter().min_by_key(|it| it.rank).map(|it| it.response)
}

impl<H> Withheld<H> {
    /// `patience` is 64·T1.
    pub fn new(patience: Duration) -> Self {
        Self { patience, calls: HashMap::new(), queue: BinaryHeap::new() }
    }

    /// How many calls are known.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// A refusal of one branch; `keep` makes its handle.
    pub fn refuse(
        &mut self,
        now: Instant,
        stray: &Stray<'_>,
        status: StatusCode,
        keep: impl FnOnce() -> H,
    ) -> Fate<H> {
        let is_end = status == StatusCode::REQUEST_TERMINATED;
        if !self.calls.contains_key(stray.call)
            && !self.insert(now, stray.call, Stage::Waiting(Vec::new()))
        {
            return Fate::Full;
        }
        let Some(call) = self.calls.get_mut(stray.call) else { return Fate::Full };
        if matches!(call.stage, Stage::Answered) {
            return Fate::TooLate;
        }
        if matches!(call.stage, Stage::Cancelled) {
            call.stage = Stage::Answered;
            return Fate::Released(keep());
        }
        if let Stage::Waiting(refused) = &mut call.stage {
            let is_known = refused.iter().any(|it| *it.branch == *stray.branch);
            if !is_known && refused.len() < BRANCHES_MAX {
                let (rank, response) = (rank(status, false, false), keep());
                refused.push(Refused { branch: stray.branch.into(), rank, response });
                // Whoever has cancelled this branch waits for no other: the caller, of whose CANCEL
                // another proxy may know; or the dead one, which had a 2xx that its phone repeats
                // every T2.
                let until = now + self.patience / if is_end { 4 } else { 1 };
                call.until = if call.is_ending { call.until.min(until) } else { until };
                call.is_ending |= is_end;
                self.queue.push(Reverse((call.until, stray.call.into())));
            }
        }
        Fate::Kept
    }

    /// A final response has gone upstream: no refusal follows it, and the INVITE is over.
    pub fn answer(&mut self, now: Instant, call: &[u8]) {
        match self.calls.get_mut(call) {
            Some(known) => known.stage = Stage::Answered,
            None => drop(self.insert(now, call, Stage::Answered)),
        }
    }

    /// The caller has cancelled; `call` is the branch of the balancer that brought the CANCEL. What
    /// is kept is its answer; if nothing is, the next refusal will be.
    pub fn cancel(&mut self, now: Instant, call: &[u8]) -> Option<H> {
        let Some(known) = self.calls.get_mut(call) else {
            self.insert(now, call, Stage::Cancelled);
            return None;
        };
        match std::mem::replace(&mut known.stage, Stage::Answered) {
            Stage::Waiting(refused) => best(refused),
            Stage::Answered => None,
            Stage::Cancelled => {
                known.stage = Stage::Cancelled;
                None
            }
        }
    }

    /// Whether something of this call is withheld here, or has gone upstream from here.
    pub fn knows(&self, call: &[u8]) -> bool {
        let stage = self.calls.get(call).map(|call| &call.stage);
        matches!(stage, Some(Stage::Waiting(_) | Stage::Answered))
    }

    /// Whether the caller of an INVITE that comes now has had its answer, or will have it: what
    /// repeats late must not ring again.
    pub fn is_over(&self, call: &[u8]) -> bool {
        let stage = self.calls.get(call).map(|call| &call.stage);
        matches!(stage, Some(Stage::Answered | Stage::Cancelled))
    }

    /// What this branch of the call has said: an INVITE that comes again need not ask there.
    pub fn recall(&self, call: &[u8], branch: &[u8]) -> Option<&H> {
        let Stage::Waiting(refused) = &self.calls.get(call)?.stage else { return None };
        let known = refused.iter().find(|it| *it.branch == *branch)?;
        Some(&known.response)
    }

    /// When to call [`Self::pop_due`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// The next refusal whose time has come, if there is one: call until there is none. The call is
    /// remembered for as long again, so that a straggler is no second answer.
    pub fn pop_due(&mut self, now: Instant) -> Option<H> {
        while self.queue.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Reverse((at, key)) = self.queue.pop()?;
            let Some(call) = self.calls.get_mut(&key).filter(|call| call.until <= at) else {
                continue;
            };
            match std::mem::replace(&mut call.stage, Stage::Answered) {
                Stage::Waiting(refused) => {
                    call.until = now + self.patience;
                    self.queue.push(Reverse((call.until, key)));
                    return best(refused);
                }
                Stage::Cancelled | Stage::Answered => drop(self.calls.remove(&key)),
            }
        }
        None
    }

    /// `false`: there is no room.
    fn insert(&mut self, now: Instant, call: &[u8], stage: Stage<H>) -> bool {
        let has_room = self.calls.len() < CALLS_MAX;
        if has_room {
            let until = now + self.patience;
            self.queue.push(Reverse((until, call.into())));
            self.calls.insert(call.into(), Call { until, stage, is_ending: false });
        }
        has_room
    }
}

#[cfg(test)]
mod tests;
