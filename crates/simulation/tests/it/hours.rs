//! Random hours: loads, deaths, silences, partial lists, half launches, restarts, jumps of the clock.

use simulation::random;

/// Hours that every test run plays; `SIPCLOUD_HOURS` asks for more, as does `sipcloud simulate --random`.
const HOURS: u64 = 1_000;

/// Never above the maximum, never below the minimum by the manager's own doing, no launch beyond the
/// limit, no shrinking on missing data, no proxy ended that is in a table or has transactions,
/// generations that only rise; and at the end of each life no orphan, one table, the right names.
/// `SIPCLOUD_SEED` replays.
#[test]
fn random_hours_with_faults_break_no_promise() {
    #[expect(clippy::disallowed_methods, reason = "switches of this test")]
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let hours = asked("SIPCLOUD_HOURS").unwrap_or(HOURS);
    let outcome = random(asked("SIPCLOUD_SEED").unwrap_or(1), hours, |_| {});
    if let Some(broken) = outcome.broken {
        let violations: Vec<String> = broken.violations.iter().map(ToString::to_string).collect();
        panic!(
            "{}\n{}\nreplay: SIPCLOUD_SEED={} cargo test -p simulation random_hours",
            broken.story,
            violations.join("\n"),
            broken.seed
        );
    }
    assert!(outcome.faults > hours, "{outcome:?}");
}
