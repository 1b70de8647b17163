//! Making sockets, binding, connections, groups.

use std::ffi::{c_int, c_uint};

use xtipc_descriptors::calls::{life, options, sockets};
use xtipc_descriptors::errno::fail;
use xtipc_descriptors::memory::{In, InOut, Out};

use crate::address::{tipc_addr, tipc_own_node};
use crate::kernel::{
    self, AF_TIPC, CLUSTER_SCOPE, KIND_RANGE, NAME_LEN, NODE_SCOPE, SOL_TIPC, SocketName,
};
use crate::tell;

/// Events of members are wanted; what one sends oneself is wanted.
const GROUP_EVENTS: u32 = 2;
const GROUP_LOOPBACK: u32 = 1;

/// Makes a socket: SOCK_RDM, SOCK_DGRAM, SOCK_SEQPACKET or SOCK_STREAM, perhaps with SOCK_NONBLOCK, SOCK_CLOEXEC.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_socket(sk_type: c_int) -> c_int {
    sockets::socket(AF_TIPC, sk_type, 0)
}

/// Has calls fail with EAGAIN instead of waiting. Returns sd.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_sock_non_block(sd: c_int) -> c_int {
    let flags = options::fcntl(sd, libc::F_GETFL, 0);
    if flags < 0 {
        return flags;
    }
    let flags = (flags | libc::O_NONBLOCK) as usize;
    match options::fcntl(sd, libc::F_SETFL, flags) {
        0.. => sd,
        failed => failed,
    }
}

/// Has messages come back that cannot be delivered.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_sock_rejectable(sd: c_int) -> c_int {
    set(sd, kernel::DEST_DROPPABLE, 0)
}

/// Importance of the messages sent from now on: 0 (low) to 3 (critical).
#[unsafe(no_mangle)]
pub extern "C" fn tipc_sock_importance(sd: c_int, priority: u32) -> c_int {
    set(sd, kernel::IMPORTANCE, priority)
}

/// Closes a socket.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_close(sd: c_int) -> c_int {
    life::close(sd)
}

/// The address of a socket.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_sockaddr(sd: c_int, addr: *mut tipc_addr) -> c_int {
    let mut name = SocketName::default();
    let mut len = NAME_LEN;
    let place = Out::new((&raw mut name).cast());
    match sockets::getsockname(sd, place, InOut::new(&raw mut len)) {
        0 => match Out::new(addr).write(name.socket()) {
            Ok(()) => 0,
            Err(errno) => fail(errno.0),
        },
        failed => failed,
    }
}

/// Binds a socket to a service range, as often as wanted. `scope` is 0 for the whole cluster, or the number of this node.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_bind(sd: c_int, r#type: u32, lower: u32, upper: u32, scope: u32) -> c_int {
    match scope_of(scope) {
        Some(scope) => bind(sd, [r#type, lower, upper], scope),
        None => fail(libc::EINVAL),
    }
}

/// Takes a binding back, given as it was made.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_unbind(sd: c_int, r#type: u32, lower: u32, upper: u32) -> c_int {
    match bind(sd, [r#type, lower, upper], -CLUSTER_SCOPE) {
        0 => 0,
        _ => bind(sd, [r#type, lower, upper], -NODE_SCOPE),
    }
}

/// Connects to a socket that listens. Of a datagram socket this is where tipc_send sends to.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_connect(sd: c_int, dst: *const tipc_addr) -> c_int {
    match In::new(dst).read() {
        Ok(dst) => sockets::connect(sd, SocketName::of(&dst).pointer(), NAME_LEN),
        Err(errno) => fail(errno.0),
    }
}

/// Lets others connect to a socket. The backlog has no meaning.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_listen(sd: c_int, backlog: c_int) -> c_int {
    sockets::listen(sd, backlog)
}

/// Accepts a connection: returns its socket and tells who connected.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_accept(sd: c_int, src: *mut tipc_addr) -> c_int {
    let mut name = SocketName::default();
    let mut len = NAME_LEN;
    let place = Out::new((&raw mut name).cast());
    let accepted = sockets::accept(sd, place, InOut::new(&raw mut len));
    if accepted >= 0 {
        tell(src, name.socket());
    }
    accepted
}

/// Joins the group {type} as {instance}; `member->node` as the scope of tipc_bind. With `events` it is told who joins and leaves, with
/// `loopback` it gets its own multicasts, too.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_join(
    sd: c_int,
    member: *mut tipc_addr,
    events: bool,
    loopback: bool,
) -> c_int {
    let member = match In::new(member.cast_const()).read() {
        Ok(member) => member,
        Err(errno) => return fail(errno.0),
    };
    let Some(scope) = scope_of(member.node) else {
        return fail(libc::EINVAL);
    };
    let mut flags = 0;
    for (wanted, flag) in [(events, GROUP_EVENTS), (loopback, GROUP_LOOPBACK)] {
        if wanted {
            flags |= flag;
        }
    }
    let request = [
        member.r#type,
        member.instance,
        scope.cast_unsigned().into(),
        flags,
    ];
    set_words(sd, kernel::GROUP_JOIN, &request)
}

/// Leaves the group.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_leave(sd: c_int) -> c_int {
    options::setsockopt(sd, SOL_TIPC, kernel::GROUP_LEAVE, In::null(), 0)
}

fn scope_of(node: u32) -> Option<i8> {
    match node {
        0 => Some(CLUSTER_SCOPE),
        own if own == tipc_own_node() => Some(NODE_SCOPE),
        _ => None,
    }
}

fn bind(sd: c_int, range: [u32; 3], scope: i8) -> c_int {
    let name = SocketName::new(KIND_RANGE, scope, range);
    sockets::bind(sd, name.pointer(), NAME_LEN)
}

fn set(sd: c_int, option: c_int, value: u32) -> c_int {
    set_words(sd, option, &[value])
}

fn set_words(sd: c_int, option: c_int, words: &[u32]) -> c_int {
    let len = size_of_val(words) as c_uint;
    options::setsockopt(sd, SOL_TIPC, option, In::new(words.as_ptr().cast()), len)
}
