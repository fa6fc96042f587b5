//! `cargo xtask`: what the repository does to itself: its checks, and tools that only developers need.

mod bench;
mod capacity;
mod ci;
mod cost;
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
    /// Counts what messages cost (allocations, copies, system calls, instructions) and compares it with
    /// crates/xtask/cost.toml.
    Cost {
        /// Put what was counted into the file.
        #[arg(long)]
        write: bool,
        /// Say which functions the instructions are of.
        #[arg(long)]
        profile: bool,
    },
    /// Measures our elements beside Kamailio and a bare forwarder, in turns, in one run.
    Bench(bench::Plan),
    /// Finds what balancer, proxy and Cassandra node each carry on one core, beside Kamailio's.
    Capacity(capacity::Plan),
    /// Measures what grows with subscribers, calls in flight, connections and the fleet.
    Scale(scale::Plan),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Ci => ci::run(),
        Task::Tidy => tidy::run(),
        Task::Cost { write, profile } => cost::run(cost::Plan { write, profile }),
        Task::Bench(plan) => bench::run(plan),
        Task::Capacity(plan) => capacity::run(&plan),
        Task::Scale(plan) => scale::run(plan),
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
