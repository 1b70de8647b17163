//! `xtipc-bench`: what xtipc costs, beside raw AF_XDP and the kernel's TCP and UDP on the same wire.
//!
//! `run` measures round trips and message rates between two network namespaces joined by one veth pair, each end in
//! processes of its own, everything interleaved in rounds of one run, and judges ratios, never absolute times
//! (`docs/results/bench.md` has the method). `code` measures the protocol code without I/O.
//!
//! What is measured is a *kind* ([`round_trip`], [`rate`]) of a *subject* ([`subject`]); [`plan`] says in which order,
//! [`run`] does it, [`judge`] makes ratios of it, [`report`] shows them.

#![forbid(unsafe_code)]

mod calibrator;
mod child;
mod code;
mod daemon;
mod environment;
mod judge;
mod lab;
mod part;
mod plan;
mod rate;
mod report;
mod round_trip;
mod run;
mod session;
mod statistics;
mod subject;

use clap::{Parser, Subcommand};

/// Measures xtipc beside raw AF_XDP, TCP and UDP.
#[derive(Parser)]
#[command(name = "xtipc-bench", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure between two network namespaces; needs root
    Run(run::Options),
    /// Measure the protocol code without I/O
    Code,
    /// The measuring process that `run` starts in a session of its own
    #[command(hide = true)]
    Measure(run::Options),
    /// One end of a measurement
    #[command(hide = true)]
    Part {
        /// What to do, as JSON
        part: String,
    },
    /// Hold a new network namespace until the standard input ends
    #[command(hide = true)]
    Hold,
    /// Execute a program in the network namespace of another process
    #[command(hide = true)]
    Enter {
        /// The process
        pid: u32,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match CommandLine::parse().command {
        Command::Run(options) => session::run(&options),
        Command::Code => {
            code::run();
            Ok(())
        }
        Command::Measure(options) => run::measure(&options),
        Command::Part { part } => part::run(&part),
        Command::Hold => lab::hold(),
        Command::Enter { pid, command } => lab::enter_and_execute(pid, &command),
    }
}
