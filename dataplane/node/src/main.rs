//! The program `xtipcd`: settings and log, then the steward.
//!
//! Exit status: 0 after an orderly stop, 1 when it could not start or go on, 2 for wrong settings, 128 + n when
//! a second signal n, not one that came together with the first, ended a stop that was under way. A panic aborts.

mod log;

use std::process::ExitCode;

use clap::Parser;
use xtipcd::config::{CommandLine, Config, LOG_VARIABLE};
use xtipcd::signals::Signals;
use xtipcd::steward::{self, StewardError};

const WRONG_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let check_only = command_line.check;
    let config = match Config::load(command_line, std::env::var(LOG_VARIABLE).ok()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("xtipcd: {error}");
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    if check_only {
        for told in &config.without_effect {
            println!("xtipcd: {told}");
        }
        println!("xtipcd: the settings are good");
        return ExitCode::SUCCESS;
    }
    log::start(&config.log);
    for told in &config.without_effect {
        tracing::warn!("{told}");
    }
    abort_on_panic();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error.downcast_ref() {
                Some(StewardError::Forced(signal)) => {
                    ExitCode::from(128 + u8::try_from(*signal).unwrap_or(0))
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    // Before the first thread, so that all of them inherit the mask.
    let signals = Signals::block()?;
    Ok(steward::run(config, signals)?)
}

/// A daemon with a dead thread is worse than one that is restarted.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        tracing::error!(thread = name, "this is a bug of xtipcd: aborting");
        std::process::abort();
    }));
}
