//! An AF_XDP socket of xsk-rs with the memory of its frames, on queue 0 of an interface. The program that gives it frames is
//! the caller's to load: libxdp is told to load none.
//!
//! xsk-rs leaves it to its caller that each frame is in one place: here it is in `free` or `queued`, in the transmit ring until
//! the completion ring gives it back, in `spare`, or the kernel's to receive into. Descriptors never leave this module.

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::thread::sleep;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};
use xtipc_xsk::{BUSY_TIMEOUT, BindMode, PoolConfig, RingSizes, raise_send_limits};

/// Frames in one call to xsk-rs, at most.
const BATCH: usize = 64;
const BUSY_RETRY: Duration = Duration::from_millis(5);

/// A socket, with wake-ups where they are needed (`XDP_USE_NEED_WAKEUP`); rings, frames and limits are as large as those of a
/// socket of [`xtipc_xsk`] by default.
#[derive(Debug)]
pub struct XskRsSocket {
    umem: Umem,
    transmit: TxQueue,
    receive: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// To be written.
    free: Vec<FrameDesc>,
    /// Written, for the next kick.
    queued: Vec<FrameDesc>,
    /// On their way to the fill ring.
    spare: Vec<FrameDesc>,
    batch: [FrameDesc; BATCH],
    transmit_entries: u32,
}

impl XskRsSocket {
    /// Waits up to [`BUSY_TIMEOUT`] while the queue is busy.
    ///
    /// # Errors
    /// What xsk-rs says, with the kernel's answer as its source; it names neither interface nor mode.
    pub fn open(interface: &str, mode: BindMode) -> io::Result<Self> {
        let (pool, rings) = (PoolConfig::default(), RingSizes::default());
        let frames = NonZeroU32::new(pool.frame_count + pool.receive_chunks);
        let frames = frames.expect("the default pool has frames");
        let memory = UmemConfig::builder()
            .fill_queue_size(entries(pool.receive_chunks)?)
            .comp_queue_size(entries(rings.completion)?)
            .build()
            .map_err(io::Error::other)?;
        // On huge pages where the host has enough reserved, as a pool of ours.
        let (umem, mut spare) = Umem::new(memory, frames, true)
            .or_else(|_| Umem::new(memory, frames, false))
            .map_err(io::Error::other)?;
        let mode = match mode {
            BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
            BindMode::Copy => BindFlags::XDP_COPY,
        };
        let config = SocketConfig::builder()
            .rx_queue_size(entries(rings.rx)?)
            .tx_queue_size(entries(rings.tx)?)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let (transmit, receive, rings_of_memory) = bind(&umem, config, interface)?;
        let (fill, completion) =
            rings_of_memory.expect("the first socket of a UMEM gets its rings");
        let free = spare.split_off(pool.receive_chunks as usize);
        let mut socket = Self {
            umem,
            transmit,
            receive,
            fill,
            completion,
            free,
            queued: Vec::with_capacity(BATCH),
            spare,
            batch: [FrameDesc::default(); BATCH],
            transmit_entries: rings.tx,
        };
        raise_send_limits(&socket, rings.tx);
        socket.refill()?;
        Ok(socket)
    }

    /// Writes a frame of these parts, of 3,840 bytes at most, for the next [`Self::kick`]. `false` if there is no room before it.
    pub fn push(&mut self, parts: &[&[u8]]) -> io::Result<bool> {
        if self.queued.len() == BATCH {
            return Ok(false);
        }
        let Some(mut frame) = self.free.pop() else {
            return Ok(false);
        };
        {
            // SAFETY: a frame of this UMEM, and since it was in `free` neither ring has it.
            let mut data = unsafe { self.umem.data_mut(&mut frame) };
            let mut cursor = data.cursor();
            cursor.set_pos(0);
            for part in parts {
                cursor.write_all(part)?;
            }
        }
        self.queued.push(frame);
        Ok(true)
    }

    /// Has the kernel send what was pushed, and takes back what it has sent. What the device does not take now stays for the next kick.
    pub fn kick(&mut self) -> io::Result<()> {
        // SAFETY: frames of this UMEM, written and in no ring.
        if unsafe { self.transmit.produce(&self.queued) } > 0 {
            // All or none.
            self.queued.clear();
        }
        // The driver sets the flag and then looks at the ring once more; this side the other way round.
        fence(Ordering::SeqCst);
        let mut waiting = self.waiting();
        while waiting > 0 && self.transmit.needs_wakeup() {
            self.transmit.wakeup()?;
            // One call sends a limited number.
            let left = self.waiting();
            if left >= waiting {
                break;
            }
            waiting = left;
        }
        self.complete();
        Ok(())
    }

    /// Frames in the transmit ring that the kernel has not taken.
    fn waiting(&mut self) -> u32 {
        self.transmit_entries - self.transmit.nb_free_exact()
    }

    fn complete(&mut self) {
        loop {
            // SAFETY: the ring is of the UMEM whose frames these are.
            let completed = unsafe { self.completion.consume(&mut self.batch) };
            self.free.extend_from_slice(&self.batch[..completed]);
            if completed < BATCH {
                break;
            }
        }
    }

    /// Shows frames that have come, up to `budget` and 64, and gives them back to the kernel; returns how many.
    pub fn receive(&mut self, budget: usize, mut on_frame: impl FnMut(&[u8])) -> io::Result<usize> {
        let room = &mut self.batch[..budget.min(BATCH)];
        // SAFETY: the ring is of the UMEM whose frames these are.
        let received = unsafe { self.receive.consume(room) };
        for frame in &self.batch[..received] {
            // SAFETY: a frame that the kernel has just filled, and of which nothing else knows before `refill`.
            on_frame(unsafe { self.umem.data(frame) }.contents());
        }
        self.spare.extend_from_slice(&self.batch[..received]);
        self.refill()?;
        Ok(received)
    }

    fn refill(&mut self) -> io::Result<()> {
        if self.spare.is_empty() {
            return Ok(());
        }
        let socket = self.receive.fd_mut();
        // SAFETY: frames of this UMEM that nobody reads or writes.
        let given = unsafe { self.fill.produce_and_wakeup(&self.spare, socket, 0) }?;
        if given > 0 {
            // All or none: the kernel may tell late that it has taken some.
            self.spare.clear();
        }
        Ok(())
    }
}

impl AsFd for XskRsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as the queue, which the borrow does not outlive.
        unsafe { BorrowedFd::borrow_raw(self.transmit.fd().as_raw_fd()) }
    }
}

fn entries(count: u32) -> io::Result<QueueSize> {
    QueueSize::new(count).map_err(io::Error::other)
}

/// The rings of a socket; those of the UMEM come with its first one.
type Rings = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// The kernel releases the socket of a process that ended asynchronously.
fn bind(umem: &Umem, config: SocketConfig, interface: &str) -> io::Result<Rings> {
    let interface = interface.parse().map_err(io::Error::other)?;
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        // SAFETY: no other socket shares the UMEM.
        match unsafe { Socket::new(config, umem, &interface, 0) } {
            Err(error) if is_busy(&error) && Instant::now() < deadline => sleep(BUSY_RETRY),
            outcome => return outcome.map_err(io::Error::other),
        }
    }
}

fn is_busy(error: &dyn Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
}
