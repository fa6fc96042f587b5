//! A worker without a thread and without a clock: its owner turns it. For counting what a call costs,
//! on the same path that the threads of [`start`](crate::start) take, with timers that end when told.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use fleet::{Membership, StaleGeneration};
use sip_net::poll::Poller;
use store::UnixMillis;

use crate::config::Config;
use crate::control::Control;
use crate::service::{StoreFactory, make_worker};
use crate::worker::{Intake, Worker};

/// The first worker of a proxy, not running. Nobody is probed.
///
/// Its descriptor is readable while messages or completions wait for a [`turn`](Self::turn).
pub struct Stepped {
    worker: Worker,
    poller: Poller,
    intake: Intake,
    control: Arc<Control>,
}

impl Stepped {
    /// Binds its port and opens its store.
    ///
    /// # Errors
    ///
    /// As [`start`](crate::start).
    pub fn new(config: Config, open_store: &StoreFactory) -> io::Result<Self> {
        let control = Arc::new(Control::default());
        let (_, worker, poller) = make_worker(&Arc::new(config), &control, open_store, 0)?;
        worker.watch(&poller)?;
        Ok(Self { worker, poller, intake: Intake::default(), control })
    }

    /// Takes a new generation, as the manager's `PUT /v1/membership` does.
    ///
    /// # Errors
    ///
    /// Older, empty or altered; the one in use stays.
    pub fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        self.control.put_membership(membership)
    }

    /// What the thread does between two waits, and the wait before it. Time never goes backwards.
    ///
    /// # Errors
    ///
    /// The socket or the poller does not work.
    pub fn turn(&mut self, now: Instant, today: UnixMillis) -> io::Result<()> {
        self.worker.rest(&self.poller, &mut self.intake, now)?;
        self.worker.turn(&mut self.intake, now, today)
    }
}

impl AsFd for Stepped {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}
