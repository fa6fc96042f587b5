//! What was seen, with silence kept apart from absence.

/// Something looked for: not there, not answered, or known.
///
/// Silence is never evidence: whoever reads `Unknown` has to say what it counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Observation<T> {
    /// It does not exist.
    Absent,
    /// It did not answer.
    #[default]
    Unknown,
    Known(T),
}

impl<T> Observation<T> {
    #[must_use]
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unknown => None,
        }
    }

    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Observation<U> {
        match self {
            Self::Absent => Observation::Absent,
            Self::Unknown => Observation::Unknown,
            Self::Known(value) => Observation::Known(f(value)),
        }
    }
}
