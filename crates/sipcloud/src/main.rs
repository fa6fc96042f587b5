//! The binary: reads the command line, runs one command, turns its end into an exit code.

mod cli;
mod command;
mod config;
mod exit;
mod files;
mod logging;
mod program;
mod secrets;
mod show;
mod signals;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use cli::{Cli, Command};
use exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(exit)) => exit.into(),
        Err(error) => {
            eprintln!("sipcloud: {error:#}");
            Exit::of(&error).into()
        }
    }
}

/// `Some` is an end that is no error and yet no success.
fn run(command: Command) -> Result<Option<Exit>> {
    match command {
        Command::Up(arguments) => command::up::run(&arguments),
        Command::Balancer(arguments) => command::node::balancer(&arguments),
        Command::Proxy(arguments) => command::node::proxy(&arguments),
        Command::Manager(arguments) => command::manager::run(&arguments),
        Command::Status(arguments) => command::status::run(&arguments),
        Command::Events(arguments) => command::events::run(&arguments),
        Command::Drain(arguments) => command::drain::run(&arguments),
        Command::Weight(arguments) => command::weight::run(&arguments),
        Command::Simulate(arguments) => command::simulate::run(&arguments),
        Command::Upgrade(arguments) => command::upgrade::run(&arguments),
        Command::CheckConfig(arguments) => command::check_config::run(&arguments),
        Command::User(command) => command::user::run(&command),
        Command::Registration(command) => command::registration::run(&command),
        Command::Store(command) => command::store::run(&command),
        Command::Load(arguments) => command::load::run(&arguments),
        Command::Drill(arguments) => command::drill::run(&arguments),
        Command::Evaluate(arguments) => command::evaluate::run(&arguments),
    }
}
