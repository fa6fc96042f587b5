//! The paper's evaluation in miniature: `sipcloud evaluate` plays, tells, and leaves nothing running.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use node_api::wire::Event;

use crate::cloud::{Data, kill, processes_of};

/// The command on the network of a test; its folder is below the test's.
fn evaluate(data: &Data, network: u8, flags: &str) -> (Child, PathBuf) {
    let output = data.path().join("evaluation");
    let child = Command::new(env!("CARGO_BIN_EXE_sipcloud"))
        .args(["evaluate", "--store", "sqlite", "--time-scale", "10"])
        .arg(format!("--network=127.{network}"))
        .arg("--output")
        .arg(&output)
        .args(flags.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    (child, output)
}

fn assert_nothing_runs(data: &Data) {
    let left = processes_of(data.path());
    assert!(left.is_empty(), "processes are left: {left:?}");
}

/// Goal: the whole experiment on a small scale: one to two proxies and back as the paper's policy
/// asks, machines that boot, no call failed, and a folder in which every file can be read.
#[test]
fn a_small_evaluation_loses_no_call_and_tells_all_of_it() {
    let data = Data::claim(152);
    let plan = data.path().join("small.plan");
    std::fs::write(&plan, "6@40s # one proxy\n16@100s, 4@110s\n").expect("written");
    let flags = format!("--plan {} --capacity 10 --boot-time 20s", plan.display());
    let (child, folder) = evaluate(&data, 152, &flags);
    let ended = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}");
    assert_nothing_runs(&data);
    assert!(!folder.join("cloud").exists(), "the cloud's own folder is removed");

    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let report = read("report.md");
    let calls = 6 * 4 + 16 * 10 + 4 * 11;
    let told = format!("**{calls} calls made, 0 failed; proxies 1 → 2 → 1.**");
    assert!(report.contains(&told), "{told} is not in\n{report}");
    assert!(report.contains("| 1 → 2 |") && report.contains("| 2 → 1 |"), "{report}");

    let samples = read("samples.csv");
    let of = |name: &str| samples.lines().filter(|line| line.contains(name)).count();
    assert!(of("balancer-1,in service") > 15 && of("proxy-2,in service") > 3, "{samples}");
    let cells = samples.lines().next().map_or(0, |head| head.split(',').count());
    assert!(samples.lines().all(|line| line.split(',').count() == cells), "{samples}");
    assert_eq!(read("failed.csv").lines().count(), 1, "the head alone");
    assert!(read("calls.csv").lines().count() > 15);
    let journal = read("journal.jsonl");
    let events = journal.lines().map(|line| serde_json::from_str::<Event>(line).expect("an event"));
    assert!(events.count() > 5);
    for figure in ["figure-5", "figure-6"] {
        assert!(read(&format!("{figure}.svg")).starts_with("<svg"));
        let picture = std::fs::read(folder.join(format!("{figure}.png"))).expect("a picture");
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{figure}");
    }

    // A second run does not write over the first.
    let (again, _) = evaluate(&data, 152, "");
    assert_eq!(again.wait_with_output().expect("it ends").status.code(), Some(2));
}

/// Goal: Ctrl-C ends it cleanly, and what was seen is told. Method: the signal after the first live
/// line of the paper's plan.
#[test]
fn an_evaluation_that_is_interrupted_still_reports() {
    let data = Data::claim(153);
    let (mut child, folder) = evaluate(&data, 153, "");
    let errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut lines = errors.lines().map_while(Result::ok);
    let live = lines.find(|line| line.contains(" made "));
    assert!(live.is_some_and(|line| line.contains(" left ") && line.contains("140 cps")));
    kill("INT", child.id());
    let rest: Vec<String> = lines.collect();
    let code = child.wait().expect("it ends").code();
    assert_eq!(code, Some(1), "cut short is no success: {rest:?}");
    assert_nothing_runs(&data);
    let report = std::fs::read_to_string(folder.join("report.md")).expect("a report");
    assert!(report.contains("ended before its plan was"), "{report}");
    assert!(report.contains(" 0 failed"), "{report}");
}

/// Goal: SIPp plays the same experiment, follows the plan's rates, and loses no call.
#[test]
fn sipp_plays_the_experiment_as_well() {
    if Command::new("sipp").arg("-v").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: sipp is not installed");
        return;
    }
    let data = Data::claim(154);
    let plan = data.path().join("small.plan");
    std::fs::write(&plan, "5@40s, 12@60s, 5@20s\n").expect("written");
    let flags = format!("--generator sipp --plan {}", plan.display());
    let (child, folder) = evaluate(&data, 154, &flags);
    let ended = child.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_nothing_runs(&data);
    let calls = std::fs::read_to_string(folder.join("calls.csv")).expect("calls");
    let last: Vec<u64> = calls
        .lines()
        .last()
        .map(|line| line.split(',').skip(4).filter_map(|cell| cell.parse().ok()).collect())
        .expect("a line");
    // Its rate changes when the second in which the plan's does is over: 102 calls, give or take.
    let [made, succeeded, failed, drops, _] = last[..] else { panic!("{calls}") };
    assert!((80..=125).contains(&made), "{calls}");
    assert_eq!((succeeded, failed, drops), (made, 0, 0), "{calls}");
}
