//! Responses (RFC 3261 §16.7): to which branch one belongs, and the copy that goes upstream.

use bytes::Bytes;
use sip_core::forwarding;
use sip_message::{Edits, Framing, Index, Message, OwnedMessage};
use sip_transaction::{ClientId, ClientVerdict};

use crate::context::ContextId;
use crate::draft::Draft;
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
        self.take_response(client, response);
    }

    /// A response of this client transaction.
    pub(crate) fn take_response(&mut self, client: ClientId, response: &Message<'_>) {
        let now = self.now;
        match self.layer.client_handle_response(now, client, response, &mut self.wire) {
            ClientVerdict::Absorb => {}
            ClientVerdict::Deliver => {
                let Some(status) = response.status() else { return };
                let Some(&(id, branch)) = self.clients.get(&client) else {
                    if self.take_cancel_answer(client, status) {
                        return;
                    }
                    return self.end_cancel(client, Some(status));
                };
                let actions = self.tell_fork(id, branch, status, OwnedMessage::from(response));
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
        let Draft { edits, text, .. } = &mut self.draft;
        if challenges.is_empty() {
            forwarding::write_response(&response.view(), edits, text);
        } else {
            let others: Vec<Message<'_>> = challenges.iter().map(OwnedMessage::view).collect();
            forwarding::write_response_with_challenges(&response.view(), &others, edits, text);
        }
        let first = record_route::lead_around(&self.world, context, self.draft.finish());
        self.world.counters.responses_forwarded.add(1);
        let render = |path: usize, _: &Way| match path.checked_sub(1) {
            None => Some(first.clone()),
            Some(twin) => context.joined.get(twin).map(|twin| with_vias_of(&first, twin)),
        };
        let now = self.now;
        self.layer.server_respond_each(now, server, status, render, &mut self.wire);
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
