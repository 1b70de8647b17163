//! The system calls on a socket: to send what is in its TX ring, to make the driver take chunks.
//!
//! Owner: whoever serves the rings to the kernel.

use crate::ring::Producer;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::xdp::XdpDesc;
use rustix::net::{RecvFlags, SendFlags};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// What became of the system calls that wake the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeCounters {
    /// `sendto` calls.
    pub kicks: u64,
    /// Answered EAGAIN: more packets than one call sends, or no send buffer or completion slot free.
    pub again: u64,
    /// Answered EBUSY: the device could not take a packet now.
    pub busy: u64,
    /// Answered ENOBUFS: the kernel had no memory for a packet.
    pub no_buffers: u64,
    /// Answered ENETDOWN: the interface is down.
    pub net_down: u64,
    /// Ended with packets left in the TX ring: the next kick goes on.
    pub unfinished: u64,
    /// `recvfrom` calls because the driver had run out of chunks.
    pub fill_wakes: u64,
}

/// The kernel behind a socket.
#[derive(Debug)]
pub(crate) struct Kernel {
    fd: Arc<OwnedFd>,
    zero_copy: bool,
    wake: WakeCounters,
}

impl Kernel {
    pub(crate) fn new(fd: OwnedFd, zero_copy: bool) -> Self {
        Self {
            fd: Arc::new(fd),
            zero_copy,
            wake: WakeCounters::default(),
        }
    }

    /// For who serves the rings from now on.
    pub(crate) fn another(&self) -> Self {
        Self {
            fd: Arc::clone(&self.fd),
            ..*self
        }
    }

    pub(crate) fn counters(&self) -> WakeCounters {
        self.wake
    }

    /// Makes the kernel send what is in the TX ring. In copy mode the packets are transmitted inside
    /// this call; what the device did not take now stays in the ring for the next one. An error means
    /// the socket is of no more use (its interface is gone): close it.
    pub(crate) fn kick(&mut self, ring: &mut Producer<XdpDesc>) -> rustix::io::Result<()> {
        ring.publish();
        if ring.waiting() == 0 {
            return Ok(());
        }
        // The driver sets the flag and then looks at the ring once more; we fill the ring and then look at
        // the flag. Without a full fence both could see the old value, and the packet would lie there.
        fence(Ordering::SeqCst);
        loop {
            let waiting = ring.waiting();
            if waiting == 0 || !ring.needs_wakeup() {
                return Ok(());
            }
            self.wake.kicks += 1;
            match rustix::net::send(&*self.fd, &[], SendFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::AGAIN) => self.wake.again += 1,
                Err(Errno::BUSY) => self.wake.busy += 1,
                Err(Errno::NOBUFS) => self.wake.no_buffers += 1,
                Err(Errno::NETDOWN) => self.wake.net_down += 1,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            let left = ring.waiting();
            // EAGAIN alone says nothing: it is also the answer to "sent as many as one call sends".
            let stuck = left >= waiting;
            if left > 0 && (stuck || self.zero_copy) {
                // Zero-copy drivers go on by themselves once woken.
                self.wake.unfinished += u64::from(stuck);
                return Ok(());
            }
        }
    }

    /// Tells a driver that ran out of chunks that there are new ones. Cheap when it did not.
    pub(crate) fn wake_fill(&mut self, fill: &Producer<u64>) -> rustix::io::Result<()> {
        // Our fill index must be visible before the flag is read, as in `kick`.
        fence(Ordering::SeqCst);
        if !fill.needs_wakeup() {
            return Ok(());
        }
        self.wake.fill_wakes += 1;
        match rustix::net::recv(&*self.fd, &mut [0u8; 0][..], RecvFlags::DONTWAIT) {
            Ok(_)
            | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::NETDOWN | Errno::INTR) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Kernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
