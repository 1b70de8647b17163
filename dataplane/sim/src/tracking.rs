//! What a subscriber of a node must hear: each binding that is made and each that goes, once, and a binding before the
//! first message of its socket.
//!
//! That a withdrawal follows the last message is not checked: it goes by the broadcast link, and a message that was
//! lost and comes again by its own link follows it.

use crate::checks::{SocketKey, Violation};
use std::collections::BTreeMap;
use xtipc_protocol::topology::{Event, EventKind};

/// A binding as events tell it: bounds and socket.
pub type Found = (u32, u32, SocketKey);

/// What the subscriber of one node has heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// Bindings there are now; a socket may have the same one twice.
    present: BTreeMap<Found, u32>,
    /// When each was first heard of: a number that grows with everything that is delivered at the node.
    since: BTreeMap<Found, u64>,
}

impl Heard {
    /// Takes an event, delivered as number `serial`.
    pub fn event(&mut self, station: usize, serial: u64, event: &Event) -> Result<(), Violation> {
        let found = (
            event.found_lower,
            event.found_upper,
            (event.node, event.port),
        );
        let count = self.present.entry(found).or_default();
        match event.kind {
            EventKind::Published => {
                *count += 1;
                self.since.entry(found).or_insert(serial);
                Ok(())
            }
            EventKind::Withdrawn if *count > 0 => {
                *count -= 1;
                Ok(())
            }
            EventKind::Withdrawn | EventKind::Timeout => {
                Err(Violation::WrongEvent { station, found })
            }
        }
    }

    /// Takes a message, delivered as number `serial`, whose sender had this binding when it sent it.
    pub fn message(&self, station: usize, serial: u64, found: Found) -> Result<(), Violation> {
        match self.since.get(&found) {
            Some(heard) if *heard < serial => Ok(()),
            _ => Err(Violation::OvertookEvent { station, found }),
        }
    }

    /// To be called when nothing is under way, with what the node's table has.
    pub fn finish(
        &self,
        station: usize,
        table: impl IntoIterator<Item = Found>,
    ) -> Result<(), Violation> {
        let mut there: BTreeMap<Found, u32> = BTreeMap::new();
        for found in table {
            *there.entry(found).or_default() += 1;
        }
        let heard = self.present.iter().filter(|(_, count)| **count > 0);
        if heard.eq(there.iter()) {
            Ok(())
        } else {
            Err(Violation::EventsDiffer(station))
        }
    }
}
