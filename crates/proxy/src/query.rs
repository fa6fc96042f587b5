//! What a context asks the store, and the answers. Nothing waits for them but the context.

use std::time::Duration;

use sip_core::reject::Reject;
use sip_message::StatusCode;
use store::{Answer as Stored, Aor, Completion, Query, StoreError};

use crate::answer::Answer;
use crate::context::{Ahead, ContextId, Stage};
use crate::worker::Worker;

/// How long a query of the store may take: well inside the 32 s of a client's transaction, and
/// beyond any answer that is worth waiting for.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

impl Worker {
    /// Changes what a context waits for.
    pub(crate) fn wait(&mut self, id: ContextId, stage: Stage) {
        if let Some(context) = self.contexts.get_mut(id) {
            context.stage = stage;
        }
    }

    /// Submits the query that a context waits for.
    pub(crate) fn submit(&mut self, id: ContextId, query: Query) {
        self.count_query(&query);
        self.expect_answer(id);
        self.ask(id.ticket(), query);
    }

    /// Submits the lookup that a context will want next; nobody waits for it yet.
    pub(crate) fn ask_ahead(&mut self, id: ContextId, aor: Aor) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        context.ahead = Some(Box::new(Ahead { aor: aor.clone(), result: None }));
        let query = Query::Bindings { aor };
        self.count_query(&query);
        self.ask(id.ticket_ahead(), query);
    }

    /// From now on a context waits for an answer, but not for ever.
    fn expect_answer(&mut self, id: ContextId) {
        if let Some(context) = self.contexts.get_mut(id) {
            context.queries = context.queries.wrapping_add(1);
            self.store_waits.push_back((self.now + STORE_PATIENCE, id, context.queries));
        }
    }

    fn count_query(&self, query: &Query) {
        let counters = &self.world.counters;
        match query {
            Query::Credential { .. } => counters.queries_credential.add(1),
            Query::Write { .. } => counters.queries_write.add(1),
            _ => counters.queries_bindings.add(1),
        }
    }

    /// The store has not answered in time: its completion, should it still come, finds nobody.
    pub(crate) fn give_up_query(&mut self, id: ContextId, query: u32) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        if context.queries != query || !context.is_waiting_for_store() {
            return;
        }
        let stage = std::mem::replace(&mut context.stage, Stage::Accepted);
        let detail = format!("no answer in {STORE_PATIENCE:?}");
        self.fail_query(id, &stage, StoreError::Unavailable { detail });
    }

    /// A completion of the store.
    pub(crate) fn handle_completion(&mut self, completion: Completion) {
        if self.take_note(&completion) {
            return;
        }
        match ContextId::of_ticket(completion.ticket) {
            (id, false) => self.take_answer(id, completion.result),
            (id, true) => self.take_ahead(id, completion.result),
        }
    }

    /// The answer to the query asked ahead: it is kept until it is wanted, if it is not wanted already.
    fn take_ahead(&mut self, id: ContextId, result: Result<Stored, StoreError>) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let Some(ahead) = &mut context.ahead else { return };
        if matches!(&context.stage, Stage::Locating { search } if search.next() == Some(&ahead.aor))
        {
            context.ahead = None;
            self.take_answer(id, result);
        } else {
            ahead.result = Some(result);
        }
    }

    /// The answer to the query that a context waits for.
    fn take_answer(&mut self, id: ContextId, result: Result<Stored, StoreError>) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        if !context.is_waiting_for_store() {
            return;
        }
        if context.is_cancelled {
            let status = StatusCode::REQUEST_TERMINATED;
            return self.finish(id, &Answer { status, fields: Vec::new() });
        }
        let stage = std::mem::replace(&mut context.stage, Stage::Accepted);
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return self.fail_query(id, &stage, error),
        };
        match (stage, answer) {
            (Stage::Authenticating(proof), Stored::Credential(credential)) => {
                self.verify(id, *proof, credential.as_ref());
            }
            (Stage::CheckingSource { binding, otherwise }, Stored::Bindings(rows)) => {
                self.check_source(id, &rows, binding, &otherwise);
            }
            (Stage::Locating { search }, Stored::Bindings(rows)) => self.locate(id, search, &rows),
            (Stage::Reading { aor }, Stored::Bindings(rows)) => self.register(id, aor, &rows),
            (Stage::Writing { fields }, Stored::Done) => {
                self.finish(id, &Answer { status: StatusCode::OK, fields });
            }
            (Stage::Refreshing { branch }, Stored::Bindings(rows)) => {
                self.refresh(id, branch, &rows);
            }
            (Stage::Seeking { of }, Stored::Bindings(rows)) => self.phone_found(id, of, &rows),
            (stage, _) => {
                // The driver answered another question than was asked.
                let error = StoreError::Corrupt { row: format!("answer in stage {stage:?}") };
                self.fail_query(id, &stage, error);
            }
        }
    }

    fn fail_query(&mut self, id: ContextId, stage: &Stage, error: StoreError) {
        self.world.counters.query_failures.add(1);
        tracing::warn!(%error, "store query failed");
        match stage {
            Stage::Refreshing { branch } => self.refresh(id, *branch, &[]),
            Stage::Seeking { of } => self.phone_found(id, *of, &[]),
            _ => self.refuse(id, &Reject::StoreUnavailable(error)),
        }
    }

    /// The bindings of a user: those that were asked for ahead, if they are his.
    pub(crate) fn locate_user(&mut self, id: ContextId, aor: Aor) {
        let Some(context) = self.contexts.get_mut(id) else { return };
        let Some(ahead) = context.ahead.take_if(|ahead| ahead.aor == aor) else {
            return self.submit(id, Query::Bindings { aor });
        };
        match ahead.result {
            Some(result) => self.take_answer(id, result),
            None => {
                context.ahead = Some(ahead);
                self.expect_answer(id);
            }
        }
    }
}
