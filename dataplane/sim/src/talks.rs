//! What must hold on connections: every byte once and in order while it lives, both ends told of its end.
//!
//! A [`Talk`] only looks at what its two ends did and saw, end 0 being the one that asked for it.

use crate::checks::Violation;
use xtipc_protocol::wire::errcode;

/// What was found wrong on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TalkFault {
    /// What was read is not what was sent.
    #[error("other bytes than were sent at {0}")]
    OtherBytes(usize),
    /// Data came after the end.
    #[error("data behind the end")]
    BehindTheEnd,
    /// The reason for the end is not one that there was.
    #[error("ended with errcode {0} without a reason")]
    NoReason(u8),
    /// The end came before all that was sent.
    #[error("told of the end after {got} bytes of {sent}")]
    CutShort {
        /// Bytes that were read.
        got: usize,
        /// Bytes that were sent.
        sent: usize,
    },
    /// The end was never told.
    #[error("never told of the end")]
    NotTold,
    /// The peer reads, and what is sent does not arrive.
    #[error("stuck: {got} bytes of {sent} arrived, {goal} wanted to be sent")]
    Stuck {
        /// Bytes that the peer read.
        got: usize,
        /// Bytes that were taken.
        sent: usize,
        /// Bytes there were.
        goal: usize,
    },
}

/// What one end did and saw.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    sent: usize,
    got: usize,
    /// Its owner has closed it.
    closed: bool,
    /// It was told that the connection is over.
    over: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Talk {
    number: usize,
    ends: [End; 2],
    accepted: bool,
    /// Something happened that may end the connection.
    doubtful: bool,
    /// Something happened that has to.
    parted: bool,
}

/// What byte `at` of a direction is.
fn byte(number: usize, end: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) + number * 7 + end * 3 + at / 251) as u8
}

impl Talk {
    /// A connection that somebody asks for.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            ends: [End::default(); 2],
            accepted: false,
            doubtful: false,
            parted: false,
        }
    }

    /// The next `len` bytes of an end.
    pub fn bytes(&self, end: usize, len: usize) -> Vec<u8> {
        let start = self.ends[end].sent;
        let bytes = (start..start + len).map(|at| byte(self.number, end, at));
        bytes.collect()
    }

    /// Bytes that an end has sent so far.
    pub fn sent(&self, end: usize) -> usize {
        self.ends[end].sent
    }

    /// So many of them were taken.
    pub fn wrote(&mut self, end: usize, len: usize) {
        self.ends[end].sent += len;
    }

    /// There is a socket at the other end.
    pub fn accept(&mut self) {
        self.accepted = true;
    }

    /// The owner of an end has closed it.
    pub fn close(&mut self, end: usize) {
        self.ends[end].closed = true;
    }

    /// The nodes of the two ends lost contact, or whatever else ends a connection that has no second end yet.
    pub fn part(&mut self) {
        self.doubtful = true;
        self.parted |= self.accepted;
    }

    /// Whether an end's owner has it.
    pub fn is_held(&self, end: usize) -> bool {
        !self.ends[end].closed && (end == 0 || self.accepted)
    }

    /// Whether nothing has happened that ends it.
    pub fn is_alive(&self) -> bool {
        let held = |end: &End| !end.closed && !end.over;
        self.accepted && !self.doubtful && self.ends.iter().all(held)
    }

    /// An end has read.
    pub fn read(&mut self, end: usize, bytes: &[u8]) -> Result<(), Violation> {
        let number = self.number;
        let here = &mut self.ends[end];
        if here.over {
            return Err(self.fault(end, TalkFault::BehindTheEnd));
        }
        let start = here.got;
        here.got += bytes.len();
        let expected = (start..).map(|at| byte(number, 1 - end, at));
        let is_same = here.got <= self.ends[1 - end].sent
            && bytes.iter().copied().eq(expected.take(bytes.len()));
        if is_same {
            Ok(())
        } else {
            Err(self.fault(end, TalkFault::OtherBytes(start)))
        }
    }

    /// An end was told that the connection is over.
    pub fn told(&mut self, end: usize, code: u8) -> Result<(), Violation> {
        self.ends[end].over = true;
        if self.doubtful {
            return Ok(());
        }
        let (got, there) = (self.ends[end].got, self.ends[1 - end]);
        let closing = [errcode::NO_PORT, errcode::CONN_SHUTDOWN].contains(&code.into());
        match (closing, there.closed) {
            (true, true) if got < there.sent => {
                let sent = there.sent;
                Err(self.fault(end, TalkFault::CutShort { got, sent }))
            }
            (true, true) => Ok(()),
            (true, false) | (false, _) => Err(self.fault(end, TalkFault::NoReason(code))),
        }
    }

    /// To be called when nothing is under way: who is to know of the end knows it.
    pub fn finish(&self) -> Result<(), Violation> {
        for (end, here) in self.ends.iter().enumerate() {
            let ended = self.accepted && (self.parted || self.ends[1 - end].closed);
            if ended && self.is_held(end) && !here.over {
                return Err(self.fault(end, TalkFault::NotTold));
            }
        }
        Ok(())
    }

    /// Whether both ends have sent up to these numbers of bytes, and read what was sent.
    pub fn has_reached(&self, goal: [usize; 2]) -> Result<(), Violation> {
        for end in [0, 1] {
            let (sent, got, goal) = (self.ends[end].sent, self.ends[1 - end].got, goal[end]);
            if sent < goal || got < sent {
                return Err(self.fault(end, TalkFault::Stuck { got, sent, goal }));
            }
        }
        Ok(())
    }

    fn fault(&self, end: usize, fault: TalkFault) -> Violation {
        Violation::Connection {
            number: self.number,
            end,
            fault,
        }
    }
}
