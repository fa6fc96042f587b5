//! Whole clouds on virtual time: real workers and the balancers' real decision between callers and
//! phones that keep to RFC 3261, over a network that loses, repeats and reorders, while proxies come,
//! go and die. `SIPCLOUD_SEED=n` plays one seed alone.

mod cloud;
mod network;
mod peers;

use std::time::Duration;

use cloud::Cloud;
use testkit::Random;

/// A seed plays about four minutes in half a second.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=30;

/// What happens to a cloud, with the chance of it in each second.
struct Weather {
    lost_percent: u64,
    repeated_percent: u64,
    late_percent: u64,
    /// How late such a packet is at most.
    late_ms: u64,
    change_percent: u64,
    suspicion_percent: u64,
    /// How many callers try the other balancer when they hear nothing.
    fail_over_percent: u64,
    deaths: u64,
}

const CALM: Weather = Weather {
    lost_percent: 0,
    repeated_percent: 0,
    late_percent: 0,
    late_ms: 0,
    change_percent: 0,
    suspicion_percent: 0,
    fail_over_percent: 40,
    deaths: 2,
};

const ROUGH: Weather = Weather {
    lost_percent: 5,
    repeated_percent: 5,
    late_percent: 3,
    late_ms: 300,
    change_percent: 8,
    suspicion_percent: 3,
    fail_over_percent: 0,
    deaths: 2,
};

/// In which seconds proxies die: far enough apart that what one death left is settled at the next.
fn deaths(random: &mut Random, weather: &Weather) -> Vec<u64> {
    (0..weather.deaths).map(|number| 8 + 50 * number + random.below(15)).collect()
}

/// Plays one seed; returns what the survivors of its deaths have inherited.
fn play(seed: u64, weather: &Weather) -> [u64; 4] {
    let mut random = Random::new(seed);
    let deaths = deaths(&mut random, weather);
    let mut cloud = Cloud::new(random.next_u64(), weather);
    for second in 0..240 {
        let calls = if second < 90 { random.below(3) } else { 0 };
        (0..calls).for_each(|_| cloud.begin_call());
        if second < 140 {
            if random.percent(weather.change_percent) {
                cloud.change_owners();
            }
            if random.percent(weather.suspicion_percent) {
                cloud.suspect_somebody();
            }
        }
        let mut rest = Duration::from_secs(1);
        if deaths.contains(&second) {
            // Some calls have just begun.
            (0..6).for_each(|_| cloud.begin_call());
            let before = Duration::from_millis(10 + random.below(250));
            cloud.run(before);
            cloud.kill_a_proxy();
            rest -= before;
        }
        cloud.run(rest);
    }
    cloud.check();
    cloud.inherited()
}

#[expect(clippy::disallowed_methods, reason = "a replay is asked for by the environment")]
fn seeds() -> Vec<u64> {
    match std::env::var("SIPCLOUD_SEED") {
        Ok(seed) => vec![seed.parse().expect("SIPCLOUD_SEED is a number")],
        Err(_) => SEEDS.collect(),
    }
}

/// Plays every seed, or the one that is asked for; the sums of what was inherited.
fn play_all(weather: &Weather, test: &str) -> [u64; 4] {
    let seeds = seeds();
    let is_whole = seeds.len() > 1;
    let mut sums = [0; 4];
    for seed in seeds {
        match std::panic::catch_unwind(|| play(seed, weather)) {
            Ok(more) => sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
            Err(panic) => {
                eprintln!("replay with: SIPCLOUD_SEED={seed} cargo test -p proxy --lib {test}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    if is_whole { sums } else { [1; 4] }
}

/// No call is answered twice, no phone rings twice for a call or on after the CANCEL, and every caller
/// hears exactly one final response, whatever the network and the fleet do.
#[test]
fn no_call_is_lost_or_answered_twice_whatever_dies() {
    let [forwarded, _, withheld, released] =
        play_all(&ROUGH, "no_call_is_lost_or_answered_twice_whatever_dies");
    assert!(forwarded > 0 && released > 0 && released <= withheld);
}

/// A message may be in the network for seconds (RFC 3261 §17.1.1.1: T4, which is 5 s).
#[test]
fn what_comes_seconds_late_changes_nothing() {
    let late = Weather { late_ms: 2_000, ..ROUGH };
    play_all(&late, "what_comes_seconds_late_changes_nothing");
}

/// Nothing but deaths.
#[test]
fn on_a_perfect_network_only_the_dead_are_missed() {
    let [forwarded, _, withheld, released] =
        play_all(&CALM, "on_a_perfect_network_only_the_dead_are_missed");
    assert!(forwarded > 0 && released > 0 && released <= withheld);
}

/// Before its copy has left, nobody but the proxy knows of an INVITE; told 100, the caller would not
/// repeat it, and the proxy may die.
#[test]
fn a_caller_is_told_100_only_when_its_invite_has_left() {
    let mut cloud = Cloud::new(1, &Weather { deaths: 0, ..CALM });
    cloud.begin_call();
    cloud.run(Duration::from_secs(1));
    let sent = cloud.sent();
    let place = |of: &dyn Fn(&String) -> bool| sent.iter().position(of).expect("sent");
    let copy = place(&|line| line.starts_with("INVITE ") && line.contains("@10."));
    let trying = place(&|line| line.starts_with("SIP/2.0 100"));
    assert!(copy < trying, "{sent:?}");
}
