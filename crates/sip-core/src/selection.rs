//! Which worker owns a call: a table of rows, each holding the members in the order of rendezvous.
//!
//! Weighing every member for every row means that a member that leaves moves only its own calls,
//! and spreads them over all the others. This is a wire format between balancers, in integers only
//! so that every machine computes the same: `testdata/selection.csv` pins it.

use fleet::{InstanceId, Member};
use siphasher::sip::SipHasher13;

/// A member's place in the list that the table was made from.
type MemberIndex = u16;

/// No member: the row has fewer choices.
const NOBODY: MemberIndex = MemberIndex::MAX;

/// The largest number of members of one table.
pub const MEMBERS_MAX: usize = NOBODY as usize;

/// Who a member is to the table. Neither incarnation nor address: a worker that came back owns
/// the calls it owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    instance: InstanceId,
    worker: u16,
    weight: u16,
    /// The member's own order of the rows.
    order: Permutation,
    /// 2⁴⁰ / weight: turns a division per row and member into a multiplication.
    per_weight: u64,
}

/// How much a row is against a member: the least wins, then the lower name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost(u64, InstanceId, u16, MemberIndex);

/// The owners of calls in one generation.
#[derive(Clone, Debug)]
pub struct Selection {
    key: SipHasher13,
    candidates: Vec<Candidate>,
    /// First and second choice; the rest is computed when both are dead.
    rows: Box<[[MemberIndex; 2]]>,
    mask: u64,
}

impl Selection {
    /// The table for `members`, in `rows` rows (rounded up to a power of two).
    ///
    /// A member of weight 0 owns nothing. Members beyond [`MEMBERS_MAX`] are left out.
    ///
    /// # Cost
    ///
    /// One weighing per row and member: about 5 ns each.
    pub fn new(rows: u32, hash_key: [u8; 16], members: &[Member]) -> Self {
        let rows = rows.max(1).checked_next_power_of_two().unwrap_or(1 << 31);
        let mut table = Self {
            key: SipHasher13::new_with_key(&hash_key),
            candidates: Vec::new(),
            rows: vec![[NOBODY; 2]; rows as usize].into(),
            mask: u64::from(rows - 1),
        };
        table.candidates = table.candidates_of(members);
        let candidates = &table.candidates;
        for (row, choices) in (0..).zip(&mut table.rows) {
            *choices = choose(candidates, row);
        }
        table
    }

    /// The table of the next generation: what [`new`](Self::new) would give, but only the rows
    /// that a changed member held or now wins are weighed anew.
    ///
    /// # Cost
    ///
    /// One weighing per row for each new member and each kept choice, and a full one for the rows
    /// that lost a choice.
    pub fn update(&mut self, members: &[Member]) {
        let candidates = self.candidates_of(members);
        let moved = |old: &Candidate| -> MemberIndex {
            let at = candidates.iter().position(|new| new == old);
            at.and_then(|at| MemberIndex::try_from(at).ok()).unwrap_or(NOBODY)
        };
        let new_places: Vec<MemberIndex> = self.candidates.iter().map(moved).collect();
        let added: Vec<(MemberIndex, &Candidate)> = (0..)
            .zip(&candidates)
            .filter(|(_, new)| new.weight > 0 && !self.candidates.contains(new))
            .collect();

        for (row, choices) in (0..).zip(&mut self.rows) {
            let before = *choices;
            let place = |old: MemberIndex| new_places.get(usize::from(old)).copied();
            *choices = before.map(|old| place(old).unwrap_or(NOBODY));
            let has_lost_one = before
                .iter()
                .zip(choices.iter())
                .any(|(old, new)| *old != NOBODY && *new == NOBODY);
            if has_lost_one {
                *choices = choose(&candidates, row);
                continue;
            }
            if added.is_empty() {
                continue;
            }
            let mut best = Best::default();
            for &index in choices.iter() {
                if let Some(candidate) = candidates.get(usize::from(index)) {
                    best.offer(candidate.cost(row, index));
                }
            }
            for &(index, candidate) in &added {
                best.offer(candidate.cost(row, index));
            }
            *choices = best.choices();
        }
        self.candidates = candidates;
    }

    /// The row of a Call-ID. The key keeps a client from aiming its calls at one proxy.
    pub fn row_of(&self, call_id: &[u8]) -> u32 {
        // The mask has at most 31 bits.
        (self.key.hash(call_id) & self.mask) as u32
    }

    /// The owner of `call_id`, as an index into the members that the table was made from, passing
    /// over those that `is_dead` knows of.
    ///
    /// # Cost
    ///
    /// One keyed hash and one row; no allocation. Only when both choices of the row are dead, one
    /// weighing per member.
    pub fn owner(&self, call_id: &[u8], is_dead: impl Fn(usize) -> bool) -> Option<usize> {
        let row = self.row_of(call_id);
        let choices = self.rows.get(row as usize)?;
        let is_alive = |index: &MemberIndex| *index != NOBODY && !is_dead(usize::from(*index));
        choices
            .iter()
            .copied()
            .find(is_alive)
            .or_else(|| self.remaining(row, is_alive))
            .map(usize::from)
    }

    /// What [`owner`](Self::owner) says of a table of these `rows` and `members`, without the table.
    ///
    /// # Cost
    ///
    /// One weighing per member: for a question that is asked once in a while.
    pub fn owner_among(
        rows: u32,
        hash_key: [u8; 16],
        members: &[Member],
        call_id: &[u8],
    ) -> Option<usize> {
        let mut asked = Self::new(1, hash_key, &[]);
        let rows = rows.max(1).checked_next_power_of_two().unwrap_or(1 << 31);
        asked.mask = u64::from(rows - 1);
        asked.candidates = asked.candidates_of(members);
        asked.remaining(asked.row_of(call_id), |_| true).map(usize::from)
    }

    /// How many members the table was made from.
    pub fn members(&self) -> usize {
        self.candidates.len()
    }

    fn remaining(&self, row: u32, is_alive: impl Fn(&MemberIndex) -> bool) -> Option<MemberIndex> {
        let alive =
            (0..).zip(&self.candidates).filter(|(index, one)| one.weight > 0 && is_alive(index));
        alive.map(|(index, one)| one.cost(row, index)).min().map(|cost| cost.3)
    }

    fn candidates_of(&self, members: &[Member]) -> Vec<Candidate> {
        let members = members.iter().take(MEMBERS_MAX);
        let bits = self.mask.count_ones();
        members.map(|member| Candidate::new(&self.key, bits, member)).collect()
    }
}

impl Candidate {
    fn new(key: &SipHasher13, bits: u32, member: &Member) -> Self {
        let [slot_high, slot_low] = member.instance.slot.to_be_bytes();
        let [worker_high, worker_low] = member.worker.to_be_bytes();
        let name = [b'm', slot_high, slot_low, worker_high, worker_low];
        Self {
            instance: member.instance,
            worker: member.worker,
            weight: member.weight,
            order: Permutation::new(key.hash(&name), bits),
            per_weight: (1 << 40) / u64::from(member.weight.max(1)),
        }
    }

    /// -log₂(u) / weight with a number u in (0, 1] that row and member determine: an exponential
    /// race, in which everybody wins in proportion to its weight.
    fn cost(&self, row: u32, index: MemberIndex) -> Cost {
        let drawn = minus_log2(self.order.draw(row));
        // 38 bits × 41 bits, and 24 bits of fraction are dropped: 55 remain.
        let cost = (u128::from(drawn) * u128::from(self.per_weight)) >> 24;
        Cost(cost as u64, self.instance, self.worker, index)
    }
}

/// The two least costs so far.
#[derive(Default)]
struct Best {
    first: Option<Cost>,
    second: Option<Cost>,
}

impl Best {
    fn offer(&mut self, cost: Cost) {
        if self.first.is_none_or(|first| cost < first) {
            self.second = self.first.replace(cost);
        } else if self.second.is_none_or(|second| cost < second) {
            self.second = Some(cost);
        }
    }

    fn choices(&self) -> [MemberIndex; 2] {
        [self.first, self.second].map(|cost| cost.map_or(NOBODY, |cost| cost.3))
    }
}

fn choose(candidates: &[Candidate], row: u32) -> [MemberIndex; 2] {
    let mut best = Best::default();
    for (index, candidate) in (0..).zip(candidates) {
        if candidate.weight > 0 {
            best.offer(candidate.cost(row, index));
        }
    }
    best.choices()
}

/// One member's number for every row, each drawn from another of as many equal strata as there are
/// rows.
///
/// Independent numbers would do, but the busiest of 100 members would then own 5.5 % more than the
/// mean; strata halve the variance (Latin hypercube sampling), which leaves 4 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Permutation {
    /// log₂ of the number of rows.
    bits: u32,
    offset: u64,
    factors: [u64; 3],
}

impl Permutation {
    const fn new(seed: u64, bits: u32) -> Self {
        let factors = [mix(seed, 1) | 1, mix(seed, 2) | 1, mix(seed, 3) | 1];
        Self { bits, offset: mix(seed, 0), factors }
    }

    /// 64 bits: the stratum, and some noise below it.
    const fn draw(&self, row: u32) -> u64 {
        let mask = (1 << self.bits) - 1;
        let half = self.bits.div_ceil(2);
        let [first, second, third] = self.factors;
        // Each step is a bijection of `bits` bits: an odd factor, or folding the upper half down.
        let mut x = (row as u64).wrapping_add(self.offset).wrapping_mul(first) & mask;
        x ^= x >> half;
        x = x.wrapping_mul(second).wrapping_add(self.offset >> 32) & mask;
        x ^= x >> half;
        let last = x.wrapping_mul(third);
        x = last & mask;
        x ^= x >> half;
        let noise = (last ^ self.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.bits == 0 { noise } else { x << (64 - self.bits) | noise >> self.bits }
    }
}

/// 64 well mixed bits (the finaliser of SplitMix64).
const fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const LOG_STEPS: usize = 256;

/// log₂(1 + i/256) for i = 0 … 256, in units of 2⁻³².
static LOG_TABLE: [u64; LOG_STEPS + 1] = log_table();

const fn log_table() -> [u64; LOG_STEPS + 1] {
    let mut table = [0; LOG_STEPS + 1];
    let mut step = 0;
    while step <= LOG_STEPS {
        table[step] = log2_of_mantissa((LOG_STEPS + step) as u64);
        step += 1;
    }
    table
}

/// log₂(mantissa/256) for a mantissa of 256 to 512, in units of 2⁻³², by repeated squaring.
const fn log2_of_mantissa(mantissa: u64) -> u64 {
    if mantissa == 512 {
        return 1 << 32;
    }
    // 1 ≤ x < 2, with 62 bits of fraction.
    let mut x = (mantissa as u128) << 54;
    let mut log = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        x = (x * x) >> 62;
        if x >= 1 << 63 {
            x >>= 1;
            log |= 1 << bit;
        }
    }
    log
}

/// -log₂((drawn + 1) / 2⁶⁴) in units of 2⁻³², linear between the points of the table: monotone,
/// and within 3 × 10⁻⁶ of the truth, which no share of calls can tell.
fn minus_log2(drawn: u64) -> u64 {
    let Some(number) = drawn.checked_add(1) else { return 0 };
    let zeros = number.leading_zeros();
    // The leading one is bit 63; the eight bits below choose the step, the rest lies within it.
    let mantissa = number << zeros;
    let step = (mantissa >> 55 & 0xff) as usize;
    let within = mantissa >> 23 & 0xffff_ffff;
    let (low, high) = match LOG_TABLE.get(step..step + 2) {
        Some(&[low, high]) => (low, high),
        _ => (0, 0),
    };
    let log = low + (((high - low) * within) >> 32);
    ((u64::from(zeros) + 1) << 32) - log
}

#[cfg(test)]
mod tests;
