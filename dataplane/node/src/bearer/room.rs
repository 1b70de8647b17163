//! How long a packet may be: what frames, chunks and the kernel's modes can carry. Pure arithmetic.

use xtipc_xsk::interface::Interface;
use xtipc_xsk::{CHUNK_SIZE, CHUNKS_PER_FRAME_MAX, PoolConfig, multi_buffer_supported};

use super::ethernet::header_size;
use super::{HEADROOM, infiniband, shm, udp};
use crate::config::{BearerSpec, MediaSpec, XdpMode};

/// What the kernel keeps free before a packet in a chunk it receives into (XDP_PACKET_HEADROOM).
const RECEIVE_HEADROOM: usize = 256;
/// Lengths of packets have 16 bits between TIPC nodes.
const PACKET_MAX: usize = 65_535;
/// Frames kept for link protocol: for more than 90 links by the formula of the pool.
const CONTROL_RESERVE: u32 = 256;
/// Receive chunks for each queue while there are few: fewer run empty above half a million packets a second.
const RECEIVE_CHUNKS: u32 = 4096;
/// Receive chunks of all queues of a node together, as far as each keeps [`RECEIVE_CHUNKS_MIN`].
const RECEIVE_CHUNKS_TOTAL: u32 = 16_384;
const RECEIVE_CHUNKS_MIN: u32 = 512;
/// Queues of interfaces that become bearers while the node runs.
const SPARE_AREAS: u32 = 16;

/// The longest packet that AF_XDP sends and receives in one chunk.
pub(super) fn single_chunk_room(vlan: u16) -> usize {
    CHUNK_SIZE - RECEIVE_HEADROOM - header_size(vlan)
}

/// The longest packet that a frame of the pool holds.
pub(super) fn frame_room(frame_len: usize) -> usize {
    (frame_len - HEADROOM).min(PACKET_MAX)
}

/// A pool for these bearers. An interface that cannot be asked counts as a common one: opening the bearer
/// will say what is wrong with it.
pub(crate) fn pool_config(specs: &[BearerSpec], xdp: XdpMode, frames: u32) -> PoolConfig {
    let (mut mtu, mut areas) = (0, 0);
    // The longest packet in one chunk is a limit of AF_XDP alone.
    let mut multi_chunk = xdp == XdpMode::Off || multi_buffer_supported() == Ok(true);
    for spec in specs {
        match &spec.media {
            MediaSpec::Ethernet(_) => {
                let found = Interface::query(&spec.interface).ok();
                mtu = mtu.max(found.as_ref().map_or(0, |found| found.mtu));
                areas += found.map_or(1, |found| found.rx_queues);
            }
            MediaSpec::InfiniBand => {
                mtu = mtu.max(infiniband::mtu_of(&spec.interface).unwrap_or(0));
                multi_chunk = true;
            }
            MediaSpec::Udp(udp) => {
                mtu = mtu.max(udp::mtu_wanted(udp));
                multi_chunk = true;
                let named = udp.interface().and_then(|name| Interface::query(name).ok());
                areas += named.map_or(0, |found| found.rx_queues);
            }
            MediaSpec::SharedMemory(_) => mtu = mtu.max(shm::MTU),
        }
    }
    if xdp == XdpMode::Off {
        areas = 0;
    }
    PoolConfig {
        frame_count: frames,
        chunks_per_frame: chunks_per_frame(mtu, multi_chunk),
        control_reserve: CONTROL_RESERVE.min(frames / 4),
        receive_areas: areas,
        spare_areas: if xdp == XdpMode::Off { 0 } else { SPARE_AREAS },
        receive_chunks: receive_chunks(areas),
    }
}

fn chunks_per_frame(mtu: u32, multi_chunk: bool) -> u32 {
    if !multi_chunk {
        return 1;
    }
    let bytes = HEADROOM as u32 + mtu.min(PACKET_MAX as u32);
    bytes
        .div_ceil(CHUNK_SIZE as u32)
        .clamp(1, CHUNKS_PER_FRAME_MAX)
}

fn receive_chunks(areas: u32) -> u32 {
    let share = RECEIVE_CHUNKS_TOTAL / areas.max(1);
    // A power of two, rounded down.
    (1 << share.max(1).ilog2()).clamp(RECEIVE_CHUNKS_MIN, RECEIVE_CHUNKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_the_packet_of_its_mtu_and_no_chunk_too_many() {
        for (mtu, chunks) in [
            (0, 1),
            (1500, 1),
            (4032, 1),
            (4033, 2),
            (9000, 3),
            (65_535, 17),
        ] {
            assert_eq!(chunks_per_frame(mtu, true), chunks, "{mtu}");
            assert!(frame_room(chunks as usize * CHUNK_SIZE) >= mtu as usize);
        }
        assert_eq!(chunks_per_frame(u32::MAX, true), CHUNKS_PER_FRAME_MAX);
        assert_eq!(chunks_per_frame(9000, false), 1);
    }

    #[test]
    fn many_queues_share_a_bounded_receive_memory() {
        for (areas, chunks) in [
            (0, 4096),
            (1, 4096),
            (4, 4096),
            (5, 2048),
            (16, 1024),
            (63, 512),
        ] {
            assert_eq!(receive_chunks(areas), chunks, "{areas}");
        }
    }

    #[test]
    fn what_one_chunk_receives_is_less_than_what_it_sends() {
        assert_eq!(single_chunk_room(0), 3826);
        assert_eq!(single_chunk_room(7), 3822);
        assert!(single_chunk_room(0) < frame_room(CHUNK_SIZE));
    }
}
