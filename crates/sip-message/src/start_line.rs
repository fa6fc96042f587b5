//! The first line of a message (RFC 3261 §7.1, §7.2).
//!
//! ```abnf
//! Request-Line = Method SP Request-URI SP SIP-Version CRLF
//! Status-Line  = SIP-Version SP Status-Code SP Reason-Phrase CRLF
//! ```

use crate::error::{ParseError, UriError};
use crate::message::Start;
use crate::span::Span;
use crate::status::StatusCode;
use crate::syntax::{is_token, number};
use crate::uri::Uri;

/// What the line says, and its first fault.
pub(crate) struct StartLine {
    pub(crate) start: Start,
    pub(crate) fault: Option<ParseError>,
}

/// Reads the line that ends at `end`. `Err` if nothing of it can be used.
pub(crate) fn read(bytes: &[u8], end: usize) -> Result<StartLine, ParseError> {
    let line = bytes.get(..end).unwrap_or(bytes);
    let space = memchr::memchr(b' ', line).ok_or(ParseError::NotSip { at: 0 })?;
    let first = line.get(..space).unwrap_or_default();
    if first.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"SIP/")) {
        return read_status_line(line, space);
    }
    if first.is_empty() || !first.iter().all(|byte| is_token(*byte)) {
        return Err(ParseError::NotSip { at: 0 });
    }
    let last = memchr::memrchr(b' ', line).unwrap_or(space).max(space);
    // With one space only there is no version: the rest is the Request-URI.
    let uri_end = if last == space { end } else { last };
    let uri = Span::of(space + 1, uri_end);
    let start = Start::Request { method: Span::of(0, space), uri };
    let version = line.get(last + 1..).unwrap_or_default();
    let fault = match check_version(version, last + 1) {
        Err(fault) => Some(fault),
        Ok(()) => check_request_uri(uri.slice(bytes), space + 1).err(),
    };
    Ok(StartLine { start, fault })
}

fn check_version(version: &[u8], at: usize) -> Result<(), ParseError> {
    if version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Ok(());
    }
    let has_name = version.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"SIP/"));
    let mut numbers = version.get(4..).unwrap_or_default().split(|byte| *byte == b'.');
    let is_number = |digits: Option<&[u8]>| digits.is_some_and(|digits| number(digits).is_some());
    if has_name
        && is_number(numbers.next())
        && is_number(numbers.next())
        && numbers.next().is_none()
    {
        return Err(ParseError::Version { at });
    }
    Err(ParseError::StartLine { at })
}

fn check_request_uri(text: &[u8], at: usize) -> Result<(), ParseError> {
    let refuse = |error| ParseError::RequestUri { at, error };
    let uri = Uri::parse(text).map_err(refuse)?;
    if uri.headers().is_some() { Err(refuse(UriError::Headers)) } else { Ok(()) }
}

fn read_status_line(line: &[u8], space: usize) -> Result<StartLine, ParseError> {
    check_version(line.get(..space).unwrap_or_default(), 0)?;
    let at = space + 1;
    let rest = line.get(at..).unwrap_or_default();
    let digits = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    let code = rest.get(..digits).filter(|code| code.len() == 3).and_then(number).flatten();
    let code = code.and_then(|code| u16::try_from(code).ok()).and_then(StatusCode::new);
    let status = code.ok_or(ParseError::StatusCode { at })?;
    // Many leave out the space before an empty phrase.
    let reason = Span::of((at + digits + 1).min(line.len()), line.len());
    Ok(StartLine { start: Start::Response { status, reason }, fault: None })
}
