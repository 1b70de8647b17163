//! What can be wrong with shared memory that the other side wrote.

/// The other side broke the contract of the segment. The daemon detaches such a process; an application gives up
/// such an attachment. Nothing that was read before the violation is affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The other side's cursor is impossible.
    #[error("{ring} ring: cursors are {distance} entries apart, the ring has {capacity}")]
    Cursor {
        /// Which ring.
        ring: &'static str,
        /// Entries between head and tail, modulo 2^32.
        distance: u32,
        /// Entries of the ring.
        capacity: u32,
    },
    /// A field has a value that no sender writes.
    #[error("{field} is {value}, which means nothing")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u32,
    },
    /// A payload does not lie inside its arena.
    #[error("payload of {len} bytes at offset {offset} is not inside the arena of {arena} bytes")]
    Payload {
        /// Where it was said to start.
        offset: u32,
        /// Its length.
        len: u32,
        /// Length of the arena.
        arena: u32,
    },
    /// A buffer was consumed or returned that is not out, or a second time.
    #[error("delivery buffer {handle:#x} is not out, or was already given back")]
    Buffer {
        /// The handle from the release ring.
        handle: u64,
    },
    /// A kept message was consumed or let go that was never kept.
    #[error("message {id} was not kept")]
    Kept {
        /// Its number.
        id: u64,
    },
    /// More requests are under way than can be answered.
    #[error("more requests under way than the {entries} entries of the completion ring")]
    TooManyRequests {
        /// Entries of the completion ring.
        entries: u32,
    },
    /// A completion names a request that is not under way.
    #[error("completion for tag {tag:#x}, which is not under way")]
    Tag {
        /// The tag from the completion ring.
        tag: u64,
    },
}
