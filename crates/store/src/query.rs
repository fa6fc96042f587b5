//! The seam: a query is submitted, its completion arrives later. Nothing waits.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::credential::{Credential, CredentialKey};
use crate::error::StoreError;
use crate::health::{QueryKind, StoreCounters, StoreHealth};
use crate::location::{Aor, Binding, BindingId, BindingKey, Registration, UnixMillis};

/// The caller's name for a query; returned with its completion. The driver does not look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Called after completions were queued, from a thread of the driver or within `submit`; it must
/// be quick and may come more often than needed.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What can be asked of a store. Each is a read or write of one partition, but the listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// → [`Answer::Credential`].
    Credential { realm: String, username: String },

    /// Every row of the address-of-record, the expired ones too, in the order of
    /// [`Binding::preference`]. An unknown one is an empty list, not an error: only the core
    /// knows whether that is a 404 or a 480. → [`Answer::Bindings`].
    Bindings { aor: Aor },

    /// Writes rows of one address-of-record, all of them or none. A row whose `updated_at` is
    /// older than what is stored changes nothing, silently. Unregistering is a row with
    /// `expires_at <= now`. → [`Answer::Done`].
    Write { aor: Aor, upserts: Vec<Binding>, now: UnixMillis },

    /// Adds a user, unless there is one. → [`Answer::Created`].
    CreateCredential { realm: String, username: String, credential: Credential },

    /// Adds a user or replaces the credential. → [`Answer::Done`].
    PutCredential { realm: String, username: String, credential: Credential },

    /// Removes a user. One that is not there is a success. → [`Answer::Done`].
    DeleteCredential { realm: String, username: String },

    /// Names of users, never their credentials; a page at a time: the next page is asked for
    /// `after` the last one of this page, and a page with fewer than `limit` rows is the last. The
    /// order is the driver's, but always the same. → [`Answer::Credentials`].
    ListCredentials { realm: Option<String>, after: Option<CredentialKey>, limit: usize },

    /// Every row of every address-of-record, the expired ones too, paged as
    /// [`ListCredentials`](Self::ListCredentials). → [`Answer::Registrations`].
    ListBindings { after: Option<BindingKey>, limit: usize },

    /// Removes a row with its CSeq: for operators, not for REGISTER. → [`Answer::Done`].
    DeleteBinding { aor: Aor, id: BindingId },
}

impl Query {
    /// Its label in the counters.
    #[must_use]
    pub fn kind(&self) -> QueryKind {
        match self {
            Self::Credential { .. } => QueryKind::Credential,
            Self::Bindings { .. } => QueryKind::Bindings,
            Self::Write { .. } => QueryKind::Write,
            Self::CreateCredential { .. }
            | Self::PutCredential { .. }
            | Self::DeleteCredential { .. } => QueryKind::CredentialChange,
            Self::ListCredentials { .. } => QueryKind::CredentialList,
            Self::ListBindings { .. } => QueryKind::BindingList,
            Self::DeleteBinding { .. } => QueryKind::BindingDelete,
        }
    }
}

/// What a store answers; which one belongs to which query stands at [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Credential(Option<Credential>),
    Bindings(Vec<Binding>),
    Credentials(Vec<CredentialKey>),
    Registrations(Vec<Registration>),
    /// Whether the user is new.
    Created(bool),
    Done,
}

/// The end of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub ticket: Ticket,
    pub result: Result<Answer, StoreError>,
}

/// How a wait inside a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It did not begin: this store answers at once or works on threads of its own.
    Elsewhere,
    /// There may be completions, or the caller's own descriptor is readable.
    Ready,
    /// The caller's patience is over.
    Over,
}

/// A handle on the location service and the credentials (RFC 3261 §10, §16.5, §22).
///
/// Every ticket gets exactly one completion. Queries in flight at the same time have no order: who
/// needs one submits the second after the first one's completion, and then it sees its effect,
/// through this handle or another. Drain completions after each wake-up, and after submitting: those
/// that were answered or refused at once wait there as well.
pub trait Store: Send {
    /// Hands over a query. Never blocks; with [`QUERIES_IN_FLIGHT_MAX`] unanswered the completion
    /// is [`StoreError::Overloaded`], at once.
    ///
    /// [`QUERIES_IN_FLIGHT_MAX`]: crate::limits::QUERIES_IN_FLIGHT_MAX
    fn submit(&mut self, ticket: Ticket, query: Query);

    /// The next completion, in no particular order; `None` until the next wake-up, `wait` or `submit`.
    fn poll_completion(&mut self) -> Option<Completion>;

    /// Works on the caller's thread until there are completions, `other` is readable or `patience` is
    /// over. Where this is not [`Waited::Elsewhere`], the store works only in here, and its caller waits
    /// nowhere else. An event loop hands over what it waits for as `other`, drains that afterwards, and
    /// comes with no patience while something is left in it.
    fn wait(&mut self, other: Option<BorrowedFd<'_>>, patience: Duration) -> Waited {
        let _ = (other, patience);
        Waited::Elsewhere
    }

    /// Whether the database answers.
    fn health(&self) -> StoreHealth;

    /// What this handle did since it was opened.
    fn counters(&self) -> StoreCounters;

    /// Ends the handle: what was submitted is still carried out or refused, and when this returns
    /// every ticket has its completion ready. Later queries are answered
    /// [`StoreError::Unavailable`]. May block for as long as one query may take.
    fn close(&mut self);
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn submit(&mut self, ticket: Ticket, query: Query) {
        (**self).submit(ticket, query);
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        (**self).poll_completion()
    }

    fn wait(&mut self, other: Option<BorrowedFd<'_>>, patience: Duration) -> Waited {
        (**self).wait(other, patience)
    }

    fn health(&self) -> StoreHealth {
        (**self).health()
    }

    fn counters(&self) -> StoreCounters {
        (**self).counters()
    }

    fn close(&mut self) {
        (**self).close();
    }
}
