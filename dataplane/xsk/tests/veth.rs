//! Real AF_XDP sockets on veth pairs between network namespaces, in generic copy mode. Needs root.

mod lab;

use lab::{Lab, Program};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::time::Timespec;
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use xtipc_xsk::handover::Wake;
use xtipc_xsk::interface::{DeviceKind, Interface};
use xtipc_xsk::{
    BindMode, ClosingSocket, FrameIndex, FramePool, OpenError, PoolConfig, Reserve, RingSizes,
    SocketConfig, XskSocket,
};

const HEADER_LEN: usize = 14 + 8 + 4;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Packets under way at most: far below every ring, so that any loss is a fault.
const WINDOW: u64 = 256;

fn sizes(receive_areas: u32, chunks_per_frame: u32) -> PoolConfig {
    PoolConfig {
        frame_count: 1024,
        chunks_per_frame,
        control_reserve: 16,
        receive_areas,
        spare_areas: 1,
        receive_chunks: 1024,
    }
}

fn pool(receive_areas: u32, chunks_per_frame: u32) -> FramePool {
    FramePool::new(&sizes(receive_areas, chunks_per_frame)).unwrap()
}

/// Bytes without a short period, so that a shifted or exchanged chunk differs.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..(1 << 17)).map(|_| next()).collect()
});

/// The content of packet `number` sent by `side`, after the header.
fn pattern(side: usize, number: u64, len: usize) -> &'static [u8] {
    let start = (number as usize * 31 + side * 7919) % 65_000;
    &NOISE[start..start + len]
}

fn write_packet(packet: &mut [u8], side: usize, number: u64) {
    let len = packet.len();
    packet[..6].fill(0xff);
    packet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, side as u8]);
    packet[12..14].copy_from_slice(&lab::TEST_ETHERTYPE.to_be_bytes());
    packet[14..22].copy_from_slice(&number.to_be_bytes());
    packet[22..26].copy_from_slice(&(len as u32).to_be_bytes());
    packet[HEADER_LEN..].copy_from_slice(pattern(side, number, len - HEADER_LEN));
}

/// One end: what it sent, what it saw.
struct Endpoint {
    socket: XskSocket,
    side: usize,
    sent: u64,
    received: u64,
    gaps: u64,
}

impl Endpoint {
    fn new(socket: XskSocket, side: usize) -> Self {
        Self {
            socket,
            side,
            sent: 0,
            received: 0,
            gaps: 0,
        }
    }

    /// Sends up to `count` packets more, each in a TX-only frame.
    fn send(&mut self, pool: &mut FramePool, count: u64, len_of: impl Fn(u64) -> usize) {
        self.socket.complete(pool);
        for _ in 0..count {
            let Some(frame) = pool.alloc(Reserve::Data) else {
                break;
            };
            // Not at the start of the frame, so that chunk borders fall into the packet.
            let (offset, len) = (128, len_of(self.sent));
            let bytes = pool.bytes_mut(frame).expect("a new frame is not in TX");
            write_packet(&mut bytes[offset..offset + len], self.side, self.sent);
            let sent = self.socket.send(pool, frame, offset, len, Reserve::Data);
            pool.release(frame);
            if sent.is_err() {
                break;
            }
            self.sent += 1;
        }
        self.socket.kick().unwrap();
    }

    /// Receives what is there; checks every byte, then spoils the chunk: whoever sees it again, or sees
    /// a neighbour's bytes, fails.
    fn receive(&mut self) -> usize {
        let Self {
            socket,
            side,
            received,
            gaps,
            ..
        } = self;
        let peer = 1 - *side;
        socket.receive(64, |packet| {
            if packet[12..14] != lab::TEST_ETHERTYPE.to_be_bytes() {
                return;
            }
            let number = u64::from_be_bytes(packet[14..22].try_into().unwrap());
            let len = u32::from_be_bytes(packet[22..26].try_into().unwrap());
            assert_eq!(packet.len(), len as usize, "length of packet {number}");
            assert!(
                number >= *received,
                "packet {number} came again or late, expected {received}"
            );
            *gaps += number - *received;
            *received = number + 1;
            let expected = pattern(peer, number, packet.len() - HEADER_LEN);
            assert!(
                packet[HEADER_LEN..] == *expected,
                "packet {number} is corrupt"
            );
            packet.fill(0xEE);
        })
    }
}

/// Sends `count` packets each way. `pools` has one pool for both ends, or one for each.
fn exchange(
    ends: &mut [Endpoint; 2],
    pools: &mut [FramePool],
    count: u64,
    len_of: fn(u64) -> usize,
) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while ends.iter().any(|end| end.received < count) {
        assert!(
            Instant::now() < deadline,
            "received {} and {} of {count}",
            ends[0].received,
            ends[1].received
        );
        for side in 0..2 {
            let peer_received = ends[1 - side].received;
            let end = &mut ends[side];
            let room = WINDOW
                .saturating_sub(end.sent - peer_received)
                .min(count - end.sent)
                .min(32);
            end.send(&mut pools[side % pools.len()], room, len_of);
        }
        if ends.iter_mut().map(Endpoint::receive).sum::<usize>() == 0 {
            std::thread::yield_now();
        }
    }
    for end in ends.iter() {
        println!(
            "side {}: sent {}, received {}, gaps {}",
            end.side, end.sent, end.received, end.gaps
        );
        println!(
            "  {:?}\n  {:?}",
            end.socket.counters(),
            end.socket.statistics().unwrap()
        );
        assert_eq!(end.gaps, 0, "sequence gaps on a wire that loses nothing");
        let kernel = end.socket.statistics().unwrap();
        assert_eq!(
            (
                kernel.rx_dropped,
                kernel.rx_invalid_descs,
                kernel.tx_invalid_descs
            ),
            (0, 0, 0)
        );
        let ours = end.socket.counters();
        assert_eq!(
            (
                ours.receive.invalid,
                ours.receive.oversize,
                ours.transmit.completions_foreign
            ),
            (0, 0, 0)
        );
    }
}

fn close_all(ends: [Endpoint; 2], pools: &mut [FramePool]) {
    for (side, end) in ends.into_iter().enumerate() {
        let pool = &mut pools[side % pools.len()];
        end.socket
            .close(pool, CLOSE_TIMEOUT)
            .expect("the kernel releases the socket");
    }
    for pool in pools {
        pool.leaks().unwrap();
    }
}

fn open(pool: &mut FramePool, config: &SocketConfig<'_>) -> XskSocket {
    XskSocket::open(pool, config).unwrap()
}

fn copy_mode(ifindex: u32) -> SocketConfig<'static> {
    SocketConfig::new(ifindex, 0, BindMode::Copy)
}

/// Both ends of the lab's pair, each with its program.
fn open_ends(
    lab: &Lab,
    pools: &mut [FramePool],
    multi_buffer: bool,
) -> ([Endpoint; 2], [Program; 2]) {
    let mut make = |side: usize| {
        lab.enter(side);
        let ifindex = lab.interface(side).index;
        let pool = &mut pools[side % pools.len()];
        let socket = open(
            pool,
            &SocketConfig {
                multi_buffer,
                ..copy_mode(ifindex)
            },
        );
        let program = Program::attach(ifindex, multi_buffer);
        program.steer(0, &socket);
        (Endpoint::new(socket, side), program)
    };
    let ((first, first_program), (second, second_program)) = (make(0), make(1));
    ([first, second], [first_program, second_program])
}

#[test]
fn a_hundred_thousand_packets_each_way_arrive_intact_over_one_pool_and_over_two() {
    let Some(lab) = Lab::new("ex", 1500, 1) else {
        return;
    };
    for mut pools in [vec![pool(2, 1)], vec![pool(1, 1), pool(1, 1)]] {
        let (mut ends, programs) = open_ends(&lab, &mut pools, false);
        exchange(&mut ends, &mut pools, 100_000, |number| {
            60 + (number as usize * 37) % 1440
        });
        close_all(ends, &mut pools);
        drop(programs);
    }
}

#[test]
fn jumbo_packets_over_three_chunks_arrive_intact() {
    let Some(lab) = Lab::new("jb", 9000, 1) else {
        return;
    };
    assert_eq!(xtipc_xsk::multi_buffer_supported(), Ok(true));
    let mut pools = [pool(2, 3)];
    let (mut ends, _programs) = open_ends(&lab, &mut pools, true);
    exchange(&mut ends, &mut pools, 20_000, |number| {
        if number % 5 == 4 { 60 } else { 8_000 }
    });
    close_all(ends, &mut pools);
}

#[test]
fn packets_of_65535_bytes_pass_in_seventeen_chunks() {
    let Some(lab) = Lab::new("mx", 65_535, 1) else {
        return;
    };
    let mut pools = [pool(2, 17)];
    let (mut ends, _programs) = open_ends(&lab, &mut pools, true);
    exchange(&mut ends, &mut pools, 300, |_| 65_535);
    close_all(ends, &mut pools);
}

/// Lets a thread of its own serve a socket until that is closed, which sleeps whenever it finds nothing.
fn serve_elsewhere(socket: &mut XskSocket, pool: &FramePool) -> JoinHandle<u64> {
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let rung = Arc::clone(&bell);
    let ring = move || assert_eq!(rustix::io::write(&*rung, &1u64.to_ne_bytes()), Ok(8));
    // The end that owns them never sleeps here.
    let mut served = socket.hand_over(pool, Wake::new(ring), Wake::new(|| {}));
    std::thread::spawn(move || {
        let mut sleeps = 0;
        while !served.is_closing() {
            if served.serve(64) {
                continue;
            }
            if served.before_sleep() {
                sleeps += 1;
                let mut fds = [
                    PollFd::new(&*bell, PollFlags::IN),
                    PollFd::new(&served, PollFlags::IN),
                ];
                let patience = Timespec {
                    tv_sec: 0,
                    tv_nsec: 10_000_000,
                };
                let patience = served.is_kernel_at_work().then_some(&patience);
                rustix::event::poll(&mut fds, patience).unwrap();
                let _ = rustix::io::read(&*bell, &mut [0; 8]);
            }
            served.awake();
        }
        served.close();
        sleeps
    })
}

#[test]
fn packets_arrive_intact_by_sockets_whose_rings_other_threads_serve() {
    for (tag, mtu, chunks) in [("s1", 1500, 1), ("s3", 9000, 3)] {
        let Some(lab) = Lab::new(tag, mtu, 1) else {
            return;
        };
        // Half of a receive area holds what is under way, and more.
        let sizes = PoolConfig {
            receive_chunks: 4096,
            ..sizes(2, chunks)
        };
        let mut pools = [FramePool::new(&sizes).unwrap()];
        let (mut ends, programs) = open_ends(&lab, &mut pools, chunks > 1);
        let serving = ends
            .each_mut()
            .map(|end| serve_elsewhere(&mut end.socket, &pools[0]));
        let len_of: fn(u64) -> usize = match chunks {
            1 => |number| 60 + (number as usize * 37) % 1440,
            _ => |number| if number % 5 == 4 { 60 } else { 8_000 },
        };
        exchange(&mut ends, &mut pools, 20_000, len_of);
        for end in &ends {
            let counters = end.socket.handover_counters().unwrap();
            println!("{counters:?}");
            assert!(
                counters.received >= 20_000,
                "neighbour discovery may come too"
            );
            assert_eq!(counters.dropped, 0);
        }
        close_all(ends, &mut pools);
        let sleeps = serving.map(|thread| thread.join().unwrap());
        println!("sleeps of the servers: {sleeps:?}");
        drop(programs);
    }
}

#[test]
fn a_veth_is_seen_as_software_device_with_its_queues() {
    let Some(lab) = Lab::new("if", 3400, 2) else {
        return;
    };
    lab.enter(1);
    // The kernel reports a new carrier up to a second late.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !lab.interface(1).running {
        assert!(Instant::now() < deadline, "no carrier");
        std::thread::sleep(Duration::from_millis(20));
    }
    let interface = lab.interface(1);
    assert_eq!(interface.driver.as_deref(), Some("veth"));
    assert_eq!(interface.kind, DeviceKind::Software);
    assert_eq!((interface.mtu, interface.rx_queues), (3400, 2));
    assert!(interface.up);
    assert_eq!(interface.mac, [2, 0, 0, 0, 0, 1]);
    assert!(Interface::query("nosuchif0").is_err());
}

#[test]
fn zero_copy_on_veth_is_refused_by_name_and_costs_nothing() {
    let Some(lab) = Lab::new("zc", 1500, 1) else {
        return;
    };
    lab.enter(0);
    let ifindex = lab.interface(0).index;
    let mut pool = pool(1, 1);
    let error = XskSocket::open(
        &mut pool,
        &SocketConfig::new(ifindex, 0, BindMode::ZeroCopy),
    )
    .unwrap_err();
    assert!(
        matches!(error, OpenError::ZeroCopyUnsupported { .. }),
        "{error}"
    );
    let error = XskSocket::open(
        &mut pool,
        &SocketConfig {
            queue: 7,
            ..copy_mode(ifindex)
        },
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does the interface have this queue?"),
        "{error}"
    );
    let rings = RingSizes {
        tx: 100,
        ..RingSizes::default()
    };
    let error = XskSocket::open(
        &mut pool,
        &SocketConfig {
            rings,
            ..copy_mode(ifindex)
        },
    )
    .unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::RingSize {
                ring: "TX",
                entries: 100
            }
        ),
        "{error}"
    );
    // The only receive area came back each time.
    let socket = open(&mut pool, &copy_mode(ifindex));
    assert!(!socket.options().zero_copy);
    let error = XskSocket::open(&mut pool, &copy_mode(ifindex)).unwrap_err();
    assert!(matches!(error, OpenError::NoReceiveArea(1)), "{error}");
    socket.close(&mut pool, CLOSE_TIMEOUT).unwrap();
    pool.leaks().unwrap();
}

#[test]
fn a_busy_queue_is_waited_for_and_a_queue_in_use_is_refused() {
    let Some(lab) = Lab::new("by", 1500, 1) else {
        return;
    };
    lab.enter(0);
    let ifindex = lab.interface(0).index;
    let mut pool = pool(2, 1);
    for _ in 0..5 {
        // Not waited for: the kernel may still hold the queue when the next one binds.
        let closing = open(&mut pool, &copy_mode(ifindex)).begin_close(&mut pool);
        let next = open(&mut pool, &copy_mode(ifindex));
        next.close(&mut pool, CLOSE_TIMEOUT).unwrap();
        closing
            .wait(&mut pool, Instant::now() + CLOSE_TIMEOUT)
            .unwrap();
    }
    let holder = open(&mut pool, &copy_mode(ifindex));
    let started = Instant::now();
    let error = XskSocket::open(&mut pool, &copy_mode(ifindex)).unwrap_err();
    assert!(matches!(error, OpenError::Busy { queue: 0, .. }), "{error}");
    assert!(started.elapsed() >= xtipc_xsk::BUSY_TIMEOUT);
    holder.close(&mut pool, CLOSE_TIMEOUT).unwrap();
    pool.leaks().unwrap();
}

#[test]
fn sockets_on_two_queues_share_one_registration() {
    let Some(lab) = Lab::new("q2", 1500, 2) else {
        return;
    };
    lab.enter(0);
    let ifindex = lab.interface(0).index;
    let mut pool = pool(3, 1);
    let mut first = open(&mut pool, &copy_mode(ifindex));
    let second_queue = SocketConfig {
        queue: 1,
        join: Some(&first),
        ..copy_mode(ifindex)
    };
    let mut second = open(&mut pool, &second_queue);
    let mixed = SocketConfig {
        multi_buffer: true,
        ..second_queue
    };
    assert!(matches!(
        XskSocket::open(&mut pool, &mixed).unwrap_err(),
        OpenError::CannotJoin
    ));

    lab.enter(1);
    let peer_index = lab.interface(1).index;
    let mut peer = Endpoint::new(open(&mut pool, &copy_mode(peer_index)), 1);
    let program = Program::attach(peer_index, false);
    program.steer(0, &peer.socket);
    for socket in [&mut first, &mut second] {
        let frame = pool.alloc(Reserve::Data).unwrap();
        write_packet(&mut pool.bytes_mut(frame).unwrap()[..100], 0, peer.received);
        socket
            .send(&mut pool, frame, 0, 100, Reserve::Data)
            .unwrap();
        pool.release(frame);
        socket.kick().unwrap();
        let before = peer.received;
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while peer.received == before {
            assert!(
                Instant::now() < deadline,
                "queue {} sends nothing",
                socket.queue()
            );
            peer.receive();
        }
    }
    drop(program);
    // The one that registered the memory goes first; the other must not mind.
    for socket in [first, second, peer.socket] {
        socket.close(&mut pool, CLOSE_TIMEOUT).unwrap();
    }
    pool.leaks().unwrap();
}

#[test]
fn frames_stuck_at_an_interface_that_is_down_are_seen_and_come_back_when_the_socket_is_closed() {
    let Some(lab) = Lab::new("dn", 1500, 1) else {
        return;
    };
    lab.enter(0);
    let ifindex = lab.interface(0).index;
    let mut pool = pool(1, 1);
    let mut socket = open(&mut pool, &copy_mode(ifindex));
    lab.set_link(0, "down");

    let seconds = Duration::from_secs;
    socket.set_clock(seconds(100));
    let frames: Vec<FrameIndex> = (0..40)
        .map(|_| pool.alloc(Reserve::Data).unwrap())
        .collect();
    for &frame in &frames {
        pool.bytes_mut(frame).unwrap()[..60].fill(0xff);
        socket.send(&mut pool, frame, 0, 60, Reserve::Data).unwrap();
    }
    socket.kick().expect("ENETDOWN is normal");
    assert!(socket.counters().wake.net_down > 0);
    assert_eq!(socket.complete(&mut pool), 0);
    assert_eq!(socket.oldest_tx_age(seconds(102)), Some(seconds(2)));
    assert!(pool.bytes_mut(frames[0]).is_none(), "writable while in TX");
    for &frame in &frames[..20] {
        pool.release(frame);
    }
    assert_eq!(pool.leaks().unwrap_err().in_tx, 40);

    let mut closing: ClosingSocket = socket.begin_close(&mut pool);
    assert_eq!(closing.frames_held(), 40);
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    while !closing.poll(&mut pool).unwrap() {
        assert!(
            Instant::now() < deadline,
            "the kernel does not release the socket"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pool.counts().in_tx, 0);
    assert!(pool.bytes_mut(frames[30]).is_some());

    // What was kept is sent by the next socket.
    lab.set_link(0, "up");
    let mut socket = open(&mut pool, &copy_mode(ifindex));
    for &frame in &frames[20..] {
        socket.send(&mut pool, frame, 0, 60, Reserve::Data).unwrap();
        pool.release(frame);
    }
    socket.close(&mut pool, CLOSE_TIMEOUT).unwrap();
    pool.leaks().unwrap();
}

#[test]
fn a_socket_whose_interface_vanished_says_so_and_closes_without_leaks() {
    let Some(mut lab) = Lab::new("gn", 1500, 1) else {
        return;
    };
    lab.enter(0);
    let mut pool = pool(1, 1);
    let mut socket = open(&mut pool, &copy_mode(lab.interface(0).index));
    lab.delete_pair();
    let frame = pool.alloc(Reserve::Data).unwrap();
    socket.send(&mut pool, frame, 0, 60, Reserve::Data).unwrap();
    pool.release(frame);
    let error = socket.kick().unwrap_err();
    println!("kick after the interface vanished: {error}");
    socket.close(&mut pool, CLOSE_TIMEOUT).unwrap();
    pool.leaks().unwrap();
}
