//! The binary as an operator and a script see it.

mod commands;
mod up;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A data directory of one test; removed with it.
struct Data {
    path: PathBuf,
}

impl Data {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sipcloud-it-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        Self { path }
    }

    /// Runs a command with `--data` and an input, and waits for its end.
    fn run(&self, arguments: &str, input: &str) -> Output {
        let mut command = sipcloud(arguments);
        command.arg("--data").arg(&self.path);
        output(&mut command, input)
    }

    /// The standard output of a command that must succeed.
    fn good(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sipcloud {arguments}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

fn sipcloud(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sipcloud"));
    command.args(arguments.split_whitespace());
    command
}

fn output(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that ends without reading is no fault of the test.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}
