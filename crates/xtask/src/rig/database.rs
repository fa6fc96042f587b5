//! One Cassandra node of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::process::{self, Place};

const NETWORK: &str = "127.0.44";
/// The first start fetches it.
const START_TIME_MAX: Duration = Duration::from_secs(900);

pub(crate) struct Database {
    script: PathBuf,
    data: PathBuf,
}

impl Database {
    /// Starts it with its data in `folder`, which is removed in the end.
    pub(crate) fn start(root: &Path, folder: &Path, place: &Place) -> Result<Self> {
        eprintln!("starting a Cassandra node");
        let (script, data) = (root.join("scripts/cassandra"), folder.join("cassandra"));
        let started = Self { script, data };
        started.script(&["up"])?;
        started.pin(place)?;
        Ok(started)
    }

    /// Moves it.
    pub(crate) fn pin(&self, place: &Place) -> Result<()> {
        self.processes().into_iter().try_for_each(|process| place.apply(process))
    }

    /// Where clients find it.
    pub(crate) fn contact_point() -> String {
        format!("{NETWORK}.1")
    }

    /// `[store]` of a cloud that uses it.
    pub(crate) fn store_keys(keyspace: &str) -> String {
        format!(
            "kind = \"cassandra\"\ncontact_points = [\"{}\"]\nkeyspace = \"{keyspace}\"\n",
            Self::contact_point()
        )
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        let pid = fs::read_to_string(self.data.join("node1/pid")).unwrap_or_default();
        pid.trim().parse().into_iter().collect()
    }

    fn script(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.script);
        command.args(arguments).args(["--network", NETWORK, "--data"]).arg(&self.data);
        process::run(&mut command, START_TIME_MAX).map(drop).context("scripts/cassandra")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Not by `run`, which does nothing more once somebody has had enough.
        let mut command = Command::new(&self.script);
        command.args(["down", "--clean", "--network", NETWORK, "--data"]).arg(&self.data);
        let _ = command.status();
    }
}
