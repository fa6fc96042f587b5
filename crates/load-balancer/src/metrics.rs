//! What a balancer counts: per thread, so that no two threads write one cache line.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sip_core::stateless::{DropReason, ReplyReason};

/// A total that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self, more: u64) {
        // One writer: a load and a store will do, and cost no locked instruction.
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Why the role itself, not the decision, sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleDrop {
    MalformedRequest,
    MalformedResponse,
    /// A CRLF alone, over UDP: nothing to answer (RFC 5626 §3.5.2 uses STUN there).
    KeepAlive,
    ConnectionGone,
    StreamRefused,
    StreamFailed,
    SendFailed,
    SendBufferFull,
    UnknownListener,
    /// A repeat of what is kept for a stream found no member alive; it will be tried again.
    RepeatWithoutMember,
    /// An ACK to a refusal whose sender, on a stream, has it already.
    RepeatedAck,
}

impl RoleDrop {
    const ALL: [Self; 11] = [
        Self::MalformedRequest,
        Self::MalformedResponse,
        Self::KeepAlive,
        Self::ConnectionGone,
        Self::StreamRefused,
        Self::StreamFailed,
        Self::SendFailed,
        Self::SendBufferFull,
        Self::UnknownListener,
        Self::RepeatWithoutMember,
        Self::RepeatedAck,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed_request",
            Self::MalformedResponse => "malformed_response",
            Self::KeepAlive => "keep_alive",
            Self::ConnectionGone => "connection_gone",
            Self::StreamRefused => "stream_refused",
            Self::StreamFailed => "stream_failed",
            Self::SendFailed => "send_failed",
            Self::SendBufferFull => "send_buffer_full",
            Self::UnknownListener => "unknown_listener",
            Self::RepeatWithoutMember => "repeat_without_member",
            Self::RepeatedAck => "repeated_ack",
        }
    }
}

/// Why the role itself answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleReply {
    Malformed,
    FlowGone,
}

impl RoleReply {
    const ALL: [Self; 2] = [Self::Malformed, Self::FlowGone];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::FlowGone => "flow_gone",
        }
    }
}

/// Everything that one thread counts, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) requests_received: Total,
    pub(crate) responses_received: Total,
    pub(crate) bytes_received: Total,
    pub(crate) bytes_sent: Total,
    pub(crate) to_members: Total,
    pub(crate) to_flows: Total,
    pub(crate) calls: Total,
    pub(crate) batches: Total,
    pub(crate) kernel_drops: Total,
    pub(crate) oversized: Total,
    pub(crate) member_errors: Total,
    pub(crate) client_errors: Total,
    pub(crate) last_activity_ms: Total,
    replies: [Total; ReplyReason::ALL.len()],
    role_replies: [Total; RoleReply::ALL.len()],
    drops: [Total; DropReason::ALL.len()],
    role_drops: [Total; RoleDrop::ALL.len()],
}

impl Counters {
    pub(crate) fn count_reply(&self, reason: ReplyReason) {
        bump(&ReplyReason::ALL, &self.replies, reason);
    }

    pub(crate) fn count_role_reply(&self, reason: RoleReply) {
        bump(&RoleReply::ALL, &self.role_replies, reason);
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        bump(&DropReason::ALL, &self.drops, reason);
    }

    pub(crate) fn count_role_drop(&self, reason: RoleDrop) {
        bump(&RoleDrop::ALL, &self.role_drops, reason);
    }

    /// Messages that were not sent on and not answered. Keep-alives are none, and what comes again
    /// is none.
    pub(crate) fn dropped(&self) -> u64 {
        let no_loss = [RoleDrop::KeepAlive, RoleDrop::RepeatWithoutMember, RoleDrop::RepeatedAck];
        let role = RoleDrop::ALL.iter().zip(&self.role_drops);
        let role = role.filter(|(reason, _)| !no_loss.contains(reason));
        self.drops.iter().map(Total::get).sum::<u64>()
            + role.map(|(_, total)| total.get()).sum::<u64>()
    }

    pub(crate) fn replied(&self) -> u64 {
        self.replies.iter().chain(&self.role_replies).map(Total::get).sum()
    }

    /// Label and value of every reason.
    fn reply_rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let core = ReplyReason::ALL.iter().map(|reason| reason.as_str()).zip(&self.replies);
        let role = RoleReply::ALL.iter().map(|reason| reason.as_str()).zip(&self.role_replies);
        core.chain(role).map(|(label, total)| (label, total.get()))
    }

    fn drop_rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let core = DropReason::ALL.iter().map(|reason| reason.as_str()).zip(&self.drops);
        let role = RoleDrop::ALL.iter().map(|reason| reason.as_str()).zip(&self.role_drops);
        core.chain(role).map(|(label, total)| (label, total.get()))
    }
}

fn bump<T: PartialEq, const N: usize>(all: &[T; N], totals: &[Total; N], reason: T) {
    if let Some((_, total)) = all.iter().zip(totals).find(|(one, _)| **one == reason) {
        total.add(1);
    }
}

/// Writes Prometheus text, family by family.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) out: String,
}

impl Text {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let _ = match labels {
            "" => writeln!(self.out, "{name} {value}"),
            _ => writeln!(self.out, "{name}{{{labels}}} {value}"),
        };
    }

    /// One family with a sample per thread.
    fn per_thread(
        &mut self,
        (name, help): (&str, &str),
        threads: &[impl AsRef<Counters>],
        value: impl Fn(&Counters) -> u64,
    ) {
        self.family(name, "counter", help);
        for (thread, counters) in threads.iter().enumerate() {
            self.sample(name, &format!("thread=\"{thread}\""), value(counters.as_ref()));
        }
    }

    /// What the threads count.
    pub(crate) fn threads(&mut self, threads: &[impl AsRef<Counters>]) {
        type Read = fn(&Counters) -> u64;
        let families: [(&str, &str, Read); 11] = [
            ("requests_received_total", "Requests that could be read.", |c| {
                c.requests_received.get()
            }),
            ("responses_received_total", "Responses that could be read.", |c| {
                c.responses_received.get()
            }),
            ("to_members_total", "Messages sent to proxies.", |c| c.to_members.get()),
            ("to_flows_total", "Messages sent to clients.", |c| c.to_flows.get()),
            ("received_bytes_total", "Bytes of messages received.", |c| c.bytes_received.get()),
            ("sent_bytes_total", "Bytes of messages sent.", |c| c.bytes_sent.get()),
            ("batches_total", "Batches of datagrams taken from the sockets.", |c| c.batches.get()),
            ("kernel_drops_total", "Datagrams that came while a socket's buffer was full.", |c| {
                c.kernel_drops.get()
            }),
            ("oversized_total", "Datagrams beyond the largest size.", |c| c.oversized.get()),
            ("member_errors_total", "Datagrams to proxies that the network gave back.", |c| {
                c.member_errors.get()
            }),
            ("client_errors_total", "Datagrams to others that the network gave back.", |c| {
                c.client_errors.get()
            }),
        ];
        for (name, help, read) in families {
            self.per_thread((&format!("sipcloud_balancer_{name}"), help), threads, read);
        }
        let name = "sipcloud_balancer_replies_total";
        self.family(name, "counter", "Requests that the balancer answered itself, by reason.");
        for (thread, counters) in threads.iter().enumerate() {
            for (reason, value) in counters.as_ref().reply_rows() {
                self.sample(name, &format!("thread=\"{thread}\",reason=\"{reason}\""), value);
            }
        }
        let name = "sipcloud_balancer_dropped_total";
        self.family(name, "counter", "Messages that were neither sent on nor answered, by reason.");
        for (thread, counters) in threads.iter().enumerate() {
            for (reason, value) in counters.as_ref().drop_rows() {
                self.sample(name, &format!("thread=\"{thread}\",reason=\"{reason}\""), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_drop_and_reply_has_a_label_of_its_own() {
        let counters = Arc::new(Counters::default());
        counters.count_drop(DropReason::ResponseNotOurs);
        counters.count_role_drop(RoleDrop::KeepAlive);
        counters.count_reply(ReplyReason::NoMember);
        let mut text = Text::default();
        text.threads(&[Arc::clone(&counters)]);
        for line in [
            "sipcloud_balancer_dropped_total{thread=\"0\",reason=\"response_not_ours\"} 1\n",
            "sipcloud_balancer_dropped_total{thread=\"0\",reason=\"keep_alive\"} 1\n",
            "sipcloud_balancer_replies_total{thread=\"0\",reason=\"no_member\"} 1\n",
            "sipcloud_balancer_dropped_total{thread=\"0\",reason=\"malformed_request\"} 0\n",
        ] {
            assert!(text.out.contains(line), "{line} is missing in {}", text.out);
        }
        let samples: Vec<&str> = text.out.lines().filter(|line| !line.starts_with('#')).collect();
        let mut names: Vec<&str> =
            samples.iter().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), samples.len(), "no sample appears twice");
        assert_eq!((counters.dropped(), counters.replied()), (1, 1), "a keep-alive is no loss");
    }
}
