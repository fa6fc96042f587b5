//! A request that is being worked on: what is known of it, and what it waits for.

use std::time::Instant;

use sip_core::digest::{Claim, Staleness};
use sip_core::identity::Demand;
use sip_core::reject::{Fields, Reject};
use sip_core::response::ResponseContext;
use sip_core::route::KnownToken;
use sip_core::search::Search;
use sip_core::target::TargetSet;
use sip_message::OwnedMessage;
use sip_transaction::{ClientId, ServerId};
use store::{Answer, Aor, BindingId, StoreError, Ticket};

use crate::arrival::Arrival;
use crate::cancel::BranchId;

/// Of a ticket: its query was asked ahead. Places are below it.
const IS_AHEAD: u64 = 1 << 31;

/// Names one context; never names a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContextId {
    place: u32,
    life: u32,
}

impl ContextId {
    /// The context as a ticket for the store query that it waits for.
    pub(crate) fn ticket(self) -> Ticket {
        Ticket(u64::from(self.life) << 32 | u64::from(self.place))
    }

    /// The same for the query that is asked ahead.
    pub(crate) fn ticket_ahead(self) -> Ticket {
        Ticket(self.ticket().0 | IS_AHEAD)
    }

    /// The context that a completion belongs to, and whether it is of the query asked ahead.
    pub(crate) fn of_ticket(ticket: Ticket) -> (Self, bool) {
        let [life, place] = [ticket.0 >> 32, ticket.0 & (IS_AHEAD - 1)]
            .map(|half| u32::try_from(half).unwrap_or_default());
        (Self { place, life }, ticket.0 & IS_AHEAD != 0)
    }
}

/// A request in work.
pub(crate) struct Context {
    pub(crate) request: OwnedMessage,
    pub(crate) arrival: Arrival,
    /// `None` for what [`Self::without_transaction`] is for.
    pub(crate) server: Option<ServerId>,
    pub(crate) stage: Stage,
    /// Who the credentials say that the sender is.
    pub(crate) identity: Option<Aor>,
    /// How many queries were waited for: tells a late deadline from the present one's.
    pub(crate) queries: u32,
    /// The dialog's token, for the walk that goes on when the sender is known.
    pub(crate) token: Option<Box<KnownToken>>,
    /// A lookup that will be wanted if the credentials are good.
    pub(crate) ahead: Option<Box<Ahead>>,
    /// The caller has given up before there was a branch to cancel.
    pub(crate) is_cancelled: bool,
    /// The client of an INVITE has been told 100.
    pub(crate) is_trying: bool,
    /// The requests of a client that failed over: the same request by other Vias.
    pub(crate) joined: Vec<OwnedMessage>,
    pub(crate) fork: Option<Fork>,
    /// When the response context was last promised to be woken.
    pub(crate) alarm: Option<Instant>,
}

impl Context {
    /// Of an ACK, a CANCEL whose INVITE is nowhere, or a question of our own about a request.
    pub(crate) fn without_transaction(request: &OwnedMessage, arrival: &Arrival) -> Self {
        Self {
            request: request.clone(),
            arrival: arrival.clone(),
            server: None,
            stage: Stage::Accepted,
            identity: None,
            queries: 0,
            token: None,
            ahead: None,
            is_cancelled: false,
            is_trying: false,
            joined: Vec::new(),
            fork: None,
            alarm: None,
        }
    }

    /// Whether a query is under way.
    pub(crate) fn is_waiting_for_store(&self) -> bool {
        !matches!(self.stage, Stage::Accepted | Stage::Forwarding)
    }
}

/// What a context waits for.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Nothing: it moves on at once.
    Accepted,
    /// The credential of the claim's user.
    Authenticating(Box<Proof>),
    /// The bindings, to see whether the request comes from this direct one.
    CheckingSource { binding: BindingId, otherwise: Box<Otherwise> },
    /// The bindings of the user that it is for.
    Locating { search: Search },
    /// The bindings of the user that registers.
    Reading { aor: Aor },
    /// The write of new bindings; then these fields go into the 200.
    Writing { fields: Fields },
    /// Its branches.
    Forwarding,
    /// The present bindings of a dialog's side whose flow is gone, for this branch.
    Refreshing { branch: usize },
    /// The present bindings of the phone that the CANCEL of this branch did not reach.
    Seeking { of: BranchId },
}

/// What a request presents, and what is demanded of it. Apart, since a context outlives it by far.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) demand: Demand,
    pub(crate) claim: Claim,
    /// Who comes from this direct binding of this user needs none of it.
    pub(crate) trunk: Option<(Aor, BindingId)>,
}

/// What becomes of a request that has not shown who sends it.
#[derive(Debug)]
pub(crate) enum Otherwise {
    Challenge(Demand, Staleness),
    Refuse(Reject),
}

/// The bindings of a user, asked for together with the credential: one trip to the store fewer.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) aor: Aor,
    /// `None` until the store has answered.
    pub(crate) result: Option<Result<Answer, StoreError>>,
}

/// The branches of a request and what becomes of their responses.
pub(crate) struct Fork {
    pub(crate) targets: TargetSet,
    pub(crate) responses: ResponseContext<OwnedMessage>,
    pub(crate) branches: Vec<Branch>,
}

impl Fork {
    /// The branch of a target; made when it is first asked for.
    pub(crate) fn branch_mut(&mut self, index: usize) -> &mut Branch {
        if self.branches.len() <= index {
            self.branches.resize_with(index + 1, Branch::default);
        }
        &mut self.branches[index]
    }
}

/// One copy that left, or is about to.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    pub(crate) client: Option<ClientId>,
    /// Its CANCEL found that the flow of its INVITE is gone.
    pub(crate) is_moved: bool,
}

/// Every context of a worker.
#[derive(Default)]
pub(crate) struct Contexts {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Default)]
struct Place {
    life: u32,
    context: Option<Box<Context>>,
}

impl Contexts {
    /// How many there are. Each has a server transaction, or is an ACK that waits for a name to be
    /// resolved, or an orphan: the bounds of the transaction layer and on orphans are its own.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn insert(&mut self, context: Context) -> ContextId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        self.count += 1;
        let slot = &mut self.places[place as usize];
        slot.context = Some(Box::new(context));
        ContextId { place, life: slot.life }
    }

    pub(crate) fn get(&self, id: ContextId) -> Option<&Context> {
        let slot = self.places.get(id.place as usize)?;
        (slot.life == id.life).then_some(slot.context.as_deref()).flatten()
    }

    pub(crate) fn get_mut(&mut self, id: ContextId) -> Option<&mut Context> {
        let slot = self.places.get_mut(id.place as usize)?;
        (slot.life == id.life).then_some(slot.context.as_deref_mut()).flatten()
    }

    pub(crate) fn remove(&mut self, id: ContextId) -> Option<Box<Context>> {
        let slot = self.places.get_mut(id.place as usize).filter(|slot| slot.life == id.life)?;
        let context = slot.context.take()?;
        slot.life = slot.life.wrapping_add(1);
        self.free.push(id.place);
        self.count -= 1;
        Some(context)
    }
}
