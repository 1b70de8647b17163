//! Putting fragments together (`docs/protocol/link.md`, fragments).
//!
//! One message at a time per link. The buffers belong to the node and go round, so that a message
//! costs no allocation once traffic is steady and an idle link holds none.

use crate::wire::{Msg, User, field, size};

/// Buffers waiting for the next message.
#[derive(Debug, Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// Takes a buffer with room for the largest message.
    pub fn take(&mut self) -> Vec<u8> {
        self.0
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(size::MAX_MESSAGE))
    }

    /// Gives a buffer back.
    pub fn put(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.0.push(buffer);
    }
}

/// What a fragment led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Fragment {
    /// More are needed.
    Pending,
    /// The message is complete and checked; give the buffer back after use.
    Complete(Vec<u8>),
    /// Out of order, too long, or not a message: everything so far is gone.
    Broken,
}

/// The message being put together on one link.
#[derive(Debug, Default)]
pub struct Assembly {
    message: Option<Vec<u8>>,
    stated_size: usize,
}

const FIRST: u32 = 0;
const INNER: u32 = 1;
const LAST: u32 = 2;

/// Bytes of the word that states the version and the size of a message.
const FIRST_WORD: usize = 4;

impl Assembly {
    /// Adds a packet of user MSG_FRAGMENTER.
    pub fn on_fragment(&mut self, packet: Msg<'_>, buffers: &mut Buffers) -> Fragment {
        let fragment = self.on_piece(packet.kind(), packet.payload(), buffers);
        if let Fragment::Complete(message) = fragment {
            let nests = Msg::check(&message).is_ok_and(|m| m.user() == User::MsgFragmenter);
            if nests {
                buffers.put(message);
                return Fragment::Broken;
            }
            return Fragment::Complete(message);
        }
        fragment
    }

    /// Adds piece `number` of `count`, both from 1 on, of a tunnelled packet.
    pub fn on_tunnelled(
        &mut self,
        (number, count): (u16, u16),
        data: &[u8],
        buffers: &mut Buffers,
    ) -> Fragment {
        let kind = match number {
            1 => FIRST,
            _ if number < count => INNER,
            _ => LAST,
        };
        self.on_piece(kind, data, buffers)
    }

    #[inline]
    fn on_piece(&mut self, kind: u32, data: &[u8], buffers: &mut Buffers) -> Fragment {
        match (kind, &mut self.message) {
            (FIRST, None) => match first_fragment_size(data) {
                Some(stated_size) => {
                    let mut message = buffers.take();
                    message.extend_from_slice(data);
                    *self = Self {
                        message: Some(message),
                        stated_size,
                    };
                    Fragment::Pending
                }
                None => Fragment::Broken,
            },
            (kind, Some(message))
                if kind != FIRST && message.len() + data.len() <= self.stated_size =>
            {
                message.extend_from_slice(data);
                if kind == LAST {
                    self.finish(buffers)
                } else {
                    Fragment::Pending
                }
            }
            _ => {
                self.clear(buffers);
                Fragment::Broken
            }
        }
    }

    /// Drops what has been put together so far.
    pub fn clear(&mut self, buffers: &mut Buffers) {
        if let Some(message) = self.message.take() {
            buffers.put(message);
        }
    }

    fn finish(&mut self, buffers: &mut Buffers) -> Fragment {
        let Some(message) = self.message.take() else {
            return Fragment::Broken;
        };
        if Msg::check(&message).is_ok() {
            return Fragment::Complete(message);
        }
        buffers.put(message);
        Fragment::Broken
    }
}

/// Size of the message that starts in a first fragment: it must be possible, since it bounds what will be collected.
/// On the narrowest links the rest of the inner header comes with the next fragments.
fn first_fragment_size(data: &[u8]) -> Option<usize> {
    if data.len() < FIRST_WORD || field::VERSION.get(data) != 2 {
        return None;
    }
    let header = field::HEADER_WORDS.get(data) as usize * 4;
    let stated = field::SIZE.get(data) as usize;
    let possible = (size::MIN..=size::MAX).contains(&header)
        && stated >= header
        && stated - header <= size::MAX_PAYLOAD
        && data.len() <= stated;
    possible.then_some(stated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Header;
    use proptest::prelude::*;

    fn fragment(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut header = Header::new(User::MsgFragmenter, kind, size::INT);
        header.set_payload_len(data.len());
        [header.as_bytes(), data].concat()
    }

    fn message(payload: usize) -> Vec<u8> {
        let mut header = Header::new(User::Low, 3, size::BASIC);
        header.set_payload_len(payload);
        let bytes: Vec<u8> = (0..payload).map(|i| i as u8).collect();
        [header.as_bytes(), &bytes].concat()
    }

    fn feed(assembly: &mut Assembly, buffers: &mut Buffers, kind: u32, data: &[u8]) -> Fragment {
        let packet = fragment(kind, data);
        assembly.on_fragment(Msg::check(&packet).unwrap(), buffers)
    }

    #[test]
    fn fragments_in_an_impossible_order_break_the_message() {
        let (mut a, mut b) = (Assembly::default(), Buffers::default());
        let whole = message(100);
        assert_eq!(feed(&mut a, &mut b, 1, &whole), Fragment::Broken);
        assert_eq!(feed(&mut a, &mut b, 2, &whole), Fragment::Broken);
        assert_eq!(feed(&mut a, &mut b, 0, &whole[..50]), Fragment::Pending);
        assert_eq!(feed(&mut a, &mut b, 0, &whole[..50]), Fragment::Broken);
        assert_eq!(feed(&mut a, &mut b, 2, &whole[50..]), Fragment::Broken);
        // Less than the stated size is not a message.
        assert_eq!(feed(&mut a, &mut b, 0, &whole[..50]), Fragment::Pending);
        assert_eq!(feed(&mut a, &mut b, 2, &whole[50..90]), Fragment::Broken);
    }

    #[test]
    fn no_more_is_collected_than_the_first_fragment_states() {
        let (mut a, mut b) = (Assembly::default(), Buffers::default());
        let whole = message(1000);
        assert_eq!(feed(&mut a, &mut b, 0, &whole[..500]), Fragment::Pending);
        assert_eq!(feed(&mut a, &mut b, 1, &[0; 600]), Fragment::Broken);
    }

    #[test]
    fn the_first_fragment_must_hold_the_stated_size_and_no_more_of_the_header() {
        let (mut a, mut b) = (Assembly::default(), Buffers::default());
        let whole = message(100);
        assert_eq!(feed(&mut a, &mut b, 0, &whole[..3]), Fragment::Broken);
        assert_eq!(feed(&mut a, &mut b, 0, &whole[..4]), Fragment::Pending);
        assert_eq!(feed(&mut a, &mut b, 1, &whole[4..24]), Fragment::Pending);
        let last = feed(&mut a, &mut b, 2, &whole[24..]);
        assert_eq!(last, Fragment::Complete(whole));
    }

    #[test]
    fn a_million_broken_sequences_keep_one_buffer() {
        let (mut a, mut b) = (Assembly::default(), Buffers::default());
        let first = fragment(0, &message(100)[..60]);
        for _ in 0..1_000_000 {
            a.on_fragment(Msg::check(&first).unwrap(), &mut b);
        }
        assert!(b.0.len() <= 1);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_message_back(
            payload in 0usize..66_001, cuts in proptest::collection::vec(4usize..9000, 1..60)
        ) {
            let (mut a, mut b) = (Assembly::default(), Buffers::default());
            let whole = message(payload);
            let mut rest = &whole[..];
            let mut kind = FIRST;
            let mut result = Fragment::Pending;
            for (n, cut) in cuts.iter().enumerate() {
                let last = n + 1 == cuts.len() || rest.len() <= *cut;
                let take = if last { rest.len() } else { *cut };
                if kind == FIRST && last {
                    return Ok(());
                }
                result = feed(&mut a, &mut b, if last { LAST } else { kind }, &rest[..take]);
                rest = &rest[take..];
                kind = 1;
                if last {
                    break;
                }
            }
            prop_assert_eq!(result, Fragment::Complete(whole));
        }
    }
}
