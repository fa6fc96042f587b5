//! When two URIs are one (RFC 3261 §19.1.4), and the form in which one is remembered.

use super::{Scheme, Uri};
use crate::syntax::is_unreserved;

/// Parameters that count even if only one of the URIs has them.
const ALWAYS_COMPARED: [&[u8]; 5] = [b"user", b"ttl", b"method", b"maddr", b"transport"];

/// Whether two URIs are equivalent. URIs of other schemes are compared octet by octet.
///
/// `maddr` and `transport` count as `user`, `ttl` and `method` do: one that has them does not
/// match one that does not, as the examples of §19.1.4 show.
pub fn equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    if !a.is_sip() || !b.is_sip() {
        return a.bytes() == b.bytes();
    }
    a.scheme() == b.scheme()
        && a.port() == b.port()
        && a.host().eq_ignore_ascii_case(b.host())
        && optional_eq(a.user(), b.user(), Case::Sensitive)
        && optional_eq(a.password(), b.password(), Case::Sensitive)
        && params_match(a, b)
        && params_match(b, a)
        && headers_within(a, b)
        && headers_within(b, a)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Sensitive,
    Folded,
}

fn optional_eq(a: Option<&[u8]>, b: Option<&[u8]>, case: Case) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => text_eq(a, b, case),
        (None, None) => true,
        _ => false,
    }
}

fn text_eq(a: &[u8], b: &[u8], case: Case) -> bool {
    canonical(a, case).eq(canonical(b, case))
}

fn params_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.params().all(|param| {
        let mut others = b.params();
        match others.find(|other| text_eq(param.name, other.name, Case::Folded)) {
            Some(other) => optional_eq(param.value, other.value, Case::Folded),
            None => !ALWAYS_COMPARED.iter().any(|name| text_eq(param.name, name, Case::Folded)),
        }
    })
}

fn headers_within(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let split = |headers| <[u8]>::split(headers, |byte| *byte == b'&');
    let in_b = b.headers().unwrap_or_default();
    split(a.headers().unwrap_or_default())
        .all(|header| split(in_b).any(|other| text_eq(header, other, Case::Folded)))
}

/// A text with one spelling for each octet: unreserved ones plain, others as they came, and the
/// escapes that remain in capitals. `%61` is `a`; `%40` is not `@` (§19.1.4).
fn canonical(text: &[u8], case: Case) -> impl Iterator<Item = (bool, u8)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let (is_escape, octet) = match escaped_at(text, at) {
            Some(octet) => {
                at += 3;
                (!is_unreserved(octet), octet)
            }
            None => {
                at += 1;
                (false, byte)
            }
        };
        let fold = case == Case::Folded && !is_escape;
        Some((is_escape, if fold { octet.to_ascii_lowercase() } else { octet }))
    })
}

/// The octet that `%hh` at `at` stands for.
fn escaped_at(text: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = text.get(at..at + 3)? else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

/// Appends a text without its escapes. A broken escape stays as it is.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match escaped_at(text, at) {
            Some(octet) => {
                out.push(octet);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
}

fn write_canonical(text: &[u8], case: Case, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (is_escape, octet) in canonical(text, case) {
        if is_escape {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
            out.extend([b'%', digit(octet >> 4), digit(octet & 15)]);
        } else {
            out.push(octet);
        }
    }
}

/// Appends one spelling for all spellings of a URI: case, escapes, order of parameters and of
/// headers no longer matter.
///
/// Equal results mean equivalent URIs. The reverse holds but for parameters that only one of two
/// URIs has and that §19.1.4 then ignores: that relation is not transitive, so no single
/// spelling can follow it.
pub fn normalised(uri: &Uri<'_>, out: &mut Vec<u8>) {
    if !uri.is_sip() {
        out.extend_from_slice(uri.bytes());
        return;
    }
    out.extend_from_slice(if uri.scheme() == Scheme::Sips { b"sips:" } else { b"sip:" });
    if let Some(user) = uri.user() {
        write_canonical(user, Case::Sensitive, out);
        if let Some(password) = uri.password() {
            out.push(b':');
            write_canonical(password, Case::Sensitive, out);
        }
        out.push(b'@');
    }
    out.extend(uri.host().iter().map(u8::to_ascii_lowercase));
    if let Some(port) = uri.port() {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    let params = uri.params().map(|param| {
        let mut text = vec![b';'];
        write_canonical(param.name, Case::Folded, &mut text);
        if let Some(value) = param.value {
            text.push(b'=');
            write_canonical(value, Case::Folded, &mut text);
        }
        text
    });
    append_sorted(params.collect(), out);
    if let Some(headers) = uri.headers() {
        out.push(b'?');
        let headers = headers.split(|byte| *byte == b'&').map(|header| {
            let mut text = vec![b'&'];
            write_canonical(header, Case::Folded, &mut text);
            text
        });
        append_sorted(headers.collect(), out);
    }
}

fn append_sorted(mut parts: Vec<Vec<u8>>, out: &mut Vec<u8>) {
    parts.sort_unstable();
    for part in parts {
        out.extend_from_slice(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_equivalent(a: &str, b: &str) -> bool {
        let (a, b) = (Uri::parse(a.as_bytes()).unwrap(), Uri::parse(b.as_bytes()).unwrap());
        assert_eq!(equivalent(&a, &b), equivalent(&b, &a));
        equivalent(&a, &b)
    }

    fn spelling(text: &str) -> String {
        let mut out = Vec::new();
        normalised(&Uri::parse(text.as_bytes()).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn spellings_of_one_uri_are_equivalent() {
        for (a, b) in [
            ("sip:%61lex@Harbour.example;Transport=TCP", "sip:alex@harbour.EXAMPLE;transport=tcp"),
            ("sip:a@b;x=1;y=2", "sip:a@b;Y=2;X=1"),
            ("sip:a@b?One=1&two=2", "sip:a@b?TWO=2&one=1"),
            ("sip:a%3ab@c", "sip:a%3Ab@c"),
            ("sip:a@b;lr", "sip:a@b;%6Cr"),
            ("tel:1", "tel:1"),
        ] {
            assert!(is_equivalent(a, b), "{a} {b}");
            assert_eq!(spelling(a), spelling(b));
        }
        assert!(is_equivalent("sip:a@b", "sip:a@b;unknown=1"), "ignored if only one has it");
    }

    #[test]
    fn different_uris_are_not_equivalent() {
        for (a, b) in [
            ("sip:alex@b", "sip:ALEX@b"),
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:b"),
            ("sip:a@b", "sip:a:pw@b"),
            ("sip:a@b", "sip:a@b:5060"),
            ("sip:a@b", "sip:a@b;transport=udp"),
            ("sip:a@b", "sip:a@b;maddr=c"),
            ("sip:a@b", "sip:a@b;user=phone"),
            ("sip:a@b;x=1", "sip:a@b;x=2"),
            ("sip:a@b;x", "sip:a@b;x=2"),
            ("sip:a@b", "sip:a@b?h=1"),
            ("sip:a@b?h=1", "sip:a@b?h=2"),
            ("sip:a%40b@c", "sip:a%41b@c"),
            ("sip:a%2541@c", "sip:a%41@c"),
            ("sip:a%00@c", "sip:a%00%00@c"),
            ("tel:1", "tel:2"),
        ] {
            assert!(!is_equivalent(a, b), "{a} {b}");
            assert_ne!(spelling(a), spelling(b));
        }
    }

    #[test]
    fn escapes_are_undone_once() {
        for (text, wanted) in
            [("%61%2561", "a%61"), ("%", "%"), ("%4", "%4"), ("%zz%40", "%zz@"), ("%00", "\u{0}")]
        {
            let mut out = Vec::new();
            unescape(text.as_bytes(), &mut out);
            assert_eq!(out, wanted.as_bytes(), "{text}");
        }
    }
}
