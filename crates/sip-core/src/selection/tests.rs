//! The table is pinned, even, moves little, and is the same however it was reached.

use std::net::SocketAddr;

use fleet::{Incarnation, WEIGHT_NORMAL};

use super::*;
use crate::golden::check;

const KEY: [u8; 16] = *b"a key of a fleet";
const ROWS: u32 = 1 << 18;

fn member(slot: u16, worker: u16, weight: u16) -> Member {
    Member {
        instance: InstanceId::proxy(slot),
        worker,
        incarnation: Incarnation(7),
        address: SocketAddr::from(([127, 0, 20, slot as u8], 5060 + worker)),
        weight,
    }
}

fn equal_members(count: u16) -> Vec<Member> {
    (1..=count).map(|slot| member(slot, 0, WEIGHT_NORMAL)).collect()
}

fn call_id(number: u32) -> Vec<u8> {
    format!("{number:08x}@192.0.2.{}", number % 250).into_bytes()
}

/// How many of `calls` calls each member owns.
fn shares(selection: &Selection, calls: u32) -> Vec<u32> {
    let mut shares = vec![0; selection.members()];
    for number in 0..calls {
        let owner = selection.owner(&call_id(number), |_| false).expect("somebody is alive");
        shares[owner] += 1;
    }
    shares
}

fn max_over_mean(shares: &[u32]) -> f64 {
    let max = shares.iter().max().copied().unwrap_or_default();
    f64::from(max) * shares.len() as f64 / f64::from(shares.iter().sum::<u32>())
}

/// The owner of every row, by name.
fn owners(selection: &Selection, members: &[Member]) -> Vec<(InstanceId, u16)> {
    let name = |choices: &[MemberIndex; 2]| {
        let owner = &members[usize::from(choices[0])];
        (owner.instance, owner.worker)
    };
    selection.rows.iter().map(name).collect()
}

#[test]
fn the_choice_is_pinned() {
    let members = [
        member(1, 0, 100),
        member(1, 1, 100),
        member(2, 0, 50),
        member(3, 0, 200),
        member(700, 12, 1),
        member(9, 0, 0),
    ];
    let selection = Selection::new(ROWS, KEY, &members);
    let mut golden = String::from("call_id,row,first,second,third,fourth,fifth\n");
    for number in 0..200 {
        let call_id = call_id(number * 7_919);
        golden.push_str(std::str::from_utf8(&call_id).expect("text"));
        golden.push_str(&format!(",{}", selection.row_of(&call_id)));
        let mut dead = Vec::new();
        while let Some(owner) = selection.owner(&call_id, |index| dead.contains(&index)) {
            let member = &members[owner];
            golden.push_str(&format!(",{}/{}", member.instance, member.worker));
            dead.push(owner);
        }
        golden.push('\n');
    }
    check("selection.csv", &golden);
}

#[test]
fn incarnation_and_address_do_not_move_a_call() {
    let before = equal_members(5);
    let mut after = before.clone();
    for one in &mut after {
        one.incarnation = Incarnation(99);
        one.address = "192.0.2.1:5080".parse().expect("an address");
    }
    let [before, after] = [before, after].map(|members| Selection::new(ROWS, KEY, &members).rows);
    assert_eq!(before, after);
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    let members = equal_members(7);
    let turned: Vec<Member> = members.iter().rev().copied().collect();
    let before = owners(&Selection::new(ROWS, KEY, &members), &members);
    let after = owners(&Selection::new(ROWS, KEY, &turned), &turned);
    assert_eq!(before, after);
}

/// A million Call-IDs over a hundred members: the busiest has at most 5 % more than the mean.
#[test]
fn a_hundred_members_share_evenly() {
    let selection = Selection::new(ROWS, KEY, &equal_members(100));
    let imbalance = max_over_mean(&shares(&selection, 1_000_000));
    assert!(imbalance <= 1.05, "max/mean is {imbalance}");
}

#[test]
fn a_share_is_proportional_to_the_weight() {
    let members: Vec<Member> =
        [50, 100, 200, 400, 250].into_iter().zip(1..).map(|(w, slot)| member(slot, 0, w)).collect();
    let rows = Selection::new(ROWS, KEY, &members);
    let owners = owners(&rows, &members);
    for one in &members {
        let owned = owners.iter().filter(|owner| owner.0 == one.instance).count() as f64;
        let expected = f64::from(ROWS) * f64::from(one.weight) / 1000.0;
        assert!((owned / expected - 1.0).abs() < 0.03, "{one:?} owns {owned} of {expected}");
    }
}

#[test]
fn a_member_of_weight_zero_owns_nothing() {
    let members = [member(1, 0, 0), member(2, 0, 1)];
    let selection = Selection::new(1 << 10, KEY, &members);
    for number in 0..100 {
        assert_eq!(selection.owner(&call_id(number), |_| false), Some(1));
        assert_eq!(selection.owner(&call_id(number), |index| index == 1), None);
    }
}

/// What leaves spreads evenly over the others: max/mean at most 1.1.
#[test]
fn a_leaving_member_moves_only_its_own_rows_and_spreads_them() {
    for (count, places) in [(3, [0, 1, 2]), (4, [0, 1, 3]), (10, [0, 4, 9])] {
        let members = equal_members(count);
        let before = owners(&Selection::new(ROWS, KEY, &members), &members);
        for leaving in places {
            let mut rest = members.clone();
            let gone = rest.remove(leaving);
            let after = owners(&Selection::new(ROWS, KEY, &rest), &rest);
            let mut inherited = vec![0_u32; rest.len()];
            for (before, after) in before.iter().zip(&after) {
                if before.0 == gone.instance {
                    let heir = rest.iter().position(|one| one.instance == after.0).expect("alive");
                    inherited[heir] += 1;
                } else {
                    assert_eq!(before, after, "a row of another member moved");
                }
            }
            let imbalance = max_over_mean(&inherited);
            assert!(imbalance <= 1.1, "{count} without {}: max/mean {imbalance}", gone.instance);
        }
    }
}

/// From n to n+1 members the share of rows that move is 1/(n+1) within 2 %.
#[test]
fn a_coming_member_takes_its_share_and_nothing_else_moves() {
    for count in [1, 2, 3, 10, 40] {
        let members = equal_members(count);
        let before = owners(&Selection::new(ROWS, KEY, &members), &members);
        let slot = count + 1;
        let more = [&members[..], &[member(slot, 0, WEIGHT_NORMAL)]].concat();
        let after = owners(&Selection::new(ROWS, KEY, &more), &more);
        let mut moved = 0_u32;
        for (before, after) in before.iter().zip(&after) {
            if before != after {
                assert_eq!(after.0, InstanceId::proxy(slot), "a row moved between the others");
                moved += 1;
            }
        }
        let expected = f64::from(ROWS) / f64::from(slot);
        let off = (f64::from(moved) / expected - 1.0).abs();
        assert!(off < 0.02, "{count} to {slot}: {moved} moved, not {expected}");
    }
}

#[test]
fn dead_members_are_passed_over_in_the_order_of_the_row() {
    let members = equal_members(6);
    let selection = Selection::new(1 << 12, KEY, &members);
    for number in 0..500 {
        let call_id = call_id(number);
        let first = selection.owner(&call_id, |_| false).expect("alive");
        // Skipping a dead member gives what a table without it gives.
        let rest: Vec<Member> =
            members.iter().enumerate().filter(|(at, _)| *at != first).map(|(_, m)| *m).collect();
        let without = Selection::new(1 << 12, KEY, &rest);
        let second = selection.owner(&call_id, |index| index == first).expect("alive");
        let expected = without.owner(&call_id, |_| false).expect("alive");
        assert_eq!(members[second].instance, rest[expected].instance);
        let last = selection.owner(&call_id, |index| index != 3);
        assert_eq!(last, Some(3), "the only one alive");
        assert_eq!(selection.owner(&call_id, |_| true), None);
    }
}

/// Random changes, one after the other: the updated table is always the one made from scratch.
#[test]
fn an_updated_table_equals_a_new_one() {
    let rows = 1 << 11;
    let mut random = 0x5eed_u64;
    let mut next = |below: u64| {
        random = mix(random, 1);
        random % below
    };
    let mut members: Vec<Member> = equal_members(3);
    let mut selection = Selection::new(rows, KEY, &members);
    for round in 0..60 {
        for _ in 0..=next(3) {
            let at = next(members.len() as u64 + 1) as usize;
            match next(4) {
                0 if !members.is_empty() => {
                    members.remove(at.min(members.len() - 1));
                }
                1 if !members.is_empty() => {
                    let last = members.len() - 1;
                    members[at.min(last)].weight = [0, 1, 50, 100, 65_535][next(5) as usize];
                }
                2 => {
                    let middle = at.min(members.len());
                    members.rotate_left(middle);
                }
                _ => {
                    let one = member(1 + next(40) as u16, next(2) as u16, WEIGHT_NORMAL);
                    let is_new = |m: &Member| (m.instance, m.worker) != (one.instance, one.worker);
                    if members.iter().all(is_new) {
                        members.insert(at, one);
                    }
                }
            }
        }
        selection.update(&members);
        let fresh = Selection::new(rows, KEY, &members);
        assert_eq!(selection.rows, fresh.rows, "round {round}: {members:?}");
        assert_eq!(selection.candidates, fresh.candidates, "round {round}");
    }
}

#[test]
fn an_empty_table_has_no_owner() {
    let selection = Selection::new(1, KEY, &[]);
    assert_eq!(selection.owner(b"x", |_| false), None);
    let mut grown = selection.clone();
    grown.update(&equal_members(1));
    assert_eq!(grown.owner(b"x", |_| false), Some(0));
}

#[test]
fn every_member_draws_every_stratum_once() {
    for bits in [0, 1, 2, 7, 12] {
        let order = Permutation::new(0xfeed, bits);
        let stratum = |row| if bits == 0 { 0 } else { order.draw(row) >> (64 - bits) };
        let mut strata: Vec<u64> = (0..1 << bits).map(stratum).collect();
        strata.sort_unstable();
        assert_eq!(strata, (0..1 << bits).collect::<Vec<u64>>(), "{bits} bits");
    }
}

#[test]
fn the_integer_logarithm_is_monotone_and_true() {
    let unit = f64::from(1 << 16) * f64::from(1 << 16);
    let mut before = u64::MAX;
    for drawn in
        [0, 1, 2, 1000, 1 << 20, 1 << 40, 1 << 62, u64::MAX / 2, u64::MAX / 5 * 4, u64::MAX]
    {
        let log = minus_log2(drawn);
        let expected = 64.0 - (drawn as f64 + 1.0).log2();
        assert!((log as f64 / unit - expected).abs() < 1e-5, "{drawn}: {log} is not {expected}");
        assert!(log < before, "{drawn} costs no less than a smaller number");
        before = log;
    }
}

/// Who asks about one call only gets the same answer as from the table.
#[test]
fn the_owner_of_one_call_needs_no_table() {
    let mut members = equal_members(7);
    members[2].weight = 0;
    let selection = Selection::new(ROWS, KEY, &members);
    for number in 0..500 {
        let call_id = call_id(number * 7_919);
        let asked = Selection::owner_among(ROWS, KEY, &members, &call_id);
        assert_eq!(asked, selection.owner(&call_id, |_| false), "{number}");
    }
    assert_eq!(Selection::owner_among(ROWS, KEY, &[], b"call"), None);
}
