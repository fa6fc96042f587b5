//! Parameters of a header value: `;name`, `;name=token`, `;name="quoted"`.
//!
//! ```abnf
//! generic-param = token [ EQUAL gen-value ]
//! gen-value     = token / host / quoted-string
//! ```

use crate::span::Span;
use crate::syntax::{Cursor, is_token};

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    pub name: &'a [u8],
    /// As written, quotes included; `None` without an equals sign.
    pub value: Option<&'a [u8]>,
    /// From the semicolon to the end of the value.
    pub span: Span,
}

/// Where one parameter lies.
#[derive(Clone, Copy)]
pub(crate) struct RawParam {
    pub(crate) name: Span,
    pub(crate) value: Option<Span>,
    pub(crate) span: Span,
}

/// The next parameter: `Ok(None)` if no semicolon follows, `Err` with the place of the fault.
pub(crate) fn next(cursor: &mut Cursor<'_>) -> Result<Option<RawParam>, usize> {
    cursor.skip_lws();
    let start = cursor.at();
    if !cursor.eat(b';') {
        return Ok(None);
    }
    cursor.skip_lws();
    let name = cursor.run(is_token);
    if name.is_empty() {
        return Err(cursor.at());
    }
    let mut end = cursor.at();
    cursor.skip_lws();
    let mut value = None;
    if cursor.eat(b'=') {
        cursor.skip_lws();
        let span = if cursor.peek() == Some(b'"') {
            let at = cursor.at();
            cursor.quoted().ok_or(at)?
        } else {
            cursor.value()
        };
        if span.is_empty() {
            return Err(cursor.at());
        }
        end = cursor.at();
        value = Some(span);
    }
    Ok(Some(RawParam { name, value, span: Span::of(start, end) }))
}

/// The parameters of one value, in order. Ends at the first fault.
#[derive(Clone)]
pub struct Params<'a> {
    message: &'a [u8],
    cursor: Cursor<'a>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(message: &'a [u8], span: Span) -> Self {
        Self { message, cursor: Cursor::new(message, span) }
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let raw = next(&mut self.cursor).ok()??;
        Some(Param {
            name: raw.name.slice(self.message),
            value: raw.value.map(|value| value.slice(self.message)),
            span: raw.span,
        })
    }
}

/// The value of the first parameter of that name, whatever its case: `Some(None)` if it has none.
pub(crate) fn find<'a>(mut params: Params<'a>, name: &[u8]) -> Option<Option<&'a [u8]>> {
    params.find(|param| param.name.eq_ignore_ascii_case(name)).map(|param| param.value)
}

/// Without the quotes around it, if there are any. Escapes stay as they are.
pub fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}
