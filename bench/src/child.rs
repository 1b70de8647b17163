//! Processes of a run: this program in other roles, and what it executes. They end with the process that started
//! them, however that ends.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use serde::de::DeserializeOwned;

/// Marks the commands of this process for its children: whose end is to be theirs.
const PARENT_VARIABLE: &str = "XTIPC_BENCH_PARENT";

/// This program, in another role. It must call [`die_with_parent`].
pub(crate) fn own_program(role: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot tell the own program")?);
    command
        .arg(role)
        .env(PARENT_VARIABLE, std::process::id().to_string());
    Ok(command)
}

/// Lets the kernel kill this process when its parent ends; what it executes inherits that.
///
/// # Errors
/// The parent has ended already, or this was not started by a run.
pub(crate) fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot bind the own life to the parent's")?;
    let parent = env::var(PARENT_VARIABLE).context("this role is started by `xtipc-bench run`")?;
    let now = nix::unistd::getppid().to_string();
    ensure!(parent == now, "the parent {parent} has ended");
    Ok(())
}

/// A child that is told what to do on its standard input and answers on its standard output, line by line.
pub(crate) struct Worker {
    name: String,
    /// `None`: on another host, where it ends with the connection.
    child: Option<Child>,
    input: Box<dyn Write>,
    output: BufReader<Box<dyn Read>>,
    /// Of the output, to wait for it.
    arrives: OwnedFd,
    /// A connection to the other host, which ends with what serves there.
    other_host: Option<OwnedFd>,
}

/// Who says nothing for so long says nothing more: what it waits for itself ended with the other side. Longer than any
/// step, and than links may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Worker {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("the input is piped")?;
        let output = child.stdout.take().context("the output is piped")?;
        Self {
            name: name.into(),
            arrives: output.as_fd().try_clone_to_owned()?,
            input: Box::new(input),
            output: BufReader::new(Box::new(output)),
            child: Some(child),
            other_host: None,
        }
        .greeted()
    }

    /// One of another host, at the other end of a connection.
    pub(crate) fn remote(name: &str, connection: TcpStream) -> Result<Self> {
        Self {
            name: name.into(),
            arrives: connection.as_fd().try_clone_to_owned()?,
            input: Box::new(connection.try_clone()?),
            output: BufReader::new(Box::new(connection)),
            child: None,
            other_host: None,
        }
        .greeted()
    }

    fn greeted(mut self) -> Result<Self> {
        let line = self.line()?;
        ensure!(
            line == READY,
            "{} said `{line}` instead of `{READY}`",
            self.name
        );
        Ok(self)
    }

    /// Its answers are waited for as long as this connection lasts.
    pub(crate) fn while_there_is(mut self, other_host: &TcpStream) -> Result<Self> {
        self.other_host = Some(other_host.as_fd().try_clone_to_owned()?);
        Ok(self)
    }

    /// Of one on this host.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").with_context(|| format!("{} went away", self.name))
    }

    /// Waits for its answer.
    pub(crate) fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{} answered `{line}`", self.name))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.buffer().is_empty() {
            let mut arriving = vec![PollFd::new(&self.arrives, PollFlags::IN)];
            let other_host = self.other_host.iter();
            arriving.extend(other_host.map(|end| PollFd::new(end, PollFlags::RDHUP)));
            let arrived = poll(&mut arriving, Some(&PATIENCE.try_into()?))?;
            ensure!(arrived > 0, "{} said nothing for {PATIENCE:?}", self.name);
            ensure!(
                !arriving[0].revents().is_empty(),
                "the other host's `xtipc-bench serve` has ended, or cannot be reached any more"
            );
        }
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.as_mut().map(Child::wait).transpose()?;
            let status = status.map_or_else(String::new, |status| format!(" with {status}"));
            bail!("{} ended{status} before it answered", self.name);
        }
        Ok(line.trim_end().into())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a [`Worker`] says first.
const READY: &str = "ready";

/// Called by a worker when the other end may start.
pub(crate) fn say_ready() {
    println!("{READY}");
}

/// Asks a process to end, and makes it end when it does not.
pub(crate) fn terminate(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into()?);
    nix::sys::signal::kill(pid, Signal::SIGTERM)?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    Ok(child.wait()?)
}
