//! The receiving half with a made-up kernel that fills chunks of the fill ring.

use super::*;
use crate::memory::Mapping;
use crate::pool::{FramePool, PoolConfig};
use crate::ring::tests::pair;
use proptest::prelude::*;
use std::sync::Arc;

const CHUNKS: u32 = 64;
const RX_ENTRIES: u32 = 32;
const HEADROOM: usize = 256;

struct Kernel {
    memory: Arc<Mapping>,
    rx: Producer<XdpDesc>,
    fill: Consumer<u64>,
}

fn socket(multi_buffer: bool) -> (FramePool, Receive, Kernel) {
    let sizes = PoolConfig {
        frame_count: 2,
        control_reserve: 0,
        receive_areas: 2,
        spare_areas: 0,
        receive_chunks: CHUNKS,
        ..PoolConfig::default()
    };
    let mut pool = FramePool::new(&sizes).unwrap();
    let area = pool.take_receive_area().unwrap();
    let memory = Arc::clone(area.memory());
    let (rx, rx_consumer) = pair(RX_ENTRIES, u32::MAX - 40);
    let (fill_producer, fill) = pair(CHUNKS, u32::MAX - 90);
    let receive = Receive::new(rx_consumer, fill_producer, area, multi_buffer);
    (pool, receive, Kernel { memory, rx, fill })
}

impl Kernel {
    /// Delivers a packet in parts of at most `part_max` bytes; `false` if there is no room.
    fn deliver(&mut self, packet: &[u8], part_max: usize) -> bool {
        let parts: Vec<_> = packet.chunks(part_max).collect();
        if !self.rx.has_room(parts.len() as u32) {
            return false;
        }
        let chunks: Vec<u64> = (0..parts.len()).map_while(|_| self.fill.pop()).collect();
        assert_eq!(
            chunks.len(),
            parts.len(),
            "the fill ring ran empty: a chunk was lost"
        );
        self.fill.publish();
        for (index, (part, chunk)) in parts.iter().zip(chunks).enumerate() {
            let addr = chunk + HEADROOM as u64;
            let start = self.memory.at(addr as usize, part.len());
            // SAFETY: in the mapping; the chunk came from the fill ring, so the socket does not use it.
            unsafe {
                part.as_ptr()
                    .copy_to_nonoverlapping(start.as_ptr(), part.len())
            };
            let last = index + 1 == parts.len();
            let options = if last {
                XdpDescOptions::empty()
            } else {
                XdpDescOptions::XDP_PKT_CONTD
            };
            self.rx.push(XdpDesc {
                addr,
                len: part.len() as u32,
                options,
            });
        }
        self.rx.publish();
        true
    }

    fn chunks_in_fill_ring(&mut self) -> usize {
        let mut chunks: Vec<u64> = std::iter::from_fn(|| self.fill.pop()).collect();
        let count = chunks.len();
        chunks.sort_unstable();
        chunks.dedup();
        assert_eq!(chunks.len(), count, "a chunk was given to the kernel twice");
        count
    }
}

/// Bytes that tell the packet and the position.
fn packet(number: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (number * 31 + at * 7 + at / 251) as u8)
        .collect()
}

proptest! {
    #[test]
    fn packets_arrive_whole_and_in_order_and_every_chunk_goes_home(
        rounds in prop::collection::vec(
            (prop::collection::vec((1..9000usize, 512..3841usize), 0..12), 0..12usize), 1..40,
        ),
    ) {
        let (_pool, mut receive, mut kernel) = socket(true);
        let (mut sent, mut received) = (Vec::new(), 0);
        for (deliveries, budget) in rounds {
            for (len, part_max) in deliveries {
                let packet = packet(sent.len(), len);
                if kernel.deliver(&packet, part_max) {
                    sent.push(packet);
                }
            }
            let waiting = sent.len() - received;
            let count = receive.receive(budget, |packet| {
                assert_eq!(packet, sent[received]);
                received += 1;
                // The receiver may write; nobody else may see it.
                packet.fill(0xEE);
            });
            prop_assert_eq!(count, budget.min(waiting));
        }
        receive.receive(usize::MAX, |packet| {
            assert_eq!(packet, sent[received]);
            received += 1;
        });
        prop_assert_eq!(received, sent.len());
        prop_assert_eq!(kernel.chunks_in_fill_ring(), CHUNKS as usize);
        prop_assert_eq!(receive.counters().packets, sent.len() as u64);
    }
}

#[test]
fn half_a_packet_waits_for_its_rest_over_calls() {
    let (_pool, mut receive, mut kernel) = socket(true);
    let whole = packet(1, 5000);
    assert!(kernel.deliver(&whole, 3000));
    // Take back the last part as if the kernel had published only the first.
    let parts: Vec<_> = std::iter::from_fn(|| receive.ring.pop()).collect();
    let mut seen = Vec::new();
    assert!(!receive.take(&parts[0], &mut |packet: &mut [u8]| {
        seen.push(packet.to_vec())
    }));
    assert!(receive.take(&parts[1], &mut |packet: &mut [u8]| {
        seen.push(packet.to_vec())
    }));
    assert_eq!(seen, [whole]);
}

#[test]
fn an_unasked_or_overlong_packet_of_several_chunks_is_dropped_whole() {
    for (multi_buffer, len) in [(false, 5000), (true, GATHERED_MAX + 1)] {
        let (_pool, mut receive, mut kernel) = socket(multi_buffer);
        assert!(kernel.deliver(&packet(1, len), 3840));
        assert!(kernel.deliver(&packet(2, 60), 3840));
        let mut seen = Vec::new();
        assert_eq!(receive.receive(64, |packet| seen.push(packet.to_vec())), 1);
        assert_eq!(seen, [packet(2, 60)]);
        assert_eq!(receive.counters().oversize, 1);
        assert_eq!(kernel.chunks_in_fill_ring(), CHUNKS as usize);
    }
}

#[test]
fn descriptors_outside_the_receive_area_are_counted_and_never_touched() {
    let (pool, mut receive, mut kernel) = socket(false);
    let other_area = receive.area().chunk_addresses().last().unwrap() + CHUNK_SIZE as u64;
    let own = kernel.fill.pop().unwrap();
    kernel.fill.publish();
    let descriptor = |addr, len| XdpDesc {
        addr,
        len,
        options: XdpDescOptions::empty(),
    };
    kernel
        .rx
        .push(descriptor(pool.address(crate::FrameIndex(0)), 60));
    kernel.rx.push(descriptor(other_area, 60));
    kernel.rx.push(descriptor(u64::MAX - 10, 60));
    kernel.rx.push(descriptor(own + 4000, 97));
    kernel.rx.publish();
    assert_eq!(receive.receive(64, |_| panic!("handed over")), 0);
    assert_eq!(receive.counters().invalid, 4);
    // Only the chunk that is ours went home.
    assert_eq!(kernel.chunks_in_fill_ring(), CHUNKS as usize);
}

#[test]
fn a_fill_ring_that_looks_full_gets_the_chunks_later() {
    let (_pool, mut receive, mut kernel) = socket(false);
    for number in 0..3 {
        // Taken without publishing: the producer cannot know that there is room.
        let chunk = kernel.fill.pop().unwrap();
        kernel.rx.push(XdpDesc {
            addr: chunk,
            len: number + 1,
            options: XdpDescOptions::empty(),
        });
    }
    kernel.rx.publish();
    assert_eq!(receive.receive(64, |_| {}), 3);
    assert_eq!(receive.spare.len(), 3);
    kernel.fill.publish();
    receive.receive(64, |_| {});
    assert_eq!(receive.spare.len(), 0);
    assert_eq!(kernel.chunks_in_fill_ring(), CHUNKS as usize);
}
