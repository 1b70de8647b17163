//! Who makes the rounds of an embedded node: whichever thread of the application waits, else a helper.
//!
//! The worker is one object that is handed on. A thread that waits for something takes it, makes rounds with it, sleeps in
//! its wait, and lays it down when it has what it waited for. Nobody has it then; what arrives waits in the rings. If
//! that lasts for an eighth of the shortest link tolerance, or other threads wait in their segments, the helper takes it,
//! which is the thread that made the worker, and works as the worker of a daemon does until it is asked for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xtipc_protocol::addr::PortId;
use xtipc_segment::Destination;

use super::posting::Post;
use super::{Caught, Failure, Posted, Seen, Worker};
use crate::clock::now_ns;
use crate::mail::Bell;

/// The right to make the rounds of a node.
#[derive(Debug)]
pub struct Turn {
    state: Mutex<State>,
    /// Told when the worker is laid down, gone, or ready.
    changed: Condvar,
    /// Threads that ask the helper for the worker. Changed under the lock; the helper looks without it.
    asking: AtomicU32,
    /// How long nobody may have the worker.
    patience: Duration,
}

struct State {
    place: Place,
    /// When whoever laid the worker down had looked for the last time.
    since_ns: u64,
    /// Threads of the application that do not drive and wait for what the worker does.
    onlookers: u32,
    ready: bool,
    /// Why a thread of the application could not go on with it.
    failure: Option<String>,
    /// Wakes the helper out of the worker's sleep.
    bell: Option<Bell>,
}

/// Where the worker is.
enum Place {
    /// Being made.
    Coming,
    /// With nobody.
    Free(Box<Worker>),
    /// With the helper.
    Helper,
    /// With a thread of the application.
    Application,
    /// It has stopped.
    Ended,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.place {
            Place::Coming => "coming",
            Place::Free(_) => "free",
            Place::Helper => "helper",
            Place::Application => "application",
            Place::Ended => "ended",
        };
        f.debug_struct("State")
            .field("place", &place)
            .finish_non_exhaustive()
    }
}

impl Turn {
    /// For a node whose shortest link tolerance is `tolerance_ms_min`.
    pub fn new(tolerance_ms_min: u32) -> Self {
        Self {
            state: Mutex::new(State {
                place: Place::Coming,
                since_ns: 0,
                onlookers: 0,
                ready: false,
                failure: None,
                bell: None,
            }),
            changed: Condvar::new(),
            asking: AtomicU32::new(0),
            patience: Duration::from_millis(u64::from(tolerance_ms_min)) / 8,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the node can be used. False: it has ended.
    pub fn wait_until_ready(&self) -> bool {
        let mut state = self.lock();
        while !state.ready && !matches!(state.place, Place::Ended) {
            state = self.wait(state);
        }
        state.ready
    }

    /// The node can be used.
    pub(crate) fn note_ready(&self) {
        self.lock().ready = true;
        self.changed.notify_all();
    }

    /// Takes the worker, from the helper if it has it. `None` if another thread of the application has it, or it has ended.
    pub fn take(&self) -> Option<Driving<'_>> {
        let mut state = self.lock();
        loop {
            match &state.place {
                Place::Free(_) => return self.taken(state),
                Place::Coming | Place::Application | Place::Ended => return None,
                Place::Helper => {
                    self.asking.fetch_add(1, Ordering::Relaxed);
                    if let Some(bell) = &state.bell {
                        bell.ring();
                    }
                    state = self.wait(state);
                    self.asking.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Takes the worker if nobody has it.
    pub fn take_free(&self) -> Option<Driving<'_>> {
        let state = self.lock();
        match &state.place {
            Place::Free(_) => self.taken(state),
            _ => None,
        }
    }

    fn taken<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Option<Driving<'a>> {
        match std::mem::replace(&mut state.place, Place::Application) {
            Place::Free(worker) => Some(Driving {
                turn: self,
                worker: Some(worker),
            }),
            other => {
                state.place = other;
                None
            }
        }
    }

    /// The calling thread will wait without driving, until [`Self::no_longer_waits`].
    pub fn waits(&self) {
        let mut state = self.lock();
        state.onlookers += 1;
        if matches!(state.place, Place::Free(_)) {
            self.changed.notify_all();
        }
    }

    /// It waits no longer.
    pub fn no_longer_waits(&self) {
        self.lock().onlookers -= 1;
    }

    fn lay_down(&self, worker: Box<Worker>) {
        let mut state = self.lock();
        state.since_ns = worker.host.applications.round_ns;
        let wanted = state.onlookers > 0 || worker.stopping;
        state.place = Place::Free(worker);
        if wanted || self.is_asked_for() {
            self.changed.notify_all();
        }
    }

    fn is_asked_for(&self) -> bool {
        self.asking.load(Ordering::Relaxed) > 0
    }

    fn end(&self) {
        self.lock().place = Place::Ended;
        self.changed.notify_all();
    }

    /// Makes the rounds of this worker while nobody else does, until it is told to stop; cleans up in any case.
    pub(super) fn help(&self, worker: Worker) -> Result<(), Failure> {
        self.lock().bell = Some(worker.own.commands.bell());
        let mut worker = Box::new(worker);
        loop {
            self.lock().place = Place::Helper;
            let mut outcome = Ok(());
            while outcome.is_ok() && !worker.stopping && !self.is_asked_for() {
                outcome = worker.look().and_then(|seen| {
                    match seen == Seen::Work || self.is_asked_for() {
                        true => Ok(()),
                        // The look may have silenced the bell of who asked; one that rings from here on ends the sleep.
                        false => worker.rest(None),
                    }
                });
            }
            if outcome.is_err() || worker.stopping {
                let failed = self.lock().failure.take();
                let outcome = failed.map_or(outcome, |reason| Err(reason.into()));
                let stopped = worker.stop();
                self.end();
                return outcome.and(stopped);
            }
            self.lay_down(worker);
            match self.wait_for_turn() {
                Some(again) => worker = again,
                None => return Ok(()),
            }
        }
    }

    /// Waits until the worker was with nobody for too long, or somebody waits for what it does.
    fn wait_for_turn(&self) -> Option<Box<Worker>> {
        let mut state = self.lock();
        loop {
            let idle_ns = now_ns().saturating_sub(state.since_ns);
            let late = Duration::from_nanos(idle_ns) >= self.patience;
            let is_due = late || state.onlookers > 0;
            match std::mem::replace(&mut state.place, Place::Helper) {
                Place::Free(worker) if worker.stopping || is_due && !self.is_asked_for() => {
                    return Some(worker);
                }
                Place::Ended => {
                    state.place = Place::Ended;
                    return None;
                }
                place => state.place = place,
            }
            let waited = self.changed.wait_timeout(state, self.patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A thread of the application has the worker, until this is dropped.
pub struct Driving<'a> {
    turn: &'a Turn,
    /// Absent only while it is dropped.
    worker: Option<Box<Worker>>,
}

impl Driving<'_> {
    /// A look, and a round if there is anything to make one for. Work also if the node ends, and there is no use in
    /// waiting.
    pub fn look(&mut self) -> Seen {
        self.with(Worker::look).unwrap_or(Seen::Work)
    }

    /// The same; of a socket for datagrams or events whose application has taken out all that was delivered, the first message
    /// that comes is caught if it is a short one, and counts as read.
    pub fn look_for(&mut self, socket: u32) -> (Seen, Option<Caught>) {
        let looked = self.with(|worker| worker.look_for(PortId(socket)));
        looked.unwrap_or((Seen::Work, None))
    }

    /// A round that also posts messages of a socket, in order and behind what its application has asked for: as many as need
    /// not wait. The others, from the first that is left on, are to be requests.
    pub fn post(
        &mut self,
        socket: u32,
        destination: Destination,
        messages: &mut dyn ExactSizeIterator<Item = &[u8]>,
    ) -> Posted {
        let mut post = Post {
            port: PortId(socket),
            destination,
            messages,
            posted: Posted::default(),
        };
        self.with(|worker| worker.look_with(Some(&mut post)));
        post.posted
    }

    /// When the last look was, on the monotonic clock.
    pub fn looked_ns(&self) -> u64 {
        let worker = self.worker.as_ref();
        worker.map_or(0, |worker| worker.host.applications.round_ns)
    }

    /// What the node's policy is after a look that found no work: goes on at once, gives the processor away, or sleeps
    /// until something comes, `limit_ns` on the monotonic clock at most.
    pub fn rest(&mut self, limit_ns: Option<u64>) {
        self.with(|worker| worker.rest(limit_ns));
    }

    /// `None`: the node ends.
    fn with<T>(&mut self, work: impl FnOnce(&mut Worker) -> Result<T, Failure>) -> Option<T> {
        let worker = self
            .worker
            .as_deref_mut()
            .filter(|worker| !worker.stopping)?;
        match work(worker) {
            Ok(done) => Some(done).filter(|_| !worker.stopping),
            Err(failure) => {
                worker.stopping = true;
                self.turn.lock().failure = Some(failure.to_string());
                None
            }
        }
    }

    /// The node ends; who waits has nothing to wait for here.
    pub fn is_over(&self) -> bool {
        self.worker.as_ref().is_none_or(|worker| worker.stopping)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.turn.lay_down(worker);
        }
    }
}
