//! The bounded table that owns all machines, wakes them, and speaks for them.
//!
//! What the owner calls for servers is in `layer/server.rs`, for clients in `layer/client.rs`.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::time::Instant;

use sip_message::{Index, Message, Method};

use crate::key::{ClientKey, Hop, ServerKey, TwinKey};
use crate::limits::Limits;
use crate::output::{Origin, Sink};
use crate::schedule::Schedule;
use crate::table::Table;
use crate::timers::Timing;
use client::Client;
use server::Server;

/// Every transaction of one worker. `D` is a destination, opaque to the layer.
///
/// # Cost
///
/// Finding one is a hash lookup; a timer costs one push into a wheel, and cancelling it nothing.
/// A transaction takes about 220 bytes (`D` being a socket address) besides the one message that
/// it keeps: the request of a client, the last response of a server.
pub struct Layer<D> {
    timing: Timing,
    hash_key: [u8; 16],
    servers: Table<Server<D>>,
    clients: Table<Client<D>>,
    schedule: Schedule,
    /// Scratch for reading an INVITE of ours once more when it needs an ACK.
    index: Index,
}

impl<D: Clone> Layer<D> {
    /// An empty layer. `hash_key` is secret, so that nobody can aim at one place of the table.
    pub fn new(timing: Timing, limits: Limits, hash_key: [u8; 16]) -> Self {
        Self {
            timing,
            hash_key,
            servers: Table::new(limits.transactions_max),
            clients: Table::new(limits.transactions_max),
            schedule: Schedule::default(),
            index: Index::new(),
        }
    }

    /// [`ServerKey::of`] under this layer's hash key.
    pub fn server_key(&self, request: &Message<'_>, hop: Hop) -> ServerKey {
        ServerKey::of(request, hop, self.hash_key)
    }

    /// [`ServerKey::invite_of_cancel`] under this layer's hash key.
    pub fn invite_key_of_cancel(&self, cancel: &Message<'_>, hop: Hop) -> ServerKey {
        ServerKey::invite_of_cancel(cancel, hop, self.hash_key)
    }

    /// [`TwinKey::of`] under this layer's hash key.
    pub fn twin_key(&self, request: &Message<'_>) -> Option<TwinKey> {
        TwinKey::of(request, self.hash_key)
    }

    /// [`ClientKey::of`] under this layer's hash key.
    pub fn client_key(&self, message: &Message<'_>) -> ClientKey {
        ClientKey::of(message, self.hash_key)
    }

    /// [`ClientKey::new`] under this layer's hash key.
    pub fn client_key_from(&self, branch: &[u8], sent_by: &[u8], method: Method<'_>) -> ClientKey {
        ClientKey::new(branch, sent_by, method, self.hash_key)
    }

    /// The timers' constants.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Server transactions that live, those included that only absorb repetitions: what a drain
    /// waits for.
    pub fn server_transactions(&self) -> usize {
        self.servers.len()
    }

    /// Client transactions that live.
    pub fn client_transactions(&self) -> usize {
        self.clients.len()
    }

    /// Where the live transactions send to: a server once for each of its paths, a client once.
    ///
    /// # Cost
    ///
    /// A walk over all of them.
    pub fn destinations(&self) -> impl Iterator<Item = &D> {
        let servers = self.servers.iter().flat_map(Server::destinations);
        servers.chain(self.clients.iter().map(Client::destination))
    }

    /// When to call [`Self::handle_timeout`] next: never late, sometimes early.
    ///
    /// # Cost
    ///
    /// One look at the first tick that holds anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Time has reached `now`: everything that is due happens. Harmless if nothing is.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink<D>) {
        while let Some((at, who)) = self.schedule.pop_due(now) {
            match who {
                Origin::Server(id) => self.wake_server(now, at, id, sink),
                Origin::Client(id) => self.wake_client(now, at, id, sink),
            }
        }
        self.tidy_schedule();
    }

    fn tidy_schedule(&mut self) {
        let (servers, clients) = (&self.servers, &self.clients);
        let counts = |at: Instant, who: Origin| match who {
            Origin::Server(id) => servers.get(id.0).is_some_and(|it| it.scheduled.is_at(at)),
            Origin::Client(id) => clients.get(id.0).is_some_and(|it| it.scheduled.is_at(at)),
        };
        self.schedule.trim(counts);
        if self.schedule.is_stale(servers.len() + clients.len()) {
            self.schedule.retain(counts);
        }
    }
}
