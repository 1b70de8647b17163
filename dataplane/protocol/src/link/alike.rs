//! Messages that differ in nothing but what they carry, one after the other.

use super::Link;
use crate::engine::Ctx;
use crate::host::{Host, Payload, Reserve};
use crate::wire::{Header, Importance, field};
use std::iter::Peekable;

impl Link {
    /// Sends messages of an application with this header, in packets of at most `mss` bytes, as long as they fit into one
    /// whole and nobody has to wait; gives how many.
    pub fn submit_alike<H: Host, P: Payload>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        header: &mut Header,
        mss: usize,
        messages: &mut Peekable<impl Iterator<Item = P>>,
    ) -> usize {
        let importance = Importance::from_bits(header.get(field::USER));
        let mut sent = 0;
        while let Some(payload) = messages.peek()
            && let len = header.len() + payload.len()
            && len <= mss
            && !self.is_congested(importance)
            && ctx.host.frames_free() > 0
        {
            header.set_payload_len(payload.len());
            let write = |out: &mut [u8]| {
                let (head, body) = out.split_at_mut(header.len());
                head.copy_from_slice(header.as_bytes());
                payload.copy_to(0, body);
            };
            if !self.bundle(ctx, importance, len, write) {
                let Some(packet) = ctx.alloc_written(Reserve::Data, importance, len, write) else {
                    break;
                };
                self.submit(ctx, packet, true);
            }
            messages.next();
            sent += 1;
        }
        sent
    }
}
