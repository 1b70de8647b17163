//! Short messages from the engine of an embedded node into the hands of the thread that waits for them.

use xtipc_segment::Meta;

use crate::attachment::{Attachment, Patience, end_on_node_clock};
use crate::buffer::Buffer;
use crate::lock;
use crate::rounds::{Caught, Seen};

impl Attachment {
    /// Makes rounds until one brings a datagram or an event that can be caught. `None`: it is to be waited for as with a daemon,
    /// since somebody else makes the rounds, something else has come, or the time is over.
    pub(crate) fn catch(&self, socket: u32, patience: Patience) -> Option<(Meta, Buffer)> {
        let rounds = self.rounds.as_ref()?;
        let until_ns = patience.left().ok()?.and_then(end_on_node_clock);
        self.settle_releases();
        let mut driving = rounds.take_free()?;
        // What came before this thread had the rounds lies there; from here on nothing comes but by its own.
        if !lock(&self.core).may_catch(socket) {
            return None;
        }
        loop {
            let (seen, caught) = driving.look_for(socket);
            if let Some(Caught { meta, len, bytes }) = caught {
                return Some((meta, Buffer::Short { len, bytes }));
            }
            let is_late = until_ns.is_some_and(|until_ns| driving.looked_ns() >= until_ns);
            let is_over = is_late || driving.is_over();
            if is_over || seen != Seen::Nothing && !lock(&self.core).may_catch(socket) {
                return None;
            }
            if seen != Seen::Work {
                driving.rest(until_ns);
            }
        }
    }
}
