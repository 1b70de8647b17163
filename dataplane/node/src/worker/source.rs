//! What a wait of worker 0 reports, packed into a token.

use super::applications::Slot;
use crate::wait::Token;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Commands,
    Bearer,
    Interfaces,
    Connection(Slot),
    Process(Slot),
    DoorBell(Slot),
    Handle(usize),
}

impl Source {
    pub(super) fn token(self, detail: u64) -> Token {
        let (kind, slot) = match self {
            Self::Commands => (0, 0),
            Self::Bearer => (1, detail),
            Self::Connection(slot) => (2, slot as u64),
            Self::Process(slot) => (3, slot as u64),
            Self::DoorBell(slot) => (4, slot as u64),
            Self::Handle(index) => (5, index as u64),
            Self::Interfaces => (6, 0),
        };
        Token(kind << 32 | slot)
    }

    /// What comes first of what is ready at once. Processes that have ended: until their sockets are closed others send to them. Commands
    /// last: they let clients in, and one that came into the place of one that has just gone would be taken for that by what
    /// else was told of it.
    pub(super) fn turn(self) -> u8 {
        match self {
            Self::Process(_) => 0,
            Self::Commands => 2,
            _ => 1,
        }
    }

    pub(super) fn of(token: Token) -> Self {
        let slot = token.0 as u32 as Slot;
        match token.0 >> 32 {
            0 => Self::Commands,
            1 => Self::Bearer,
            2 => Self::Connection(slot),
            3 => Self::Process(slot),
            4 => Self::DoorBell(slot),
            5 => Self::Handle(slot),
            _ => Self::Interfaces,
        }
    }
}
