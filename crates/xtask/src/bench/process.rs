//! What a process and its children use, from `/proc`.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

/// CPU time of all threads of these processes, nanoseconds.
pub(super) fn cpu_ns(processes: &[u32]) -> u64 {
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

/// The most memory that these processes have had together, each at its own time, KiB.
pub(super) fn memory_kib(processes: &[u32]) -> u64 {
    let peak = |process: &u32| -> u64 {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
    };
    processes.iter().map(peak).sum()
}

/// A process and its children.
pub(super) fn tree(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    children.chain([process]).collect()
}

/// Tells a process of ours to end and waits for it: a kill would leave its children behind.
pub(super) fn end(child: &mut Child) {
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let _ = child.wait();
}

/// Asks every 200 ms, at most `times`, until there is an answer.
pub(super) fn wait_for<T>(times: u32, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..times {
        let answer = ask();
        if answer.is_some() {
            return answer;
        }
        #[expect(clippy::disallowed_methods, reason = "a developer's tool waits for a process")]
        thread::sleep(Duration::from_millis(200));
    }
    None
}
