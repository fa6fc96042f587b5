//! The lease: one holder, a fence that only rises.

use std::cell::Cell;
use std::sync::mpsc;
use std::time::Duration;

use crate::lease::{Ask, Candidate, LeaseRow, LeaseStore, Swapped, Tenure};

/// A database without a lease, on which any number of handles may be opened.
pub trait LeaseFixture: Sync {
    /// Another handle on the same row; it stands for another process.
    fn open(&self) -> Box<dyn LeaseStore>;
}

type Check = fn(&dyn LeaseFixture);

const CHECKS: &[(&str, Check)] = &[
    ("a_swap_takes_only_the_row_that_was_seen", a_swap_takes_only_the_row_that_was_seen),
    ("one_leads_and_renews_and_the_other_waits", one_leads_and_renews_and_the_other_waits),
    ("what_is_not_renewed_passes_on", what_is_not_renewed_passes_on),
    ("what_is_given_back_is_free_at_once", what_is_given_back_is_free_at_once),
    ("nobody_waits_for_the_dead", nobody_waits_for_the_dead),
    ("of_many_at_once_one_wins", of_many_at_once_one_wins),
];

/// Runs the suite, each check on a fresh database; panics at the first breach.
pub fn run_lease(fresh: &dyn Fn() -> Box<dyn LeaseFixture>) {
    for (name, check) in CHECKS {
        println!("contract: {name}");
        check(&*fresh());
    }
}

const DURATION: Duration = Duration::from_secs(10);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn turn(candidate: &mut Candidate, store: &mut dyn LeaseStore, now: Duration) -> Tenure {
    let mut ask =
        Ask { store, clock: &|| now, duration: DURATION, is_gone: &|holder| holder == "dead" };
    candidate.turn(&mut ask).expect("the store answers")
}

fn ours(fence: u64, now: Duration) -> Tenure {
    Tenure::Ours { fence, until: now + DURATION }
}

fn theirs(holder: &str) -> Tenure {
    Tenure::Theirs { holder: holder.to_owned() }
}

fn a_swap_takes_only_the_row_that_was_seen(fixture: &dyn LeaseFixture) {
    let (mut one, mut two) = (fixture.open(), fixture.open());
    assert_eq!(one.read(), Ok(None));
    let row = |holder: &str, renewals| LeaseRow {
        holder: holder.to_owned(),
        fence: i64::MAX as u64,
        renewals,
        duration: Duration::from_millis(1_234),
    };
    let first = row("a name / with 'quotes', a \u{fc} and a \"\n\"", 1);
    assert_eq!(one.swap(None, &first), Ok(Swapped::Done));
    assert_eq!(two.read(), Ok(Some(first.clone())), "every field, through another handle");
    let present = || Swapped::Not { is: Some(first.clone()) };
    assert_eq!(two.swap(None, &row("b", 2)), Ok(present()), "there is one already");
    for other in [
        LeaseRow { holder: "b".to_owned(), ..first.clone() },
        LeaseRow { fence: 1, ..first.clone() },
        LeaseRow { renewals: 2, ..first.clone() },
        LeaseRow { duration: DURATION, ..first.clone() },
    ] {
        assert_eq!(two.swap(Some(&other), &row("b", 2)), Ok(present()), "{other:?}");
    }
    assert_eq!(two.swap(Some(&first), &row("", 2)), Ok(Swapped::Done));
    assert_eq!(one.read(), Ok(Some(row("", 2))));
}

fn one_leads_and_renews_and_the_other_waits(fixture: &dyn LeaseFixture) {
    let (mut one, mut two) = (Candidate::new("one", 40), Candidate::new("two", 1));
    let (mut first, mut second) = (fixture.open(), fixture.open());
    for second_of_time in 0..30 {
        let now = seconds(second_of_time);
        assert_eq!(turn(&mut one, &mut *first, now), ours(40, now), "the fence stays");
        assert_eq!(turn(&mut two, &mut *second, now), theirs("one"));
    }
    one.raise(50);
    let now = seconds(30);
    assert_eq!(turn(&mut one, &mut *first, now), ours(50, now), "nodes had a higher one");
}

fn what_is_not_renewed_passes_on(fixture: &dyn LeaseFixture) {
    let (mut one, mut two) = (Candidate::new("one", 1), Candidate::new("two", 1));
    let (mut first, mut second) = (fixture.open(), fixture.open());
    // The clocks of the two have nothing in common.
    assert_eq!(turn(&mut one, &mut *first, seconds(5_000)), ours(1, seconds(5_000)));
    for now in 100..110 {
        assert_eq!(turn(&mut two, &mut *second, seconds(now)), theirs("one"), "seen since 100");
    }
    assert_eq!(turn(&mut two, &mut *second, seconds(110)), ours(2, seconds(110)));
    assert_eq!(turn(&mut one, &mut *first, seconds(5_001)), theirs("two"), "the old one hears it");
    // Nobody renewed for long, and the same one comes back: nobody led in between.
    assert_eq!(turn(&mut two, &mut *second, seconds(500)), ours(2, seconds(500)));
}

fn what_is_given_back_is_free_at_once(fixture: &dyn LeaseFixture) {
    let (mut one, mut two) = (Candidate::new("one", 9), Candidate::new("two", 1));
    let (mut first, mut second) = (fixture.open(), fixture.open());
    assert_eq!(turn(&mut one, &mut *first, seconds(1)), ours(9, seconds(1)));
    two.release(&mut *second).expect("it has nothing to give");
    assert_eq!(turn(&mut two, &mut *second, seconds(1)), theirs("one"));
    one.release(&mut *first).expect("given back");
    assert_eq!(turn(&mut two, &mut *second, seconds(1)), ours(10, seconds(1)), "the fence rises");
    one.release(&mut *first).expect("not its own any more");
    assert_eq!(turn(&mut one, &mut *first, seconds(1)), theirs("two"));
}

fn nobody_waits_for_the_dead(fixture: &dyn LeaseFixture) {
    let (mut dead, mut next) = (Candidate::new("dead", 3), Candidate::new("next", 1));
    let mut store = fixture.open();
    assert_eq!(turn(&mut dead, &mut *store, seconds(1)), ours(3, seconds(1)));
    assert_eq!(turn(&mut next, &mut *store, seconds(1)), ours(4, seconds(1)));
}

fn of_many_at_once_one_wins(fixture: &dyn LeaseFixture) {
    const MANY: usize = 8;
    let (said, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..MANY {
            let said = said.clone();
            scope.spawn(move || {
                let mut store = fixture.open();
                let mut candidate = Candidate::new(format!("number {number}"), 1);
                let clock = Cell::new(Duration::ZERO);
                let mut ask = Ask {
                    store: &mut *store,
                    clock: &|| clock.get(),
                    duration: DURATION,
                    is_gone: &|_| false,
                };
                // Contention may cost an answer; then it is asked again.
                let tenure = (0..20).find_map(|_| candidate.turn(&mut ask).ok());
                said.send(tenure.expect("an answer")).expect("heard");
            });
        }
    });
    drop(said);
    let tenures: Vec<Tenure> = heard.iter().collect();
    let leaders: Vec<&Tenure> =
        tenures.iter().filter(|tenure| matches!(tenure, Tenure::Ours { .. })).collect();
    assert_eq!((tenures.len(), leaders.len()), (MANY, 1), "{tenures:?}");
    let row = fixture.open().read().expect("it answers").expect("somebody leads");
    assert_eq!(*leaders[0], ours(row.fence, Duration::ZERO));
}
