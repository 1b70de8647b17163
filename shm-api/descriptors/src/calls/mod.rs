//! The functions that stand before those of the C library. Of a socket of TIPC each does what the kernel would
//! (`docs/protocol/calls.md`), of anything else it calls the real one.

pub mod access;
pub mod data;
pub mod life;
mod managing;
mod modules;
pub mod options;
mod passing;
mod raw;
pub mod sockets;
pub mod wait;

use std::os::fd::RawFd;

use xtipc::socket::Errno;

use crate::description::Description;
use crate::errno::last;
use crate::real;
use crate::table::{self, Open, borrow};

/// What `socket`, `socketpair` and `accept4` take beside the type.
const TYPE_FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// Gives a socket its descriptor.
fn describe(socket: xtipc::socket::Socket, flags: i32) -> Result<RawFd, Errno> {
    use std::os::fd::IntoRawFd;
    let descriptor = socket.descriptor()?;
    let fd = descriptor.into_raw_fd();
    if !table::has_room(fd) {
        real::close(fd);
        return Err(Errno(libc::EMFILE));
    }
    if flags & libc::SOCK_NONBLOCK != 0 {
        let _ = rustix::io::ioctl_fionbio(borrow(fd), true);
        socket.set_nonblocking(true);
    }
    if flags & libc::SOCK_CLOEXEC == 0 {
        let _ = rustix::io::fcntl_setfd(borrow(fd), rustix::io::FdFlags::empty());
    }
    table::install(fd, Open::new(Description::of(socket)));
    Ok(fd)
}

/// A result of the real function, told again as an error of this one.
fn of_real(result: i32) -> Result<i32, Errno> {
    match result {
        -1 => Err(Errno(last())),
        result => Ok(result),
    }
}
