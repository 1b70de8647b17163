//! The frame contract: pool and sending half against an oracle, with a made-up kernel behind the rings.

use super::*;
use crate::pool::PoolConfig;
use crate::ring::tests::pair;
use proptest::prelude::*;
use std::collections::VecDeque;

const TX_ENTRIES: u32 = 8;
const TX_RESERVE: u32 = 2;
const COMPLETION_ENTRIES: u32 = 4;

fn pool(frame_count: u32, chunks_per_frame: u32, control_reserve: u32) -> FramePool {
    let sizes = PoolConfig {
        frame_count,
        chunks_per_frame,
        control_reserve,
        receive_areas: 0,
        spare_areas: 0,
        receive_chunks: 64,
    };
    FramePool::new(&sizes).unwrap()
}

/// The kernel's side: takes descriptors, completes them in any order.
struct Kernel {
    tx: Consumer<XdpDesc>,
    completions: Producer<u64>,
    /// Taken and not completed, with the bytes as they were when sent.
    in_flight: Vec<(XdpDesc, Vec<u8>)>,
}

fn socket(frame_count: u32) -> (Transmit, Kernel) {
    let (tx_producer, tx) = pair(TX_ENTRIES, u32::MAX - 20);
    let (completions, completion_consumer) = pair(COMPLETION_ENTRIES, u32::MAX - 10);
    let transmit = Transmit::new(
        tx_producer,
        completion_consumer,
        TX_RESERVE,
        true,
        frame_count,
    );
    (
        transmit,
        Kernel {
            tx,
            completions,
            in_flight: Vec::new(),
        },
    )
}

/// What should be true of one frame.
#[derive(Clone, Default)]
struct Expected {
    queued: bool,
    in_tx: usize,
    content: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc(bool),
    Release(u8),
    Write(u8, u8),
    Send {
        pick: u8,
        offset: u16,
        len: u16,
        control: bool,
    },
    Publish,
    KernelTakes(u8),
    KernelCompletes(u8),
    Complete,
    SocketClosed,
}

fn op() -> impl Strategy<Value = Op> {
    let any_send = (any::<u8>(), 0..8192u16, 1..8192u16, any::<bool>());
    prop_oneof![
        4 => any::<bool>().prop_map(Op::Alloc),
        3 => any::<u8>().prop_map(Op::Release),
        3 => any::<(u8, u8)>().prop_map(|(pick, byte)| Op::Write(pick, byte)),
        6 => any_send.prop_map(|(pick, offset, len, control)| Op::Send { pick, offset, len, control }),
        4 => Just(Op::Publish),
        4 => (1..6u8).prop_map(Op::KernelTakes),
        6 => any::<u8>().prop_map(Op::KernelCompletes),
        4 => Just(Op::Complete),
        1 => Just(Op::SocketClosed),
    ]
}

struct World {
    pool: FramePool,
    transmit: Transmit,
    kernel: Kernel,
    frames: Vec<Expected>,
    /// The bytes of each descriptor in the TX ring, oldest first.
    on_the_way: VecDeque<Vec<u8>>,
    /// What the kernel put into the completion ring and we have not looked at.
    completed: Vec<FrameIndex>,
    frame_reserve: usize,
}

impl World {
    fn new(frame_count: u32, chunks_per_frame: u32, reserve: u32) -> Self {
        let pool = pool(frame_count, chunks_per_frame, reserve);
        let (transmit, kernel) = socket(frame_count);
        let content = vec![0; pool.frame_len()];
        let frames = vec![
            Expected {
                content,
                ..Expected::default()
            };
            frame_count as usize
        ];
        let frame_reserve = reserve as usize;
        Self {
            pool,
            transmit,
            kernel,
            frames,
            on_the_way: VecDeque::new(),
            completed: Vec::new(),
            frame_reserve,
        }
    }

    fn free(&self) -> usize {
        self.frames
            .iter()
            .filter(|frame| !frame.queued && frame.in_tx == 0)
            .count()
    }

    fn pick_queued(&self, pick: u8) -> Option<FrameIndex> {
        let queued: Vec<u32> = (0..self.frames.len() as u32)
            .filter(|&index| self.frames[index as usize].queued)
            .collect();
        (!queued.is_empty()).then(|| FrameIndex(queued[pick as usize % queued.len()]))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Alloc(control) => self.alloc(control),
            Op::Release(pick) => {
                if let Some(frame) = self.pick_queued(pick) {
                    self.pool.release(frame);
                    self.frames[frame.0 as usize].queued = false;
                }
            }
            Op::Write(pick, byte) => self.write(pick, byte),
            Op::Send {
                pick,
                offset,
                len,
                control,
            } => self.send(pick, offset, len, control),
            Op::Publish => self.transmit.ring.publish(),
            Op::KernelTakes(count) => {
                for descriptor in (0..count).map_while(|_| self.kernel.tx.pop()) {
                    let bytes = self.on_the_way.pop_front().unwrap();
                    self.kernel.in_flight.push((descriptor, bytes));
                }
                self.kernel.tx.publish();
            }
            Op::KernelCompletes(pick) => self.kernel_completes(pick),
            Op::Complete => {
                assert_eq!(self.transmit.complete(&mut self.pool), self.completed.len());
                for frame in self.completed.drain(..) {
                    self.frames[frame.0 as usize].in_tx -= 1;
                }
            }
            Op::SocketClosed => self.close(),
        }
    }

    fn alloc(&mut self, control: bool) {
        let (reserve, untouchable) = if control {
            (Reserve::Control, 0)
        } else {
            (Reserve::Data, self.frame_reserve)
        };
        let allocated = self.pool.alloc(reserve);
        assert_eq!(allocated.is_some(), self.free() > untouchable);
        if let Some(frame) = allocated {
            let expected = &mut self.frames[frame.0 as usize];
            assert!(
                !expected.queued && expected.in_tx == 0,
                "{frame:?} was in use"
            );
            expected.queued = true;
        }
    }

    fn write(&mut self, pick: u8, byte: u8) {
        let Some(frame) = self.pick_queued(pick) else {
            return;
        };
        let expected = &mut self.frames[frame.0 as usize];
        let writable = self.pool.bytes_mut(frame);
        assert_eq!(writable.is_some(), expected.in_tx == 0);
        if let Some(bytes) = writable {
            let at = usize::from(byte) * 16 % bytes.len();
            bytes[at..].fill(byte);
            expected.content[at..].fill(byte);
        }
    }

    fn send(&mut self, pick: u8, offset: u16, len: u16, control: bool) {
        let Some(frame) = self.pick_queued(pick) else {
            return;
        };
        let offset = usize::from(offset) % self.pool.frame_len();
        let len = usize::from(len).min(self.pool.frame_len() - offset);
        let reserve = if control {
            Reserve::Control
        } else {
            Reserve::Data
        };
        let chunks = (offset + len - 1) / CHUNK_SIZE - offset / CHUNK_SIZE + 1;
        let room = TX_ENTRIES as usize - self.transmit.ring.waiting() as usize;
        let needed = chunks + if control { 0 } else { TX_RESERVE as usize };
        let sent = self
            .transmit
            .send(&mut self.pool, frame, offset, len, reserve);
        assert_eq!(sent.is_ok(), needed <= room);
        if sent.is_ok() {
            let expected = &mut self.frames[frame.0 as usize];
            expected.in_tx += chunks;
            for chunk in offset / CHUNK_SIZE..offset / CHUNK_SIZE + chunks {
                let from = offset.max(chunk * CHUNK_SIZE);
                let to = (offset + len).min((chunk + 1) * CHUNK_SIZE);
                self.on_the_way
                    .push_back(expected.content[from..to].to_vec());
            }
        }
    }

    /// The kernel reads the bytes as late as it can: they must be those that were sent.
    fn kernel_completes(&mut self, pick: u8) {
        if self.kernel.in_flight.is_empty() || !self.kernel.completions.has_room(1) {
            return;
        }
        let position = pick as usize % self.kernel.in_flight.len();
        let (descriptor, sent) = self.kernel.in_flight.remove(position);
        let frame = self.pool.frame_at(descriptor.addr).unwrap();
        let offset = (descriptor.addr - self.pool.address(frame)) as usize;
        let now = &self.pool.bytes(frame)[offset..offset + descriptor.len as usize];
        assert_eq!(now, sent, "bytes of {frame:?} changed while in TX");
        self.kernel.completions.push(descriptor.addr);
        self.kernel.completions.publish();
        self.completed.push(frame);
    }

    fn close(&mut self) {
        let frame_count = self.frames.len() as u32;
        let (transmit, kernel) = socket(frame_count);
        self.kernel = kernel;
        let closed = std::mem::replace(&mut self.transmit, transmit);
        for (frame, descriptors) in closed.into_outstanding() {
            let expected = &mut self.frames[frame.0 as usize];
            assert_eq!(expected.in_tx, usize::from(descriptors));
            expected.in_tx = 0;
            self.pool.tx_finished(frame, descriptors);
        }
        self.on_the_way.clear();
        self.completed.clear();
    }

    fn check(&self) {
        let counts = self.pool.counts();
        let count =
            |of: fn(&Expected) -> bool| self.frames.iter().filter(|frame| of(frame)).count();
        assert_eq!(counts.free as usize, self.free());
        assert_eq!(counts.queued as usize, count(|frame| frame.queued));
        assert_eq!(counts.in_tx as usize, count(|frame| frame.in_tx > 0));
        for (index, expected) in (0..).map(FrameIndex).zip(&self.frames) {
            assert_eq!(self.pool.is_in_tx(index), expected.in_tx > 0);
            assert_eq!(self.pool.bytes(index), expected.content, "{index:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_frame_is_never_lost_used_twice_written_in_tx_or_freed_while_the_kernel_has_it(
        frame_count in 3..7u32,
        chunks_per_frame in 1..4u32,
        reserve in 0..3u32,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut world = World::new(frame_count, chunks_per_frame, reserve);
        for op in ops {
            world.apply(op);
            world.check();
        }
        for index in 0..frame_count {
            if world.frames[index as usize].queued {
                world.pool.release(FrameIndex(index));
            }
        }
        world.close();
        prop_assert_eq!(world.pool.leaks(), Ok(()));
    }
}

#[test]
fn a_packet_over_three_chunks_becomes_three_linked_descriptors() {
    let mut pool = pool(2, 3, 0);
    let (mut transmit, mut kernel) = socket(2);
    let frame = pool.alloc(Reserve::Data).unwrap();
    transmit
        .send(&mut pool, frame, 100, 9000, Reserve::Data)
        .unwrap();
    assert!(kernel.tx.pop().is_none(), "visible before it is published");
    transmit.ring.publish();
    let descriptors: Vec<_> = std::iter::from_fn(|| kernel.tx.pop()).collect();
    let base = pool.address(frame);
    let (more, last) = (XdpDescOptions::XDP_PKT_CONTD, XdpDescOptions::empty());
    let expected = [
        XdpDesc {
            addr: base + 100,
            len: 3996,
            options: more,
        },
        XdpDesc {
            addr: base + 4096,
            len: 4096,
            options: more,
        },
        XdpDesc {
            addr: base + 8192,
            len: 908,
            options: last,
        },
    ];
    assert_eq!(descriptors, expected);
}

#[test]
fn data_leaves_tx_slots_that_control_may_take() {
    let mut pool = pool(TX_ENTRIES, 1, 0);
    let (mut transmit, _kernel) = socket(TX_ENTRIES);
    let mut send = |reserve| {
        let frame = pool.alloc(Reserve::Control).unwrap();
        let sent = transmit.send(&mut pool, frame, 0, 60, reserve);
        pool.release(frame);
        sent
    };
    for _ in 0..TX_ENTRIES - TX_RESERVE {
        assert_eq!(send(Reserve::Data), Ok(()));
    }
    assert_eq!(send(Reserve::Data), Err(TxFull));
    for _ in 0..TX_RESERVE {
        assert_eq!(send(Reserve::Control), Ok(()));
    }
    assert_eq!(transmit.counters().ring_full, 1);
}

#[test]
fn a_single_lost_completion_shows_by_its_age_amid_traffic() {
    let mut pool = pool(2, 1, 0);
    let (mut transmit, mut kernel) = socket(2);
    let seconds = Duration::from_secs;
    assert_eq!(transmit.oldest_age(seconds(9)), None);
    let lost = pool.alloc(Reserve::Data).unwrap();
    assert_eq!(transmit.frames().count(), 0);
    transmit.set_clock(seconds(10));
    transmit
        .send(&mut pool, lost, 0, 60, Reserve::Data)
        .unwrap();
    for second in 11..14 {
        transmit.set_clock(seconds(second));
        let frame = pool.alloc(Reserve::Data).unwrap();
        transmit
            .send(&mut pool, frame, 0, 60, Reserve::Data)
            .unwrap();
        pool.release(frame);
        transmit.ring.publish();
        while let Some(descriptor) = kernel.tx.pop() {
            if descriptor.addr != pool.address(lost) {
                kernel.completions.push(descriptor.addr);
            }
        }
        kernel.completions.publish();
        assert_eq!(transmit.complete(&mut pool), 1);
    }
    assert_eq!(transmit.oldest_age(seconds(13)), Some(seconds(3)));
    assert_eq!(transmit.frames().collect::<Vec<_>>(), [lost]);
    assert_eq!(transmit.into_outstanding(), [(lost, 1)]);
}

#[test]
fn a_completion_of_something_never_sent_is_counted_and_ignored() {
    let mut pool = pool(2, 1, 0);
    let (mut transmit, mut kernel) = socket(2);
    for address in [0, 4096, 8192, u64::MAX] {
        kernel.completions.push(address);
    }
    kernel.completions.publish();
    assert_eq!(transmit.complete(&mut pool), 4);
    assert_eq!(transmit.counters().completions_foreign, 4);
    assert_eq!(pool.leaks(), Ok(()));
}

#[test]
#[should_panic(expected = "nobody holds it")]
fn releasing_a_frame_twice_is_our_bug() {
    let mut pool = pool(2, 1, 0);
    let frame = pool.alloc(Reserve::Data).unwrap();
    pool.release(frame);
    pool.release(frame);
}

#[test]
#[should_panic(expected = "sent, but nobody holds it")]
fn sending_a_released_frame_is_our_bug() {
    let mut pool = pool(2, 1, 0);
    let (mut transmit, _kernel) = socket(2);
    let frame = pool.alloc(Reserve::Data).unwrap();
    pool.release(frame);
    let _ = transmit.send(&mut pool, frame, 0, 60, Reserve::Data);
}

#[test]
fn impossible_pools_are_refused_with_the_limit() {
    let good = PoolConfig {
        frame_count: 4,
        control_reserve: 1,
        receive_areas: 0,
        ..PoolConfig::default()
    };
    let error = |config: PoolConfig| FramePool::new(&config).unwrap_err().to_string();
    assert_eq!(
        error(PoolConfig {
            chunks_per_frame: 18,
            ..good
        }),
        "18 chunks per frame: 1 to 17 are possible"
    );
    assert!(
        error(PoolConfig {
            control_reserve: 4,
            ..good
        })
        .contains("more than 4 frames, not 4")
    );
    assert!(
        error(PoolConfig {
            receive_chunks: 100,
            ..good
        })
        .contains("power of two")
    );
    let huge = PoolConfig {
        frame_count: u32::MAX,
        chunks_per_frame: 17,
        ..good
    };
    assert!(error(huge).contains("too large"));
}
