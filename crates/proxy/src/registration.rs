//! The walk of a REGISTER (RFC 3261 §10.3): rows → changes → one write → 200.

use sip_core::registrar::{self, Registration};
use sip_message::StatusCode;
use store::{Aor, Binding, Query};

use crate::answer::Answer;
use crate::context::{ContextId, Stage};
use crate::leave::Way;
use crate::worker::Worker;

impl Worker {
    /// The rows of the address-of-record have come.
    pub(crate) fn register(&mut self, id: ContextId, aor: Aor, rows: &[Binding]) {
        let Some(context) = self.contexts.get(id) else { return };
        let request = context.request.clone();
        let reply = context.arrival.reply;
        let known = self.world.membership.as_deref();
        let is_leaving = context.arrival.carrier.as_ref().is_some_and(|carrier| {
            known.zip(carrier.balancer).is_some_and(|(known, it)| known.is_leaving(it))
        });
        let registration = Registration {
            aor: &aor,
            rows,
            received: Some(context.arrival.client),
            is_brief: is_leaving,
            now: self.today,
        };
        match registrar::register(&self.world.config.registrar, &request.view(), registration) {
            Ok(registered) if registered.upserts.is_empty() => {
                self.finish(id, &Answer { status: StatusCode::OK, fields: registered.fields });
            }
            Ok(registered) => {
                self.wait(id, Stage::Writing { fields: registered.fields });
                let (upserts, now) = (registered.upserts, self.today);
                let until = upserts.iter().map(|it| it.expires_at).max();
                if let (Way::Tier(balancer), Some(until)) = (reply, until.filter(|it| now < *it)) {
                    self.note_bindings(balancer, until);
                }
                self.submit(id, Query::Write { aor, upserts, now });
            }
            Err(reject) => self.refuse(id, &reject),
        }
    }
}
