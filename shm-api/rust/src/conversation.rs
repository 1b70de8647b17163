//! Talking with the daemon on the attach socket: question and answer, one thread at a time.

use std::os::fd::OwnedFd;
use std::sync::MutexGuard;

use xtipc_segment::attach::Message;

use crate::attachment::Attachment;
use crate::rounds::{LookingOn, Rounds};
use crate::{Result, lock};

impl Attachment {
    /// Takes the turn to talk on the attach socket; the node answers at once.
    pub(crate) fn converse(&self) -> Result<(Conversation<'_>, &OwnedFd)> {
        let conversation = Conversation {
            attachment: self,
            _turn: lock(&self.conversation),
            _looking_on: self.rounds.as_ref().map(Rounds::look_on),
        };
        self.core()?.conversing = true;
        Ok((conversation, &self.socket))
    }
}

/// The turn to talk on the attach socket.
pub(crate) struct Conversation<'a> {
    attachment: &'a Attachment,
    _turn: MutexGuard<'a, ()>,
    _looking_on: Option<LookingOn<'a>>,
}

impl Conversation<'_> {
    /// What was not asked for: the offer of a channel, or an answer that somebody before did not wait for.
    pub(crate) fn set_aside(&self, message: Message, fds: Vec<OwnedFd>) -> Result<()> {
        if let Message::Channel(offer) = message {
            self.attachment.core()?.note_offer((offer, fds));
        }
        Ok(())
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        if let Ok(mut core) = self.attachment.core() {
            core.conversing = false;
        }
    }
}
