//! Responses (RFC 3261 §16.7): to which branch one belongs, and the copy that goes upstream.

use bytes::Bytes;
use sip_core::branch::{ProxyIdentity, TierVia, read_tier_via};
use sip_core::forwarding;
use sip_message::{Edits, Framing, Index, Message, OwnedMessage};
use sip_transaction::ClientVerdict;

use crate::arrival::literal_sent_by;
use crate::context::ContextId;
use crate::leave::Way;
use crate::record_route;
use crate::worker::Worker;

impl Worker {
    /// A response, however it came.
    pub(crate) fn handle_response(&mut self, response: &Message<'_>) {
        let key = self.layer.client_key(response);
        let Some(client) = self.layer.client_find(key) else {
            return self.handle_stray(response);
        };
        let now = self.now;
        match self.layer.client_handle_response(now, client, response, &mut self.wire) {
            ClientVerdict::Absorb => {}
            ClientVerdict::Deliver => {
                let Some(&(id, branch)) = self.clients.get(&client) else { return };
                let Some(status) = response.status() else { return };
                let owned = OwnedMessage::from(response);
                let mut actions = Vec::new();
                if let Some(fork) = self.contexts.get_mut(id).and_then(|it| it.fork.as_mut()) {
                    fork.responses.handle_response(now, branch, status, owned, &mut actions);
                }
                self.perform(id, actions);
                self.set_alarm(id);
            }
        }
    }

    /// The copy of a response that goes upstream, to everybody who asked.
    pub(crate) fn forward_response(
        &mut self,
        id: ContextId,
        response: &OwnedMessage,
        challenges: &[OwnedMessage],
    ) {
        let Some(context) = self.contexts.get(id) else { return };
        let (Some(server), Some(status)) = (context.server, response.view().status()) else {
            return;
        };
        let mut edits = Edits::new();
        let mut out = Vec::with_capacity(response.bytes().len() + 256);
        if challenges.is_empty() {
            forwarding::write_response(&response.view(), &mut edits, &mut out);
        } else {
            let others: Vec<Message<'_>> = challenges.iter().map(OwnedMessage::view).collect();
            forwarding::write_response_with_challenges(
                &response.view(),
                &others,
                &mut edits,
                &mut out,
            );
        }
        let first = record_route::lead_around(&self.world, context, Bytes::from(out));
        let mut copies = vec![first.clone()];
        copies.extend(context.joined.iter().map(|twin| with_vias_of(&first, twin)));
        self.world.counters.responses_forwarded.add(1);
        let render = |path: usize, _: &Way| copies.get(path).cloned();
        let now = self.now;
        self.layer.server_respond_each(now, server, status, render, &mut self.wire);
    }

    /// A response to a request of another proxy, which is dead or was replaced: it goes on by the
    /// Via below (rule 21 of docs/protocol.md), if a balancer of ours wrote that: whoever has seen
    /// one Via of ours could put any other below it. Anything else is late or forged, and ends here.
    fn handle_stray(&mut self, response: &Message<'_>) {
        let counters = &self.world.counters;
        let config = &self.world.config;
        let via = response.top_via().ok();
        let writer = via.as_ref().map(|via| read_tier_via(&self.world.ring, via));
        let is_other = matches!(writer, Some(TierVia::Proxy(ProxyIdentity { instance, incarnation, .. }))
            if (instance, incarnation) != (config.instance, config.incarnation));
        let way =
            response.vias().nth(1).and_then(Result::ok).and_then(|below| {
                match read_tier_via(&self.world.ring, &below) {
                    TierVia::Balancer { .. } => literal_sent_by(&below).map(Way::Tier),
                    TierVia::Proxy(_) | TierVia::Foreign => None,
                }
            });
        let (true, Some(way)) = (is_other, way) else {
            counters.drop_unmatched_response.add(1);
            return;
        };
        let mut out = Vec::with_capacity(response.bytes().len());
        forwarding::write_response(response, &mut self.edits, &mut out);
        counters.responses_forwarded.add(1);
        self.wire.send(&way, &Bytes::from(out));
    }
}

/// A response as the sender of `twin` must get it: with the Vias of its own request.
pub(crate) fn with_vias_of(response: &Bytes, twin: &OwnedMessage) -> Bytes {
    let mut index = Index::new();
    let Ok(view) = sip_message::parse(response, &mut index, Framing::Datagram) else {
        return response.clone();
    };
    let mut edits = Edits::new();
    for field in view.all(sip_message::HeaderName::VIA) {
        edits.remove(field.line);
    }
    edits.insert_with(view.headers_start(), |out| {
        for field in twin.view().all(sip_message::HeaderName::VIA) {
            out.extend_from_slice(b"Via: ");
            out.extend_from_slice(field.value);
            out.extend_from_slice(b"\r\n");
        }
    });
    let mut out = Vec::with_capacity(response.len() + 64);
    edits.apply(view.bytes(), &mut out);
    Bytes::from(out)
}
