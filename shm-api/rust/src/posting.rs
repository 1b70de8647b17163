//! Sending without waiting for the verdict.

use xtipc_segment::{Destination, Request, SendFlags};

use crate::attachment::{Attachment, Look, Patience};
use crate::core::{Core, Interest};
use crate::pending::Purpose;
use crate::rounds::Rounds;
use crate::{Error, Result, lock};

impl Attachment {
    /// Sends a message without waiting for the verdict: by a direct channel, or into the submission ring.
    pub(crate) fn post(
        &self,
        socket: u32,
        payload: &[u8],
        destination: Destination,
        patience: Patience,
    ) -> Result<()> {
        self.post_many(socket, &[payload], destination, patience)?;
        Ok(())
    }

    /// The same for several, as far as there is room: at least for one. Gives how many. The daemon is asked by one request
    /// for as many of them as make a batch.
    pub(crate) fn post_many<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
        patience: Patience,
    ) -> Result<usize> {
        if self.rounds.is_some() {
            return self.post_to_own_node(socket, payloads, destination, patience);
        }
        if self.takes_no_channels() {
            return self.post_to_daemon(socket, payloads, destination, patience);
        }
        let sent = self.send_directly(socket, Some(destination), payloads)?;
        let rest = &payloads[sent..];
        if rest.is_empty() {
            return Ok(sent);
        }
        let posted = self.post_to_daemon(socket, rest, destination, patience);
        let mut core = self.core()?;
        core.note_sent(socket);
        match posted {
            Ok(posted) => {
                // The first was counted when its way was looked for.
                core.note_posted(socket, destination, posted.saturating_sub(1));
                Ok(sent + posted)
            }
            Err(_) if sent > 0 => Ok(sent),
            Err(error) => Err(error),
        }
    }

    /// The same where the node is in this process, which has no channels: what need not wait does not go through the ring.
    fn post_to_own_node<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
        patience: Patience,
    ) -> Result<usize> {
        let posted = self.post_in_round(socket, payloads, destination)?;
        self.settle_releases();
        match payloads.len() - posted {
            0 => Ok(posted),
            _ if posted == 0 => self.post_to_daemon(socket, payloads, destination, patience),
            _ => {
                let rest = &payloads[posted..];
                let rest = self.post_to_daemon(socket, rest, destination, Patience::None);
                Ok(posted + rest.unwrap_or(0))
            }
        }
    }

    /// Makes a round that posts messages, unless somebody else makes them: how many, of which failures are noted.
    fn post_in_round<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
    ) -> Result<usize> {
        if !self.is_ours() {
            return Err(Error::Forked);
        }
        let driving = self.rounds.as_ref().and_then(Rounds::take_free);
        let Some(mut driving) = driving.filter(|_| !payloads.is_empty()) else {
            return Ok(0);
        };
        {
            let mut core = lock(&self.core);
            core.dispatch_of_daemon();
            if let Some(failure) = core.failure {
                return Err(failure.into());
            }
            // Those in the ring go first.
            if core.queue(socket)?.posts > 0 {
                return Ok(0);
            }
        }
        let mut messages = payloads.iter().map(P::as_ref);
        let posted = driving.post(socket, destination, &mut messages);
        if let Some(errno) = posted.failed
            && let Ok(queue) = lock(&self.core).queue(socket)
        {
            queue.post_error.get_or_insert((-errno, destination));
        }
        Ok(posted.count)
    }

    fn post_to_daemon<P: AsRef<[u8]>>(
        &self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
        patience: Patience,
    ) -> Result<usize> {
        if payloads.is_empty() {
            return Ok(0);
        }
        let posted = self.wait(patience, |core| {
            if let Some(failure) = core.failure {
                return Err(failure.into());
            }
            let mut posted = 0;
            while posted < payloads.len() {
                match core.enter_posts(socket, &payloads[posted..], destination)? {
                    Ok(count) => posted += count,
                    Err(interest) if posted == 0 => return Ok(Look::WaitFor(interest)),
                    Err(_) => break,
                }
            }
            core.submitter.ring_doorbell();
            Ok(Look::Found(posted))
        })?;
        self.send_off();
        Ok(posted)
    }
}

impl Core {
    /// Enters one request that posts messages, the first of these, and gives how many; or says what it lacks.
    fn enter_posts<P: AsRef<[u8]>>(
        &mut self,
        socket: u32,
        payloads: &[P],
        destination: Destination,
    ) -> Result<std::result::Result<usize, Interest>> {
        // As many as if each were a request: what waits here holds up what other sockets send.
        let room = self.submitter.requests_max() - self.posts;
        let payloads = &payloads[..payloads.len().min(room)];
        let Some(first) = payloads.first() else {
            return Ok(Err(Interest::AnyCompletion));
        };
        let request = |flags: SendFlags| {
            move |payload| Request::Send {
                flags: flags | SendFlags::POSTED,
                destination: Some(destination),
                payload,
            }
        };
        let purpose = |messages: usize| Purpose::Post {
            socket,
            messages: messages as u32,
            destination,
        };
        if payloads.len() > 1 {
            if let Err(interest) = self.admit()? {
                return Ok(Err(interest));
            }
            if let Some((staged, count)) = self.submitter.stage_several(payloads) {
                let request = request(SendFlags::SEVERAL);
                self.push(socket, Some(staged), request, purpose(count))?;
                return Ok(Ok(count));
            }
        }
        let request = request(SendFlags::empty());
        let entered = self.enter(socket, first.as_ref(), request, purpose(1))?;
        Ok(entered.map(|_| 1))
    }
}
