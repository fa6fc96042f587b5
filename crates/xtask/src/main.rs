//! `cargo xtask`: what the repository does to itself: its checks, and tools that only developers need.

mod bench;
mod capacity;
mod ci;
mod house;
mod rig;
mod scale;
mod tidy;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::torture;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and developer tools of this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a change lands: format, lints, tidy, tests, doctests.
    Ci,
    /// Checks the style that no compiler checks: floors, citations, sizes, words, promises.
    Tidy,
    /// Replays a folder of raw messages (with an index.json) against a SIP element and says which
    /// verdicts hold.
    Torture {
        /// Folder with index.json and the messages.
        directory: PathBuf,
        /// Address of the element, IP:PORT.
        address: std::net::SocketAddr,
        /// Address to send from and to listen on, at port 5060 and those that the Vias name.
        #[arg(long, default_value = "127.0.99.1")]
        from: IpAddr,
        /// How long to wait for the answer to one message, in milliseconds.
        #[arg(long, default_value_t = 400)]
        wait_ms: u64,
    },
    /// Measures our elements beside Kamailio and a bare forwarder, in turns, in one run.
    Bench {
        /// Calls per second, in turn.
        #[arg(long, value_delimiter = ',', default_value = "100,200,300")]
        rates: Vec<u32>,
        /// Rounds per rate and element; one more warms up.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Seconds of calls per round.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Workers of each proxy and threads of each balancer, in turn.
        #[arg(long, value_delimiter = ',', default_value = "1,2")]
        workers: Vec<u16>,
        /// Leave the database out.
        #[arg(long)]
        no_cassandra: bool,
        /// One part alone.
        #[arg(long)]
        only: Option<bench::Part>,
        /// One rate, two rounds, one worker, no database: within five minutes.
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Finds what balancer, proxy and Cassandra node each carry on one core, beside Kamailio's.
    Capacity {
        /// Seconds of calls per rate that is tried.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Leave the database out.
        #[arg(long)]
        no_cassandra: bool,
        /// Coarse, and without the database: within four minutes.
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Measures what grows with subscribers, calls in flight, connections and the fleet.
    Scale {
        /// Numbers of subscribers, the fewest first.
        #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
        subscribers: Vec<u32>,
        /// Calls per second.
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// Seconds of calls per round.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Rounds; one more warms up.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Leave the database out.
        #[arg(long)]
        no_cassandra: bool,
        /// One part alone.
        #[arg(long)]
        only: Option<scale::Part>,
        /// At most 100,000 subscribers and no database: within five minutes.
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        common: Common,
    },
}

/// What all measurements take.
#[derive(clap::Args)]
struct Common {
    /// This program in place of a release build of the repository.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Put the tables into the documentation.
    #[arg(long)]
    write: bool,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Ci => ci::run(),
        Task::Tidy => tidy::run(),
        Task::Bench { rates, rounds, seconds, workers, no_cassandra, only, quick, common } => {
            let with_cassandra = !no_cassandra;
            let Common { binary, write } = common;
            let plan = bench::Plan {
                rates,
                rounds,
                seconds,
                workers,
                with_cassandra,
                only,
                binary,
                write,
            };
            bench::run(&if quick { plan.quick() } else { plan })
        }
        Task::Capacity { seconds, no_cassandra, quick, common: Common { binary, write } } => {
            let with_cassandra = !no_cassandra;
            let plan = capacity::Plan { seconds, precision: 0.1, with_cassandra, binary, write };
            capacity::run(&if quick { plan.quick() } else { plan })
        }
        Task::Scale { subscribers, rate, seconds, rounds, no_cassandra, only, quick, common } => {
            let with_cassandra = !no_cassandra;
            let Common { binary, write } = common;
            let plan = scale::Plan {
                subscribers,
                rate,
                seconds,
                rounds,
                with_cassandra,
                only,
                binary,
                write,
            };
            scale::run(&if quick { plan.quick() } else { plan })
        }
        Task::Torture { directory, address, from, wait_ms } => {
            torture::run(&torture::Plan { directory, address, from, wait_ms })
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
