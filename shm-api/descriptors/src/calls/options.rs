//! Options, requests and flags.

use std::ffi::{c_int, c_ulong};
use std::os::fd::RawFd;

use libc::socklen_t;
use xtipc::socket::{Errno, SIOCGETLINKNAME, SIOCGETNODEID};

use super::of_real;
use crate::errno::{done, fail};
use crate::memory::{In, InOut, Out};
use crate::table::{self, Open, borrow};
use crate::{process, real};

/// Bytes of the structures of the two requests.
const LINK_REQUEST_LEN: usize = 76;
const NODE_REQUEST_LEN: usize = 20;

/// Options of `SOL_SOCKET` that TIPC answers itself. The others are the same for all sockets: those of the descriptor.
fn is_of_tipc(name: c_int) -> bool {
    matches!(
        name,
        libc::SO_TYPE
            | libc::SO_DOMAIN
            | libc::SO_PROTOCOL
            | libc::SO_ERROR
            | libc::SO_ACCEPTCONN
            | libc::SO_RCVBUF
            | libc::SO_RCVBUFFORCE
            | libc::SO_SNDBUF
            | libc::SO_SNDBUFFORCE
            | libc::SO_RCVLOWAT
            | libc::SO_RCVTIMEO
            | libc::SO_SNDTIMEO
            | libc::SO_REUSEADDR
            | libc::SO_PEEK_OFF
    )
}

/// `getsockopt`
#[unsafe(no_mangle)]
pub extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: Out<u8>,
    len: InOut<socklen_t>,
) -> c_int {
    match table::is_known(fd) {
        true => getsockopt_known(fd, level, name, value, len),
        false => real::getsockopt(fd, level, name, value, len),
    }
}

#[cold]
#[inline(never)]
fn getsockopt_known(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: Out<u8>,
    len: InOut<socklen_t>,
) -> c_int {
    match table::socket(fd) {
        Some(_) if level == libc::SOL_SOCKET && !is_of_tipc(name) => {
            real::getsockopt(fd, level, name, value, len)
        }
        Some(open) => done(get(&open, fd, level, name, value, len)),
        None => real::getsockopt(fd, level, name, value, len),
    }
}

fn get(
    open: &Open,
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: Out<u8>,
    len: InOut<socklen_t>,
) -> Result<(), Errno> {
    let room = usize::try_from(len.read()?.cast_signed()).map_err(|_| Errno(libc::EINVAL))?;
    let written = open.ready(fd)?.option(level, name, value.slice(room)?)?;
    len.write(written as socklen_t)
}

/// `setsockopt`
#[unsafe(no_mangle)]
pub extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: In<u8>,
    len: socklen_t,
) -> c_int {
    match table::is_known(fd) {
        true => setsockopt_known(fd, level, name, value, len),
        false => real::setsockopt(fd, level, name, value, len),
    }
}

#[cold]
#[inline(never)]
fn setsockopt_known(fd: c_int, level: c_int, name: c_int, value: In<u8>, len: socklen_t) -> c_int {
    match table::socket(fd) {
        Some(_) if level == libc::SOL_SOCKET && !is_of_tipc(name) => {
            real::setsockopt(fd, level, name, value, len)
        }
        Some(open) => done(set(&open, fd, level, name, value, len)),
        None => real::setsockopt(fd, level, name, value, len),
    }
}

fn set(
    open: &Open,
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: In<u8>,
    len: socklen_t,
) -> Result<(), Errno> {
    let bytes = match value.is_null() {
        true => None,
        false => Some(value.slice(len as usize)?),
    };
    open.socket(fd)?
        .set_option(level, name, bytes, len as usize)?;
    if level == libc::SOL_SOCKET && matches!(name, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) {
        // Those who share the descriptor see it there.
        of_real(real::setsockopt(fd, level, name, value, len))?;
    }
    Ok(())
}

/// `ioctl`
#[unsafe(no_mangle)]
pub extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: InOut<u8>) -> c_int {
    match table::is_known(fd) {
        true => ioctl_known(fd, request, argument),
        false => real::ioctl(fd, request, argument),
    }
}

#[cold]
#[inline(never)]
fn ioctl_known(fd: c_int, request: c_ulong, argument: InOut<u8>) -> c_int {
    let Some(open) = table::socket(fd) else {
        return real::ioctl(fd, request, argument);
    };
    // Numbers of requests have 32 bits; some programs pass them as a negative int.
    match u64::from(request as u32) {
        SIOCGETLINKNAME => done(request_at(
            &open,
            fd,
            SIOCGETLINKNAME,
            argument,
            LINK_REQUEST_LEN,
        )),
        SIOCGETNODEID => done(request_at(
            &open,
            fd,
            SIOCGETNODEID,
            argument,
            NODE_REQUEST_LEN,
        )),
        libc::FIONBIO | libc::FIOASYNC | libc::FIOCLEX | libc::FIONCLEX => {
            process::before_copy(fd);
            let result = real::ioctl(fd, request, argument);
            note_flags(&open, fd);
            result
        }
        _ => fail(libc::ENOTTY),
    }
}

/// `sockatmark`: there is no mark.
#[unsafe(no_mangle)]
pub extern "C" fn sockatmark(fd: c_int) -> c_int {
    match table::socket(fd) {
        Some(_) => fail(libc::ENOTTY),
        None => real::sockatmark(fd),
    }
}

fn request_at(
    open: &Open,
    fd: RawFd,
    request: u64,
    argument: InOut<u8>,
    len: usize,
) -> Result<(), Errno> {
    open.socket(fd)?.ioctl(request, argument.slice(len)?)
}

/// The file description's flags may have changed.
fn note_flags(open: &Open, fd: RawFd) {
    if let Some(socket) = open.current() {
        socket.refresh(borrow(fd));
    }
}

/// `fcntl`. The third argument is of whatever type the command wants, or not there.
#[unsafe(no_mangle)]
pub extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    match table::is_known(fd) {
        true => fcntl_known(fd, command, argument),
        false => real::fcntl(fd, command, argument),
    }
}

#[cold]
#[inline(never)]
fn fcntl_known(fd: c_int, command: c_int, argument: usize) -> c_int {
    let real = || real::fcntl(fd, command, argument);
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        return super::life::copy_known(fd, real);
    }
    if command == libc::F_SETFD {
        process::before_copy(fd);
    }
    let result = real();
    if command == libc::F_SETFL
        && let Some(open) = table::socket(fd)
    {
        note_flags(&open, fd);
    }
    result
}

/// `fcntl`, by the name of programs with large files.
#[unsafe(no_mangle)]
pub extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    fcntl(fd, command, argument)
}

/// `fcntl`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    fcntl(fd, command, argument)
}
