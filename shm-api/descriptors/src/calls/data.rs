//! Sending and receiving.

use std::ffi::{c_int, c_uint};
use std::os::fd::RawFd;

use libc::{iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec};
use xtipc::socket::{Errno, ReceiveRoom, Received};

use super::sockets::put_address;
use super::wait::Until;
use super::{managing, passing};
use crate::errno::{counted, fail};
use crate::memory::{In, InOut, Out};
use crate::real;
use crate::table::{self, Open, borrow};

/// Most parts of a message in memory.
const PARTS_MAX: usize = 1024;
/// Most bytes that a call moves; of more it is as if they were not there.
const BYTES_MAX: usize = 0x7fff_f000;

fn send_at(
    open: &Open,
    fd: RawFd,
    data: &[u8],
    flags: c_int,
    address: Option<&[u8]>,
) -> Result<usize, Errno> {
    let socket = open.ready(fd)?;
    let result = socket.send(data, flags, address);
    // With an address it may have asked for a connection.
    let may_wait = result == Err(Errno(libc::EAGAIN)) || (result.is_ok() && address.is_some());
    if may_wait && socket.is_armed() && socket.poll()? & (libc::POLLOUT | libc::POLLHUP) == 0 {
        socket.block(borrow(fd))?;
    }
    result
}

fn receive_at(
    open: &Open,
    fd: RawFd,
    data: &mut [u8],
    control: Option<&mut [u8]>,
    flags: c_int,
) -> Result<Received, Errno> {
    open.ready(fd)?
        .receive(ReceiveRoom { data, control }, flags)
}

/// An address as the caller gave it.
fn address_of<'a>(address: In<sockaddr>, len: socklen_t) -> Result<Option<&'a [u8]>, Errno> {
    match address.is_null() || len == 0 {
        true => Ok(None),
        false => address.bytes(len as usize).map(Some),
    }
}

/// `send`
#[unsafe(no_mangle)]
pub extern "C" fn send(fd: c_int, data: In<u8>, len: size_t, flags: c_int) -> ssize_t {
    match table::is_known(fd) {
        true => send_known(fd, data, len, flags),
        false => real::send(fd, data, len, flags),
    }
}

#[cold]
#[inline(never)]
fn send_known(fd: c_int, data: In<u8>, len: size_t, flags: c_int) -> ssize_t {
    match table::socket(fd) {
        Some(open) => counted(
            data.slice(len)
                .and_then(|data| send_at(&open, fd, data, flags, None)),
        ),
        None => managing::send(fd, data, len, flags, || real::send(fd, data, len, flags)),
    }
}

/// `send`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __send(fd: c_int, data: In<u8>, len: size_t, flags: c_int) -> ssize_t {
    send(fd, data, len, flags)
}

/// `sendto`
#[unsafe(no_mangle)]
pub extern "C" fn sendto(
    fd: c_int,
    data: In<u8>,
    len: size_t,
    flags: c_int,
    address: In<sockaddr>,
    address_len: socklen_t,
) -> ssize_t {
    match table::is_known(fd) {
        true => sendto_known(fd, data, len, flags, address, address_len),
        false => real::sendto(fd, data, len, flags, address, address_len),
    }
}

#[cold]
#[inline(never)]
fn sendto_known(
    fd: c_int,
    data: In<u8>,
    len: size_t,
    flags: c_int,
    address: In<sockaddr>,
    address_len: socklen_t,
) -> ssize_t {
    let Some(open) = table::socket(fd) else {
        return managing::send(fd, data, len, flags, || {
            real::sendto(fd, data, len, flags, address, address_len)
        });
    };
    counted(address_of(address, address_len).and_then(|address| {
        let data = data.slice(len)?;
        send_at(&open, fd, data, flags, address)
    }))
}

/// `sendmsg`
#[unsafe(no_mangle)]
pub extern "C" fn sendmsg(fd: c_int, message: In<msghdr>, flags: c_int) -> ssize_t {
    match table::is_known(fd) {
        true => sendmsg_known(fd, message, flags),
        false => {
            if let Ok(header) = message.read()
                && passing::carries(&header)
            {
                passing::share_passed(&header);
            }
            real::sendmsg(fd, message, flags)
        }
    }
}

#[cold]
#[inline(never)]
fn sendmsg_known(fd: c_int, message: In<msghdr>, flags: c_int) -> ssize_t {
    match table::socket(fd) {
        Some(open) => counted(
            message
                .read()
                .and_then(|message| send_message(&open, fd, &message, flags)),
        ),
        None => managing::send_message(fd, message, flags),
    }
}

fn send_message(open: &Open, fd: RawFd, message: &msghdr, flags: c_int) -> Result<usize, Errno> {
    let address = address_of(In::new(message.msg_name.cast()), message.msg_namelen)?;
    let parts = parts_of(In::new(message.msg_iov), message.msg_iovlen)?;
    send_parts(open, fd, parts, flags, address)
}

pub(super) fn parts_of<'a>(parts: In<iovec>, count: usize) -> Result<&'a [iovec], Errno> {
    match count {
        0..=PARTS_MAX => parts.slice(count),
        _ => Err(Errno(libc::EMSGSIZE)),
    }
}

fn send_parts(
    open: &Open,
    fd: RawFd,
    parts: &[iovec],
    flags: c_int,
    address: Option<&[u8]>,
) -> Result<usize, Errno> {
    let bytes = |part: &iovec| In::<u8>::new(part.iov_base.cast()).slice(part.iov_len);
    if let [part] = parts {
        return send_at(open, fd, bytes(part)?, flags, address);
    }
    send_at(open, fd, &gather(parts)?, flags, address)
}

/// `sendmmsg`
#[unsafe(no_mangle)]
pub extern "C" fn sendmmsg(
    fd: c_int,
    messages: InOut<mmsghdr>,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let Some(open) = table::socket(fd) else {
        if let Ok(messages) = messages.slice(count as usize) {
            let headers = messages.iter().map(|message| &message.msg_hdr);
            headers
                .filter(|header| passing::carries(header))
                .for_each(passing::share_passed);
        }
        return real::sendmmsg(fd, messages, count, flags);
    };
    let messages = match messages.slice((count as usize).min(PARTS_MAX)) {
        Ok(messages) => messages,
        Err(errno) => return fail(errno.0),
    };
    for (sent, message) in messages.iter_mut().enumerate() {
        match send_message(&open, fd, &message.msg_hdr, flags) {
            Ok(len) => message.msg_len = len as c_uint,
            Err(errno) if sent == 0 => return fail(errno.0),
            Err(_) => return sent as c_int,
        }
    }
    messages.len() as c_int
}

/// `write`
#[unsafe(no_mangle)]
pub extern "C" fn write(fd: c_int, data: In<u8>, len: size_t) -> ssize_t {
    match table::is_known(fd) {
        true => write_known(fd, data, len),
        false => real::write(fd, data, len),
    }
}

#[cold]
#[inline(never)]
fn write_known(fd: RawFd, data: In<u8>, len: size_t) -> ssize_t {
    match table::socket(fd) {
        Some(_) => send(fd, data, len, 0),
        None => managing::send(fd, data, len, 0, || real::write(fd, data, len)),
    }
}

/// `write`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __write(fd: c_int, data: In<u8>, len: size_t) -> ssize_t {
    write(fd, data, len)
}

/// `writev`
#[unsafe(no_mangle)]
pub extern "C" fn writev(fd: c_int, parts: In<iovec>, count: c_int) -> ssize_t {
    match table::is_known(fd) {
        true => writev_known(fd, parts, count),
        false => real::writev(fd, parts, count),
    }
}

#[cold]
#[inline(never)]
fn writev_known(fd: c_int, parts: In<iovec>, count: c_int) -> ssize_t {
    match table::socket(fd) {
        Some(open) => counted(
            counted_parts(parts, count).and_then(|parts| send_parts(&open, fd, parts, 0, None)),
        ),
        None => managing::send_parts(fd, parts, count as usize, 0, || {
            real::writev(fd, parts, count)
        }),
    }
}

fn counted_parts<'a>(parts: In<iovec>, count: c_int) -> Result<&'a [iovec], Errno> {
    match usize::try_from(count) {
        Ok(count @ 0..=PARTS_MAX) => parts.slice(count),
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// `recv`
#[unsafe(no_mangle)]
pub extern "C" fn recv(fd: c_int, data: Out<u8>, len: size_t, flags: c_int) -> ssize_t {
    match table::is_known(fd) {
        true => recv_known(fd, data, len, flags),
        false => real::recv(fd, data, len, flags),
    }
}

#[cold]
#[inline(never)]
fn recv_known(fd: c_int, data: Out<u8>, len: size_t, flags: c_int) -> ssize_t {
    match table::socket(fd) {
        Some(open) => counted(data.slice(len).and_then(|data| {
            let received = receive_at(&open, fd, data, None, flags)?;
            Ok(received.len)
        })),
        None => managing::receive(fd, data, len, flags, || real::recv(fd, data, len, flags)),
    }
}

/// `recv` of programs built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub extern "C" fn __recv_chk(
    fd: c_int,
    data: Out<u8>,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    match table::is_known(fd) && len <= room {
        true => recv(fd, data, len, flags),
        false => real::__recv_chk(fd, data, len, room, flags),
    }
}

/// `recvfrom`
#[unsafe(no_mangle)]
pub extern "C" fn recvfrom(
    fd: c_int,
    data: Out<u8>,
    len: size_t,
    flags: c_int,
    address: Out<sockaddr>,
    address_len: InOut<socklen_t>,
) -> ssize_t {
    match table::is_known(fd) {
        true => recvfrom_known(fd, data, len, flags, address, address_len),
        false => real::recvfrom(fd, data, len, flags, address, address_len),
    }
}

#[cold]
#[inline(never)]
fn recvfrom_known(
    fd: c_int,
    data: Out<u8>,
    len: size_t,
    flags: c_int,
    address: Out<sockaddr>,
    address_len: InOut<socklen_t>,
) -> ssize_t {
    let Some(open) = table::socket(fd) else {
        return managing::receive_from(fd, data, len, flags, address, address_len);
    };
    counted(data.slice(len).and_then(|data| {
        let received = receive_at(&open, fd, data, None, flags)?;
        if !address.is_null() {
            put_address(&received.name[..received.name_len], address, address_len)?;
        }
        Ok(received.len)
    }))
}

/// `recvfrom` of programs built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub extern "C" fn __recvfrom_chk(
    fd: c_int,
    data: Out<u8>,
    len: size_t,
    room: size_t,
    flags: c_int,
    address: Out<sockaddr>,
    address_len: InOut<socklen_t>,
) -> ssize_t {
    match table::is_known(fd) && len <= room {
        true => recvfrom(fd, data, len, flags, address, address_len),
        false => real::__recvfrom_chk(fd, data, len, room, flags, address, address_len),
    }
}

/// `recvmsg`
#[unsafe(no_mangle)]
pub extern "C" fn recvmsg(fd: c_int, message: InOut<msghdr>, flags: c_int) -> ssize_t {
    if table::is_known(fd) {
        return recvmsg_known(fd, message, flags);
    }
    let result = real::recvmsg(fd, message, flags);
    if result >= 0
        && let Ok(header) = message.read()
        && passing::carries(&header)
    {
        passing::recognise_passed(&header);
    }
    result
}

#[cold]
#[inline(never)]
fn recvmsg_known(fd: c_int, message: InOut<msghdr>, flags: c_int) -> ssize_t {
    let Some(open) = table::socket(fd) else {
        return managing::receive_message(fd, message, flags);
    };
    counted(message.read().and_then(|mut header| {
        let len = receive_message(&open, fd, &mut header, flags)?;
        message.write(header)?;
        Ok(len)
    }))
}

fn receive_message(
    open: &Open,
    fd: RawFd,
    message: &mut msghdr,
    flags: c_int,
) -> Result<usize, Errno> {
    let parts = parts_of(In::new(message.msg_iov), message.msg_iovlen)?;
    let control = match message.msg_control.is_null() {
        true => None,
        false => Some(Out::<u8>::new(message.msg_control.cast()).slice(message.msg_controllen)?),
    };
    let received = receive_parts(open, fd, parts, control, flags)?;
    if !message.msg_name.is_null() {
        let room = (message.msg_namelen as usize).min(received.name_len);
        let name = Out::<u8>::new(message.msg_name.cast()).slice(room)?;
        name.copy_from_slice(&received.name[..room]);
        message.msg_namelen = received.name_len as socklen_t;
    }
    message.msg_controllen = received.control_len;
    message.msg_flags = received.flags;
    Ok(received.len)
}

fn receive_parts(
    open: &Open,
    fd: RawFd,
    parts: &[iovec],
    control: Option<&mut [u8]>,
    flags: c_int,
) -> Result<Received, Errno> {
    let room = |part: &iovec| Out::<u8>::new(part.iov_base.cast()).slice(part.iov_len);
    if let [part] = parts {
        return receive_at(open, fd, room(part)?, control, flags);
    }
    let mut data = vec![0; len_of(parts)?];
    let received = receive_at(open, fd, &mut data, control, flags)?;
    scatter(parts, &data[..received.len])?;
    Ok(received)
}

/// Writes bytes into parts as far as there is room; gives how many.
pub(super) fn scatter(parts: &[iovec], bytes: &[u8]) -> Result<usize, Errno> {
    let mut rest = bytes;
    for part in parts {
        let (here, behind) = rest.split_at(part.iov_len.min(rest.len()));
        let room = Out::<u8>::new(part.iov_base.cast()).slice(here.len())?;
        room.copy_from_slice(here);
        rest = behind;
    }
    Ok(bytes.len() - rest.len())
}

/// Bytes of parts, one after the other.
pub(super) fn gather(parts: &[iovec]) -> Result<Vec<u8>, Errno> {
    let len = len_of(parts)?;
    let mut data = Vec::new();
    for part in parts {
        let here = part.iov_len.min(len - data.len());
        data.extend_from_slice(In::<u8>::new(part.iov_base.cast()).slice(here)?);
    }
    Ok(data)
}

/// How many bytes the parts have together.
fn len_of(parts: &[iovec]) -> Result<usize, Errno> {
    let mut len: usize = 0;
    for part in parts {
        if part.iov_len > isize::MAX as usize {
            return Err(Errno(libc::EINVAL));
        }
        len = len.saturating_add(part.iov_len);
    }
    Ok(len.min(BYTES_MAX))
}

/// `recvmmsg`
#[unsafe(no_mangle)]
pub extern "C" fn recvmmsg(
    fd: c_int,
    messages: InOut<mmsghdr>,
    count: c_uint,
    flags: c_int,
    timeout: In<timespec>,
) -> c_int {
    let Some(open) = table::socket(fd) else {
        let result = real::recvmmsg(fd, messages, count, flags, timeout);
        if let Ok(messages) = messages.slice(result.max(0) as usize) {
            let headers = messages.iter().map(|message| &message.msg_hdr);
            headers
                .filter(|header| passing::carries(header))
                .for_each(passing::recognise_passed);
        }
        return result;
    };
    let messages = messages.slice((count as usize).min(PARTS_MAX));
    // As in Linux the time is looked at after each message.
    let (messages, until) = match messages.and_then(|all| Ok((all, Until::time(timeout)?))) {
        Ok(both) => both,
        Err(errno) => return fail(errno.0),
    };
    let mut flags = flags;
    let waits_for_one = flags & libc::MSG_WAITFORONE != 0;
    flags &= !libc::MSG_WAITFORONE;
    for (taken, message) in messages.iter_mut().enumerate() {
        match receive_message(&open, fd, &mut message.msg_hdr, flags) {
            Ok(len) => message.msg_len = len as c_uint,
            Err(errno) if taken == 0 => return fail(errno.0),
            Err(_) => return taken as c_int,
        }
        if waits_for_one {
            flags |= libc::MSG_DONTWAIT;
        }
        if until.is_over() {
            return taken as c_int + 1;
        }
    }
    messages.len() as c_int
}

/// `read`
#[unsafe(no_mangle)]
pub extern "C" fn read(fd: c_int, data: Out<u8>, len: size_t) -> ssize_t {
    match table::is_known(fd) {
        true => read_known(fd, data, len),
        false => real::read(fd, data, len),
    }
}

#[cold]
#[inline(never)]
fn read_known(fd: RawFd, data: Out<u8>, len: size_t) -> ssize_t {
    match table::socket(fd) {
        // As the kernel does before it asks the socket.
        Some(_) if len == 0 => 0,
        Some(_) => recv(fd, data, len, 0),
        None => managing::receive(fd, data, len, 0, || real::read(fd, data, len)),
    }
}

/// `read`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __read(fd: c_int, data: Out<u8>, len: size_t) -> ssize_t {
    read(fd, data, len)
}

/// `read` of programs built with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub extern "C" fn __read_chk(fd: c_int, data: Out<u8>, len: size_t, room: size_t) -> ssize_t {
    match table::is_known(fd) && len <= room {
        true => read(fd, data, len),
        false => real::__read_chk(fd, data, len, room),
    }
}

/// `readv`
#[unsafe(no_mangle)]
pub extern "C" fn readv(fd: c_int, parts: In<iovec>, count: c_int) -> ssize_t {
    match table::is_known(fd) {
        true => readv_known(fd, parts, count),
        false => real::readv(fd, parts, count),
    }
}

#[cold]
#[inline(never)]
fn readv_known(fd: c_int, parts: In<iovec>, count: c_int) -> ssize_t {
    match table::socket(fd) {
        Some(open) => counted(counted_parts(parts, count).and_then(|parts| {
            if parts.iter().all(|part| part.iov_len == 0) {
                return Ok(0);
            }
            Ok(receive_parts(&open, fd, parts, None, 0)?.len)
        })),
        None => {
            managing::receive_parts(fd, parts, count as usize, || real::readv(fd, parts, count))
        }
    }
}

/// `preadv2`, which without an offset is `readv`.
#[unsafe(no_mangle)]
pub extern "C" fn preadv2(
    fd: c_int,
    parts: In<iovec>,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    match table::is_known(fd) && offset == -1 {
        true => readv_known(fd, parts, count),
        false => real::preadv2(fd, parts, count, offset, flags),
    }
}

/// The same by the name of programs with large files.
#[unsafe(no_mangle)]
pub extern "C" fn preadv64v2(
    fd: c_int,
    parts: In<iovec>,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    preadv2(fd, parts, count, offset, flags)
}

/// `pwritev2`, which without an offset is `writev`.
#[unsafe(no_mangle)]
pub extern "C" fn pwritev2(
    fd: c_int,
    parts: In<iovec>,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    match table::is_known(fd) && offset == -1 {
        true => writev_known(fd, parts, count),
        false => real::pwritev2(fd, parts, count, offset, flags),
    }
}

/// The same by the name of programs with large files.
#[unsafe(no_mangle)]
pub extern "C" fn pwritev64v2(
    fd: c_int,
    parts: In<iovec>,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    pwritev2(fd, parts, count, offset, flags)
}

/// `sendfile`: not to or from a socket of TIPC; programs then copy.
#[unsafe(no_mangle)]
pub extern "C" fn sendfile(
    out: c_int,
    input: c_int,
    offset: InOut<off_t>,
    count: size_t,
) -> ssize_t {
    match table::socket(out).is_some() || table::socket(input).is_some() {
        true => counted(Err(Errno(libc::EINVAL))),
        false => real::sendfile(out, input, offset, count),
    }
}

/// `sendfile`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn sendfile64(
    out: c_int,
    input: c_int,
    offset: InOut<off_t>,
    count: size_t,
) -> ssize_t {
    sendfile(out, input, offset, count)
}

/// `splice`: not to or from a socket of TIPC; programs then copy.
#[unsafe(no_mangle)]
pub extern "C" fn splice(
    input: c_int,
    from: InOut<off_t>,
    out: c_int,
    to: InOut<off_t>,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    match table::socket(out).is_some() || table::socket(input).is_some() {
        true => counted(Err(Errno(libc::EINVAL))),
        false => real::splice(input, from, out, to, len, flags),
    }
}
