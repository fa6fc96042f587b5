//! One file per subcommand.

pub(crate) mod check_config;
pub(crate) mod drain;
pub(crate) mod drill;
pub(crate) mod evaluate;
pub(crate) mod events;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod manager;
pub(crate) mod node;
pub(crate) mod registration;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod user;
pub(crate) mod weight;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use node_api::wire::StoreKind;
use node_api::{ClientError, ManagerClient};
use store_drivers::admin::{Admin, AdminError};

use crate::config::Config;
use crate::exit::Exit;
use crate::files::{self, ManagerFile};
use crate::secrets;

/// How long the manager may take to answer a command.
pub(crate) const MANAGER_PATIENCE: Duration = Duration::from_secs(5);

/// A runtime for a command that only asks.
pub(crate) fn small_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")
}

/// The manager of a data directory.
pub(crate) fn manager_of(data: &Path) -> Result<ManagerClient> {
    let absent = || {
        let remedy = format!("start one with: sipcloud up --data {}", data.display());
        Exit::Unavailable.because(format!("no cloud runs in {}; {remedy}", data.display()))
    };
    let file = ManagerFile::read(data).ok_or_else(absent)?;
    ManagerClient::new(file.api, &file.token, MANAGER_PATIENCE)
        .map_err(|error| Exit::Unavailable.because(format!("the manager cannot be asked: {error}")))
}

/// Why the manager did not do what it was asked for, as an exit code.
pub(crate) fn refusal(error: ClientError) -> anyhow::Error {
    match error {
        // It answered: there is no such instance, or it cannot be so.
        ClientError::Refused { ref why, .. } => Exit::Failed.because(why),
        error => Exit::Unavailable.because(error),
    }
}

/// The configuration of the cloud in a data directory, or the defaults before it first ran.
pub(crate) fn configuration_of(data: &Path) -> Result<Config> {
    let path = files::running_configuration(data);
    Config::read_or_default(path.exists().then_some(path.as_path()))
}

/// A data directory by its full name, made if need be.
pub(crate) fn open_data(data: &Path) -> Result<PathBuf> {
    secrets::make_private(data)?;
    data.canonicalize().with_context(|| format!("cannot find {}", data.display()))
}

/// The store of a data directory, and what is served with it.
pub(crate) fn open_store(data: &Path) -> Result<(Admin, Config)> {
    let data = open_data(data)?;
    let config = configuration_of(&data)?;
    let path = config.store_path(&data);
    let is_file = config.store.kind != StoreKind::Cassandra;
    if is_file && path.parent().is_some_and(|folder| !folder.exists()) {
        let folder = data.display();
        return Err(Exit::Unavailable.because(format!(
            "the store of {folder} is in memory and no cloud runs; start one with: sipcloud up \
             --data {folder} --store memory",
        )));
    }
    let store = Admin::open(&config.store_location(&data)?)
        .map_err(|error| Exit::Unavailable.because(format!("the store: {error}")))?;
    Ok((store, config))
}

/// The same for commands that make nothing: a mistyped directory stays absent.
pub(crate) fn open_existing_store(data: &Path) -> Result<(Admin, Config)> {
    if data.is_dir() {
        let data = data.canonicalize()?;
        let config = configuration_of(&data)?;
        let path = config.store_path(&data);
        let is_cluster = config.store.kind == StoreKind::Cassandra;
        // Without its folder it is a store in memory, and told so.
        if is_cluster || path.exists() || path.parent().is_some_and(|folder| !folder.exists()) {
            return open_store(&data);
        }
    }
    let remedy = "name the right directory with --data, or make a store with: sipcloud user add";
    Err(Exit::Unavailable.because(format!("there is no store in {}; {remedy}", data.display())))
}

/// What the store's refusal means to a script.
pub(crate) fn explain(error: AdminError) -> anyhow::Error {
    let exit = match error {
        AdminError::Name { .. } | AdminError::EmptyPassword => Exit::Usage,
        AdminError::UserExists { .. }
        | AdminError::NoSuchUser { .. }
        | AdminError::NoSuchRegistration { .. } => Exit::Failed,
        AdminError::Store(_) => Exit::Unavailable,
        AdminError::Confused => Exit::Software,
    };
    exit.because(error)
}
