//! `sipcloud events`: the manager's journal.

use std::time::Duration;

use anyhow::Result;
use node_api::wire::{Event, EventKind};

use crate::cli;
use crate::command::{manager_of, small_runtime};
use crate::exit::Exit;
use crate::show;

/// How often `--follow` asks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &cli::Events) -> Result<Option<Exit>> {
    let manager = manager_of(&arguments.data.data)?;
    small_runtime()?.block_on(async {
        let mut after = arguments.after;
        loop {
            let page =
                manager.events(after).await.map_err(|error| Exit::Unavailable.because(error))?;
            for event in &page.events {
                print(event, arguments.json)?;
                after = after.max(event.number);
            }
            match (page.events.is_empty(), arguments.follow) {
                (true, false) => return Ok(None),
                (true, true) => tokio::time::sleep(FOLLOW_INTERVAL).await,
                (false, _) => {}
            }
        }
    })
}

fn print(event: &Event, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(event)?);
        return Ok(());
    }
    let whom = match (&event.instance, &event.tier) {
        (Some(instance), _) => instance.to_string(),
        (None, Some(tier)) => tier.clone(),
        (None, None) => String::new(),
    };
    let kind = match event.kind {
        EventKind::Manager => "manager",
        EventKind::Decision => "decision",
        EventKind::Act => "act",
        EventKind::Failure => "failure",
        EventKind::Instance => "instance",
    };
    let time = show::time(event.at_ms);
    println!("{:>6}  {time}  {kind:<8}  {whom:<12}  {}", event.number, event.text);
    Ok(())
}
