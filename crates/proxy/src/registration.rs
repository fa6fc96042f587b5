//! The walk of a REGISTER (RFC 3261 §10.3): rows → changes → one write → 200.

use sip_core::registrar::{self, Registration};
use sip_message::StatusCode;
use store::{Aor, Binding, Query};

use crate::answer::Answer;
use crate::context::{ContextId, Stage};
use crate::worker::Worker;

impl Worker {
    /// The rows of the address-of-record have come.
    pub(crate) fn register(&mut self, id: ContextId, aor: Aor, rows: &[Binding]) {
        let Some(context) = self.contexts.get(id) else { return };
        let request = context.request.clone();
        let registration = Registration {
            aor: &aor,
            rows,
            received: Some(context.arrival.client),
            now: self.today,
        };
        let policy = &self.world.config.registrar;
        match registrar::register(policy, &request.view(), registration) {
            Ok(registered) if registered.upserts.is_empty() => {
                self.finish(id, &Answer { status: StatusCode::OK, fields: registered.fields });
            }
            Ok(registered) => {
                self.wait(id, Stage::Writing { fields: registered.fields });
                let (upserts, now) = (registered.upserts, self.today);
                self.submit(id, Query::Write { aor, upserts, now });
            }
            Err(reject) => self.refuse(id, &reject),
        }
    }
}
