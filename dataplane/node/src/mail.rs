//! Rare messages between the daemon's threads: a bounded queue and a door bell.
//!
//! For commands, questions and events of the life of a worker; never for packets. The receiver waits for the
//! bell together with everything else it waits for ([`crate::wait`]). Sending never blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError, TrySendError};

use rustix::event::{EventfdFlags, eventfd};

/// Why a message was not taken; it comes back.
#[derive(Debug, thiserror::Error)]
pub enum SendError<T> {
    /// As many messages wait as the queue holds.
    #[error("the queue to that thread is full")]
    Full(T),
    /// The receiver is gone.
    #[error("that thread has ended")]
    Ended(T),
}

/// The sending end; clones share the queue. A dropped one rings too, so that the receiver notices when
/// nobody is left: the queue stands before the bell because fields are dropped in this order.
#[derive(Debug)]
pub struct Sender<T> {
    queue: mpsc::SyncSender<T>,
    bell: Bell,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            bell: self.bell.clone(),
        }
    }
}

/// What wakes a receiver. Rings when it is dropped, too.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Wakes the receiver, or keeps it from falling asleep.
    pub fn ring(&self) {
        // Fails only when the counter is at its end, and then the bell rings already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

/// The receiving end, whose fd is readable when messages may be waiting.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// A queue of at most `capacity` messages.
pub fn channel<T>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::sync_channel(capacity);
    let sender = Sender {
        queue: sender,
        bell: Bell(Arc::clone(&bell)),
    };
    let receiver = Receiver {
        queue: receiver,
        bell,
    };
    Ok((sender, receiver))
}

impl<T> Sender<T> {
    /// Puts a message into the queue and rings.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.queue.try_send(message).map_err(|e| match e {
            TrySendError::Full(message) => SendError::Full(message),
            TrySendError::Disconnected(message) => SendError::Ended(message),
        })?;
        self.bell.ring();
        Ok(())
    }

    /// Wakes the receiver without a message.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }
}

impl<T> Receiver<T> {
    /// Wakes this receiver without a message.
    pub fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.bell))
    }

    /// Silences the bell and returns what waits. Nothing is missed: a message that comes later rings again.
    pub fn drain(&self) -> impl Iterator<Item = T> {
        self.silence();
        self.queue.try_iter()
    }

    /// Silences the bell, for who then asks for messages until there is none.
    pub fn silence(&self) {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
    }

    /// The next message, the bell left as it is. [`TryRecvError::Disconnected`] when all senders are gone.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.queue.try_recv()
    }
}

impl<T> AsFd for Receiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now_ns;
    use crate::wait::{Interest, Token, Waiter};

    #[test]
    fn a_message_rings_and_draining_silences() {
        let (sender, receiver) = channel(4).unwrap();
        let mut waiter = Waiter::new().unwrap();
        waiter.add(&receiver, Interest::Read, Token(0)).unwrap();
        let mut rings = || {
            let mut ready = Vec::new();
            waiter.wait(Some(now_ns()), &mut ready).unwrap();
            !ready.is_empty()
        };
        assert!(!rings());
        sender.send(1).unwrap();
        sender.clone().send(2).unwrap();
        assert!(rings());
        assert_eq!(receiver.drain().collect::<Vec<_>>(), [1, 2]);
        assert!(!rings());
        drop(sender);
        assert!(rings());
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    }

    #[test]
    fn a_full_queue_and_a_gone_receiver_give_the_message_back() {
        let (sender, receiver) = channel(1).unwrap();
        sender.send("first").unwrap();
        assert!(matches!(
            sender.send("second"),
            Err(SendError::Full("second"))
        ));
        drop(receiver);
        assert!(matches!(
            sender.send("third"),
            Err(SendError::Ended("third"))
        ));
    }
}
