//! The mapped memory of a channel, and where everything is in it.

use std::io;
use std::os::fd::BorrowedFd;

use super::Side;
use crate::area::Area;
use crate::layout::RingPlace;
use crate::primitive::{AtomicU32, AtomicU64};
use crate::stamped::Entries;

/// Messages, and returns, of one direction.
pub(super) const ENTRIES: u32 = 1024;
/// Words of a message.
pub(super) const MESSAGE_WORDS: usize = 32;
/// Bytes of an arena.
pub(super) const ARENA_LEN: usize = 1 << 20;

const CONTROL_LEN: usize = 1024;
const MESSAGES: usize = 4096;
const MESSAGES_LEN: usize = ENTRIES as usize * MESSAGE_WORDS * 8;
const RETURNS: usize = MESSAGES + 2 * MESSAGES_LEN;
const RETURNS_LEN: usize = ENTRIES as usize * 8;
const ARENAS: usize = RETURNS + 2 * RETURNS_LEN;
pub(super) const LEN: usize = ARENAS + 2 * ARENA_LEN;

const _: () = assert!(ARENAS.is_multiple_of(4096) && LEN.is_multiple_of(4096));

/// See the module.
#[derive(Debug)]
pub(super) struct Memory(Area);

impl Memory {
    /// Maps the memory, whose size the caller has checked.
    pub(super) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(Area::map(fd, LEN, true)?))
    }

    /// Maps the control blocks alone, to be looked at.
    pub(super) fn map_control(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(Area::map(fd, MESSAGES, false)?))
    }

    /// How many messages a side has consumed.
    pub(super) fn consumed(&self, side: Side) -> &AtomicU32 {
        self.0.word_at(side as usize * CONTROL_LEN)
    }

    /// What a side has acknowledged, and its window.
    pub(super) fn acknowledged(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 8)
    }

    /// How many messages a side had taken when it revoked, with bit 32 set.
    pub(super) fn taken_at_last(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 16)
    }

    /// How many messages a side has sent.
    pub(super) fn sent(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 24)
    }

    /// How many bytes a side has sent.
    pub(super) fn sent_bytes(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 32)
    }

    /// How many bytes a side has consumed.
    pub(super) fn consumed_bytes(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 40)
    }

    /// Since when messages of a side are refused: nanoseconds of CLOCK_MONOTONIC, 0 for none.
    pub(super) fn refused_since(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 48)
    }

    /// How many calls of a side wait to send.
    pub(super) fn waiting_calls(&self, side: Side) -> &AtomicU32 {
        self.0.word_at(side as usize * CONTROL_LEN + 56)
    }

    /// Since when the oldest of them waits.
    pub(super) fn calls_since(&self, side: Side) -> &AtomicU64 {
        self.0.double_word_at(side as usize * CONTROL_LEN + 64)
    }

    /// Whether a side has mapped the channel: not 0.
    pub(super) fn present(&self, side: Side) -> &AtomicU32 {
        self.0.word_at(side as usize * CONTROL_LEN + 136)
    }

    /// Sleep word of a side.
    pub(super) fn sleep(&self, side: Side) -> &AtomicU32 {
        self.0.word_at(side as usize * CONTROL_LEN + 128)
    }

    /// Processor of a side.
    pub(super) fn processor(&self, side: Side) -> &AtomicU32 {
        self.0.word_at(side as usize * CONTROL_LEN + 132)
    }

    /// Messages that a side sends.
    pub(super) fn messages(&self, side: Side) -> Entries<'_, MESSAGE_WORDS> {
        self.0.entries(RingPlace {
            offset: (MESSAGES + side as usize * MESSAGES_LEN) as u32,
            entries: ENTRIES,
            entry_size: MESSAGE_WORDS as u32 * 8,
        })
    }

    /// What a side gives back.
    pub(super) fn returns(&self, side: Side) -> Entries<'_, 1> {
        self.0.entries(RingPlace {
            offset: (RETURNS + side as usize * RETURNS_LEN) as u32,
            entries: ENTRIES,
            entry_size: 8,
        })
    }

    /// Copies out of the arena of a side.
    pub(super) fn copy_out(&self, side: Side, offset: usize, out: &mut [u8]) {
        self.0.copy_out(arena(side) + offset, out);
    }

    /// Appends a part of the arena of a side to a vector.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, side: Side, offset: usize, len: usize) {
        self.0.append_to(out, arena(side) + offset, len);
    }

    /// Copies into the arena of this side.
    pub(super) fn copy_in(&self, side: Side, offset: usize, bytes: &[u8]) {
        self.0.copy_in(arena(side) + offset, bytes);
    }

    /// Where a payload lies.
    pub(super) fn at(&self, side: Side, offset: usize, len: usize) -> *mut u8 {
        self.0.range(arena(side) + offset, len)
    }

    /// Whether this process has mapped it, and not one that forked it.
    pub(super) fn is_mapped_here(&self) -> bool {
        self.0.is_mapped_here()
    }
}

fn arena(side: Side) -> usize {
    ARENAS + side as usize * ARENA_LEN
}
