//! Lists of option tags: `Require`, `Proxy-Require`, `Supported`, `Unsupported` (RFC 3261 §20.29,
//! §20.32, §20.37, §20.40). Compared case-insensitively.
//!
//! ```abnf
//! Require       = "Require" HCOLON option-tag *( COMMA option-tag )
//! Proxy-Require = "Proxy-Require" HCOLON option-tag *( COMMA option-tag )
//! Supported     = ( "Supported" / "k" ) HCOLON [ option-tag *( COMMA option-tag ) ]
//! option-tag    = token
//! ```

use crate::header::HeaderName;
use crate::message::Message;

impl<'a> Message<'a> {
    /// The tags of all fields of that name, in order, as written.
    pub fn option_tags(
        &self,
        name: HeaderName,
    ) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.values(name).map(|value| value.text)
    }

    /// Whether a field of that name lists the tag.
    pub fn has_option_tag(&self, name: HeaderName, tag: &str) -> bool {
        self.option_tags(name).any(|listed| listed.eq_ignore_ascii_case(tag.as_bytes()))
    }
}
