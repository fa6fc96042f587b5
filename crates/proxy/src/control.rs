//! What the control interface and the workers share; none of it is on the call path.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fleet::{Membership, StaleGeneration};
use sip_net::poll::Waker;

use crate::balancers::Unwell;

/// The membership in use and what is wanted of the proxy.
#[derive(Debug, Default)]
pub(crate) struct Control {
    membership: Mutex<Option<Arc<Membership>>>,
    unwell: Mutex<Arc<Unwell>>,
    refusing: Mutex<BTreeSet<SocketAddr>>,
    /// Ends the wait of the thread that looks after the balancers.
    prober: OnceLock<Waker>,
    version: AtomicU64,
    is_draining: AtomicBool,
    is_stopping: AtomicBool,
}

impl Control {
    pub(crate) fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a newer membership; the workers notice by [`Self::version`].
    ///
    /// # Errors
    ///
    /// It is older than the one in use, empty or altered; the one in use stays.
    pub(crate) fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        let mut held = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        membership.follows(held.as_deref())?;
        *held = Some(Arc::new(membership));
        drop(held);
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub(crate) fn unwell(&self) -> Arc<Unwell> {
        self.unwell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes how the balancers do; returns whether that is news.
    pub(crate) fn put_unwell(&self, unwell: Unwell) -> bool {
        let mut held = self.unwell.lock().unwrap_or_else(PoisonError::into_inner);
        if **held == unwell {
            return false;
        }
        *held = Arc::new(unwell);
        drop(held);
        self.version.fetch_add(1, Ordering::Release);
        true
    }

    /// Who is told of refusals.
    pub(crate) fn set_prober(&self, prober: Waker) {
        // There is one, and it is set once.
        let _ = self.prober.set(prober);
    }

    /// The network says that nobody listens at this balancer.
    pub(crate) fn note_refusal(&self, balancer: SocketAddr) {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner).insert(balancer);
        self.wake_prober();
    }

    pub(crate) fn wake_prober(&self) {
        if let Some(prober) = self.prober.get() {
            prober.wake();
        }
    }

    /// The refusals since the last call.
    pub(crate) fn take_refusals(&self) -> BTreeSet<SocketAddr> {
        std::mem::take(&mut *self.refusing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves with every new membership and with the balancers' health: cheap to look at in each turn
    /// of a loop.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Starts or reverses a drain; returns whether that is news.
    pub(crate) fn drain(&self, on: bool) -> bool {
        self.is_draining.swap(on, Ordering::AcqRel) != on
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Ends every worker at its next turn.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }
}
