//! `sipcloud drain INSTANCE`: takes one instance out of service by hand.

use anyhow::Result;

use crate::cli;
use crate::command::{manager_of, refusal, small_runtime};
use crate::exit::Exit;

pub(crate) fn run(arguments: &cli::Drain) -> Result<Option<Exit>> {
    let manager = manager_of(&arguments.data.data)?;
    let asked = manager.drain(arguments.instance, "sipcloud drain");
    let answer = small_runtime()?.block_on(asked).map_err(refusal)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        println!("{} drains; watch it with: sipcloud status", arguments.instance);
    }
    Ok(None)
}
