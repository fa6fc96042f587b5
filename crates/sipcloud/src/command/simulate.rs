//! `sipcloud simulate`: what the manager would do with a load, on virtual time.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Result;
use scaling::Timing;
use simulation::{RandomOutcome, Scenario, Settings, built_in, random, run as play};

use crate::cli;
use crate::command::manager::settings;
use crate::config::Config;
use crate::exit::Exit;

pub(crate) fn run(arguments: &cli::Simulate) -> Result<Option<Exit>> {
    if arguments.random {
        return Ok(random_hours(arguments.seed, arguments.hours));
    }
    if arguments.list {
        for (name, text) in built_in() {
            println!("{name:<28} {}", parse(name, text)?.about);
        }
        return Ok(None);
    }
    let config = arguments.config.as_deref().map(Config::read).transpose()?;
    let mut is_broken = false;
    for (name, text) in chosen(arguments)? {
        let scenario = parse(&name, &text)?;
        let outcome = play(&scenario, &settings_for(&scenario, config.as_ref()));
        println!("{name}: {}\n\n{}", scenario.about, outcome.story);
        is_broken |= !outcome.violations.is_empty();
    }
    Ok(is_broken.then_some(Exit::Failed))
}

/// Name and text of each scenario that was asked for.
fn chosen(arguments: &cli::Simulate) -> Result<Vec<(String, String)>> {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let Some(name) = &arguments.scenario else {
        return Ok(built_in().iter().map(owned).collect());
    };
    if let Some(known) = built_in().iter().find(|(known, _)| known == name) {
        return Ok(vec![owned(known)]);
    }
    let text = fs::read_to_string(Path::new(name)).map_err(|error| {
        let remedy = "sipcloud simulate --list shows those that are built in";
        Exit::Usage.because(format!("the scenario {name} cannot be read: {error}; {remedy}"))
    })?;
    Ok(vec![(name.clone(), text)])
}

fn parse(name: &str, text: &str) -> Result<Scenario> {
    Scenario::parse(text).map_err(|error| Exit::Configuration.because(format!("{name}: {error}")))
}

/// The scenario's own policy, or that of a configuration; how long machines take to boot is the
/// scenario's in both.
fn settings_for(scenario: &Scenario, config: Option<&Config>) -> Settings {
    let own = scenario.settings();
    let Some(config) = config else { return own };
    let told = settings(config);
    let Timing { boot_time, start_limit, .. } = own.timing;
    Settings {
        balancers: told.balancers,
        proxies: told.proxies,
        timing: Timing { boot_time, start_limit, ..told.timing },
        is_dry_run: told.is_dry_run,
    }
}

fn random_hours(seed: u64, hours: u64) -> Option<Exit> {
    let is_watched = std::io::stderr().is_terminal();
    let outcome = random(seed, hours, |so_far| {
        if is_watched {
            eprint!("\r{} of {hours} hours, {} faults", so_far.hours, so_far.faults);
            std::io::stderr().flush().ok();
        }
    });
    if is_watched {
        eprintln!();
    }
    let RandomOutcome { hours, polls, faults, machines_made, broken } = outcome;
    println!(
        "seed {seed}: {hours} hours, {polls} polls, {faults} faults, {machines_made} machines"
    );
    let Some(broken) = broken else {
        println!("no promise was broken");
        return None;
    };
    println!("{}", broken.story);
    for violation in &broken.violations {
        println!("BROKEN {violation}");
    }
    println!("again: sipcloud simulate --random --hours 1 --seed {}", broken.seed);
    Some(Exit::Failed)
}
