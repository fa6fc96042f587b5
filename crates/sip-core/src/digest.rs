//! Digest authentication (RFC 3261 §22, RFC 8760): challenges without memory, and their answers.
//!
//! A nonce is `base64url(key id, milliseconds, salt, MAC over these, realm and Call-ID)`: any proxy
//! of the fleet can tell its age and that it was made for this Call-ID.

mod hash;
mod window;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sip_message::uri::equivalent;
use sip_message::{AuthParams, HeaderName, Message, StatusCode, Uri};
use store::{Aor, Credential, UnixMillis};
use subtle::ConstantTimeEq;

pub use self::hash::Algorithm;
use self::window::{Count, NonceWindows};
use crate::identity::{ChallengeRole, Demand};
use crate::mac::{KeyRing, Purpose};
use crate::names::LocalNames;
use crate::reject::Fields;

/// Octets of a nonce before its MAC: key id, 48 bits of milliseconds, 32 bits of salt.
const NONCE_FRONT: usize = 11;
/// Octets of a nonce.
const NONCE_BYTES: usize = NONCE_FRONT + 16;

/// How challenges are made.
#[derive(Clone, Debug)]
pub struct DigestPolicy {
    /// What is offered, the most wanted first. The default is MD5 alone: SIPp 3.6 and baresip 1.0
    /// fail when they are shown more.
    pub algorithms: Vec<Algorithm>,
    /// For how long a nonce is good.
    pub nonce_lifetime: Duration,
    /// Of how many nonces the counts are remembered.
    pub nonces_max: usize,
}

impl Default for DigestPolicy {
    fn default() -> Self {
        Self {
            algorithms: vec![Algorithm::Md5],
            nonce_lifetime: Duration::from_secs(300),
            nonces_max: 65_536,
        }
    }
}

/// Makes and checks challenges. One per worker: a Call-ID has one owner, so the counts of its
/// nonces need no other place.
#[derive(Debug)]
pub struct Digest {
    policy: DigestPolicy,
    windows: NonceWindows,
}

/// Whether the client may simply compute its answer again with the new nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// It must ask its user.
    Fresh,
    /// `stale=true`: the password is not in question.
    Stale,
}

/// What a request shows.
#[expect(clippy::large_enum_variant, reason = "lives for one call; the claim is its usual case")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// Nothing that could be right: challenge.
    Challenge(Staleness),
    /// Fetch the credential of `claim.username` in `claim.realm`, then [`Digest::verify`].
    Ask(Claim),
}

/// What somebody claims to know. Owned: it outlives the query for the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub realm: String,
    pub username: String,
    algorithm: Algorithm,
    nonce: Vec<u8>,
    issued: UnixMillis,
    nonce_id: u128,
    uri: Vec<u8>,
    response: Vec<u8>,
    /// `None` without qop (digest as it was before qop).
    protection: Option<Protection>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Protection {
    qop: Vec<u8>,
    cnonce: Vec<u8>,
    nc_text: Vec<u8>,
    nc: u32,
}

/// What the credential said of the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It is this user. Then [`check_owner`](crate::identity::check_owner).
    Authentic(Aor),
    /// Challenge again. Unknown users and wrong passwords look the same.
    Challenge(Staleness),
}

/// The status of a challenge.
pub fn challenge_status(role: ChallengeRole) -> StatusCode {
    match role {
        ChallengeRole::UserAgentServer => StatusCode::UNAUTHORIZED, // 401
        ChallengeRole::Proxy => StatusCode::PROXY_AUTHENTICATION_REQUIRED, // 407
    }
}

fn credentials_of(role: ChallengeRole) -> HeaderName {
    match role {
        ChallengeRole::UserAgentServer => HeaderName::AUTHORIZATION,
        ChallengeRole::Proxy => HeaderName::PROXY_AUTHORIZATION,
    }
}

impl Digest {
    pub fn new(policy: DigestPolicy) -> Self {
        let windows = NonceWindows::new(policy.nonces_max, policy.nonce_lifetime);
        Self { policy, windows }
    }

    /// The header fields of a challenge: one for each algorithm (RFC 8760 §2.4).
    pub fn challenge(
        &self,
        ring: &KeyRing,
        request: &Message<'_>,
        demand: &Demand,
        staleness: Staleness,
        now: UnixMillis,
    ) -> Fields {
        let name = match demand.role {
            ChallengeRole::UserAgentServer => "WWW-Authenticate",
            ChallengeRole::Proxy => "Proxy-Authenticate",
        };
        let nonce = write_nonce(ring, request, &demand.realm, now);
        let one = |algorithm: &Algorithm| {
            let mut value = Vec::with_capacity(160);
            value.extend_from_slice(b"Digest realm=\"");
            value.extend_from_slice(demand.realm.as_bytes());
            value.extend_from_slice(b"\", nonce=\"");
            value.extend_from_slice(nonce.as_bytes());
            value.extend_from_slice(b"\", algorithm=");
            value.extend_from_slice(algorithm.token().as_bytes());
            value.extend_from_slice(b", qop=\"auth\"");
            if staleness == Staleness::Stale {
                value.extend_from_slice(b", stale=true");
            }
            (name, value)
        };
        self.policy.algorithms.iter().map(one).collect()
    }

    /// First half, before the store is asked: finds the credentials for our realm and checks all of
    /// them that needs no password.
    pub fn present(
        &self,
        ring: &KeyRing,
        request: &Message<'_>,
        demand: &Demand,
        names: &LocalNames,
        now: UnixMillis,
    ) -> Presented {
        let mut staleness = Staleness::Fresh;
        // A phone may still carry the answer to an earlier challenge beside the one to this.
        for auth in credentials_for(request, demand) {
            let Some(claim) = self.read_claim(&auth, demand) else { continue };
            if !uri_matches(&claim.uri, request, names) {
                continue;
            }
            match self.read_nonce(ring, request, claim, now) {
                Some(claim) => return Presented::Ask(claim),
                // Another Call-ID, too old, or a key that is gone: nothing against the password.
                None => staleness = Staleness::Stale,
            }
        }
        Presented::Challenge(staleness)
    }

    fn read_claim(&self, auth: &AuthParams<'_>, demand: &Demand) -> Option<Claim> {
        let [algorithm, qop, nc, cnonce, username, nonce, uri, response] = auth.get_all([
            b"algorithm",
            b"qop",
            b"nc",
            b"cnonce",
            b"username",
            b"nonce",
            b"uri",
            b"response",
        ]);
        let algorithm = match algorithm {
            Some(token) => Algorithm::from_token(&token)?,
            None => Algorithm::Md5,
        };
        if !self.policy.algorithms.contains(&algorithm) {
            return None;
        }
        let protection = match qop {
            // auth-int is not offered.
            Some(qop) if !qop.eq_ignore_ascii_case(b"auth") => return None,
            Some(qop) => {
                let nc_text = nc?.into_owned();
                let nc = read_count(&nc_text)?;
                let cnonce = cnonce?.into_owned();
                Some(Protection { qop: qop.into_owned(), cnonce, nc_text, nc })
            }
            None => None,
        };
        Some(Claim {
            realm: demand.realm.clone(),
            username: bare_username(&username?, &demand.realm)?,
            algorithm,
            nonce: nonce?.into_owned(),
            issued: UnixMillis(0),
            nonce_id: 0,
            uri: uri?.into_owned(),
            response: response?.into_owned(),
            protection,
        })
    }

    /// The claim with what its nonce says, if the nonce is ours, for this Call-ID and young enough.
    fn read_nonce(
        &self,
        ring: &KeyRing,
        request: &Message<'_>,
        claim: Claim,
        now: UnixMillis,
    ) -> Option<Claim> {
        let octets = URL_SAFE_NO_PAD.decode(&claim.nonce).ok()?;
        let octets: [u8; NONCE_BYTES] = octets.try_into().ok()?;
        let (front, mac) = octets.split_at_checked(NONCE_FRONT)?;
        let (&key_id, stamped) = front.split_first()?;
        let expected = ring
            .with_key(Purpose::Nonce, key_id)?
            .field(stamped)
            .field(claim.realm.as_bytes())
            .field(request.call_id())
            .finish();
        if !bool::from(expected.ct_eq(mac)) {
            return None;
        }
        let millis = stamped.iter().take(6).fold(0, |sum, octet| sum << 8 | u64::from(*octet));
        let issued = UnixMillis(millis);
        if now.since(issued) > self.policy.nonce_lifetime {
            return None;
        }
        Some(Claim { issued, nonce_id: u128::from_be_bytes(expected), ..claim })
    }

    /// Second half, with the store's answer; `None` is an unknown user and costs the same.
    ///
    /// # Cost
    ///
    /// Two hashes of a few blocks, one look into a bounded table.
    pub fn verify(
        &mut self,
        request: &Message<'_>,
        claim: &Claim,
        credential: Option<&Credential>,
        now: UnixMillis,
    ) -> Verification {
        let method = request.method().map_or(b"".as_slice(), |method| method.as_bytes());
        let ha1 = claim.algorithm.ha1_hex(credential);
        let ha2 = claim.algorithm.hash_hex(&[method, b":", &claim.uri]);
        let expected = match &claim.protection {
            Some(Protection { qop, cnonce, nc_text, .. }) => claim.algorithm.hash_hex(&[
                &ha1,
                b":",
                &claim.nonce,
                b":",
                nc_text,
                b":",
                cnonce,
                b":",
                qop,
                b":",
                &ha2,
            ]),
            None => claim.algorithm.hash_hex(&[&ha1, b":", &claim.nonce, b":", &ha2]),
        };
        let response = claim.response.to_ascii_lowercase();
        let is_equal = bool::from(expected.as_slice().ct_eq(&response));
        if !is_equal || credential.is_none() {
            return Verification::Challenge(Staleness::Fresh);
        }
        let count = Count {
            nonce: claim.nonce_id,
            issued: claim.issued,
            // Without a count every use is the first.
            number: claim.protection.as_ref().map_or(0, |protection| protection.nc),
            request: fingerprint(request, method),
        };
        if self.windows.accept(count, now) {
            Verification::Authentic(Aor::new(claim.username.as_bytes(), claim.realm.as_bytes()))
        } else {
            Verification::Challenge(Staleness::Stale)
        }
    }
}

/// What a repeated count must share with its first use: all by which the request does something.
/// Digest itself vouches for method and URI alone, so a request that was overheard could otherwise
/// be sent again with another Contact. Vias differ: a client that fails over writes new ones.
fn fingerprint(request: &Message<'_>, method: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new_with_keys(0, 0);
    let mut write = |part: &[u8]| {
        hasher.write_usize(part.len());
        hasher.write(part);
    };
    write(&request.cseq().number.to_be_bytes());
    write(method);
    write(request.request_uri_bytes());
    for name in [HeaderName::FROM, HeaderName::TO, HeaderName::CONTACT, HeaderName::EXPIRES] {
        request.all(name).for_each(|field| write(field.value));
        write(name.as_str().as_bytes());
    }
    write(request.body());
    hasher.finish()
}

/// What tells the challenges of one millisecond apart.
fn salt(request: &Message<'_>, method: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new_with_keys(0, 0);
    hasher.write_u32(request.cseq().number);
    hasher.write_usize(method.len());
    hasher.write(method);
    hasher.write(request.request_uri_bytes());
    hasher.finish()
}

fn write_nonce(ring: &KeyRing, request: &Message<'_>, realm: &str, now: UnixMillis) -> String {
    // Challenges of one call within a millisecond must differ, or their counts would collide.
    let method = request.method().map_or(b"".as_slice(), |method| method.as_bytes());
    let [.., salt_a, salt_b, salt_c, salt_d] = salt(request, method).to_be_bytes();
    let [_, _, millis @ ..] = now.0.to_be_bytes();
    let mut stamped = [0; NONCE_FRONT - 1];
    let octets = millis.into_iter().chain([salt_a, salt_b, salt_c, salt_d]);
    stamped.iter_mut().zip(octets).for_each(|(to, from)| *to = from);

    let mac = ring
        .sign(Purpose::Nonce)
        .field(&stamped)
        .field(realm.as_bytes())
        .field(request.call_id())
        .finish();
    let octets = [&[ring.signing_id()], stamped.as_slice(), &mac].concat();
    URL_SAFE_NO_PAD.encode(octets)
}

/// The credentials whose realm is the demanded one, out of several (RFC 3261 §22.3).
fn credentials_for<'a>(
    request: &Message<'a>,
    demand: &Demand,
) -> impl Iterator<Item = AuthParams<'a>> {
    request
        .all(credentials_of(demand.role))
        .filter_map(|field| AuthParams::parse(field.value))
        .filter(AuthParams::is_digest)
        .filter(|auth| {
            let realm = auth.get(b"realm");
            realm.is_some_and(|realm| realm.eq_ignore_ascii_case(demand.realm.as_bytes()))
        })
}

/// `alice` of `alice` and of `alice@realm`. Bytes that are no UTF-8 are nobody's name here.
fn bare_username(username: &[u8], realm: &str) -> Option<String> {
    let text = std::str::from_utf8(username).ok()?;
    let bare = text.rsplit_once('@').filter(|(_, domain)| domain.eq_ignore_ascii_case(realm));
    Some(bare.map_or(text, |(user, _)| user).to_owned())
}

/// Eight hexadecimal digits, not zero (RFC 7616 §3.4).
fn read_count(text: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(text).ok().filter(|digits| digits.len() == 8)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok().filter(|count| *count > 0)
}

/// Whether the URI in the credentials is the one that the request is sent to: octet for octet, as
/// equal URIs (RFC 3261 §19.1.4), or, as SIPp writes it, the tier's own name without a user.
fn uri_matches(claimed: &[u8], request: &Message<'_>, names: &LocalNames) -> bool {
    if claimed == request.request_uri_bytes() {
        return true;
    }
    let Ok(claimed) = Uri::parse(claimed) else { return false };
    if request.uri().is_ok_and(|uri| equivalent(&claimed, &uri)) {
        return true;
    }
    claimed.user().is_none() && names.is_tier(&claimed)
}

#[cfg(test)]
mod tests;
