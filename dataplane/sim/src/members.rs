//! What must hold in groups: a member hears of each other one that it joined, then its messages in the order sent,
//! whatever their mode, and behind the last one that it left; between the two no broadcast is missing.
//!
//! A [`Voice`] is what a member sends, an [`Ear`] only looks at what a member was given.

use crate::checks::{SocketKey, Violation};
use crate::host::Received;
use std::collections::BTreeMap;
use xtipc_protocol::host::MemberNews;

/// Each message of a member starts with its number, and with the number of a broadcast among the broadcasts.
pub const GROUP_STAMP: usize = 8;
/// Stands for the second number in a message that is no broadcast.
const NO_BROADCAST: u32 = u32::MAX;

/// What was found wrong between a member and another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFault {
    /// It was a member already.
    #[error("joined twice")]
    JoinedTwice,
    /// It was no member.
    #[error("left and had not joined")]
    NeverJoined,
    /// Before it joined, or after it left.
    #[error("a message of no member")]
    Stranger,
    /// A payload is not what was sent.
    #[error("a message arrived mangled")]
    Mangled,
    /// An earlier message follows a later one, or one comes twice.
    #[error("message {number} behind {last}")]
    OutOfOrder {
        /// Its number.
        number: u32,
        /// The one before it.
        last: u32,
    },
    /// A broadcast between two that came.
    #[error("broadcast {number} behind {last}")]
    Missed {
        /// Its number among the broadcasts.
        number: u32,
        /// The one before it.
        last: u32,
    },
    /// Nothing is under way, and the last broadcast never came.
    #[error("{sent} broadcasts were sent, and {last:?} was the last that came")]
    LastMissed {
        /// Broadcasts sent.
        sent: u32,
        /// The last one.
        last: Option<u32>,
    },
    /// The faults have ended long since.
    #[error("they do not know each other")]
    Unknown,
    /// Everybody reads, and a message is refused as congested.
    #[error("told to wait though everybody reads")]
    StillWaiting,
}

/// What a member sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice {
    sent: u32,
    broadcasts: u32,
}

impl Voice {
    /// The next message, of `len` bytes.
    pub fn message(&self, is_broadcast: bool, len: usize) -> Vec<u8> {
        let place = if is_broadcast {
            self.broadcasts
        } else {
            NO_BROADCAST
        };
        let mut bytes = vec![self.sent as u8; len.max(GROUP_STAMP)];
        bytes[..4].copy_from_slice(&self.sent.to_be_bytes());
        bytes[4..8].copy_from_slice(&place.to_be_bytes());
        bytes
    }

    /// It was taken.
    pub fn sent(&mut self, is_broadcast: bool) {
        self.sent += 1;
        self.broadcasts += u32::from(is_broadcast);
    }
}

/// What a member knows of another by what it was given.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    joined: bool,
    last: Option<u32>,
    broadcast: Option<u32>,
}

/// What a member was given in one membership.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    others: BTreeMap<SocketKey, Known>,
}

impl Ear {
    /// Whether it was told that this one joined, and not that it left.
    pub fn knows(&self, of: SocketKey) -> bool {
        self.others.get(&of).is_some_and(|known| known.joined)
    }

    /// Takes the next message or event that `member` was given.
    pub fn take(&mut self, member: SocketKey, message: &Received) -> Result<(), Violation> {
        let source = message.about.source;
        let of = (source.node.0, source.port.0);
        let known = self.others.entry(of).or_default();
        let news = message.about.group.map(|from| from.news);
        let fault = match news {
            Some(MemberNews::Joined) => known.join(),
            Some(MemberNews::Left) => known.leave(),
            Some(MemberNews::Message(_)) => known.hear(&message.bytes),
            None => Some(GroupFault::Stranger),
        };
        fault.map_or(Ok(()), |fault| Err(violation(member, of, fault)))
    }

    /// Nothing is under way: it has heard the last broadcast of a member that it knows.
    pub fn check_last(
        &self,
        member: SocketKey,
        of: SocketKey,
        voice: &Voice,
    ) -> Result<(), Violation> {
        let last = self.others.get(&of).and_then(|known| known.broadcast);
        if last.map_or(0, |last| last + 1) == voice.broadcasts {
            return Ok(());
        }
        let sent = voice.broadcasts;
        Err(violation(member, of, GroupFault::LastMissed { sent, last }))
    }
}

impl Known {
    fn join(&mut self) -> Option<GroupFault> {
        let twice = self.joined.then_some(GroupFault::JoinedTwice);
        *self = Self {
            joined: true,
            ..Self::default()
        };
        twice
    }

    fn leave(&mut self) -> Option<GroupFault> {
        let never = (!self.joined).then_some(GroupFault::NeverJoined);
        self.joined = false;
        never
    }

    fn hear(&mut self, bytes: &[u8]) -> Option<GroupFault> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
        let (Some(number), Some(place)) = (word(0), word(4)) else {
            return Some(GroupFault::Mangled);
        };
        let (number, place) = (u32::from_be_bytes(number), u32::from_be_bytes(place));
        if bytes[GROUP_STAMP..].iter().any(|b| *b != number as u8) {
            return Some(GroupFault::Mangled);
        }
        if !self.joined {
            return Some(GroupFault::Stranger);
        }
        if let Some(last) = self.last.replace(number)
            && last >= number
        {
            return Some(GroupFault::OutOfOrder { number, last });
        }
        if place != NO_BROADCAST
            && let Some(last) = self.broadcast.replace(place)
            && last + 1 != place
        {
            let number = place;
            return Some(GroupFault::Missed { number, last });
        }
        None
    }
}

/// What a member found wrong with another one.
pub fn violation(member: SocketKey, of: SocketKey, fault: GroupFault) -> Violation {
    Violation::Group { member, of, fault }
}
