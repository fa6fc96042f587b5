//! What became of every call, and what must never become of one.

use std::time::{Duration, Instant};

use super::super::network::Sent;
use super::super::peers::Phase;
use super::Cloud;

impl Cloud {
    /// What the proxies that live have inherited: forwarded, matched, withheld, released.
    pub(in super::super) fn inherited(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for proxy in self.proxies.values() {
            let counters = &proxy.worker.world.counters;
            let cells = [
                &counters.strays_forwarded,
                &counters.strays_adopted,
                &counters.strays_withheld,
                &counters.strays_released,
            ];
            sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell.get());
        }
        sums
    }

    /// The first lines of what was sent, in order.
    pub(in super::super) fn sent(&self) -> Vec<String> {
        self.network.log.iter().map(Sent::first_line).collect()
    }

    /// The flow of a call, packet by packet.
    fn flow(&self, call_id: &str) -> String {
        let of_call = self.network.log.iter().filter(|sent| sent.is_of(call_id));
        of_call.map(|sent| sent.story(testkit::epoch())).collect::<Vec<_>>().join("\n")
    }

    pub(in super::super) fn check(&self) {
        for caller in &self.callers {
            let call = caller.call_id();
            let rings: Vec<(String, Phase, usize)> = self
                .phones
                .iter()
                .filter_map(|phone| {
                    let ring = phone.rings.get(&call)?;
                    Some((phone.tag(), ring.phase, ring.alerts))
                })
                .collect();
            let story = || {
                let (plan, heard, flow) = (caller.plan, &caller.story, self.flow(&call));
                format!("{plan:?} {call}\n{flow}\n{heard:#?}\n{rings:?}\n{:#?}", self.history)
            };
            let finals = caller.answers.len() + caller.refusals.len();
            // What was answered to a CANCEL and not yet heard by the phone died with the proxy.
            let is_doomed = |death: &Instant| {
                let before = |at| death.checked_duration_since(at);
                let left = caller.cancelled_at.and_then(before);
                left.is_some_and(|left| left < Duration::from_secs(4))
            };
            if self.deaths.iter().any(is_doomed) {
                assert!(finals <= 1, "{}", story());
                continue;
            }
            assert_eq!(caller.gave_up, None, "{}", story());
            assert_eq!(finals, 1, "one final response: {}", story());
            for (phone, phase, alerts) in &rings {
                assert_eq!(*alerts, 1, "{phone} rang twice: {}", story());
                let is_heard = caller.answers.contains(phone);
                assert_eq!(*phase == Phase::Answered, is_heard, "{phone}: {}", story());
                let is_cancelled = caller.is_cancelled && caller.answers.is_empty();
                assert!(!(is_cancelled && *phase == Phase::Ringing), "{phone}: {}", story());
            }
        }
    }
}
