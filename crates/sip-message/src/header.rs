//! Header names: known ones as one octet, compact forms included (RFC 3261 §7.3.3, §20).
//!
//! The typed headers live beside this file, one each. They are understood on demand.

pub mod auth;
pub mod call_id;
pub mod contact;
pub mod content_length;
pub mod cseq;
pub mod expires;
pub mod from_to;
pub mod max_forwards;
pub mod name_addr;
pub mod option_tag;
pub mod param;
pub mod route;
pub mod value;
pub mod via;

use std::fmt;

/// The name of a header field, whatever its case or form. Private ones are all [`Self::OTHER`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderName(u8);

macro_rules! header_names {
    ($($name:ident = $text:literal $($compact:literal)?;)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "counts the constants below, which share its names")]
        #[derive(Clone, Copy)]
        #[repr(u8)]
        enum Number { $($name,)* OTHER }

        impl HeaderName {
            $(#[doc = $text] pub const $name: Self = Self(Number::$name as u8);)*
            /// Any name that is not in the list.
            pub const OTHER: Self = Self(Number::OTHER as u8);
        }

        static TEXTS: [&str; COUNT] = NAMES;
        const NAMES: [&str; COUNT] = [$($text,)*];
        const COMPACT: &[(u8, HeaderName)] = &[$($(($compact, HeaderName::$name),)?)*];
    };
}

header_names! {
    ACCEPT = "Accept";
    ACCEPT_CONTACT = "Accept-Contact" b'a';
    ACCEPT_ENCODING = "Accept-Encoding";
    ACCEPT_LANGUAGE = "Accept-Language";
    ALERT_INFO = "Alert-Info";
    ALLOW = "Allow";
    ALLOW_EVENTS = "Allow-Events" b'u';
    AUTHENTICATION_INFO = "Authentication-Info";
    AUTHORIZATION = "Authorization";
    CALL_ID = "Call-ID" b'i';
    CALL_INFO = "Call-Info";
    CONTACT = "Contact" b'm';
    CONTENT_DISPOSITION = "Content-Disposition";
    CONTENT_ENCODING = "Content-Encoding" b'e';
    CONTENT_LANGUAGE = "Content-Language";
    CONTENT_LENGTH = "Content-Length" b'l';
    CONTENT_TYPE = "Content-Type" b'c';
    CSEQ = "CSeq";
    DATE = "Date";
    ERROR_INFO = "Error-Info";
    EVENT = "Event" b'o';
    EXPIRES = "Expires";
    FLOW_TIMER = "Flow-Timer";
    FROM = "From" b'f';
    IDENTITY = "Identity" b'y';
    IN_REPLY_TO = "In-Reply-To";
    MAX_FORWARDS = "Max-Forwards";
    MIME_VERSION = "MIME-Version";
    MIN_EXPIRES = "Min-Expires";
    MIN_SE = "Min-SE";
    ORGANIZATION = "Organization";
    P_ASSERTED_IDENTITY = "P-Asserted-Identity";
    PATH = "Path";
    PRIORITY = "Priority";
    PRIVACY = "Privacy";
    PROXY_AUTHENTICATE = "Proxy-Authenticate";
    PROXY_AUTHORIZATION = "Proxy-Authorization";
    PROXY_REQUIRE = "Proxy-Require";
    RACK = "RAck";
    REASON = "Reason";
    RECORD_ROUTE = "Record-Route";
    REFER_TO = "Refer-To" b'r';
    REFERRED_BY = "Referred-By" b'b';
    REJECT_CONTACT = "Reject-Contact" b'j';
    REPLACES = "Replaces";
    REPLY_TO = "Reply-To";
    REQUEST_DISPOSITION = "Request-Disposition" b'd';
    REQUIRE = "Require";
    RETRY_AFTER = "Retry-After";
    ROUTE = "Route";
    RSEQ = "RSeq";
    SERVER = "Server";
    SERVICE_ROUTE = "Service-Route";
    SESSION_EXPIRES = "Session-Expires" b'x';
    SUBJECT = "Subject" b's';
    SUBSCRIPTION_STATE = "Subscription-State";
    SUPPORTED = "Supported" b'k';
    TIMESTAMP = "Timestamp";
    TO = "To" b't';
    UNSUPPORTED = "Unsupported";
    USER_AGENT = "User-Agent";
    VIA = "Via" b'v';
    WARNING = "Warning";
    WWW_AUTHENTICATE = "WWW-Authenticate";
}

const COUNT: usize = Number::OTHER as usize;
/// Ends a chain of names with equal length and first letter.
const NONE: u8 = u8::MAX;
const LENGTHS: usize = 32;

/// Names by length and first letter: one look-up, then one comparison in nearly every case.
struct Lookup {
    compact: [u8; 32],
    heads: [u8; LENGTHS * 32],
    next: [u8; COUNT],
}

static LOOKUP: Lookup = lookup();

const fn bucket(length: usize, first: u8) -> usize {
    length * 32 + (first & 31) as usize
}

const fn lookup() -> Lookup {
    let mut lookup =
        Lookup { compact: [NONE; 32], heads: [NONE; LENGTHS * 32], next: [NONE; COUNT] };
    let texts: [&str; COUNT] = NAMES;
    let mut number = 0;
    while number < COUNT {
        let text = texts[number].as_bytes();
        let at = bucket(text.len(), text[0]);
        lookup.next[number] = lookup.heads[at];
        lookup.heads[at] = number as u8;
        number += 1;
    }
    let mut entry = 0;
    while entry < COMPACT.len() {
        let (letter, name) = COMPACT[entry];
        lookup.compact[(letter & 31) as usize] = name.0;
        entry += 1;
    }
    lookup
}

impl HeaderName {
    /// The name that these octets spell, in its long or compact form.
    pub fn from_bytes(name: &[u8]) -> Self {
        let Some(first) = name.first().filter(|first| first.is_ascii_alphabetic()) else {
            return Self::OTHER;
        };
        if name.len() == 1 {
            let number = LOOKUP.compact[usize::from(first & 31)];
            return if number == NONE { Self::OTHER } else { Self(number) };
        }
        if name.len() >= LENGTHS {
            return Self::OTHER;
        }
        let mut number = LOOKUP.heads[bucket(name.len(), *first)];
        while let Some(text) = TEXTS.get(usize::from(number)) {
            // Nearly everybody writes names as the RFCs do: one comparison of memory.
            if text.as_bytes() == name || text.as_bytes().eq_ignore_ascii_case(name) {
                return Self(number);
            }
            number = LOOKUP.next[usize::from(number)];
        }
        Self::OTHER
    }

    /// The long form; empty for [`Self::OTHER`].
    pub fn as_str(self) -> &'static str {
        TEXTS.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl HeaderName {
    /// One bit of its own; none for [`Self::OTHER`].
    pub(crate) const fn bit(self) -> u128 {
        if self.0 == Self::OTHER.0 { 0 } else { 1 << self.0 }
    }
}

const _: () = assert!(COUNT <= 128, "names have a bit each");

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::OTHER { "(other)" } else { self.as_str() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_every_form() {
        for (number, text) in TEXTS.iter().enumerate() {
            let name = HeaderName(number as u8);
            assert_eq!(name.as_str(), *text);
            for form in [text.to_string(), text.to_lowercase(), text.to_uppercase()] {
                assert_eq!(HeaderName::from_bytes(form.as_bytes()), name, "{form}");
            }
        }
        for (letter, name) in COMPACT {
            assert_eq!(HeaderName::from_bytes(&[*letter]), *name);
            assert_eq!(HeaderName::from_bytes(&[letter.to_ascii_uppercase()]), *name);
        }
    }

    #[test]
    fn other_names_are_other() {
        let long = "X".repeat(100);
        for text in
            ["", "X-Private", "Vi", "Viaa", "q", "Vi\u{e1}", "1", "Call_ID", "\u{16}", &long]
        {
            assert_eq!(HeaderName::from_bytes(text.as_bytes()), HeaderName::OTHER, "{text}");
        }
    }
}
