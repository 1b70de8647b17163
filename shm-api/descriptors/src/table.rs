//! Which descriptors of the process are sockets of TIPC. Looking up takes no lock and, for others, one load.
//!
//! An entry stands for an open file description of this process. Memory of entries is used again but never freed, so that a look
//! at one that is being closed is harmless: it counts only if the table still names the entry once it is counted.

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::description::Description;

/// As many descriptors as a process can have by default (`fs.nr_open`).
pub(crate) const SIZE: usize = 1 << 20;

static TABLE: [AtomicPtr<Entry>; SIZE] = [const { AtomicPtr::new(ptr::null_mut()) }; SIZE];
/// A bit for each entry that is not null, for those who look at many at a time.
static KNOWN: [AtomicUsize; SIZE / BITS] = [const { AtomicUsize::new(0) }; SIZE / BITS];
const BITS: usize = usize::BITS as usize;
/// Above every entry that was ever made.
static END: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());
/// Stands for a descriptor of this library's own.
static OWN: Entry = Entry::new();
/// Stands for an epoll instance that waits for sockets of TIPC.
static SET: Entry = Entry::new();
/// Stands for a socket of generic netlink.
static NETLINK: Entry = Entry::new();

struct Entry {
    /// Descriptors, and calls at work.
    users: AtomicU32,
    description: UnsafeCell<Option<Description>>,
}

// SAFETY: the description is written only by whoever takes an entry out of the free list, before others can find it, and by the
// last user; in between it is only read, and is itself `Sync`.
unsafe impl Sync for Entry {}

impl Entry {
    const fn new() -> Self {
        Self {
            users: AtomicU32::new(0),
            description: UnsafeCell::new(None),
        }
    }
}

/// What a descriptor is.
pub(crate) enum Found {
    /// Nothing to do with TIPC.
    Other,
    Socket(Open),
    /// This library's.
    Own,
    /// An epoll instance that waits for sockets of TIPC, or a socket of generic netlink.
    Mark,
}

/// An open file description in use.
pub(crate) struct Open(&'static Entry);

impl Deref for Open {
    type Target = Description;

    fn deref(&self) -> &Description {
        // SAFETY: it is counted as a user, so the description is there and not written.
        let description = unsafe { &*self.0.description.get() };
        description.as_ref().expect("an entry in use has one")
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Clone for Open {
    fn clone(&self) -> Self {
        self.0.users.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: nobody else uses it, and it cannot be found any more.
            let description = unsafe { (*self.0.description.get()).take() };
            drop(description);
            FREE.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self.0);
        }
    }
}

impl Open {
    /// Whether calls are at work with it, beside one that has this.
    pub(crate) fn is_at_work(&self) -> bool {
        let users = self.0.users.load(Ordering::Relaxed) as usize;
        let is_it = |fd: &RawFd| {
            slot(*fd).is_some_and(|slot| ptr::eq(slot.load(Ordering::Relaxed), self.0))
        };
        users > 2 && users > 1 + known(0).filter(is_it).count()
    }

    /// A new one.
    pub(crate) fn new(description: Description) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let entry = free.unwrap_or_else(|| Box::leak(Box::new(Entry::new())));
        // SAFETY: it came from the free list, or is new: nobody else has it.
        unsafe { *entry.description.get() = Some(description) };
        entry.users.store(1, Ordering::Release);
        Self(entry)
    }
}

#[inline(always)]
fn slot(fd: RawFd) -> Option<&'static AtomicPtr<Entry>> {
    TABLE.get(fd as usize)
}

/// Whether a descriptor has something to do with TIPC.
#[inline(always)]
pub(crate) fn is_known(fd: RawFd) -> bool {
    slot(fd).is_some_and(|slot| !slot.load(Ordering::Acquire).is_null())
}

/// Words of a set of as many descriptors as there can be.
pub(crate) const SET_WORDS: usize = SIZE / BITS;

/// Which of the descriptors that this word of a set stands for have something to do with TIPC.
#[inline(always)]
pub(crate) fn known_in(word: usize) -> usize {
    KNOWN
        .get(word)
        .map_or(0, |known| known.load(Ordering::Relaxed))
}

/// The socket of a descriptor.
#[inline]
pub(crate) fn socket(fd: RawFd) -> Option<Open> {
    if !is_known(fd) {
        return None;
    }
    match find(fd) {
        Found::Socket(open) => Some(open),
        Found::Other | Found::Own | Found::Mark => None,
    }
}

/// What a descriptor is.
#[cold]
pub(crate) fn find(fd: RawFd) -> Found {
    let Some(slot) = slot(fd) else {
        return Found::Other;
    };
    loop {
        let entry = slot.load(Ordering::Acquire);
        if entry.is_null() {
            return Found::Other;
        } else if ptr::eq(entry, &raw const OWN) {
            return Found::Own;
        } else if is_mark(entry) {
            return Found::Mark;
        }
        // SAFETY: entries are never freed.
        let entry = unsafe { &*entry };
        let count = |users: u32| (users > 0).then_some(users + 1);
        let counted = entry
            .users
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, count);
        if counted.is_ok() {
            let open = Open(entry);
            if ptr::eq(slot.load(Ordering::Acquire), entry) {
                return Found::Socket(open);
            }
        }
    }
}

fn put(fd: RawFd, entry: *const Entry) -> Option<Open> {
    let slot = slot(fd)?;
    let at = fd as usize;
    END.fetch_max(at + 1, Ordering::Relaxed);
    KNOWN[at / BITS].fetch_or(1 << (at % BITS), Ordering::Relaxed);
    as_open(slot.swap(entry.cast_mut(), Ordering::AcqRel))
}

/// Whether an entry is the same for many descriptors.
fn is_mark(entry: *const Entry) -> bool {
    [&raw const OWN, &raw const SET, &raw const NETLINK].contains(&entry)
}

fn as_open(entry: *mut Entry) -> Option<Open> {
    let is_counted = !entry.is_null() && !is_mark(entry);
    // SAFETY: entries are never freed, and the table's use of this one has become the caller's.
    is_counted.then(|| Open(unsafe { &*entry }))
}

/// Whether the table has room for a descriptor of this number.
pub(crate) fn has_room(fd: RawFd) -> bool {
    slot(fd).is_some()
}

/// From now on this descriptor is that socket. What it was before is not any more.
pub(crate) fn install(fd: RawFd, open: Open) {
    let entry: *const Entry = open.0;
    // The table is the user now.
    std::mem::forget(open);
    drop(put(fd, entry));
}

/// This descriptor is one of the library's own.
pub(crate) fn mark_own(fd: RawFd) {
    drop(put(fd, &raw const OWN));
}

/// This descriptor is an epoll instance that waits for sockets of TIPC.
pub(crate) fn mark_set(fd: RawFd) {
    drop(put(fd, &raw const SET));
}

/// This descriptor is a socket of generic netlink.
pub(crate) fn mark_netlink(fd: RawFd) {
    drop(put(fd, &raw const NETLINK));
}

/// Whether a descriptor is one.
pub(crate) fn is_netlink(fd: RawFd) -> bool {
    slot(fd).is_some_and(|slot| ptr::eq(slot.load(Ordering::Acquire), &raw const NETLINK))
}

/// A descriptor is about to be closed. Gives the socket it was.
pub(crate) fn remove(fd: RawFd) -> Option<Open> {
    let before = slot(fd)?.swap(ptr::null_mut(), Ordering::AcqRel);
    let at = fd as usize;
    // The number is given to nobody else before it is closed.
    KNOWN[at / BITS].fetch_and(!(1 << (at % BITS)), Ordering::Relaxed);
    as_open(before)
}

/// All descriptors that are known, from `first` on.
pub(crate) fn known(first: RawFd) -> impl Iterator<Item = RawFd> {
    let end = END.load(Ordering::Relaxed) as RawFd;
    (first.max(0)..end).filter(|fd| is_known(*fd))
}

/// A descriptor by which the kernel knows a socket.
pub(crate) fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: programs name descriptors that are open for the time of a call; the kernel refuses others.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
