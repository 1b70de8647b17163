use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use xtipc_segment::attach;
use xtipc_xsk::PoolConfig;

use super::*;

struct Node {
    bearer: ShmBearer,
    pool: FramePool,
}

type Packet = (MediaAddr, Vec<u8>);

impl Node {
    fn open(directory: &Path) -> Self {
        let pool = FramePool::new(&PoolConfig {
            frame_count: 64,
            chunks_per_frame: 1,
            control_reserve: 8,
            receive_areas: 0,
            spare_areas: 0,
            receive_chunks: 64,
        });
        Self {
            bearer: ShmBearer::open(directory, MTU as usize).unwrap(),
            pool: pool.unwrap(),
        }
    }

    fn address(&self) -> MediaAddr {
        self.bearer.media_addr()
    }

    fn send(&mut self, to: MediaDest, packet: &[u8], reserve: Reserve) {
        let frame = self.pool.alloc(xtipc_xsk::Reserve::Control).unwrap();
        self.pool.bytes_mut(frame).unwrap()[HEADROOM..HEADROOM + packet.len()]
            .copy_from_slice(packet);
        self.bearer
            .transmit(&self.pool, frame, to, packet.len(), reserve);
        self.pool.release(frame);
        self.bearer.flush();
    }

    /// A call may lead to the next one: who is accepted has something to say.
    fn receive(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        for _ in 0..2 {
            self.bearer.on_call();
            self.bearer
                .receive(1000, |from, packet| packets.push((from, packet.to_vec())));
        }
        packets
    }

    fn news(&mut self) -> Vec<StationNews> {
        std::iter::from_fn(|| self.bearer.news()).collect()
    }

    fn drops(&self, name: &str) -> u64 {
        self.bearer.info().drops.get(name).copied().unwrap_or(0)
    }

    fn is_called(&self) -> bool {
        let mut fds = [PollFd::new(&self.bearer.epoll, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).unwrap() > 0
    }
}

/// Another test that starts a program has copies of all descriptors for a moment: what is closed here may still be open.
fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline);
    }
}

/// Nodes that have met each other.
fn met<const N: usize>(directory: &Path) -> [Node; N] {
    let mut nodes = [(); N].map(|()| Node::open(directory));
    until(|| {
        nodes.iter_mut().for_each(|node| node.bearer.on_call());
        nodes.iter().all(|node| node.bearer.stations.len() == N - 1)
    });
    for node in &mut nodes {
        assert_eq!(node.news(), vec![StationNews::Met; N - 1]);
    }
    nodes
}

#[test]
fn who_comes_after_the_directory_was_removed_is_met() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join("pod");
    // Numbers are random: both orders happen.
    for _ in 0..4 {
        let [mut a, mut b] = met(&directory);
        std::fs::remove_dir_all(&directory).unwrap();
        let mut newcomer = Node::open(&directory);
        for node in [&mut a, &mut b, &mut newcomer] {
            node.bearer.check();
        }
        let mut nodes = [&mut a, &mut b, &mut newcomer];
        until(|| {
            nodes.iter_mut().for_each(|node| node.bearer.on_call());
            nodes.iter().all(|node| node.bearer.stations.len() == 2)
        });
        assert_eq!(
            [a.news(), b.news()],
            [[StationNews::Met], [StationNews::Met]]
        );
        let to_newcomer = MediaDest::Unicast(newcomer.address());
        a.send(to_newcomer, &[1; 60], Reserve::Data);
        assert_eq!(newcomer.receive(), [(a.address(), vec![1; 60])]);
    }
}

#[test]
fn nodes_that_enter_a_directory_meet_and_packets_pass() {
    let directory = tempfile::tempdir().unwrap();
    // Numbers are random: both orders happen.
    for _ in 0..4 {
        let [mut a, mut b, mut c] = met(directory.path());
        for round in 0..1000u32 {
            let packet = vec![round as u8; round as usize % MTU as usize];
            a.send(MediaDest::Unicast(b.address()), &packet, Reserve::Data);
            assert_eq!(b.receive(), [(a.address(), packet.clone())]);
            b.send(MediaDest::Unicast(a.address()), &packet, Reserve::Data);
            assert_eq!(a.receive(), [(b.address(), packet)]);
        }
        a.send(MediaDest::Broadcast, &[7; MTU as usize], Reserve::Control);
        for node in [&mut b, &mut c] {
            assert_eq!(node.receive(), [(a.address(), vec![7; MTU as usize])]);
        }
        assert_eq!(a.receive(), []);
        assert!(a.bearer.info().drops.is_empty());
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn who_leaves_is_seen_at_once_after_its_last_packets() {
    let directory = tempfile::tempdir().unwrap();
    let [mut a, mut b] = met(directory.path());
    let address = b.address();
    b.send(
        MediaDest::Unicast(a.address()),
        b"last words",
        Reserve::Control,
    );
    drop(b);
    until(|| a.is_called());
    assert_eq!(a.receive(), [(address, b"last words".to_vec())]);
    let mut news = Vec::new();
    until(|| {
        a.receive();
        news.extend(a.news());
        !news.is_empty()
    });
    assert_eq!(news, [StationNews::Lost(address)]);
    a.send(MediaDest::Unicast(address), b"gone", Reserve::Data);
    assert_eq!(a.drops("tx-no-station"), 1);
    let b = Node::open(directory.path());
    assert_ne!(b.address(), address);
}

#[test]
fn a_full_ring_is_a_counted_drop_and_leaves_places_for_control() {
    let directory = tempfile::tempdir().unwrap();
    let [mut a, mut b] = met(directory.path());
    let to = MediaDest::Unicast(b.address());
    for _ in 0..PACKETS {
        a.send(to, b"data", Reserve::Data);
    }
    assert_eq!(a.drops("tx-full"), u64::from(CONTROL_RESERVE));
    a.send(to, b"control", Reserve::Control);
    let received = b.receive();
    assert_eq!(received.len() as u32, PACKETS - CONTROL_RESERVE + 1);
    assert_eq!(received.last().unwrap().1, b"control");
}

#[test]
fn a_sleeper_is_called_and_who_is_awake_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let [mut a, mut b] = met(directory.path());
    let to = MediaDest::Unicast(b.address());
    b.receive();
    a.send(to, b"unheard", Reserve::Data);
    assert!(!b.is_called());
    assert!(b.bearer.must_stay_awake());
    b.receive();
    for _ in 0..3 {
        assert!(!b.bearer.must_stay_awake());
        a.send(to, b"first", Reserve::Data);
        a.send(to, b"second", Reserve::Data);
        assert!(b.is_called());
        assert!(b.bearer.must_stay_awake());
        assert_eq!(b.receive().len(), 2);
        assert!(!b.is_called());
    }
}

#[test]
fn the_socket_of_a_node_that_was_killed_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ffffffffffffffff");
    drop(attach::listen(&path).unwrap());
    assert!(path.exists());
    until(|| {
        drop(Node::open(directory.path()));
        !path.exists()
    });
}

#[test]
fn strangers_that_break_the_rules_are_refused_and_disturb_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let [mut a, mut b] = met(directory.path());
    if a.number() < b.number() {
        std::mem::swap(&mut a, &mut b);
    }
    // The callers among strangers have a lower number than `a`, which has the higher of the two.
    let (own, other) = (a.number(), b.number());
    let (_line, memory) = Line::make().unwrap();
    let path = directory.path().join(format!("{own:016x}"));
    for (what, station, shown) in [
        ("another's number", other, true),
        ("a number that is to be called", own + 1, true),
        ("no memory", other - 1, false),
    ] {
        let socket = attach::connect(&path).unwrap();
        let memory = shown.then_some(memory.as_fd());
        Greeting { station }.send(socket.as_fd(), memory).unwrap();
        assert_eq!(a.receive(), [], "{what}");
        assert!(!silence_bell(socket.as_fd()), "{what}");
    }
    let garbage = attach::connect(&path).unwrap();
    rustix::net::send(&garbage, b"hello", rustix::net::SendFlags::empty()).unwrap();
    let silent: Vec<_> = (0..3 * STRANGERS_MAX)
        .map(|_| attach::connect(&path).unwrap())
        .collect();
    for _ in 0..4 {
        a.receive();
    }
    assert!(a.bearer.strangers.len() <= STRANGERS_MAX);
    assert_eq!(a.news(), []);
    drop(silent);
    b.send(
        MediaDest::Unicast(a.address()),
        b"still here",
        Reserve::Data,
    );
    let received: Vec<_> = (0..4).flat_map(|_| a.receive()).collect();
    assert_eq!(received, [(b.address(), b"still here".to_vec())]);
}

#[test]
fn a_station_that_breaks_the_contract_of_its_memory_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::open(directory.path());
    let (mut line, memory) = Line::make().unwrap();
    let path = directory.path().join(format!("{:016x}", node.number()));
    let socket = attach::connect(&path).unwrap();
    let station = node.number() - 1;
    let greeting = Greeting { station };
    greeting.send(socket.as_fd(), Some(memory.as_fd())).unwrap();
    node.receive();
    assert_eq!(node.news(), [StationNews::Met]);
    let source = MediaAddr::from_shared_memory(station);
    line.send(b"in order", 0).unwrap();
    assert_eq!(node.receive(), [(source, b"in order".to_vec())]);
    // The tail of the caller's ring is the first word of the memory.
    rustix::io::pwrite(&memory, &u32::MAX.to_ne_bytes(), 0).unwrap();
    assert!(node.bearer.must_stay_awake());
    assert_eq!(node.receive(), []);
    assert_eq!(node.news(), [StationNews::Lost(source)]);
    assert_eq!(node.drops("rx-contract-broken"), 1);
}

impl Node {
    /// Its number in the directory.
    fn number(&self) -> u64 {
        self.bearer.directory.own()
    }
}
