//! What can go wrong at a provider, and whether a repeat is worthwhile.

use fleet::InstanceId;

/// Why a provider did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It did not answer, or not in time. What was asked may have happened all the same.
    #[error("the provider is unavailable: {why}")]
    Unavailable { why: String },
    /// It will not give more, or not so fast.
    #[error("the provider's limit is reached: {why}")]
    Exhausted { why: String },
    /// Another machine has the slot.
    #[error("the slot of {instance} is taken by another machine")]
    SlotTaken { instance: InstanceId },
    /// It has no place for such an instance.
    #[error("the provider has no place for {instance}: {why}")]
    NoPlace { instance: InstanceId, why: String },
    /// It did not accept the request as it is.
    #[error("the provider refused: {why}")]
    Refused { why: String },
}

impl ProviderError {
    /// Whether a repeat is worthwhile.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Exhausted { .. } | Self::SlotTaken { .. } => true,
            Self::NoPlace { .. } | Self::Refused { .. } => false,
        }
    }
}
