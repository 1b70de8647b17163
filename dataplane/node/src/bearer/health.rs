//! What happens to the interface of a running bearer, found by asking about once a second.
//!
//! One change is reported at a time; the next check reports the next. Own address and MTU are
//! followed by the bearer itself; what they mean for links is the caller's to decide.

use std::time::Duration;

use xtipc_xsk::FramePool;
use xtipc_xsk::interface::{Interface, InterfaceError};

use super::error::{MTU_MIN, XdpError};
use super::ethernet::HEADER_SIZE_MAX;
use super::nic::{EthernetBearer, Path};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BearerEvent {
    /// Nothing new.
    Fine,
    /// The interface has another address: [`super::Bearer::media_addr`].
    MacChanged,
    /// Packets may be longer or must be shorter: [`super::Bearer::mtu`].
    MtuChanged,
    /// The interface was set down or lost its carrier.
    Down,
    /// It is up and has a carrier again.
    Up,
    /// Sockets no longer do their work: take [`super::Bearer::fds`] out of the waiter, call
    /// [`super::Bearer::reopen`], and put the new ones in.
    Stuck,
    /// The interface is gone, or in another network namespace: close the bearer.
    Gone,
    /// The interface's packets have become too short for TIPC: close the bearer, as Linux does.
    TooNarrow,
}

impl EthernetBearer {
    /// Looks after the interface and the sockets. Call about once a second with the clock of
    /// [`super::Bearer::set_clock`], and when the waiter reports a bearer that has nothing to receive.
    pub(super) fn check(&mut self, pool: &mut FramePool, now: Duration) -> BearerEvent {
        let Some(current) = self.look() else {
            return BearerEvent::Gone;
        };
        // Only what is reported is taken over: the next check finds the rest.
        self.interface.name = current.name;
        if current.mtu < MTU_MIN {
            return BearerEvent::TooNarrow;
        }
        if current.mac != self.interface.mac {
            self.interface.mac = current.mac;
            self.follow_mac();
            return BearerEvent::MacChanged;
        }
        let mtu_before = self.mtu();
        self.interface.mtu = current.mtu;
        if self.mtu() != mtu_before {
            let mtu = self.mtu();
            if let Path::Packet(socket) = &mut self.path {
                socket.set_frame_len(mtu + HEADER_SIZE_MAX);
            }
            return BearerEvent::MtuChanged;
        }
        let was_up = self.is_up();
        (self.interface.up, self.interface.running) = (current.up, current.running);
        match (was_up, self.is_up()) {
            (true, false) => return BearerEvent::Down,
            (false, true) => return BearerEvent::Up,
            _ => {}
        }
        let is_up = self.is_up();
        match &mut self.path {
            Path::Packet(socket) => {
                socket.read_kernel_drops();
                BearerEvent::Fine
            }
            // A downed interface completes nothing.
            Path::Xdp(port) => match is_up && port.is_stuck(pool, now) {
                true => BearerEvent::Stuck,
                false => BearerEvent::Fine,
            },
        }
    }

    /// Makes the AF_XDP sockets anew after [`BearerEvent::Stuck`]. Where the kernel has not yet let go of
    /// the old ones the bearer stays without; the next check says so.
    pub(super) fn reopen(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        match &mut self.path {
            Path::Packet(_) => Ok(()),
            Path::Xdp(port) => port.reopen(pool),
        }
    }

    /// Whether the interface is up and has a carrier, as last seen.
    pub(super) fn is_up(&self) -> bool {
        self.interface.up && self.interface.running
    }

    /// The interface now, by its index; `None` if it is gone. It may have been renamed.
    fn look(&self) -> Option<Interface> {
        let same = |found: &Interface| found.index == self.interface.index;
        match Interface::query(&self.interface.name) {
            Ok(found) if same(&found) => Some(found),
            Ok(_) | Err(InterfaceError::NotFound(_)) => {
                let name = super::links::name_of(self.interface.index)?;
                Interface::query(&name).ok().filter(same)
            }
            // Asking failed for another reason, which says nothing about the interface.
            Err(_) => Some(self.interface.clone()),
        }
    }

    fn follow_mac(&mut self) {
        let Path::Xdp(port) = &mut self.path else {
            return;
        };
        if let Err(error) = port.set_mac(self.interface.mac) {
            tracing::error!(interface = self.interface.name, %error, "the classifier takes frames for the old address");
        }
    }
}
