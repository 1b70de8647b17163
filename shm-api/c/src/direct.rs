//! The direct calls: what the Rust API has that descriptors cannot do. A message is read where the daemon put it, or the sender wrote
//! it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use xtipc::{
    Connection, ConnectionKind, Datagram, Destination, Kind, Listener, Loan, Node, Rejection,
    Scope, ServiceAddress, ServiceRange, SharedMessage, SocketAddress,
};
use xtipc_descriptors::errno::fail;
use xtipc_descriptors::memory::In;

use crate::address::tipc_addr;
use crate::kernel::{CLUSTER_SCOPE, NODE_SCOPE};
use crate::tell;

/// A program's attachment to the node of this host. A forked child must attach itself.
pub struct xtipc_node {
    node: Node,
}

/// A socket without a descriptor. It may be used by several threads at once.
pub struct xtipc_socket {
    socket: Direct,
    timeout_ms: AtomicI32,
}

enum Direct {
    Datagram(Datagram),
    Listener(Listener),
    Connection(Connection),
}

/// A message that was received.
pub struct xtipc_message {
    message: SharedMessage,
}

/// Memory for a message that is to be sent on a connection.
pub struct xtipc_loan {
    loan: Loan,
}

/// Why a call fails.
struct Failure(c_int);

impl From<xtipc::Error> for Failure {
    fn from(error: xtipc::Error) -> Self {
        Self(error.errno())
    }
}

const INVALID: Failure = Failure(libc::EINVAL);
const UNSUPPORTED: Failure = Failure(libc::EOPNOTSUPP);

type Outcome<T> = Result<T, Failure>;

/// Hands an object out, to be given back once.
fn object<T>(made: Outcome<T>) -> *mut T {
    match made {
        Ok(made) => Box::into_raw(Box::new(made)),
        Err(Failure(errno)) => {
            fail(errno);
            std::ptr::null_mut()
        }
    }
}

fn status(done: Outcome<c_int>) -> c_int {
    done.unwrap_or_else(|Failure(errno)| fail(errno))
}

/// An object that was handed out.
fn lent<'a, T>(object: *const T) -> Outcome<&'a T> {
    // SAFETY: it is null, or came from `object` and was not given back, as the header demands.
    unsafe { object.as_ref() }.ok_or(Failure(libc::EFAULT))
}

/// Takes an object back.
fn returned<T>(object: *mut T) -> Outcome<T> {
    if object.is_null() {
        return Err(Failure(libc::EFAULT));
    }
    // SAFETY: it came from `object`, and this is the one time that it is given back, as the header demands.
    Ok(*unsafe { Box::from_raw(object) })
}

fn bytes<'a>(data: *const c_void, len: usize) -> Outcome<&'a [u8]> {
    let bytes = In::<u8>::new(data.cast()).slice(len);
    bytes.map_err(|errno| Failure(errno.0))
}

fn destination(dst: *const tipc_addr) -> Outcome<Option<Destination>> {
    if dst.is_null() {
        return Ok(None);
    }
    let dst = In::new(dst).read().map_err(|errno| Failure(errno.0))?;
    Ok(Some(match dst.r#type {
        0 => Destination::Socket(SocketAddress {
            port: dst.instance,
            node: dst.node,
        }),
        type_ => Destination::Service {
            address: ServiceAddress {
                type_,
                instance: dst.instance,
            },
            domain: dst.node,
        },
    }))
}

fn scope_of(scope: c_int) -> Outcome<Scope> {
    match i8::try_from(scope) {
        Ok(CLUSTER_SCOPE) => Ok(Scope::Cluster),
        Ok(NODE_SCOPE) => Ok(Scope::Node),
        _ => Err(INVALID),
    }
}

fn connection_kind(sk_type: c_int) -> Outcome<ConnectionKind> {
    match sk_type {
        libc::SOCK_SEQPACKET => Ok(ConnectionKind::Seqpacket),
        libc::SOCK_STREAM => Ok(ConnectionKind::Stream),
        _ => Err(INVALID),
    }
}

impl From<Direct> for xtipc_socket {
    fn from(socket: Direct) -> Self {
        let timeout_ms = AtomicI32::new(-1);
        Self { socket, timeout_ms }
    }
}

impl xtipc_socket {
    fn connection(&self) -> Outcome<&Connection> {
        match &self.socket {
            Direct::Connection(connection) => Ok(connection),
            Direct::Datagram(_) | Direct::Listener(_) => Err(UNSUPPORTED),
        }
    }
}

/// Attaches the program to a node: the one whose attach socket is named, or for NULL that of tipc_socket.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_attach(path: *const c_char) -> *mut xtipc_node {
    let builder = Node::builder();
    let builder = match In::new(path).string().map(CStr::to_string_lossy) {
        Some(path) => builder.socket_path(path.as_ref()),
        None => builder,
    };
    object(
        builder
            .attach()
            .map_err(Failure::from)
            .map(|node| xtipc_node { node }),
    )
}

/// Ends the attachment once its sockets are closed.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_detach(node: *mut xtipc_node) {
    drop(returned(node));
}

/// Opens a datagram socket, SOCK_RDM or SOCK_DGRAM.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_open(node: *const xtipc_node, sk_type: c_int) -> *mut xtipc_socket {
    let open = || {
        let kind = match sk_type {
            libc::SOCK_RDM => Kind::Rdm,
            libc::SOCK_DGRAM => Kind::Dgram,
            _ => return Err(INVALID),
        };
        let datagram = Datagram::open(&lent(node)?.node, kind)?;
        Ok(Direct::Datagram(datagram).into())
    };
    object(open())
}

/// Binds a datagram socket to a service range; `scope` is TIPC_CLUSTER_SCOPE or TIPC_NODE_SCOPE.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_bind(
    socket: *const xtipc_socket,
    r#type: u32,
    lower: u32,
    upper: u32,
    scope: c_int,
) -> c_int {
    let range = ServiceRange {
        type_: r#type,
        lower,
        upper,
    };
    let bind = || match &lent(socket)?.socket {
        Direct::Datagram(datagram) => {
            datagram.bind(range, scope_of(scope)?)?;
            Ok(0)
        }
        Direct::Listener(_) | Direct::Connection(_) => Err(UNSUPPORTED),
    };
    status(bind())
}

/// Listens for connections, SOCK_SEQPACKET or SOCK_STREAM, at a service range; `scope` as in xtipc_bind.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_listen(
    node: *const xtipc_node,
    sk_type: c_int,
    r#type: u32,
    lower: u32,
    upper: u32,
    scope: c_int,
) -> *mut xtipc_socket {
    let range = ServiceRange {
        type_: r#type,
        lower,
        upper,
    };
    let listen = || {
        let kind = connection_kind(sk_type)?;
        let listener = Listener::bind(&lent(node)?.node, kind, range, scope_of(scope)?)?;
        Ok(Direct::Listener(listener).into())
    };
    object(listen())
}

/// Accepts a connection.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_accept(listener: *const xtipc_socket) -> *mut xtipc_socket {
    let accept = || {
        let listener = lent(listener)?;
        let Direct::Listener(own) = &listener.socket else {
            return Err(UNSUPPORTED);
        };
        let (connection, _) = match u64::try_from(listener.timeout_ms.load(Ordering::Relaxed)) {
            Err(_) => own.accept(),
            Ok(0) => own.try_accept(),
            Ok(ms) => own.accept_timeout(Duration::from_millis(ms)),
        }?;
        Ok(Direct::Connection(connection).into())
    };
    object(accept())
}

/// Connects, SOCK_SEQPACKET or SOCK_STREAM, to a socket that listens.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_connect(
    node: *const xtipc_node,
    sk_type: c_int,
    dst: *const tipc_addr,
) -> *mut xtipc_socket {
    let connect = || {
        let kind = connection_kind(sk_type)?;
        let to = destination(dst)?.ok_or(Failure(libc::EFAULT))?;
        let connection = Connection::connect(&lent(node)?.node, kind, to)?;
        Ok(Direct::Connection(connection).into())
    };
    object(connect())
}

/// Ends a connection in order: the peer reads what was sent, then its end.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_shutdown(socket: *const xtipc_socket) -> c_int {
    let shutdown = || {
        lent(socket)?.connection()?.shutdown()?;
        Ok(0)
    };
    status(shutdown())
}

/// Closes a socket. Messages that were received of it, and loans, stay and are given back on their own.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_close(socket: *mut xtipc_socket) {
    drop(returned(socket));
}

/// How many milliseconds calls wait at most: 0 not at all, below 0 (the default) as long as it takes.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_set_timeout(socket: *const xtipc_socket, timeout_ms: c_int) -> c_int {
    let set = || {
        let socket = lent(socket)?;
        let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let nonblocking = timeout_ms == 0;
        match &socket.socket {
            Direct::Datagram(datagram) => {
                datagram.set_read_timeout(limit);
                datagram.set_write_timeout(limit);
                datagram.set_nonblocking(nonblocking);
            }
            Direct::Connection(connection) => {
                connection.set_read_timeout(limit);
                connection.set_write_timeout(limit);
                connection.set_nonblocking(nonblocking);
            }
            Direct::Listener(_) => socket.timeout_ms.store(timeout_ms, Ordering::Relaxed),
        }
        Ok(0)
    };
    status(set())
}

/// Sends a message: of a datagram socket to `dst`, on a connection with `dst` NULL. Returns how many bytes were taken.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_send(
    socket: *const xtipc_socket,
    msg: *const c_void,
    len: usize,
    dst: *const tipc_addr,
) -> c_int {
    let send = || {
        let payload = bytes(msg, len)?;
        let sent = match (&lent(socket)?.socket, destination(dst)?) {
            (Direct::Datagram(datagram), Some(to)) => {
                datagram.send_to(payload, to)?;
                payload.len()
            }
            (Direct::Connection(connection), None) => connection.send(payload)?,
            (Direct::Datagram(_), None) => return Err(Failure(libc::EDESTADDRREQ)),
            (Direct::Connection(_), Some(_)) => return Err(Failure(libc::EISCONN)),
            (Direct::Listener(_), _) => return Err(UNSUPPORTED),
        };
        Ok(sent as c_int)
    };
    status(send())
}

/// Receives a message, without copying it. NULL with errno 0: the peer has ended the connection in order.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_receive(socket: *const xtipc_socket) -> *mut xtipc_message {
    let receive = || {
        let message = match &lent(socket)?.socket {
            Direct::Datagram(datagram) => SharedMessage::Own(datagram.recv()?),
            Direct::Connection(connection) => connection.recv_shared()?.ok_or(Failure(0))?,
            Direct::Listener(_) => return Err(UNSUPPORTED),
        };
        Ok(xtipc_message { message })
    };
    object(receive())
}

/// Where a message is, and how long; until it is freed. What was loaned lies in memory of the sender, which may change it.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_message_bytes(
    message: *const xtipc_message,
    len: *mut usize,
) -> *const c_void {
    let Ok(xtipc_message { message }) = lent(message) else {
        return std::ptr::null();
    };
    tell(len, message.len());
    match message {
        SharedMessage::Shared(bytes) => bytes.as_ptr().cast(),
        SharedMessage::Own(message) => message.as_ref().as_ptr().cast(),
    }
}

/// The socket that sent a message; of a connection that is the peer, and not told of what was loaned.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_message_source(
    message: *const xtipc_message,
    source: *mut tipc_addr,
) -> c_int {
    let find = || match &lent(message)?.message {
        SharedMessage::Shared(_) => Err(Failure(libc::ENODATA)),
        SharedMessage::Own(message) => {
            let SocketAddress { port, node } = message.source();
            let from = tipc_addr {
                r#type: 0,
                instance: port,
                node,
            };
            tell(source, from);
            Ok(0)
        }
    };
    status(find())
}

/// TIPC's code for why a message came back, if it is one of the socket's own; else 0.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_message_error(message: *const xtipc_message) -> c_int {
    let find = || match &lent(message)?.message {
        SharedMessage::Shared(_) => Ok(0),
        SharedMessage::Own(message) => Ok(message.error().map_or(0, code_of)),
    };
    status(find())
}

fn code_of(rejection: Rejection) -> c_int {
    match rejection {
        Rejection::NoName => 1,
        Rejection::NoPort => 2,
        Rejection::NoNode => 3,
        Rejection::Overload => 4,
        Rejection::Shutdown => 5,
        Rejection::Other(code) => code.into(),
    }
}

/// Gives the memory of a message back.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_message_free(message: *mut xtipc_message) {
    drop(returned(message));
}

/// Memory for a message of `len` bytes, to be written and sent on a connection. Between programs of one node with a direct channel
/// the receiver gets this very memory; else it is copied.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_loan_take(socket: *const xtipc_socket, len: usize) -> *mut xtipc_loan {
    let take = || {
        let loan = lent(socket)?.connection()?.loan(len)?;
        Ok(xtipc_loan { loan })
    };
    object(take())
}

/// Where the memory of a loan is.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_loan_bytes(loan: *mut xtipc_loan) -> *mut c_void {
    // SAFETY: it is null, or came from `object` and was not given back; nobody else uses it meanwhile, as the header demands.
    match unsafe { loan.as_mut() } {
        Some(xtipc_loan { loan }) => loan.as_mut_ptr().cast(),
        None => std::ptr::null_mut(),
    }
}

/// Sends a loan, which is gone by that in any case, on the connection it was taken of.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_loan_send(socket: *const xtipc_socket, loan: *mut xtipc_loan) -> c_int {
    let send = || {
        let xtipc_loan { loan } = returned(loan)?;
        Ok(lent(socket)?.connection()?.send_loan(loan)? as c_int)
    };
    status(send())
}

/// Gives a loan back that was not sent.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_loan_free(loan: *mut xtipc_loan) {
    drop(returned(loan));
}
