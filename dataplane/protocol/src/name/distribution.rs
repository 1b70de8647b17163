//! Distribution of bindings between nodes: what NAME_DISTRIBUTOR messages carry, in which order
//! they are made, and in which order a receiver applies them.
//!
//! One [`Distributor`] for the node, one [`UpdateQueue`] for each peer. Headers are the wire
//! codec's business; here a message is its flags, its sequence number and its items. Reference:
//! `docs/protocol/names.md`; the limits on what a peer may send are those of
//! `docs/protocol/limits-and-hostile-input.md` (CVE-2026-74281, H-20 to H-23).

use super::{Publication, Scope, ServiceRange};
use crate::wire::NameItem;
use std::collections::VecDeque;
use std::iter::Peekable;
use thiserror::Error;

/// Updates kept for a peer whose bulk is not complete or whose stream has a hole.
pub const QUEUED_MESSAGES_MAX: usize = 4096;
/// Item bytes kept for a peer: more than any sender needs that puts one item into an update.
pub const QUEUED_BYTES_MAX: usize = 1 << 18;

/// What an update does with its items; the NAME_DISTRIBUTOR message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// PUBLICATION.
    Publish = 0,
    /// WITHDRAWAL.
    Withdraw = 1,
}

impl Operation {
    /// The message type in the header.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// `None` for a message type that does not exist.
    pub const fn from_wire(message_type: u8) -> Option<Self> {
        match message_type {
            0 => Some(Self::Publish),
            1 => Some(Self::Withdraw),
            _ => None,
        }
    }
}

/// One binding as it travels: no scope (always cluster) and no node (the message's originating
/// node has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// What is bound.
    pub range: ServiceRange,
    /// Port of the bound socket.
    pub port: u32,
    /// Tells several bindings of one socket apart.
    pub key: u32,
}

impl Item {
    /// Bytes of an item.
    pub const SIZE: usize = NameItem::SIZE;

    /// Reads an item; any bytes are one.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let NameItem {
            service,
            lower,
            upper,
            port,
            key,
        } = NameItem::parse(bytes);
        let range = ServiceRange {
            type_: service,
            lower,
            upper,
        };
        Self { range, port, key }
    }

    /// The item as it stands in a message.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let Self { range, port, key } = *self;
        let item = NameItem {
            service: range.type_,
            lower: range.lower,
            upper: range.upper,
            port,
            key,
        };
        item.emit()
    }

    /// All items of a message; a partial one at its end is ignored.
    pub fn decode_all(data: &[u8]) -> impl Iterator<Item = Self> + '_ {
        data.as_chunks::<{ Self::SIZE }>()
            .0
            .iter()
            .map(Self::decode)
    }

    /// The binding this item means when it comes from `node`.
    pub const fn publication_of(&self, node: u32) -> Publication {
        let Self { range, port, key } = *self;
        Publication {
            range,
            scope: Scope::Cluster,
            port,
            node,
            key,
        }
    }
}

impl From<Publication> for Item {
    fn from(publication: Publication) -> Self {
        let Publication {
            range, port, key, ..
        } = publication;
        Self { range, port, key }
    }
}

/// The three NAME_DISTRIBUTOR bits of header word 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameFlags {
    /// Part of a bulk (w1.28).
    pub bulk: bool,
    /// Its last message (w1.27).
    pub last_bulk: bool,
    /// The sender numbers its updates (w1.26); without it there is no ordering at all.
    pub non_legacy: bool,
}

impl NameFlags {
    /// Flags of a single update.
    pub const UPDATE: Self = Self {
        bulk: false,
        last_bulk: false,
        non_legacy: true,
    };
}

/// An update for every peer that is up: by the broadcast link, or one copy each (§2.3). Carries
/// [`NameFlags::UPDATE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Publish or withdraw.
    pub operation: Operation,
    /// The only item.
    pub item: Item,
    /// Its number.
    pub named_seqno: u16,
}

/// Send side of the node: numbers the updates. One counter for all peers.
#[derive(Debug, Default)]
pub struct Distributor {
    /// Wide enough never to wrap; what travels is its lower half-word.
    numbered: u64,
}

impl Distributor {
    /// A node that has just booted.
    pub const fn new() -> Self {
        Self { numbered: 0 }
    }

    /// Number of the next update: what the last message of a bulk says.
    pub const fn snd_nxt(&self) -> u16 {
        self.numbered as u16
    }

    /// Updates numbered so far.
    #[inline]
    pub const fn numbered(&self) -> u64 {
        self.numbered
    }

    /// Which of the updates numbered so far carries this number: they are far fewer than 2^16 that
    /// are still on their way.
    pub const fn index_of(&self, named_seqno: u16) -> u64 {
        let behind = self.snd_nxt().wrapping_sub(named_seqno);
        self.numbered.saturating_sub(behind as u64)
    }

    /// To be called for each own binding made or removed, also while there is no peer. `None` for
    /// node scope, which is not distributed and takes no number.
    pub fn update(&mut self, operation: Operation, publication: Publication) -> Option<Update> {
        if publication.scope == Scope::Node {
            return None;
        }
        let named_seqno = self.snd_nxt();
        self.numbered += 1;
        Some(Update {
            operation,
            item: publication.into(),
            named_seqno,
        })
    }

    /// The bulk for a new peer. `publications` are the own cluster-scope bindings in the order
    /// made, NODE_STATE among them.
    pub fn bulk<I>(&self, publications: I) -> Bulk<I::IntoIter>
    where
        I: IntoIterator<Item = Publication>,
    {
        Bulk {
            publications: publications.into_iter().peekable(),
            named_seqno: self.snd_nxt(),
            ended: false,
        }
    }
}

/// Cuts the own bindings into PUBLICATION messages. There is always a last message, if need be
/// without items: a peer that never sees it never applies an update.
pub struct Bulk<I: Iterator<Item = Publication>> {
    publications: Peekable<I>,
    named_seqno: u16,
    ended: bool,
}

/// What goes into the header of a bulk message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkMessage {
    /// Bytes of items written.
    pub data_size: usize,
    /// Bulk, last or not.
    pub flags: NameFlags,
    /// 0 except in the last message.
    pub named_seqno: u16,
}

impl<I: Iterator<Item = Publication>> Bulk<I> {
    /// Writes the items of the next message, as many as fit into `data` (which has room for at
    /// least one). `None` after the last message.
    pub fn next_message(&mut self, data: &mut [u8]) -> Option<BulkMessage> {
        if self.ended {
            return None;
        }
        let (slots, _) = data.as_chunks_mut::<{ Item::SIZE }>();
        assert!(
            !slots.is_empty(),
            "a bulk message must have room for an item"
        );
        let mut data_size = 0;
        for (slot, publication) in slots.iter_mut().zip(self.publications.by_ref()) {
            *slot = Item::from(publication).encode();
            data_size += Item::SIZE;
        }
        let last_bulk = self.publications.peek().is_none();
        self.ended = last_bulk;
        Some(BulkMessage {
            data_size,
            flags: NameFlags {
                bulk: true,
                last_bulk,
                non_legacy: true,
            },
            named_seqno: if last_bulk { self.named_seqno } else { 0 },
        })
    }
}

/// A NAME_DISTRIBUTOR message as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct NameMessage<'a> {
    /// Originating node of the header.
    pub origin: u32,
    /// Message type of the header.
    pub message_type: u8,
    /// Its bits of word 1.
    pub flags: NameFlags,
    /// Its sequence number.
    pub named_seqno: u16,
    /// Everything behind the header.
    pub items: &'a [u8],
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// Drop the message and count it: a peer speaks for itself only.
    #[error("name message says it originates at {origin:#x}, but came from peer {peer:#x}")]
    ForeignOrigin {
        /// What the header says.
        origin: u32,
        /// Whose link it came by.
        peer: u32,
    },
    /// Reset the link: the table of this peer can no longer be kept right.
    #[error("more than {QUEUED_MESSAGES_MAX} name updates of peer {0:#x} wait for a missing one")]
    Overflow(u32),
}

struct Waiting {
    message_type: u8,
    named_seqno: u16,
    items: Vec<u8>,
}

/// Receive side for one peer: applies bulk messages as they come, and updates strictly one after
/// the other from the number the last bulk message names (§2.5).
///
/// Unlike Linux, losing contact closes the queue again, and while it is closed no number is judged:
/// updates that overtake a new bulk wait for it, instead of being compared with the state of an
/// earlier contact.
pub struct UpdateQueue {
    peer: u32,
    /// Number of the next update once the bulk is complete.
    rcv_nxt: Option<u16>,
    waiting: VecDeque<Waiting>,
    ignored_items: u32,
}

impl UpdateQueue {
    /// For a peer just met.
    pub const fn new(peer: u32) -> Self {
        Self {
            peer,
            rcv_nxt: None,
            waiting: VecDeque::new(),
            ignored_items: 0,
        }
    }

    /// The bulk is complete.
    pub const fn is_open(&self) -> bool {
        self.rcv_nxt.is_some()
    }

    /// Updates that wait for the end of the bulk or for a missing one.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Items not handed out so far: empty ranges, and items of unknown message types.
    pub const fn ignored_items(&self) -> u32 {
        self.ignored_items
    }

    /// Contact with the peer is lost. The caller purges the table.
    pub fn reset(&mut self) {
        self.rcv_nxt = None;
        self.waiting = VecDeque::new();
    }

    /// Takes a message in the order of arrival, whichever link it came by, and calls `apply` for
    /// each item that is due now. On [`UpdateError::Overflow`] the queue is as before.
    pub fn on_message(
        &mut self,
        message: NameMessage<'_>,
        mut apply: impl FnMut(Operation, Item),
    ) -> Result<(), UpdateError> {
        let NameMessage {
            origin,
            message_type,
            flags,
            named_seqno,
            items,
        } = message;
        if origin != self.peer {
            return Err(UpdateError::ForeignOrigin {
                origin,
                peer: self.peer,
            });
        }
        if flags.last_bulk {
            self.rcv_nxt = Some(named_seqno);
        }
        if flags.bulk || !flags.non_legacy {
            self.process(message_type, items, &mut apply);
        } else if self.rcv_nxt == Some(named_seqno) {
            self.rcv_nxt = Some(named_seqno.wrapping_add(1));
            self.process(message_type, items, &mut apply);
        } else if self
            .rcv_nxt
            .is_some_and(|rcv_nxt| before(named_seqno, rcv_nxt))
        {
            return Ok(());
        } else {
            return self.enqueue(message_type, named_seqno, items);
        }
        self.process_waiting(&mut apply);
        Ok(())
    }

    fn enqueue(&mut self, message_type: u8, seqno: u16, items: &[u8]) -> Result<(), UpdateError> {
        let waiting_bytes: usize = self.waiting.iter().map(|w| w.items.len()).sum();
        if self.waiting.len() >= QUEUED_MESSAGES_MAX
            || waiting_bytes + items.len() > QUEUED_BYTES_MAX
        {
            return Err(UpdateError::Overflow(self.peer));
        }
        let items = items.to_vec();
        self.waiting.push_back(Waiting {
            message_type,
            named_seqno: seqno,
            items,
        });
        Ok(())
    }

    /// Applies what has become due. Starts over after each, as Linux does: with repeated numbers
    /// in the queue the earliest arrival counts.
    fn process_waiting(&mut self, apply: &mut impl FnMut(Operation, Item)) {
        let mut position = 0;
        while let Some(rcv_nxt) = self.rcv_nxt
            && let Some(candidate) = self.waiting.get(position)
        {
            let seqno = candidate.named_seqno;
            if seqno != rcv_nxt && !before(seqno, rcv_nxt) {
                position += 1;
                continue;
            }
            let Some(Waiting {
                message_type,
                items,
                ..
            }) = self.waiting.remove(position)
            else {
                return;
            };
            if seqno == rcv_nxt {
                self.rcv_nxt = Some(rcv_nxt.wrapping_add(1));
                self.process(message_type, &items, apply);
                position = 0;
            }
        }
    }

    fn process(&mut self, message_type: u8, items: &[u8], apply: &mut impl FnMut(Operation, Item)) {
        let operation = Operation::from_wire(message_type);
        for item in Item::decode_all(items) {
            match operation {
                Some(operation) if item.range.is_valid() => apply(operation, item),
                _ => self.ignored_items = self.ignored_items.wrapping_add(1),
            }
        }
    }
}

/// Serial comparison; a distance of exactly 2^15 counts as after.
fn before(a: u16, b: u16) -> bool {
    matches!(b.wrapping_sub(a), 1..0x8000)
}
