//! Mapped memory: the pool's memfd and the kernel's rings.
//!
//! A [`Mapping`] is shared by reference count: whoever computes pointers into it keeps it mapped.
//! It hands out checked addresses only; who may read or write what is the business of the frame
//! pool, the receive areas and the rings.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{self, Errno};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

const HUGE_PAGE: usize = 2 << 20;

/// Which pages hold the frame pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// 2 MiB pages of the host's reserved pool (`vm.nr_hugepages`).
    Huge2MiB,
    /// The normal pages of the machine.
    Normal,
}

/// A shared mapping, unmapped when its last user drops it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: it has no state of its own that changes; accesses through its addresses are ordered by
// their users (exclusive areas and rings).
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset`, read-write, shared, with its pages present.
    pub(crate) fn of_file(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        Self::shared(fd, offset, len, MapFlags::POPULATE)
    }

    /// Maps the first `len` bytes of `fd` in the same way, but has only the pages of the first `present` bytes made now.
    fn of_file_sparse(fd: impl AsFd, len: usize, present: usize) -> io::Result<Self> {
        let mapping = Self::shared(fd, 0, len, MapFlags::NORESERVE)?;
        let start = mapping.at(0, present).as_ptr().cast();
        // SAFETY: the pages are of this mapping, whose bytes nobody has seen yet; making them present changes none.
        unsafe { rustix::mm::madvise(start, present, Advice::LinuxPopulateWrite) }?;
        Ok(mapping)
    }

    fn shared(fd: impl AsFd, offset: u64, len: usize, how: MapFlags) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | how;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        Ok(Self::owning(base?, len))
    }

    /// Maps `len` zeroed bytes that belong to this process only.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced.
        let base = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE)
        };
        Ok(Self::owning(base?, len))
    }

    fn owning(base: *mut std::ffi::c_void, len: usize) -> Self {
        let base = NonNull::new(base.cast()).expect("mmap succeeded without MAP_FIXED at 0");
        Self { base, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at `offset`. Panics if they are not all inside the mapping.
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} are outside a mapping of {} bytes",
            self.len
        );
        // SAFETY: `offset <= self.len` was just checked, so the result is in or one past the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of the mmap in the constructor, and nobody is left who
        // could use an address of it: all of them hold a reference to `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

/// Makes the memfd `xtipc-pool` of at least `len` bytes and maps it, on 2 MiB pages if the host has enough of them free
/// for the first `present` bytes. The rest takes no memory until the kernel is given it.
pub(crate) fn map_pool(len: usize, present: usize) -> io::Result<(Mapping, PageKind)> {
    let len = len.next_multiple_of(HUGE_PAGE);
    let present = present.next_multiple_of(HUGE_PAGE);
    // Any failure (no hugetlbfs, too few pages, a cgroup limit) has the same remedy, and
    // `PageKind` tells the operator the outcome.
    if let Ok(mapping) = map_memfd(len, present, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB) {
        return Ok((mapping, PageKind::Huge2MiB));
    }
    let mapping = map_memfd(len, present, MemfdFlags::empty())?;
    Ok((mapping, PageKind::Normal))
}

fn map_memfd(len: usize, present: usize, pages: MemfdFlags) -> io::Result<Mapping> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages;
    let fd: OwnedFd = rustix::fs::memfd_create("xtipc-pool", flags)?;
    rustix::fs::ftruncate(&fd, len as u64)?;
    // Whoever opens it by /proc cannot truncate it under us (that would be SIGBUS).
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    match Mapping::of_file_sparse(&fd, len, present) {
        // Linux before 5.14 cannot make pages present later.
        Err(Errno::INVAL) => Mapping::of_file(&fd, 0, len),
        mapped => mapped,
    }
}
