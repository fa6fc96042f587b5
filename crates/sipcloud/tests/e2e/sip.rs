//! Messages as a phone reads them: lines of text.

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Message(pub(crate) String);

impl Message {
    pub(crate) fn start(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// `None` for a request.
    pub(crate) fn status(&self) -> Option<u16> {
        self.start().strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    pub(crate) fn is_request(&self, method: &str) -> bool {
        self.start().split(' ').next() == Some(method)
    }

    pub(crate) fn uri(&self) -> &str {
        self.start().split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn value(&self, name: &str) -> String {
        self.values(name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// That of the topmost Via.
    pub(crate) fn branch(&self) -> String {
        let via = self.value("Via");
        let branch = via.split(';').find_map(|it| it.trim().strip_prefix("branch="));
        branch.unwrap_or_default().to_owned()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let value = |line: &str| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.0.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(value).collect()
    }

    pub(crate) fn call_id(&self) -> String {
        self.value("Call-ID")
    }

    /// Number and method.
    pub(crate) fn cseq(&self) -> String {
        self.value("CSeq")
    }

    /// The URI of the Contact.
    pub(crate) fn contact(&self) -> String {
        uri_of(&self.value("Contact")).to_owned()
    }

    /// For how many seconds the Contact is bound.
    pub(crate) fn contact_expires(&self) -> Option<u32> {
        self.value("Contact").split_once(";expires=")?.1.split(';').next()?.parse().ok()
    }

    /// Record-Route values in the order of the message.
    pub(crate) fn record_routes(&self) -> Vec<String> {
        let lines = self.values("Record-Route");
        lines.iter().flat_map(|line| line.split(',')).map(|it| it.trim().to_owned()).collect()
    }

    /// The length that is claimed for the body.
    pub(crate) fn content_length(&self) -> usize {
        let length = self.values("Content-Length").into_iter().chain(self.values("l")).next();
        length.map_or(0, |length| length.parse().expect("a length"))
    }
}

/// The URI between angle brackets, or the whole text.
fn uri_of(text: &str) -> &str {
    let inner = text.split_once('<').map_or(text, |(_, rest)| rest);
    inner.split('>').next().unwrap_or(inner)
}

/// A header field that answers a challenge (RFC 7616 §3.4 with MD5 and qop=auth).
pub(crate) fn credentials(
    challenge: &Message,
    (user, password): (&str, &str),
    (method, uri): (&str, &str),
) -> String {
    let (field, name) = match challenge.status() {
        Some(407) => ("Proxy-Authenticate", "Proxy-Authorization"),
        _ => ("WWW-Authenticate", "Authorization"),
    };
    let offered = challenge.value(field);
    let part = |name: &str| {
        let quoted =
            offered.split(&format!("{name}=\"")).nth(1).and_then(|it| it.split('"').next());
        quoted.unwrap_or_else(|| panic!("no {name} in {offered}")).to_owned()
    };
    let (realm, nonce) = (part("realm"), part("nonce"));
    let ha1 = md5(&format!("{user}:{realm}:{password}"));
    let ha2 = md5(&format!("{method}:{uri}"));
    let response = md5(&format!("{ha1}:{nonce}:00000001:c:auth:{ha2}"));
    format!(
        "{name}: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm=MD5, cnonce=\"c\", qop=auth, nc=00000001"
    )
}

fn md5(text: &str) -> String {
    use md5::{Digest as _, Md5};
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
