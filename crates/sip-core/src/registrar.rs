//! The registrar (RFC 3261 §10.3, RFC 3327, RFC 5626 §6): a REGISTER and the rows that are there →
//! the rows to write and what the 200 says.

use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sip_message::{Contacts, HeaderName, Message, NameAddr, Scheme, Uri, uri};
use store::{Aor, Binding, BindingId, UnixMillis};

use crate::capabilities::SUPPORTED;
use crate::date::http_date;
use crate::names::LocalNames;
use crate::reject::{Fields, Reject};

/// How much of a User-Agent is kept.
const USER_AGENT_MAX: usize = 256;

/// The operator's choices; all in seconds but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrarPolicy {
    /// For a contact that does not say.
    pub expires_default_s: u32,
    /// Below it: 423.
    pub expires_min_s: u32,
    /// Above it: shortened.
    pub expires_max_s: u32,
    /// Live contacts of one address-of-record.
    pub contacts_max: usize,
}

impl Default for RegistrarPolicy {
    fn default() -> Self {
        Self {
            expires_default_s: 3_600,
            expires_min_s: 60,
            expires_max_s: 86_400,
            contacts_max: 10,
        }
    }
}

/// What the REGISTER is held against.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    pub aor: &'a Aor,
    /// Every row of it, expired ones too: they know the last CSeq.
    pub rows: &'a [Binding],
    /// Where the REGISTER came from: the flow's remote address.
    pub received: Option<SocketAddr>,
    /// The balancer that brought it is on its way out: the binding is as short as may be, so that
    /// the phone comes back soon, and elsewhere (RFC 3261 §10.3 lets a registrar shorten).
    pub is_brief: bool,
    /// When the REGISTER was received.
    pub now: UnixMillis,
}

/// A REGISTER that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// To write in one batch before the 200 is sent; empty if nothing changes.
    pub upserts: Vec<Binding>,
    /// Header fields of the 200: every live binding, Date, what was used.
    pub fields: Fields,
}

/// The address-of-record that a REGISTER is about.
///
/// # Errors
///
/// 404 if its To is not a user of a domain of ours (RFC 3261 §10.3 step 5).
pub fn aor_of(request: &Message<'_>, names: &LocalNames) -> Result<Aor, Reject> {
    let to = request.to().map_err(|_| Reject::BadRequest { what: "To" })?;
    let uri = to.uri().map_err(|_| Reject::BadRequest { what: "To" })?;
    names.aor(&uri).ok_or(Reject::NotFound)
}

/// Carries out a REGISTER whose sender is known and may do this.
///
/// # Errors
///
/// 400 for contacts that make no sense, 403 above the limit of contacts, 423 below the shortest
/// expiry, 500 for a REGISTER that a later one has overtaken. Then nothing is changed.
pub fn register(
    policy: &RegistrarPolicy,
    request: &Message<'_>,
    registration: Registration<'_>,
) -> Result<Registered, Reject> {
    let contacts = request.contacts().map_err(|_| Reject::BadRequest { what: "Contact" })?;
    let writer = Writer::new(policy, request, registration);
    let upserts = match contacts {
        Contacts::Star => writer.remove_all()?,
        Contacts::List(list) => {
            let mut upserts: Vec<Binding> = Vec::new();
            for contact in list {
                let contact = contact.map_err(|_| Reject::BadRequest { what: "Contact" })?;
                if let Some(binding) = writer.binding(&contact)? {
                    // The last of two equal contacts in one REGISTER stands.
                    upserts.retain(|other| other.id != binding.id);
                    upserts.push(binding);
                }
            }
            upserts
        }
    };
    let live = live_after(&registration, &upserts);
    let grows = upserts.iter().any(|it| it.is_live(registration.now));
    if grows && live.len() > policy.contacts_max {
        return Err(Reject::TooManyContacts { limit: policy.contacts_max });
    }
    let fields = answer(request, &live, registration.now);
    Ok(Registered { upserts, fields })
}

/// The bindings that are live once `upserts` are written, the most wanted first.
fn live_after<'a>(registration: &Registration<'a>, upserts: &'a [Binding]) -> Vec<&'a Binding> {
    let kept = registration.rows.iter().filter(|row| upserts.iter().all(|it| it.id != row.id));
    let now = registration.now;
    let mut live: Vec<&Binding> = kept.chain(upserts).filter(|it| it.is_live(now)).collect();
    live.sort_by(|one, other| one.preference(other));
    live
}

/// Makes rows of contacts.
struct Writer<'a> {
    policy: &'a RegistrarPolicy,
    request: &'a Message<'a>,
    registration: Registration<'a>,
    path: Vec<Vec<u8>>,
    /// The timestamp of every row of the batch, fixed before the write.
    stamp: UnixMillis,
}

impl<'a> Writer<'a> {
    fn new(
        policy: &'a RegistrarPolicy,
        request: &'a Message<'a>,
        registration: Registration<'a>,
    ) -> Self {
        let path = request.values(HeaderName::PATH).map(|value| value.text.to_vec()).collect();
        let last = registration.rows.iter().map(|row| row.updated_at).max();
        let stamp = UnixMillis::of_write(registration.now, last);
        Self { policy, request, registration, path, stamp }
    }

    /// `Contact: *`: only to remove everything (RFC 3261 §10.3 step 6).
    fn remove_all(&self) -> Result<Vec<Binding>, Reject> {
        let is_alone = self.request.values(HeaderName::CONTACT).count() == 1;
        if !is_alone || self.request.expires() != Some(0) {
            return Err(Reject::BadRequest { what: "Contact: * is for Expires: 0 alone" });
        }
        let now = self.registration.now;
        // What the operator provided is not the phone's to remove.
        let is_removable = |row: &&Binding| row.is_live(now) && !row.direct;
        let mut upserts = Vec::new();
        for row in self.registration.rows.iter().filter(is_removable) {
            if self.order_of(row) == Order::Later {
                upserts.push(self.removed(row.clone()));
            } else {
                return Err(Reject::RegisterOutOfOrder);
            }
        }
        Ok(upserts)
    }

    /// The row of one contact, or `None` if there is nothing to write.
    fn binding(&self, contact: &NameAddr<'_>) -> Result<Option<Binding>, Reject> {
        let unreadable = Reject::BadRequest { what: "Contact" };
        let Ok(uri) = contact.uri() else { return Err(unreadable) };
        if !matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) {
            return Err(Reject::BadRequest { what: "a Contact that is no SIP URI" });
        }
        let [usual, brief] = self.lifetimes_of(contact)?;
        let seconds = if self.registration.is_brief { brief } else { usual };
        let wanted = self.row(contact, &uri, seconds);
        let row = self.registration.rows.iter().find(|row| row.id == wanted.id);
        match row.map(|row| (row, self.order_of(row))) {
            // To remove what is not there changes nothing.
            None if seconds == 0 => Ok(None),
            None | Some((_, Order::Later)) => Ok(Some(wanted)),
            // Repeated, maybe by a client whose first proxy has died: answer again. Its balancer may
            // have begun to leave meanwhile, or not leave after all: what was granted stands.
            Some((row, Order::Same))
                if is_same_contact(row, &wanted) && has_lifetime(row, [usual, brief]) =>
            {
                Ok(None)
            }
            Some((_, Order::Same | Order::Earlier)) => Err(Reject::RegisterOutOfOrder),
        }
    }

    /// Parameter, else header field, else default; too long is shortened, too short is 423. Then
    /// what it is at a balancer on its way out.
    fn lifetimes_of(&self, contact: &NameAddr<'_>) -> Result<[u32; 2], Reject> {
        let policy = self.policy;
        let asked = contact.expires().or_else(|| self.request.expires());
        let seconds = asked.unwrap_or(policy.expires_default_s).min(policy.expires_max_s);
        if seconds > 0 && seconds < policy.expires_min_s {
            return Err(Reject::IntervalTooBrief { min_s: policy.expires_min_s });
        }
        Ok([seconds, seconds.min(policy.expires_min_s)])
    }

    fn row(&self, contact: &NameAddr<'_>, uri: &Uri<'_>, seconds: u32) -> Binding {
        let (instance, reg_id) = flow_of(contact);
        let id = match (instance, reg_id) {
            (Some(instance), Some(reg_id)) => id_of_flow(instance, reg_id),
            _ => id_of_contact(uri),
        };
        let agent =
            self.request.field(HeaderName::USER_AGENT).map_or(b"".as_slice(), |it| it.value);
        let lifetime = Duration::from_secs(u64::from(seconds));
        let binding = Binding {
            id,
            contact: contact.uri_bytes().to_vec(),
            path: self.path.clone(),
            received: self.registration.received,
            q: contact.q().unwrap_or(1_000),
            call_id: self.request.call_id().to_vec(),
            cseq: self.request.cseq().number,
            expires_at: self.stamp.plus(lifetime),
            updated_at: self.stamp,
            user_agent: agent.get(..USER_AGENT_MAX).unwrap_or(agent).to_vec(),
            instance: instance.map(<[u8]>::to_vec),
            reg_id,
            direct: false,
        };
        if seconds == 0 { self.removed(binding) } else { binding }
    }

    /// The row stays, expired, with this CSeq: a delayed refresh must not bring it back.
    fn removed(&self, row: Binding) -> Binding {
        Binding {
            call_id: self.request.call_id().to_vec(),
            cseq: self.request.cseq().number,
            expires_at: self.registration.now,
            updated_at: self.stamp,
            ..row
        }
    }

    /// How this REGISTER stands to the one that wrote the row (RFC 3261 §10.3 step 7).
    fn order_of(&self, row: &Binding) -> Order {
        if row.call_id != self.request.call_id() {
            return Order::Later;
        }
        match self.request.cseq().number.cmp(&row.cseq) {
            std::cmp::Ordering::Greater => Order::Later,
            std::cmp::Ordering::Equal => Order::Same,
            std::cmp::Ordering::Less => Order::Earlier,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Later,
    Same,
    Earlier,
}

fn is_same_contact(row: &Binding, wanted: &Binding) -> bool {
    let parts = |it: &Binding| (it.contact.clone(), it.q, it.instance.clone(), it.reg_id);
    parts(row) == parts(wanted)
}

fn has_lifetime(row: &Binding, seconds: [u32; 2]) -> bool {
    let granted = row.expires_at.since(row.updated_at);
    seconds.iter().any(|one| granted == Duration::from_secs(u64::from(*one)))
}

/// What tells a phone's flows apart, as far as its Contact says it.
fn flow_of<'a>(contact: &NameAddr<'a>) -> (Option<&'a [u8]>, Option<u32>) {
    let instance = contact.param(b"+sip.instance").flatten().map(unquoted);
    let reg_id = contact.param(b"reg-id").flatten().and_then(read_number);
    (instance, reg_id)
}

/// The binding that the Contact of any request would be, had it been registered like this.
///
/// # Errors
///
/// 400 if the contact is no SIP URI.
pub fn binding_id_of(contact: &NameAddr<'_>) -> Result<BindingId, Reject> {
    match flow_of(contact) {
        (Some(instance), Some(reg_id)) => Ok(id_of_flow(instance, reg_id)),
        _ => binding_id_of_contact(contact.uri_bytes()),
    }
}

fn unquoted(text: &[u8]) -> &[u8] {
    let inner = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(text)
}

fn read_number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The id of a binding that names its instance and flow (RFC 5626 §6): the contact may change.
fn id_of_flow(instance: &[u8], reg_id: u32) -> BindingId {
    let length = u64::try_from(instance.len()).unwrap_or(u64::MAX).to_be_bytes();
    truncated(&[b"flow", &length, instance, &reg_id.to_be_bytes()])
}

/// The id of any other binding: equal contacts (RFC 3261 §19.1.4) have one.
fn id_of_contact(uri: &Uri<'_>) -> BindingId {
    let mut normalised = Vec::with_capacity(uri.bytes().len());
    uri::normalised(uri, &mut normalised);
    truncated(&[b"contact", &normalised])
}

fn truncated(parts: &[&[u8]]) -> BindingId {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    BindingId(id)
}

/// The id of a binding that was not registered but provided by the operator.
///
/// # Errors
///
/// 400 if the contact is no SIP URI.
pub fn binding_id_of_contact(contact: &[u8]) -> Result<BindingId, Reject> {
    let uri = Uri::parse(contact).map_err(|_| Reject::BadRequest { what: "Contact" })?;
    Ok(id_of_contact(&uri))
}

fn answer(request: &Message<'_>, live: &[&Binding], now: UnixMillis) -> Fields {
    let contacts = live.iter().map(|binding| ("Contact", contact_value(binding, now)));
    let mut fields: Fields = contacts.collect();
    fields.push(("Date", http_date(now).into_bytes()));
    fields.push(("Supported", SUPPORTED.as_bytes().to_vec()));
    // RFC 5626 §6: tells the phone that its flows are kept apart.
    let wants_outbound =
        request.option_tags(HeaderName::SUPPORTED).any(|tag| tag.eq_ignore_ascii_case(b"outbound"));
    let uses_flows = live.iter().any(|it| it.instance.is_some() && it.reg_id.is_some());
    if wants_outbound && uses_flows {
        fields.push(("Require", b"outbound".to_vec()));
    }
    fields
}

fn contact_value(binding: &Binding, now: UnixMillis) -> Vec<u8> {
    let mut value = Vec::with_capacity(binding.contact.len() + 96);
    value.push(b'<');
    value.extend_from_slice(&binding.contact);
    value.extend_from_slice(b">;expires=");
    // A stamp may be ahead of the clock by what was written before it; that is no longer lifetime.
    let granted = binding.expires_at.since(binding.updated_at).as_secs();
    let left = u64::from(binding.seconds_left(now)).min(granted.max(1));
    value.extend_from_slice(left.to_string().as_bytes());
    if binding.q < 1_000 {
        value.extend_from_slice(format!(";q=0.{:03}", binding.q).as_bytes());
    }
    if let Some(instance) = &binding.instance {
        value.extend_from_slice(b";+sip.instance=\"");
        value.extend_from_slice(instance);
        value.push(b'"');
    }
    if let Some(reg_id) = binding.reg_id {
        value.extend_from_slice(format!(";reg-id={reg_id}").as_bytes());
    }
    value
}

#[cfg(test)]
mod tests;
