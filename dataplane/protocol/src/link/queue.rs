//! The sending half that a unicast link and the broadcast link share: numbered packets that wait for
//! acknowledgement, and a backlog beyond the window that bundles (`docs/protocol/link.md`, backlog).

use crate::frame::{Frame, FrameList, FrameRef, FrameTable};
use crate::host::Host;
use crate::seqno::SeqNo;
use crate::stats::LinkStats;
use crate::wire::{Header, Importance, User, aligned, field, size};

/// Packets in order: first those sent and not acknowledged, then the backlog.
///
/// What comes first is all that an idle link looks at, which has it at the end of a line of the processor's cache.
#[derive(Debug)]
#[repr(C)]
pub struct SendQueue {
    /// Number of the next packet that moves out of the backlog.
    pub snd_nxt: SeqNo,
    /// Sent, not acknowledged.
    pub transmit: FrameList,
    /// Waiting for the window, without a number.
    pub backlog: FrameList,
    /// Per importance the packet that may still take another message.
    target: [Option<FrameRef>; Importance::COUNT],
    backlog_len: [u16; Importance::COUNT],
}

impl Default for SendQueue {
    fn default() -> Self {
        Self {
            snd_nxt: SeqNo(1),
            transmit: FrameList::default(),
            backlog: FrameList::default(),
            backlog_len: [0; Importance::COUNT],
            target: [None; Importance::COUNT],
        }
    }
}

/// Packets of an importance that the backlog takes before senders are put to wait.
#[inline]
pub fn backlog_limit(importance: Importance, min_window: u16, mtu: usize) -> usize {
    let window = usize::from(min_window);
    match importance {
        Importance::Low => window * 2,
        Importance::Medium => window * 4,
        Importance::High => window * 6,
        Importance::Critical => window * 8,
        Importance::System => 65_535 / (mtu / 20).max(1),
    }
}

impl SendQueue {
    /// Packets of this importance in the backlog.
    #[inline]
    pub fn backlog_len(&self, importance: Importance) -> usize {
        usize::from(self.backlog_len[importance as usize])
    }

    /// Packets sent and waiting, together.
    #[inline]
    pub fn len(&self) -> usize {
        self.transmit.len() + self.backlog.len()
    }

    /// Packets in the backlog.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// True if nothing was left unacknowledged or unsent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if a message has to wait for the window.
    #[inline]
    pub fn is_blocked(&self, window: u16) -> bool {
        !self.backlog.is_empty() || self.transmit.len() >= usize::from(window)
    }

    /// Puts a packet, its length and importance noted in the table, behind all others. `bundles` tells
    /// whether later messages of its importance may join it.
    #[inline]
    pub fn push(&mut self, table: &mut FrameTable, frame: Frame, bundles: bool) {
        let importance = table.meta(frame.by_ref()).importance as usize;
        self.target[importance] = bundles.then_some(frame.by_ref());
        self.backlog_len[importance] += 1;
        self.backlog.push_back(table, frame);
    }

    /// Lets no further message of an application join a packet that waits: what waits now goes before it.
    pub fn seal(&mut self) {
        for (importance, target) in self.target.iter_mut().enumerate() {
            if importance != Importance::System as usize {
                *target = None;
            }
        }
    }

    /// Numbers the next packet that the window lets out; the caller stamps and sends it.
    #[inline]
    pub fn advance(&mut self, table: &mut FrameTable, window: u16) -> Option<FrameRef> {
        if self.transmit.len() >= usize::from(window) {
            return None;
        }
        let frame = self.backlog.pop_front(table)?;
        let importance = table.meta(frame.by_ref()).importance as usize;
        self.backlog_len[importance] -= 1;
        if self.target[importance] == Some(frame.by_ref()) {
            self.target[importance] = None;
        }
        Some(self.number(table, frame))
    }

    /// Numbers a packet before which none waits; the caller stamps and sends it.
    #[inline]
    pub fn number(&mut self, table: &mut FrameTable, frame: Frame) -> FrameRef {
        let name = frame.by_ref();
        let meta = table.meta_mut(name);
        meta.seqno = self.snd_nxt;
        meta.resent_at = None;
        self.snd_nxt = self.snd_nxt.next();
        self.transmit.push_back(table, frame);
        name
    }

    /// Adds a message of `len` bytes to the waiting packet of its importance if it has room below
    /// `mss`. `write` fills the bytes. False if the message needs a packet of its own.
    pub fn bundle<H: Host>(
        &mut self,
        table: &mut FrameTable,
        host: &mut H,
        message: (Importance, usize),
        mss: usize,
        stats: &mut LinkStats,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let (importance, len) = message;
        let Some(target) = self.target[importance as usize] else {
            return false;
        };
        let held = table.meta(target).len as usize;
        let Some(bytes) = host.bytes_mut(target) else {
            return false;
        };
        let is_bundle = User::from_bits(field::USER.get(bytes)) == User::MsgBundler;
        let start = if is_bundle {
            aligned(held)
        } else {
            aligned(size::INT + held)
        };
        if start + len > mss.min(bytes.len()) {
            return false;
        }
        if !is_bundle {
            wrap(bytes, held, importance);
            stats.tx_bundles += 1;
            stats.tx_bundled += 1;
        }
        let end = if is_bundle { held } else { size::INT + held };
        if end < start {
            bytes[end..start].fill(0);
        }
        write(&mut bytes[start..start + len]);
        field::SIZE.set(bytes, (start + len) as u32);
        let count = field::MSG_COUNT.get(bytes) + 1;
        field::MSG_COUNT.set(bytes, count);
        stats.tx_bundled += 1;
        table.meta_mut(target).len = (start + len) as u32;
        true
    }

    /// Takes every packet out, the oldest first, with the numbers that those in the backlog would have got.
    pub fn take_all(&mut self, table: &mut FrameTable) -> FrameList {
        while self.advance(table, u16::MAX).is_some() {}
        std::mem::take(&mut self.transmit)
    }

    /// Puts packets of importance SYSTEM before all that wait for the window.
    pub fn put_before_waiting(&mut self, table: &mut FrameTable, mut packets: FrameList) {
        self.backlog_len[Importance::System as usize] += packets.len() as u16;
        packets.append(table, std::mem::take(&mut self.backlog));
        self.backlog = packets;
    }

    /// Takes every packet out, as after a reset.
    pub fn purge<H: Host>(&mut self, table: &FrameTable, host: &mut H) {
        self.transmit.free_all(table, host);
        self.backlog.free_all(table, host);
        *self = Self::default();
    }
}

/// Makes a bundle of the single message of `held` bytes in `bytes`.
fn wrap(bytes: &mut [u8], held: usize, importance: Importance) {
    let own = field::PREV_NODE.get(bytes);
    let header_len = field::HEADER_WORDS.get(bytes) as usize * 4;
    // A 24-byte header names no destination; the link sets it where it sends the packet.
    let dest = if header_len > size::SHORT {
        field::DEST_NODE.get(bytes)
    } else {
        0
    };
    bytes.copy_within(..held, size::INT);
    let mut header = Header::internal(User::MsgBundler, 0, own, dest);
    header
        .set(field::INNER_IMPORTANCE, importance as u32)
        .set(field::MSG_COUNT, 1)
        .set_payload_len(held);
    bytes[..size::INT].copy_from_slice(header.as_bytes());
}
