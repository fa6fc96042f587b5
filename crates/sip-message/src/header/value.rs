//! The values of a field that may list several, by commas or by repetition (RFC 3261 §7.3.1).
//!
//! ```abnf
//! message-header = name HCOLON value *( COMMA value )
//! ```

use crate::message::Field;
use crate::span::Span;
use crate::syntax::{Cursor, is_lws, trim};

/// One value of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Without white space around it; folds inside stay.
    pub text: &'a [u8],
    /// Where the text lies.
    pub span: Span,
    /// The whole line that it stands in.
    pub line: Span,
    removal: Span,
}

impl<'a> Value<'a> {
    /// The first value of a line.
    pub(crate) fn at_line_start(
        text: &'a [u8],
        span: Span,
        line: Span,
        following: Option<u32>,
    ) -> Self {
        let removal = following.map_or(line, |next| Span::new(span.start, next));
        Self { text, span, line, removal }
    }

    /// What to remove so that the value is gone and the rest is still a list: the whole line if
    /// it stands alone, otherwise the value and one comma. To remove several values of one line
    /// use [`crate::Edits::remove_first`].
    pub const fn removal_span(&self) -> Span {
        self.removal
    }
}

/// Every value of the fields of one name, in order. Empty list elements are passed over.
#[derive(Clone)]
pub struct Values<'a, F> {
    message: &'a [u8],
    fields: F,
    line: Option<Line<'a>>,
}

#[derive(Clone)]
struct Line<'a> {
    cursor: Cursor<'a>,
    line: Span,
    end: usize,
    comma: Option<usize>,
}

impl<'a, F: Iterator<Item = Field<'a>>> Values<'a, F> {
    pub(crate) const fn new(message: &'a [u8], fields: F) -> Self {
        Self { message, fields, line: None }
    }
}

impl<'a> Line<'a> {
    fn new(message: &'a [u8], field: &Field<'a>) -> Self {
        Self {
            cursor: Cursor::new(message, field.value_span),
            line: field.line,
            end: field.value_span.end as usize,
            comma: None,
        }
    }

    fn next(&mut self, message: &'a [u8]) -> Option<Value<'a>> {
        while !self.cursor.is_done() {
            let start = self.cursor.at();
            let comma_before = self.comma;
            skip_value(&mut self.cursor);
            let span = trim(message, Span::of(start, self.cursor.at()));
            let mut following = None;
            if !self.cursor.is_done() {
                self.comma = Some(self.cursor.at());
                self.cursor.bump();
                self.cursor.skip_lws();
                following = Some(self.cursor.at()).filter(|at| *at < self.end);
            }
            if span.is_empty() {
                continue;
            }
            let removal = match (comma_before, following) {
                (_, Some(next)) => Span::new(span.start, next as u32),
                (Some(comma), None) => Span::new(comma as u32, span.end),
                (None, None) => self.line,
            };
            return Some(Value { text: span.slice(message), span, line: self.line, removal });
        }
        None
    }
}

/// Up to the comma that ends a value: not one inside quotes or angle brackets.
fn skip_value(cursor: &mut Cursor<'_>) {
    while let Some(byte) = cursor.peek() {
        match byte {
            b',' => return,
            b'"' => {
                let mut ahead = *cursor;
                match ahead.quoted() {
                    Some(_) => *cursor = ahead,
                    None => cursor.bump(),
                }
            }
            b'<' => {
                let length = memchr::memchr(b'>', cursor.rest()).unwrap_or(0);
                cursor.jump(cursor.at() + length + 1);
            }
            _ => cursor.bump(),
        }
    }
}

impl<'a, F: Iterator<Item = Field<'a>>> Iterator for Values<'a, F> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        loop {
            if let Some(value) = self.line.as_mut().and_then(|line| line.next(self.message)) {
                return Some(value);
            }
            self.line = Some(Line::new(self.message, &self.fields.next()?));
        }
    }
}

/// Whether a text has white space inside.
pub(crate) fn has_lws(text: &[u8]) -> bool {
    text.iter().any(|byte| is_lws(*byte))
}
