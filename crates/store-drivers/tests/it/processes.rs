//! Several processes on one file, one of them killed in the middle.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use store::Answer;

use super::{aor, binding, folder, open, rows, write};

/// Names the file to a child; without it the child's test has nothing to do.
const FILE: &str = "STORE_TEST_FILE";

/// The child: writes one address after another and says which is done.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let mut client = open(Path::new(&path));
    for number in 0.. {
        assert_eq!(client.ask(write(number, vec![binding(1)])), Ok(Answer::Done));
        println!("\ndone {number}");
    }
}

fn start(path: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", "processes::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

#[test]
fn processes_share_the_file_and_a_killed_one_leaves_it_whole() {
    let folder = folder();
    let mut child = start(&folder.store_path());
    let mut ours = open(&folder.store_path());
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut done = 0;
    for line in lines.map_while(Result::ok) {
        let Some(number) = line.strip_prefix("done ").and_then(|n| n.parse::<u64>().ok()) else {
            continue;
        };
        assert_eq!(rows(&mut ours, number), 1, "what the child has done is seen here at once");
        assert_eq!(ours.ask(write(number, vec![binding(2)])), Ok(Answer::Done));
        done = number;
        if number == 200 {
            break;
        }
    }
    assert_eq!(done, 200, "the child wrote that many");
    child.kill().expect("killed");
    child.wait().expect("gone");
    for number in 0..=200 {
        assert_eq!(rows(&mut ours, number), 2, "{}", aor(number));
    }
    assert_eq!(ours.ask(write(0, vec![binding(3)])), Ok(Answer::Done), "and it serves on");
    drop(ours);
    assert_eq!(rows(&mut open(&folder.store_path()), 0), 3);
}

#[test]
fn many_handles_may_open_a_new_file_at_once() {
    let folder = folder();
    let path = folder.store_path();
    let open_and_write = |number| {
        let path = path.clone();
        std::thread::spawn(move || {
            let mut client = open(&path);
            assert_eq!(client.ask(write(1, vec![binding(number)])), Ok(Answer::Done));
        })
    };
    let threads: Vec<_> = (0..8).map(open_and_write).collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(rows(&mut open(&path), 1), 8);
}
