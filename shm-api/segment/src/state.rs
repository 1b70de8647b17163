//! How a socket is, as far as the daemon knows: the answer to [`crate::Request::GetState`].

use bitflags::bitflags;

/// Where a socket stands as far as connections go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// A datagram socket, or one that has neither listened nor connected.
    #[default]
    Open = 0,
    /// It takes connection requests.
    Listening = 1,
    /// It has asked for a connection.
    Connecting = 2,
    /// It is connected.
    Established = 3,
    /// Its connection is over.
    Disconnecting = 4,
}

bitflags! {
    /// The phase in the low byte, and what could be done without waiting.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SocketState: u64 {
        /// See [`SocketState::phase`].
        const PHASE = 0xff;
        /// Nothing that it sent before holds the next message up.
        const WRITABLE = 1 << 8;
        /// A connection request waits.
        const ACCEPTABLE = 1 << 9;
        /// A message waits in the daemon, of a socket whose queue is there.
        const READABLE = 1 << 10;
    }
}

impl SocketState {
    /// The state of a socket in this phase.
    pub fn new(phase: Phase, rest: Self) -> Self {
        Self::from_bits_retain(phase as u64) | rest
    }

    /// Where the socket stands.
    pub fn phase(self) -> Phase {
        match (self & Self::PHASE).bits() {
            1 => Phase::Listening,
            2 => Phase::Connecting,
            3 => Phase::Established,
            4 => Phase::Disconnecting,
            _ => Phase::Open,
        }
    }
}
