//! The receiving end of one direction of a channel.

use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{ARENA_LEN, ENTRIES, Memory};
use super::sender::{COPIED, INLINE, LOANED, SWITCH, units};
use super::{INLINE_MAX, Ringer, Side};
use crate::MESSAGE_LEN_MAX;
use crate::address::Importance;
use crate::primitive::Ordering;
use crate::stamped::{StampedConsumer, StampedProducer};
use crate::violation::Violation;
use crate::wake::Progress;

/// What came out of a channel.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Importance, DirectBuffer),
    /// What follows comes by the daemon.
    Switch,
}

/// Wakes a waiting sender after so many units were consumed at the latest, whatever the window is: it may wait for room in
/// ring or arena.
const UNITS_PER_CALL: u32 = 128;
/// Longest message for which no memory is taken.
const SHORT_MAX: usize = 64;
/// Buffers kept to be used again.
const SPARE_MAX: usize = 64;

/// Tells the other side what was consumed, and gives memory back.
#[derive(Debug)]
pub struct Acknowledger {
    memory: Arc<Memory>,
    side: Side,
    state: Mutex<Consumption>,
}

#[derive(Debug)]
struct Consumption {
    messages: u32,
    /// Bytes of them, for who looks on.
    bytes: u64,
    /// Units acknowledged.
    acked: u32,
    /// Units consumed beyond those.
    owed: u32,
    /// Units consumed since the other side was called.
    uncalled: u32,
    /// Window that was told last.
    window: u32,
    /// Window to tell with the next acknowledgement.
    next_window: u32,
    returns: StampedProducer,
    ringer: Ringer,
    /// Buffers of messages that were read, to be used again.
    spare: Vec<Vec<u8>>,
}

impl Acknowledger {
    pub(super) fn new(memory: &Arc<Memory>, side: Side, ringer: Ringer, window: u32) -> Self {
        Self {
            memory: Arc::clone(memory),
            side,
            state: Mutex::new(Consumption {
                messages: 0,
                bytes: 0,
                acked: 0,
                owed: 0,
                uncalled: 0,
                window,
                next_window: window,
                returns: StampedProducer::default(),
                ringer,
                spare: Vec::with_capacity(SPARE_MAX),
            }),
        }
    }

    /// A window that the other side is told with the next acknowledgement.
    pub fn set_window(&self, window: u32) {
        self.lock().next_window = window;
    }

    /// All that came by another path was consumed; so many units of it are not acknowledged. That is told at once: the
    /// window may have changed on that path, so what this side takes for a part of it may be more than all of it.
    pub fn take_over(&self, unacked: u32) {
        let mut state = self.lock();
        state.owed += unacked;
        self.acknowledge(&mut state);
    }

    fn consumed(&self, state: &mut Consumption, buffer: &DirectBuffer) {
        state.bytes += buffer.len() as u64;
        let bytes = self.memory.consumed_bytes(self.side);
        bytes.store(state.bytes, Ordering::Relaxed);
        self.count_message(state);
        if let Some(handle) = buffer.handle {
            self.give_back(state, handle);
        }
        self.count(state, units(buffer.len()));
    }

    /// The switch back was taken.
    fn switched(&self) {
        let mut state = self.lock();
        self.count_message(&mut state);
        self.count(&mut state, units(0));
    }

    fn count_message(&self, state: &mut Consumption) {
        state.messages = state.messages.wrapping_add(1);
        // SYNC POINT with the load in `ChannelSender::unread`.
        let word = self.memory.consumed(self.side);
        word.store(state.messages, Ordering::Release);
    }

    fn count(&self, state: &mut Consumption, units: u32) {
        state.owed += units;
        state.uncalled += units;
        let quarter = (state.window / 4).max(1);
        if state.owed >= quarter {
            self.acknowledge(state);
        } else if state.uncalled >= UNITS_PER_CALL {
            state.uncalled = 0;
            self.call(state);
        }
    }

    fn acknowledge(&self, state: &mut Consumption) {
        state.acked = state.acked.wrapping_add(state.owed);
        state.owed = 0;
        state.window = state.next_window;
        let told = u64::from(state.window) << 32 | u64::from(state.acked);
        let word = self.memory.acknowledged(self.side);
        word.store(told, Ordering::Relaxed);
        state.uncalled = 0;
        self.call(state);
    }

    fn returned(&self, handle: u32) {
        let mut state = self.lock();
        self.give_back(&mut state, handle);
        self.call(&mut state);
    }

    fn give_back(&self, state: &mut Consumption, handle: u32) {
        let returns = self.memory.returns(self.side);
        state.returns.push(returns, handle, std::iter::empty());
    }

    fn call(&self, state: &mut Consumption) {
        let other = self.side.other();
        state
            .ringer
            .ring_if_asleep(&self.memory, other, Progress::Room);
    }

    /// An empty buffer for so many bytes.
    fn room(&self, len: usize) -> Vec<u8> {
        let mut bytes = self.lock().spare.pop().unwrap_or_default();
        bytes.reserve(len.max(INLINE_MAX));
        bytes
    }

    /// Keeps a buffer for later.
    fn keep(&self, mut bytes: Vec<u8>) {
        let spare = &mut self.lock().spare;
        if spare.len() < SPARE_MAX {
            bytes.clear();
            spare.push(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Consumption> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub struct ChannelReceiver {
    memory: Arc<Memory>,
    side: Side,
    messages: StampedConsumer,
    acknowledger: Arc<Acknowledger>,
}

impl ChannelReceiver {
    pub(super) fn new(memory: &Arc<Memory>, side: Side, acknowledger: &Arc<Acknowledger>) -> Self {
        Self {
            memory: Arc::clone(memory),
            side,
            messages: StampedConsumer::default(),
            acknowledger: Arc::clone(acknowledger),
        }
    }

    /// Whether something is there.
    pub fn has_next(&self) -> bool {
        let messages = self.memory.messages(self.side.other());
        self.messages.peek(messages).is_some()
    }

    /// Messages that were taken and are not consumed.
    pub fn unread(&self) -> u32 {
        let consumed = self.acknowledger.lock().messages;
        self.messages.next().wrapping_sub(consumed)
    }

    /// What sees the next message come without this receiver, which a lock may guard.
    pub fn lookout(&self) -> Lookout {
        Lookout {
            memory: Arc::clone(&self.memory),
            from: self.side.other(),
            messages: self.messages,
        }
    }

    /// Tells the other side, after [`super::ChannelSleep::revoke`], what was taken: the rest it sends by another path.
    pub fn finish(&self) {
        let word = self.memory.taken_at_last(self.side);
        // SYNC POINT with the load in `ChannelSender::was_taken`.
        let taken = 1 << 32 | u64::from(self.messages.next());
        word.store(taken, Ordering::Release);
        // The other side may wait for that and have revoked itself, so that its sleep word tells nothing.
        self.acknowledger.lock().ringer.ring();
    }

    /// The next message.
    pub fn take_next(&mut self) -> Result<Option<Incoming>, Violation> {
        let from = self.side.other();
        let Some((head, entry)) = self.messages.peek(self.memory.messages(from)) else {
            return Ok(None);
        };
        let len = (head & 0x1_ffff) as usize;
        let importance = Importance::decode(head >> 17 & 3)?;
        let kind = head >> 19;
        let (body, handle) = match kind {
            INLINE if len <= SHORT_MAX => {
                let mut bytes = [0; SHORT_MAX];
                let places = bytes[..len.next_multiple_of(8)].chunks_exact_mut(8);
                for (place, word) in places.zip(&entry[1..]) {
                    place.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
                }
                let len = len as u8;
                (Body::Short { bytes, len }, None)
            }
            INLINE if len <= INLINE_MAX => {
                let mut bytes = self.acknowledger.room(len);
                bytes.resize(len.next_multiple_of(8), 0);
                for (place, word) in bytes.chunks_exact_mut(8).zip(&entry[1..]) {
                    place.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
                }
                bytes.truncate(len);
                (Body::Own(bytes), None)
            }
            COPIED | LOANED => {
                let word = entry[1].load(Ordering::Relaxed);
                let (offset, handle) = (word as u32 as usize, (word >> 32) as u32);
                let fits = offset <= ARENA_LEN && len <= ARENA_LEN - offset;
                if len > MESSAGE_LEN_MAX || !fits || handle >= ENTRIES {
                    return Err(Violation::Payload {
                        offset: offset as u32,
                        len: len as u32,
                        arena: ARENA_LEN as u32,
                    });
                }
                if kind == COPIED {
                    let mut bytes = self.acknowledger.room(len);
                    self.memory.append_to(&mut bytes, from, offset, len);
                    (Body::Own(bytes), Some(handle))
                } else {
                    let shared = SharedBytes {
                        memory: Arc::clone(&self.memory),
                        from,
                        offset,
                        len,
                        handle,
                        acknowledger: Arc::clone(&self.acknowledger),
                    };
                    (Body::Loaned(shared), None)
                }
            }
            SWITCH => {
                self.messages.advance();
                self.acknowledger.switched();
                return Ok(Some(Incoming::Switch));
            }
            _ => {
                return Err(Violation::Field {
                    field: "channel message",
                    value: head,
                });
            }
        };
        self.messages.advance();
        let buffer = DirectBuffer {
            body,
            handle,
            acknowledger: Arc::clone(&self.acknowledger),
        };
        Ok(Some(Incoming::Message(importance, buffer)))
    }
}

/// Looks for one message of a channel, the next when it was made.
#[derive(Debug)]
pub struct Lookout {
    memory: Arc<Memory>,
    from: Side,
    messages: StampedConsumer,
}

impl Lookout {
    /// Whether it has come. Only a hint: somebody may have taken it meanwhile, and others after it.
    pub fn sees_it(&self) -> bool {
        self.messages
            .peek(self.memory.messages(self.from))
            .is_some()
    }
}

/// A message that came by a channel, in memory of the process itself.
///
/// Dropping it without [`DirectBuffer::consumed`] leaves it unread.
#[derive(Debug)]
pub struct DirectBuffer {
    body: Body,
    /// What to return when it is consumed.
    handle: Option<u32>,
    acknowledger: Arc<Acknowledger>,
}

#[derive(Debug)]
enum Body {
    Short { bytes: [u8; SHORT_MAX], len: u8 },
    Own(Vec<u8>),
    Loaned(SharedBytes),
}

impl DirectBuffer {
    /// Tells the sender that a receive has handed the message out; once.
    pub fn consumed(&self) {
        Self::all_consumed([self]);
    }

    /// The same of several messages, most of which came by one channel.
    pub fn all_consumed<'a>(buffers: impl IntoIterator<Item = &'a Self>) {
        let mut turn: Option<(&Acknowledger, MutexGuard<'_, Consumption>)> = None;
        for buffer in buffers {
            let acknowledger = &*buffer.acknowledger;
            let (_, state) = match &mut turn {
                Some(held) if ptr::eq(held.0, acknowledger) => held,
                _ => {
                    // Never two at once.
                    turn = None;
                    turn.insert((acknowledger, acknowledger.lock()))
                }
            };
            acknowledger.consumed(state, buffer);
        }
    }

    /// Its length.
    pub fn len(&self) -> usize {
        match &self.body {
            Body::Short { len, .. } => usize::from(*len),
            Body::Own(bytes) => bytes.len(),
            Body::Loaned(shared) => shared.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it lies in memory of the other side.
    pub fn is_loan(&self) -> bool {
        matches!(self.body, Body::Loaned(_))
    }

    /// Copies what lies in memory of the other side, so that it can be looked at.
    pub fn make_own(&mut self) {
        if let Body::Loaned(shared) = &self.body {
            self.body = Body::Own(shared.to_vec());
        }
    }

    /// The memory of the other side it lies in, if it was loaned and not copied.
    pub fn into_shared(mut self) -> Option<SharedBytes> {
        match std::mem::replace(&mut self.body, Body::Own(Vec::new())) {
            Body::Loaned(shared) => Some(shared),
            Body::Short { .. } | Body::Own(_) => None,
        }
    }
}

impl Deref for DirectBuffer {
    type Target = [u8];

    /// The bytes; none of a loan that was not copied ([`DirectBuffer::make_own`]).
    fn deref(&self) -> &[u8] {
        match &self.body {
            Body::Short { bytes, len } => &bytes[..usize::from(*len)],
            Body::Own(bytes) => bytes,
            Body::Loaned(_) => &[],
        }
    }
}

impl Drop for DirectBuffer {
    fn drop(&mut self) {
        if let Body::Own(bytes) = &mut self.body
            && bytes.capacity() > 0
        {
            self.acknowledger.keep(std::mem::take(bytes));
        }
    }
}

/// Bytes in memory of another process, which may change them at any time: they can be copied, and looked at piece by piece
/// through copies. The memory goes back to its owner when this is dropped, in any order.
#[derive(Debug)]
pub struct SharedBytes {
    memory: Arc<Memory>,
    from: Side,
    offset: usize,
    len: usize,
    handle: u32,
    acknowledger: Arc<Acknowledger>,
}

impl SharedBytes {
    /// Their number.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    /// If there are not so many, or in a forked child of the process that received them.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        assert!(
            self.memory.is_mapped_here(),
            "a TIPC message cannot be read in a forked child of the process that received it"
        );
        assert!(
            offset <= self.len && out.len() <= self.len - offset,
            "range inside the message"
        );
        self.memory.copy_out(self.from, self.offset + offset, out);
    }

    /// A copy of all.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.copy_to(0, &mut bytes);
        bytes
    }

    /// Copies of all, piece by piece of at most `N` bytes, in order.
    pub fn chunks<const N: usize>(&self) -> impl Iterator<Item = ([u8; N], usize)> + '_ {
        (0..self.len).step_by(N.max(1)).map(|at| {
            let mut piece = [0; N];
            let len = (self.len - at).min(N);
            self.copy_to(at, &mut piece[..len]);
            (piece, len)
        })
    }

    /// Where the bytes are, for as long as this lives. The other process may change them while they are read, so a
    /// reference to them must not be made unless that process is known not to.
    pub fn as_ptr(&self) -> *const u8 {
        self.memory.at(self.from, self.offset, self.len)
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        if self.memory.is_mapped_here() {
            self.acknowledger.returned(self.handle);
        }
    }
}
