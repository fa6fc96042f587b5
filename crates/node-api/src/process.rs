//! What the kernel says about a process: CPU time and memory, for a node's status.

/// Totals since the process started, and its present memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time.
    pub cpu_seconds: f64,
    pub rss_bytes: u64,
}

/// The kernel's clock tick and page, fixed on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4_096;

/// Reads `/proc/self/stat`; zeros if there is none.
#[must_use]
pub fn usage() -> Usage {
    read("self").unwrap_or_default()
}

/// The same of another process; `None` if it is not there.
#[must_use]
pub fn usage_of(pid: u32) -> Option<Usage> {
    read(&pid.to_string())
}

fn read(process: &str) -> Option<Usage> {
    parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Fields 14, 15 and 24 of proc(5), counted behind the name, which may hold anything.
fn parse(stat: &str) -> Option<Usage> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let pages: u64 = fields.nth(8)?.parse().ok()?;
    Some(Usage { cpu_seconds: (user + system) / TICKS_PER_SECOND, rss_bytes: pages * PAGE_BYTES })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 250 150 0 0 20 0 5 0 99 1000000 2000 \
                    18446744073709551615 1 1";
        assert_eq!(parse(stat), Some(Usage { cpu_seconds: 4.0, rss_bytes: 2_000 * 4_096 }));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage().rss_bytes > 0);
        assert!(usage_of(std::process::id()).is_some_and(|it| it.rss_bytes > 0));
        assert_eq!(usage_of(u32::MAX), None);
    }
}
