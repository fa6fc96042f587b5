//! Octets to a message. First cut into start line, fields and body; then check every field that
//! an element acts on. The first fault counts; the rest is still cut, so that it can be answered.

use crate::error::{HeaderError, ParseError};
use crate::header::HeaderName;
use crate::header::name_addr::NameAddrParts;
use crate::header::via::ViaParts;
use crate::header::{call_id, content_length, cseq, expires, from_to, max_forwards::MaxForwards};
use crate::limits::{HEADER_SECTION_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::message::{Head, Index, KnownRoute, KnownVia, Message, Slot, Start};
use crate::method::Method;
use crate::span::Span;
use crate::start_line;
use crate::syntax::{Cursor, is_lws, is_token};

/// How the octets came, which decides where the message ends (RFC 3261 §18.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Without Content-Length the body is all that follows; octets after the body are cut off.
    Datagram,
    /// Without Content-Length there is no body.
    Stream,
}

/// Octets that are refused, and what can still be said about them.
#[derive(Clone, Copy, Debug)]
pub struct Malformed<'a> {
    pub error: ParseError,
    /// There if it can be answered: a request, no ACK, whose top Via says where answers go; or one
    /// without any Via, whose source is all there is to go by.
    pub message: Option<Message<'a>>,
}

/// Reads one message. Line ends before it are passed over.
///
/// # Errors
///
/// What is wrong, where, and the message itself if the client can be told.
///
/// # Cost
///
/// No allocation. One pass to cut, one over the fields that are checked.
pub fn parse<'a>(
    bytes: &'a [u8],
    index: &'a mut Index,
    framing: Framing,
) -> Result<Message<'a>, Malformed<'a>> {
    let bytes = skip_line_ends(bytes);
    let mut parser = Parser { bytes, index, fault: None, seen: 0, vias: 0 };
    let end = parser.run(framing);
    let fault = parser.fault;
    let index: &'a Index = parser.index;
    let message = Message::new(bytes.get(..end).unwrap_or(bytes), &index.head, index.fields());
    match fault {
        None => Ok(message),
        Some(error) => Err(Malformed { error, message: Some(message).filter(is_answerable) }),
    }
}

/// Without these there is no message (RFC 3261 §8.1.1). Max-Forwards came later than RFC 2543.
const REQUIRED: [HeaderName; 5] =
    [HeaderName::VIA, HeaderName::FROM, HeaderName::TO, HeaderName::CALL_ID, HeaderName::CSEQ];

fn is_answerable(message: &Message<'_>) -> bool {
    let has_way_back = message.head().vias[0].is_some()
        || (message.field(HeaderName::VIA).is_none()
            && message.field(HeaderName::CALL_ID).is_some());
    has_way_back && message.method().is_some_and(|method| method != Method::Ack)
}

fn skip_line_ends(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

/// How one line of the header section ends.
pub(crate) struct LineEnd {
    /// One past its last octet, the line end not included.
    pub(crate) text_end: usize,
    /// The first octet of the next line.
    pub(crate) next: usize,
    /// Whether it was anything but CR LF, and where.
    pub(crate) flaw: Option<usize>,
}

/// The end of the line at `at`, folds not regarded; `None` if it never ends.
pub(crate) fn line_end(bytes: &[u8], at: usize) -> Option<LineEnd> {
    let mut from = at;
    let mut flaw = None;
    loop {
        let found = from + memchr::memchr2(b'\r', b'\n', bytes.get(from..)?)?;
        match (bytes.get(found), bytes.get(found + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                return Some(LineEnd { text_end: found, next: found + 2, flaw });
            }
            (Some(b'\n'), _) => {
                let flaw = flaw.or(Some(found));
                return Some(LineEnd { text_end: found, next: found + 1, flaw });
            }
            _ => {
                flaw = flaw.or(Some(found));
                from = found + 1;
            }
        }
    }
}

/// The name before the colon, and where the colon is. Space and tab may stand between them.
pub(crate) fn field_name(line: &[u8]) -> Option<(&[u8], usize)> {
    // Names are short: a search of long texts would cost more to begin.
    let colon = line.iter().position(|byte| *byte == b':')?;
    let mut name = line.get(..colon)?;
    while let [rest @ .., b' ' | b'\t'] = name {
        name = rest;
    }
    Some((name, colon))
}

struct Parser<'a> {
    bytes: &'a [u8],
    index: &'a mut Index,
    fault: Option<ParseError>,
    /// The names of the fields that were checked, by their bits.
    seen: u128,
    /// Via values looked at so far.
    vias: usize,
}

impl<'a> Parser<'a> {
    fn blame(&mut self, error: ParseError) {
        self.fault = self.fault.or(Some(error));
    }

    /// Fills the index; returns where the message ends.
    fn run(&mut self, framing: Framing) -> usize {
        self.index.used = 0;
        self.index.head = Head::EMPTY;
        if self.bytes.is_empty() {
            self.blame(ParseError::Empty);
            return 0;
        }
        if self.bytes.len() > MESSAGE_BYTES_MAX {
            // Positions would not fit the index, so nothing more is said about it.
            self.blame(ParseError::TooLarge { at: MESSAGE_BYTES_MAX });
            return 0;
        }
        let Some(start) = line_end(self.bytes, 0) else {
            self.blame(ParseError::NotSip { at: 0 });
            return self.bytes.len();
        };
        self.blame_line(&start);
        match start_line::read(self.bytes, start.text_end) {
            Ok(line) => {
                self.index.head.start = line.start;
                if let Some(error) = line.fault {
                    self.blame(error);
                }
            }
            Err(error) => {
                self.blame(error);
                return self.bytes.len();
            }
        }
        let body = self.cut(start.next);
        self.check();
        self.frame(body, framing)
    }

    fn blame_line(&mut self, line: &LineEnd) {
        if let Some(at) = line.flaw {
            self.blame(ParseError::LineEnd { at });
        }
    }

    /// Cuts the header section; returns where the body begins.
    fn cut(&mut self, start: usize) -> usize {
        self.index.head.headers_start = start as u32;
        let mut at = start;
        let body = loop {
            match self.bytes.get(at..at + 2) {
                Some(b"\r\n") => break at + 2,
                _ if self.bytes.get(at) == Some(&b'\n') => {
                    self.blame(ParseError::LineEnd { at });
                    break at + 1;
                }
                _ => {}
            }
            let Some(line) = line_end(self.bytes, at) else {
                self.blame(ParseError::Unended { at: self.bytes.len() });
                at = self.bytes.len();
                break at;
            };
            self.blame_line(&line);
            let (mut text_end, mut next) = (line.text_end, line.next);
            while matches!(self.bytes.get(next), Some(b' ' | b'\t')) {
                let Some(fold) = line_end(self.bytes, next) else { break };
                self.blame_line(&fold);
                (text_end, next) = (fold.text_end, fold.next);
            }
            self.field(at, text_end, next);
            at = next;
        };
        self.index.head.headers_end = at as u32;
        if at > HEADER_SECTION_BYTES_MAX {
            self.blame(ParseError::TooLarge { at: HEADER_SECTION_BYTES_MAX });
        }
        body
    }

    /// Records the field in `at..text_end`.
    fn field(&mut self, at: usize, text_end: usize, next: usize) {
        let line = self.bytes.get(at..text_end).unwrap_or_default();
        let Some((name, colon)) = field_name(line) else {
            return self.blame(ParseError::NoColon { at });
        };
        let number = HeaderName::from_bytes(name);
        if number == HeaderName::OTHER && (name.is_empty() || !name.iter().all(|b| is_token(*b))) {
            return self.blame(ParseError::FieldName { at });
        }
        let value = line.get(colon + 1..).unwrap_or_default();
        let leading = value.iter().take_while(|byte| is_lws(**byte)).count();
        let trailing = if leading == value.len() {
            0
        } else {
            value.iter().rev().take_while(|byte| is_lws(**byte)).count()
        };
        let Some(slot) = self.index.slots.get_mut(self.index.used) else {
            return self.blame(ParseError::TooManyFields { at });
        };
        // All below 65,536: `run` has refused longer messages.
        *slot = Slot {
            name: number,
            name_length: name.len() as u16,
            line_start: at as u16,
            value_start: (at + colon + 1 + leading) as u16,
            value_end: (text_end - trailing) as u16,
            line_end: next as u16,
        };
        self.index.used += 1;
    }

    /// Checks every field that an element acts on.
    fn check(&mut self) {
        let is_request = matches!(self.index.head.start, Start::Request { .. });
        let mut are_vias_read = true;
        for number in 0..self.index.used {
            let Some(slot) = self.index.slots.get(number).copied() else { break };
            if let Err(error) = self.check_field(&slot, is_request) {
                are_vias_read &= slot.name != HeaderName::VIA;
                self.blame(error);
            }
            self.seen |= slot.name.bit();
        }
        let head = &mut self.index.head;
        head.are_vias_read = are_vias_read;
        head.has_more_vias = self.vias > head.vias.len();
        let missing = REQUIRED.into_iter().find(|name| self.seen & name.bit() == 0);
        if let Some(name) = missing {
            self.blame(ParseError::Missing { name });
        }
    }

    fn check_field(&mut self, slot: &Slot, is_request: bool) -> Result<(), ParseError> {
        let bytes = self.bytes;
        let span = slot.value();
        let at = span.start as usize;
        let name = slot.name;
        match name {
            HeaderName::VIA => self.check_via(slot)?,
            HeaderName::FROM => {
                self.once(slot)?;
                self.index.head.from = Some(from_to::read(bytes, span, name)?);
            }
            HeaderName::TO => {
                self.once(slot)?;
                self.index.head.to = Some(from_to::read(bytes, span, name)?);
            }
            HeaderName::CALL_ID => {
                self.once(slot)?;
                self.index.head.call_id = span;
                if !call_id::is_call_id(span.slice(bytes)) {
                    return Err(ParseError::Field { name, at });
                }
            }
            HeaderName::CSEQ => {
                self.once(slot)?;
                let (number, method) = cseq::read(bytes, span)?;
                self.index.head.cseq = Some((number, method));
                self.check_method(method)?;
            }
            HeaderName::MAX_FORWARDS if is_request => {
                self.once(slot)?;
                self.index.head.max_forwards = Some(MaxForwards::read(span.slice(bytes), at)?);
            }
            HeaderName::EXPIRES if is_request => {
                self.once(slot)?;
                self.index.head.expires = Some(expires::read(span.slice(bytes), at)?);
            }
            HeaderName::EXPIRES => {
                self.index.head.expires = expires::read(span.slice(bytes), at).ok();
            }
            HeaderName::CONTACT if is_request && span.slice(bytes) != b"*" => {
                self.check_addresses(slot)?;
            }
            HeaderName::ROUTE | HeaderName::PATH if is_request => self.check_addresses(slot)?,
            _ => {}
        }
        Ok(())
    }

    /// That no earlier field has the name of this one.
    fn once(&self, slot: &Slot) -> Result<(), ParseError> {
        if self.seen & slot.name.bit() != 0 {
            let at = usize::from(slot.line_start);
            return Err(ParseError::Repeated { name: slot.name, at });
        }
        Ok(())
    }

    fn check_method(&self, named: Span) -> Result<(), ParseError> {
        let Start::Request { method, .. } = self.index.head.start else {
            return Ok(());
        };
        if method.slice(self.bytes) == named.slice(self.bytes) {
            return Ok(());
        }
        Err(ParseError::MethodMismatch { at: named.start as usize })
    }

    fn check_via(&mut self, slot: &Slot) -> Result<(), ParseError> {
        let mut cursor = Cursor::new(self.bytes, slot.value());
        let mut comma = None;
        loop {
            // If the first Via cannot be read, the second must not take its place.
            let place = self.vias;
            self.vias += 1;
            let parts = ViaParts::read(self.bytes, &mut cursor)?;
            let end = cursor.at() as u32;
            let has_more = parts.flaw.is_none() && cursor.eat(b',');
            cursor.skip_lws();
            let following = has_more.then(|| cursor.at() as u32);
            if let Some(known) = self.index.head.vias.get_mut(place) {
                *known = Some(KnownVia { parts, line: slot.line(), comma, following });
            }
            if let Some(at) = parts.flaw {
                return Err(HeaderError::Malformed { name: slot.name, at: at as usize }.into());
            }
            if !has_more {
                return Ok(());
            }
            comma = Some(end);
        }
    }

    fn check_addresses(&mut self, slot: &Slot) -> Result<(), ParseError> {
        let mut cursor = Cursor::new(self.bytes, slot.value());
        let is_first = self.seen & slot.name.bit() == 0;
        let mut is_top_route = slot.name == HeaderName::ROUTE && is_first;
        loop {
            let parts = NameAddrParts::read(self.bytes, &mut cursor)
                .map_err(|at| ParseError::Field { name: slot.name, at })?;
            let has_more = cursor.eat(b',');
            cursor.skip_lws();
            if std::mem::take(&mut is_top_route) {
                let following = has_more.then(|| cursor.at() as u32);
                let line = slot.line();
                self.index.head.top_route = Some(KnownRoute { parts, line, following });
            }
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Finds the body (RFC 3261 §18.3); returns where the message ends.
    fn frame(&mut self, start: usize, framing: Framing) -> usize {
        let present = self.bytes.len().saturating_sub(start);
        let mut announced = None;
        let mut fault = None;
        let name = HeaderName::CONTENT_LENGTH;
        let is_there = self.seen & name.bit() != 0;
        let fields = self.index.fields().iter().filter(|slot| is_there && slot.name == name);
        for slot in fields {
            let at = usize::from(slot.value_start);
            let length = content_length::read(slot.value().slice(self.bytes));
            fault = fault.or(match (length, announced) {
                (None, _) => Some(ParseError::Field { name, at }),
                (Some(length), Some(earlier)) if length != earlier => {
                    Some(ParseError::LengthConflict { at })
                }
                (Some(announced), _) if announced > present => {
                    Some(ParseError::BodyCut { at, announced, present })
                }
                _ => None,
            });
            announced = announced.or(length);
        }
        if let Some(fault) = fault {
            self.blame(fault);
        }
        let length = match (announced, framing) {
            (Some(length), _) => length.min(present),
            (None, Framing::Datagram) => present,
            (None, Framing::Stream) => 0,
        };
        self.index.head.body = Span::of(start, start + length);
        start + length
    }
}

#[cfg(test)]
mod tests;
