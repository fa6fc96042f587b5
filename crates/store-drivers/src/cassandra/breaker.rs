//! The circuit breaker: after several failures in a row nothing is sent until one query succeeds.

/// Failures in a row that open the circuit. One slow query or one restarted node does not reach it.
const FAILURES_IN_A_ROW_MAX: u32 = 8;

/// Whether queries are worth sending.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures_in_a_row: u32,
    /// Why it is open; `None`: it is closed and queries pass.
    open: Option<String>,
}

impl Breaker {
    /// Why queries are refused at present.
    pub(super) fn open(&self) -> Option<&str> {
        self.open.as_deref()
    }

    /// A query or a probe was answered. `true`: the circuit was open until now.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failures_in_a_row = 0;
        self.open.take().is_some()
    }

    /// A query was not answered. `true`: the circuit opens with it.
    pub(super) fn failed(&mut self, detail: &str) -> bool {
        self.failed_times(1, detail)
    }

    /// A probe was not answered: nothing else was asked meanwhile, so it weighs more.
    pub(super) fn probe_failed(&mut self, detail: &str) -> bool {
        self.failed_times(FAILURES_IN_A_ROW_MAX.div_ceil(2), detail)
    }

    /// There is nothing to send queries to.
    pub(super) fn trip(&mut self, detail: &str) -> bool {
        self.failed_times(FAILURES_IN_A_ROW_MAX, detail)
    }

    fn failed_times(&mut self, times: u32, detail: &str) -> bool {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(times);
        if self.failures_in_a_row < FAILURES_IN_A_ROW_MAX {
            return false;
        }
        self.open.replace(detail.to_owned()).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_IN_A_ROW_MAX {
            assert!(!breaker.failed("slow"));
        }
        assert!(!breaker.succeeded(), "it was not open");
        for _ in 1..FAILURES_IN_A_ROW_MAX {
            assert!(!breaker.failed("slow"));
        }
        assert_eq!(breaker.open(), None);
        assert!(breaker.failed("gone"), "this one opens it");
        assert!(!breaker.failed("still gone"), "it opens once");
        assert_eq!(breaker.open(), Some("still gone"));
        assert!(breaker.succeeded());
        assert_eq!(breaker.open(), None);
    }

    #[test]
    fn two_probes_open_it_when_nobody_asks() {
        let mut breaker = Breaker::default();
        assert!(!breaker.probe_failed("silent"));
        assert!(breaker.probe_failed("silent"));
    }
}
