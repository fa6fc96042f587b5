//! `Route`, `Record-Route` and `Path` (RFC 3261 §20.34, §20.30, RFC 3327 §3).
//!
//! ```abnf
//! Route        = "Route" HCOLON route-param *( COMMA route-param )
//! Record-Route = "Record-Route" HCOLON rec-route *( COMMA rec-route )
//! Path         = "Path" HCOLON path-value *( COMMA path-value )
//! route-param  = name-addr *( SEMI rr-param )
//! ```

use super::name_addr::NameAddr;
use super::value::Value;
use crate::error::{HeaderError, UriError};
use crate::header::HeaderName;
use crate::uri::Uri;

/// One Route, Record-Route or Path value.
#[derive(Clone, Copy, Debug)]
pub struct RouteValue<'a> {
    pub address: NameAddr<'a>,
    /// The value in its list.
    pub value: Value<'a>,
}

impl<'a> RouteValue<'a> {
    pub(crate) fn parse(
        message: &'a [u8],
        value: Value<'a>,
        name: HeaderName,
    ) -> Result<Self, HeaderError> {
        Ok(Self { address: NameAddr::parse(message, value.span, name)?, value })
    }

    /// The URI understood.
    pub fn uri(&self) -> Result<Uri<'a>, UriError> {
        self.address.uri()
    }

    /// Whether the URI asks for loose routing (RFC 3261 §16.4).
    pub fn is_loose(&self) -> bool {
        self.uri().is_ok_and(|uri| uri.param(b"lr").is_some())
    }
}
