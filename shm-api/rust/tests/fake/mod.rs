//! A daemon in a thread, for tests of the client: sockets, bindings and delivery on one node, no network.
//!
//! Three service types behave in a special way: messages to [`CONGESTED`] are held until [`FakeDaemon::relieve`] or
//! cancelled, messages to [`OVERLOADED`] are rejected, and a message to [`MADDENING`] makes the daemon answer a request
//! that was never made.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use xtipc_segment::attach::{self, Message, Welcome};
use xtipc_segment::daemon::{DaemonSide, DeliverError, MessageRef};
use xtipc_segment::layout::{Sizes, VERSION};
use xtipc_segment::{
    Destination, DestinationName, Importance, Meta, Request, SendFlags, ServiceRange,
    SocketAddress, Submission, address_value, option,
};

pub(crate) const NODE: u32 = 0x1001;
pub(crate) const CONGESTED: u32 = 9999;
pub(crate) const OVERLOADED: u32 = 8888;
pub(crate) const MADDENING: u32 = 7777;
/// Messages that wait for room, per process: beyond it the fake gives up.
const BACKLOG_MAX: usize = 100_000;

/// What tests can see and steer.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    relieve: AtomicBool,
    /// Messages held for congestion so far.
    pub(crate) held: AtomicUsize,
    /// Deliveries that found no room at first.
    pub(crate) postponed: AtomicUsize,
    /// Messages consumed by their readers.
    pub(crate) consumed: AtomicUsize,
    /// Payloads unread when their socket was closed.
    pub(crate) unread: Mutex<Vec<Vec<u8>>>,
}

pub(crate) struct FakeDaemon {
    pub(crate) path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    bell: OwnedFd,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl FakeDaemon {
    pub(crate) fn start() -> Self {
        Self::with_sizes(Sizes::default())
    }

    pub(crate) fn with_sizes(sizes: Sizes) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("attach.sock");
        let listener = attach::listen(&path).expect("listen");
        let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("event fd");
        let shared = Arc::new(Shared::default());
        let mut worker = Worker {
            listener,
            bell: bell.try_clone().expect("fd"),
            sizes,
            shared: Arc::clone(&shared),
            attachments: Vec::new(),
            ports: BTreeMap::new(),
            held: Vec::new(),
            next_port: 100,
        };
        let thread = thread::spawn(move || worker.run());
        Self {
            path,
            shared,
            bell,
            thread: Some(thread),
            _directory: directory,
        }
    }

    /// Ends the congestion.
    pub(crate) fn relieve(&self) {
        self.shared.relieve.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Dies.
    pub(crate) fn kill(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.ring();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the fake daemon did not panic");
        }
    }

    fn ring(&self) {
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).expect("event fd");
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.stop.store(true, Ordering::SeqCst);
            self.ring();
        } else {
            self.kill();
        }
    }
}

struct Attachment {
    socket: OwnedFd,
    side: DaemonSide,
    backlog: VecDeque<(Meta, Vec<u8>)>,
}

struct Port {
    attachment: usize,
    bindings: Vec<(ServiceRange, u32)>,
    connected: Option<Destination>,
    importance: Importance,
    dest_droppable: bool,
}

struct Held {
    attachment: usize,
    tag: u64,
}

struct Worker {
    listener: OwnedFd,
    bell: OwnedFd,
    sizes: Sizes,
    shared: Arc<Shared>,
    /// By index; a closed one stays as `None`.
    attachments: Vec<Option<Attachment>>,
    /// The id of a socket is its port number.
    ports: BTreeMap<u32, Port>,
    held: Vec<Held>,
    next_port: u32,
}

impl Worker {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let mut busy = false;
            for index in 0..self.attachments.len() {
                busy |= self.serve(index);
            }
            if self.shared.relieve.swap(false, Ordering::SeqCst) {
                for Held { attachment, tag } in std::mem::take(&mut self.held) {
                    self.complete(attachment, tag, 0, [0, 0]);
                }
            }
            for attachment in self.attachments.iter_mut().flatten() {
                attachment.side.notify();
            }
            if !busy {
                self.sleep();
            }
        }
    }

    fn sleep(&mut self) {
        let mut may_sleep = true;
        for attachment in self.attachments.iter_mut().flatten() {
            let wants_room = !attachment.backlog.is_empty();
            may_sleep &= attachment.side.before_sleep(wants_room).expect("honest");
        }
        let mut ready = Vec::new();
        if may_sleep {
            let mut fds = vec![
                (usize::MAX, self.listener.as_fd()),
                (usize::MAX, self.bell.as_fd()),
            ];
            for (index, attachment) in self.attachments.iter().enumerate() {
                if let Some(attachment) = attachment {
                    fds.push((index, attachment.socket.as_fd()));
                    fds.push((usize::MAX, attachment.side.doorbell()));
                }
            }
            let mut polled: Vec<_> = fds
                .iter()
                .map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
                .collect();
            poll(&mut polled, None).expect("poll");
            let readable: Vec<_> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            if readable[1] {
                rustix::io::read(&self.bell, &mut [0u8; 8]).expect("event fd");
            }
            for ((index, _), readable) in fds.iter().zip(&readable) {
                if *readable && *index != usize::MAX {
                    ready.push(*index);
                }
            }
            if readable[0] {
                self.accept();
            }
        }
        for attachment in self.attachments.iter_mut().flatten() {
            attachment.side.after_sleep();
        }
        for index in ready {
            self.converse(index);
        }
    }

    fn accept(&mut self) {
        let socket = attach::accept(self.listener.as_fd()).expect("accept");
        // The fake can wait for the hello.
        rustix::io::ioctl_fionbio(&socket, false).expect("blocking");
        let Ok(Some((Message::Hello { version, .. }, _))) = attach::receive_message(socket.as_fd())
        else {
            return;
        };
        assert_eq!(version, VERSION);
        let peer = attach::peer_process(socket.as_fd()).expect("credentials");
        assert_ne!(peer.pid, 0);
        let (side, fds) = DaemonSide::create(&self.sizes).expect("segment");
        let welcome = Message::Welcome(Welcome {
            version: VERSION,
            node: NODE,
            identity: *b"fake daemon node",
            direct_after: 0,
        });
        attach::send_message(socket.as_fd(), &welcome, &fds.as_fds()).expect("welcome");
        self.attachments.push(Some(Attachment {
            socket,
            side,
            backlog: VecDeque::new(),
        }));
    }

    fn converse(&mut self, index: usize) {
        let Some(attachment) = &mut self.attachments[index] else {
            return;
        };
        match attach::receive_message(attachment.socket.as_fd()) {
            Ok(Some((Message::Watch { socket }, _))) => {
                let fd = attachment.side.watch(socket).expect("fd");
                let answer = Message::Watching { socket, result: 0 };
                let fds: [BorrowedFd<'_>; 1] = [fd.as_fd()];
                attach::send_message(attachment.socket.as_fd(), &answer, &fds).expect("answer");
            }
            _ => {
                self.ports.retain(|_, port| port.attachment != index);
                self.held.retain(|held| held.attachment != index);
                self.attachments[index] = None;
            }
        }
    }

    fn serve(&mut self, index: usize) -> bool {
        let mut busy = false;
        loop {
            let Some(attachment) = &mut self.attachments[index] else {
                return busy;
            };
            let shared = &self.shared;
            let returned = attachment.side.drain_releases(1000, |notice| {
                let count = notice.count as usize;
                shared.consumed.fetch_add(count, Ordering::SeqCst);
            });
            if returned.expect("honest client") > 0 {
                busy = true;
                while let Some((meta, payload)) = attachment.backlog.pop_front() {
                    if !offer(&mut attachment.side, &meta, &payload) {
                        attachment.backlog.push_front((meta, payload));
                        break;
                    }
                }
            }
            let Some(submission) = attachment.side.pop().expect("honest client") else {
                return busy;
            };
            busy = true;
            self.execute(index, &submission);
        }
    }

    fn complete(&mut self, attachment: usize, tag: u64, result: i32, values: [u64; 2]) {
        if let Some(attachment) = &mut self.attachments[attachment] {
            attachment
                .side
                .complete(tag, result, values)
                .expect("honest client");
        }
    }

    fn execute(&mut self, index: usize, submission: &Submission) {
        let Submission {
            tag,
            socket,
            request,
        } = *submission;
        if let Request::OpenSocket { .. } = request {
            let port = self.next_port;
            self.next_port += 1;
            self.ports.insert(
                port,
                Port {
                    attachment: index,
                    bindings: Vec::new(),
                    connected: None,
                    importance: Importance::Low,
                    dest_droppable: true,
                },
            );
            let values = [port.into(), address_value(port, NODE)];
            return self.complete(index, tag, 0, values);
        }
        if let Request::Cancel { tag: cancelled } = request {
            let before = self.held.len();
            self.held.retain(|held| held.tag != cancelled);
            let found = self.held.len() < before;
            if found {
                self.complete(index, cancelled, -libc::ECANCELED, [0, 0]);
            }
            return self.complete(index, tag, if found { 0 } else { -libc::ENOENT }, [0, 0]);
        }
        let (result, value) = match request {
            Request::Send {
                flags, destination, ..
            } => match self.send_all(index, submission, flags, destination) {
                Some(result) => (result, 0),
                None => {
                    self.held.push(Held {
                        attachment: index,
                        tag,
                    });
                    self.shared.held.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            },
            Request::CloseSocket => {
                self.close(index, socket);
                (0, 0)
            }
            Request::GetName => (0, address_value(socket, NODE)),
            request => (self.configure(socket, request), 0),
        };
        self.complete(index, tag, result, [value, 0]);
    }

    fn configure(&mut self, socket: u32, request: Request) -> i32 {
        let Some(port) = self.ports.get_mut(&socket) else {
            return -libc::EBADF;
        };
        match request {
            Request::Bind { range, scope } => port.bindings.push((range, scope as u32)),
            Request::Unbind { range, scope } => {
                let wanted = (range, scope as u32);
                match port.bindings.iter().rposition(|b| *b == wanted) {
                    Some(at) => drop(port.bindings.remove(at)),
                    None if port.bindings.is_empty() => {}
                    None => return -libc::EINVAL,
                }
            }
            Request::UnbindAll => port.bindings.clear(),
            Request::Connect { destination, .. } => port.connected = destination,
            Request::SetOption { option, value } => match option {
                option::IMPORTANCE => {
                    port.importance =
                        Importance::from_number(value).expect("checked by the client");
                }
                option::DEST_DROPPABLE => port.dest_droppable = value != 0,
                option::SRC_DROPPABLE => {}
                _ => return -libc::EINVAL,
            },
            Request::SetReceiveBuffer { .. } => {}
            _ => return -libc::EOPNOTSUPP,
        }
        0
    }

    fn close(&mut self, index: usize, socket: u32) {
        self.ports.remove(&socket);
        let Some(attachment) = &mut self.attachments[index] else {
            return;
        };
        let shared = &self.shared;
        attachment
            .side
            .take_unread(
                Some(socket),
                |_| {
                    shared.consumed.fetch_add(1, Ordering::SeqCst);
                },
                |_, bytes| shared.unread.lock().expect("lock").push(bytes.to_vec()),
            )
            .expect("honest client");
        attachment.side.unwatch(socket);
    }

    /// `None`: held.
    /// The first result that is none, or an error.
    fn send_all(
        &mut self,
        index: usize,
        submission: &Submission,
        flags: SendFlags,
        destination: Option<Destination>,
    ) -> Option<i32> {
        let side = &self.attachments[index].as_ref().expect("it sends").side;
        let payload = side.payload(submission);
        let messages: Vec<Vec<u8>> = if flags.contains(SendFlags::SEVERAL) {
            let bytes = |message: MessageRef<'_>| {
                let mut bytes = vec![0; message.len()];
                message.copy_to(0, &mut bytes);
                bytes
            };
            payload.messages().map(bytes).collect()
        } else {
            let mut bytes = vec![0; payload.len()];
            payload.copy_to(0, &mut bytes);
            vec![bytes]
        };
        let send = |bytes| self.send(index, submission, flags, destination, bytes);
        let mut results = messages.into_iter().map(send);
        results.find(|result| *result != Some(0)).unwrap_or(Some(0))
    }

    fn send(
        &mut self,
        index: usize,
        submission: &Submission,
        flags: SendFlags,
        destination: Option<Destination>,
        bytes: Vec<u8>,
    ) -> Option<i32> {
        let Some(sender) = self.ports.get(&submission.socket) else {
            return Some(-libc::EBADF);
        };
        let Some(destination) = destination.or(sender.connected) else {
            return Some(-libc::EDESTADDRREQ);
        };
        let mut meta = Meta {
            importance: sender.importance,
            source: SocketAddress {
                port: submission.socket,
                node: NODE,
            },
            original_len: bytes.len() as u32,
            ..Meta::default()
        };
        let (type_, lower, upper) = match destination {
            Destination::Socket(address) => {
                return Some(self.deliver(address.port, meta, bytes));
            }
            Destination::Service { address, .. } => {
                meta.destination = DestinationName::Service(address);
                (address.type_, address.instance, address.instance)
            }
            Destination::Multicast(range) => {
                meta.destination = DestinationName::Multicast(range);
                (range.type_, range.lower, range.upper)
            }
        };
        if type_ == CONGESTED {
            return flags.contains(SendFlags::DONTWAIT).then_some(-libc::EAGAIN);
        }
        if type_ == MADDENING {
            self.complete(index, u64::MAX, 0, [0, 0]);
            return Some(0);
        }
        if type_ == OVERLOADED {
            if !sender.dest_droppable {
                meta.error = 4;
                self.deliver(submission.socket, meta, bytes);
            }
            return Some(0);
        }
        let matches = |(range, _): &(ServiceRange, u32)| {
            range.type_ == type_ && range.lower <= upper && lower <= range.upper
        };
        let mut ports: Vec<u32> = self
            .ports
            .iter()
            .filter(|(_, port)| port.bindings.iter().any(matches))
            .map(|(number, _)| *number)
            .collect();
        if !matches!(destination, Destination::Multicast(_)) {
            ports.truncate(1);
        }
        if ports.is_empty() {
            return Some(-libc::EHOSTUNREACH);
        }
        for port in ports {
            self.deliver(port, meta, bytes.clone());
        }
        Some(0)
    }

    fn deliver(&mut self, to: u32, mut meta: Meta, bytes: Vec<u8>) -> i32 {
        let Some(port) = self.ports.get(&to) else {
            return 0;
        };
        let attachment = self.attachments[port.attachment].as_mut().expect("open");
        meta.socket = to;
        if !attachment.backlog.is_empty() || !offer(&mut attachment.side, &meta, &bytes) {
            self.shared.postponed.fetch_add(1, Ordering::SeqCst);
            assert!(attachment.backlog.len() < BACKLOG_MAX);
            attachment.backlog.push_back((meta, bytes));
        }
        0
    }
}

fn offer(side: &mut DaemonSide, meta: &Meta, bytes: &[u8]) -> bool {
    match side.deliver(meta, bytes.len(), |room| room.copy_from_slice(bytes)) {
        Ok(()) => true,
        Err(DeliverError::NoRoom) => false,
        Err(DeliverError::Violation(violation)) => panic!("honest client: {violation}"),
    }
}
