//! What the table of owners costs with few and many members, as rows of a table for people:
//! `cargo bench -p sip-core --bench selection`.

use std::hint::black_box;
use std::mem::size_of;
use std::time::{Duration, Instant};

use fleet::ROWS_DEFAULT;
use sip_core::selection::Selection;
use testkit::proxies;

const KEY: [u8; 16] = *b"a key of a fleet";
const MEMBERS: [u16; 4] = [1, 10, 100, 1_000];
const CALLS: usize = 1_000_000;
const ROUNDS: usize = 5;

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed())
}

/// The fastest of the rounds, per call, nanoseconds.
fn choice_ns(selection: &Selection, call_ids: &[String]) -> f64 {
    let round = || {
        let choose = || {
            for call_id in call_ids {
                black_box(selection.owner(black_box(call_id.as_bytes()), |_| false));
            }
        };
        timed(choose).1.as_nanos() as f64 / call_ids.len() as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn imbalance(selection: &Selection, call_ids: &[String]) -> f64 {
    let mut shares = vec![0_u32; selection.members()];
    for call_id in call_ids {
        let owner = selection.owner(call_id.as_bytes(), |_| false);
        if let Some(share) = owner.and_then(|owner| shares.get_mut(owner)) {
            *share += 1;
        }
    }
    let most = shares.iter().max().copied().unwrap_or_default();
    f64::from(most) * shares.len() as f64 / call_ids.len() as f64
}

fn main() {
    let call_ids: Vec<String> =
        (0..CALLS).map(|number| format!("{number:08x}@192.0.2.{}", number % 250)).collect();
    println!("| members | a choice | max/mean of 10⁶ calls | made anew | one member more |");
    println!("|---|---|---|---|---|");
    for count in MEMBERS {
        let (mut selection, anew) = timed(|| Selection::new(ROWS_DEFAULT, KEY, &proxies(count)));
        let (choice, uneven) = (choice_ns(&selection, &call_ids), imbalance(&selection, &call_ids));
        let ((), more) = timed(|| selection.update(&proxies(count + 1)));
        println!(
            "| {count} | {choice:.0} ns | {uneven:.3} | {:.1} ms | {:.1} ms |",
            anew.as_secs_f64() * 1_000.0,
            more.as_secs_f64() * 1_000.0
        );
    }
    let row = 2 * size_of::<u16>();
    println!(
        "\n{ROWS_DEFAULT} rows of {row} octets: {} KiB, however many members.",
        ROWS_DEFAULT as usize * row / 1_024
    );
}
