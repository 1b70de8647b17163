//! Very many connections at once, as `tests/interop/drive.py` describes the requests.

use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtipc::{Connection, ConnectionKind, Listener, Node};

use super::{Words, pattern};

/// A connection whose peer says nothing for so long is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// The connections of this process that are asked for all together.
#[derive(Default)]
pub(super) struct Crowd(Vec<Connection>);

/// Requests of this module.
pub(super) const VERBS: [&str; 4] = ["crowd", "wave", "tide", "flock"];

impl Crowd {
    /// Accepts so many.
    pub(super) fn gather(&mut self, listener: &Listener, words: &mut Words<'_>) -> Result<String> {
        for _ in 0..words.number("count")? {
            self.0.push(listener.accept_timeout(PATIENCE)?.0);
        }
        Ok(self.0.len().to_string())
    }

    pub(super) fn obey(
        &mut self,
        node: &Node,
        verb: &str,
        words: &mut Words<'_>,
    ) -> Result<Option<String>> {
        let began = Instant::now();
        let count = match verb {
            "crowd" => self.connect(node, words)?,
            "wave" => {
                let size = words.number("size")?;
                for (seed, connection) in self.0.iter().enumerate() {
                    connection.send(&pattern(seed, size))?;
                }
                self.0.len()
            }
            "tide" => self.read(words.number("size")?)?,
            _ => self.ended(),
        };
        let us = began.elapsed().as_micros();
        Ok(Some(format!("{count} {us}")))
    }

    fn connect(&mut self, node: &Node, words: &mut Words<'_>) -> Result<usize> {
        let kind = match words.text("connection kind")? {
            "stream" => ConnectionKind::Stream,
            "seqpacket" => ConnectionKind::Seqpacket,
            other => bail!("unknown connection kind {other}"),
        };
        let to = words.destination()?;
        for _ in 0..words.number("count")? {
            self.0.push(Connection::connect(node, kind, to)?);
        }
        Ok(self.0.len())
    }

    /// A message from each: those that are right.
    fn read(&self, size: usize) -> Result<usize> {
        let mut good = 0;
        for (seed, mut connection) in self.0.iter().enumerate() {
            connection.set_read_timeout(Some(PATIENCE));
            let mut bytes = vec![0; size];
            connection
                .read_exact(&mut bytes)
                .with_context(|| format!("connection {seed}"))?;
            good += usize::from(bytes == pattern(seed, size));
        }
        Ok(good)
    }

    /// Waits until each has ended: those that did.
    fn ended(&mut self) -> usize {
        let ended = |connection: &Connection| {
            connection.set_read_timeout(Some(PATIENCE));
            connection
                .recv()
                .is_err_and(|error| error.errno() == libc::ECONNRESET)
        };
        let count = self.0.iter().filter(|c| ended(c)).count();
        self.0.clear();
        count
    }
}
