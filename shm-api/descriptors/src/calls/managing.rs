//! Sending and receiving over sockets of generic netlink: what is for TIPC goes another way than the rest (`netlink`). Other
//! descriptors that are known but no sockets of TIPC come here, too; for them the real functions are called.

use std::os::fd::RawFd;

use libc::{c_int, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use xtipc::socket::Errno;

use super::data::{gather, parts_of, scatter};
use super::sockets::put_address;
use crate::errno::{counted, fail};
use crate::memory::{In, InOut, Out};
use crate::{netlink, real, table};

/// Any function that sends bytes.
pub(super) fn send(
    fd: RawFd,
    data: In<u8>,
    len: size_t,
    flags: c_int,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if !table::is_netlink(fd) {
        return real();
    }
    match data.slice(len).map(|data| netlink::send(fd, data, flags)) {
        Ok(Some(result)) => counted(result),
        _ => real(),
    }
}

/// The same from several parts.
pub(super) fn send_parts(
    fd: RawFd,
    parts: In<iovec>,
    count: usize,
    flags: c_int,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if !table::is_netlink(fd) {
        return real();
    }
    let data = parts_of(parts, count).and_then(gather);
    match data.map(|data| netlink::send(fd, &data, flags)) {
        Ok(Some(result)) => counted(result),
        _ => real(),
    }
}

/// `sendmsg`
pub(super) fn send_message(fd: RawFd, message: In<msghdr>, flags: c_int) -> ssize_t {
    let real = || real::sendmsg(fd, message, flags);
    match message.read() {
        Ok(header) => send_parts(fd, In::new(header.msg_iov), header.msg_iovlen, flags, real),
        Err(_) => real(),
    }
}

/// Any function that receives bytes.
pub(super) fn receive(
    fd: RawFd,
    data: Out<u8>,
    len: size_t,
    flags: c_int,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    match answer(fd, flags) {
        Ok(None) => real(),
        Ok(Some(bytes)) => counted(put(&bytes, data, len, flags)),
        Err(errno) => fail(errno.0) as ssize_t,
    }
}

/// The same into several parts.
pub(super) fn receive_parts(
    fd: RawFd,
    parts: In<iovec>,
    count: usize,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    match answer(fd, 0) {
        Ok(None) => real(),
        Ok(Some(bytes)) => counted(parts_of(parts, count).and_then(|parts| scatter(parts, &bytes))),
        Err(errno) => fail(errno.0) as ssize_t,
    }
}

/// `recvfrom`
pub(super) fn receive_from(
    fd: RawFd,
    data: Out<u8>,
    len: size_t,
    flags: c_int,
    address: Out<sockaddr>,
    address_len: InOut<socklen_t>,
) -> ssize_t {
    counted(match answer(fd, flags) {
        Ok(None) => return real::recvfrom(fd, data, len, flags, address, address_len),
        Ok(Some(bytes)) => put(&bytes, data, len, flags).and_then(|len| {
            if !address.is_null() {
                put_address(&netlink::kernel_address(), address, address_len)?;
            }
            Ok(len)
        }),
        Err(errno) => Err(errno),
    })
}

/// `recvmsg`
pub(super) fn receive_message(fd: RawFd, message: InOut<msghdr>, flags: c_int) -> ssize_t {
    let result = match answer(fd, flags) {
        Ok(None) => return real::recvmsg(fd, message, flags),
        Ok(Some(bytes)) => put_message(&bytes, message, flags),
        Err(errno) => Err(errno),
    };
    counted(result)
}

fn answer(fd: RawFd, flags: c_int) -> Result<Option<Vec<u8>>, Errno> {
    match table::is_netlink(fd) {
        true => netlink::receive(fd, flags),
        false => Ok(None),
    }
}

fn put(bytes: &[u8], data: Out<u8>, len: size_t, flags: c_int) -> Result<usize, Errno> {
    let fits = bytes.len().min(len);
    data.slice(fits)?.copy_from_slice(&bytes[..fits]);
    Ok(told(fits, bytes.len(), flags))
}

/// The length that a program is told.
fn told(copied: usize, whole: usize, flags: c_int) -> usize {
    match flags & libc::MSG_TRUNC {
        0 => copied,
        _ => whole,
    }
}

fn put_message(bytes: &[u8], message: InOut<msghdr>, flags: c_int) -> Result<usize, Errno> {
    let mut header = message.read()?;
    let parts = parts_of(In::new(header.msg_iov), header.msg_iovlen)?;
    let copied = scatter(parts, bytes)?;
    if !header.msg_name.is_null() {
        let address = netlink::kernel_address();
        let room = address.len().min(header.msg_namelen as usize);
        let place = Out::<u8>::new(header.msg_name.cast()).slice(room)?;
        place.copy_from_slice(&address[..room]);
        header.msg_namelen = address.len() as socklen_t;
    }
    header.msg_controllen = 0;
    header.msg_flags = if copied < bytes.len() {
        libc::MSG_TRUNC
    } else {
        0
    };
    message.write(header)?;
    Ok(told(copied, bytes.len(), flags))
}
