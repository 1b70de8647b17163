//! Sending and receiving.

use std::ffi::{c_int, c_void};

use libc::{iovec, msghdr};
use xtipc_descriptors::calls::data;
use xtipc_descriptors::errno::fail;
use xtipc_descriptors::memory::{In, InOut, Out};

use crate::address::{tipc_addr, tipc_own_node};
use crate::kernel::{KIND_RANGE, NAME_LEN, SOL_TIPC, SocketName};
use crate::sockets::tipc_sockaddr;
use crate::tell;

/// Types of ancillary data.
const ERRINFO: c_int = 1;
const RETDATA: c_int = 2;
/// Bytes of a message that come back at most.
const RETURNED_MAX: usize = 1024;
/// Length, level and type of ancillary data, and the room for all that a message can have: the error, what came back, and the name it
/// was sent to.
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
const CONTROL_LEN: usize = 3 * HEADER_LEN + 8 + RETURNED_MAX + 16;

/// Sends to the peer of a connection, or to all members of the group.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_send(sd: c_int, msg: *const c_void, len: usize) -> c_int {
    data::send(sd, In::new(msg.cast()), len, 0) as c_int
}

/// `sendmsg` without flags.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_sendmsg(sd: c_int, msg: *const msghdr) -> c_int {
    data::sendmsg(sd, In::new(msg), 0) as c_int
}

/// Sends to one socket: that of the address, or one of those that are bound to the service address. Of a fresh socket of a connection
/// type it asks for a connection as well.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_sendto(
    sd: c_int,
    msg: *const c_void,
    len: usize,
    dst: *const tipc_addr,
) -> c_int {
    match In::new(dst).read() {
        Ok(dst) => send_to(sd, msg, len, SocketName::of(&dst)),
        Err(errno) => fail(errno.0),
    }
}

/// Sends to all sockets that are bound to the service address; `dst->node` is 0 or the number of this node.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_mcast(
    sd: c_int,
    msg: *const c_void,
    len: usize,
    dst: *const tipc_addr,
) -> c_int {
    let dst = match In::new(dst).read() {
        Ok(dst) => dst,
        Err(errno) => return fail(errno.0),
    };
    if dst.node != 0 && dst.node != tipc_own_node() {
        return fail(libc::EINVAL);
    }
    let range = [dst.r#type, dst.instance, dst.instance];
    send_to(sd, msg, len, SocketName::new(KIND_RANGE, 0, range))
}

fn send_to(sd: c_int, msg: *const c_void, len: usize, name: SocketName) -> c_int {
    data::sendto(sd, In::new(msg.cast()), len, 0, name.pointer(), NAME_LEN) as c_int
}

/// Receives a message; of a stream with `waitall` as many bytes as there is room for.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_recv(sd: c_int, buf: *mut c_void, len: usize, waitall: bool) -> c_int {
    let flags = if waitall { libc::MSG_WAITALL } else { 0 };
    data::recv(sd, Out::new(buf.cast()), len, flags) as c_int
}

/// Receives a message and tells who sent it: the socket, and of a member of the group its address in the group. `*err` is 0;
/// -1 for the event that the member left, while that it joined is a message of 0 bytes; above 0 for a message of this
/// socket that came back, of which `buf` gets at most 1024 bytes. Without `err` what came back counts as 0 bytes.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_recvfrom(
    sd: c_int,
    buf: *mut c_void,
    len: usize,
    socket: *mut tipc_addr,
    member: *mut tipc_addr,
    err: *mut c_int,
) -> c_int {
    let mut names = [SocketName::default(); 2];
    let mut control = [0u64; CONTROL_LEN.div_ceil(8)];
    let mut part = iovec {
        iov_base: buf,
        iov_len: len,
    };
    let mut message = msghdr {
        msg_name: names.as_mut_ptr().cast(),
        msg_namelen: 2 * NAME_LEN,
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: size_of_val(&control),
        msg_flags: 0,
    };
    let received = data::recvmsg(sd, InOut::new(&raw mut message), 0) as c_int;
    if received < 0 {
        return received;
    }
    let used = In::<u8>::new(control.as_ptr().cast()).slice(message.msg_controllen);
    let rejected = Rejected::find(used.unwrap_or_default());
    let mut source = names[0].socket();
    let [r#type, instance, _] = names[1].words;
    let (mut result, mut code) = (received, 0);
    if let Some(Rejected { error, text }) = rejected {
        tipc_sockaddr(sd, &raw mut source);
        let room = Out::<u8>::new(buf.cast()).slice(len).unwrap_or_default();
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text[..count]);
        result = if err.is_null() { 0 } else { count as c_int };
        code = error;
    } else if message.msg_flags & libc::MSG_OOB != 0 {
        result = 0;
        code = if message.msg_flags & libc::MSG_EOR != 0 {
            -1
        } else {
            0
        };
    }
    tell(socket, source);
    tell(
        member,
        tipc_addr {
            r#type,
            instance,
            node: 0,
        },
    );
    tell(err, code);
    result
}

/// A message that came back.
struct Rejected<'a> {
    error: c_int,
    text: &'a [u8],
}

impl<'a> Rejected<'a> {
    fn find(mut control: &'a [u8]) -> Option<Self> {
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, c_int::from_ne_bytes);
        let mut found = None;
        while control.len() >= HEADER_LEN {
            let len = control[..size_of::<usize>()].try_into();
            let len = len.map_or(0, usize::from_ne_bytes);
            let level = word(&control[size_of::<usize>()..][..4]);
            let kind = word(&control[size_of::<usize>() + 4..][..4]);
            let Some(data) = control.get(HEADER_LEN..len) else {
                break;
            };
            match (level, kind, &mut found) {
                (SOL_TIPC, ERRINFO, None) => {
                    let error = word(data.get(..4).unwrap_or_default());
                    found = Some(Self { error, text: &[] });
                }
                (SOL_TIPC, RETDATA, Some(found)) => found.text = data,
                _ => {}
            }
            let next = len.next_multiple_of(align_of::<libc::cmsghdr>());
            control = control.get(next..).unwrap_or_default();
        }
        found
    }
}
