//! `xtipc-bench`: what xtipc costs, beside raw AF_XDP and the kernel's TCP and UDP on the same wire.
//!
//! `run` measures between two network namespaces joined by one veth pair, or between this host and another one where
//! `serve` runs, each end in processes of its own, everything interleaved in rounds of one run, and judges ratios, never
//! absolute times (`docs/results/bench.md` has the method). `compare` compares two runs.
//!
//! A [`step`] measures a *kind* of a *subject* ([`subject`]); [`plan`] says in which order, [`mod@run`] does it on a [`ground`],
//! [`judge`] makes ratios of it for the [`goals`], [`report`] and [`html`] show them.

#![forbid(unsafe_code)]

mod bearer;
mod calibrator;
mod child;
mod cluster;
mod compare;
mod daemon;
mod environment;
mod extent;
mod goals;
mod ground;
mod html;
mod judge;
mod lab;
mod method;
mod options;
mod output;
mod part;
mod plan;
mod rate;
mod report;
mod round_trip;
mod run;
mod serve;
mod session;
mod statistics;
mod step;
mod subject;
mod wire;

use std::process::ExitCode;

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
    /// Measure between two network namespaces, or two hosts; needs root
    Run(options::Options),
    /// Be the other host of a run with --peer; needs root
    Serve(serve::Options),
    /// Compare two runs by what `run --json` wrote
    Compare(compare::Options),
    /// The measuring process that `run` starts in a session of its own
    #[command(hide = true)]
    Measure(options::Options),
    /// The same for `serve`
    #[command(hide = true)]
    Serving(serve::Options),
    /// One end of a measurement
    #[command(hide = true)]
    Part {
        /// What to do, as JSON
        part: String,
    },
    /// A daemon beside a measurement
    #[command(hide = true)]
    Daemon {
        /// How it is set up, as JSON
        setup: String,
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

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // The causes in one line, and no backtrace: it is the user's to mend.
        Err(error) => {
            eprintln!("xtipc-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(options) => {
            options.check()?;
            if options.list {
                for step in options.steps()? {
                    println!("{step}");
                }
                return Ok(());
            }
            session::run("measure", &options.to_arguments())
        }
        Command::Serve(options) => session::run("serving", &options.to_arguments()),
        Command::Compare(options) => compare::run(&options),
        Command::Measure(options) => run::measure(&options),
        Command::Serving(options) => serve::serving(&options),
        Command::Daemon { setup } => daemon::keep(&setup),
        Command::Part { part } => part::run(&part),
        Command::Hold => lab::hold(),
        Command::Enter { pid, command } => lab::enter_and_execute(pid, &command),
    }
}
