//! Handles of sockets (`docs/architecture.md`, the application boundary): each is one end of a pair of Unix sockets, with
//! some process; the other end is here and tells when its last copy is closed, wherever that is.
//!
//! A *descriptor* is the one handle that stands for its socket like the file descriptor of a kernel socket. When it is armed it is readable
//! while there may be something to read: a byte goes into it with all news, and processes take them out. It is writable unless
//! one of them filled it; emptied it is when the socket can send.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hashbrown::HashMap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    shutdown, sockopt,
};
use xtipc_protocol::addr::PortId;
use xtipc_segment::attach::DESCRIPTOR_NAME;

/// Handles of all sockets at most.
const HANDLES_MAX: usize = 65_536;
/// As small as the kernel makes it: one write of [`xtipc_segment::attach`]'s filler leaves no room for another.
const DESCRIPTOR_BUFFER: usize = 1;

/// What a handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The right to use a socket, for another process.
    Right,
    /// The socket's descriptor.
    Descriptor,
}

/// The daemon's end of a handle.
pub(super) struct Handle {
    /// None once the socket is gone.
    port: Option<PortId>,
    pub(super) purpose: Purpose,
    end: OwnedFd,
    /// The other end, wherever it comes from.
    theirs: FileId,
    armed: bool,
}

/// Device and inode of an open socket. Nobody else's descriptor has the same as long as the socket is open.
type FileId = (u64, u64);

/// All handles.
#[derive(Default)]
pub(super) struct Handles {
    all: Vec<Option<Handle>>,
    free: Vec<usize>,
    descriptors: HashMap<PortId, usize>,
    /// Whose descriptors somebody filled, to be emptied when the socket can send.
    blocked: Vec<PortId>,
}

impl Handles {
    /// Makes a handle: its index, and the end for processes.
    pub(super) fn add(&mut self, port: PortId, purpose: Purpose) -> Result<(usize, OwnedFd), i32> {
        if self.all.len() - self.free.len() >= HANDLES_MAX {
            return Err(libc::EMFILE);
        }
        let (end, theirs) = pair(purpose).map_err(errno_of)?;
        let handle = Handle {
            port: Some(port),
            purpose,
            theirs: id_of(theirs.as_fd()).map_err(errno_of)?,
            end,
            armed: false,
        };
        let index = match self.free.pop() {
            Some(free) => free,
            None => {
                self.all.push(None);
                self.all.len() - 1
            }
        };
        self.all[index] = Some(handle);
        if purpose == Purpose::Descriptor {
            self.descriptors.insert(port, index);
        }
        Ok((index, theirs))
    }

    /// The daemon's end, to wait for the other one to be closed.
    pub(super) fn end(&self, index: usize) -> Option<BorrowedFd<'_>> {
        Some(self.all.get(index)?.as_ref()?.end.as_fd())
    }

    /// The socket of a handle that came from a process.
    pub(super) fn find(&self, theirs: BorrowedFd<'_>) -> Result<PortId, i32> {
        let id = id_of(theirs).map_err(errno_of)?;
        let mut open = self.all.iter().flatten();
        let handle = open.find(|handle| handle.theirs == id);
        handle.ok_or(libc::EINVAL)?.port.ok_or(libc::EBADF)
    }

    /// Whether the last copy of a handle was closed.
    pub(super) fn is_closed(&self, index: usize) -> bool {
        let handle = self.all.get(index).and_then(Option::as_ref);
        handle.is_some_and(|handle| is_closed(&handle.end))
    }

    /// Removes a handle: its socket, and what it was.
    pub(super) fn remove(&mut self, index: usize) -> Option<(Option<PortId>, Purpose)> {
        let handle = self.all.get_mut(index)?.take()?;
        self.free.push(index);
        if let (Some(port), Purpose::Descriptor) = (handle.port, handle.purpose) {
            self.descriptors.remove(&port);
        }
        Some((handle.port, handle.purpose))
    }

    /// A socket is no more: its descriptor leads nowhere until it is closed.
    pub(super) fn forget(&mut self, port: PortId) {
        if let Some(index) = self.descriptors.remove(&port)
            && let Some(Some(handle)) = self.all.get_mut(index)
        {
            handle.port = None;
        }
    }

    fn descriptor(&mut self, port: PortId) -> Option<&mut Handle> {
        let index = self.descriptors.get(&port)?;
        self.all.get_mut(*index)?.as_mut()
    }

    /// Whether a socket has a descriptor.
    pub(super) fn has_descriptor(&self, port: PortId) -> bool {
        self.descriptors.contains_key(&port)
    }

    /// The inode of a socket's descriptor.
    pub(super) fn inode(&self, port: PortId) -> Option<u64> {
        let index = self.descriptors.get(&port)?;
        let (_, inode) = self.all.get(*index)?.as_ref()?.theirs;
        Some(inode)
    }

    /// Whether a copy of a socket's descriptor is open somewhere.
    pub(super) fn is_described(&mut self, port: PortId) -> bool {
        self.descriptor(port)
            .is_some_and(|handle| !is_closed(&handle.end))
    }

    /// Keeps a descriptor readable from now on while there may be something to read, as is supposed now. Gives what a
    /// segment has to write to with each delivery.
    pub(super) fn arm(&mut self, port: PortId) -> Result<OwnedFd, i32> {
        let handle = self.descriptor(port).ok_or(libc::EBADF)?;
        handle.armed = true;
        handle.announce();
        handle.end.try_clone().map_err(errno_of)
    }

    /// Something came that a process may wait for.
    pub(super) fn announce(&mut self, port: PortId) {
        if let Some(handle) = self.descriptor(port) {
            handle.announce();
        }
    }

    /// The connection of a socket is over: its descriptor stays readable for good, and says so.
    pub(super) fn hang_up(&mut self, port: PortId) {
        if let Some(handle) = self.descriptor(port)
            && handle.armed
        {
            // It fails only where nobody has the other end.
            let _ = shutdown(&handle.end, Shutdown::Write);
        }
    }

    /// A descriptor was filled.
    pub(super) fn block(&mut self, port: PortId) {
        if !self.blocked.contains(&port) {
            self.blocked.push(port);
        }
    }

    /// What was filled can be written to again where the socket `can_send`.
    pub(super) fn unblock(&mut self, can_send: impl Fn(PortId) -> bool) {
        if self.blocked.is_empty() {
            return;
        }
        let mut blocked = std::mem::take(&mut self.blocked);
        blocked.retain(|port| {
            let Some(handle) = self.descriptor(*port) else {
                return false;
            };
            let goes_on = !can_send(*port);
            if !goes_on {
                handle.empty();
            }
            goes_on
        });
        self.blocked = blocked;
    }
}

impl Handle {
    fn announce(&self) {
        if self.armed {
            // A full one is readable, and a closed one has nobody to tell.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(&self.end, &[1], flags);
        }
    }

    fn empty(&self) {
        let mut filler = [0; 4096];
        let mut take = || rustix::net::recv(&self.end, &mut filler, RecvFlags::DONTWAIT);
        while matches!(take(), Ok((1.., _))) {}
    }
}

/// Our end and theirs.
fn pair(purpose: Purpose) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (end, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::io::ioctl_fionbio(&end, true)?;
    if purpose == Purpose::Descriptor {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let number = format!("{:016x}", u64::from_ne_bytes(random));
        let name = [DESCRIPTOR_NAME, number.as_bytes()].concat();
        rustix::net::bind(&end, &SocketAddrUnix::new_abstract_name(&name)?)?;
        sockopt::set_socket_send_buffer_size(&theirs, DESCRIPTOR_BUFFER)?;
    }
    Ok((end, theirs))
}

fn is_closed(end: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(end, PollFlags::empty())];
    let now = Timespec::default();
    let looked = poll(&mut fds, Some(&now));
    looked.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

fn id_of(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    let about = rustix::fs::fstat(fd)?;
    Ok((about.st_dev, about.st_ino))
}

fn errno_of(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
