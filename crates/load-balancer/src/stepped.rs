//! A balancer without threads of its own: its owner turns it. For counting what a turn costs, on the
//! same path that the threads of [`start`](crate::start) take.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use fleet::{Membership, StaleGeneration};
use sip_net::poll::Events;

use crate::config::Config;
use crate::node::Node;
use crate::service::{Worker, assemble};

/// One thread's worth of a balancer, not running. Nobody is probed.
///
/// Its descriptor is readable while a [`turn`](Self::turn) would find something to do.
pub struct Stepped {
    node: Arc<Node>,
    worker: Worker,
    events: Events,
}

impl Stepped {
    /// Binds one socket per listener, whatever number of threads the configuration names.
    ///
    /// # Errors
    ///
    /// As [`start`](crate::start).
    pub fn new(config: Config) -> io::Result<Self> {
        let assembly = assemble(&Config { threads: 1, ..config })?;
        let worker = assembly.workers.into_iter().next().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { node: assembly.node, worker, events: Events::default() })
    }

    /// Takes a new generation, as the manager's `PUT /v1/membership` does.
    ///
    /// # Errors
    ///
    /// Older, empty or altered; the one in use stays.
    pub fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        self.node.put(membership)
    }

    /// What a thread does between two waits, and the wait before it.
    ///
    /// # Errors
    ///
    /// The poller does not work.
    pub fn turn(&mut self) -> io::Result<()> {
        self.worker.turn(&mut self.events)
    }
}

impl AsFd for Stepped {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.worker.poller().as_fd()
    }
}
