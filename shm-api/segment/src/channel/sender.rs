//! The sending end of one direction of a channel.

mod datagrams;

use std::sync::Arc;

pub use datagrams::DATAGRAM_OVERHEAD;

use super::envelope::Envelope;
use super::memory::{ARENA_LEN, ENTRIES, Memory};
use super::{ChannelWait, INLINE_MAX, Ringer, Side};
use crate::MESSAGE_LEN_MAX;
use crate::address::Importance;
use crate::blocks::{BLOCK, BlockMap, Run};
use crate::primitive::{AtomicU64, Ordering};
use crate::stamped::{StampedConsumer, StampedProducer};
use crate::violation::Violation;
use crate::wake::{Progress, REVOKED, stands_by};

/// Kinds of messages.
pub(super) const INLINE: u32 = 1;
pub(super) const COPIED: u32 = 2;
pub(super) const LOANED: u32 = 3;
pub(super) const SWITCH: u32 = 4;

/// What a message of `len` bytes counts.
pub(super) fn units(len: usize) -> u32 {
    ((len + 24) / 1024 + 1) as u32
}

/// The other side's returns are read when so many messages are out: each look takes a line from its cache. So many of the
/// longest leave room for one more wherever they lie.
const RETURNS_AT_ONCE: usize = 4;
const _: () = assert!(
    (ARENA_LEN - (RETURNS_AT_ONCE - 1) * (MESSAGE_LEN_MAX + BLOCK)) / RETURNS_AT_ONCE
        >= MESSAGE_LEN_MAX + BLOCK
);

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It is sent.
    Done,
    /// It has to wait for the other side to read.
    Congested,
    /// The other side takes nothing more. If there is a number the message is in the ring, and
    /// [`ChannelSender::was_taken`] tells whether it was in time.
    Revoked(Option<u32>),
}

/// What was sent, as long as it may be unread.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// As the entry says, which the other side may write over.
    head: u32,
    /// Where in the arena, if it is not in the ring.
    offset: u32,
    /// If it is named: its word 1.
    name: u64,
}

impl Sent {
    /// Kind, length and envelope.
    fn decode(&self) -> (u32, usize, Envelope) {
        // It was encoded here.
        Envelope::decode_head(self.head, || self.name).unwrap_or_default()
    }
}

/// Memory of the arena that the caller fills and then sends. Dropping it without sending keeps its room taken until the
/// channel ends: give it to [`ChannelSender::take_back`].
#[derive(Debug)]
pub struct Loan {
    memory: Arc<Memory>,
    side: Side,
    handle: u32,
    offset: u32,
    len: usize,
}

impl Loan {
    /// Its length.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes into it.
    ///
    /// # Panics
    /// If they do not fit behind `offset`, or in a forked child of the process that took the loan.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(
            self.memory.is_mapped_here(),
            "a loan cannot be written in a forked child"
        );
        assert!(
            offset <= self.len && bytes.len() <= self.len - offset,
            "range inside the loan"
        );
        self.memory
            .copy_in(self.side, self.offset as usize + offset, bytes);
    }

    /// A copy of what it holds now.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.memory
            .copy_out(self.side, self.offset as usize, &mut bytes);
        bytes
    }

    /// Where its bytes are, for writers of their own. The other side may write there too.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.at(self.side, self.offset as usize, self.len)
    }
}

/// See the module.
#[derive(Debug)]
pub struct ChannelSender {
    memory: Arc<Memory>,
    side: Side,
    messages: StampedProducer,
    /// Messages, and their bytes, in all.
    published: u64,
    published_bytes: u64,
    /// Consumed by the other side, and bytes of that, when this side last looked.
    consumed: u32,
    consumed_bytes: u64,
    returns: StampedConsumer,
    arena: BlockMap,
    /// By handle, what is out.
    runs: Vec<Option<Run>>,
    handles: Vec<u32>,
    sent: Vec<Sent>,
    /// Units sent and not acknowledged.
    unacked: u32,
    /// Units acknowledged in all, when this side last looked.
    acked: u32,
    window: u32,
    /// The last entry is the switch back.
    switched_back: bool,
    /// Length of a message that found no room in the arena, as long as that may be so.
    lacking: Option<usize>,
    ringer: Ringer,
}

impl ChannelSender {
    pub(super) fn new(memory: &Arc<Memory>, side: Side, ringer: Ringer) -> Self {
        Self {
            memory: Arc::clone(memory),
            side,
            messages: StampedProducer::default(),
            published: 0,
            published_bytes: 0,
            consumed: 0,
            consumed_bytes: 0,
            returns: StampedConsumer::default(),
            arena: BlockMap::new(ARENA_LEN),
            runs: vec![None; ENTRIES as usize],
            handles: (0..ENTRIES).rev().collect(),
            sent: vec![Sent::default(); ENTRIES as usize],
            unacked: 0,
            acked: 0,
            window: 0,
            switched_back: false,
            lacking: None,
            ringer,
        }
    }

    /// Begins to send: so many units are under way by another path, and the window is this until the other side tells
    /// another one. It acknowledges the former with its first acknowledgement.
    pub fn begin(&mut self, unacked: u32, window: u32) {
        self.unacked = unacked;
        self.window = window;
    }

    /// Sends a message.
    ///
    /// # Panics
    /// If it is longer than [`MESSAGE_LEN_MAX`].
    pub fn send(&mut self, importance: Importance, payload: &[u8]) -> Result<Sending, Violation> {
        let number = self.messages.next();
        match self.put(importance, payload)? {
            Sending::Done => Ok(self.call(number)),
            refused => Ok(refused),
        }
    }

    /// Sends messages, as many as can be sent without waiting, and calls the other side once for all of them. Gives how
    /// many, and what came of the next one; [`Sending::Revoked`] with a number is told of those that were sent, from that one on.
    ///
    /// # Panics
    /// If one is longer than [`MESSAGE_LEN_MAX`].
    pub fn send_all<'a>(
        &mut self,
        importance: Importance,
        payloads: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(u32, Sending), Violation> {
        let first = self.messages.next();
        let mut next = Sending::Done;
        for payload in payloads {
            next = self.put(importance, payload)?;
            if next != Sending::Done {
                break;
            }
        }
        let sent = self.messages.next().wrapping_sub(first);
        if sent > 0
            && let revoked @ Sending::Revoked(_) = self.call(first)
        {
            next = revoked;
        }
        Ok((sent, next))
    }

    /// Sends a message, of which the other side is still to be called.
    fn put(&mut self, importance: Importance, payload: &[u8]) -> Result<Sending, Violation> {
        assert!(payload.len() <= MESSAGE_LEN_MAX, "checked by the caller");
        if self.is_revoked() {
            return Ok(Sending::Revoked(None));
        }
        if !self.is_open()? {
            return Ok(Sending::Congested);
        }
        match self.lay_down(&Envelope::of(importance), payload)? {
            true => Ok(Sending::Done),
            false => {
                self.lacking = Some(payload.len());
                Ok(Sending::Congested)
            }
        }
    }

    /// Publishes a message for which the ring has room. False: the arena has none. In line, so that of a connection nothing is
    /// left of names.
    #[inline(always)]
    fn lay_down(&mut self, envelope: &Envelope, payload: &[u8]) -> Result<bool, Violation> {
        if payload.len() <= INLINE_MAX {
            let write = |words: &[AtomicU64]| {
                let (whole, rest) = payload.as_chunks();
                let (words, last) = words.split_at(whole.len());
                for (word, bytes) in words.iter().zip(whole) {
                    word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
                }
                if !rest.is_empty() {
                    let mut bytes = [0; 8];
                    bytes[..rest.len()].copy_from_slice(rest);
                    last[0].store(u64::from_le_bytes(bytes), Ordering::Relaxed);
                }
            };
            self.publish(INLINE, envelope, write, payload.len(), 0);
            return Ok(true);
        }
        let Some(mut loan) = self.loan(payload.len())? else {
            return Ok(false);
        };
        loan.write(0, payload);
        self.publish_loan(COPIED, envelope, &loan);
        Ok(true)
    }

    /// Wakes the other side, if it sleeps, for the messages from this one on; whether they were in time, if it takes
    /// nothing more, has to be asked.
    fn call(&mut self, first: u32) -> Sending {
        // For who looks on; the other side goes by the stamps.
        let (count, bytes) = (
            self.memory.sent(self.side),
            self.memory.sent_bytes(self.side),
        );
        count.store(self.published, Ordering::Relaxed);
        bytes.store(self.published_bytes, Ordering::Relaxed);
        self.ringer
            .ring_if_asleep(&self.memory, self.side.other(), Progress::Work);
        // Behind the fence of that.
        match self.is_revoked() {
            true => Sending::Revoked(Some(first)),
            false => Sending::Done,
        }
    }

    /// Whether the other side stands by for the processor of this one.
    pub fn is_awaited(&self) -> bool {
        stands_by(self.memory.sleep(self.side.other()))
    }

    fn is_revoked(&self) -> bool {
        let word = self.memory.sleep(self.side.other());
        word.load(Ordering::Relaxed) == REVOKED
    }

    /// Of a channel that was revoked: whether the other side took the message of this number. `None`: it has not finished.
    pub fn was_taken(&self, number: u32) -> Option<bool> {
        let word = self.memory.taken_at_last(self.side.other());
        // SYNC POINT with the store in `ChannelReceiver::finish`.
        let taken = word.load(Ordering::Acquire);
        let is_later = |end: u32| end.wrapping_sub(number).wrapping_sub(1) < u32::MAX / 2;
        (taken >> 32 != 0).then(|| is_later(taken as u32))
    }

    /// Memory for a message of `len` bytes. `None`: there is no room now.
    ///
    /// # Panics
    /// If it is longer than [`MESSAGE_LEN_MAX`].
    pub fn loan(&mut self, len: usize) -> Result<Option<Loan>, Violation> {
        assert!(len <= MESSAGE_LEN_MAX, "checked by the caller");
        if ENTRIES as usize - self.handles.len() >= RETURNS_AT_ONCE {
            self.take_returns()?;
        }
        let Some(run) = self.arena.take(len) else {
            return Ok(None);
        };
        let Some(handle) = self.handles.pop() else {
            self.arena.give_back(run);
            return Ok(None);
        };
        self.runs[handle as usize] = Some(run);
        Ok(Some(Loan {
            memory: Arc::clone(&self.memory),
            side: self.side,
            handle,
            offset: run.offset() as u32,
            len,
        }))
    }

    /// Sends a loan of this channel, whose memory belongs to the other side until that returns it. `Err`: it is not sent,
    /// but as the second says.
    pub fn send_loan(
        &mut self,
        importance: Importance,
        loan: Loan,
    ) -> Result<Result<Sending, (Loan, Sending)>, Violation> {
        if !self.owns(&loan) || self.is_revoked() {
            return Ok(Err((loan, Sending::Revoked(None))));
        }
        if !self.is_open()? {
            return Ok(Err((loan, Sending::Congested)));
        }
        let number = self.messages.next();
        self.publish_loan(LOANED, &Envelope::of(importance), &loan);
        Ok(Ok(self.call(number)))
    }

    /// Whether a loan is of this channel, and not of one that the socket had before.
    pub fn owns(&self, loan: &Loan) -> bool {
        Arc::ptr_eq(&loan.memory, &self.memory)
    }

    /// Takes a loan back that was not sent.
    pub fn take_back(&mut self, loan: Loan) {
        if self.owns(&loan)
            && let Some(run) = self.runs[loan.handle as usize].take()
        {
            self.arena.give_back(run);
            self.handles.push(loan.handle);
        }
    }

    /// Tells the other side that what follows comes by the daemon.
    pub fn switch_back(&mut self) -> Result<Sending, Violation> {
        if !self.ring_has_room()? {
            return Ok(Sending::Congested);
        }
        let number = self.messages.next();
        self.publish(SWITCH, &Envelope::default(), |_| {}, 0, 0);
        self.switched_back = true;
        Ok(self.call(number))
    }

    /// Whether a message can be sent: if the last one was refused, one of that length.
    pub fn may_send(&mut self) -> Result<bool, Violation> {
        if let Some(len) = self.lacking {
            let Some(loan) = self.loan(len)? else {
                return Ok(false);
            };
            self.take_back(loan);
            self.lacking = None;
        }
        self.is_open()
    }

    /// Shows how this side waits to send.
    pub fn show(&self, wait: ChannelWait) {
        let (memory, side) = (&self.memory, self.side);
        let words = [
            (memory.refused_since(side), wait.refused_since),
            (memory.calls_since(side), wait.calls_since),
        ];
        for (word, since) in words {
            word.store(since, Ordering::Relaxed);
        }
        memory
            .waiting_calls(side)
            .store(wait.calls, Ordering::Relaxed);
    }

    /// Whether window and ring let a message through.
    fn is_open(&mut self) -> Result<bool, Violation> {
        if self.unacked > self.window {
            self.take_acknowledgement()?;
        }
        Ok(self.unacked <= self.window && self.ring_has_room()?)
    }

    /// Messages sent and not consumed.
    pub fn unread(&mut self) -> Result<u32, Violation> {
        let consumed = self.memory.consumed(self.side.other());
        // SYNC POINT with the store in `Acknowledger::consumed`: what was consumed is not read any more.
        let consumed = consumed.load(Ordering::Acquire);
        let unread = self.messages.next().wrapping_sub(consumed);
        let before = self.messages.next().wrapping_sub(self.consumed);
        if unread > before {
            return Err(Violation::Cursor {
                ring: "channel",
                distance: unread,
                capacity: before,
            });
        }
        self.consumed = consumed;
        Ok(unread)
    }

    /// Whether the other side has consumed all messages, or all that it took before it revoked.
    pub fn is_all_read(&mut self) -> Result<bool, Violation> {
        let unread = self.unread()?;
        let taken = self.memory.taken_at_last(self.side.other());
        let late = match taken.load(Ordering::Acquire) {
            taken if taken >> 32 != 0 => self.messages.next().wrapping_sub(taken as u32),
            _ => 0,
        };
        Ok(unread <= late.max(u32::from(self.switched_back)))
    }

    /// The oldest message that was not consumed, cut to `len` bytes. `None`: there is none. Its bytes are what this side
    /// sent, unless the other one has written over them.
    pub fn oldest_unread(&mut self, len: usize) -> Result<Option<Vec<u8>>, Violation> {
        if self.unread()? == 0 {
            return Ok(None);
        }
        Ok(Some(self.sent(self.consumed, len)))
    }

    /// The message of this number, cut to `len` bytes, as long as the other side may not have consumed it.
    pub fn sent(&self, number: u32, len: usize) -> Vec<u8> {
        let sent = self.sent[(number % ENTRIES) as usize];
        let (kind, sent_len, envelope) = sent.decode();
        let mut bytes = vec![0; len.min(sent_len)];
        match kind {
            COPIED | LOANED => {
                let offset = sent.offset as usize;
                self.memory.copy_out(self.side, offset, &mut bytes);
            }
            _ => {
                let entry = &self.memory.messages(self.side)[(number % ENTRIES) as usize];
                let front = envelope.words();
                for (chunk, word) in bytes.chunks_mut(8).zip(&entry[front..]) {
                    let word = word.load(Ordering::Relaxed).to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
        }
        bytes
    }

    fn ring_has_room(&mut self) -> Result<bool, Violation> {
        let under_way = self.messages.next().wrapping_sub(self.consumed);
        Ok(under_way < ENTRIES || self.unread()? < ENTRIES)
    }

    fn publish_loan(&mut self, kind: u32, envelope: &Envelope, loan: &Loan) {
        let place = u64::from(loan.handle) << 32 | u64::from(loan.offset);
        let write = |words: &[AtomicU64]| words[0].store(place, Ordering::Relaxed);
        self.publish(kind, envelope, write, loan.len, loan.offset);
    }

    #[inline]
    fn publish(
        &mut self,
        kind: u32,
        envelope: &Envelope,
        write: impl FnOnce(&[AtomicU64]),
        len: usize,
        offset: u32,
    ) {
        let head = envelope.encode_head(kind, len);
        let sent = &mut self.sent[(self.messages.next() % ENTRIES) as usize];
        (sent.head, sent.offset) = (head, offset);
        if let Some(name) = envelope.name_word() {
            sent.name = name;
        }
        self.lacking = None;
        self.unacked = self.unacked.wrapping_add(units(len));
        let messages = self.memory.messages(self.side);
        self.messages
            .push(messages, head, |words| match envelope.name_word() {
                None => write(words),
                Some(name) => {
                    words[0].store(name, Ordering::Relaxed);
                    write(&words[1..]);
                }
            });
        self.published += 1;
        self.published_bytes += len as u64;
    }

    fn take_acknowledgement(&mut self) -> Result<(), Violation> {
        let word = self.memory.acknowledged(self.side.other());
        let told = word.load(Ordering::Relaxed);
        let (acked, window) = (told as u32, (told >> 32) as u32);
        // A window is never 0: nothing was told yet.
        if told == 0 {
            return Ok(());
        }
        let newly = acked.wrapping_sub(self.acked);
        if newly > self.unacked {
            return Err(Violation::Cursor {
                ring: "acknowledgement",
                distance: newly,
                capacity: self.unacked,
            });
        }
        self.acked = acked;
        self.unacked -= newly;
        self.window = window;
        Ok(())
    }

    /// Takes memory back that the other side has let go of.
    fn take_returns(&mut self) -> Result<(), Violation> {
        while let Some((handle, _)) = self.returns.peek(self.memory.returns(self.side.other())) {
            self.returns.advance();
            let run = self.runs.get_mut(handle as usize).and_then(Option::take);
            let unknown = Violation::Buffer {
                handle: handle.into(),
            };
            self.arena.give_back(run.ok_or(unknown)?);
            self.handles.push(handle);
        }
        Ok(())
    }
}
