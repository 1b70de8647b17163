//! The receiving end of one direction of a channel.

use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::envelope::{Envelope, kind_of};
use super::memory::{ARENA_LEN, ENTRIES, Memory};
use super::sender::{COPIED, INLINE, LOANED, SWITCH, units};
use super::{INLINE_MAX, Ringer, Side};
use crate::MESSAGE_LEN_MAX;
use crate::primitive::{AtomicU64, Ordering};
use crate::stamped::{StampedConsumer, StampedProducer};
use crate::violation::Violation;
use crate::wake::Progress;

/// What came out of a channel.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Envelope, DirectBuffer),
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

impl Consumption {
    /// An empty buffer for so many bytes.
    fn room(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.reserve(len.max(INLINE_MAX));
        bytes
    }
}

/// Messages that were consumed and not counted yet.
#[derive(Default)]
struct Consumed {
    messages: u32,
    bytes: u64,
    units: u32,
}

impl Consumed {
    /// One of so many bytes.
    fn of(len: usize) -> Self {
        Self {
            messages: 1,
            bytes: len as u64,
            units: units(len),
        }
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.units += other.units;
    }
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

    /// The switch back was taken.
    fn switched(&self) {
        self.consumed(&mut self.lock(), Consumed::of(0));
    }

    fn consumed(&self, state: &mut Consumption, consumed: Consumed) {
        state.bytes += consumed.bytes;
        let bytes = self.memory.consumed_bytes(self.side);
        bytes.store(state.bytes, Ordering::Relaxed);
        state.messages = state.messages.wrapping_add(consumed.messages);
        // SYNC POINT with the load in `ChannelSender::unread`.
        let word = self.memory.consumed(self.side);
        word.store(state.messages, Ordering::Release);
        state.owed += consumed.units;
        state.uncalled += consumed.units;
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
        state.returns.push(returns, handle, |_| {});
    }

    fn call(&self, state: &mut Consumption) {
        let other = self.side.other();
        state
            .ringer
            .ring_if_asleep(&self.memory, other, Progress::Room);
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

    /// What comes next.
    pub fn take_next(&mut self) -> Result<Option<Incoming>, Violation> {
        match self.messages.peek(self.memory.messages(self.side.other())) {
            None => Ok(None),
            Some((head, _)) if kind_of(head) == SWITCH => {
                self.messages.advance();
                self.acknowledger.switched();
                Ok(Some(Incoming::Switch))
            }
            Some(_) => Ok(self
                .take_message()?
                .map(|(envelope, buffer)| Incoming::Message(envelope, buffer))),
        }
    }

    /// The next message. `None` also if the switch is next, which stays.
    pub fn take_message(&mut self) -> Result<Option<(Envelope, DirectBuffer)>, Violation> {
        let room = |len| self.acknowledger.lock().room(len);
        let Some((envelope, body, handle)) = self.read_next(room)? else {
            return Ok(None);
        };
        self.messages.advance();
        let buffer = DirectBuffer {
            body,
            handle,
            acknowledger: Some(Arc::clone(&self.acknowledger)),
            is_consumed: false,
        };
        Ok(Some((envelope, buffer)))
    }

    /// Takes messages, at most `max` and up to the switch, for a receive that hands them out at once: they are consumed. `each`
    /// must let no message of a channel go.
    pub fn consume(
        &mut self,
        max: usize,
        mut each: impl FnMut(Envelope, DirectBuffer),
    ) -> Result<(), Violation> {
        let acknowledger = Arc::clone(&self.acknowledger);
        let mut state = acknowledger.lock();
        let mut consumed = Consumed::default();
        let mut taken = 0;
        let outcome = loop {
            if taken == max {
                break Ok(());
            }
            let (envelope, body, handle) = match self.read_next(|len| state.room(len)) {
                Ok(Some(next)) => next,
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            };
            self.messages.advance();
            consumed.add(Consumed::of(body.len()));
            if let Some(handle) = handle {
                acknowledger.give_back(&mut state, handle);
            }
            let keeper = match body {
                Body::Short { .. } => None,
                Body::Own(_) | Body::Loaned(_) => Some(Arc::clone(&acknowledger)),
            };
            taken += 1;
            each(
                envelope,
                DirectBuffer {
                    body,
                    handle: None,
                    acknowledger: keeper,
                    is_consumed: true,
                },
            );
        };
        if taken > 0 {
            acknowledger.consumed(&mut state, consumed);
        }
        outcome
    }

    /// Reads the next message, unless that is the switch: what to return when it is consumed comes with it. `room`: an empty
    /// buffer for so many bytes.
    fn read_next(
        &self,
        room: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<Option<(Envelope, Body, Option<u32>)>, Violation> {
        let from = self.side.other();
        let Some((head, entry)) = self.messages.peek(self.memory.messages(from)) else {
            return Ok(None);
        };
        let word_1 = || entry[1].load(Ordering::Relaxed);
        let (kind, len, envelope) = Envelope::decode_head(head, word_1)?;
        let words = &entry[envelope.words()..];
        let (body, handle) = match kind {
            INLINE if len <= SHORT_MAX => {
                // What is behind its end, too: as many words each time are read in fewer steps.
                let words: &[AtomicU64; SHORT_MAX / 8] =
                    words.first_chunk().expect("entries are longer");
                let words = words
                    .each_ref()
                    .map(|word| word.load(Ordering::Relaxed).to_le_bytes());
                let len = len as u8;
                (Body::Short { words, len }, None)
            }
            INLINE if len <= INLINE_MAX => {
                let mut bytes = room(len);
                bytes.resize(len.next_multiple_of(8), 0);
                for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
                    place.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
                }
                bytes.truncate(len);
                (Body::Own(bytes), None)
            }
            COPIED | LOANED => {
                let word = words[0].load(Ordering::Relaxed);
                let (offset, handle) = (word as u32 as usize, (word >> 32) as u32);
                let fits = offset <= ARENA_LEN && len <= ARENA_LEN - offset;
                if len > MESSAGE_LEN_MAX || !fits || handle >= ENTRIES {
                    return Err(Violation::Payload {
                        offset: offset as u32,
                        len: len as u32,
                        arena: ARENA_LEN as u32,
                    });
                }
                if len == 0 {
                    (Body::EMPTY, Some(handle))
                } else if kind == COPIED {
                    let mut bytes = room(len);
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
            SWITCH => return Ok(None),
            _ => {
                return Err(Violation::Field {
                    field: "channel message",
                    value: head,
                });
            }
        };
        Ok(Some((envelope, body, handle)))
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
    /// `None`: nothing is to be told or given back any more.
    acknowledger: Option<Arc<Acknowledger>>,
    is_consumed: bool,
}

#[derive(Debug)]
enum Body {
    Short {
        words: [[u8; 8]; SHORT_MAX / 8],
        len: u8,
    },
    Own(Vec<u8>),
    Loaned(SharedBytes),
}

impl Body {
    const EMPTY: Self = Self::Short {
        words: [[0; 8]; SHORT_MAX / 8],
        len: 0,
    };

    fn len(&self) -> usize {
        match self {
            Self::Short { len, .. } => usize::from(*len),
            Self::Own(bytes) => bytes.len(),
            Self::Loaned(shared) => shared.len(),
        }
    }
}

impl DirectBuffer {
    /// Tells the sender that a receive has handed the message out; once. Nothing is told of what came by
    /// [`ChannelReceiver::consume`].
    pub fn consumed(&self) {
        if let Some(acknowledger) = &self.acknowledger {
            self.tell(acknowledger, &mut acknowledger.lock());
        }
    }

    fn tell(&self, acknowledger: &Acknowledger, state: &mut Consumption) {
        if self.is_consumed {
            return;
        }
        if let Some(handle) = self.handle {
            acknowledger.give_back(state, handle);
        }
        acknowledger.consumed(state, Consumed::of(self.len()));
    }

    /// The same of several messages, most of which came by one channel.
    pub fn all_consumed<'a>(buffers: impl IntoIterator<Item = &'a Self>) {
        let mut turn: Option<(&Acknowledger, MutexGuard<'_, Consumption>)> = None;
        for buffer in buffers {
            let Some(acknowledger) = buffer.acknowledger.as_deref() else {
                continue;
            };
            let (_, state) = match &mut turn {
                Some(held) if ptr::eq(held.0, acknowledger) => held,
                _ => {
                    // Never two at once.
                    turn = None;
                    turn.insert((acknowledger, acknowledger.lock()))
                }
            };
            buffer.tell(acknowledger, state);
        }
    }

    /// Its length.
    pub fn len(&self) -> usize {
        self.body.len()
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
            Body::Short { words, len } => &words.as_flattened()[..usize::from(*len)],
            Body::Own(bytes) => bytes,
            Body::Loaned(_) => &[],
        }
    }
}

impl Drop for DirectBuffer {
    fn drop(&mut self) {
        if let Body::Own(bytes) = &mut self.body
            && bytes.capacity() > 0
            && let Some(acknowledger) = &self.acknowledger
        {
            acknowledger.keep(std::mem::take(bytes));
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
