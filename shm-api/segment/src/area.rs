//! The mapped memory: the only module that touches it.
//!
//! Two sealed memfds make a segment. Neither can shrink or grow after the seal, so an access inside its length never
//! faults. The daemon area is sealed against future writing after the daemon mapped it: the kernel lets nobody else
//! write there, which is what makes `&[u8]` and `&mut [u8]` into the delivery arena sound. The application area is
//! written by a process the daemon does not trust: there the daemon uses atomic words and raw copies only.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::fork::Incarnation;
use crate::layout::{
    COMPLETION_WORDS, DELIVERY_WORDS, Header, RELEASE_WORDS, RingPlace, SUBMISSION_WORDS, Word,
};
use crate::primitive::{AtomicU32, AtomicU64};
use crate::ring::RingMemory;

/// One mapped area.
#[derive(Debug)]
pub(crate) struct Area {
    base: NonNull<u8>,
    len: usize,
    /// The process that mapped it: a forked child has no such mapping.
    mapped_by: Incarnation,
}

// SAFETY: the mapping belongs to the process, not to a thread; all access goes through atomics, through raw copies, or
// through `unsafe` methods whose callers own the bytes.
unsafe impl Send for Area {}
// SAFETY: as for `Send`; no method mutates without either atomics or a caller's promise of exclusive bytes.
unsafe impl Sync for Area {}

/// Makes a memfd of `len` bytes that can neither shrink nor grow. More seals may follow.
pub(crate) fn make_memfd(name: &str, len: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, len as u64)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(fd)
}

/// Seals the daemon area after the daemon mapped it: no new writable mapping, no write(), no further seals.
pub(crate) fn seal_read_only(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_add_seals(
        fd,
        SealFlags::FUTURE_WRITE | SealFlags::SEAL,
    )?)
}

/// Seals the application area: it stays writable, its size is fixed for ever.
pub(crate) fn seal_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_add_seals(fd, SealFlags::SEAL)?)
}

/// Length of an area that was received, if its size is sealed.
pub(crate) fn sealed_len(fd: &OwnedFd) -> io::Result<usize> {
    let seals = fcntl_get_seals(fd)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the size of the segment is not sealed",
        ));
    }
    let len = File::from(fd.try_clone()?).metadata()?.len();
    usize::try_from(len).map_err(|_| io::ErrorKind::InvalidData.into())
}

impl Area {
    /// Maps `len` bytes, which the caller made sure the memfd has. Not inherited by forked children.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize, writable: bool) -> io::Result<Self> {
        let mapped_by = Incarnation::current()?;
        let protection = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd,
                0,
            )
        }?;
        let area = Self {
            base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            len,
            mapped_by,
        };
        // SAFETY: the range is the mapping made above; the advice changes nothing in this process.
        unsafe { madvise(base, len, Advice::LinuxDontFork) }?;
        Ok(area)
    }

    /// Has the kernel find memory for all of it now, instead of page by page when it is touched.
    pub(crate) fn populate(&self, writable: bool) -> io::Result<()> {
        let advice = if writable {
            Advice::LinuxPopulateWrite
        } else {
            Advice::LinuxPopulateRead
        };
        // SAFETY: the range is the mapping made in `map`; populating changes no byte of it.
        Ok(unsafe { madvise(self.base.as_ptr().cast(), self.len, advice) }?)
    }

    /// Whether this process is the one that mapped the area. In a forked child nothing of it may be touched.
    pub(crate) fn is_mapped_here(&self) -> bool {
        self.mapped_by.is_current()
    }

    /// Where a range is.
    ///
    /// # Panics
    /// If it is not inside the area.
    pub(crate) fn range(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "every offset is checked against the layout before it gets here"
        );
        // SAFETY: inside the mapping, by the assertion.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Stores the header. Only before the area is handed to the other side.
    pub(crate) fn write_header(&mut self, header: &Header) {
        let at = self.range(0, size_of::<Header>()).cast::<Header>();
        // SAFETY: the mapping is page aligned, large enough by `range`, and nobody else has it yet (`&mut`, unshared).
        unsafe { at.write(*header) }
    }

    /// A copy of the header.
    pub(crate) fn read_header(&self) -> Header {
        let at = self.range(0, size_of::<Header>()).cast::<Header>();
        // SAFETY: the mapping is page aligned and large enough by `range`; every bit pattern is a valid `Header`; it is
        // read from the daemon area, whose header no one writes once it is shared.
        unsafe { at.read() }
    }

    /// A shared word of a segment.
    pub(crate) fn word(&self, word: Word) -> &AtomicU32 {
        self.word_at(word.offset())
    }

    /// A shared word at a place that the layout has for one.
    pub(crate) fn word_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(size_of::<AtomicU32>()));
        let at = self.range(offset, size_of::<AtomicU32>());
        // SAFETY: inside the mapping, aligned, lives as long as `self`; all sides use it as an atomic; on the read-only
        // area callers only do relaxed loads.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// The same of 64 bits.
    pub(crate) fn double_word_at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(size_of::<AtomicU64>()));
        let at = self.range(offset, size_of::<AtomicU64>());
        // SAFETY: as in `word_at`.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    pub(crate) fn entries<const W: usize>(&self, place: RingPlace) -> &[[AtomicU64; W]] {
        assert!(
            place.offset.is_multiple_of(8),
            "entries are aligned in every layout"
        );
        let at = self.range(place.offset as usize, place.entries as usize * W * 8);
        // SAFETY: inside the mapping, aligned by the assertion, an array of atomics has no invalid bit pattern, and
        // all sides use these bytes as atomic words only.
        unsafe { std::slice::from_raw_parts(at.cast(), place.entries as usize) }
    }

    /// Copies out of memory that another process may be writing. What it wrote meanwhile arrives mixed.
    pub(crate) fn copy_out(&self, offset: usize, out: &mut [u8]) {
        let from = self.range(offset, out.len());
        // SAFETY: source inside the mapping, destination a private slice; no reference to the source exists. A race
        // with the other process can only change byte values, and every byte value is valid.
        unsafe { ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) }
    }

    /// The same, appended to a vector: nothing is zeroed that is written over at once.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, offset: usize, len: usize) {
        let from = self.range(offset, len);
        out.reserve(len);
        let room = out.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: source inside the mapping, destination `len` private bytes reserved above; a race as in `copy_out`.
        unsafe { ptr::copy_nonoverlapping(from, room, len) };
        // SAFETY: they are written, and there is room for them.
        unsafe { out.set_len(out.len() + len) };
    }

    /// Copies into memory that another process may be reading.
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let to = self.range(offset, bytes.len());
        // SAFETY: destination inside a writable mapping where this side allocated the range; no reference to it exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Bytes of the delivery arena.
    ///
    /// # Safety
    /// Nobody writes the range while the reference lives.
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let at = self.range(offset, len);
        // SAFETY: inside the mapping; not written meanwhile, by the caller's promise.
        unsafe { std::slice::from_raw_parts(at, len) }
    }

    /// Bytes of the delivery arena, for the daemon to fill.
    ///
    /// # Safety
    /// Nobody reads or writes the range while the reference lives; the area is mapped writable.
    #[allow(
        clippy::mut_from_ref,
        reason = "exclusive by the caller's promise, as the allocator hands out each range once"
    )]
    pub(crate) unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        let at = self.range(offset, len);
        // SAFETY: inside the mapping; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(at, len) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // In a forked child the mapping does not exist, and the address may belong to something else by now.
        if self.is_mapped_here() {
            // SAFETY: the mapping made in `map`; every reference into it borrows `self`.
            let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

/// A ring in one or two areas, checked when they were mapped and not each time it is used.
#[derive(Debug)]
struct RingAt<const W: usize> {
    name: &'static str,
    head: NonNull<AtomicU32>,
    tail: NonNull<AtomicU32>,
    entries: NonNull<[[AtomicU64; W]]>,
}

// SAFETY: it stands for shared references to atomics, which may be sent to and used by any thread.
unsafe impl<const W: usize> Send for RingAt<W> {}
// SAFETY: as for `Send`.
unsafe impl<const W: usize> Sync for RingAt<W> {}

impl<const W: usize> RingAt<W> {
    fn new(ring: &RingMemory<'_, W>) -> Self {
        Self {
            name: ring.name,
            head: ring.head.into(),
            tail: ring.tail.into(),
            entries: ring.entries.into(),
        }
    }

    /// # Safety
    /// The areas that the ring lies in are still mapped, and stay so while what this returns lives.
    unsafe fn memory(&self) -> RingMemory<'_, W> {
        // SAFETY: made from a reference, and still mapped by the caller's promise.
        let head = unsafe { self.head.as_ref() };
        // SAFETY: the same.
        let tail = unsafe { self.tail.as_ref() };
        // SAFETY: the same.
        let entries = unsafe { self.entries.as_ref() };
        RingMemory {
            name: self.name,
            head,
            tail,
            entries,
        }
    }
}

/// Both areas and where everything is in them.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) application: Area,
    pub(crate) daemon: Area,
    pub(crate) header: Header,
    submissions: RingAt<SUBMISSION_WORDS>,
    completions: RingAt<COMPLETION_WORDS>,
    deliveries: RingAt<DELIVERY_WORDS>,
    releases: RingAt<RELEASE_WORDS>,
}

impl Segment {
    /// Of areas that are as the header says.
    pub(crate) fn new(application: Area, daemon: Area, header: Header) -> Self {
        let submissions = RingAt::new(&RingMemory {
            name: "submission",
            head: daemon.word(Word::Submission),
            tail: application.word(Word::Submission),
            entries: application.entries(header.submissions),
        });
        let completions = RingAt::new(&RingMemory {
            name: "completion",
            head: application.word(Word::Completion),
            tail: daemon.word(Word::Completion),
            entries: daemon.entries(header.completions),
        });
        let deliveries = RingAt::new(&RingMemory {
            name: "delivery",
            head: application.word(Word::Delivery),
            tail: daemon.word(Word::Delivery),
            entries: daemon.entries(header.deliveries),
        });
        let releases = RingAt::new(&RingMemory {
            name: "release",
            head: daemon.word(Word::Release),
            tail: application.word(Word::Release),
            entries: application.entries(header.releases),
        });
        Self {
            application,
            daemon,
            header,
            submissions,
            completions,
            deliveries,
            releases,
        }
    }

    pub(crate) fn submissions(&self) -> RingMemory<'_, SUBMISSION_WORDS> {
        // SAFETY: it lies in the areas, which are mapped as long as `self` has them.
        unsafe { self.submissions.memory() }
    }

    pub(crate) fn completions(&self) -> RingMemory<'_, COMPLETION_WORDS> {
        // SAFETY: as in `submissions`.
        unsafe { self.completions.memory() }
    }

    pub(crate) fn deliveries(&self) -> RingMemory<'_, DELIVERY_WORDS> {
        // SAFETY: as in `submissions`.
        unsafe { self.deliveries.memory() }
    }

    pub(crate) fn releases(&self) -> RingMemory<'_, RELEASE_WORDS> {
        // SAFETY: as in `submissions`.
        unsafe { self.releases.memory() }
    }

    /// What the daemon shows of a path. `None`: there is no such slot.
    pub(crate) fn path(&self, slot: u32) -> Option<&[AtomicU64; crate::snapshot::SNAPSHOT_WORDS]> {
        self.daemon.entries(crate::layout::PATHS).get(slot as usize)
    }

    /// Sleep word of the application.
    pub(crate) fn application_sleep(&self) -> &AtomicU32 {
        self.application.word(Word::Sleep)
    }

    /// Where the daemon serves the segment.
    pub(crate) fn daemon_processor(&self) -> &AtomicU32 {
        self.daemon.word(Word::Processor)
    }

    /// Whether messages wait for delivery memory.
    pub(crate) fn crowded(&self) -> &AtomicU32 {
        self.daemon.word(Word::Crowded)
    }

    /// Sleep word of the daemon.
    pub(crate) fn daemon_sleep(&self) -> &AtomicU32 {
        self.daemon.word(Word::Sleep)
    }
}
