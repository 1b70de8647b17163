//! The process the user started: it gives the measuring process a session of its own, and cleans up after it.
//!
//! With the kernel's autogroups, all processes of a session share a group, and `nice` means nothing outside of it. So
//! the measurement gets a session, and its group the highest weight: otherwise a compile job next door takes the
//! processors by halves. A signal that ends this process ends all of the run, since every process of it dies with its
//! parent; only the daemons' directory is a file, and removed here.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use tempfile::TempDir;

use crate::child::{die_with_parent, own_program};

/// Where the daemons keep their sockets; the paths of sockets are short.
const DIRECTORY_BASE: &str = "/run";
const DIRECTORY_PREFIX: &str = "xtipc-bench-";
/// Of a group of processes, as of a process.
const NICE_HIGHEST: i32 = -20;

/// Runs this program in a role, `measure` or `serving`, with these arguments; ends this process with its status.
pub(crate) fn run(role: &str, arguments: &[String]) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root: it makes network namespaces, loads XDP programs and sets priorities"
    );
    remove_leftovers();
    let name = format!("{DIRECTORY_PREFIX}{}-", std::process::id());
    let directory = TempDir::with_prefix_in(name, DIRECTORY_BASE)
        .with_context(|| format!("cannot make a directory in {DIRECTORY_BASE}"))?;
    // Before the child exists, so that none of its signals is missed.
    let signals = SigSet::from_iter([
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ]);
    signals.thread_block()?;
    let mut measuring = own_program(role)?
        .args(arguments)
        .arg("--directory")
        .arg(directory.path())
        .spawn()
        .context("cannot start the measuring process")?;
    let code = wait(&mut measuring, &signals)?;
    directory.close().context("cannot remove the directory")?;
    std::process::exit(code)
}

/// Waits for the child's end, or a signal.
fn wait(child: &mut Child, signals: &SigSet) -> Result<i32> {
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(status) = child.try_wait()? {
                    return Ok(exit_code(status));
                }
            }
            signal => {
                child.kill()?;
                child.wait()?;
                return Ok(128 + signal as i32);
            }
        }
    }
}

/// As a shell has it.
fn exit_code(status: ExitStatus) -> i32 {
    let signal = status.signal().unwrap_or_default();
    status.code().unwrap_or(128 + signal)
}

/// Directories of runs that were killed.
fn remove_leftovers() {
    for entry in fs::read_dir(DIRECTORY_BASE).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let owner = name
            .strip_prefix(DIRECTORY_PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| fs::metadata(format!("/proc/{pid}")).is_err()) {
            // Whoever may not remove it did not make it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// In the measuring process: a session of its own, with the highest priority. Gives the nice value of its group.
pub(crate) fn begin() -> Result<Option<i32>> {
    die_with_parent()?;
    rustix::process::setsid().context("cannot make a session")?;
    let set = fs::write("/proc/self/autogroup", NICE_HIGHEST.to_string());
    if set.is_err() {
        // Without autogroups the value of the process counts, and its children inherit that.
        let _ = rustix::process::setpriority_process(None, NICE_HIGHEST);
    }
    Ok(set.is_ok().then_some(NICE_HIGHEST))
}
