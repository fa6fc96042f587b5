//! Waiting: which sockets have something to read, and a way for other threads to end the wait.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::system::{self, EpollEvent};

/// The token under which the poller watches its own [`Waker`]; not for use with [`Poller::add`].
pub const WAKER_TOKEN: u64 = u64::MAX;

/// One thread's set of watched sockets (`epoll`, level-triggered) and its [`Waker`].
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    waker: Waker,
}

impl Poller {
    /// # Errors
    ///
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = system::epoll_new()?;
        let waker = Waker::new()?;
        system::epoll_add(
            epoll.as_fd(),
            waker.shared.counter.as_fd(),
            system::READABLE | system::ON_CHANGE,
            WAKER_TOKEN,
        )?;
        Ok(Self { epoll, waker })
    }

    /// Reports `token` from [`wait`](Self::wait) while `fd` has something to read.
    pub fn add(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        system::epoll_add(self.epoll.as_fd(), fd.as_fd(), system::READABLE, token)
    }

    /// Stops watching. A closed socket is forgotten by itself.
    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        system::epoll_remove(self.epoll.as_fd(), fd.as_fd())
    }

    /// A handle with which any thread ends this poller's wait.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until something is ready, `timeout` has passed (rounded up to milliseconds; `None`:
    /// for ever), a waker was called or a signal came; `events` then holds what is ready.
    ///
    /// After it returns, drain every queue whose writer holds the waker: a wake is reported once,
    /// however many there were.
    pub fn wait(&self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        events.count = 0;
        events.is_woken = false;
        match system::epoll_wait(self.epoll.as_fd(), timeout, &mut events.raw) {
            Ok(count) => events.count = count,
            // A signal: the caller looks at its flags and comes back.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        let is_woken = events.tokens_with_waker().any(|token| token == WAKER_TOKEN);
        events.is_woken = is_woken;
        if is_woken {
            self.waker.acknowledge();
        }
        Ok(())
    }
}

/// Readable while a wait would end at once because a socket is ready or a waker was called: so one
/// poller can watch another.
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// What one [`Poller::wait`] found; reused from wait to wait.
pub struct Events {
    raw: Vec<EpollEvent>,
    count: usize,
    is_woken: bool,
}

impl Events {
    /// Room for `capacity` reports per wait; what does not fit comes with the next wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            raw: vec![EpollEvent { events: 0, u64: 0 }; capacity.max(1)],
            count: 0,
            is_woken: false,
        }
    }

    /// The tokens of the sockets that have something to read, or an error; without the waker's.
    pub fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.tokens_with_waker().filter(|&token| token != WAKER_TOKEN)
    }

    /// Those of [`tokens`](Self::tokens) whose sockets have errors to tell
    /// ([`UdpSocket::take_errors`](crate::udp::UdpSocket::take_errors)).
    pub fn failing(&self) -> impl Iterator<Item = u64> + '_ {
        let failing = |event: &&EpollEvent| event.events & system::FAILING != 0;
        self.raw.iter().take(self.count).filter(failing).map(|event| event.u64)
    }

    /// Whether a [`Waker`] ended the wait.
    pub fn is_woken(&self) -> bool {
        self.is_woken
    }

    fn tokens_with_waker(&self) -> impl Iterator<Item = u64> + '_ {
        self.raw.iter().take(self.count).map(|event| event.u64)
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::with_capacity(64)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("tokens", &self.tokens().collect::<Vec<_>>())
            .field("is_woken", &self.is_woken)
            .finish()
    }
}

/// Ends a [`Poller`]'s wait from any thread. Cheap to clone; cheap to call again while the poller
/// has not yet noticed the first call.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<WakerShared>,
}

#[derive(Debug)]
struct WakerShared {
    /// An `eventfd`.
    counter: File,
    /// A wake was written that the poller has not yet acknowledged.
    is_pending: AtomicBool,
}

impl Waker {
    fn new() -> io::Result<Self> {
        let counter = File::from(system::eventfd_new()?);
        Ok(Self { shared: Arc::new(WakerShared { counter, is_pending: AtomicBool::new(false) }) })
    }

    /// Ends the present wait, or the next one. Call it after the work was queued.
    pub fn wake(&self) {
        if !self.shared.is_pending.swap(true, Ordering::AcqRel) {
            // It can fail only after 2⁶⁴ − 2 wakes.
            let _ = (&self.shared.counter).write(&1_u64.to_ne_bytes());
        }
    }

    /// The same as a function, for crates that do not know this one.
    pub fn to_fn(&self) -> Arc<dyn Fn() + Send + Sync> {
        let waker = self.clone();
        Arc::new(move || waker.wake())
    }

    /// Takes the wake. The counter is not read: the kernel reports each write to it once. Work that is
    /// queued before this is found by the drain that follows; work that is queued after it writes anew.
    fn acknowledge(&self) {
        self.shared.is_pending.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::clock;

    const LONG: Option<Duration> = Some(Duration::from_secs(10));

    /// Goal: no wake is lost, and several count as one. Method: another thread wakes while we wait
    /// with a deadline that would fail the test.
    #[test]
    fn waker_of_another_thread_ends_the_wait() {
        let poller = Poller::new().expect("a poller");
        let mut events = Events::default();
        for _ in 0..100 {
            let started = clock::now();
            let waker = poller.waker();
            let other = thread::spawn(move || waker.wake());
            poller.wait(LONG, &mut events).expect("a wait");
            assert!(events.is_woken(), "woken, not timed out");
            assert!(started.elapsed() < Duration::from_secs(10));
            assert_eq!(events.tokens().count(), 0, "the waker is not a socket");
            other.join().expect("the other thread");
        }
    }

    #[test]
    fn wake_before_the_wait_is_kept_and_reported_once() {
        let poller = Poller::new().expect("a poller");
        let mut events = Events::default();
        let wake = poller.waker().to_fn();
        wake();
        wake();
        poller.wait(LONG, &mut events).expect("a wait");
        assert!(events.is_woken());
        poller.wait(Some(Duration::ZERO), &mut events).expect("a wait");
        assert!(!events.is_woken(), "acknowledged");
    }
}
