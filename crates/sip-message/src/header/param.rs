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

/// How many parameters are remembered: an element of this fleet writes no more on a Via.
const KNOWN_MAX: usize = 4;

/// Where the first parameters of a value lie: what was read once is not read again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownParams {
    params: [KnownParam; KNOWN_MAX],
    count: u8,
}

/// 16 bits are enough for places in a message. The value ends where the parameter does; one that
/// begins at 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct KnownParam {
    start: u16,
    name_start: u16,
    name_end: u16,
    value_start: u16,
    end: u16,
}

impl KnownParams {
    /// Remembers the next one, if there is room for it.
    pub(crate) fn push(&mut self, raw: &RawParam) {
        let Some(room) = self.params.get_mut(usize::from(self.count)) else { return };
        if raw.span.end <= u32::from(u16::MAX) {
            *room = KnownParam {
                start: raw.span.start as u16,
                name_start: raw.name.start as u16,
                name_end: raw.name.end as u16,
                value_start: raw.value.map_or(0, |value| value.start as u16),
                end: raw.span.end as u16,
            };
            self.count += 1;
        }
    }

    fn get(&self, place: usize) -> Option<RawParam> {
        let known = self.params.get(..usize::from(self.count))?.get(place)?;
        let end = known.end.into();
        let value = (known.value_start > 0).then(|| Span::new(known.value_start.into(), end));
        Some(RawParam {
            name: Span::new(known.name_start.into(), known.name_end.into()),
            value,
            span: Span::new(known.start.into(), end),
        })
    }

    /// Where the first one begins that is not remembered, if `start` is where the first of all does.
    fn end(&self, start: u32) -> u32 {
        let last = usize::from(self.count).checked_sub(1).and_then(|last| self.params.get(last));
        last.map_or(start, |last| last.end.into())
    }
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
    known: KnownParams,
    taken: usize,
    /// Behind those that are known.
    cursor: Cursor<'a>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(message: &'a [u8], span: Span) -> Self {
        Self::with(message, span, KnownParams::default())
    }

    /// Of which the first have been read already.
    pub(crate) fn with(message: &'a [u8], span: Span, known: KnownParams) -> Self {
        let unknown = Span::new(known.end(span.start), span.end);
        Self { message, known, taken: 0, cursor: Cursor::new(message, unknown) }
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let raw = match self.known.get(self.taken) {
            Some(known) => known,
            None => next(&mut self.cursor).ok()??,
        };
        self.taken += 1;
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
