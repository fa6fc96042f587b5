//! Which calls a run is made of: kinds of calls, each with its share.
//!
//! ```text
//! mix  = kind *("," kind)                      talk=30@ring1,talk/20s=50,cancel/2s=20@ring5+ring10
//! kind = ("talk" / "cancel") ["/" time] "=" percent ["@" callee *("+" callee)]
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::schedule::seconds;

/// Spreads the kinds over every hundred calls: coprime to 100, and far from a simple fraction of it.
const STRIDE: u64 = 61;

/// What a call consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// INVITE, 180, 200, ACK, `talk`, BYE, 200. With `talk` zero and challenges this is Figure 4 of
    /// the paper.
    Complete { talk: Duration },
    /// INVITE, 180, `ringing`, CANCEL, 200 to the CANCEL, 487, ACK.
    CancelWhileRinging { ringing: Duration },
}

/// One kind of call within a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallKind {
    pub mode: Mode,
    /// Of a hundred calls.
    pub percent: u32,
    /// User parts of its callees, in turn; none: those of the plan.
    pub callees: Vec<String>,
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, time) = match self.mode {
            Mode::Complete { talk } => ("talk", talk),
            Mode::CancelWhileRinging { ringing } => ("cancel", ringing),
        };
        f.write_str(name)?;
        if time.is_zero() { Ok(()) } else { write!(f, "/{}s", time.as_secs_f64()) }
    }
}

/// The kinds of calls of a run; their shares make a hundred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    kinds: Vec<CallKind>,
}

/// Why a text is no mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    #[error("`{kind}` is not talk[/TIME]=PERCENT[@CALLEE+…] or cancel/TIME=PERCENT[@CALLEE+…]")]
    Kind { kind: String },
    #[error("the shares make {sum} %, not 100")]
    Sum { sum: u32 },
}

impl From<Mode> for Mix {
    /// Nothing else.
    fn from(mode: Mode) -> Self {
        Self { kinds: vec![CallKind { mode, percent: 100, callees: Vec::new() }] }
    }
}

impl Mix {
    /// These kinds.
    ///
    /// # Panics
    ///
    /// Their shares do not make a hundred: a mistake in the program.
    pub fn of(kinds: impl Into<Vec<CallKind>>) -> Self {
        let kinds = kinds.into();
        let sum: u32 = kinds.iter().map(|kind| kind.percent).sum();
        assert!(sum == 100, "the shares make {sum} %, not 100");
        Self { kinds }
    }

    pub fn kinds(&self) -> &[CallKind] {
        &self.kinds
    }

    /// The kind of the call of this number: in every hundred calls from the start each kind has its
    /// share, spread over them.
    pub(crate) fn kind_of(&self, call: u64) -> usize {
        let drawn = u32::try_from(call % 100 * STRIDE % 100).unwrap_or(0);
        let mut end = 0;
        for (place, kind) in self.kinds.iter().enumerate() {
            end += kind.percent;
            if drawn < end {
                return place;
            }
        }
        0
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let kinds: Vec<CallKind> = text.split(',').map(kind).collect::<Result<_, _>>()?;
        let sum = kinds.iter().map(|kind| kind.percent).sum();
        if sum == 100 { Ok(Self { kinds }) } else { Err(MixError::Sum { sum }) }
    }
}

fn kind(text: &str) -> Result<CallKind, MixError> {
    let text = text.trim();
    parse_kind(text).ok_or_else(|| MixError::Kind { kind: text.to_owned() })
}

fn parse_kind(text: &str) -> Option<CallKind> {
    let (what, share) = text.split_once('=')?;
    let (percent, callees) = match share.split_once('@') {
        Some((percent, callees)) => (percent, callees.split('+').map(str::to_owned).collect()),
        None => (share, Vec::new()),
    };
    let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent))?;
    if callees.iter().any(String::is_empty) {
        return None;
    }
    let mode = match what.split_once('/') {
        None if what == "talk" => Mode::Complete { talk: Duration::ZERO },
        Some(("talk", time)) => Mode::Complete { talk: duration(time)? },
        Some(("cancel", time)) => Mode::CancelWhileRinging { ringing: duration(time)? },
        _ => return None,
    };
    Some(CallKind { mode, percent, callees })
}

fn duration(text: &str) -> Option<Duration> {
    seconds(text).map(Duration::from_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(text: &str) -> Mix {
        text.parse().expect("a mix")
    }

    #[test]
    fn every_hundred_calls_have_each_kind_by_its_share() {
        let mix = mix("talk=30@a,talk/20s=50,cancel/2s=10@b+c,cancel/15s=10");
        for hundred in [0, 700] {
            let mut counts = [0; 4];
            for call in hundred..hundred + 100 {
                counts[mix.kind_of(call)] += 1;
            }
            assert_eq!(counts, [30, 50, 10, 10]);
        }
        // A kind of a tenth is not long away, nor twice in a row.
        let late: Vec<u64> = (0..100).filter(|call| mix.kind_of(*call) == 3).collect();
        assert!(late.windows(2).all(|pair| (2..=20).contains(&(pair[1] - pair[0]))), "{late:?}");
        assert_eq!(mix.kinds()[2].callees, ["b", "c"]);
        assert_eq!(mix.kinds()[1].to_string(), "talk/20s");
        assert_eq!(mix.kinds()[0].to_string(), "talk");
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        let kinds = ["", "talk", "talk=0", "talk=101", "cancel=100", "hang=100", "talk=100@", "x"];
        for text in kinds {
            let error = text.parse::<Mix>().expect_err(text);
            assert!(error.to_string().contains("PERCENT"), "{text}: {error}");
        }
        let error = "talk=30,talk/1s=30".parse::<Mix>().expect_err("sixty");
        assert_eq!(error, MixError::Sum { sum: 60 });
    }
}
