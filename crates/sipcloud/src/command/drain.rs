//! `sipcloud drain INSTANCE`: takes one instance out of service by hand.

use anyhow::Result;
use node_api::ClientError;

use crate::cli;
use crate::command::{manager_of, small_runtime};
use crate::exit::Exit;

pub(crate) fn run(arguments: &cli::Drain) -> Result<Option<Exit>> {
    let manager = manager_of(&arguments.data.data)?;
    let answer = small_runtime()?
        .block_on(manager.drain(arguments.instance, "sipcloud drain"))
        .map_err(|error| match error {
            // It answered: there is no such instance, or none that serves.
            ClientError::Refused { ref why, .. } => Exit::Failed.because(why),
            error => Exit::Unavailable.because(error),
        })?;
    if arguments.json {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        println!("{} drains; watch it with: sipcloud status", arguments.instance);
    }
    Ok(None)
}
