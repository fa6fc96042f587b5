//! `sipcloud check-config FILE`.

use anyhow::Result;

use crate::cli;
use crate::config::Config;
use crate::exit::Exit;

pub(crate) fn run(arguments: &cli::CheckConfig) -> Result<Option<Exit>> {
    Config::read(&arguments.file)?;
    println!("{}: good", arguments.file.display());
    Ok(None)
}
