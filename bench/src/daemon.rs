//! Two xtipcd, one on each side, with a link between them.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xtipc_management::{BearerMode, Client, Status};

use crate::child::terminate;
use crate::lab::{INTERFACE, Lab};

/// How long a link may take: the trial of the node address is one second of it.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// With what the daemons are started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The program.
    pub(crate) program: PathBuf,
    /// Their directories are made here.
    pub(crate) directory: PathBuf,
    /// The processor of each worker.
    pub(crate) cpus: [usize; 2],
    /// What an idle worker does.
    pub(crate) policy: String,
    /// Whether messages may share a packet.
    pub(crate) bundling: bool,
}

/// See the module. The daemons are killed on drop; [`Daemons::stop`] is the orderly end.
pub(crate) struct Daemons {
    pub(crate) settings: Settings,
    children: [Child; 2],
}

impl Daemons {
    /// Starts both and waits for their link.
    pub(crate) fn start(lab: &Lab, settings: &Settings) -> Result<Self> {
        let start = |side| start(lab, settings, side);
        let mut first = start(0)?;
        let second = start(1).inspect_err(|_| {
            // Reported is why the second failed.
            let _ = first.kill();
            let _ = first.wait();
        })?;
        let mut daemons = Self {
            settings: settings.clone(),
            children: [first, second],
        };
        daemons.await_link()?;
        Ok(daemons)
    }

    fn await_link(&mut self) -> Result<()> {
        let deadline = Instant::now() + LINK_PATIENCE;
        for side in 0..2 {
            loop {
                if let Some(status) = self.children[side].try_wait()? {
                    bail!("the daemon of side {side} ended: {status}");
                }
                let status = self.status(side);
                let linked = |status: &Status| status.peers.iter().any(|peer| peer.links_up > 0);
                if status.as_ref().is_ok_and(linked) {
                    break;
                }
                ensure!(
                    Instant::now() < deadline,
                    "no link after {LINK_PATIENCE:?}: {status:?}"
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn status(&self, side: usize) -> Result<Status> {
        let socket = run_directory(&self.settings.directory, side).join("control.sock");
        Ok(*Client::connect(&socket)?.status()?)
    }

    /// Which way the packets take.
    pub(crate) fn mode(&self) -> Result<BearerMode> {
        let status = self.status(0)?;
        let bearer = status.bearers.first();
        Ok(bearer.context("the daemon has no bearer any more")?.mode)
    }

    /// Packets that a side has sent.
    pub(crate) fn tx_packets(&self, side: usize) -> Result<u64> {
        let status = self.status(side)?;
        Ok(status.bearers.iter().map(|bearer| bearer.tx_packets).sum())
    }

    /// Where applications of a side attach.
    pub(crate) fn attach_socket(&self, side: usize) -> PathBuf {
        run_directory(&self.settings.directory, side).join("attach.sock")
    }

    /// Stops both; a daemon that does not end in order is an error, since it counts its frames at its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        for child in &mut self.children {
            let status = terminate(child, STOP_PATIENCE)?;
            ensure!(status.success(), "xtipcd ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run_directory(directory: &Path, side: usize) -> PathBuf {
    directory.join(format!("node-{side}"))
}

fn start(lab: &Lab, settings: &Settings, side: usize) -> Result<Child> {
    let program = settings.program.to_string_lossy();
    let mut command = lab.command(side, &program)?;
    command
        .args(["--config", "/dev/null", "--log", "warn"])
        .arg("--run-dir")
        .arg(run_directory(&settings.directory, side))
        .args(["--identity", &format!("bench-{side}")])
        .args(["--bearer", &format!("eth:{INTERFACE}")])
        .args(["--cpus", &settings.cpus[side].to_string()])
        .args(["--policy", &settings.policy]);
    if !settings.bundling {
        command.args(["--bundling", "false"]);
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}
