//! The steward: the main thread, which starts and stops everything and never touches a packet.
//!
//! Owns the instance's run directory, signals, the listening sockets, the watchdog's thread and the service manager's
//! notifications. Workers are told by [`Command`]s and tell by [`Event`]s; who connects is served when every worker
//! is ready.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::net::SocketType;
use sd_notify::NotifyState;
use xtipc_management::{Request, Response};

use crate::bearer::Preparation;
use crate::clock::now_ns;
use crate::complaints::Complaints;
use crate::config::Config;
use crate::control::Control;
use crate::crew::Crew;
use crate::door::{Admission, Door};
use crate::epoch::Epochs;
use crate::instance::{Instance, InstanceError};
use crate::mail::{self, Receiver, Sender};
use crate::placement::{self, Placement};
use crate::policy::{Core, Policy};
use crate::privileges;
use crate::service_manager;
use crate::signals::{Signal, Signals};
use crate::wait::{Backend, Interest, Token, WaitError, Waiter};
use crate::watchdog::{Pulse, Watchdog, Watching};
use crate::worker::{self, Turn, WorkerConfig};

/// What the steward tells worker 0. The others serve it, and end with it.
#[derive(Debug)]
pub enum Command {
    /// An application has connected to the attach socket and said nothing yet.
    AttachClient(OwnedFd),
    /// A tool asks.
    Query(Box<Query>),
    /// Count encrypted frames in this epoch.
    BeginEpoch(u32),
    /// Reset the links, close everything and end; an [`Event::Stopped`] is the last sign of life.
    Stop,
}

/// A question of a tool. Dropping it unanswered tells the tool that no answer came.
#[derive(Debug)]
pub struct Query {
    /// What is asked.
    pub request: Request,
    /// Taken for a key that is to be set.
    pub epoch: Option<u32>,
    /// Made for a bearer that is to be enabled.
    pub prepared: Preparation,
    /// Takes one response without blocking.
    pub reply: SyncSender<Response>,
}

/// What a worker tells the steward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its bearers are open and it runs.
    Ready {
        /// Which worker.
        worker: usize,
        /// What it sleeps in, as [`Waiter::description`] says.
        wait: String,
    },
    /// It cannot start or go on, and has ended.
    Failed {
        /// Which worker.
        worker: usize,
        /// What was wrong and what is accepted.
        reason: String,
    },
    /// The shortest tolerance of its links is another one now.
    Tolerance {
        /// In milliseconds.
        shortest_ms: u32,
    },
    /// The epoch in which it counts encrypted frames comes to its end.
    EpochWanted,
    /// It has done all that [`Command::Stop`] asks for, or serves nobody any more.
    Stopped {
        /// Which worker.
        worker: usize,
    },
}

/// Why the daemon ended other than by an orderly stop.
#[derive(Debug, thiserror::Error)]
pub enum StewardError {
    /// The kernel is too old, or the process may not.
    #[error(transparent)]
    Refusal(#[from] privileges::Refusal),
    /// A processor that workers are to be pinned to is not to be had.
    #[error(transparent)]
    Pin(#[from] placement::PinError),
    /// The run directory or a socket is not to be had.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The wait failed.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The system refused.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A worker gave up.
    #[error("worker {worker}: {reason}")]
    Worker {
        /// Which worker.
        worker: usize,
        /// In its words.
        reason: String,
    },
    /// Workers did not end when told to.
    #[error("{0} of the workers did not stop within 5 s")]
    Stuck(usize),
    /// A second signal ended the daemon while it stopped.
    #[error("ended by a second signal {0} before the stop was done")]
    Forced(i32),
}

/// Commands that wait for worker 0. Each is rare; one that has so many unread is stuck.
const COMMANDS_MAX: usize = 64;
/// Events of all workers; each sends three at most.
const EVENTS_MAX: usize = 256;
/// How often it looks at what nothing wakes it for.
const TICK_NS: u64 = 200_000_000;
/// How often it looks whether there is room for who waits in a door.
const GUEST_RETRY_NS: u64 = 2_000_000;
const STOP_PATIENCE_NS: u64 = 5_000_000_000;
/// Signals that come together ask for one stop: timeout(1), for one, sends to the process and to its group.
const SAME_STOP_NS: u64 = 200_000_000;

const SIGNALS: Token = Token(0);
const EVENTS: Token = Token(1);
const ATTACH: Token = Token(2);
const CONTROL: Token = Token(3);

struct Running {
    thread: Option<JoinHandle<()>>,
    ready: bool,
}

enum Stage {
    Starting,
    Serving,
    Stopping { until_ns: u64 },
}

pub(crate) struct Steward {
    config: Arc<Config>,
    /// The process is an application: its service manager is none of ours, and nobody else attaches.
    turn: Option<Arc<Turn>>,
    _instance: Instance,
    signals: Signals,
    waiter: Waiter,
    events: Receiver<Event>,
    /// To worker 0.
    commands: Sender<Command>,
    told_to_stop: bool,
    workers: Vec<Running>,
    control: Control,
    epochs: Arc<Mutex<Epochs>>,
    doors: Vec<Door>,
    stalls: Complaints,
    pulses: Arc<[Arc<Pulse>]>,
    watching: Watching,
    /// How often the service manager wants to hear of us, halved.
    alive_interval_ns: Option<u64>,
    alive_due_ns: u64,
    stage: Stage,
    failure: Option<StewardError>,
}

/// Runs the daemon until it is told to stop. The calling thread becomes the steward; `signals` were blocked
/// before any thread was started.
pub fn run(config: Config, signals: Signals) -> Result<(), StewardError> {
    start(config, signals, None)?.serve()
}

/// Starts the workers. With a turn the node is embedded: worker 0 is its helper, and no other process attaches.
pub(crate) fn start(
    config: Config,
    signals: Signals,
    turn: Option<Arc<Turn>>,
) -> Result<Steward, StewardError> {
    privileges::check_kernel()?;
    privileges::check_capabilities(&config)?;
    let placement = Arc::new(Placement::new(&config)?);
    if let Some(bytes) = privileges::raise_memlock() {
        tracing::debug!(bytes, "lockable memory is limited");
    }
    // How many an application may have is its own business.
    if turn.is_none() {
        privileges::raise_open_files();
    }
    let mut instance = Instance::hold(&config.run_dir)?;
    let doors = make_doors(&mut instance, &config, turn.is_none())?;
    let system = |operation| move |source| StewardError::System { operation, source };
    let config = Arc::new(config);
    let mut waiter = match turn {
        // One of a process that has ended holds its sockets until the kernel comes round to it: an application may be
        // started again at once.
        Some(_) => Waiter::with_backend(Backend::Epoll)?,
        None => Waiter::new()?,
    };
    let (sender, events) = mail::channel(EVENTS_MAX).map_err(system("make a queue"))?;
    waiter.add(&signals, Interest::Read, SIGNALS)?;
    waiter.add(&events, Interest::Read, EVENTS)?;

    let core = match config.policy {
        Policy::Busy => Core::Own,
        // The scheduling class of its threads is the application's own business.
        Policy::Adaptive | Policy::Sleep if turn.is_some() => Core::Own,
        Policy::Adaptive | Policy::Sleep => Core::Shared,
    };
    let pulses: Arc<[Arc<Pulse>]> = (0..config.workers)
        .map(|_| Arc::new(Pulse::new(core)))
        .collect();
    let mut watchdog = Watchdog::new(config.tolerance_ms_min());
    for (index, pulse) in pulses.iter().enumerate() {
        watchdog.watch(index, Arc::clone(pulse));
    }
    let epochs = Arc::new(Mutex::new(Epochs::new(&config.state_dir)));
    let (commands, inbox) = mail::channel(COMMANDS_MAX).map_err(system("make a queue"))?;
    let (crew, seats) = Crew::new(&pulses, inbox.bell()).map_err(system("make a queue"))?;
    let mut threads = vec![worker::spawn(WorkerConfig {
        config: Arc::clone(&config),
        placement: Arc::clone(&placement),
        pulses: Arc::clone(&pulses),
        crew,
        commands: inbox,
        events: sender.clone(),
        turn: turn.clone(),
        epochs: Arc::clone(&epochs),
    })];
    for seat in seats {
        let (placement, events) = (Arc::clone(&placement), sender.clone());
        threads.push(worker::spawn_server(seat, config.policy, placement, events));
    }
    let mut workers = Vec::with_capacity(threads.len());
    for thread in threads {
        workers.push(Running {
            thread: Some(thread.map_err(system("start a worker"))?),
            ready: false,
        });
    }
    let watching = Watching::start(watchdog).map_err(system("start the watchdog"))?;
    let control = Control::new(commands.clone(), Arc::clone(&epochs));
    let alive = match turn {
        Some(_) => None,
        None => sd_notify::watchdog_enabled().map(|every| every.as_nanos() / 2),
    };
    Ok(Steward {
        config,
        turn,
        _instance: instance,
        signals,
        waiter,
        events,
        commands,
        told_to_stop: false,
        workers,
        control,
        epochs,
        doors,
        stalls: Complaints::default(),
        pulses,
        watching,
        alive_interval_ns: alive.and_then(|ns| u64::try_from(ns).ok()),
        alive_due_ns: 0,
        stage: Stage::Starting,
        failure: None,
    })
}

/// The listening sockets, before there are workers: a node that cannot have them must not join a cluster. Who comes
/// early waits in the backlog.
fn make_doors(
    instance: &mut Instance,
    config: &Config,
    others_attach: bool,
) -> Result<Vec<Door>, InstanceError> {
    let (attach, control) = (&config.attach_socket, &config.control_socket);
    let attach = (ATTACH, attach, SocketType::SEQPACKET, config.attach_access);
    let control = (CONTROL, control, SocketType::STREAM, config.control_access);
    let wanted = others_attach.then_some(attach).into_iter().chain([control]);
    let made = wanted.map(|(token, path, socket_type, access)| {
        let listener = instance.listen(path, socket_type, access)?;
        Ok(Door::new(listener, token))
    });
    made.collect()
}

impl Steward {
    /// Where worker 0 is told.
    pub(crate) fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    /// Until it is told to stop and all workers have ended.
    pub(crate) fn serve(mut self) -> Result<(), StewardError> {
        let mut ready = Vec::with_capacity(8);
        let mut tick_ns = now_ns();
        loop {
            let has_guests = self.doors.iter().any(Door::has_guest);
            let due_ns = match has_guests {
                true => tick_ns.min(now_ns() + GUEST_RETRY_NS),
                false => tick_ns,
            };
            self.waiter.wait(Some(due_ns), &mut ready)?;
            if has_guests {
                self.retry_guests()?;
            }
            for &token in &ready {
                match token {
                    SIGNALS => self.on_signals()?,
                    EVENTS => self.on_events()?,
                    door => self.on_door(door)?,
                }
            }
            let now_ns = now_ns();
            if now_ns >= tick_ns {
                self.on_tick(now_ns)?;
                tick_ns = now_ns + self.alive_interval_ns.map_or(TICK_NS, |ns| ns.min(TICK_NS));
            }
            if self.workers.iter().all(|w| w.thread.is_none()) {
                return self.finish();
            }
        }
    }

    fn on_signals(&mut self) -> Result<(), StewardError> {
        while let Some(signal) = self.signals.next() {
            match (signal, &self.stage) {
                (Signal::Ignored(signal), _) => tracing::debug!(signal, "ignored"),
                (Signal::Stop(number), Stage::Stopping { until_ns }) => {
                    let since_ns = until_ns - STOP_PATIENCE_NS;
                    if now_ns() < since_ns + SAME_STOP_NS {
                        tracing::debug!(signal = number, "stopping already");
                    } else {
                        return Err(StewardError::Forced(number));
                    }
                }
                (Signal::Stop(number), Stage::Starting | Stage::Serving) => {
                    tracing::info!(signal = number, "stopping");
                    self.stop();
                }
            }
        }
        Ok(())
    }

    fn on_events(&mut self) -> Result<(), StewardError> {
        let events: Vec<_> = self.events.drain().collect();
        for event in events {
            match event {
                Event::Ready { worker, wait } => {
                    tracing::info!(worker, wait, "worker ready");
                    self.workers[worker].ready = true;
                    let all = self.workers.iter().all(|w| w.ready);
                    if all && matches!(self.stage, Stage::Starting) {
                        self.begin_to_serve()?;
                    }
                }
                Event::Failed { worker, reason } => {
                    tracing::error!(worker, reason, "worker failed");
                    self.join(worker);
                    self.failure
                        .get_or_insert(StewardError::Worker { worker, reason });
                    self.stop();
                }
                Event::Tolerance { shortest_ms } => self.watching.set_tolerance(shortest_ms),
                Event::EpochWanted => self.give_epoch(),
                Event::Stopped { worker } => self.join(worker),
            }
        }
        Ok(())
    }

    fn give_epoch(&self) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        match epochs.take() {
            // A worker that does not take it drops frames, and has more to worry about.
            Ok(epoch) => drop(self.commands.send(Command::BeginEpoch(epoch))),
            Err(error) => tracing::error!(%error, "encrypted traffic will stop"),
        }
    }

    /// All workers run: applications and tools may come.
    fn begin_to_serve(&mut self) -> Result<(), StewardError> {
        self.stage = Stage::Serving;
        self.open_doors()?;
        let config = &self.config;
        match &self.turn {
            Some(turn) => {
                tracing::info!(control = %config.control_socket.display(), "ready");
                turn.note_ready();
            }
            None => tracing::info!(attach = %config.attach_socket.display(), "ready"),
        }
        self.notify(NotifyState::Ready);
        Ok(())
    }

    fn open_doors(&mut self) -> Result<(), StewardError> {
        for door in &mut self.doors {
            door.open(&mut self.waiter)?;
        }
        Ok(())
    }

    fn on_door(&mut self, token: Token) -> Result<(), StewardError> {
        let (commands, control) = (&self.commands, &self.control);
        for door in self.doors.iter_mut().filter(|door| door.token() == token) {
            door.answer(&mut self.waiter, |socket| {
                admit(commands, control, token, socket)
            })?;
        }
        Ok(())
    }

    fn retry_guests(&mut self) -> Result<(), StewardError> {
        let (commands, control) = (&self.commands, &self.control);
        for door in &mut self.doors {
            let token = door.token();
            door.retry(&mut self.waiter, |socket| {
                admit(commands, control, token, socket)
            })?;
        }
        Ok(())
    }

    fn on_tick(&mut self, now_ns: u64) -> Result<(), StewardError> {
        if let Some(interval_ns) = self.alive_interval_ns
            && now_ns >= self.alive_due_ns
            && self.pulses.iter().all(|pulse| pulse.is_alive(now_ns))
        {
            self.alive_due_ns = now_ns + interval_ns;
            self.notify(NotifyState::Watchdog);
        }
        self.warn_of_stalls(now_ns);
        if matches!(self.stage, Stage::Serving) {
            self.open_doors()?;
        }
        if let Stage::Stopping { until_ns } = self.stage {
            self.tell_to_stop();
            let left = self.workers.iter().filter(|w| w.thread.is_some()).count();
            if now_ns >= until_ns && left > 0 {
                return Err(StewardError::Stuck(left));
            }
        }
        Ok(())
    }

    /// Says which workers were late.
    fn warn_of_stalls(&mut self, now_ns: u64) {
        let late_ns = self.watching.late_ns();
        for (worker, pulse) in self.pulses.iter().enumerate() {
            let gap_ns = pulse.take_gap_ns();
            if gap_ns <= late_ns {
                continue;
            }
            let (gap_ms, limit_ms) = (gap_ns / 1_000_000, late_ns / 1_000_000);
            match self.stalls.occur(now_ns) {
                Some(untold) => tracing::warn!(
                    worker,
                    gap_ms,
                    limit_ms,
                    untold,
                    "a worker stood still: too little processor time for it"
                ),
                None => tracing::debug!(worker, gap_ms, limit_ms, "a worker stood still"),
            }
        }
    }

    fn stop(&mut self) {
        if matches!(self.stage, Stage::Stopping { .. }) {
            return;
        }
        self.notify(NotifyState::Stopping);
        self.stage = Stage::Stopping {
            until_ns: now_ns() + STOP_PATIENCE_NS,
        };
        self.tell_to_stop();
    }

    /// Again if the queue was full the last time.
    fn tell_to_stop(&mut self) {
        self.told_to_stop = self.told_to_stop
            || match self.commands.send(Command::Stop) {
                Ok(()) | Err(mail::SendError::Ended(_)) => true,
                Err(mail::SendError::Full(_)) => false,
            };
    }

    fn notify(&self, state: NotifyState<'_>) {
        if self.turn.is_none()
            && let Err(error) = service_manager::tell(state)
        {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }

    /// The worker's last event has come, so its thread ends without delay.
    fn join(&mut self, worker: usize) {
        if let Some(thread) = self.workers[worker].thread.take() {
            // A panic would have aborted the process.
            let _ = thread.join();
        }
    }

    fn finish(mut self) -> Result<(), StewardError> {
        if let Some(watchdog) = self.watching.end() {
            for (worker, longest_gap_ns, rescues) in watchdog.gaps() {
                let longest_gap_us = longest_gap_ns / 1000;
                tracing::info!(worker, longest_gap_us, rescues, "worker stopped");
            }
        }
        self.failure.map_or(Ok(()), Err)
    }
}

/// Gives a connection to who serves those that come by the door of this token.
fn admit(
    commands: &Sender<Command>,
    control: &Control,
    token: Token,
    socket: OwnedFd,
) -> Admission {
    if token == CONTROL {
        return control.admit(socket);
    }
    match commands.send(Command::AttachClient(socket)) {
        Ok(()) => Admission::Served,
        Err(mail::SendError::Full(Command::AttachClient(socket))) => Admission::NoRoom {
            socket,
            reason: "the queue to the worker is full",
        },
        Err(error) => Admission::Refused(error.to_string()),
    }
}
