//! Changes to a received message: what is not named here leaves octet for octet.

use std::ops::Range;

use crate::header::HeaderName;
use crate::message::Message;
use crate::span::Span;

/// A list of changes, recorded in any order. Make one and reuse it: no allocation once it has
/// grown. What is inserted at one place appears in the order of recording.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// Sorted by start, equal ones in the order of recording.
    edits: Vec<Edit>,
    text: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Edit {
    span: Span,
    text: Range<usize>,
}

impl Edits {
    /// No changes.
    pub const fn new() -> Self {
        Self { edits: Vec::new(), text: Vec::new() }
    }

    /// Forgets every change, keeps the memory.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.text.clear();
    }

    /// Whether nothing changes.
    pub const fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Puts `text` where `span` is.
    pub fn replace(&mut self, span: Span, text: &[u8]) {
        self.record(span, |arena| arena.extend_from_slice(text));
    }

    /// Puts what `write` appends where `span` is.
    pub fn replace_with(&mut self, span: Span, write: impl FnOnce(&mut Vec<u8>)) {
        self.record(span, write);
    }

    /// Takes `span` out. Spans that overlap are taken out together.
    pub fn remove(&mut self, span: Span) {
        self.record(span, |_| {});
    }

    /// Puts `text` before the octet at `at`.
    pub fn insert(&mut self, at: u32, text: &[u8]) {
        self.record(Span::new(at, at), |arena| arena.extend_from_slice(text));
    }

    /// Puts what `write` appends before the octet at `at`. `write` must only append.
    pub fn insert_with(&mut self, at: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.record(Span::new(at, at), write);
    }

    /// Takes out the first `count` values of a list, and the lines that thereby become empty.
    pub fn remove_first(&mut self, message: &Message<'_>, name: HeaderName, count: usize) {
        let mut left = count;
        let mut values = message.values(name).peekable();
        while left > 0 {
            let Some(first) = values.next() else { return };
            left -= 1;
            let mut last = first;
            while left > 0 {
                let Some(next) = values.next_if(|next| next.line == first.line) else { break };
                left -= 1;
                last = next;
            }
            match values.peek().filter(|next| next.line == first.line) {
                Some(next) => self.remove(Span::new(first.span.start, next.span.start)),
                None => self.remove(last.line),
            }
        }
    }

    fn record(&mut self, span: Span, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        let text = start..self.text.len().max(start);
        let place = self.edits.partition_point(|edit| edit.span.start <= span.start);
        self.edits.insert(place, Edit { span, text });
    }

    /// Appends the changed octets to `out`.
    pub fn apply(&self, bytes: &[u8], out: &mut Vec<u8>) {
        self.apply_within(bytes, Span::of(0, bytes.len()), out);
    }

    /// Appends one part of the changed octets: the changes that begin within `span`.
    pub fn apply_within(&self, bytes: &[u8], span: Span, out: &mut Vec<u8>) {
        let mut done = span.start;
        let inside = |edit: &&Edit| span.start <= edit.span.start && edit.span.start <= span.end;
        for edit in self.edits.iter().filter(inside) {
            if edit.span.start > done {
                out.extend_from_slice(Span::new(done, edit.span.start).slice(bytes));
            }
            out.extend_from_slice(self.text.get(edit.text.clone()).unwrap_or_default());
            done = done.max(edit.span.end);
        }
        out.extend_from_slice(Span::new(done.min(span.end), span.end).slice(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, record: impl FnOnce(&mut Edits)) -> String {
        let mut edits = Edits::new();
        record(&mut edits);
        let mut out = b"|".to_vec();
        edits.apply(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn equal_positions_keep_the_order_of_recording() {
        let out = applied("abc", |edits| {
            edits.insert(1, b"1");
            edits.insert(0, b"0");
            edits.insert_with(1, |out| out.extend_from_slice(b"2"));
            edits.insert(3, b"end");
            edits.replace(Span::new(1, 2), b"B");
        });
        assert_eq!(out, "|0a12Bcend");
    }

    #[test]
    fn overlapping_removals_are_one() {
        let out = applied("abcdef", |edits| {
            edits.remove(Span::new(2, 5));
            edits.remove(Span::new(1, 3));
            edits.remove(Span::new(2, 3));
        });
        assert_eq!(out, "|af");
    }

    #[test]
    fn cleared_edits_change_nothing() {
        let mut edits = Edits::new();
        edits.replace(Span::new(0, 1), b"x");
        assert!(!edits.is_empty());
        edits.clear();
        assert!(edits.is_empty());
        let mut out = Vec::new();
        edits.apply(b"abc", &mut out);
        assert_eq!(out, b"abc");
    }

    #[test]
    fn part_of_a_message_takes_its_own_changes_only() {
        let mut edits = Edits::new();
        edits.insert(1, b"<");
        edits.insert(4, b">");
        edits.insert(6, b"!");
        let mut out = Vec::new();
        edits.apply_within(b"abcdefg", Span::new(1, 4), &mut out);
        assert_eq!(out, b"<bcd>");
    }

    #[test]
    fn spans_beyond_the_text_are_harmless() {
        let out = applied("abc", |edits| {
            edits.insert(9, b"x");
            edits.remove(Span::new(2, 99));
        });
        assert_eq!(out, "|ab");
    }
}
