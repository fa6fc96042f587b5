//! CANCEL (RFC 3261 §9.2, §16.10): what is done with one, matched or not.

use crate::reject::Reject;

/// What the CANCEL's INVITE was found to be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No INVITE server transaction has this key.
    Nothing,
    /// No final response has been sent yet.
    Pending,
    /// A final response is out.
    Answered,
}

/// What to do with the CANCEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelDecision {
    /// Answer 200, then tell the response context.
    CancelBranches,
    /// Answer 200 and do nothing: the INVITE has had its answer (RFC 3261 §9.2).
    TooLate,
    /// Nothing to cancel here. A present owner may first pass it on (protocol rule 22).
    Refuse(Reject),
}

/// Decides; a CANCEL is answered by the element that got it, never by the callee.
pub fn decide(found: Found) -> CancelDecision {
    match found {
        Found::Pending => CancelDecision::CancelBranches,
        Found::Answered => CancelDecision::TooLate,
        Found::Nothing => CancelDecision::Refuse(Reject::NoSuchTransaction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_is_answered_by_what_its_invite_is_doing() {
        let table = [
            (Found::Pending, CancelDecision::CancelBranches),
            (Found::Answered, CancelDecision::TooLate),
            (Found::Nothing, CancelDecision::Refuse(Reject::NoSuchTransaction)),
        ];
        for (found, expected) in table {
            assert_eq!(decide(found), expected, "{found:?}");
        }
    }
}
