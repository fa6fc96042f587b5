//! One balancer, one proxy, one domain, no sockets: octets in, octets out.

use std::net::SocketAddr;

use fleet::{Incarnation, InstanceId, Membership};
use sip_core::branch::{
    MethodClass, ProxyBranch, ProxyVia, TierVia, proxy_branch, read_tier_via, write_proxy_via,
};
use sip_core::digest::{Digest, DigestPolicy, Presented, Verification, challenge_status};
use sip_core::flow_token::{
    DialogToken, Flow, Reach, Side, read_path, tag_hash, write_dialog_token, write_path,
};
use sip_core::forwarding::{self, Forward};
use sip_core::identity::{self, Demand, ForeignCallers, IdentityPolicy, Verdict as Identity};
use sip_core::mac::KeyRing;
use sip_core::names::LocalNames;
use sip_core::registrar::{self, RegistrarPolicy, Registration};
use sip_core::reject::{Fields, Reject};
use sip_core::route::{self, Addressee, Routed};
use sip_core::selection::Selection;
use sip_core::stateless::{self, BalancerIdentity, BalancerView, Directory, Verdict};
use sip_core::target::{self, TargetSet};
use sip_core::validation;
use sip_message::{
    Edits, Framing, Message, OwnedMessage, Reply, StatusCode, Transport, Uri, write_reply,
};
use store::{Aor, Binding, Credential, UnixMillis};

pub(crate) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// What the proxy did with a request.
pub(crate) enum Done {
    /// Answered with these octets.
    Answered(OwnedMessage),
    /// Forwarded these octets.
    Forwarded(OwnedMessage),
    /// An ACK that was for nobody.
    Absorbed,
}

pub(crate) struct World {
    pub(crate) ring: KeyRing,
    pub(crate) names: LocalNames,
    membership: Membership,
    directory: Directory,
    selection: Selection,
    me: BalancerIdentity,
    digest: Digest,
    pub(crate) rows: Vec<Binding>,
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn udp(remote: &str) -> Flow {
    Flow { listener: 0, transport: Transport::Udp, remote: address(remote), connection: None }
}

pub(crate) fn owned(bytes: &[u8]) -> OwnedMessage {
    OwnedMessage::parse(bytes.to_vec().into(), Framing::Datagram)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

impl World {
    pub(crate) fn new() -> Self {
        let membership = testkit::membership(1, 1);
        let ring = KeyRing::new(&testkit::keys()).expect("sound keys");
        let [balancer] = membership.balancers.as_slice() else { panic!("one balancer") };
        let me = BalancerIdentity {
            instance: balancer.instance,
            connections: 1,
            internal: balancer.internal,
            listeners: vec![balancer.advertised],
        };
        let tier = vec![balancer.internal, balancer.advertised];
        Self {
            names: LocalNames::new(&["example.com".to_owned()], &[], tier),
            directory: Directory::new(&membership),
            selection: Selection::new(1 << 8, ring.selection_key(), &membership.proxies),
            digest: Digest::new(DigestPolicy::default()),
            rows: Vec::new(),
            membership,
            ring,
            me,
        }
    }

    /// The address of the one proxy.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.membership.proxies.first().expect("one proxy").address
    }

    /// The balancer's decision, and the message as it leaves.
    pub(crate) fn balance(&self, message: &OwnedMessage, source: &Flow) -> (Verdict, OwnedMessage) {
        let view = BalancerView {
            ring: &self.ring,
            me: &self.me,
            directory: &self.directory,
            selection: &self.selection,
            generation: self.membership.generation,
            earlier: &[],
            service_names: &[],
            internal_mtu_bytes: 1_400,
            is_dead: &|_| false,
            is_suspect: &|_| false,
        };
        let mut edits = Edits::new();
        let view_of = message.view();
        let verdict = stateless::handle(&view, &view_of, source, &mut edits);
        let mut out = Vec::new();
        edits.apply(view_of.bytes(), &mut out);
        (verdict, owned(&out))
    }

    /// A client's request, through the balancer and the proxy's rooms.
    pub(crate) fn request(&mut self, text: &str, source: &Flow) -> Done {
        let (verdict, message) = self.balance(&testkit::request(text), source);
        assert!(matches!(verdict, Verdict::ToMember { .. }), "{verdict:?}");
        self.serve(&message).unwrap_or_else(|reject| {
            Done::Answered(answer(&message.view(), reject.status(), &reject.fields()))
        })
    }

    /// The proxy's rooms in their order.
    pub(crate) fn serve(&mut self, message: &OwnedMessage) -> Result<Done, Reject> {
        let request = message.view();
        let source = match request.top_via().map(|via| read_tier_via(&self.ring, &via)) {
            Ok(TierVia::Balancer { flow }) => flow,
            _ => udp("192.0.2.66:5060"),
        };
        let routed = route::preprocess(&request, &self.ring, &self.names)?;
        validation::validate(&request, &routed.addressee)?;
        let caller = match self.identify(&request, &routed, &source)? {
            Ok(caller) => caller,
            Err(challenge) => return Ok(Done::Answered(challenge)),
        };
        if routed.addressee == Addressee::Tier {
            return self.answer_as_tier(&request, &source);
        }
        let targets = self.targets(&request, &routed)?;
        Ok(Done::Forwarded(self.forward(&request, &routed, &targets, &source, caller)?))
    }

    /// The registrar without anybody asking who it is.
    pub(crate) fn register_blindly(&mut self, message: &OwnedMessage) -> Result<Done, Reject> {
        self.answer_as_tier(&message.view(), &udp("192.0.2.1:5060"))
    }

    /// Who sends it, or the challenge that asks.
    fn identify(
        &mut self,
        request: &Message<'_>,
        routed: &Routed<'_>,
        source: &Flow,
    ) -> Result<Result<Option<Aor>, OwnedMessage>, Reject> {
        let names = self.names.clone();
        let dialog_methods = ["INVITE", "BYE"].map(str::to_owned);
        let policy = IdentityPolicy {
            names: &names,
            trusted_trunks: &[],
            foreign_callers: ForeignCallers::Challenged,
            dialog_methods: &dialog_methods,
        };
        let demand = match identity::decide(&policy, request, routed, source.remote) {
            Identity::NotChallenged => return Ok(Ok(None)),
            Identity::Refuse(reject) => return Err(reject),
            Identity::Challenge(demand) | Identity::ChallengeUnlessFrom { demand, .. } => demand,
        };
        let staleness = match self.digest.present(&self.ring, request, &demand, &names, NOW) {
            Presented::Challenge(staleness) => staleness,
            Presented::Ask(claim) => {
                let stored = Credential::new(&claim.username, &claim.realm, "secret");
                match self.digest.verify(request, &claim, Some(&stored), NOW) {
                    Verification::Authentic(aor) => {
                        identity::check_owner(&demand, &aor)?;
                        return Ok(Ok(Some(aor)));
                    }
                    Verification::Challenge(staleness) => staleness,
                }
            }
        };
        let Demand { role, .. } = demand;
        let fields = self.digest.challenge(&self.ring, request, &demand, staleness, NOW);
        Ok(Err(answer(request, challenge_status(role), &fields)))
    }

    fn answer_as_tier(&mut self, request: &Message<'_>, source: &Flow) -> Result<Done, Reject> {
        use sip_core::capabilities::{OwnRequest, options_fields, own_request};
        let fields = match own_request(request.method().expect("a request"))? {
            OwnRequest::Options => options_fields(),
            OwnRequest::Drop => return Ok(Done::Absorbed),
            OwnRequest::Register => {
                let aor = registrar::aor_of(request, &self.names)?;
                let received = Some(source.remote);
                let rows = self.rows.clone();
                let registration =
                    Registration { aor: &aor, rows: &rows, received, is_brief: false, now: NOW };
                let policy = RegistrarPolicy::default();
                let registered = registrar::register(&policy, request, registration)?;
                for upsert in registered.upserts {
                    self.rows.retain(|row| row.id != upsert.id);
                    self.rows.push(upsert);
                }
                registered.fields
            }
        };
        Ok(Done::Answered(answer(request, StatusCode::OK, &fields)))
    }

    fn targets(&self, request: &Message<'_>, routed: &Routed<'_>) -> Result<TargetSet, Reject> {
        if let Some(dialog) = &routed.dialog {
            let path = match &dialog.receiving_side().reach {
                Reach::Direct => None,
                Reach::Flow { flow, .. } => {
                    let mut text = Vec::new();
                    write_path(&self.ring, flow, self.me.internal, &mut text);
                    Some(text)
                }
            };
            return target::of_dialog(request, routed, dialog, path);
        }
        match &routed.addressee {
            Addressee::User { .. } => {
                let uri = Uri::parse(&routed.request_uri).expect("read before");
                let aor = self.names.aor(&uri).ok_or(Reject::NotFound)?;
                target::of_bindings(request, &aor, &self.rows, NOW)
            }
            Addressee::Tier | Addressee::Foreign => target::of_request_uri(request, routed),
        }
    }

    fn forward(
        &self,
        request: &Message<'_>,
        routed: &Routed<'_>,
        targets: &TargetSet,
        source: &Flow,
        caller: Option<Aor>,
    ) -> Result<OwnedMessage, Reject> {
        let target = targets.targets.first().expect("never empty");
        let mut identity = Vec::new();
        target.identity.write(&mut identity);
        let branch = ProxyBranch {
            call_id: request.call_id(),
            from_tag: request.from_tag().unwrap_or_default(),
            cseq: request.cseq().number,
            class: MethodClass::Other(request.method().expect("a request").as_bytes()),
            request_uri: request.request_uri_bytes(),
            target: &identity,
            attempt: target.attempt,
        };
        let mut text = Vec::new();
        proxy_branch(&self.ring, &branch, &mut text);
        if validation::is_loop(request, &text) {
            return Err(Reject::LoopDetected);
        }
        let via = ProxyVia {
            transport: Transport::Udp,
            sent_by: self.proxy(),
            branch: &text,
            instance: InstanceId::proxy(1),
            incarnation: Incarnation(1_700_000_000),
            several: targets.has_several(),
        };
        let mut line = Vec::new();
        write_proxy_via(&self.ring, &via, &mut line);

        let record_route = self.record_route(request, target, source, caller);
        let opens = forwarding::opens_dialog(request.method().expect("a request"));
        let record_routes: &[&[u8]] =
            if opens && routed.dialog.is_none() { &[&record_route] } else { &[] };
        let forward = Forward { routed, target, record_routes, via: &line, names: &self.names };
        let mut out = Vec::new();
        forwarding::write(request, &forward, &mut Edits::new(), &mut out);
        Ok(owned(&out))
    }

    fn record_route(
        &self,
        request: &Message<'_>,
        target: &target::Target,
        source: &Flow,
        caller: Option<Aor>,
    ) -> Vec<u8> {
        let balancer = self.me.instance;
        let path = target.routes.first().map(|text| target::uri_of(text));
        let user = path.and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user());
        let reach = user.and_then(|user| read_path(&self.ring, user));
        let reach = reach.map_or(Reach::Direct, |flow| Reach::Flow { balancer, flow });
        let caller_reach = Reach::Flow { balancer, flow: *source };
        let token = DialogToken {
            caller: Side { reach: caller_reach, aor: caller, binding: None },
            callee: Side { reach, aor: target.aor.clone(), binding: None },
            caller_tag_hash: tag_hash(request.call_id(), request.from_tag().unwrap_or_default()),
        };
        let mut text = b"<sip:".to_vec();
        write_dialog_token(&self.ring, &token, &mut text);
        text.extend_from_slice(format!("@{};lr>", self.me.listeners[0]).as_bytes());
        text
    }
}

/// An answer of our own.
pub(crate) fn answer(request: &Message<'_>, status: StatusCode, fields: &Fields) -> OwnedMessage {
    let fields: Vec<(&str, &[u8])> =
        fields.iter().map(|(name, value)| (*name, &value[..])).collect();
    let reply = Reply { status, reason: None, to_tag: Some(b"us"), fields: &fields, body: b"" };
    let mut out = Vec::new();
    write_reply(request, &reply, &mut out);
    owned(&out)
}
