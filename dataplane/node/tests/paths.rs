//! What programs read without asking: the state of the way to a node, and when a message came
//! (`docs/architecture.md`, the application boundary).

mod host;

use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    ConnectionKind, ConnectionWindow, Datagram, Error, Kind, Path, PathState, Scope, ServiceAddress,
};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};

/// Looks until a path is as it should be: states come at the end of a round, answers within it.
fn until(path: &Path, is: impl Fn(&PathState) -> bool) -> PathState {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let state = path.state().unwrap();
        if is(&state) {
            return state;
        }
        assert!(Instant::now() < end, "{state:?}");
        thread::yield_now();
    }
}

#[test]
fn the_window_of_a_connection_is_seen_as_it_fills_and_empties() {
    let host = Host::start();
    let (client, server, _) = host.connect(&host.attach(), ConnectionKind::Seqpacket, SERVICE);
    let path = client.path().unwrap();
    let window = |under_way, limit| Some(ConnectionWindow { under_way, limit });
    let idle = path.state().unwrap();
    assert!(idle.is_up && !idle.is_congested);
    assert_eq!(idle.connection, window(0, 128));
    for _ in 0..3 {
        client.send(&[1; 60_000]).unwrap();
    }
    let full = until(&path, |state| state.connection == window(177, 128));
    assert!(full.is_congested);
    for _ in 0..3 {
        server.recv().unwrap().unwrap();
    }
    // The reader's receive buffer allows more than what any connection begins with. If the first message was acknowledged
    // alone, the others may be too few to be acknowledged as well: less than a quarter of the window.
    let read = until(&path, |state| {
        matches!(
            state.connection,
            Some(ConnectionWindow {
                under_way: ..128,
                limit: 512
            })
        )
    });
    assert!(!read.is_congested);
    drop(server);
    until(&path, |state| *state == PathState::default());
}

#[test]
fn paths_to_nodes_are_up_or_not_and_their_number_is_limited() {
    let host = Host::start();
    let node = host.attach();
    let own = node.path(node.address()).unwrap();
    assert!(own.state().unwrap().is_up);
    let unknown = node.path(0x0100_2003).unwrap();
    assert_eq!(unknown.state().unwrap(), PathState::default());
    let mut paths: Vec<Path> = (0..30).map(|_| node.path(0).unwrap()).collect();
    assert!(matches!(node.path(0), Err(Error::TooManyPaths)));
    paths.pop();
    let again = node.path(node.address()).unwrap();
    assert!(again.state().unwrap().is_up, "the slot is used again");
}

#[test]
fn messages_tell_when_the_node_took_them_in() {
    let clock = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    // A worker that does not sleep may have begun its round before the send.
    let mut last = clock();
    let host = Host::start();
    let node = host.attach();
    let server = Datagram::open(&node, Kind::Rdm).unwrap();
    server.bind(SERVICE, Scope::Node).unwrap();
    let client = Datagram::open(&node, Kind::Rdm).unwrap();
    for _ in 0..3 {
        client.send_to(b"when", SERVICE).unwrap();
        let sent = clock();
        thread::sleep(Duration::from_millis(20));
        let at = server.recv().unwrap().received_at();
        assert!((last..=sent).contains(&at), "{last:?} {at:?} {sent:?}");
        last = at;
    }
}
