//! `sipcloud drill`: bad days on purpose. Each drill plays one change or fault under calls and says
//! whether a call was lost.

mod faults;
mod noise;
mod outcome;
mod scaling;
mod scene;
mod shares;
mod spec;
mod stage;
mod store_node;
mod traffic;

use anyhow::Result;
use load_client::Stop;

use crate::cli::{self, DrillName};
use crate::command::load::{Second, stop_on_signal};
use crate::exit::Exit;
use outcome::{Calls, Record, Verdict};
use scene::{Played, Scene, Unplayed};
use spec::Spec;
use stage::Stage;
use traffic::Traffic;

pub(crate) fn run(arguments: &cli::Drill) -> Result<Option<Exit>> {
    let names = match (arguments.list, arguments.all, arguments.names.as_slice()) {
        (true, _, _) => {
            spec::ALL.iter().for_each(|spec| println!("{:<17} {}", spec.name.text(), spec.what));
            return Ok(None);
        }
        (_, false, []) => {
            return Err(Exit::Usage.because("name a drill, or --all; --list tells what there is"));
        }
        (_, true, _) => spec::ALL.iter().map(|spec| spec.name).collect(),
        (_, _, names) => names.to_vec(),
    };
    let interrupted = stop_on_signal(Second::IsIgnored)?;
    let mut records = Vec::new();
    for name in names {
        if interrupted.is_stopped() {
            break;
        }
        let record = record(name, arguments, &interrupted)?;
        if arguments.json {
            println!("{}", record.json());
        } else {
            record.print();
        }
        records.push(record);
    }
    outcome::print_table(&records, arguments.json);
    if interrupted.is_stopped() {
        eprintln!(
            "interrupted: the drill's calls have ended, and its users and clouds are removed"
        );
    }
    let is_good = outcome::all_passed(&records) && !interrupted.is_stopped();
    Ok((!is_good).then_some(Exit::Failed))
}

/// Plays one drill from the first process to the last.
fn record(name: DrillName, arguments: &cli::Drill, interrupted: &Stop) -> Result<Record> {
    let Some(spec) = spec::of(name) else {
        return Err(Exit::Software.because("a name without a drill"));
    };
    let stage = match &arguments.data {
        Some(data) => Stage::running(data)?,
        None => Stage::raise(&name.text(), &spec.shape(arguments.rate), arguments, interrupted)?,
    };
    let schedule = spec.schedule(arguments.rate, arguments.seconds)?;
    let traffic = Traffic::begin(&stage, spec.way, schedule, arguments)?;
    let mut scene = Scene::new(name.text(), &stage, &traffic, arguments, interrupted);
    let played = (spec.play)(&mut scene);
    scene.wind_down();
    let (proxies_max, proxies_end) = (scene.proxies_max, scene.proxies_now());
    let (notes, shares, may_be_lost) = (scene.notes, scene.shares, scene.may_be_lost);
    let (report, callees) = traffic.end()?;
    let lossy = if arguments.no_retransmission { may_be_lost } else { 0 };
    let verdict = judge(spec, played, &report, lossy);
    let calls = Calls { report, callees };
    Ok(Record { name: name.text(), verdict, calls, proxies_max, proxies_end, notes, shares })
}

/// A play that came to its end has passed if no call was lost; `may_be_lost` calls without
/// retransmission were inside a process that was killed.
fn judge(spec: &Spec, played: Played, report: &load_client::Report, may_be_lost: u64) -> Verdict {
    let reason = match played {
        Ok(reason) => reason,
        Err(Unplayed::Interrupted) => return Verdict::Interrupted,
        Err(Unplayed::Skipped(why)) => return Verdict::Skipped(why),
        Err(Unplayed::Failed(why)) => return Verdict::Failed(why),
    };
    let lost = report.failed + report.unfinished;
    if report.started == 0 {
        return Verdict::Failed(format!("{} played to nobody: no call was made", spec.name.text()));
    }
    if lost == 0 {
        return Verdict::Passed(reason);
    }
    if lost <= may_be_lost {
        let why = "were inside it, and their clients repeat nothing";
        return Verdict::Passed(format!("{reason}; {lost} calls {why}"));
    }
    let mut why = format!("{lost} of {} calls were lost", report.started);
    for (cause, calls) in &report.causes {
        why += &format!("; {calls}: {cause}");
    }
    if report.unfinished > 0 {
        why += &format!("; {} did not end", report.unfinished);
    }
    if report.own.lost_messages() {
        why += "; the client itself lost messages";
    }
    Verdict::Failed(why)
}

#[cfg(test)]
mod tests {
    use load_client::Report;

    use super::*;

    fn spec() -> &'static Spec {
        spec::of(DrillName::KillProxy).expect("a drill")
    }

    #[test]
    fn a_lost_call_fails_a_drill_that_played_to_its_end() {
        let report = |failed, started| Report { started, failed, ..Report::default() };
        let played = || Ok("killed".to_owned());
        assert_eq!(judge(spec(), played(), &report(0, 9), 0), Verdict::Passed("killed".to_owned()));
        assert!(matches!(judge(spec(), played(), &report(1, 9), 0), Verdict::Failed(_)));
        assert!(matches!(judge(spec(), played(), &report(0, 0), 0), Verdict::Failed(_)));
        assert!(matches!(judge(spec(), played(), &report(2, 9), 2), Verdict::Passed(_)));
        assert!(matches!(judge(spec(), played(), &report(3, 9), 2), Verdict::Failed(_)));
        let cut = judge(spec(), Err(Unplayed::Interrupted), &report(0, 9), 0);
        assert_eq!(cut, Verdict::Interrupted);
    }
}
