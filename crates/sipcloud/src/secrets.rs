//! Keys and tokens of a data directory: made at the first start, readable by their owner alone.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context as _, Result};
use fleet::{FleetKey, FleetKeys};
use node_api::wire::{Keys, Secret};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::files;

const FILE: &str = "secrets.json";

/// Everything that must not be guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// Sign branches, tokens and nonces; all nodes share them.
    pub fleet: Keys,
    /// Asked of whoever talks to a node.
    pub node_token: Secret,
    /// Asked of whoever talks to the manager.
    pub manager_token: Secret,
}

impl Secrets {
    /// The secrets of `data`; made now if there are none.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, or a file in it is damaged: then nothing is overwritten,
    /// because registered clients hold tokens that only the old keys can read.
    pub(crate) fn load_or_make(data: &Path) -> Result<Self> {
        make_private(data)?;
        let path = data.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                let remedy = "restore it, or remove it and let every client register again";
                Exit::Configuration.because(format!("{}: {error}; {remedy}", path.display()))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let secrets = Self::random()?;
                files::write_private(&path, &serde_json::to_vec_pretty(&secrets)?)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(secrets)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn random() -> Result<Self> {
        let key = FleetKey { id: 1, secret: random_bytes()? };
        let fleet = FleetKeys { keys: vec![key], signing: 1 };
        Ok(Self { fleet: Keys::from(&fleet), node_token: token()?, manager_token: token()? })
    }
}

/// Makes a directory for its owner alone; one that is open to others is closed.
pub(crate) fn make_private(directory: &Path) -> Result<()> {
    let show = || directory.display().to_string();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Exit::Configuration.because(format!("cannot make {}: {error}", show())))?;
    let mode = fs::metadata(directory).with_context(show)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).with_context(show)?;
    }
    Ok(())
}

fn token() -> Result<Secret> {
    let digits = random_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(Secret::new(digits))
}

fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_shown_to_nobody_else() {
        let data = files::test_directory("secrets");
        let made = Secrets::load_or_make(&data).expect("made");
        assert_eq!(Secrets::load_or_make(&data).expect("read"), made);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join(FILE))), (0o700, 0o600));
        assert_ne!(made.node_token, made.manager_token);

        fs::write(data.join(FILE), "{").expect("damaged");
        let error = Secrets::load_or_make(&data).expect_err("damage is not papered over");
        assert_eq!(Exit::of(&error), Exit::Configuration);
        fs::remove_dir_all(&data).expect("removed");
    }
}
