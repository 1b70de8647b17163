//! The headers of the media in front of a packet in its frame.

use xtipc_xsk::{FrameIndex, FramePool, Reserve};

use super::HEADROOM;
use super::traffic::TxDrop;

/// Sends the `len` bytes at [`HEADROOM`] of a frame with this header before them, by `send`, which is told where the whole
/// starts. While another transmission with another header holds the frame, a copy is sent.
pub(super) fn send_behind(
    header: &[u8],
    pool: &mut FramePool,
    frame: FrameIndex,
    len: usize,
    reserve: Reserve,
    send: impl FnOnce(&mut FramePool, FrameIndex, usize) -> Result<(), TxDrop>,
) -> Result<(), TxDrop> {
    let start = HEADROOM - header.len();
    if put(pool, frame, header) {
        return send(pool, frame, start);
    }
    let copy = pool.alloc(reserve).ok_or(TxDrop::NoFrame)?;
    let packet = pool.bytes(frame)[HEADROOM..HEADROOM + len].to_vec();
    if let Some(bytes) = pool.bytes_mut(copy) {
        bytes[HEADROOM..HEADROOM + len].copy_from_slice(&packet);
    }
    let result = match put(pool, copy, header) {
        true => send(pool, copy, start),
        false => Err(TxDrop::NoFrame),
    };
    pool.release(copy);
    result
}

/// Makes the frame's bytes before the packet this header. `false` while a transmission with another one holds it.
fn put(pool: &mut FramePool, frame: FrameIndex, header: &[u8]) -> bool {
    let place = HEADROOM - header.len()..HEADROOM;
    match pool.bytes_mut(frame) {
        Some(bytes) => {
            bytes[place].copy_from_slice(header);
            true
        }
        None => &pool.bytes(frame)[place] == header,
    }
}
