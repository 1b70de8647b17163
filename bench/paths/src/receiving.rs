//! An application that receives: the daemon's side of a segment delivers messages of 64 bytes to a socket, the library
//! gives them to their reader by one call and their memory back, and the daemon takes note of that.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use xtipc::{Datagram, DestinationName, Node, ServiceAddress, SocketAddress};
use xtipc_segment::attach::{self, Message, Welcome};
use xtipc_segment::daemon::DaemonSide;
use xtipc_segment::layout::{Sizes, VERSION};
use xtipc_segment::{Meta, SocketKind};

const PAYLOAD: [u8; 64] = [7; 64];
const SOCKET: u32 = 7;
const HONEST: &str = "both sides are ours";

/// An attachment with a socket, and the daemon's side of it.
///
/// Valgrind runs no program that asks the kernel for its processor, as the library does when it waits. So the library never
/// waits here: its bell is full, and can be rung once the answer is there.
fn attached() -> (DaemonSide, Datagram) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("attach.sock");
    let listener = attach::listen(&path).expect("a new socket");
    rustix::io::ioctl_fionbio(&listener, false).expect("a socket");
    let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("an event fd");
    rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).expect("room");
    let daemon = thread::spawn(move || {
        let connection = attach::accept(listener.as_fd()).expect("a connection");
        rustix::io::ioctl_fionbio(&connection, false).expect("a socket");
        attach::receive_message(connection.as_fd()).expect(HONEST);
        let created = DaemonSide::create(&Sizes::default());
        let (mut daemon, mut fds) = created.expect("memory for a segment");
        assert_eq!(daemon.before_sleep(false), Ok(true));
        fds.doorbell = bell.try_clone().expect("another of it");
        let welcome = Message::Welcome(Welcome {
            version: VERSION,
            node: 1,
            identity: [1; 16],
            direct_after: 0,
        });
        attach::send_message(connection.as_fd(), &welcome, &fds.as_fds()).expect("a reader");
        let opens = loop {
            match daemon.pop().expect(HONEST) {
                Some(request) => break request,
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        let values = [SOCKET.into(), 0];
        daemon.complete(opens.tag, 0, values).expect(HONEST);
        daemon.awake();
        rustix::io::read(&bell, &mut [0; 8]).expect("it was full");
        (daemon, connection)
    });
    let node = Node::builder().socket_path(path).attach().expect(HONEST);
    let socket = Datagram::open(&node, SocketKind::Rdm).expect(HONEST);
    let (daemon, connection) = daemon.join().expect("no panic");
    // Its end would be that of the attachment.
    std::mem::forget(connection);
    (daemon, socket)
}

/// See the module; `batch` messages are delivered and received together.
pub(crate) fn messages(count: u64, batch: usize) {
    let (mut daemon, socket) = attached();
    let mut received = Vec::with_capacity(batch);
    let mut consumed = 0;
    let meta = Meta {
        socket: SOCKET,
        source: SocketAddress { port: 5, node: 6 },
        destination: DestinationName::Service(ServiceAddress {
            type_: 1000,
            instance: 1,
        }),
        cost: 100,
        ..Meta::default()
    };
    let mut left = count as usize;
    while left > 0 {
        let together = left.min(batch);
        left -= together;
        for _ in 0..together {
            let delivered = daemon.deliver(&meta, PAYLOAD.len(), |room| {
                room.copy_from_slice(&PAYLOAD);
            });
            assert!(delivered.is_ok(), "there is room");
        }
        daemon.notify();
        let taken = socket.recv_many(&mut received, batch).expect(HONEST);
        assert_eq!(taken, together);
        for message in received.drain(..) {
            assert_eq!(message[..], PAYLOAD);
        }
        let noted = daemon.drain_releases(2 * batch, |notice| consumed += u64::from(notice.count));
        noted.expect(HONEST);
    }
    assert_eq!(consumed, count, "each message once");
    // To close it would be to ask a daemon that does not look.
    std::mem::forget(socket);
}
