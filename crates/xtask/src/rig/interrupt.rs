//! Ctrl-C: what has been started must end in order, so that it is a flag that every wait looks at.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
static LISTENER: OnceLock<()> = OnceLock::new();

/// From here on SIGINT and SIGTERM no longer end this process by themselves.
pub(crate) fn listen() -> Result<()> {
    if LISTENER.set(()).is_err() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            IS_INTERRUPTED.store(true, Ordering::Release);
            eprintln!("cleaning up; wait for it");
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
    Ok(())
}

/// # Errors
///
/// Once somebody wants it to end.
pub(crate) fn check() -> Result<()> {
    if IS_INTERRUPTED.load(Ordering::Acquire) {
        bail!("interrupted");
    }
    Ok(())
}
