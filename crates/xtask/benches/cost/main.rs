//! What messages cost, in counts: one balancer and one proxy, turned by hand in one thread, carry calls
//! of the paper's Figure 4 to registered callees, or their registrations. `cargo xtask cost` runs
//! this, bare and under valgrind, and compares.
//!
//! `cost SCENE ELEMENT`: `call` or `registration`, `balancer` or `proxy`. Everybody says the same thing
//! at once, so an element meets bursts of 32 messages. What is counted is what happens within
//! [`counted_turn`]: the whole turn of the element's event loop, sockets included. Time stands still
//! within a lap and then passes for all timers, so a call's cost includes forgetting it.

mod bed;
mod phone;

use bed::{Bed, ElementName};
use testkit::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Laps before counting: tables and buffers grow, what a lap leaves behind is collected by a later one.
const LAPS_BEFORE: usize = 4;
const LAPS_COUNTED: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (lap, counted): (fn(&mut Bed), _) = match words[..] {
        ["call", element] => (Bed::call, element),
        ["registration", element] => (Bed::register, element),
        _ => {
            eprintln!("usage: cost call|registration balancer|proxy; see cargo xtask cost");
            return;
        }
    };
    let counted = match counted {
        "balancer" => ElementName::Balancer,
        "proxy" => ElementName::Proxy,
        other => panic!("{other} is neither balancer nor proxy"),
    };
    let mut bed = Bed::new();
    bed.register();
    for _ in 0..LAPS_BEFORE {
        lap(&mut bed);
    }
    bed.count(counted);
    for _ in 0..LAPS_COUNTED {
        lap(&mut bed);
    }
    let total = bed.counted();
    println!(
        r#"{{"laps":{},"allocations":{},"allocated_bytes":{}}}"#,
        LAPS_COUNTED * phone::PAIRS,
        total.count,
        total.bytes
    );
}

/// Valgrind counts what is called from here, and finds it by its name.
#[inline(never)]
fn counted_turn(turn: &mut dyn FnMut()) -> testkit::Allocations {
    let before = allocations();
    turn();
    allocations().since(before)
}
