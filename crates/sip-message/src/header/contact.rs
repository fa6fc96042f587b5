//! `Contact` (RFC 3261 §20.10).
//!
//! ```abnf
//! Contact        = ( "Contact" / "m" ) HCOLON ( STAR / ( contact-param *( COMMA contact-param ) ) )
//! contact-param  = ( name-addr / addr-spec ) *( SEMI contact-params )
//! contact-params = c-p-q / c-p-expires / contact-extension
//! ```

use super::name_addr::NameAddr;
use super::value::Values;
use crate::error::HeaderError;
use crate::header::HeaderName;
use crate::message::{Fields, Message};

/// What the Contact fields of a message hold.
#[derive(Clone)]
pub enum Contacts<'a> {
    /// `*`: every binding.
    Star,
    /// Nothing, one, or several addresses.
    List(ContactList<'a>),
}

/// The addresses, in order.
#[derive(Clone)]
pub struct ContactList<'a> {
    message: &'a [u8],
    values: Values<'a, Fields<'a>>,
}

impl<'a> Contacts<'a> {
    /// # Errors
    ///
    /// If `*` stands beside another value.
    pub(crate) fn of(message: &Message<'a>) -> Result<Self, HeaderError> {
        let mut values = message.values(HeaderName::CONTACT);
        let list = ContactList { message: message.bytes(), values: values.clone() };
        let Some(star) = values.clone().find(|value| value.text == b"*") else {
            return Ok(Self::List(list));
        };
        values.next();
        match values.next() {
            None => Ok(Self::Star),
            Some(_) => Err(HeaderError::Malformed {
                name: HeaderName::CONTACT,
                at: star.span.start as usize,
            }),
        }
    }
}

impl<'a> Iterator for ContactList<'a> {
    type Item = Result<NameAddr<'a>, HeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.values.next()?;
        Some(NameAddr::parse(self.message, value.span, HeaderName::CONTACT))
    }
}
