//! How far a rollout is: lines, one line that is drawn anew, or JSON.

use std::io::{self, IsTerminal as _, Write as _};

use fleet::InstanceId;
use serde_json::json;

pub(super) struct Progress {
    is_json: bool,
    is_terminal: bool,
    last: String,
}

impl Progress {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, is_terminal: !is_json && io::stdout().is_terminal(), last: String::new() }
    }

    /// A step that is done or begins.
    pub(super) fn say(&mut self, kind: &str, text: &str) {
        if self.is_json {
            self.put(&format!("{}\n", json!({ "type": kind, "text": text })));
        } else {
            let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
            self.put(&format!("{clear}{text}\n"));
        }
        self.last.clear();
    }

    /// What is waited for now; told when it changes.
    pub(super) fn waits(&mut self, done: usize, total: usize, instance: InstanceId, what: &str) {
        let text = format!("{done} of {total} done, {instance}: {what}");
        if self.last == text {
            return;
        }
        if self.is_json {
            let line = json!({
                "type": "waits", "done": done, "total": total,
                "instance": instance.to_string(), "text": what,
            });
            self.put(&format!("{line}\n"));
        } else if self.is_terminal {
            self.put(&format!("\r\x1b[K{text}"));
        } else if what_kind(&self.last) != what_kind(&text) {
            // Numbers that count down are for those who watch.
            self.put(&format!("{text}\n"));
        }
        self.last = text;
    }

    fn put(&self, text: &str) {
        let mut out = io::stdout().lock();
        // A reader that has gone is no reason to stop half way.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }
}

/// The text without its numbers.
fn what_kind(text: &str) -> String {
    text.split(|c: char| c.is_ascii_digit()).collect()
}
