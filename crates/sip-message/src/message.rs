//! A message as a view: the received octets and an index of where each field lies.

use crate::error::{HeaderError, UriError};
use crate::header::HeaderName;
use crate::header::contact::Contacts;
use crate::header::cseq::CSeq;
use crate::header::from_to;
use crate::header::max_forwards::MaxForwards;
use crate::header::name_addr::{NameAddr, NameAddrParts};
use crate::header::route::RouteValue;
use crate::header::value::{Value, Values};
use crate::header::via::{Via, ViaParts};
use crate::limits::FIELDS_MAX;
use crate::method::Method;
use crate::span::Span;
use crate::status::StatusCode;
use crate::uri::Uri;

/// Where one header field lies. 16 bits are enough: a message has at most 65,535 octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) name: HeaderName,
    pub(crate) name_length: u16,
    pub(crate) line_start: u16,
    pub(crate) value_start: u16,
    pub(crate) value_end: u16,
    pub(crate) line_end: u16,
}

impl Slot {
    pub(crate) const UNUSED: Self = Self {
        name: HeaderName::OTHER,
        name_length: 0,
        line_start: 0,
        value_start: 0,
        value_end: 0,
        line_end: 0,
    };

    pub(crate) fn line(&self) -> Span {
        Span::new(self.line_start.into(), self.line_end.into())
    }

    pub(crate) fn value(&self) -> Span {
        Span::new(self.value_start.into(), self.value_end.into())
    }

    fn raw_name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = u32::from(self.line_start);
        Span::new(start, start + u32::from(self.name_length)).slice(bytes)
    }

    fn view<'a>(&self, bytes: &'a [u8]) -> Field<'a> {
        Field {
            name: self.name,
            raw_name: self.raw_name(bytes),
            value: self.value().slice(bytes),
            line: self.line(),
            value_span: self.value(),
        }
    }
}

/// What the start line says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Request { method: Span, uri: Span },
    Response { status: StatusCode, reason: Span },
}

/// What parsing has already understood, because every element on the way needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) start: Start,
    pub(crate) headers_start: u32,
    pub(crate) headers_end: u32,
    pub(crate) body: Span,
    /// The first two values: the nearest hop, and the one that it stands for.
    pub(crate) vias: [Option<KnownVia>; 2],
    /// Every value could be read.
    pub(crate) are_vias_read: bool,
    pub(crate) has_more_vias: bool,
    /// The first Route of a request.
    pub(crate) top_route: Option<KnownRoute>,
    pub(crate) from: Option<NameAddrParts>,
    pub(crate) to: Option<NameAddrParts>,
    pub(crate) call_id: Span,
    pub(crate) cseq: Option<(u32, Span)>,
    pub(crate) max_forwards: Option<MaxForwards>,
    pub(crate) expires: Option<u32>,
}

/// A Via value and how it stands in its line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownVia {
    pub(crate) parts: ViaParts,
    pub(crate) line: Span,
    /// The comma before it and the next value, if there are any in its line.
    pub(crate) comma: Option<u32>,
    pub(crate) following: Option<u32>,
}

impl KnownVia {
    fn view<'a>(&self, bytes: &'a [u8]) -> Via<'a> {
        let span = self.parts.value;
        let text = span.slice(bytes);
        let value = Value::in_line(text, span, self.line, (self.comma, self.following));
        Via::from_parts(bytes, value, self.parts)
    }
}

/// The first Route value and how it stands in its line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownRoute {
    pub(crate) parts: NameAddrParts,
    pub(crate) line: Span,
    pub(crate) following: Option<u32>,
}

impl KnownRoute {
    fn view<'a>(&self, bytes: &'a [u8]) -> RouteValue<'a> {
        let span = self.parts.value;
        let text = span.slice(bytes);
        let value = Value::in_line(text, span, self.line, (None, self.following));
        RouteValue { address: NameAddr::from_parts(bytes, self.parts), value }
    }
}

impl Head {
    pub(crate) const EMPTY: Self = Self {
        start: Start::Request { method: Span::new(0, 0), uri: Span::new(0, 0) },
        headers_start: 0,
        headers_end: 0,
        body: Span::new(0, 0),
        vias: [None; 2],
        are_vias_read: false,
        has_more_vias: false,
        top_route: None,
        from: None,
        to: None,
        call_id: Span::new(0, 0),
        cseq: None,
        max_forwards: None,
        expires: None,
    };
}

/// Room for the index of one message; no heap. Make one and reuse it.
#[derive(Clone, Debug)]
pub struct Index {
    pub(crate) head: Head,
    pub(crate) slots: [Slot; FIELDS_MAX],
    pub(crate) used: usize,
}

impl Index {
    /// An index of nothing.
    pub const fn new() -> Self {
        Self { head: Head::EMPTY, slots: [Slot::UNUSED; FIELDS_MAX], used: 0 }
    }

    pub(crate) fn fields(&self) -> &[Slot] {
        self.slots.get(..self.used).unwrap_or_default()
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

/// One message. Cheap to copy; lives as long as its octets and its index.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    head: &'a Head,
    slots: &'a [Slot],
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: HeaderName,
    /// The name as written.
    pub raw_name: &'a [u8],
    /// The value without white space around it; folds inside stay.
    pub value: &'a [u8],
    /// From the name to the last line end, folded lines included.
    pub line: Span,
    pub value_span: Span,
}

/// The fields of one name.
#[derive(Clone)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    slots: std::slice::Iter<'a, Slot>,
    name: Option<HeaderName>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let name = self.name;
        let slot = self.slots.find(|slot| name.is_none_or(|name| slot.name == name))?;
        Some(slot.view(self.bytes))
    }
}

impl<'a> Message<'a> {
    pub(crate) const fn new(bytes: &'a [u8], head: &'a Head, slots: &'a [Slot]) -> Self {
        Self { bytes, head, slots }
    }

    pub(crate) const fn head(&self) -> &'a Head {
        self.head
    }

    pub(crate) const fn slots(&self) -> &'a [Slot] {
        self.slots
    }

    /// Exactly this message: no line ends before it, nothing after its body.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is a request; otherwise it is a response.
    pub const fn is_request(&self) -> bool {
        matches!(self.head.start, Start::Request { .. })
    }

    /// The method of a request.
    pub fn method(&self) -> Option<Method<'a>> {
        match self.head.start {
            Start::Request { method, .. } => Some(Method::from_bytes(self.text(method))),
            Start::Response { .. } => None,
        }
    }

    /// Where the Request-URI lies.
    pub const fn request_uri(&self) -> Option<Span> {
        match self.head.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI as written; empty for a response.
    pub fn request_uri_bytes(&self) -> &'a [u8] {
        self.request_uri().map(|uri| self.text(uri)).unwrap_or_default()
    }

    /// The Request-URI understood.
    pub fn uri(&self) -> Result<Uri<'a>, UriError> {
        Uri::parse(self.request_uri_bytes())
    }

    /// The status of a response.
    pub const fn status(&self) -> Option<StatusCode> {
        match self.head.start {
            Start::Request { .. } => None,
            Start::Response { status, .. } => Some(status),
        }
    }

    /// The reason phrase; may be empty, may hold any octet.
    pub fn reason(&self) -> &'a [u8] {
        match self.head.start {
            Start::Request { .. } => b"",
            Start::Response { reason, .. } => self.text(reason),
        }
    }

    /// The body; may be empty.
    pub fn body(&self) -> &'a [u8] {
        self.text(self.head.body)
    }

    /// Where the body lies.
    pub const fn body_span(&self) -> Span {
        self.head.body
    }

    /// The octets of a place in this message.
    pub fn text(&self, span: Span) -> &'a [u8] {
        span.slice(self.bytes)
    }

    /// The first octet after the start line: where a field goes to come first.
    pub const fn headers_start(&self) -> u32 {
        self.head.headers_start
    }

    /// Where the empty line begins: where a field goes to come last.
    pub const fn headers_end(&self) -> u32 {
        self.head.headers_end
    }

    /// Every header field in order.
    pub fn fields(&self) -> Fields<'a> {
        Fields { bytes: self.bytes, slots: self.slots.iter(), name: None }
    }

    /// The fields of one known name in order.
    pub fn all(&self, name: HeaderName) -> Fields<'a> {
        Fields { bytes: self.bytes, slots: self.slots.iter(), name: Some(name) }
    }

    /// The first field of one known name.
    pub fn field(&self, name: HeaderName) -> Option<Field<'a>> {
        self.all(name).next()
    }

    /// The fields of any name, private ones included, whatever its case. Compact forms are
    /// found by [`Self::all`] only.
    pub fn named<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = Field<'a>> + use<'a, 'n> {
        let bytes = self.bytes;
        let is_it = move |slot: &&Slot| {
            usize::from(slot.name_length) == name.len()
                && slot.raw_name(bytes).eq_ignore_ascii_case(name)
        };
        self.slots.iter().filter(is_it).map(move |slot| slot.view(bytes))
    }

    /// The values of one name: listed with commas or repeated, it makes no difference.
    pub fn values(&self, name: HeaderName) -> Values<'a, Fields<'a>> {
        Values::new(self.bytes, self.all(name))
    }

    /// Every hop, the nearest first.
    ///
    /// # Cost
    ///
    /// The first two are known from parsing; any other is read anew.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'a>, HeaderError>> + Clone + use<'a> {
        let bytes = self.bytes;
        let known = self.head.are_vias_read.then_some(self.head.vias);
        let is_rest_unread = known.is_none() || self.head.has_more_vias;
        let rest = is_rest_unread.then(|| self.values(HeaderName::VIA));
        let passed = known.map_or(0, |known| known.len());
        let known = known.into_iter().flatten().flatten().map(move |via| Ok(via.view(bytes)));
        let rest = rest.into_iter().flatten().skip(passed);
        known.chain(rest.map(move |value| Via::parse(bytes, value)))
    }

    /// The nearest hop.
    pub fn top_via(&self) -> Result<Via<'a>, HeaderError> {
        let [top, _] = &self.head.vias;
        let missing = HeaderError::Missing { name: HeaderName::VIA };
        match top {
            Some(top) => Ok(top.view(self.bytes)),
            None => self.vias().next().unwrap_or(Err(missing)),
        }
    }

    fn address(
        &self,
        parts: Option<NameAddrParts>,
        name: HeaderName,
    ) -> Result<NameAddr<'a>, HeaderError> {
        let parts = match parts {
            Some(parts) => parts,
            None => {
                let field = self.field(name).ok_or(HeaderError::Missing { name })?;
                from_to::read(self.bytes, field.value_span, name)?
            }
        };
        Ok(NameAddr::from_parts(self.bytes, parts))
    }

    /// Who sent the request.
    pub fn from(&self) -> Result<NameAddr<'a>, HeaderError> {
        self.address(self.head.from, HeaderName::FROM)
    }

    /// Whom the request is for, by name.
    pub fn to(&self) -> Result<NameAddr<'a>, HeaderError> {
        self.address(self.head.to, HeaderName::TO)
    }

    /// The tag of the From; elements of RFC 2543 write none.
    pub fn from_tag(&self) -> Option<&'a [u8]> {
        self.head.from?.tag.map(|tag| self.text(tag))
    }

    /// The tag of the To: a request that has one is inside a dialog.
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        self.head.to?.tag.map(|tag| self.text(tag))
    }

    /// The Call-ID; empty only if the message was refused for its absence.
    pub fn call_id(&self) -> &'a [u8] {
        self.text(self.head.call_id)
    }

    /// The CSeq; zero and no method only if the message was refused for its absence.
    pub fn cseq(&self) -> CSeq<'a> {
        let (number, method) = self.head.cseq.unwrap_or_default();
        CSeq { number, method: Method::from_bytes(self.text(method)) }
    }

    /// The hops left, if the field is there.
    pub const fn max_forwards(&self) -> Option<MaxForwards> {
        self.head.max_forwards
    }

    /// The Expires field in seconds, if it is there. In a response one that is malformed is not.
    pub const fn expires(&self) -> Option<u32> {
        self.head.expires
    }

    /// What the Contact fields hold.
    pub fn contacts(&self) -> Result<Contacts<'a>, HeaderError> {
        Contacts::of(self)
    }

    fn route_values(
        &self,
        name: HeaderName,
    ) -> impl Iterator<Item = Result<RouteValue<'a>, HeaderError>> + Clone + use<'a> {
        let bytes = self.bytes;
        self.values(name).map(move |value| RouteValue::parse(bytes, value, name))
    }

    /// The Route values, the next first.
    pub fn routes(
        &self,
    ) -> impl Iterator<Item = Result<RouteValue<'a>, HeaderError>> + Clone + use<'a> {
        self.route_values(HeaderName::ROUTE)
    }

    /// The next Route value. Not read anew, unlike those of [`routes`](Self::routes).
    pub fn top_route(&self) -> Option<Result<RouteValue<'a>, HeaderError>> {
        match &self.head.top_route {
            Some(top) => Some(Ok(top.view(self.bytes))),
            None => self.routes().next(),
        }
    }

    /// The Record-Route values, the nearest first.
    pub fn record_routes(
        &self,
    ) -> impl Iterator<Item = Result<RouteValue<'a>, HeaderError>> + Clone + use<'a> {
        self.route_values(HeaderName::RECORD_ROUTE)
    }

    /// The Path values, the nearest to the registrar first.
    pub fn paths(
        &self,
    ) -> impl Iterator<Item = Result<RouteValue<'a>, HeaderError>> + Clone + use<'a> {
        self.route_values(HeaderName::PATH)
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = (self.head.headers_start as usize).saturating_sub(2);
        let line = self.bytes.get(..length).unwrap_or_default();
        write!(f, "Message(\"{}\", Call-ID {})", line.escape_ascii(), self.call_id().escape_ascii())
    }
}
