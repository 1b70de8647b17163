//! Making sockets, and addresses.

use std::ffi::c_int;
use std::os::fd::RawFd;

use libc::{sockaddr, socklen_t};
use rustix::event::{EventfdFlags, eventfd};
use xtipc::socket::{ADDRESS_LEN, AF_TIPC, Errno, RawAddress, Socket};

use super::{TYPE_FLAGS, describe};
use crate::errno::{done, made};
use crate::memory::{In, InOut, Out};
use crate::table::{self, Open, borrow};
use crate::{netlink, process, real};

/// `socket`
#[unsafe(no_mangle)]
pub extern "C" fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int {
    if family != AF_TIPC {
        let fd = real::socket(family, kind, protocol);
        if netlink::is_meant(family, protocol) && fd >= 0 {
            netlink::opened(fd);
        }
        return fd;
    }
    made(type_of(kind).and_then(|type_| {
        let socket = Socket::open(&process::node()?, type_, protocol)?;
        describe(socket, kind)
    }))
}

/// Above the numbers that types of sockets have.
const TYPE_END: c_int = 11;

/// The type without flags. What cannot be the type of any socket is refused before TIPC is asked.
fn type_of(kind: c_int) -> Result<c_int, Errno> {
    match kind & !TYPE_FLAGS {
        type_ @ 0..TYPE_END => Ok(type_),
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// `socketpair`
#[unsafe(no_mangle)]
pub extern "C" fn socketpair(
    family: c_int,
    kind: c_int,
    protocol: c_int,
    fds: Out<[c_int; 2]>,
) -> c_int {
    if family != AF_TIPC {
        return real::socketpair(family, kind, protocol, fds);
    }
    done(type_of(kind).and_then(|type_| {
        let node = process::node()?;
        if fds.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        let (one, other) = Socket::pair(&node, type_, protocol)?;
        let one = describe(one, kind)?;
        match describe(other, kind) {
            Ok(other) => fds.write([one, other]),
            Err(errno) => {
                super::life::close(one);
                Err(errno)
            }
        }
    }))
}

/// `accept`
#[unsafe(no_mangle)]
pub extern "C" fn accept(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int {
    match table::socket(fd) {
        Some(open) => made(accept_at(&open, fd, address, len, 0)),
        None => real::accept(fd, address, len),
    }
}

/// `accept4`
#[unsafe(no_mangle)]
pub extern "C" fn accept4(
    fd: c_int,
    address: Out<sockaddr>,
    len: InOut<socklen_t>,
    flags: c_int,
) -> c_int {
    match table::is_known(fd) {
        true => accept4_known(fd, address, len, flags),
        false => real::accept4(fd, address, len, flags),
    }
}

#[cold]
#[inline(never)]
fn accept4_known(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>, flags: c_int) -> c_int {
    match table::socket(fd) {
        Some(_) if flags & !TYPE_FLAGS != 0 => done(Err(Errno(libc::EINVAL))),
        Some(open) => made(accept_at(&open, fd, address, len, flags)),
        None => real::accept4(fd, address, len, flags),
    }
}

fn accept_at(
    open: &Open,
    fd: RawFd,
    address: Out<sockaddr>,
    len: InOut<socklen_t>,
    flags: c_int,
) -> Result<RawFd, Errno> {
    // A process that may not have another descriptor leaves the connection to be accepted later.
    let another = eventfd(0, EventfdFlags::CLOEXEC);
    drop(another.map_err(|errno| Errno(errno.raw_os_error()))?);
    let (socket, peer) = open.ready(fd)?.accept()?;
    let accepted = describe(socket, flags)?;
    if !address.is_null() {
        put_address(&peer.to_bytes(), address, len)?;
    }
    Ok(accepted)
}

/// Writes an address into the room there is for it, and how long it is.
pub(super) fn put_address(
    bytes: &[u8],
    address: Out<sockaddr>,
    len: InOut<socklen_t>,
) -> Result<(), Errno> {
    let room = usize::try_from(len.read()?.cast_signed()).map_err(|_| Errno(libc::EINVAL))?;
    let room = room.min(bytes.len());
    address.bytes(room)?.copy_from_slice(&bytes[..room]);
    len.write(bytes.len() as socklen_t)
}

/// `bind`
#[unsafe(no_mangle)]
pub extern "C" fn bind(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int {
    match table::is_known(fd) {
        true => bind_known(fd, address, len),
        false => real::bind(fd, address, len),
    }
}

#[cold]
#[inline(never)]
fn bind_known(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int {
    match table::socket(fd) {
        Some(open) => done(
            open.socket(fd)
                .and_then(|socket| socket.bind(address.bytes(len as usize)?)),
        ),
        None => real::bind(fd, address, len),
    }
}

/// `connect`
#[unsafe(no_mangle)]
pub extern "C" fn connect(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int {
    match table::is_known(fd) {
        true => connect_known(fd, address, len),
        false => real::connect(fd, address, len),
    }
}

#[cold]
#[inline(never)]
fn connect_known(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int {
    match table::socket(fd) {
        Some(open) => done(connect_at(&open, fd, address, len)),
        None => real::connect(fd, address, len),
    }
}

fn connect_at(open: &Open, fd: RawFd, address: In<sockaddr>, len: socklen_t) -> Result<(), Errno> {
    let socket = open.ready(fd)?;
    let result = socket.connect(address.bytes(len as usize)?);
    if result == Err(Errno(libc::EINPROGRESS)) && socket.is_armed() {
        socket.block(borrow(fd))?;
    }
    result
}

/// `connect`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __connect(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int {
    connect(fd, address, len)
}

/// `listen`
#[unsafe(no_mangle)]
pub extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    match table::is_known(fd) {
        true => listen_known(fd, backlog),
        false => real::listen(fd, backlog),
    }
}

#[cold]
#[inline(never)]
fn listen_known(fd: c_int, backlog: c_int) -> c_int {
    match table::socket(fd) {
        Some(open) => done(open.socket(fd).and_then(|socket| socket.listen(backlog))),
        None => real::listen(fd, backlog),
    }
}

/// `getsockname`
#[unsafe(no_mangle)]
pub extern "C" fn getsockname(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int {
    match table::is_known(fd) {
        true => getsockname_known(fd, address, len),
        false => real::getsockname(fd, address, len),
    }
}

#[cold]
#[inline(never)]
fn getsockname_known(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int {
    match table::socket(fd) {
        Some(open) => done(name(&open, fd, Socket::local_address, address, len)),
        None => real::getsockname(fd, address, len),
    }
}

/// `getpeername`
#[unsafe(no_mangle)]
pub extern "C" fn getpeername(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int {
    match table::is_known(fd) {
        true => getpeername_known(fd, address, len),
        false => real::getpeername(fd, address, len),
    }
}

#[cold]
#[inline(never)]
fn getpeername_known(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int {
    match table::socket(fd) {
        Some(open) => done(name(&open, fd, Socket::peer_address, address, len)),
        None => real::getpeername(fd, address, len),
    }
}

fn name(
    open: &Open,
    fd: RawFd,
    ask: fn(&Socket) -> Result<RawAddress, Errno>,
    address: Out<sockaddr>,
    len: InOut<socklen_t>,
) -> Result<(), Errno> {
    let bytes: [u8; ADDRESS_LEN] = ask(open.socket(fd)?)?.to_bytes();
    put_address(&bytes, address, len)
}

/// `shutdown`
#[unsafe(no_mangle)]
pub extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    match table::is_known(fd) {
        true => shutdown_known(fd, how),
        false => real::shutdown(fd, how),
    }
}

#[cold]
#[inline(never)]
fn shutdown_known(fd: c_int, how: c_int) -> c_int {
    match table::socket(fd) {
        Some(open) => done(open.socket(fd).and_then(|socket| socket.shutdown(how))),
        None => real::shutdown(fd, how),
    }
}
