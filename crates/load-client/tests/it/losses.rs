//! Silence and losses: what retransmission mends, and what fails without it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use load_client::{Plan, Retransmission, Uas};

use crate::{challenging, plan, run};

/// A wire between one caller and one callee that loses every fifth datagram.
struct LossyWire {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LossyWire {
    fn between(local: &str, callee: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).expect("an address of our own");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let address = socket.local_addr().expect("bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut caller = callee;
            let mut buffer = [0; 4_096];
            let mut count = 0;
            while !over.load(Ordering::Acquire) {
                let Ok((length, source)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                count += 1;
                if count % 5 == 0 {
                    continue;
                }
                let to = if source == callee {
                    caller
                } else {
                    caller = source;
                    callee
                };
                // What cannot be sent is lost, as on any wire.
                let _ = socket.send_to(&buffer[..length], to);
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }
}

impl Drop for LossyWire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the wire");
        }
    }
}

#[test]
fn lost_messages_are_mended_by_retransmission_and_fail_calls_without_it() {
    let uas = Uas::start(challenging("127.82.1.1:0")).expect("a callee");
    let wire = LossyWire::between("127.82.1.3:0", uas.addresses()[0]);
    let patient = plan("127.82.1.2:0", &[wire.address], "50@400ms");
    let report = run(&patient);
    assert_eq!((report.succeeded, report.failed), (20, 0), "{report}");
    assert!((1..=20).contains(&report.healed), "every fifth message was lost: {report}");

    let brittle = Plan { retransmission: Retransmission::Off, ..patient };
    let report = run(&brittle);
    assert!(report.failed > 0 && report.succeeded + report.failed == 20, "{report}");
    assert!(report.failures.iter().all(|it| it.came == "nothing"), "{report}");
    assert!(!report.own.lost_messages(), "the wire lost them, not we");
}

/// The first target is an address where nobody listens.
#[test]
fn calls_fail_over_to_the_target_that_answers() {
    let silent = UdpSocket::bind("127.82.2.3:0").expect("an address of our own");
    let uas = Uas::start(challenging("127.82.2.1:0")).expect("a callee");
    let targets = [silent.local_addr().expect("bound"), uas.addresses()[0]];
    let report = run(&plan("127.82.2.2:0", &targets, "50@200ms"));
    assert_eq!((report.succeeded, report.failed), (10, 0), "{report}");
    assert!((1..=5).contains(&report.failed_over), "once found dead, it is avoided: {report}");
    assert_eq!(report.healed, report.failed_over);
}

/// A port where nobody listens answers by ICMP: no timer is waited for, here 64 · 500 ms.
#[test]
fn an_icmp_error_is_a_reason_to_try_the_next_target() {
    let gone = UdpSocket::bind("127.82.5.3:0").expect("an address of our own");
    let nobody = gone.local_addr().expect("bound");
    drop(gone);
    let uas = Uas::start(challenging("127.82.5.1:0")).expect("a callee");
    let plan = Plan {
        timing: load_client::Timing::RFC_3261,
        ..plan("127.82.5.2:0", &[nobody, uas.addresses()[0]], "50@200ms")
    };
    let report = run(&plan);
    assert_eq!((report.succeeded, report.failed), (10, 0), "{report}");
    assert!((1..=5).contains(&report.failed_over) && report.healed > 0, "{report}");
    assert!(report.answer.max() < load_client::Timing::RFC_3261.sixty_four_t1(), "{report}");
}

/// A 503 is no answer of the service: it is asked elsewhere (RFC 3263 §4.3).
#[test]
fn a_503_is_a_reason_to_try_the_next_target() {
    let busy = load_client::UasOptions { refuse_with: Some(503), ..challenging("127.82.6.3:0") };
    let busy = Uas::start(busy).expect("a callee");
    let uas = Uas::start(challenging("127.82.6.1:0")).expect("a callee");
    let targets = [busy.addresses()[0], uas.addresses()[0]];
    let report = run(&plan("127.82.6.2:0", &targets, "50@200ms"));
    assert_eq!((report.succeeded, report.failed), (10, 0), "{report}");
    assert_eq!((report.failed_over, report.healed), (5, 5), "{report}");
    // With one target it is what came.
    let report = run(&plan("127.82.6.4:0", busy.addresses(), "50@100ms"));
    assert_eq!((report.succeeded, report.failed), (0, 5), "{report}");
    assert!(report.causes.keys().all(|cause| cause.starts_with("503 ")), "{report}");
}

#[test]
fn unanswered_calls_fail_with_what_was_expected() {
    let silent = UdpSocket::bind("127.82.3.3:0").expect("an address of our own");
    let target = silent.local_addr().expect("bound");
    for retransmission in [Retransmission::On, Retransmission::Off] {
        let plan = Plan { retransmission, ..plan("127.82.3.2:0", &[target], "50@100ms") };
        let report = run(&plan);
        assert_eq!((report.succeeded, report.failed), (0, 5), "{report}");
        let failure = report.failures.first().expect("a failure");
        assert_eq!((failure.expected, failure.came.as_str()), ("an answer to INVITE", "nothing"));
    }
}

/// A callee that rings for ever is given up, and its phone is silenced by a CANCEL.
#[test]
fn a_call_that_rings_too_long_fails_and_is_cancelled() {
    let uas = Uas::start(load_client::UasOptions {
        ring_for: Duration::from_secs(60),
        ..challenging("127.82.4.1:0")
    })
    .expect("a callee");
    let plan = Plan {
        answer_within: Duration::from_millis(100),
        ..plan("127.82.4.2:0", uas.addresses(), "50@100ms")
    };
    let report = run(&plan);
    assert_eq!((report.succeeded, report.failed, report.unfinished), (0, 5, 0), "{report}");
    assert_eq!(report.failures[0].expected, "200 to INVITE");
    assert_eq!(uas.stop().cancelled, 5);
    assert_eq!(report.own.unreadable, 0);
}
