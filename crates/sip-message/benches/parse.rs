//! What one INVITE costs: nanoseconds and allocations. `cargo bench -p sip-message`.

#[path = "support/call_path.rs"]
mod call_path;

use std::hint::black_box;
use std::time::Instant;

use call_path::{INVITE, read};
use sip_message::{Edits, Framing, Index, parse};
use testkit::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const ROUNDS: usize = 15;
const REPETITIONS: u32 = 100_000;

/// The fastest round, and the allocations of one repetition.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn measure(name: &str, mut work: impl FnMut()) {
    let mut fastest = f64::INFINITY;
    let before = allocations();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..REPETITIONS {
            work();
        }
        fastest = fastest.min(start.elapsed().as_nanos() as f64 / f64::from(REPETITIONS));
    }
    let allocated =
        allocations().since(before).count as f64 / (ROUNDS as f64 * f64::from(REPETITIONS));
    println!("{name:<40} {fastest:>8.0} ns {allocated:>6.1} allocations");
}

fn main() {
    println!("INVITE of {} octets", INVITE.len());
    let mut index = Index::new();
    measure("parse", || {
        black_box(parse(black_box(INVITE), &mut index, Framing::Datagram).is_ok());
    });
    let mut index = Index::new();
    measure("parse and the fields of a balancer", || {
        black_box(read(black_box(INVITE), &mut index));
    });
    let mut index = Index::new();
    let mut edits = Edits::new();
    let mut out = Vec::with_capacity(2048);
    measure("parse, edit as a balancer, write", || {
        let Ok(message) = parse(black_box(INVITE), &mut index, Framing::Datagram) else { return };
        let Ok(via) = message.top_via() else { return };
        edits.clear();
        out.clear();
        edits.insert(via.end(), b";received=192.0.2.10");
        edits.insert(message.headers_start(), b"Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n");
        edits.remove_first(&message, sip_message::HeaderName::ROUTE, 1);
        edits.apply(message.bytes(), &mut out);
        black_box(&out);
    });
}
