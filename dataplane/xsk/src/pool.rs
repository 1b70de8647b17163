//! The frame pool: memory, frame table, free list, receive areas.
//!
//! Owner: one worker. A frame is *free* exactly when nobody holds it (`queued`) and no TX ring holds
//! it (`in_tx == 0`). The pool is the only place where frames change state; sockets report through
//! it what they handed to the kernel and what came back. Wrong use by our own code (releasing a frame
//! that is not held, sending a free one) panics: it would become corruption on the wire.

use crate::memory::{Mapping, PageKind, map_pool};
use rustix::io::Errno;
use std::sync::Arc;

/// Bytes of a UMEM chunk: the largest size the kernel takes.
pub const CHUNK_SIZE: usize = 4096;

/// The longest frame in chunks: a packet of 65,535 bytes plus room for headers before it, and the
/// most fragments (17) that the kernel's generic path accepts.
pub const CHUNKS_PER_FRAME_MAX: u32 = 17;

/// A frame of one pool. Only a number: it is the pool that knows who holds the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameIndex(pub u32);

/// Who asks for a frame or a TX slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Users' messages: leaves the reserve alone.
    Data,
    /// Link protocol and name distribution: may take the last one, so that a flood of data never
    /// delays a STATE.
    Control,
}

/// Sizes of a pool; the crate documentation has the formula.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Frames for sending and holding.
    pub frame_count: u32,
    /// Consecutive chunks of 4,096 bytes per frame, 1 to 17.
    pub chunks_per_frame: u32,
    /// Frames that only [`Reserve::Control`] may take. Below `frame_count`.
    pub control_reserve: u32,
    /// Receive areas: one for each socket that is open at the same time.
    pub receive_areas: u32,
    /// Receive areas beyond these, for interfaces to come. They take no memory until [`FramePool::want_areas`].
    pub spare_areas: u32,
    /// Chunks of each receive area, a power of two from 64 to 65,536. Room for the NIC's own RX ring,
    /// the socket's RX ring and a batch in hand: 2,048 was seen to run empty above 0.5 Mpps.
    pub receive_chunks: u32,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            frame_count: 8192,
            chunks_per_frame: 1,
            control_reserve: 256,
            receive_areas: 1,
            spare_areas: 0,
            receive_chunks: 4096,
        }
    }
}

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// `chunks_per_frame` is out of range.
    #[error("{0} chunks per frame: 1 to {CHUNKS_PER_FRAME_MAX} are possible")]
    ChunksPerFrame(u32),
    /// `control_reserve` leaves nothing for data.
    #[error(
        "a control reserve of {reserve} frames needs a pool of more than {reserve} frames, not {frame_count}"
    )]
    ControlReserve {
        /// The configured reserve.
        reserve: u32,
        /// The configured number of frames.
        frame_count: u32,
    },
    /// `receive_chunks` does not fit a fill ring.
    #[error("{0} chunks per receive area: a power of two from 64 to 65536 is needed")]
    ReceiveChunks(u32),
    /// More chunks than 32 bits count.
    #[error("a pool of {0} chunks of 4096 bytes is too large: 2^31 chunks is the limit")]
    TooLarge(u64),
    /// The memory could not be had.
    #[error("cannot map {bytes} bytes for the frame pool: {source}")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: Errno,
    },
}

/// How many frames are in which state. `queued` and `in_tx` overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Held by nobody.
    pub free: u32,
    /// Held by a link, a port or whoever allocated them.
    pub queued: u32,
    /// Held by at least one TX ring or the kernel behind it.
    pub in_tx: u32,
    /// All of them.
    pub total: u32,
}

/// What was not given back, found by [`FramePool::leaks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{queued} frames not released, {in_tx} frames still in TX, {receive_areas} receive areas not returned"
)]
pub struct Leaks {
    /// Frames somebody still holds.
    pub queued: u32,
    /// Frames a TX ring still holds.
    pub in_tx: u32,
    /// Receive areas of sockets that were dropped without being closed, or not yet released.
    pub receive_areas: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct FrameState {
    queued: bool,
    /// Descriptors of this frame that TX rings or the kernel hold: one per chunk sent.
    in_tx: u16,
}

/// The frames of one worker, on one memfd that every socket registers as its UMEM.
#[derive(Debug)]
pub struct FramePool {
    memory: Arc<Mapping>,
    page_kind: PageKind,
    chunks_per_frame: u32,
    control_reserve: u32,
    table: Box<[FrameState]>,
    /// Last freed, first taken: it is still in the cache.
    free: Vec<FrameIndex>,
    queued: u32,
    in_tx: u32,
    receive_chunks: u32,
    /// Start addresses of the receive areas that no socket has.
    receive_areas_free: Vec<u64>,
    receive_areas: u32,
    /// Those behind them that no socket has had.
    spare_areas: u32,
}

impl FramePool {
    /// Maps the memory and makes all frames free.
    pub fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        let PoolConfig {
            frame_count,
            chunks_per_frame,
            control_reserve: reserve,
            receive_chunks,
            ..
        } = *config;
        if !(1..=CHUNKS_PER_FRAME_MAX).contains(&chunks_per_frame) {
            return Err(PoolError::ChunksPerFrame(chunks_per_frame));
        }
        if reserve >= frame_count {
            return Err(PoolError::ControlReserve {
                reserve,
                frame_count,
            });
        }
        if !receive_chunks.is_power_of_two() || !(64..=65_536).contains(&receive_chunks) {
            return Err(PoolError::ReceiveChunks(receive_chunks));
        }
        let frame_chunks = u64::from(frame_count) * u64::from(chunks_per_frame);
        let chunks_with = |areas: u32| frame_chunks + u64::from(areas) * u64::from(receive_chunks);
        let chunks = chunks_with(config.receive_areas + config.spare_areas);
        if chunks > 1 << 31 {
            return Err(PoolError::TooLarge(chunks));
        }
        let present = chunks_with(config.receive_areas) as usize * CHUNK_SIZE;
        let bytes = chunks as usize * CHUNK_SIZE;
        let (memory, page_kind) =
            map_pool(bytes, present).map_err(|source| PoolError::Map { bytes, source })?;
        let area_address = |area: u32| chunks_with(area) * CHUNK_SIZE as u64;
        Ok(Self {
            memory: Arc::new(memory),
            page_kind,
            chunks_per_frame,
            control_reserve: reserve,
            table: vec![FrameState::default(); frame_count as usize].into_boxed_slice(),
            free: (0..frame_count).rev().map(FrameIndex).collect(),
            queued: 0,
            in_tx: 0,
            receive_chunks,
            receive_areas_free: (0..config.receive_areas).rev().map(area_address).collect(),
            receive_areas: config.receive_areas,
            spare_areas: config.spare_areas,
        })
    }

    /// Takes a free frame for the caller, who holds it (`queued`) until [`Self::release`]. `None`
    /// when there is none left for this kind of use. The bytes are what the last user left.
    pub fn alloc(&mut self, reserve: Reserve) -> Option<FrameIndex> {
        let untouchable = match reserve {
            Reserve::Data => self.control_reserve as usize,
            Reserve::Control => 0,
        };
        if self.free.len() <= untouchable {
            return None;
        }
        let frame = self.free.pop()?;
        let state = &mut self.table[frame.0 as usize];
        assert!(!state.queued, "{frame:?} on the free list is queued");
        assert!(state.in_tx == 0, "{frame:?} on the free list is in TX");
        state.queued = true;
        self.queued += 1;
        Some(frame)
    }

    /// Gives up a frame that [`Self::alloc`] gave. It is free now, or as soon as the last TX ring
    /// that holds it completes. Panics if the frame is not held: our bug.
    pub fn release(&mut self, frame: FrameIndex) {
        let state = &mut self.table[frame.0 as usize];
        assert!(state.queued, "{frame:?} released, but nobody holds it");
        state.queued = false;
        self.queued -= 1;
        if state.in_tx == 0 {
            self.free.push(frame);
        }
    }

    /// The frame's bytes. The kernel only ever reads this area, so reading is always possible.
    pub fn bytes(&self, frame: FrameIndex) -> &[u8] {
        let start = self.memory.at(self.offset(frame), self.frame_len());
        // SAFETY: in bounds (checked by `at`), initialised (memfd pages), mapped while `self` lives.
        // The kernel never writes the frame area, and `bytes_mut` borrows the pool exclusively.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.frame_len()) }
    }

    /// The frame's bytes to write. `None` while a TX ring holds the frame: what is on its way out
    /// must not change. Panics if nobody holds the frame: our bug.
    pub fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        let state = self.table[frame.0 as usize];
        assert!(state.queued, "{frame:?} written, but nobody holds it");
        if state.in_tx > 0 {
            return None;
        }
        let start = self.memory.at(self.offset(frame), self.frame_len());
        // SAFETY: in bounds (checked by `at`), initialised, mapped while `self` lives. `in_tx` is 0,
        // so the kernel does not read these bytes; the pool is borrowed exclusively, and nobody else
        // derives slices from the frame area.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.frame_len()) })
    }

    /// Whether a TX ring, or the kernel behind it, holds the frame.
    pub fn is_in_tx(&self, frame: FrameIndex) -> bool {
        self.table[frame.0 as usize].in_tx > 0
    }

    /// Bytes of each frame.
    pub fn frame_len(&self) -> usize {
        self.chunks_per_frame as usize * CHUNK_SIZE
    }

    /// Whether the pool lies on huge pages.
    pub fn page_kind(&self) -> PageKind {
        self.page_kind
    }

    /// Bytes in use, receive areas included.
    pub fn len_in_use(&self) -> usize {
        let frames = self.table.len() * self.frame_len();
        frames + self.receive_areas as usize * self.area_len()
    }

    /// Before sockets on `queues` queues are opened: as many areas shall be free, out of the spare ones if need be.
    /// Whatever is missing then the sockets will miss.
    pub fn want_areas(&mut self, queues: u32) {
        while (self.receive_areas_free.len() as u32) < queues && self.spare_areas > 0 {
            self.receive_areas_free.push(self.len_in_use() as u64);
            self.receive_areas += 1;
            self.spare_areas -= 1;
        }
    }

    /// Chunks of all frames: no more descriptors are under way, if each frame is sent once at a time.
    pub(crate) fn frame_chunks(&self) -> u32 {
        self.table.len() as u32 * self.chunks_per_frame
    }

    fn area_len(&self) -> usize {
        self.receive_chunks as usize * CHUNK_SIZE
    }

    /// How many frames are in which state.
    pub fn counts(&self) -> FrameCounts {
        FrameCounts {
            free: self.free.len() as u32,
            queued: self.queued,
            in_tx: self.in_tx,
            total: self.table.len() as u32,
        }
    }

    /// For shutdown, after every socket is closed and every owner has released its frames.
    pub fn leaks(&self) -> Result<(), Leaks> {
        let areas_free = self.receive_areas_free.len() as u32;
        let leaks = Leaks {
            queued: self.queued,
            in_tx: self.in_tx,
            receive_areas: self.receive_areas - areas_free,
        };
        let none = Leaks {
            queued: 0,
            in_tx: 0,
            receive_areas: 0,
        };
        if leaks != none {
            return Err(leaks);
        }
        assert!(
            self.free.len() == self.table.len(),
            "a frame is neither free nor held"
        );
        Ok(())
    }

    fn offset(&self, frame: FrameIndex) -> usize {
        assert!(
            (frame.0 as usize) < self.table.len(),
            "{frame:?} is not of this pool"
        );
        frame.0 as usize * self.frame_len()
    }

    /// The frame's address in the UMEM.
    pub(crate) fn address(&self, frame: FrameIndex) -> u64 {
        self.offset(frame) as u64
    }

    /// The frame that a UMEM address lies in; `None` outside the frame area.
    pub(crate) fn frame_at(&self, address: u64) -> Option<FrameIndex> {
        // Chunk numbers fit 31 bits (`TooLarge`), and a 32-bit division is several times cheaper.
        let chunk = u32::try_from(address / CHUNK_SIZE as u64).ok()?;
        let frame = chunk / self.chunks_per_frame;
        ((frame as usize) < self.table.len()).then_some(FrameIndex(frame))
    }

    /// A TX ring took `descriptors` chunks of a frame. Panics if nobody holds the frame: our bug.
    pub(crate) fn tx_started(&mut self, frame: FrameIndex, descriptors: u16) {
        let state = &mut self.table[frame.0 as usize];
        assert!(state.queued, "{frame:?} sent, but nobody holds it");
        if state.in_tx == 0 {
            self.in_tx += 1;
        }
        state.in_tx = state
            .in_tx
            .checked_add(descriptors)
            .expect("a frame in TX is not sent again and again");
    }

    /// The kernel gave back `descriptors` chunks of a frame: by completion, or all that a closed
    /// socket left.
    pub(crate) fn tx_finished(&mut self, frame: FrameIndex, descriptors: u16) {
        let state = &mut self.table[frame.0 as usize];
        assert!(descriptors > 0, "{frame:?} finished nothing");
        assert!(
            state.in_tx >= descriptors,
            "{frame:?} completed more often than sent"
        );
        state.in_tx -= descriptors;
        if state.in_tx == 0 {
            self.in_tx -= 1;
            if !state.queued {
                self.free.push(frame);
            }
        }
    }

    pub(crate) fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    pub(crate) fn receive_area_count(&self) -> u32 {
        self.receive_areas
    }

    pub(crate) fn take_receive_area(&mut self) -> Option<ReceiveArea> {
        let start = self.receive_areas_free.pop()?;
        Some(ReceiveArea {
            memory: Arc::clone(&self.memory),
            start,
            chunks: self.receive_chunks,
        })
    }

    /// Takes back the area of a socket that the kernel has released.
    pub(crate) fn return_receive_area(&mut self, area: ReceiveArea) {
        assert!(area.is_of(self), "a receive area of another pool");
        self.receive_areas_free.push(area.start);
    }
}

/// The chunks one socket receives into. Not cloneable: whoever has it is the only one, beside the
/// kernel, who touches those bytes.
#[derive(Debug)]
pub(crate) struct ReceiveArea {
    memory: Arc<Mapping>,
    start: u64,
    chunks: u32,
}

impl ReceiveArea {
    pub(crate) fn is_of(&self, pool: &FramePool) -> bool {
        Arc::ptr_eq(&self.memory, &pool.memory)
    }

    pub(crate) fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The UMEM addresses of all chunks.
    pub(crate) fn chunk_addresses(&self) -> impl Iterator<Item = u64> + use<> {
        let start = self.start;
        (0..u64::from(self.chunks)).map(move |chunk| start + chunk * CHUNK_SIZE as u64)
    }

    /// Where it lies.
    pub(crate) fn extent(&self) -> AreaExtent {
        AreaExtent {
            start: self.start,
            end: self.start + u64::from(self.chunks) * CHUNK_SIZE as u64,
        }
    }

    /// The chunk of this area that `address` lies in.
    pub(crate) fn chunk_of(&self, address: u64) -> Option<u64> {
        self.extent().chunk_of(address)
    }
}

/// The UMEM addresses of a receive area: for who handles descriptors and never touches bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AreaExtent {
    start: u64,
    end: u64,
}

impl AreaExtent {
    /// The chunk in it that `address` lies in.
    pub(crate) fn chunk_of(&self, address: u64) -> Option<u64> {
        let chunk = address & !(CHUNK_SIZE as u64 - 1);
        (self.start..self.end).contains(&chunk).then_some(chunk)
    }
}
