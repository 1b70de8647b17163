//! Options of a run.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::bearer::Bearer;
use crate::output;
use crate::plan::{Set, select};
use crate::step::Step;

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds; ratios are judged from 5 undisturbed pairs on [default: 7, with --operations 1]
    #[arg(long, overrides_with = "rounds")]
    pub(crate) rounds: Option<usize>,
    /// While pairs are lacking because the machine was disturbed, at most so many rounds
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds_max: usize,
    /// Begin no further round that would not end within so many minutes
    #[arg(long, default_value_t = 9, overrides_with = "minutes")]
    pub(crate) minutes: u64,
    /// What to measure, repeatable [default: all but scale and instructions]
    #[arg(long = "set", value_enum, value_name = "SET")]
    pub(crate) sets: Vec<Set>,
    /// Only steps whose names contain this word, repeatable: `--only rate --only xtipc`
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,
    /// Print the names of the steps that would be measured, one a line, and measure nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Fail if a goal is missed, or cannot be judged
    #[arg(long)]
    pub(crate) check: bool,
    /// Write everything to this file, all histograms with it: for `compare`, and for other programs
    #[arg(long, value_name = "FILE", overrides_with = "json")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE", overrides_with = "html")]
    pub(crate) html: Option<PathBuf>,
    /// Milliseconds that a step measures, 1 to 1000, after a tenth of it to warm up
    #[arg(long, default_value_t = 200, value_name = "MS")]
    pub(crate) burst: u64,
    /// Count operations instead, 1 to 2000 in each step: for machines whose clock counts instructions. No calibration,
    /// one round, and both nodes may have the same processor
    #[arg(long, value_name = "N", overrides_with = "operations")]
    pub(crate) operations: Option<u64>,
    /// Processors of the two nodes: of each daemon and its application
    #[arg(long, default_value = "0,1", value_parser = two_processors, overrides_with = "cpus")]
    pub(crate) cpus: [usize; 2],
    /// What an idle worker of the daemon does
    #[arg(long, default_value = "adaptive", value_parser = ["busy", "adaptive", "sleep"])]
    pub(crate) policy: String,
    /// The daemon [default: xtipcd beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) xtipcd: Option<PathBuf>,
    /// Measure between this host and another one where `xtipc-bench serve` runs, instead of between two namespaces
    #[arg(long, value_name = "ADDRESS:PORT", requires = "bearer")]
    pub(crate) peer: Option<SocketAddr>,
    /// The bearer of this host's daemon that leads to the other one, as xtipcd has it: eth:eth1, udp:wan,localip=10.0.0.1.
    /// TCP, UDP and raw frames are measured through its interface
    #[arg(long, requires = "peer")]
    pub(crate) bearer: Option<Bearer>,
    /// Where the daemons' directories are made
    #[arg(long, hide = true)]
    pub(crate) directory: Option<PathBuf>,
}

impl Options {
    /// As they were given.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        std::env::args().skip(2).collect()
    }

    /// How many rounds at least.
    pub(crate) fn rounds(&self) -> usize {
        let usual = if self.operations.is_some() { 1 } else { 7 };
        self.rounds.unwrap_or(usual)
    }

    pub(crate) fn sets(&self) -> Vec<Set> {
        if self.sets.is_empty() {
            Set::STANDARD.to_vec()
        } else {
            self.sets.clone()
        }
    }

    /// What is to be measured, if all of it can be.
    pub(crate) fn steps(&self) -> Result<Vec<Step>> {
        let (sets, none) = (self.sets(), Vec::new());
        let selected = select(&sets, &self.only);
        let unknown = |word: &&String| select(&sets, std::slice::from_ref(word)).is_empty();
        let unknown: Vec<_> = self.only.iter().filter(unknown).map(|w| &**w).collect();
        ensure!(
            unknown.is_empty(),
            "--only {}: no step has this in its name, accepted are parts of these: {}",
            unknown.join(" --only "),
            names(&select(&sets, &none))
        );
        ensure!(
            !selected.is_empty(),
            "--only {}: no step has all of this in its name; these have the first: {}",
            self.only.join(" --only "),
            names(&select(&sets, &self.only[..1]))
        );
        Ok(selected)
    }

    /// Whatever can be told before anything is measured.
    pub(crate) fn check(&self) -> Result<()> {
        let [first, second] = self.cpus;
        ensure!(
            first != second || self.operations.is_some(),
            "--cpus {first},{second}: two different ones"
        );
        let allowed: Vec<_> = core_affinity::get_core_ids().unwrap_or_default();
        let allowed: Vec<_> = allowed.into_iter().map(|core| core.id).collect();
        for cpu in self.cpus {
            ensure!(
                allowed.contains(&cpu),
                "--cpus {first},{second}: processor {cpu} is not there or not allowed, accepted: {allowed:?}"
            );
        }
        ensure!(
            (1..=1000).contains(&self.burst),
            "--burst {}: 1 to 1000 milliseconds",
            self.burst
        );
        ensure!(self.rounds() > 0, "--rounds 0: at least one");
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
        if let Some(program) = &self.xtipcd {
            ensure!(
                program.is_file(),
                "--xtipcd {}: there is no such program",
                program.display()
            );
        }
        for file in [&self.json, &self.html].into_iter().flatten() {
            output::check(file)?;
        }
        self.steps()?;
        Ok(())
    }
}

fn names(steps: &[Step]) -> String {
    let names: Vec<_> = steps.iter().map(|step| format!("`{step}`")).collect();
    names.join(", ")
}

fn two_processors(text: &str) -> Result<[usize; 2], String> {
    let numbers: Result<Vec<_>, _> = text.split(',').map(str::parse).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| "two processors, as in 0,1".into())
}
