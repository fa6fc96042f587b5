//! What processes use, from `/proc`. The balancer's bench shares this file.

use std::fs;

/// CPU time of all threads of these processes, nanoseconds.
pub(crate) fn cpu_ns(processes: &[u32]) -> u64 {
    processes.iter().map(|process| cpu_ns_of(*process)).sum()
}

fn cpu_ns_of(process: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let of_task = |task: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    tasks.flatten().map(of_task).sum()
}

/// The memory of these processes, with what they share counted once, KiB.
pub(crate) fn memory_kib(processes: &[u32]) -> u64 {
    let of = |process: &u32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
    };
    processes.iter().map(of).sum()
}

/// A process and its children.
pub(crate) fn tree(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    children.chain([process]).collect()
}
