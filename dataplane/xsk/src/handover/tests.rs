//! The rings between owner and server, with a made-up kernel at the end of the server's.

use super::*;
use crate::memory::Mapping;
use crate::pool::{PoolConfig, Reserve};
use crate::ring::tests::pair as ring;
use rustix::fs::{Mode, OFlags};
use std::thread;
use std::time::{Duration, Instant};

const CHUNKS: u32 = 64;
const FRAMES: u32 = 16;
const LEN: usize = 100;
const WINDOW: u64 = 12;

/// The kernel's ends of the rings, on an interface whose packets all come back.
struct Loopback {
    memory: Arc<Mapping>,
    rx: Producer<XdpDesc>,
    fill: Consumer<u64>,
    tx: Consumer<XdpDesc>,
    completions: Producer<u64>,
}

impl Loopback {
    /// Sends what there is, and receives it; what finds no chunk is lost. How many packets.
    fn work(&mut self) -> usize {
        let mut packets = 0;
        while self.completions.has_room(1) {
            let Some(sent) = self.tx.pop() else { break };
            self.deliver(&[(sent.addr, sent.len)]);
            self.completions.push(sent.addr);
            packets += 1;
        }
        self.tx.publish();
        self.completions.publish();
        packets
    }

    /// A packet whose parts have their bytes from these addresses. False: no chunk for it, or no room.
    fn deliver(&mut self, parts: &[(u64, u32)]) -> bool {
        if !self.rx.has_room(parts.len() as u32) {
            return false;
        }
        for (number, &(from, len)) in parts.iter().enumerate() {
            let Some(chunk) = self.fill.pop() else {
                assert_eq!(number, 0, "half a packet");
                return false;
            };
            let to = self.memory.at(chunk as usize, len as usize);
            let from = self.memory.at(from as usize, len as usize);
            // SAFETY: both in the mapping, of different chunks: one came from the fill ring, the other from a TX ring or
            // from nobody's.
            unsafe { from.copy_to_nonoverlapping(to, len as usize) };
            let options = if number + 1 < parts.len() {
                XdpDescOptions::XDP_PKT_CONTD
            } else {
                XdpDescOptions::empty()
            };
            self.rx.push(XdpDesc {
                addr: chunk,
                len,
                options,
            });
        }
        self.fill.publish();
        self.rx.publish();
        true
    }
}

struct Owner {
    pool: FramePool,
    receive: Receive,
    transmit: Transmit,
    server: Server,
}

/// Packets are gathered if they have several parts.
fn handed_over(to_server: Wake, to_owner: Wake) -> (Owner, ServedQueue, Loopback) {
    let mut pool = FramePool::new(&PoolConfig {
        frame_count: FRAMES,
        chunks_per_frame: 1,
        control_reserve: 0,
        receive_areas: 1,
        spare_areas: 0,
        receive_chunks: CHUNKS,
    })
    .unwrap();
    let area = pool.take_receive_area().unwrap();
    let memory = Arc::clone(area.memory());
    let ((rx, from_rx), (to_fill, fill)) = (ring(CHUNKS, 7), ring(CHUNKS, u32::MAX));
    let ((to_tx, tx), (completions, from_completions)) = (ring(8, 0), ring(8, 0));
    let mut receive = Receive::new(from_rx, to_fill, area, true);
    let mut transmit = Transmit::new(to_tx, from_completions, 0, true, FRAMES);
    let nowhere = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    let kernel = Kernel::new(nowhere, false);
    let wakes = (to_server, to_owner);
    let (server, served) = part(&mut receive, &mut transmit, &pool, kernel, wakes);
    let owner = Owner {
        pool,
        receive,
        transmit,
        server,
    };
    let kernel = Loopback {
        memory,
        rx,
        fill,
        tx,
        completions,
    };
    (owner, served, kernel)
}

fn nobody() -> Wake {
    Wake::new(|| {})
}

impl Owner {
    /// Sends a packet that tells its number, in a frame that is free when it was sent. False: there is none.
    fn send(&mut self, number: u64) -> bool {
        let Some(frame) = self.pool.alloc(Reserve::Data) else {
            return false;
        };
        let bytes = self
            .pool
            .bytes_mut(frame)
            .expect("a free frame is in no ring");
        bytes[..LEN].fill(number as u8);
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let sent = self
            .transmit
            .send(&mut self.pool, frame, 0, LEN, Reserve::Data);
        assert!(sent.is_ok(), "a ring as long as the pool is full");
        assert!(
            self.pool.bytes_mut(frame).is_none(),
            "written while in TX of another worker"
        );
        self.pool.release(frame);
        true
    }

    fn receive(&mut self, budget: usize) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        self.receive
            .receive(budget, |packet| packets.push(packet.to_vec()));
        packets
    }
}

/// Both sleep whenever they find nothing, and nothing but a wake ends that.
#[test]
fn all_that_is_sent_comes_back_once_and_in_order_between_two_threads_that_sleep() {
    const COUNT: u64 = 30_000;
    let awake = |thread: thread::Thread| Wake::new(move || thread.unpark());
    let me = thread::current();
    let (give, take) = std::sync::mpsc::channel::<(ServedQueue, Loopback)>();
    let serving = thread::spawn(move || {
        let (mut served, mut kernel) = take.recv().unwrap();
        let mut sleeps = 0;
        while !served.is_closing() {
            if served.serve(16) | (kernel.work() > 0) {
                continue;
            }
            if served.before_sleep() {
                sleeps += 1;
                thread::park();
            }
            served.awake();
        }
        served.close();
        sleeps
    });
    let (mut owner, served, kernel) = handed_over(awake(serving.thread().clone()), awake(me));
    give.send((served, kernel)).unwrap();
    let (mut sent, mut expected, mut sleeps) = (0, 0u64, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while expected < COUNT {
        assert!(Instant::now() < deadline, "{expected} of {COUNT} came back");
        owner.transmit.complete(&mut owner.pool);
        // No more than the owner has room for when they come back.
        while sent < COUNT.min(expected + WINDOW) && owner.send(sent) {
            sent += 1;
        }
        owner.server.owner_is_awake(&mut owner.receive);
        let mut came = 0;
        owner.receive.receive(8, |packet| {
            assert_eq!(packet[..8], expected.to_le_bytes());
            assert!(packet[8..].iter().all(|byte| *byte == expected as u8));
            packet.fill(0xEE);
            expected += 1;
            came += 1;
        });
        owner.server.kick(owner.transmit.ring()).unwrap();
        owner.server.wake_fill(owner.receive.fill());
        if came > 0 || owner.transmit.has_completions() {
            continue;
        }
        owner.server.owner_will_sleep(&mut owner.receive);
        // What waits for a completion comes with the packet that this one becomes.
        if !owner.receive.is_ready() && expected < sent {
            sleeps += 1;
            thread::park();
        }
    }
    let counters = owner.server.counters();
    assert_eq!(
        (counters.received, counters.sent, counters.dropped),
        (COUNT, COUNT, 0)
    );
    let link = owner.server.close();
    let server_sleeps = serving.join().unwrap();
    println!("{counters:?}, {sleeps} sleeps of the owner, {server_sleeps} of the server");
    assert!(link.is_released());
    owner.transmit.complete(&mut owner.pool);
    assert_eq!(owner.transmit.outstanding(), 0);
    owner.pool.return_receive_area(owner.receive.into_area());
    owner.pool.leaks().unwrap();
}

#[test]
fn an_owner_that_falls_behind_loses_whole_packets_and_the_kernel_no_chunk() {
    let (mut owner, mut served, mut kernel) = handed_over(nobody(), nobody());
    let nobodys = [(0, 60), (0, 40), (0, 20)];
    for round in 0..100 {
        // Two parts, then three.
        for parts in [&nobodys[..2], &nobodys] {
            assert!(kernel.deliver(parts), "no chunk left in round {round}");
        }
        served.serve(64);
    }
    let dropped = served.counters.dropped;
    // Half of the receive area holds 6 of each, and 2 parts more.
    assert_eq!((served.counters.received, dropped), (13, 187));
    let lens: Vec<usize> = owner.receive(64).iter().map(Vec::len).collect();
    assert_eq!(
        lens,
        [
            100, 120, 100, 120, 100, 120, 100, 120, 100, 120, 100, 120, 100
        ]
    );
    // It has caught up, and goes on.
    served.serve(64);
    assert!(kernel.deliver(&nobodys));
    served.serve(64);
    assert_eq!(owner.receive(64).len(), 1);
    served.serve(64);
    let chunks = std::iter::from_fn(|| kernel.fill.pop()).count();
    assert_eq!(chunks, CHUNKS as usize, "chunks of the area");
}

#[test]
fn who_looks_for_what_has_come_sees_it_in_the_kernels_ring_too() {
    let (mut owner, mut served, mut kernel) = handed_over(nobody(), nobody());
    assert!(owner.server.has_handed_over_all());
    assert!(kernel.deliver(&[(0, 60)]));
    assert!(!owner.server.has_handed_over_all());
    assert!(!owner.receive.is_ready());
    served.serve(64);
    assert!(owner.server.has_handed_over_all());
    assert_eq!(owner.receive(64).len(), 1);
}

#[test]
fn a_server_sleeps_on_with_few_chunks_out_and_is_woken_for_many() {
    let (mut owner, mut served, mut kernel) = handed_over(nobody(), nobody());
    for _ in 0..10 {
        assert!(kernel.deliver(&[(0, 60)]));
        served.serve(64);
    }
    assert!(served.before_sleep());
    owner.receive(64);
    owner.server.wake_fill(owner.receive.fill());
    assert_eq!(owner.server.counters().server_woken, 0);
    served.awake();
    served.refill();
    // More than half of them are with an owner that has not come round.
    while served.fill.waiting() >= CHUNKS / 2 {
        assert!(kernel.deliver(&[(0, 60)]));
        served.receive(64);
    }
    assert!(served.before_sleep(), "nothing to serve yet");
    owner.receive(64);
    owner.server.wake_fill(owner.receive.fill());
    assert_eq!(owner.server.counters().server_woken, 1);
}

#[test]
fn what_the_owner_wanted_sent_is_sent_before_a_socket_is_closed() {
    let (mut owner, served, mut kernel) = handed_over(nobody(), nobody());
    for number in 0..5 {
        assert!(owner.send(number));
    }
    owner.server.kick(owner.transmit.ring()).unwrap();
    let link = owner.server.close();
    assert!(served.is_closing());
    assert!(!link.is_released());
    served.close();
    assert!(link.is_released());
    assert_eq!(kernel.work(), 5);
}

#[test]
fn an_owner_whose_server_has_ended_hears_of_it() {
    let (mut owner, served, _kernel) = handed_over(nobody(), nobody());
    owner.server.kick(owner.transmit.ring()).unwrap();
    drop(served);
    assert_eq!(owner.server.kick(owner.transmit.ring()), Err(Errno::PIPE));
}
