//! Order across a switch between broadcast and replicast (`docs/protocol/sockets.md`, multicast).
//!
//! The two methods are ordered each in itself, not against each other. A sender that switches sends a
//! pair: the message with SYN by the new method, and an empty twin with SYN by the old one. Until both
//! have arrived, what comes behind the first of them waits.

use super::message_cost;
use crate::addr::{NodeAddr, SocketAddr};
use crate::name::ServiceRange;
use crate::time::Instant;
use crate::wire::{Msg, errcode, field};
use std::collections::VecDeque;

/// What to do with a multicast that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// Deliver what [`McastOrder::pop_ready`] gives, then this.
    Deliver,
    /// It waits, or was half of a pair. Deliver what [`McastOrder::pop_ready`] gives.
    Held,
    /// It would have to wait, and there is no room. Deliver what [`McastOrder::pop_ready`] gives.
    Refused,
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

/// Since when half of a pair has to wait to be given up, by the way its twin would come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// For a twin by replicast.
    pub for_replicast: Instant,
    /// For a twin by broadcast.
    pub for_broadcast: Instant,
}

impl Overdue {
    /// The same for both ways.
    pub const fn since(limit: Instant) -> Self {
        Self {
            for_replicast: limit,
            for_broadcast: limit,
        }
    }

    fn includes(&self, half: &Held) -> bool {
        let limit = if half.rcast {
            self.for_broadcast
        } else {
            self.for_replicast
        };
        half.since <= limit
    }
}

impl Held {
    /// What it counts: as much as when it is delivered.
    fn cost(&self) -> u64 {
        Msg::check(&self.message).map_or(0, |msg| u64::from(message_cost(msg.payload().len())))
    }

    /// Whom it is for.
    fn range(&self) -> ServiceRange {
        ServiceRange {
            type_: field::NAME_TYPE.get(&self.message),
            lower: field::NAME_LOWER.get(&self.message),
            upper: field::NAME_UPPER.get(&self.message),
        }
    }
}

/// The messages of one receiving socket that wait.
#[derive(Debug, Default)]
pub struct McastOrder {
    held: VecDeque<Held>,
    ready: VecDeque<Vec<u8>>,
    /// What the held messages count.
    cost: u64,
}

impl McastOrder {
    /// Judges a multicast from another node.
    ///
    /// A socket that was bound while its sender switched may get one half of a pair only. That shows as
    /// soon as something comes by the way of the other half that was sent after it: each way is ordered
    /// in itself. `has_room` tells whether the message may wait.
    pub fn on_message(
        &mut self,
        now: Instant,
        source: SocketAddr,
        msg: Msg<'_>,
        has_room: bool,
    ) -> Ordered {
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
                return self.hold(arriving, msg, has_room);
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
            self.hold(arriving, msg, has_room)
        } else {
            Ordered::Deliver
        }
    }

    fn hold(&mut self, mut arriving: Held, msg: Msg<'_>, has_room: bool) -> Ordered {
        if !has_room {
            return Ordered::Refused;
        }
        arriving.message.extend_from_slice(msg.bytes());
        self.cost += arriving.cost();
        self.held.push_back(arriving);
        Ordered::Held
    }

    /// Takes a message out of those that wait.
    fn remove(&mut self, at: usize) -> Option<Held> {
        let held = self.held.remove(at)?;
        self.cost -= held.cost();
        Some(held)
    }

    /// What the messages that wait count against the receive buffer.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Both halves are here: the one with data is ready, and then what waited behind them.
    fn join_twins(&mut self, first: usize, arriving: &Held, msg: Msg<'_>) {
        if !arriving.empty_half
            && let Some(held) = self.held.get_mut(first)
        {
            held.empty_half = false;
            self.cost -= held.cost();
            held.message.clear();
            held.message.extend_from_slice(msg.bytes());
            self.cost += held.cost();
        }
        self.release_behind(first);
    }

    /// Makes the held message at `first` ready, and those of its source up to the next SYN.
    fn release_behind(&mut self, first: usize) {
        let Some(head) = self.remove(first) else {
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
            if let Some(held) = self.remove(at) {
                self.ready.push_back(held.message);
            }
        }
    }

    /// Makes ready what waits for a message of this node that is overdue.
    pub fn give_up(&mut self, node: NodeAddr, overdue: Overdue) {
        let is_overdue = |held: &Held| held.source.node == node && overdue.includes(held);
        while let Some(first) = (0..self.held.len()).find(|at| {
            let held = &self.held[*at];
            is_overdue(held) && self.is_first(*at)
        }) {
            self.release_behind(first);
        }
    }

    /// Whether nothing of its source waits before it.
    fn is_first(&self, at: usize) -> bool {
        let source = self.held[at].source;
        self.held.iter().take(at).all(|held| held.source != source)
    }

    /// Bindings went: a twin of a message to a range that the socket no longer `gets` will not come to it.
    pub fn release_unbound(&mut self, gets: impl Fn(ServiceRange) -> bool) {
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            if !held.syn || gets(held.range()) {
                at += 1;
            } else if self.is_first(at) {
                self.release_behind(at);
                at = 0;
            } else if held.empty_half {
                self.remove(at);
            } else {
                self.held[at].syn = false;
            }
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
            let has_room = order.cost() < 100 * 600;
            let judged =
                order.on_message(Instant(0), source, Msg::check(&bytes).unwrap(), has_room);
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
    fn what_has_no_room_to_wait_is_refused_and_the_order_of_the_rest_kept() {
        let mut arrivals = vec![("x", true, true)];
        arrivals.extend(std::iter::repeat_n(("y", false, true), 300));
        arrivals.extend([("", true, false), ("z", false, true)]);
        let out = run(&arrivals);
        assert!((100..130).contains(&out.len()), "{}", out.len());
        assert_eq!((&*out[0], &*out[1]), ("x", "y"));
        assert_eq!(out.last().map(String::as_str), Some("z"));
    }
}
