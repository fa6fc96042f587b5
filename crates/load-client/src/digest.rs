//! Digest authentication from the phone's side, and what little a challenging callee needs
//! (RFC 3261 §22, RFC 8760; `qop=auth`).

use md5::{Digest as _, Md5};
use sha2::Sha256;
use sip_message::{AuthParams, HeaderName, Message};

use crate::plan::Credentials;

/// The algorithms that this client answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Self::Sha256),
            Some(_) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// The hash in lower-case hex.
    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex(Md5::digest(text).as_slice()),
            Self::Sha256 => hex(Sha256::digest(text).as_slice()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who asks for credentials, and so which header fields are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// 401: WWW-Authenticate, Authorization.
    Server,
    /// 407: Proxy-Authenticate, Proxy-Authorization.
    Proxy,
}

/// A request for credentials that we can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DigestChallenge {
    asker: Asker,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    has_qop: bool,
}

impl DigestChallenge {
    /// The first challenge of a 401 or 407 whose algorithm we know (RFC 8760 §2.4).
    pub(crate) fn of(response: &Message<'_>) -> Option<Self> {
        let proxy = response.all(HeaderName::PROXY_AUTHENTICATE).map(|it| (Asker::Proxy, it.value));
        let server = response.all(HeaderName::WWW_AUTHENTICATE).map(|it| (Asker::Server, it.value));
        proxy.chain(server).find_map(|(asker, value)| Self::read(asker, value))
    }

    fn read(asker: Asker, value: &[u8]) -> Option<Self> {
        let fields = AuthParams::parse(value).filter(AuthParams::is_digest)?;
        let has_qop = match text(&fields, "qop") {
            Some(qop) => {
                let knows_auth = qop.split(',').any(|it| it.trim().eq_ignore_ascii_case("auth"));
                if !knows_auth {
                    return None;
                }
                true
            }
            None => false,
        };
        Some(Self {
            asker,
            realm: text(&fields, "realm")?,
            nonce: text(&fields, "nonce")?,
            opaque: text(&fields, "opaque"),
            algorithm: Algorithm::named(text(&fields, "algorithm").as_deref())?,
            has_qop,
        })
    }

    /// The header line (with CRLF) that answers it for one request. Each challenge is answered
    /// once here, so the nonce count is 1.
    pub(crate) fn answer(
        &self,
        who: &Credentials,
        method: &str,
        uri: &str,
        cnonce: &str,
    ) -> String {
        let Self { asker, realm, nonce, opaque, algorithm, has_qop } = self;
        let proof = Proof {
            algorithm: *algorithm,
            realm,
            nonce,
            qop: has_qop.then_some(Qop { count: "00000001", cnonce }),
            method,
            uri,
        };
        let header = match asker {
            Asker::Server => "Authorization",
            Asker::Proxy => "Proxy-Authorization",
        };
        let response = proof.response(who);
        let mut line = format!(
            "{header}: Digest username=\"{}\",realm=\"{realm}\",nonce=\"{nonce}\",uri=\"{uri}\",\
             response=\"{response}\",algorithm={}",
            who.user,
            algorithm.name()
        );
        if *has_qop {
            line += &format!(",qop=auth,nc=00000001,cnonce=\"{cnonce}\"");
        }
        if let Some(opaque) = opaque {
            line += &format!(",opaque=\"{opaque}\"");
        }
        line + "\r\n"
    }
}

/// What goes into the hash besides user and password.
struct Proof<'a> {
    algorithm: Algorithm,
    realm: &'a str,
    nonce: &'a str,
    qop: Option<Qop<'a>>,
    method: &'a str,
    uri: &'a str,
}

struct Qop<'a> {
    count: &'a str,
    cnonce: &'a str,
}

impl Proof<'_> {
    fn response(&self, who: &Credentials) -> String {
        let Self { algorithm, realm, nonce, qop, method, uri } = self;
        let ha1 = algorithm.hash(&format!("{}:{realm}:{}", who.user, who.password));
        let ha2 = algorithm.hash(&format!("{method}:{uri}"));
        let middle = qop.as_ref().map(|it| format!("{}:{}:auth:", it.count, it.cnonce));
        algorithm.hash(&format!("{ha1}:{nonce}:{}{ha2}", middle.unwrap_or_default()))
    }
}

/// Whether a request carries right credentials of one of `users` for `realm` and `nonce`; for a
/// callee that is asked to challenge.
pub(crate) fn is_authorised(
    request: &Message<'_>,
    method: &str,
    realm: &str,
    nonce: &str,
    users: &[Credentials],
) -> bool {
    request.all(HeaderName::PROXY_AUTHORIZATION).any(|field| {
        let Some(fields) = AuthParams::parse(field.value).filter(AuthParams::is_digest) else {
            return false;
        };
        let get = |name| text(&fields, name).unwrap_or_default();
        let Some(algorithm) = Algorithm::named(text(&fields, "algorithm").as_deref()) else {
            return false;
        };
        let (count, cnonce, uri) = (get("nc"), get("cnonce"), get("uri"));
        let qop = text(&fields, "qop").map(|_| Qop { count: &count, cnonce: &cnonce });
        let proof = Proof { algorithm, realm, nonce, qop, method, uri: &uri };
        let user = get("username");
        get("realm") == realm
            && get("nonce") == nonce
            && users
                .iter()
                .find(|who| who.user == user)
                .is_some_and(|who| proof.response(who) == get("response"))
    })
}

/// A parameter of a challenge or of credentials, without its quotes.
fn text(fields: &AuthParams<'_>, name: &str) -> Option<String> {
    fields.get(name.as_bytes()).map(|value| String::from_utf8_lossy(&value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa() -> Credentials {
        Credentials { user: "Mufasa".to_owned(), password: "Circle of Life".to_owned() }
    }

    /// The example of RFC 7616 §3.9.1, both algorithms.
    #[test]
    fn responses_are_those_of_the_standard_example() {
        let cases = [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ];
        for (algorithm, expected) in cases {
            let proof = Proof {
                algorithm,
                realm: "http-auth@example.org",
                nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                qop: Some(Qop {
                    count: "00000001",
                    cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                }),
                method: "GET",
                uri: "/dir/index.html",
            };
            assert_eq!(proof.response(&mufasa()), expected, "{algorithm:?}");
        }
    }

    #[test]
    fn challenges_are_read_whatever_their_order_and_quotes() {
        let value = br#"Digest qop="auth,auth-int" , nonce="a=\"b,c" ,algorithm=sha-256, realm="r s",stale=FALSE"#;
        let challenge = DigestChallenge::read(Asker::Proxy, value).expect("a challenge");
        assert_eq!(challenge.realm, "r s");
        assert_eq!(challenge.nonce, "a=\"b,c");
        assert_eq!(challenge.algorithm, Algorithm::Sha256);
        assert!(challenge.has_qop);
        assert!(DigestChallenge::read(Asker::Proxy, b"Basic realm=\"x\"").is_none());
        let unknown = br#"Digest realm="x",nonce="y",algorithm=SHA-512-256"#;
        assert!(DigestChallenge::read(Asker::Proxy, unknown).is_none());
    }
}
