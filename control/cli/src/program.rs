//! `xtipc run`: a program with the AF_TIPC sockets of xtipc.
//!
//! Reference: `docs/preload.md`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::options::{OptionError, Options};

/// The library that stands before the C library.
const LIBRARY: &str = "libxtipc_preload.so";
/// Where it is, from the directory of this command on.
const PLACES: [&str; 3] = ["", "../lib/xtipc", "../lib"];
/// What the library reads: which node to attach to, that it shall say why it cannot, and that `/proc/modules` shall list TIPC.
const SOCKET_VARIABLE: &str = "XTIPC_SOCKET";
const RUN_VARIABLE: &str = "XTIPC_RUN";
const LISTED_VARIABLE: &str = "XTIPC_MODULE_LISTED";

/// Statuses of shells for a program that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

const USAGE: &str = "\
Usage: xtipc [--instance NAME | --socket PATH] run [OPTIONS] [--] PROGRAM [ARGS] ...

Runs a program with the AF_TIPC sockets of the node.

Options:
 --module-listed   Have /proc/modules list tipc, for programs that look there for TIPC
 --library PATH    The library to use instead of the libxtipc_preload.so that came with this command
 --help            Print this

A static program, a set-uid one, and one that makes system calls without the C library, such as one of Go without
cgo, cannot be served.
";

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{USAGE}")]
    Help,
    #[error(
        "xtipc run: unknown option \"{0}\": --module-listed, --library PATH and --help are known\n"
    )]
    Option(String),
    #[error("xtipc run: --library requires a path\n")]
    NoPath,
    #[error("xtipc run: no program is named\n{USAGE}")]
    NoProgram,
    #[error("xtipc run: {LIBRARY} is not beside this command, nor in {}: name it with --library PATH\n", PLACES[1..].join(" or "))]
    NoLibrary,
    #[error("xtipc run: {0}: no such library\n")]
    LibraryMissing(String),
    #[error("xtipc run: {program}: {cause}\n")]
    Program { program: String, cause: io::Error },
    #[error("xtipc: {0}\n")]
    Daemon(#[from] OptionError),
}

impl RunError {
    /// What the command ends with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Program { cause, .. } if cause.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Program { .. } => CANNOT_RUN,
            _ => super::FAILED,
        }
    }
}

/// Becomes the program that the words name. Returns only if that fails.
pub(crate) fn run(options: &Options, words: &[OsString]) -> RunError {
    match command(options, words) {
        Ok(mut command) => RunError::Program {
            program: command.get_program().to_string_lossy().into_owned(),
            cause: command.exec(),
        },
        Err(error) => error,
    }
}

fn command(options: &Options, words: &[OsString]) -> Result<Command, RunError> {
    let mut words = words.iter();
    let (mut library, mut listed) = (None, false);
    let program = loop {
        let word = words.next().ok_or(RunError::NoProgram)?;
        match word.to_string_lossy().as_ref() {
            "--" => break words.next().ok_or(RunError::NoProgram)?,
            "--help" | "-h" => return Err(RunError::Help),
            "--module-listed" => listed = true,
            "--library" => library = Some(PathBuf::from(words.next().ok_or(RunError::NoPath)?)),
            option if option.starts_with('-') => return Err(RunError::Option(option.to_owned())),
            _ => break word,
        }
    };
    let library = match library {
        Some(path) if path.exists() => path.canonicalize().unwrap_or(path),
        Some(path) => return Err(RunError::LibraryMissing(path.display().to_string())),
        None => find_library().ok_or(RunError::NoLibrary)?,
    };
    let mut command = Command::new(program);
    command
        .args(words)
        .env("LD_PRELOAD", preloaded(&library.into_os_string()))
        .env(RUN_VARIABLE, "1");
    if listed {
        command.env(LISTED_VARIABLE, "1");
    }
    if let Some(socket) = options.attach_socket()? {
        command.env(SOCKET_VARIABLE, socket);
    }
    Ok(command)
}

/// What others want to be preloaded comes first, as they asked for it.
fn preloaded(library: &OsStr) -> OsString {
    let mut all = env::var_os("LD_PRELOAD").unwrap_or_default();
    if !all.is_empty() {
        all.push(":");
    }
    all.push(library);
    all
}

fn find_library() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let directory = own.parent()?;
    PLACES
        .iter()
        .map(|place| directory.join(place).join(LIBRARY))
        .find(|path| path.exists())
        .and_then(|path| path.canonicalize().ok())
}
