//! What `xtipc-sim` does beside seeds: measurements that say by their exit code whether a bound was missed.

mod alarms;
mod cuts;
mod scale;
mod usage;

use std::process::ExitCode;

/// One of them.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// A full mesh of many nodes: memory, time, and how soon losses are seen.
    Scale(scale::Options),
    /// A short tolerance for long: no node is lost that lives, each that dies is lost in time.
    Alarms(alarms::Options),
    /// One of two nets is cut and restored again and again under traffic.
    Cuts(cuts::Options),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self) -> ExitCode {
        let mut report = Report::default();
        match self {
            Self::Scale(options) => scale::run(&options, &mut report),
            Self::Alarms(options) => alarms::run(&options, &mut report),
            Self::Cuts(options) => cuts::run(&options, &mut report),
        }
        report.end()
    }
}

/// Lines for readers, and whether all was as it has to be.
#[derive(Default)]
struct Report {
    missed: usize,
}

impl Report {
    /// A line of figures.
    fn say(&self, what: &str, figures: &str) {
        println!("{what:<28} {figures}");
    }

    /// A line of figures that have to be as `fine` says.
    fn judge(&mut self, what: &str, figures: &str, fine: bool) {
        let verdict = if fine { "" } else { "  MISSED" };
        self.say(what, &format!("{figures}{verdict}"));
        self.missed += usize::from(!fine);
    }

    fn end(self) -> ExitCode {
        if self.missed > 0 {
            println!("{} bounds missed", self.missed);
        }
        ExitCode::from(u8::from(self.missed > 0))
    }
}
