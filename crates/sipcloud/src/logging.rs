//! Logs: to standard error, as text or JSON; the filter can be changed while the process runs.

use std::io::IsTerminal as _;

use anyhow::Result;
use node_api::wire::Log;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config;
use crate::exit::Exit;

/// Changes the filter of a process that already logs.
pub(crate) struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogControl {
    /// Takes over the filter of a configuration that was read again.
    pub(crate) fn reload(&self, log: &Log) -> Result<()> {
        Ok(self.filter.reload(filter(log)?)?)
    }
}

/// Starts logging. Once per process.
pub(crate) fn start(log: &Log) -> Result<LogControl> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    // A terminal that has gone is no reason to end.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if log.json {
        lines.json().boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LogControl { filter: handle })
}

fn filter(log: &Log) -> Result<EnvFilter> {
    let text = config::log_filter(&log.filter);
    EnvFilter::try_new(&text)
        .map_err(|error| Exit::Configuration.because(format!("log filter {text:?}: {error}")))
}
