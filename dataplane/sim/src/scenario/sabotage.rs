//! Runs that break what they check, to show that it is checked.

use super::Run;
use crate::host::Received;
use crate::scenario::STAMP;
use xtipc_protocol::host::{Host, Reserve};

/// A property a run breaks itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Messages are lost between an engine and its sockets.
    Lose,
    /// Messages arrive twice.
    Double,
    /// Messages change places.
    Swap,
    /// Messages arrive changed.
    Mangle,
    /// Two nodes never agree on their link.
    Disagree,
    /// A node lives on although it died.
    Believe,
    /// Bytes of connections arrive changed.
    Garble,
    /// Nobody reads from connections at the end.
    Block,
    /// Members of the group miss events, and get messages changed.
    Mishear,
    /// No member of the group reads at the end.
    Ignore,
    /// Subscribers miss events.
    Deafen,
    /// Two nodes do not hear each other at the end.
    Cut,
    /// A node does not have what others have bound.
    Hide,
    /// A node keeps a frame for ever.
    Leak,
}

/// Messages that are tampered with, in per mille.
const SHARE: u32 = 20;

impl Run {
    /// What becomes of the messages that a socket was given.
    pub(super) fn sabotaged(&mut self, mut messages: Vec<Received>) -> Vec<Received> {
        let Some(sabotage) = self.sabotage else {
            return messages;
        };
        let mut at = 0;
        while at < messages.len() {
            if self.cluster.rng.chance(SHARE) {
                match sabotage {
                    Sabotage::Lose => drop(messages.remove(at)),
                    Sabotage::Double => messages.insert(at, messages[at].clone()),
                    Sabotage::Swap if at > 0 => messages.swap(at - 1, at),
                    Sabotage::Mangle => {
                        let rest = messages[at].bytes.get_mut(STAMP..);
                        rest.into_iter().for_each(|rest| rest.fill(0xff));
                    }
                    Sabotage::Swap
                    | Sabotage::Disagree
                    | Sabotage::Believe
                    | Sabotage::Garble
                    | Sabotage::Block
                    | Sabotage::Mishear
                    | Sabotage::Ignore
                    | Sabotage::Deafen
                    | Sabotage::Cut
                    | Sabotage::Hide
                    | Sabotage::Leak => {}
                }
            }
            at += 1;
        }
        messages
    }

    /// Takes a frame of a node and never gives it back.
    pub(super) fn leak(&mut self, station: usize) {
        // A frame is a name: it is free when it is given back, and not before.
        let _kept = self
            .cluster
            .with(station, |node| node.host.alloc(Reserve::Data));
    }
}
