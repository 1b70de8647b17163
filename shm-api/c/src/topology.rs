//! Service tracking: what is bound, which nodes and links are up.

use std::ffi::{c_int, c_uint};

use xtipc_descriptors::calls::{data, life};
use xtipc_descriptors::errno::fail;
use xtipc_descriptors::memory::{In, Out};

use crate::address::tipc_addr;
use crate::kernel::{Event, Subscription};
use crate::sockets::{tipc_connect, tipc_socket};
use crate::tell;

/// The topology service, and the services that stand for nodes and links.
const TOPOLOGY: u32 = 1;
const NODES: u32 = 0;
const LINKS: u32 = 2;

/// Filters: an event for each binding, or for the first and the last one.
const ALL: u32 = 1;
const EDGES: u32 = 2;

const PUBLISHED: u32 = 1;
const TIMED_OUT: u32 = 3;

/// Connects to the topology service of a node, 0 being any: returns the socket.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_topsrv_conn(topsrv_node: u32) -> c_int {
    let sd = tipc_socket(libc::SOCK_SEQPACKET);
    if sd < 0 {
        return sd;
    }
    let service = tipc_addr {
        r#type: TOPOLOGY,
        instance: TOPOLOGY,
        node: topsrv_node,
    };
    match tipc_connect(sd, &raw const service) {
        0 => sd,
        failed => closed(sd, failed),
    }
}

/// Asks to be told of bindings in a service range: of each one (`all`), or whether there is one. For `expire` milliseconds, or
/// for good if that is below 0.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_srv_subscr(
    sd: c_int,
    r#type: u32,
    lower: u32,
    upper: u32,
    all: bool,
    expire: c_int,
) -> c_int {
    let request = Subscription {
        range: [r#type, lower, upper],
        timeout_ms: u32::try_from(expire).unwrap_or(u32::MAX),
        filter: if all { ALL } else { EDGES },
        handle: [0; 8],
    };
    let len = size_of::<Subscription>();
    let sent = data::send(sd, In::new((&raw const request).cast()), len, 0);
    match usize::try_from(sent) {
        Ok(sent) if sent == len => 0,
        Ok(_) => fail(libc::EIO),
        Err(_) => -1,
    }
}

/// Waits for the next event: which service was bound (`*up`) or withdrawn, and by which socket. That a subscription has expired is told by
/// `*expired` alone.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_srv_evt(
    sd: c_int,
    srv: *mut tipc_addr,
    addr: *mut tipc_addr,
    up: *mut bool,
    expired: *mut bool,
) -> c_int {
    let Some(event) = next(sd) else {
        return -1;
    };
    let has_expired = event.what == TIMED_OUT;
    tell(expired, has_expired);
    if has_expired {
        return 0;
    }
    tell(
        srv,
        tipc_addr {
            r#type: event.subscription.range[0],
            instance: event.found[0],
            node: event.node,
        },
    );
    tell(
        addr,
        tipc_addr {
            r#type: 0,
            instance: event.port,
            node: event.node,
        },
    );
    tell(up, event.what == PUBLISHED);
    0
}

/// Waits until a service is bound, on `srv->node` if that is not 0, for at most `expire` milliseconds. Tells whether it is.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_srv_wait(srv: *const tipc_addr, expire: c_int) -> bool {
    let Ok(srv) = In::new(srv).read() else {
        fail(libc::EFAULT);
        return false;
    };
    let sd = tipc_topsrv_conn(0);
    if sd < 0 {
        return false;
    }
    let instance = srv.instance;
    // Of one node among several each binding is wanted.
    let all = srv.node != 0;
    let is_up = tipc_srv_subscr(sd, srv.r#type, instance, instance, all, expire) == 0
        && std::iter::from_fn(|| next(sd))
            .take_while(|event| event.what != TIMED_OUT)
            .any(|event| event.what == PUBLISHED && (!all || event.node == srv.node));
    closed(sd, 0);
    is_up
}

/// Asks to be told which nodes come and go: returns the socket for tipc_neigh_evt.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_neigh_subscr(topsrv_node: u32) -> c_int {
    subscribed(topsrv_node, NODES)
}

/// Waits for the next event: the number of a node, and whether it is up.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_neigh_evt(sd: c_int, neigh_node: *mut u32, up: *mut bool) -> c_int {
    let Some(event) = next(sd) else {
        return -1;
    };
    tell(neigh_node, event.found[0]);
    tell(up, event.what == PUBLISHED);
    0
}

/// Asks to be told which links come and go: returns the socket for tipc_link_evt.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_link_subscr(topsrv_node: u32) -> c_int {
    subscribed(topsrv_node, LINKS)
}

/// Waits for the next event: the node at the other end of a link, whether the link is up, and the numbers of its bearers here and
/// there.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_link_evt(
    sd: c_int,
    neigh_node: *mut u32,
    up: *mut bool,
    local_bearerid: *mut c_int,
    remote_bearerid: *mut c_int,
) -> c_int {
    let Some(event) = next(sd) else {
        return -1;
    };
    tell(neigh_node, event.found[0]);
    tell(up, event.what == PUBLISHED);
    tell(local_bearerid, (event.port & 0xffff) as c_int);
    tell(remote_bearerid, (event.port >> 16) as c_int);
    0
}

fn subscribed(topsrv_node: u32, service: u32) -> c_int {
    let sd = tipc_topsrv_conn(topsrv_node);
    if sd < 0 {
        return sd;
    }
    match tipc_srv_subscr(sd, service, 0, c_uint::MAX, true, -1) {
        0 => sd,
        failed => closed(sd, failed),
    }
}

/// Closes a socket and gives a result; `errno` stays what it is.
fn closed(sd: c_int, result: c_int) -> c_int {
    let errno = std::io::Error::last_os_error().raw_os_error();
    life::close(sd);
    fail(errno.unwrap_or(0));
    result
}

fn next(sd: c_int) -> Option<Event> {
    let mut event = Event::default();
    let len = size_of::<Event>();
    let received = data::recv(sd, Out::new((&raw mut event).cast()), len, 0);
    match usize::try_from(received) {
        Ok(received) if received == len => Some(event),
        Ok(_) => {
            // The service has hung up.
            fail(libc::ECONNRESET);
            None
        }
        Err(_) => None,
    }
}
