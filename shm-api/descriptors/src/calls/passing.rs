//! Descriptors that are passed to other processes over Unix sockets.

use std::ffi::{c_int, c_uint};
use std::mem::size_of;
use std::os::fd::RawFd;

use libc::msghdr;

use crate::description::share_one;
use crate::memory::In;
use crate::{process, real};

/// Length, level and type.
const HEADER_LEN: usize = size_of::<usize>() + 8;

/// Whether a message carries anything.
#[inline(always)]
pub(super) fn carries(message: &msghdr) -> bool {
    !message.msg_control.is_null() && message.msg_controllen >= HEADER_LEN
}

/// The descriptors that it carries.
fn passed(message: &msghdr) -> Vec<RawFd> {
    let mut fds = Vec::new();
    let control = In::<u8>::new(message.msg_control.cast()).slice(message.msg_controllen);
    let mut rest = control.unwrap_or_default();
    while let Some(header) = rest.get(..HEADER_LEN) {
        let word = |at: usize| header[at..at + 4].try_into().map_or(0, i32::from_ne_bytes);
        let len = header[..size_of::<usize>()]
            .try_into()
            .map_or(0, usize::from_ne_bytes);
        let Some(data) = rest.get(HEADER_LEN..len) else {
            break;
        };
        let (level, kind) = (word(size_of::<usize>()), word(size_of::<usize>() + 4));
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let fd = |bytes: &[u8]| bytes.try_into().map_or(-1, RawFd::from_ne_bytes);
            fds.extend(data.chunks_exact(4).map(fd));
        }
        rest = rest
            .get(len.next_multiple_of(size_of::<usize>())..)
            .unwrap_or_default();
    }
    fds
}

/// Before a message is sent: who gets a descriptor of TIPC may use it.
#[cold]
#[inline(never)]
pub(super) fn share_passed(message: &msghdr) {
    for fd in passed(message) {
        share_one(fd);
    }
}

/// `pidfd_getfd`, which takes a copy of another process's descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn pidfd_getfd(of: c_int, fd: c_int, flags: c_uint) -> c_int {
    let copy = real::pidfd_getfd(of, fd, flags);
    if copy >= 0 {
        process::recognise(copy);
    }
    copy
}

/// After a message was received: descriptors of TIPC are known as such.
#[cold]
#[inline(never)]
pub(super) fn recognise_passed(message: &msghdr) {
    for fd in passed(message) {
        process::recognise(fd);
    }
}
