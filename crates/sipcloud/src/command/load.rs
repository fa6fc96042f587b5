//! `sipcloud load`: callers and callees.

mod demo;
pub(crate) mod guests;
mod lines;
mod story;

use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use load_client::{
    Challenge, Mode, Plan, Registration, Report, Retransmission, Stop, Timing, Uas, UasOptions,
};

use crate::cli;
use crate::command::small_runtime;
use crate::exit::Exit;
use crate::signals::EndSignals;

pub(crate) fn run(command: &cli::Load) -> Result<Option<Exit>> {
    match command {
        cli::Load::Uac(arguments) => callers(arguments),
        cli::Load::Uas(arguments) => callees(arguments),
        cli::Load::Demo(arguments) => demo::run(arguments),
    }
}

fn callers(arguments: &cli::Uac) -> Result<Option<Exit>> {
    let mix = match (&arguments.mix, arguments.cancel_after, arguments.talk) {
        (Some(mix), _, _) => mix.clone(),
        (None, Some(ringing), _) => Mode::CancelWhileRinging { ringing }.into(),
        (None, None, talk) => Mode::Complete { talk: talk.unwrap_or_default() }.into(),
    };
    let (targets, service) = cli::split_places(&arguments.to.targets, &arguments.to.name_servers)
        .map_err(wrong_flags)?;
    let plan = Plan {
        service,
        transport: arguments.to.transport.map(|choice| choice.transport()),
        users: arguments.users.iter().map(|user| user.0.clone()).collect(),
        callees: arguments.callees.clone(),
        mix,
        challenge: if arguments.challenge_optional {
            Challenge::Allowed
        } else {
            Challenge::Required
        },
        retransmission: retransmission(arguments.no_retransmission),
        timing: timing(arguments.t1),
        calls_max: arguments.calls,
        ..Plan::figure_4(
            targets,
            arguments.local.clone(),
            &arguments.domain,
            arguments.schedule.clone(),
        )
    };
    let stop = stop_on_signal(Second::EndsTheProcess)?;
    let report = load_client::run_uac(&plan, &stop, |sample| {
        println!("{}", lines::sample(sample, arguments.json));
    })
    .map_err(cannot_call)?;
    Ok(conclude(&report, arguments.json))
}

fn callees(arguments: &cli::Uas) -> Result<Option<Exit>> {
    let (targets, service) =
        cli::split_places(&arguments.registrars, &arguments.name_servers).map_err(wrong_flags)?;
    let registration = (!arguments.registrars.is_empty())
        .then(|| Registration { service, ..Registration::at(targets) });
    let options = UasOptions {
        users: arguments.users.iter().map(|user| user.0.clone()).collect(),
        registration,
        transport: arguments.transport.map(|choice| choice.transport()),
        ring_for: arguments.ring.unwrap_or_default(),
        rings: arguments.rings.iter().cloned().collect(),
        refuse_with: arguments.refuse_with,
        retransmission: retransmission(arguments.no_retransmission),
        timing: timing(arguments.t1),
        ..UasOptions::direct(arguments.local.clone(), &arguments.domain)
    };
    let uas = Uas::start(options).map_err(cannot_call)?;
    let addresses: Vec<String> = uas.addresses().iter().map(ToString::to_string).collect();
    println!("{}", lines::listening(&addresses, arguments.json));
    small_runtime()?.block_on(async {
        EndSignals::new()?.recv().await;
        io::Result::Ok(())
    })?;
    println!("{}", lines::callees(&uas.stop(), arguments.json));
    Ok(None)
}

fn retransmission(is_off: bool) -> Retransmission {
    if is_off { Retransmission::Off } else { Retransmission::On }
}

/// The timers of a network whose T1 this is, in the proportions of RFC 3261.
fn timing(t1: Option<Duration>) -> Timing {
    let standard = Timing::RFC_3261;
    t1.map_or(standard, |t1| {
        let share = t1.as_secs_f64() / standard.t1.as_secs_f64();
        Timing { t1, t2: standard.t2.mul_f64(share), t4: standard.t4.mul_f64(share) }
    })
}

/// Prints the report; calls that failed are an exit code.
fn conclude(report: &Report, json: bool) -> Option<Exit> {
    if json {
        println!("{}", lines::report(report));
    } else {
        print!("{report}");
    }
    (report.failed > 0).then_some(Exit::Failed)
}

/// What a second signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    EndsTheProcess,
    /// There is something to clean up first.
    IsIgnored,
}

/// The first signal lets calls end.
pub(crate) fn stop_on_signal(second: Second) -> Result<Stop> {
    let stop = Stop::new();
    let told = stop.clone();
    let runtime = small_runtime()?;
    let mut end = {
        let _inside = runtime.enter();
        EndSignals::new()?
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                end.recv().await;
                told.stop();
                loop {
                    end.recv().await;
                    match second {
                        Second::EndsTheProcess => std::process::exit(Exit::Failed as i32),
                        Second::IsIgnored => eprintln!("cleaning up; wait for it"),
                    }
                }
            });
        })
        .context("a thread cannot be started")?;
    Ok(stop)
}

fn wrong_flags(why: String) -> anyhow::Error {
    Exit::Usage.because(why)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn cannot_call(error: io::Error) -> anyhow::Error {
    Exit::Unavailable.because(format!("no calls can be made: {error}"))
}
