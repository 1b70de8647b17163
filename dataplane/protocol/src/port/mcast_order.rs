//! Order across a switch between broadcast and replicast (`docs/protocol/sockets.md`, multicast).
//!
//! The two methods are ordered each in itself, not against each other. A sender that switches sends a
//! pair: the message with SYN by the new method, and an empty twin with SYN by the old one. Until both
//! have arrived, what comes behind the first of them waits.

use crate::addr::{NodeAddr, SocketAddr};
use crate::time::Instant;
use crate::wire::{Msg, errcode, field};
use std::collections::VecDeque;

/// Messages that wait for a twin, at most; beyond that the oldest wait is given up.
const HELD_MAX: usize = 256;

/// What to do with a multicast that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// Deliver what [`McastOrder::pop_ready`] gives, then this.
    Deliver,
    /// It waits, or was half of a pair. Deliver what [`McastOrder::pop_ready`] gives.
    Held,
}

#[derive(Debug)]
struct Held {
    source: SocketAddr,
    message: Vec<u8>,
    syn: bool,
    rcast: bool,
    /// The empty half of a pair.
    empty_half: bool,
    since: Instant,
}

/// The messages of one receiving socket that wait.
#[derive(Debug, Default)]
pub struct McastOrder {
    held: VecDeque<Held>,
    ready: VecDeque<Vec<u8>>,
}

impl McastOrder {
    /// Judges a multicast from another node.
    ///
    /// A socket that was bound while its sender switched may get one half of a pair only. That shows as
    /// soon as something comes by the way of the other half that was sent after it: each way is ordered
    /// in itself.
    pub fn on_message(&mut self, now: Instant, source: SocketAddr, msg: Msg<'_>) -> Ordered {
        let syn = msg.flag(field::SYN);
        let arriving = Held {
            source,
            message: Vec::new(),
            syn,
            rcast: msg.flag(field::IS_RCAST),
            empty_half: syn && msg.get(field::ERRCODE) != errcode::OK,
            since: now,
        };
        while let Some(first) = self.held.iter().position(|held| held.source == source) {
            let there = &self.held[first];
            if arriving.rcast == there.rcast {
                return self.hold(arriving, msg);
            }
            if !arriving.syn && !there.empty_half {
                return Ordered::Deliver;
            }
            if arriving.syn && arriving.empty_half != there.empty_half {
                self.join_twins(first, &arriving, msg);
                return Ordered::Held;
            }
            self.release_behind(first);
        }
        if syn {
            self.hold(arriving, msg)
        } else {
            Ordered::Deliver
        }
    }

    fn hold(&mut self, mut arriving: Held, msg: Msg<'_>) -> Ordered {
        if self.held.len() == HELD_MAX {
            // A twin that does not come within so many messages is lost for good: its sender died.
            self.release_behind(0);
        }
        arriving.message.extend_from_slice(msg.bytes());
        self.held.push_back(arriving);
        Ordered::Held
    }

    /// Both halves are here: the one with data is ready, and then what waited behind them.
    fn join_twins(&mut self, first: usize, arriving: &Held, msg: Msg<'_>) {
        if !arriving.empty_half
            && let Some(held) = self.held.get_mut(first)
        {
            held.empty_half = false;
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
        let source = head.source;
        if !head.empty_half {
            self.ready.push_back(head.message);
        }
        let mut at = first;
        while let Some(held) = self.held.get(at) {
            if held.source != source {
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

    /// Makes ready what waits since `limit` or longer for a message of this node.
    pub fn give_up(&mut self, node: NodeAddr, limit: Instant) {
        let overdue = |held: &Held| held.source.node == node && held.since <= limit;
        while let Some(first) = self.held.iter().position(overdue) {
            // The first of its source is the oldest.
            self.release_behind(first);
        }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ready.is_empty()
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
        let twin = syn && text.is_empty();
        h.set(
            field::ERRCODE,
            if twin { errcode::NO_PORT } else { errcode::OK },
        );
        h.set(field::SYN, syn.into())
            .set(field::IS_RCAST, rcast.into())
            .set_payload_len(text.len());
        [h.as_bytes(), text.as_bytes()].concat()
    }

    fn run(arrivals: &[(&str, bool, bool)]) -> Vec<String> {
        let source = SocketAddr {
            port: PortId(7),
            node: NodeAddr(1),
        };
        let mut order = McastOrder::default();
        let mut out = Vec::new();
        for (text, syn, rcast) in arrivals {
            let bytes = mcast(text, *syn, *rcast);
            let judged = order.on_message(Instant(0), source, Msg::check(&bytes).unwrap());
            while let Some(ready) = order.pop_ready() {
                let msg = Msg::check(&ready).unwrap();
                out.push(String::from_utf8(msg.payload().to_vec()).unwrap());
            }
            if judged == Ordered::Deliver {
                out.push((*text).to_string());
            }
        }
        out
    }

    #[test]
    fn half_a_pair_is_given_up_when_something_later_comes_by_the_other_way() {
        // The empty half alone, then what was sent after the other half.
        assert_eq!(
            run(&[("", true, false), ("a", false, true), ("b", false, true)]),
            ["a", "b"]
        );
        // The message alone, then the next switch.
        let next = [("", true, false), ("d", true, true), ("e", false, true)];
        let half = [("b", true, false), ("c", false, false)];
        assert_eq!(run(&[&half[..], &next].concat()), ["b", "c", "d", "e"]);
        assert_eq!(
            run(&[half[0], next[1], half[1], next[0], next[2]]),
            ["b", "c", "d", "e"]
        );
        // The empty half alone, then the whole next pair.
        assert_eq!(
            run(&[("", true, false), ("", true, true), ("x", true, false)]),
            ["x"]
        );
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
