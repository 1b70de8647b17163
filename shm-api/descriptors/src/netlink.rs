//! Sockets of generic netlink, by which programs manage TIPC. They are the kernel's; what is meant for the family of TIPC is taken out of
//! what the program sends, and answered (`xtipc-netlink`).
//!
//! In the socket's queue an answer is stood for by an acknowledgement: the kernel is sent a message that does nothing and asks for
//! one. So order, waiting and readiness are the kernel's. Whoever receives the acknowledgement is given the answer.

use std::collections::VecDeque;
use std::mem::size_of;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_int, sockaddr, sockaddr_nl, socklen_t};
use xtipc::socket::Errno;
use xtipc_management::{Client, ClientError, Failure, Reply, Request};
use xtipc_netlink::{Asker, Message, answer, is_for_tipc};

use crate::errno::last;
use crate::memory::{In, InOut, Out};
use crate::{process, real, table};

/// Acknowledgements in a socket's queue at a time: they have to fit into its receive buffer.
const STANDING_MAX: usize = 16;
/// Bytes of a message without payload, and of the acknowledgement of one.
const EMPTY_LEN: usize = 16;
const ACKNOWLEDGED_LEN: usize = EMPTY_LEN + 4 + EMPTY_LEN;

/// Answers that a socket's program has not received.
struct Waiting {
    /// The descriptors of the socket.
    fds: Vec<RawFd>,
    /// Answers that an acknowledgement stands for, by its number.
    standing: VecDeque<(u32, Vec<u8>)>,
    /// Those that follow.
    later: VecDeque<Vec<u8>>,
    /// The next number.
    next: u32,
}

static SOCKETS: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

fn sockets() -> MutexGuard<'static, Vec<Waiting>> {
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held over a fork, so that the child finds it free.
pub(crate) struct Pause {
    _sockets: MutexGuard<'static, Vec<Waiting>>,
}

pub(crate) fn pause() -> Pause {
    Pause {
        _sockets: sockets(),
    }
}

/// Whether `socket` makes one of generic netlink.
pub(crate) fn is_meant(family: c_int, protocol: c_int) -> bool {
    (family, protocol) == (libc::AF_NETLINK, libc::NETLINK_GENERIC)
}

/// The program has made one.
pub(crate) fn opened(fd: RawFd) {
    if table::has_room(fd) && !process::is_borrowed() {
        table::mark_netlink(fd);
        sockets().push(Waiting {
            fds: vec![fd],
            standing: VecDeque::new(),
            later: VecDeque::new(),
            next: 1,
        });
    }
}

/// `copy` has become a copy of `fd`, which may be one.
pub(crate) fn copied(fd: RawFd, copy: RawFd) {
    if table::is_netlink(fd)
        && table::has_room(copy)
        && let Some(waiting) = of(&mut sockets(), fd)
    {
        waiting.fds.push(copy);
        table::mark_netlink(copy);
    }
}

/// One is being closed.
pub(crate) fn closed(fd: RawFd) {
    let mut all = sockets();
    if let Some(waiting) = of(&mut all, fd) {
        waiting.fds.retain(|other| *other != fd);
    }
    all.retain(|waiting| !waiting.fds.is_empty());
}

fn of(all: &mut [Waiting], fd: RawFd) -> Option<&mut Waiting> {
    all.iter_mut().find(|waiting| waiting.fds.contains(&fd))
}

/// Sends a datagram of the program, if there is a message for TIPC in it. `None`: there is not, and it is for the kernel as it is.
pub(crate) fn send(fd: RawFd, data: &[u8], flags: c_int) -> Option<Result<usize, Errno>> {
    messages(data)
        .any(|message| is_for_tipc(&message))
        .then(|| {
            for message in messages(data) {
                if is_for_tipc(&message) {
                    let datagrams = answer(&message, asker(fd)?, ask);
                    put(fd, datagrams)?;
                } else {
                    send_real(fd, message.bytes(), flags)?;
                }
            }
            Ok(data.len())
        })
}

fn messages(mut data: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (message, rest) = Message::first(data)?;
        data = rest;
        Some(message)
    })
}

fn send_real(fd: RawFd, bytes: &[u8], flags: c_int) -> Result<(), Errno> {
    match real::send(fd, In::new(bytes.as_ptr()), bytes.len(), flags) {
        -1 => Err(Errno(last())),
        _ => Ok(()),
    }
}

/// Who asks. A socket that has no address yet gets one, as with any message to the kernel.
fn asker(fd: RawFd) -> Result<Asker, Errno> {
    let address = || -> Result<sockaddr_nl, Errno> {
        // SAFETY: all of its fields are numbers.
        let mut address: sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut len = size_of::<sockaddr_nl>() as socklen_t;
        let place = Out::new((&raw mut address).cast::<sockaddr>());
        match real::getsockname(fd, place, InOut::new(&raw mut len)) {
            -1 => Err(Errno(last())),
            _ => Ok(address),
        }
    };
    let mut own = address()?;
    if own.nl_pid == 0 {
        own.nl_family = libc::AF_NETLINK as u16;
        let place = In::new((&raw const own).cast::<sockaddr>());
        if real::bind(fd, place, size_of::<sockaddr_nl>() as socklen_t) < 0 {
            return Err(Errno(last()));
        }
        own = address()?;
    }
    Ok(Asker {
        port: own.nl_pid,
        explained: is_set(fd, libc::NETLINK_EXT_ACK),
        capped: is_set(fd, libc::NETLINK_CAP_ACK),
    })
}

fn is_set(fd: RawFd, option: c_int) -> bool {
    let mut value = [0; size_of::<c_int>()];
    let mut len = value.len() as socklen_t;
    let place = Out::new(value.as_mut_ptr());
    let result = real::getsockopt(
        fd,
        libc::SOL_NETLINK,
        option,
        place,
        InOut::new(&raw mut len),
    );
    result == 0 && c_int::from_ne_bytes(value) != 0
}

/// Has the daemon of this process's node answer.
fn ask(request: &Request) -> Result<Reply, Failure> {
    let reply = Client::connect(&control_socket()).and_then(|mut client| client.call(request));
    reply.map_err(|error| {
        let errno = match &error {
            ClientError::Refused(failure) => return failure.clone(),
            // There is no TIPC, and so no such family.
            ClientError::NoDaemon(_) => libc::ENOENT,
            ClientError::PermissionDenied(_) => libc::EPERM,
            _ => libc::EIO,
        };
        process::tell(&error);
        Failure {
            errno,
            text: error.to_string(),
        }
    })
}

/// It is beside the attach socket.
fn control_socket() -> PathBuf {
    let attach = std::env::var_os("XTIPC_SOCKET");
    let attach = attach.map_or_else(|| Path::new("/run/xtipc/attach.sock").into(), PathBuf::from);
    attach.with_file_name("control.sock")
}

fn put(fd: RawFd, datagrams: Vec<Vec<u8>>) -> Result<(), Errno> {
    let mut all = sockets();
    let Some(waiting) = of(&mut all, fd) else {
        return Ok(());
    };
    waiting.later.extend(datagrams);
    stand_in(waiting, fd)
}

/// Has acknowledgements stand for as many answers as may be.
fn stand_in(waiting: &mut Waiting, fd: RawFd) -> Result<(), Errno> {
    while waiting.standing.len() < STANDING_MAX {
        let Some(datagram) = waiting.later.pop_front() else {
            break;
        };
        send_real(
            fd,
            &asking_for_acknowledgement(waiting.next),
            libc::MSG_NOSIGNAL,
        )?;
        waiting.standing.push_back((waiting.next, datagram));
        waiting.next = waiting.next.wrapping_add(1);
    }
    Ok(())
}

fn asking_for_acknowledgement(number: u32) -> [u8; EMPTY_LEN] {
    let mut bytes = [0; EMPTY_LEN];
    bytes[..4].copy_from_slice(&(EMPTY_LEN as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&(libc::NLMSG_NOOP as u16).to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&number.to_ne_bytes());
    bytes
}

/// The number in an acknowledgement that stands for an answer.
fn number_of(datagram: &[u8]) -> Option<u32> {
    let inner = datagram.get(ACKNOWLEDGED_LEN - EMPTY_LEN..ACKNOWLEDGED_LEN)?;
    let number = u32::from_ne_bytes(*inner.get(8..)?.first_chunk()?);
    (inner[..12] == asking_for_acknowledgement(number)[..12]).then_some(number)
}

/// What the program is to receive instead of what is first in the queue. `None`: that, by the real call. Waits as that one would.
pub(crate) fn receive(fd: RawFd, flags: c_int) -> Result<Option<Vec<u8>>, Errno> {
    let mut first = [0; ACKNOWLEDGED_LEN];
    let mut look = |flags: c_int| {
        let place = Out::new(first.as_mut_ptr());
        real::recv(fd, place, ACKNOWLEDGED_LEN, flags)
    };
    let waits = flags & libc::MSG_DONTWAIT;
    match look(libc::MSG_PEEK | waits) {
        -1 => match last() {
            // It is not a socket any more, closed where this library does not see it.
            libc::ENOTSOCK | libc::EBADF => return Ok(None),
            errno => return Err(Errno(errno)),
        },
        len if len < ACKNOWLEDGED_LEN as isize => return Ok(None),
        _ => {}
    }
    let Some(number) = number_of(&first) else {
        return Ok(None);
    };
    let mut all = sockets();
    let Some(waiting) = of(&mut all, fd) else {
        return Ok(None);
    };
    let Some(at) = waiting
        .standing
        .iter()
        .position(|(standing, _)| *standing == number)
    else {
        return Ok(None);
    };
    if flags & libc::MSG_PEEK != 0 {
        return Ok(Some(waiting.standing[at].1.clone()));
    }
    let place = Out::new(first.as_mut_ptr());
    real::recv(fd, place, ACKNOWLEDGED_LEN, libc::MSG_DONTWAIT);
    let answer = waiting.standing.remove(at).map(|(_, answer)| answer);
    stand_in(waiting, fd)?;
    Ok(answer)
}

/// The address of the kernel, which answers come from.
pub(crate) fn kernel_address() -> [u8; size_of::<sockaddr_nl>()] {
    let mut bytes = [0; size_of::<sockaddr_nl>()];
    bytes[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
    bytes
}
