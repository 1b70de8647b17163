//! The further workers as worker 0 sees them: they serve the AF_XDP queues of its bearers.
//!
//! Owned by worker 0, which has the engine. A queue is handed to the worker with the fewest, which serves it until its
//! socket is closed ([`xtipc_xsk::handover`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xtipc_xsk::handover::{ServedQueue, Wake};
use xtipc_xsk::{FramePool, XskSocket};

use crate::mail::{self, Bell, Receiver, Sender};
use crate::wait::Backend;
use crate::watchdog::Pulse;

/// Queues that wait for a worker to take them over, which it does within a millisecond.
const QUEUES_MAX: usize = 256;

/// Where a further worker shows what it does.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    pub(crate) spin_budget_ns: AtomicU64,
    /// Whether it sleeps in epoll.
    epoll: AtomicBool,
}

impl Tally {
    pub(crate) fn set_backend(&self, backend: Backend) {
        let epoll = backend == Backend::Epoll;
        self.epoll.store(epoll, Ordering::Relaxed);
    }

    pub(crate) fn backend(&self) -> Backend {
        match self.epoll.load(Ordering::Relaxed) {
            true => Backend::Epoll,
            false => Backend::IoUring,
        }
    }
}

/// A further worker, in the hands of worker 0 and of each port that it serves.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its number.
    pub(crate) index: usize,
    pub(crate) tally: Arc<Tally>,
    pulse: Arc<Pulse>,
    queues: Sender<ServedQueue>,
}

impl Member {
    /// When it made its last round.
    pub(crate) fn last_round_ns(&self) -> u64 {
        self.pulse.last_round_ns()
    }
}

/// What a further worker is started with.
pub(crate) struct Seat {
    /// Its number.
    pub(crate) index: usize,
    pub(crate) tally: Arc<Tally>,
    pub(crate) pulse: Arc<Pulse>,
    /// What it is to serve. Worker 0 has ended when nobody is left to send.
    pub(crate) queues: Receiver<ServedQueue>,
}

/// All further workers.
#[derive(Debug)]
pub(crate) struct Crew {
    members: Vec<Arc<Member>>,
    /// Wakes worker 0.
    owner: Bell,
}

impl Crew {
    /// For the workers of these pulses, the first being worker 0's, which is woken by `owner`. The seats are the further
    /// workers'.
    pub(crate) fn new(pulses: &[Arc<Pulse>], owner: Bell) -> io::Result<(Self, Vec<Seat>)> {
        let (mut members, mut seats) = (Vec::new(), Vec::new());
        for (index, pulse) in pulses.iter().enumerate().skip(1) {
            let (sender, queues) = mail::channel(QUEUES_MAX)?;
            let tally = Arc::new(Tally::default());
            members.push(Arc::new(Member {
                index,
                tally: Arc::clone(&tally),
                pulse: Arc::clone(pulse),
                queues: sender,
            }));
            seats.push(Seat {
                index,
                tally,
                pulse: Arc::clone(pulse),
                queues,
            });
        }
        Ok((Self { members, owner }, seats))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The worker with this number, from 1.
    pub(crate) fn member(&self, index: usize) -> Option<&Member> {
        self.members.get(index.checked_sub(1)?).map(Arc::as_ref)
    }

    /// Hands the queue of a socket to the worker with the fewest queues. `None`: there is none.
    pub(crate) fn hand_over(
        &self,
        socket: &mut XskSocket,
        pool: &FramePool,
    ) -> Option<Arc<Member>> {
        // Whoever is served has the member in its hands. The first of equals.
        let member = self.members.iter().min_by_key(|m| Arc::strong_count(m))?;
        let (server, owner) = (member.queues.bell(), self.owner.clone());
        let served = socket.hand_over(
            pool,
            Wake::new(move || server.ring()),
            Wake::new(move || owner.ring()),
        );
        if let Err(error) = member.queues.send(served) {
            // The socket says so when it is used next, and is made anew.
            tracing::error!(worker = member.index, %error, "cannot hand a queue over");
        }
        Some(Arc::clone(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Core;
    use std::sync::mpsc::TryRecvError;

    #[test]
    fn workers_are_numbered_from_1_and_end_with_worker_0() {
        let pulses: Vec<_> = (0..3).map(|_| Arc::new(Pulse::new(Core::Own))).collect();
        let (_, commands) = mail::channel::<()>(1).unwrap();
        let (crew, seats) = Crew::new(&pulses, commands.bell()).unwrap();
        assert_eq!(
            seats.iter().map(|seat| seat.index).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(crew.member(0).is_none());
        assert_eq!(crew.member(2).map(|member| member.index), Some(2));
        drop(crew);
        for seat in seats {
            assert_eq!(
                seat.queues.try_recv().err(),
                Some(TryRecvError::Disconnected)
            );
        }
    }

    #[test]
    fn worker_0_alone_hands_nothing_over() {
        let (_, commands) = mail::channel::<()>(1).unwrap();
        let (crew, seats) = Crew::new(&[Arc::new(Pulse::new(Core::Own))], commands.bell()).unwrap();
        assert!(crew.is_empty() && seats.is_empty());
    }
}
