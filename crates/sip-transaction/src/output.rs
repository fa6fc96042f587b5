//! What the layer says to its owner: transmissions, events and verdicts.

use bytes::Bytes;
use sip_message::StatusCode;

use crate::table::Id;

/// Names one server transaction; never names a later one, even in the same place of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub(crate) Id);

/// Names one client transaction; never names a later one, even in the same place of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(crate) Id);

/// Which of the two families of machines a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invite,
    NonInvite,
}

/// Whose message is transmitted: whom to tell if the transport fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    Server(ServerId),
    Client(ClientId),
}

/// Where the layer puts what it wants done, in order.
pub trait Sink<D> {
    /// Sends `bytes` to `to`. If the transport fails later, the owner calls
    /// `client_transport_error` or `server_transport_error` with the transaction in `from`.
    ///
    /// # Cost
    ///
    /// The bytes are lent; keeping them is one reference count.
    fn transmit(&mut self, to: &D, bytes: &Bytes, from: Origin);

    /// Tells the transaction user.
    fn event(&mut self, event: Event);
}

/// What happened to a transaction besides messages.
///
/// `…TimedOut` and `…TransportFailed` come before the `…Terminated` of the same transaction, which
/// is always its last. Where a call also returns a verdict, act on the verdict first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody answered (timer B or F): as good as a 408 (RFC 3261 §8.1.3.1).
    ClientTimedOut(ClientId),
    /// The transport failed: as good as a 503 (RFC 3261 §8.1.3.1).
    ClientTransportFailed(ClientId),
    ClientTerminated(ClientId),
    /// No ACK came for a non-2xx final response (timer H).
    ServerTimedOut(ServerId),
    /// A response could not be sent. An INVITE's transaction goes on (RFC 6026 §7.1).
    ServerTransportFailed(ServerId),
    ServerTerminated(ServerId),
}

/// What to do with a response that matched a client transaction.
#[must_use = "a response to deliver is for the transaction user"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientVerdict {
    /// It is news: give it to the transaction user.
    Deliver,
    /// It is a repetition or too late: the machine did what was needed.
    Absorb,
}

/// What to do with an ACK that matched a server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckVerdict {
    /// It acknowledged a non-2xx response, and ends here.
    Absorb,
    /// It acknowledges a 2xx (RFC 6026 §7.1): for the transaction user, who forwards it.
    Deliver,
}

/// The three kinds of responses that machines tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Provisional,
    Success,
    Failure,
}

impl Outcome {
    pub(crate) fn of(status: StatusCode) -> Self {
        match status.code() {
            ..200 => Self::Provisional,
            200..300 => Self::Success,
            _ => Self::Failure,
        }
    }
}

/// What a client machine wants of the layer.
#[must_use = "the machine has already moved on"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientStep {
    Nothing,
    /// Transmit the request again.
    Repeat,
    Deliver,
    /// Transmit this ACK.
    Acknowledge(Bytes),
    AcknowledgeAndDeliver(Bytes),
    TimedOut,
    TransportFailed,
}

/// What a server machine wants of the layer.
#[must_use = "the machine has already moved on"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerStep {
    Nothing,
    /// Transmit the last response again.
    Repeat,
    TimedOut,
    TransportFailed,
}

/// What a server machine makes of a response of its user.
#[must_use = "the machine has already moved on"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Transmit it and keep it: it is the last response now.
    SendAndKeep,
    /// Transmit it and forget it: repeating it is somebody else's duty.
    Send,
    /// The request has its final response already.
    Ignore,
}
