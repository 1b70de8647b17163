//! A situation under way: its steps in order, and those that block on threads of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtipc::socket::Errno;
use xtipc_test_signals::{self as signals, Signal};

use crate::text::{errno_name, poll_bit};
use crate::world::{Nodes, World};

/// A step that takes longer blocks.
const BLOCKED: Duration = Duration::from_millis(60);
/// A step that takes longer has waited.
const WAITED: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

pub(crate) struct Situation {
    world: Arc<World>,
    /// Steps that blocked, by name.
    jobs: HashMap<String, Job>,
}

struct Job {
    thread: JoinHandle<()>,
    told: Receiver<String>,
}

impl Situation {
    pub(crate) fn new(nodes: &Nodes) -> Self {
        Self {
            world: Arc::new(World::new(nodes)),
            jobs: HashMap::new(),
        }
    }

    pub(crate) fn close(&self) {
        if !self.jobs.is_empty() {
            self.world.shut_down();
        }
        self.world.close();
    }

    /// Does one step; gives its result as text.
    pub(crate) fn execute(&mut self, line: &str) -> String {
        let (names, rest) = line.split_once(" = ").unwrap_or(("", line));
        let names: Vec<&str> = names.split_whitespace().collect();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let result = match words[..] {
            ["start", job, ref words @ ..] => self.start(&names, job, words),
            ["finish", job] => self.wait_for(job, PATIENCE, "still blocks"),
            ["still", job] => self.wait_for(job, BLOCKED, "blocks"),
            ["timed", ref words @ ..] => {
                let begun = Instant::now();
                let result = text_of(self.world.step(&names, words));
                let waited = begun.elapsed() > WAITED;
                Ok(format!(
                    "{result}, {}",
                    if waited { "after a while" } else { "at once" }
                ))
            }
            ["interrupt", job] => self.interrupt(job, Signal::Ends),
            ["interrupt", job, "restart"] => self.interrupt(job, Signal::Restarts),
            ["await", name, ref bits @ ..] => self.await_events(name, bits),
            ["event", name, ref order @ ..] => self
                .await_events(name, &["IN"])
                .and_then(|_| self.world.event(name, order == ["swapped"])),
            ref words => self.world.step(&names, words),
        };
        text_of(result)
    }

    fn start(&mut self, names: &[&str], job: &str, words: &[&str]) -> Result<String> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.into()).collect();
        let (names, words): (Vec<String>, Vec<String>) = (owned(names), owned(words));
        let world = Arc::clone(&self.world);
        let (tell, told) = sync_channel(1);
        let thread = thread::spawn(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // Nobody may wait for it any more.
            let _ = tell.send(text_of(world.step(&names, &words)));
        });
        match told.recv_timeout(BLOCKED) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => {
                self.jobs.insert(job.into(), Job { thread, told });
                Ok("blocks".into())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the step panicked"),
        }
    }

    fn wait_for(&mut self, job: &str, time: Duration, otherwise: &str) -> Result<String> {
        let waiting = self.jobs.get(job).context("no such job")?;
        match waiting.told.recv_timeout(time) {
            Ok(result) => {
                self.jobs.remove(job);
                Ok(result)
            }
            Err(RecvTimeoutError::Timeout) => Ok(otherwise.into()),
            Err(RecvTimeoutError::Disconnected) => bail!("the step panicked"),
        }
    }

    /// A signal to the thread of a step that blocks.
    fn interrupt(&self, job: &str, signal: Signal) -> Result<String> {
        let job = self.jobs.get(job).context("no such job")?;
        signals::send(&job.thread, signal)?;
        Ok("ok".into())
    }

    /// Polls until these events are there.
    fn await_events(&self, name: &str, bits: &[&str]) -> Result<String> {
        let mut wanted = 0;
        for bit in bits {
            wanted |= poll_bit(bit)?;
        }
        let end = Instant::now() + PATIENCE;
        while self.world.mask(name)? & wanted != wanted && Instant::now() < end {
            thread::sleep(LOOK_INTERVAL);
        }
        self.world.poll(name)
    }
}

fn text_of(result: Result<String>) -> String {
    result.unwrap_or_else(|error| match error.downcast::<Errno>() {
        Ok(errno) => errno_name(errno.0),
        Err(error) => format!("BROKEN STEP: {error:#}"),
    })
}
