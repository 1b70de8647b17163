//! Options of a run.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::plan::Set;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds; ratios are judged from 5 undisturbed pairs on
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// While pairs are lacking because the machine was disturbed, at most so many rounds
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds_max: usize,
    /// What to measure, repeatable [default: all but instructions]
    #[arg(long = "set", value_enum, value_name = "SET")]
    pub(crate) sets: Vec<Set>,
    /// Only steps whose names contain this word, repeatable: `--only rate --only xtipc`
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,
    /// Fail if a goal is missed, or cannot be judged
    #[arg(long)]
    pub(crate) check: bool,
    /// Write everything to this file, all histograms with it: for `compare`, and for other programs
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE", overrides_with = "html")]
    pub(crate) html: Option<PathBuf>,
    /// Milliseconds that a step measures, 1 to 1000, after a tenth of it to warm up
    #[arg(long, default_value_t = 200, value_name = "MS")]
    pub(crate) burst: u64,
    /// Count operations instead, 1 to 2000 in each step: for machines whose clock counts instructions. No calibration,
    /// one round, and both nodes may have the same processor
    #[arg(long, value_name = "N")]
    pub(crate) operations: Option<u64>,
    /// Processors of the two nodes: of each daemon and its application
    #[arg(long, default_value = "0,1", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// What an idle worker of the daemon does: busy, adaptive or sleep
    #[arg(long, default_value = "adaptive")]
    pub(crate) policy: String,
    /// The daemon [default: xtipcd beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) xtipcd: Option<PathBuf>,
    /// Measure between this host and another one where `xtipc-bench serve` runs, instead of between two namespaces
    #[arg(long, value_name = "ADDRESS:PORT", requires = "bearer")]
    pub(crate) peer: Option<SocketAddr>,
    /// The interface of this host that leads to the other one, which needs an IPv4 address for TCP and UDP
    #[arg(long, value_name = "eth:INTERFACE", requires = "peer")]
    pub(crate) bearer: Option<String>,
    /// Where the daemons' directories are made
    #[arg(long, hide = true)]
    pub(crate) directory: Option<PathBuf>,
}

impl Options {
    /// As they were given.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        std::env::args().skip(2).collect()
    }

    pub(crate) fn cpus(&self) -> Result<[usize; 2]> {
        let cpus = <[usize; 2]>::try_from(&self.cpus[..]);
        let [first, second] = cpus.ok().context("--cpus: two processors, as in 0,1")?;
        ensure!(
            first != second || self.operations.is_some(),
            "--cpus {first},{second}: two different ones"
        );
        Ok([first, second])
    }

    pub(crate) fn sets(&self) -> Vec<Set> {
        if self.sets.is_empty() {
            Set::STANDARD.to_vec()
        } else {
            self.sets.clone()
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            (1..=1000).contains(&self.burst),
            "--burst {}: 1 to 1000 milliseconds",
            self.burst
        );
        ensure!(self.rounds > 0, "--rounds 0: at least one");
        if let Some(operations) = self.operations {
            ensure!(
                (1..=2000).contains(&operations),
                "--operations {operations}: 1 to 2000"
            );
        }
        let instructions = self.sets.contains(&Set::Instructions);
        ensure!(
            !instructions || self.operations.is_some(),
            "--set instructions: only with --operations, where the clock counts instructions"
        );
        Ok(())
    }
}
