//! Several messages of a connection at once, with one look at what the attachment shares.

use crate::attachment::Attachment;
use crate::buffer::Buffer;
use crate::core::Custody;
use crate::datagram::check_len;
use crate::direct::give_way;
use crate::{Connection, Message, Result};

impl Connection {
    /// Sends messages, or pieces of a stream, as many as can be sent without waiting, but the first one as
    /// [`Connection::send`] does; gives how many. What keeps a later one from being sent is told by the next call.
    pub fn send_many<P: AsRef<[u8]>>(&self, payloads: &[P]) -> Result<usize> {
        let Some((first, rest)) = payloads.split_first() else {
            return Ok(0);
        };
        for payload in payloads {
            check_len(payload.as_ref().len())?;
        }
        self.send(first.as_ref())?;
        let (attachment, socket) = self.handle();
        let sent = attachment.send_more(socket, rest)?;
        let by_daemon = rest[sent..]
            .iter()
            .map_while(|payload| self.try_send(payload.as_ref()).ok());
        Ok(1 + sent + by_daemon.count())
    }

    /// Appends messages, or chunks of a stream, to `messages`, as many as wait but at most `max`; gives how many. Waits for
    /// the first as [`Connection::recv`] does. 0: the peer has ended the connection in order.
    pub fn recv_many(&self, messages: &mut Vec<Message>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let Some(first) = self.recv()? else {
            return Ok(0);
        };
        messages.push(first);
        let (attachment, socket) = self.handle();
        let mut core = attachment.core()?;
        let from = messages.len();
        let queue = core.queue(socket)?;
        if queue.custody == Custody::Own {
            while messages.len() - from < max - 1
                // The end is for the next call.
                && queue.messages.front().is_some_and(|(meta, _)| meta.error == 0)
                && let Some((meta, buffer)) = queue.pop()
            {
                messages.push(Message::new(attachment, meta, buffer));
            }
            let queued = messages[from..].iter().filter_map(Message::buffer);
            attachment.note_all_consumed(queued)?;
            let mut loans = false;
            queue.consume_direct(from + max - 1 - messages.len(), |meta, buffer| {
                loans |= buffer.is_loan();
                messages.push(Message::new(attachment, meta, Buffer::Direct(buffer)));
            });
            if loans {
                messages[from..].iter_mut().for_each(Message::make_own);
            }
        }
        let count = 1 + messages.len() - from;
        attachment.settle_watch(&mut core, socket)?;
        drop(core);
        attachment.settle_releases();
        Ok(count)
    }
}

impl Attachment {
    /// Sends by the channel of a connection as many of these as there is room for.
    fn send_more<P: AsRef<[u8]>>(&self, socket: u32, payloads: &[P]) -> Result<usize> {
        let mut core = self.core()?;
        let (sent, unclear) = core.send_all(socket, payloads)?;
        let is_awaited = core.is_awaited(socket);
        drop(core);
        give_way(is_awaited);
        let Some(first) = unclear else {
            return Ok(sent as usize);
        };
        let mut taken = 0;
        while taken < sent && self.wait_for_last(socket, first.wrapping_add(taken))? {
            taken += 1;
        }
        self.core()?.note_clear(socket);
        Ok(taken as usize)
    }
}
