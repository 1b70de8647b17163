//! The way to a node, readable without a call.

use std::sync::Arc;

use xtipc_segment::{PathState, Request};

use crate::attachment::Attachment;
use crate::{Connection, Error, Node, Result};

/// The way to a node, or to the peer of a connection. The daemon keeps its state in shared memory:
/// [`Path::state`] reads it there, without a system call.
///
/// An attachment has at most 32 at a time; dropping one makes room.
#[derive(Debug)]
pub struct Path {
    attachment: Arc<Attachment>,
    slot: u32,
}

impl Path {
    fn open(attachment: &Arc<Attachment>, socket: u32, node: u32) -> Result<Self> {
        let answer = attachment.call(socket, Request::OpenPath { node })?;
        let [slot, _] = answer.map_err(|result| match -result {
            libc::ENOBUFS => Error::TooManyPaths,
            _ => Error::from_result(result),
        })?;
        Ok(Self {
            attachment: Arc::clone(attachment),
            slot: slot as u32,
        })
    }

    /// Its present state, as of the last round of the node's worker in which it changed.
    pub fn state(&self) -> Result<PathState> {
        self.attachment.path_state(self.slot)
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.attachment.close_path(self.slot);
    }
}

impl Node {
    /// The way to a node, by its address. It may be one that is not known yet: then it is not up.
    pub fn path(&self, node: u32) -> Result<Path> {
        Path::open(&self.attachment, 0, node)
    }
}

impl Connection {
    /// The way to the peer. Its state has the window of the connection too.
    pub fn path(&self) -> Result<Path> {
        let (attachment, socket) = self.handle();
        Path::open(attachment, socket, 0)
    }
}
