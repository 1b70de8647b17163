//! What a message in a channel says of itself beside its bytes.

use crate::address::{Importance, ServiceAddress};
use crate::violation::Violation;

const LEN_BITS: u32 = 17;
const KIND_SHIFT: u32 = 19;
const NAMED: u32 = 1 << 22;
const DROPPABLE: u32 = 1 << 23;

/// What kind of entry it is, by its word 0, upper half.
pub(super) fn kind_of(head: u32) -> u32 {
    (head & !(NAMED | DROPPABLE)) >> KIND_SHIFT
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Its importance.
    pub importance: Importance,
    /// It is dropped if it is never read, instead of coming back.
    pub droppable: bool,
    /// The service address that a datagram was sent to.
    pub name: Option<ServiceAddress>,
}

impl Envelope {
    /// Of a message of a connection.
    pub(super) fn of(importance: Importance) -> Self {
        Self {
            importance,
            ..Self::default()
        }
    }

    /// Word 0 of an entry, upper half.
    pub(super) fn encode_head(&self, kind: u32, len: usize) -> u32 {
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        len as u32
            | (self.importance as u32) << LEN_BITS
            | kind << KIND_SHIFT
            | flag(self.name.is_some(), NAMED)
            | flag(self.droppable, DROPPABLE)
    }

    /// Kind and length of an entry, and its envelope; `word` gives its word 1, where a name is.
    pub(super) fn decode_head(
        head: u32,
        word: impl FnOnce() -> u64,
    ) -> Result<(u32, usize, Self), Violation> {
        let importance = Importance::decode(head >> LEN_BITS & 3)?;
        let name = (head & NAMED != 0).then(word).map(|word| ServiceAddress {
            type_: word as u32,
            instance: (word >> 32) as u32,
        });
        let envelope = Self {
            importance,
            droppable: head & DROPPABLE != 0,
            name,
        };
        let len = head as usize & ((1 << LEN_BITS) - 1);
        Ok((kind_of(head), len, envelope))
    }

    /// The name as a word.
    pub(super) fn name_word(&self) -> Option<u64> {
        self.name
            .map(|name| u64::from(name.instance) << 32 | u64::from(name.type_))
    }

    /// Words of an entry in front of the message.
    pub(super) fn words(&self) -> usize {
        1 + usize::from(self.name.is_some())
    }
}
