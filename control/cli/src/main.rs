//! The xtipc command: operate a node as with the tipc tool.
//!
//! Grammar, text, JSON, messages and exit status are those of the tipc tool of iproute2, so that scripts written for
//! it go on working; what xtipc adds is asked for by a flag or by a word of its own.
//!
//! Reference: `docs/protocol/management.md`.
#![forbid(unsafe_code)]

mod bearer;
mod commands;
mod grammar;
mod json;
mod key;
mod options;
mod program;
mod show;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use xtipc_management::{Client, ClientError};

use bearer::BearerWordsError;
use grammar::GrammarError;
use key::KeyWordsError;
use options::{OptionError, Options};

/// What the tipc tool ends with when a command fails.
const FAILED: u8 = 255;

/// What it ends with when an option is wrong.
const WRONG_OPTION: u8 = 1;

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("xtipc: {0}\n")]
    Option(#[from] OptionError),
    #[error("{0}")]
    Grammar(#[from] GrammarError),
    #[error("{}", daemon_error(.0))]
    Daemon(#[from] ClientError),
    #[error(transparent)]
    Run(#[from] program::RunError),
    #[error("error, missing link\n")]
    MissingLink,
    #[error("error, missing media\n")]
    MissingMedia,
    #[error("{0}")]
    Bearer(#[from] BearerWordsError),
    #[error("{0}")]
    Key(#[from] KeyWordsError),
    #[error("error, not supported for media\n")]
    NotOfMedia,
    #[error("cannot write JSON: {0}\n")]
    Json(#[from] serde_json::Error),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = match run(&arguments) {
        Ok(text) => {
            return match io::stdout().lock().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                // The reader has what it wanted, as `head` has.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
                Err(error) => complain(&format!("xtipc: cannot write: {error}\n"), FAILED),
            };
        }
        Err(error) => error,
    };
    complain(
        &error.to_string(),
        match error {
            Error::Option(_) => WRONG_OPTION,
            Error::Run(error) => error.status(),
            _ => FAILED,
        },
    )
}

fn run(arguments: &[OsString]) -> Result<String, Error> {
    let words = arguments.iter();
    let options = Options::parse(words.map(|word| word.to_string_lossy().into_owned()))?;
    if let Some(to_run) = options.words_to_run() {
        // As they were given, for they may be in any encoding.
        let words = &arguments[arguments.len() - to_run.len()..];
        return Err(program::run(&options, words).into());
    }
    let typed = commands::typed(&options)?;
    let path = options.control_socket()?;
    show::answer(&typed, &options, || Client::connect(&path))
}

/// Prints to stderr; where even that fails only the status is left to tell.
fn complain(text: &str, status: u8) -> ExitCode {
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(status)
}

/// A refusal in the two lines of the tipc tool: the daemon's text if there is one, and the error's name.
fn daemon_error(error: &ClientError) -> String {
    let ClientError::Refused(failure) = error else {
        return format!("{error}\n");
    };
    let extended = if failure.text.is_empty() {
        String::new()
    } else {
        format!("Error: {}.\n", failure.text)
    };
    let named = io::Error::from_raw_os_error(failure.errno).to_string();
    let name = named.split(" (os error").next().unwrap_or_default();
    format!("{extended}xtipcd answers: {name}\n")
}
