//! Order across a switch between broadcast and replicast (`docs/protocol/sockets.md`, multicast).
//!
//! The two methods are ordered each in itself, not against each other. A sender that switches sends a
//! pair: the message with SYN by the new method, and an empty twin with SYN by the old one. Until both
//! have arrived, what comes behind the first of them waits.

use crate::addr::{NodeAddr, SocketAddr};
use crate::wire::{Msg, field};
use std::collections::VecDeque;

/// Messages that wait for a twin, at most; beyond that the oldest wait is given up.
const HELD_MAX: usize = 256;

/// What to do with a multicast that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// Deliver it now.
    Deliver,
    /// It waits, or was the empty half of a pair. Then deliver what [`McastOrder::pop_ready`] gives.
    Held,
}

#[derive(Debug)]
struct Held {
    source: SocketAddr,
    message: Vec<u8>,
    syn: bool,
    rcast: bool,
}

/// The messages of one receiving socket that wait.
#[derive(Debug, Default)]
pub struct McastOrder {
    held: VecDeque<Held>,
    ready: VecDeque<Vec<u8>>,
}

impl McastOrder {
    /// Judges a multicast from another node.
    pub fn on_message(&mut self, source: SocketAddr, msg: Msg<'_>) -> Ordered {
        let syn = msg.flag(field::SYN);
        let rcast = msg.flag(field::IS_RCAST);
        let Some(first) = self.held.iter().position(|h| h.source == source) else {
            return if syn { self.hold(source, msg, syn, rcast) } else { Ordered::Deliver };
        };
        let twin_rcast = self.held[first].rcast;
        match (syn, rcast == twin_rcast) {
            (false, false) => Ordered::Deliver,
            (_, true) => self.hold(source, msg, syn, rcast),
            (true, false) => {
                self.join_twins(first, msg);
                Ordered::Held
            }
        }
    }

    fn hold(&mut self, source: SocketAddr, msg: Msg<'_>, syn: bool, rcast: bool) -> Ordered {
        if self.held.len() == HELD_MAX {
            // A twin that does not come within so many messages is lost for good: its sender died.
            self.release_behind(0);
        }
        self.held.push_back(Held { source, message: msg.bytes().to_vec(), syn, rcast });
        Ordered::Held
    }

    /// Both halves are here: the one with data is ready, and then what waited behind them.
    fn join_twins(&mut self, first: usize, msg: Msg<'_>) {
        if !msg.payload().is_empty()
            && let Some(held) = self.held.get_mut(first)
        {
            held.message.clear();
            held.message.extend_from_slice(msg.bytes());
        }
        self.release_behind(first);
    }

    /// Makes the held message at `first` ready, and those of its source up to the next SYN.
    fn release_behind(&mut self, first: usize) {
        let Some(head) = self.held.remove(first) else {
            return;
        };
        self.ready.push_back(head.message);
        let mut at = first;
        while let Some(held) = self.held.get(at) {
            if held.source != head.source {
                at += 1;
                continue;
            }
            if held.syn {
                break;
            }
            if let Some(held) = self.held.remove(at) {
                self.ready.push_back(held.message);
            }
        }
    }

    /// Makes everything ready that waits for a message of a lost node; true if there was something.
    pub fn release_node(&mut self, node: NodeAddr) -> bool {
        let before = self.held.len();
        let (lost, kept) = self.held.drain(..).partition(|held| held.source.node == node);
        self.held = kept;
        let lost: VecDeque<Held> = lost;
        self.ready.extend(lost.into_iter().map(|held| held.message));
        self.held.len() != before
    }

    /// The next message that may be delivered now.
    pub fn pop_ready(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PortId;
    use crate::wire::{DataType, Header, User, size};

    fn mcast(text: &str, syn: bool, rcast: bool) -> Vec<u8> {
        let mut h = Header::new(User::Low, DataType::Mcast as u32, size::MCAST);
        h.set(field::SYN, syn.into()).set(field::IS_RCAST, rcast.into()).set_payload_len(text.len());
        [h.as_bytes(), text.as_bytes()].concat()
    }

    fn run(arrivals: &[(&str, bool, bool)]) -> Vec<String> {
        let source = SocketAddr { port: PortId(7), node: NodeAddr(1) };
        let mut order = McastOrder::default();
        let mut out = Vec::new();
        for (text, syn, rcast) in arrivals {
            let bytes = mcast(text, *syn, *rcast);
            if order.on_message(source, Msg::check(&bytes).unwrap()) == Ordered::Deliver {
                out.push((*text).to_string());
            }
            while let Some(ready) = order.pop_ready() {
                let msg = Msg::check(&ready).unwrap();
                if !msg.payload().is_empty() {
                    out.push(String::from_utf8(msg.payload().to_vec()).unwrap());
                }
            }
        }
        out
    }

    #[test]
    fn a_switch_keeps_the_order_whichever_half_comes_first() {
        // Old path: broadcast. "c" opens the new path, replicast.
        let old = [("a", false, false), ("b", false, false), ("", true, false)];
        let new = [("c", true, true), ("d", false, true)];
        let expected = ["a", "b", "c", "d"];
        assert_eq!(run(&[&old[..], &new].concat()), expected);
        assert_eq!(run(&[&new[..], &old].concat()), expected);
        assert_eq!(run(&[old[0], new[0], old[1], new[1], old[2]]), expected);
    }

    #[test]
    fn two_switches_in_a_row_stay_in_order() {
        let arrivals = [
            ("b", true, true),
            ("c", false, true),
            ("", true, true),
            ("a", false, false),
            ("", true, false),
            ("d", true, false),
            ("e", false, false),
        ];
        assert_eq!(run(&arrivals), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn a_twin_that_never_comes_does_not_hold_messages_for_ever() {
        let mut arrivals = vec![("x", true, true)];
        arrivals.extend(std::iter::repeat_n(("y", false, true), 300));
        assert!(run(&arrivals).len() >= 256);
    }
}
