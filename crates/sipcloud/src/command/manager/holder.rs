//! The name that a manager holds its lease by: which one, and which process in which life.

use provider_drivers::process::{self, ProcessIdentity};

/// `manager-1, process 4711/START/BOOT/IDS`, of the calling process.
pub(super) fn holder(name: &str, process: &ProcessIdentity) -> String {
    let ProcessIdentity { pid, start_ticks, boot } = process;
    format!("{name}, process {pid}/{start_ticks}/{boot}/{}", process::id_namespace())
}

/// Whether that process has ended: known of processes that this one would see if they lived.
pub(super) fn is_gone(holder: &str) -> bool {
    let Some((process, ids)) = parse(holder) else { return false };
    let is_of_this_boot = ProcessIdentity::current()
        .is_some_and(|own| !own.boot.is_empty() && own.boot == process.boot);
    let own_ids = process::id_namespace();
    is_of_this_boot && !own_ids.is_empty() && own_ids == ids && !process.is_alive()
}

fn parse(holder: &str) -> Option<(ProcessIdentity, String)> {
    let mut parts = holder.splitn(4, '/');
    let (_, pid) = parts.next()?.rsplit_once(' ')?;
    let (start_ticks, boot) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    let process = ProcessIdentity { pid: pid.parse().ok()?, start_ticks, boot };
    Some((process, parts.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_would_be_seen_is_known_to_be_gone() {
        let own = ProcessIdentity::current().expect("alive");
        let name = |process: &ProcessIdentity| holder("manager-2", process);
        assert!(!is_gone(&name(&own)), "it lives: {}", name(&own));
        let earlier = ProcessIdentity { start_ticks: own.start_ticks - 1, ..own.clone() };
        assert!(is_gone(&name(&earlier)), "its id is another's now");
        let elsewhere = ProcessIdentity { boot: "another machine".to_owned(), ..earlier.clone() };
        assert!(!is_gone(&name(&elsewhere)), "nobody knows from here");
        let hidden = name(&earlier).replace(&process::id_namespace(), "pid:[1]");
        assert!(!is_gone(&hidden), "its ids are not ours");
        for nonsense in ["", "manager-1", "a b/c/d/e", "manager-1, process 1/2/3"] {
            assert!(!is_gone(nonsense), "{nonsense:?}");
        }
    }
}
