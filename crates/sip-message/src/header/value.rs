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
    /// A value between the comma before it and the value that follows, if its line has them.
    pub(crate) fn in_line(
        text: &'a [u8],
        span: Span,
        line: Span,
        neighbours: (Option<u32>, Option<u32>),
    ) -> Self {
        let removal = match neighbours {
            (_, Some(next)) => Span::new(span.start, next),
            (Some(comma), None) => Span::new(comma, span.end),
            (None, None) => line,
        };
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
    comma: Option<u32>,
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
                self.comma = Some(self.cursor.at() as u32);
                self.cursor.bump();
                self.cursor.skip_lws();
                let next = self.cursor.at();
                following = (next < self.end).then_some(next as u32);
            }
            if span.is_empty() {
                continue;
            }
            let neighbours = (comma_before, following);
            return Some(Value::in_line(span.slice(message), span, self.line, neighbours));
        }
        None
    }
}

/// Up to the comma that ends a value: not one inside quotes or angle brackets.
fn skip_value(cursor: &mut Cursor<'_>) {
    loop {
        let rest = cursor.rest();
        let length = memchr::memchr3(b',', b'"', b'<', rest).unwrap_or(rest.len());
        cursor.jump(cursor.at() + length);
        match cursor.peek() {
            None | Some(b',') => return,
            Some(b'"') => {
                let mut ahead = *cursor;
                match ahead.quoted() {
                    Some(_) => *cursor = ahead,
                    None => cursor.bump(),
                }
            }
            Some(_) => {
                let length = memchr::memchr(b'>', cursor.rest()).unwrap_or(0);
                cursor.jump(cursor.at() + length + 1);
            }
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

#[cfg(test)]
mod tests {
    use crate::{Edits, Framing, HeaderName, Index, parse};

    const HEAD: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a@b>\r\n\
        To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n";

    fn with(lines: &str, check: impl Fn(crate::Message<'_>)) {
        let text = format!("{HEAD}{lines}\r\n");
        let mut index = Index::new();
        check(parse(text.as_bytes(), &mut index, Framing::Datagram).unwrap());
    }

    #[test]
    fn commas_inside_quotes_and_angles_do_not_separate() {
        for (lines, wanted) in [
            ("Accept: a, b ,c\r\n", &["a", "b", "c"][..]),
            ("Accept: a\r\nAccept: b,\r\n c\r\n", &["a", "b", "c"]),
            (
                "Accept: \"a, \\\" b\" <sip:x,y@z>;p=1, c\r\n",
                &["\"a, \\\" b\" <sip:x,y@z>;p=1", "c"],
            ),
            ("Accept: ,, a,,\r\n", &["a"]),
            ("Accept:\r\n", &[]),
            ("Accept: \"open, b\r\n", &["\"open", "b"]),
            ("Accept: <open, b\r\n", &["<open", "b"]),
        ] {
            with(lines, |message| {
                let values: Vec<_> = message
                    .values(HeaderName::ACCEPT)
                    .map(|value| String::from_utf8_lossy(value.text).into_owned())
                    .collect();
                assert_eq!(values, wanted, "{lines}");
            });
        }
    }

    /// Method: remove the nth value by its own span, then the first n by `remove_first`.
    #[test]
    fn removed_values_leave_a_list() {
        let remaining = |lines: &str, edit: &dyn Fn(&crate::Message<'_>, &mut Edits)| {
            let text = format!("{HEAD}{lines}\r\n");
            let mut index = Index::new();
            let message = parse(text.as_bytes(), &mut index, Framing::Datagram).unwrap();
            let mut edits = Edits::new();
            edit(&message, &mut edits);
            let mut out = Vec::new();
            edits.apply(message.bytes(), &mut out);
            String::from_utf8(out[HEAD.len()..out.len() - 2].to_vec()).unwrap()
        };
        let two_lines = "Route: <sip:a>, <sip:b>\r\nRoute: <sip:c>\r\n";
        for (nth, wanted) in [
            (0, "Route: <sip:b>\r\nRoute: <sip:c>\r\n"),
            (1, "Route: <sip:a>\r\nRoute: <sip:c>\r\n"),
            (2, "Route: <sip:a>, <sip:b>\r\n"),
        ] {
            let left = remaining(two_lines, &|message, edits| {
                edits.remove(message.routes().nth(nth).unwrap().unwrap().value.removal_span());
            });
            assert_eq!(left, wanted);
        }
        for (count, wanted) in [
            (0, two_lines),
            (1, "Route: <sip:b>\r\nRoute: <sip:c>\r\n"),
            (2, "Route: <sip:c>\r\n"),
            (3, ""),
            (9, ""),
        ] {
            let left = remaining(two_lines, &|message, edits| {
                edits.remove_first(message, HeaderName::ROUTE, count);
            });
            assert_eq!(left, wanted, "{count}");
        }
    }

    /// Goal: what parsing remembers is what the list says. Method: the ways to write Vias and a first
    /// Route, read from the fields alone.
    #[test]
    fn remembered_values_are_those_of_the_list() {
        for lines in [
            "",
            "Via: SIP/2.0/UDP b;x=1;branch=z9hG4bK2\r\nRoute: <sip:a;lr>;x=\"<,\"\r\n",
            "Via: SIP/2.0/UDP b\r\nVia: SIP/2.0/UDP c\r\nRoute: <sip:a>\r\nRoute: <sip:b>\r\n",
            "v: SIP/2.0/UDP b , SIP/2.0/UDP c\r\nRoute: \"a,b\" <sip:a,c> , <sip:b>\r\n",
            "v: SIP/2.0/UDP b;p;q;r = 1 ;s;t;sc-b=\"x;y\";u\r\nRoute: sip:a;lr\r\n",
        ] {
            with(lines, |message| {
                let told: Vec<_> = message.vias().map(|via| via.unwrap().value).collect();
                let listed: Vec<_> = message.values(HeaderName::VIA).collect();
                assert_eq!(told, listed, "{lines}");
                let told = message.top_route().map(|route| route.unwrap());
                let listed = message.routes().next().map(|route| route.unwrap());
                assert_eq!(told.map(|it| it.value), listed.map(|it| it.value), "{lines}");
                let uri = |route: crate::RouteValue<'_>| route.address.uri_span();
                assert_eq!(told.map(uri), listed.map(uri), "{lines}");
            });
        }
    }

    #[test]
    fn top_via_is_removed_without_the_others() {
        let text = HEAD.replace("UDP a", "UDP a;branch=z9hG4bK1 , SIP/2.0/TCP c");
        let text = format!("{text}\r\n");
        let mut index = Index::new();
        let message = parse(text.as_bytes(), &mut index, Framing::Datagram).unwrap();
        let top = message.top_via().unwrap();
        let first = message.vias().next().unwrap().unwrap();
        assert_eq!(top.value, first.value);
        let mut edits = Edits::new();
        edits.remove(top.value.removal_span());
        let mut out = Vec::new();
        edits.apply(message.bytes(), &mut out);
        assert!(String::from_utf8(out).unwrap().contains("Via: SIP/2.0/TCP c\r\n"));
    }
}
