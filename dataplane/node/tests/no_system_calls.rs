//! The calls of the Rust API that make no system call and allocate nothing (the list is in its documentation), held
//! against the kernel and the allocator: the thread that makes them may make no system call but `exit`, by seccomp, and
//! its allocations are counted.

mod host;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::OsStr;
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    Connection, ConnectionKind, Datagram, Kind, Listener, Node, PollEvent, Poller, Readiness,
    Scope, ServiceAddress, ServiceRange, Subscriber, Subscription,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// From here on a system call of this thread ends the process with SIGSYS; there is no way back.
fn forbid_system_calls() {
    // Mode 1 allows read and write too, which are what waiting and waking are made of: hence a filter.
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let is_exit = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_exit_group as u32,
    };
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let kill = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS);
    let mut filter = [load_number, is_exit, allow, kill];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes plain numbers.
    let no_new = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(no_new, 0);
    // SAFETY: `program` and the filter it points to live until the call has copied them.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// The sockets of the program under test, with something to read at each.
struct Program {
    datagram: Datagram,
    connection: Connection,
    subscriber: Subscriber,
    poller: Poller,
    path: xtipc::Path,
}

/// Few enough that no acknowledgement of the connection becomes due.
const MESSAGES: usize = 20;
const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};

impl Program {
    fn prepare(attach_socket: &OsStr) -> Self {
        let attach = || Node::builder().socket_path(attach_socket).attach().unwrap();
        let (node, other) = (attach(), attach());
        let datagram = Datagram::open(&node, Kind::Rdm).unwrap();
        let kind = ConnectionKind::Seqpacket;
        let listener = Listener::bind(&other, kind, SERVICE, Scope::Cluster).unwrap();
        let client = node.clone();
        let connect = thread::spawn(move || Connection::connect(&client, kind, SERVICE).unwrap());
        let (far, _) = listener.accept().unwrap();
        let connection = connect.join().unwrap();
        let subscriber = Subscriber::open(&node).unwrap();
        let bindings = Subscription::bindings(ServiceRange {
            type_: SERVICE.type_,
            lower: 0,
            upper: 99,
        });
        let sender = Datagram::open(&other, Kind::Rdm).unwrap();
        let poller = Poller::new(&node);
        let readable = Readiness::READABLE;
        poller.add(&datagram, 1, readable).unwrap();
        poller.add(&connection, 2, readable).unwrap();
        poller.add(&subscriber, 3, readable).unwrap();
        for n in 0..MESSAGES as u8 {
            sender
                .send_to(&[n; 100], datagram.local_addr().unwrap())
                .unwrap();
            far.send(&[n; 100]).unwrap();
            // Each is told of the service at once.
            subscriber.subscribe(&bindings).unwrap();
        }
        // The other end has to stay.
        std::mem::forget((far, listener, sender));
        let path = connection.path().unwrap();
        Self {
            datagram,
            connection,
            subscriber,
            poller,
            path,
        }
    }

    /// One of each call of the list.
    fn calls(&self, events: &mut Vec<PollEvent>, bytes: &mut [u8]) {
        self.poller.wait(events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), 3);
        self.poller
            .wait(events, Some(Duration::from_secs(1)))
            .unwrap();
        assert_eq!(events.len(), 3);
        let soon = Instant::now() + Duration::from_secs(1);
        for message in [
            self.datagram.try_recv().unwrap(),
            self.datagram.recv().unwrap(),
            self.datagram.recv_spin(soon).unwrap(),
            self.connection.recv().unwrap().unwrap(),
            self.connection.try_recv().unwrap().unwrap(),
            self.connection.recv_spin(soon).unwrap().unwrap(),
        ] {
            assert_eq!(message.len(), 100);
            assert!(message.source().port != 0 && message.received_at() > Duration::ZERO);
        }
        assert_eq!(self.connection.try_read(bytes).unwrap(), 100);
        self.subscriber.try_recv().unwrap();
        assert!(self.path.state().unwrap().is_up);
    }
}

/// Set for the process of its own in which the test proper runs, since a system call ends that: the attach socket.
const CHILD: &str = "XTIPC_TEST_ATTACH_SOCKET";
/// Set if it is to make one.
const SINS: &str = "XTIPC_TEST_SINS";

#[test]
fn the_calls_of_the_list_make_no_system_call_and_allocate_nothing() {
    if let Some(attach_socket) = std::env::var_os(CHILD) {
        return child(&attach_socket);
    }
    let host = Host::start();
    let this = std::env::current_exe().unwrap();
    let name = "the_calls_of_the_list_make_no_system_call_and_allocate_nothing";
    for (sins, code) in [(false, Some(0)), (true, None)] {
        let ended = std::process::Command::new(&this)
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, host.attach_socket())
            .env(SINS, if sins { "1" } else { "" })
            .status()
            .unwrap();
        // The second one makes a system call: that has to be noticed.
        assert_eq!(ended.code(), code, "sins: {sins}, {ended}");
    }
}

fn child(attach_socket: &OsStr) {
    let program = Program::prepare(attach_socket);
    let (mut events, mut bytes) = (Vec::with_capacity(8), [0; 100]);
    // Tables and vectors find their sizes.
    program.calls(&mut events, &mut bytes);
    let sins = std::env::var(SINS) == Ok("1".to_owned());
    // Asleep, so that a door-bell rung would show too.
    thread::sleep(Duration::from_millis(50));
    forbid_system_calls();
    let before = ALLOCATIONS.get();
    for _ in 0..4 {
        program.calls(&mut events, &mut bytes);
    }
    let allocated = ALLOCATIONS.get() - before;
    if sins {
        let _ = program.datagram.local_addr();
    }
    // SAFETY: ends the process without running anything more of it.
    unsafe { libc::_exit(i32::from(allocated > 0)) }
}
