//! A group of a run: its members join, talk in all modes, read, leave and come back as the seed says.

use super::{Run, Sabotage, Socket, key};
use crate::checks::Violation;
use crate::groups::{all_at, any_at, membership};
use crate::members::{Ear, GroupFault, Voice, violation};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::group::Membership;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::time::Instant;

const GROUP: u32 = 6000;
const INSTANCES: u64 = 3;
const MOST_MEMBERS: usize = 12;
/// Messages that each member sends when the faults have ended, the last of them a broadcast, and the time for
/// members to know each other and for all that.
const LAST_MESSAGES: u32 = 20;
const LAST_WITHIN: Duration = Duration::from_secs(60);
/// Sizes of messages; at the end large ones, so that members have to let each other send.
const SIZES: &[usize] = &[0, 100, 1400, 1600, 4000];
const LAST_SIZES: &[usize] = &[0, 1400, 66_000];

#[derive(Debug)]
struct Member {
    socket: Socket,
    about: Membership,
    is_in: bool,
    voice: Voice,
    ear: Ear,
}

/// The members of the run's group.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Vec<Member>,
    /// Messages and events they were given.
    pub(super) heard: u64,
}

impl Members {
    /// The sockets of members.
    pub(super) fn sockets(&self) -> impl Iterator<Item = Socket> + '_ {
        self.all.iter().map(|member| member.socket)
    }

    /// A node is gone, with all its sockets.
    pub(super) fn gone(&mut self, station: usize) {
        self.all.retain(|member| member.socket.station != station);
    }
}

impl Run {
    /// Something happens to a member.
    pub(super) fn act_on_members(&mut self) -> Result<(), Violation> {
        let what = self.cluster.rng.below(100);
        if what < 6 {
            self.open_member();
            return Ok(());
        }
        let Some(number) = self.pick_member() else {
            return Ok(());
        };
        match what {
            6..8 => self.leave(number)?,
            8..10 => self.close_member(number),
            10..14 => self.join(number),
            14..16 => self.choose_method(number),
            16..50 => {
                let most = self.cluster.rng.pick(&[1, 5, 20, usize::MAX]);
                self.listen_to_others(number, most)?;
            }
            _ => {
                for _ in 0..self.cluster.rng.pick(&[1, 1, 3, 20]) {
                    // One that has to wait says no more.
                    if self.say_something(number, false, SIZES) != Ok(()) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn open_member(&mut self) {
        let Some(station) = self.pick_awake() else {
            return;
        };
        if self.cluster.addr(station) == NodeAddr::NONE || self.members.all.len() >= MOST_MEMBERS {
            return;
        }
        let addr = self.cluster.open(station);
        let instance = self.cluster.rng.below(INSTANCES) as u32;
        let about = Membership {
            loopback: self.cluster.rng.chance(250),
            ..membership(GROUP, instance)
        };
        self.members.all.push(Member {
            socket: Socket { station, addr },
            about,
            is_in: false,
            voice: Voice::default(),
            ear: Ear::default(),
        });
        let number = self.members.all.len() - 1;
        self.join(number);
        self.choose_method(number);
    }

    /// A member, or one that has left, whose node can act.
    fn pick_member(&mut self) -> Option<usize> {
        let count = self.members.all.len() as u64;
        if count == 0 {
            return None;
        }
        let number = self.cluster.rng.below(count) as usize;
        let Socket { station, .. } = self.members.all[number].socket;
        (!self.cluster.is_suspended(station)).then_some(number)
    }

    fn join(&mut self, number: usize) {
        let member = &mut self.members.all[number];
        let Socket { station, addr } = member.socket;
        if member.is_in {
            return;
        }
        let joined = self.cluster.try_join(station, addr.port, member.about);
        joined.expect("an open socket that is in no group");
        member.is_in = true;
        let about = member.about;
        self.say(|| format!("member {number}: {addr:?} joins as {about:?}"));
    }

    /// Reads what has come first, as an application does that wants all of it.
    fn leave(&mut self, number: usize) -> Result<(), Violation> {
        self.listen_to_others(number, usize::MAX)?;
        let member = &mut self.members.all[number];
        if member.is_in {
            let Socket { station, addr } = member.socket;
            let left = self.cluster.leave(station, addr.port);
            left.expect("it is in the group");
            member.is_in = false;
            member.ear = Ear::default();
            self.say(|| format!("member {number} leaves"));
        }
        Ok(())
    }

    fn close_member(&mut self, number: usize) {
        let Socket { station, addr } = self.members.all.remove(number).socket;
        self.say(|| format!("member {number}: {addr:?} is closed"));
        self.cluster.close_unread(station, addr.port);
    }

    fn choose_method(&mut self, number: usize) {
        let Socket { station, addr } = self.members.all[number].socket;
        let methods = [McastMethod::Broadcast, McastMethod::Replicast].map(Some);
        let method = self.cluster.rng.pick(&[None, methods[0], methods[1]]);
        self.cluster.with(station, |node| {
            let port = node.engine.port_mut(addr.port).expect("an open socket");
            port.mcast_wanted = method;
        });
    }

    /// A message in some mode, or to all.
    fn say_something(
        &mut self,
        number: usize,
        to_all: bool,
        sizes: &[usize],
    ) -> Result<(), SendError> {
        if !self.members.all[number].is_in {
            return Err(SendError::Unreachable);
        }
        let rng = &mut self.cluster.rng;
        let mode = if to_all { 0 } else { rng.below(5) };
        let len = rng.pick(sizes);
        let other = rng.below(self.members.all.len() as u64) as usize;
        let Member { socket, about, .. } = &self.members.all[other];
        let to = match mode {
            0 | 1 => None,
            2 => Some(all_at(about.instance)),
            3 => Some(any_at(about.instance)),
            _ => Some(Destination::Socket(socket.addr)),
        };
        let Member { socket, voice, .. } = &mut self.members.all[number];
        let bytes = voice.message(to.is_none(), len);
        let (station, port) = (socket.station, socket.addr.port);
        let sent = match to {
            None => self.cluster.broadcast(station, port, &bytes[..]),
            Some(to) => self.cluster.send(station, port, to, &bytes[..]),
        };
        match sent {
            Ok(()) => voice.sent(to.is_none()),
            Err(SendError::Congested | SendError::Unreachable) => {}
            Err(error) => panic!("a member that sends a message of {len} bytes: {error}"),
        }
        sent
    }

    /// Reads up to so many messages and events.
    fn listen_to_others(&mut self, number: usize, most: usize) -> Result<(), Violation> {
        let member = &mut self.members.all[number];
        let Socket { station, addr } = member.socket;
        for _ in 0..most {
            let Some(mut message) = self.cluster.recv(station, addr.port) else {
                return Ok(());
            };
            self.members.heard += 1;
            if self.sabotage == Some(Sabotage::Mishear) && self.members.heard.is_multiple_of(10) {
                match message.bytes.last_mut() {
                    Some(last) => *last ^= 1,
                    None => continue,
                }
            }
            let heard = member.ear.take(key(addr), &message);
            if !self.corrupting {
                heard?;
            }
        }
        Ok(())
    }

    fn all_listen(&mut self) -> Result<(), Violation> {
        (0..self.members.all.len()).try_for_each(|number| self.listen_to_others(number, usize::MAX))
    }

    /// Whether each member knows all others, and may send the largest message to each.
    fn check_acquaintance(&self) -> Result<(), Violation> {
        for member in &self.members.all {
            let Socket { station, addr } = member.socket;
            let group = self.cluster.group(station, addr.port);
            let is_other =
                |other: &&Member| key(other.socket.addr) != key(addr) || member.about.loopback;
            let others = self.members.all.iter().filter(is_other);
            let mut count = 0;
            for other in others {
                let there = other.socket.addr;
                let may_send = group.member(there).is_some_and(|m| m.window > 0);
                if !may_send || !member.ear.knows(key(there)) {
                    return Err(violation(key(addr), key(there), GroupFault::Unknown));
                }
                count += 1;
            }
            let known = group.members().filter(|m| m.state.is_sender());
            if known.count() != count {
                return Err(violation(key(addr), key(addr), GroupFault::Unknown));
            }
        }
        Ok(())
    }

    /// The faults have ended: all are members, know each other, and nobody waits while everybody reads.
    pub(super) fn finish_groups(&mut self) -> Result<(), Violation> {
        for number in 0..self.members.all.len() {
            self.join(number);
        }
        let end = self.cluster.now + LAST_WITHIN;
        loop {
            self.all_listen()?;
            let met = self.check_acquaintance();
            if met.is_ok() {
                break;
            }
            self.wait_before(end, met)?;
        }
        let end = self.cluster.now + LAST_WITHIN;
        for last in 0..LAST_MESSAGES {
            for number in 0..self.members.all.len() {
                let to_all = last + 1 == LAST_MESSAGES;
                while self.say_something(number, to_all, LAST_SIZES) == Err(SendError::Congested) {
                    if self.sabotage != Some(Sabotage::Ignore) {
                        self.all_listen()?;
                    }
                    let who = key(self.members.all[number].socket.addr);
                    let stuck = violation(who, who, GroupFault::StillWaiting);
                    self.wait_before(end, Err(stuck))?;
                }
            }
        }
        Ok(())
    }

    /// Lets a little time pass, or gives `found` if there is none left.
    fn wait_before(&mut self, end: Instant, found: Result<(), Violation>) -> Result<(), Violation> {
        if self.cluster.now >= end {
            return found;
        }
        self.pass(Duration::from_millis(2))?;
        self.collect()
    }

    /// Nothing is under way any more: everybody has heard everybody's last broadcast.
    pub(super) fn check_groups(&mut self) -> Result<(), Violation> {
        self.all_listen()?;
        for member in &self.members.all {
            let Socket { station, addr } = member.socket;
            for other in &self.members.all {
                let there = key(other.socket.addr);
                if member.ear.knows(there) {
                    member.ear.check_last(key(addr), there, &other.voice)?;
                }
            }
            let waiting = self.cluster.group(station, addr.port).deferred();
            assert_eq!(waiting, 0, "messages wait at {addr:?} for ones that came");
        }
        self.check_acquaintance()
    }
}
