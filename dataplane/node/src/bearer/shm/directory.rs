//! Where the nodes of a host meet: a directory with a listening socket for each, named by its number.
//!
//! Who may use the directory is who may join. A socket is moved to its name when it listens, so one that refuses a call
//! is of a node that has died, and is removed by whoever finds it.

use std::fs::{self, DirBuilder};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use xtipc_segment::attach::listen;

/// Entries of the directory that are looked at: others may put anything into it.
const ENTRIES_MAX: usize = 1024;
/// Digits of a name.
const DIGITS: usize = 16;

/// See the module.
pub(super) struct Directory {
    path: PathBuf,
    own: u64,
    listener: OwnedFd,
    changes: OwnedFd,
}

impl Directory {
    /// Enters it under this number.
    pub(super) fn enter(path: &Path, own: u64) -> io::Result<Self> {
        let (listener, changes) = settle(path, own)?;
        Ok(Self {
            path: path.to_owned(),
            own,
            listener,
            changes,
        })
    }

    /// Enters it once more if somebody has removed it, or this node from it. True if so: the descriptors are others.
    pub(super) fn return_if_removed(&mut self) -> io::Result<bool> {
        if fs::exists(self.path.join(name_of(self.own)))? {
            return Ok(false);
        }
        (self.listener, self.changes) = settle(&self.path, self.own)?;
        Ok(true)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn own(&self) -> u64 {
        self.own
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Readable when somebody has entered.
    pub(super) fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    pub(super) fn silence_changes(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.changes.as_fd(), &mut buffer);
        for _ in 0..ENTRIES_MAX {
            if reader.next().is_err() {
                return;
            }
        }
    }

    /// The numbers of the others.
    pub(super) fn others(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let names = entries.take(ENTRIES_MAX).flatten();
        let numbers = names.filter_map(|entry| number_of(entry.file_name().to_str()?));
        numbers.filter(|number| *number != self.own).collect()
    }

    /// A socket to the station with this number; `None` if it has died.
    pub(super) fn connect(&self, number: u64) -> io::Result<Option<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let path = self.path.join(name_of(number));
        match connect(&socket, &SocketAddrUnix::new(&path)?) {
            Ok(()) => Ok(Some(socket)),
            Err(Errno::CONNREFUSED) => {
                fs::remove_file(&path)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // If it cannot be removed now, the others do it when they call.
        let _ = fs::remove_file(self.path.join(name_of(self.own)));
    }
}

/// Makes the directory if it is not there, and in it a place with this number: the listener, and news of others.
fn settle(path: &Path, own: u64) -> io::Result<(OwnedFd, OwnedFd)> {
    if let Some(parent) = path.parent() {
        // Others live below it, too.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let unfinished = path.join(format!(".{}", name_of(own)));
    let listener = listen(&unfinished)?;
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let changes = inotify::init(flags)?;
    inotify::add_watch(&changes, path, inotify::WatchFlags::MOVED_TO)?;
    fs::rename(&unfinished, path.join(name_of(own)))?;
    Ok((listener, changes))
}

fn name_of(number: u64) -> String {
    format!("{number:016x}")
}

fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name, 16).ok()?;
    (name.len() == DIGITS && name == name_of(number)).then_some(number)
}
