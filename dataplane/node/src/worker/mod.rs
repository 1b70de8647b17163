//! Worker 0: the thread that runs the node, pinned to a core. The others serve its AF_XDP queues (`queues`).
//!
//! One loop, stages in a fixed order, each with a budget: packets, applications, timers, then one flush. Packets come
//! before timers, so that a worker which was stalled does not judge its peers by its own silence. It is the
//! node; it owns the engine, the frame pool, the bearers and the segments of the applications.

mod answers;
mod application;
mod applications;
mod batches;
mod bearers;
mod care;
mod catch_up;
mod catching;
mod changes;
mod channels;
mod clients;
mod connections;
mod groups;
mod handles;
mod host;
mod interfaces;
mod keys;
mod monitors;
mod paths;
mod posting;
mod queues;
mod quiet;
mod readiness;
mod requests;
mod sharing;
mod silence;
mod socket_answers;
mod source;
mod turn;
mod undertaker;

use std::hint::spin_loop;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hashbrown::HashMap;
use xtipc_protocol::addr::{BearerId, NodeAddr, NodeId, PortId};
use xtipc_protocol::broadcast::BROADCAST_WINDOW;
use xtipc_protocol::engine::{Engine, NodeConfig, SESSION_UNIT};
use xtipc_protocol::host::{Disconnect, Host, Notice};
use xtipc_protocol::time::Instant;
use xtipc_segment::attach::Welcome;
use xtipc_segment::layout::VERSION;
use xtipc_xsk::FramePool;

use crate::bearer::{self, Arrears, Bearer, ClosingBearer, StationNews};
use crate::clock::now_ns;
use crate::config::{Config, identity_from};
use crate::crew::{Crew, Seat};
use crate::epoch::Epochs;
use crate::mail::{Receiver, Sender};
use crate::placement::Placement;
use crate::policy::{Core, IdlePolicy, Policy, Step};
use crate::steward::{Command, Event};
use crate::wait::{Backend, Interest, Token, Waiter};
use crate::watchdog::Pulse;
use applications::{Applications, Client, Heard};
use bearers::{Enabled, MediaValues, Slots, bearer_setup};
use care::{close_all, own_leaks};
use catch_up::{CatchUp, STALL_NS, stall_ns};
use host::NodeHost;
use interfaces::InterfaceNews;
use posting::Post;
use source::Source;
use undertaker::Undertaker;

pub use catching::Caught;
pub(crate) use changes::STILL_HELD;
pub use posting::Posted;
pub use quiet::Seen;
pub use turn::{Driving, Turn};

/// Packets taken from a bearer in one round.
const RECEIVE_BUDGET: usize = 64;
/// How often the bearers are looked after.
const CARE_INTERVAL_NS: u64 = 1_000_000_000;
/// How often a worker that does not sleep looks at what would have woken it.
const LISTEN_INTERVAL_NS: u64 = 1_000_000;
/// Between two lines on nodes that have the same address.
const DUPLICATE_SILENCE: Duration = Duration::from_secs(30);

/// What worker 0 is started with.
pub(crate) struct WorkerConfig {
    /// The daemon's settings.
    pub config: Arc<Config>,
    /// Where the workers run.
    pub placement: Arc<Placement>,
    /// Where each worker shows the watchdog that it lives.
    pub pulses: Arc<[Arc<Pulse>]>,
    /// The further workers.
    pub crew: Crew,
    /// What the steward tells it.
    pub commands: Receiver<Command>,
    /// What it tells the steward.
    pub events: Sender<Event>,
    /// Where epochs come from.
    pub epochs: Arc<Mutex<Epochs>>,
    /// Of an embedded node: it works when no thread of the application does.
    pub turn: Option<Arc<Turn>>,
}

impl WorkerConfig {
    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        // Whoever panicked took an epoch at most.
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pulse(&self) -> &Arc<Pulse> {
        &self.pulses[0]
    }
}

/// Starts worker 0.
pub(crate) fn spawn(own: WorkerConfig) -> io::Result<JoinHandle<()>> {
    let (placement, events) = (Arc::clone(&own.placement), own.events.clone());
    start(0, placement, events, Arc::clone(own.pulse()), || run(own))
}

/// Starts a further worker.
pub(crate) fn spawn_server(
    seat: Seat,
    policy: Policy,
    placement: Arc<Placement>,
    events: Sender<Event>,
) -> io::Result<JoinHandle<()>> {
    let own_events = events.clone();
    let (index, pulse) = (seat.index, Arc::clone(&seat.pulse));
    let run = move || queues::run(seat, policy, own_events);
    start(index, placement, events, pulse, run)
}

fn start(
    worker: usize,
    placement: Arc<Placement>,
    events: Sender<Event>,
    pulse: Arc<Pulse>,
    run: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(move || {
            let settled = placement.settle(worker).map_err(Failure::from);
            let last = match settled.and_then(|()| run()) {
                Ok(()) => Event::Stopped { worker },
                Err(error) => Event::Failed {
                    worker,
                    reason: error.to_string(),
                },
            };
            pulse.end();
            // The steward is gone only when the process ends anyway.
            let _ = events.send(last);
        })
}

type Failure = Box<dyn std::error::Error>;

fn run(own: WorkerConfig) -> Result<(), Failure> {
    let turn = own.turn.clone();
    let worker = Worker::new(own)?;
    worker.own.pulse().begin(now_ns());
    match turn {
        Some(turn) => turn.help(worker),
        None => worker.run(),
    }
}

/// Tells the steward that a worker can be used.
fn tell_ready(worker: usize, waiter: &Waiter, events: &Sender<Event>) {
    let wait = waiter.description().into();
    // The steward outlives its workers.
    let _ = events.send(Event::Ready { worker, wait });
}

struct Worker {
    own: WorkerConfig,
    engine: Engine,
    host: NodeHost,
    bearers: Slots,
    /// Disabled, and not yet released by the kernel.
    closing: Vec<ClosingBearer>,
    /// Applications that have ended, with memory that nobody has had the time to give back.
    departed: Vec<Client>,
    /// What bearers start with that say nothing else.
    media: MediaValues,
    waiter: Waiter,
    /// `None` where the system grants none.
    undertaker: Option<Undertaker>,
    /// Number of descriptors of the bearers that the waiter knows.
    bearer_fds: u64,
    /// `None` where the system grants none: bearers are looked after once in a while all the same.
    interface_news: Option<InterfaceNews>,
    idle: IdlePolicy,
    ready: Vec<Token>,
    care_due_ns: u64,
    listen_due_ns: u64,
    /// When a duplicate address is worth a line again.
    duplicate_due: Instant,
    /// What an operator set, for those who ask: receivers believe in no broadcast further ahead than usual.
    broadcast_window: u16,
    /// Name and plane of the links that are up: one that goes down is perhaps forgotten when that is told.
    link_texts: HashMap<(NodeAddr, BearerId), (String, char)>,
    /// What the steward's watchdog goes by.
    shortest_tolerance_ms: u32,
    catch_up: CatchUp,
    /// Further workers have not looked at what has come for the node: timers wait for that.
    awaits_workers: bool,
    started_ns: u64,
    rounds: u64,
    sleeps: u64,
    announced: bool,
    /// The wait reported a bearer: it has packets, or something happened to its interface.
    bearer_called: bool,
    /// Something was done outside of a round, whose outcome the next one carries out.
    stirred: bool,
    /// When the next timer is due; `None` until somebody asks after a round.
    timer_due_ns: Option<u64>,
    /// When it gave its core away, if it did after the last look.
    yielded_ns: Option<u64>,
    /// What the applications were told about the worker's scheduling class.
    shown_idle_class: bool,
    stopping: bool,
}

impl Worker {
    fn new(own: WorkerConfig) -> Result<Self, Failure> {
        let config = Arc::clone(&own.config);
        let config = &*config;
        let media = MediaValues::of(config);
        let specs = bearers::with_priorities(&config.bearers, &media)?;
        let pool_config = bearer::pool_config(&specs, config.xdp, config.frames);
        let mut pool = FramePool::new(&pool_config)?;
        let bearers = bearers::open_all(&specs, media.defaults(config), &mut pool)?;
        let started_ns = now_ns();
        let mut host = NodeHost::new(pool, pool_config.control_reserve, Applications::default());
        let mut engine = Engine::new(node_config(config, &bearers, started_ns)?, &host);
        let now = Instant(started_ns);
        engine.set_supervision(config.supervision);
        engine.set_broadcast_repair(config.broadcast_repair_by_unicast);
        if let Err(error) = keys::load(&own, now, &mut engine, &mut host) {
            close_all(bearers, &mut host.pool);
            return Err(error);
        }
        let mut slots = Slots::default();
        for (spec, bearer) in specs.into_iter().zip(bearers) {
            let id = engine.add_bearer(now, bearer_setup(&media, &spec, &bearer), &mut host)?;
            slots[id.index()] = Some(Enabled::new(now, spec, bearer));
        }
        if config.bearers.is_empty() {
            engine.stand_alone(now, &mut host);
        }
        let core = if config.policy == Policy::Busy {
            Core::Own
        } else {
            Core::Shared
        };
        let waiter = match own.turn {
            Some(_) => Waiter::with_backend(Backend::Epoll)?,
            None => Waiter::new()?,
        };
        let undertaker = match own.turn {
            // The threads of the application drive it.
            Some(_) => None,
            None => undertaker_of(&own),
        };
        let mut worker = Self {
            own,
            engine,
            host,
            bearers: slots,
            closing: Vec::new(),
            departed: Vec::new(),
            media,
            waiter,
            undertaker,
            bearer_fds: 0,
            idle: IdlePolicy::new(config.policy, core),
            ready: Vec::with_capacity(64),
            care_due_ns: started_ns + CARE_INTERVAL_NS,
            listen_due_ns: started_ns,
            duplicate_due: Instant(0),
            broadcast_window: BROADCAST_WINDOW,
            link_texts: HashMap::new(),
            interface_news: InterfaceNews::follow(),
            shortest_tolerance_ms: config.tolerance_ms_min(),
            catch_up: CatchUp::default(),
            awaits_workers: false,
            started_ns,
            rounds: 0,
            sleeps: 0,
            announced: false,
            bearer_called: false,
            stirred: true,
            timer_due_ns: None,
            yielded_ns: None,
            shown_idle_class: false,
            stopping: false,
        };
        worker.waiter.add(
            &worker.own.commands,
            Interest::Read,
            Source::Commands.token(0),
        )?;
        worker.watch_interfaces()?;
        worker.watch_bearers()?;
        for enabled in worker.bearers.iter().flatten() {
            enabled.log_open();
        }
        Ok(worker)
    }

    /// Runs until told to stop; cleans up in any case.
    fn run(mut self) -> Result<(), Failure> {
        let outcome = self.work();
        let stopped = self.stop();
        outcome.and(stopped)
    }

    fn work(&mut self) -> Result<(), Failure> {
        while !self.stopping {
            self.step()?;
        }
        Ok(())
    }

    /// One round, and what the policy has a worker do after one that found nothing.
    fn step(&mut self) -> Result<(), Failure> {
        match self.look()? {
            Seen::Work => Ok(()),
            Seen::Chores | Seen::Nothing => self.rest(None),
        }
    }

    /// A round, with what goes before it, unless there is nothing to make one for.
    fn look(&mut self) -> Result<Seen, Failure> {
        self.look_with(None)
    }

    /// The same, and a round in any case if there is something to post.
    fn look_with(&mut self, post: Option<&mut Post<'_, '_>>) -> Result<Seen, Failure> {
        let now_ns = now_ns();
        if let Some(then_ns) = self.yielded_ns.take() {
            self.idle.yielded(now_ns.saturating_sub(then_ns));
        }
        self.rounds += 1;
        self.host.applications.round_ns = now_ns;
        self.note_round(now_ns);
        let raised = self.own.pulse().is_raised();
        if raised || now_ns >= self.listen_due_ns {
            self.listen(Instant(now_ns))?;
        }
        let quiet = !self.reclaim(now_ns) && post.is_none() && self.is_quiet(now_ns);
        let worked = !quiet && self.round(now_ns, post)?;
        if raised && (quiet || self.catch_up.is_over()) {
            self.own.pulse().come_down();
        }
        if quiet {
            return Ok(Seen::Nothing);
        }
        if !worked {
            return Ok(Seen::Chores);
        }
        self.own.pulse().stop_spin();
        self.idle.worked(now_ns);
        Ok(Seen::Work)
    }

    /// Nothing was found: spins, yields or sleeps, until `limit_ns` at most.
    fn rest(&mut self, limit_ns: Option<u64>) -> Result<(), Failure> {
        if self.departed.pop().is_some() {
            return Ok(());
        }
        let now_ns = self.host.applications.round_ns;
        match self.idle.idle(now_ns) {
            Step::Spin => {
                self.own.pulse().spin(now_ns, self.idle.is_shared());
                spin_loop();
            }
            // It is given the processor by the round that has something for it, and before has no use for it.
            Step::Yield if self.host.applications.any_stands_by() => {
                self.own.pulse().stop_spin();
            }
            Step::Yield => {
                self.own.pulse().spin(now_ns, self.idle.is_shared());
                if self.idle.is_yield_due() {
                    self.yielded_ns = Some(now_ns);
                    std::thread::yield_now();
                } else {
                    spin_loop();
                }
            }
            Step::Sleep => self.sleep(limit_ns)?,
        }
        Ok(())
    }

    /// Tells the watchdog of a round, and hears how long there was none.
    fn note_round(&mut self, now_ns: u64) {
        let gap_ns = self.own.pulse().round(now_ns);
        self.catch_up
            .after_gap(gap_ns, stall_ns(self.shortest_tolerance_ms));
        if gap_ns > STALL_NS {
            // What the kernel had not been told to send before the stall would look like stuck.
            self.care_due_ns = self.care_due_ns.max(now_ns + STALL_NS);
        }
    }

    /// One look at everything. True if there was work that came from outside.
    fn round(&mut self, now_ns: u64, post: Option<&mut Post<'_, '_>>) -> Result<bool, Failure> {
        self.stirred = false;
        self.timer_due_ns = None;
        let now = Instant(now_ns);
        let (received, drained) = self.receive(now);
        if self.own.config.bundling {
            self.engine.begin_gathering();
        }
        let mut submitted = self.serve_applications(now);
        if let Some(post) = post {
            post.send(&mut self.engine, &mut self.host, now);
            submitted += post.posted.count;
        }
        if !self.catch_up.goes_on(received, drained) && !self.awaits_workers {
            // Also when no timer is due: senders may wait for frames that transmissions have given back.
            self.engine.on_time(now, &mut self.host);
        }
        let called_in_vain = std::mem::take(&mut self.bearer_called) && received == 0;
        if now_ns >= self.care_due_ns || called_in_vain {
            self.care_due_ns = now_ns + CARE_INTERVAL_NS;
            self.care_for_bearers(now)?;
            let idle_ns = u64::from(self.own.config.direct_idle) * 1_000_000_000;
            channels::look_for_idle(&mut self.host.applications, now_ns, idle_ns);
        }
        self.act_on_notices(now);
        self.engine.end_gathering(now, &mut self.host);
        self.host.flush(&mut self.bearers);
        readiness::unblock(&self.engine, &mut self.host);
        if self.notify_applications() {
            std::thread::yield_now();
        }
        self.announce();
        Ok(received + submitted > 0)
    }

    /// Takes packets from the bearers. How many, and whether that was all.
    fn receive(&mut self, now: Instant) -> (usize, bool) {
        let (mut received, mut drained) = (0, true);
        let mut arrears = Arrears::None;
        for (index, enabled) in self.bearers.iter_mut().enumerate() {
            let Some(Enabled { bearer, .. }) = enabled else {
                continue;
            };
            let id = BearerId(index as u8);
            if self.bearer_called {
                bearer.on_call();
            }
            let taken = bearer.receive(RECEIVE_BUDGET, |source, packet| {
                self.engine
                    .on_packet(now, id, source, packet, &mut self.host);
            });
            received += taken;
            drained &= taken < RECEIVE_BUDGET;
            if !self.own.crew.is_empty() {
                arrears = arrears.max(bearer.arrears(Duration::from_nanos(now.0)));
            }
            while let Some(news) = bearer.station_news() {
                let (engine, host) = (&mut self.engine, &mut self.host);
                match news {
                    StationNews::Met => engine.search(now, id, host),
                    StationNews::Lost(station) => engine.lose_station(now, id, station, host),
                }
            }
        }
        self.awaits_workers = arrears >= Arrears::Awaited;
        if arrears == Arrears::Stalled {
            self.catch_up.begin();
        }
        (received, drained && arrears == Arrears::None)
    }

    /// Whoever has an address twice searches on, and each search is noticed.
    fn tell_of_duplicate(&mut self, now: Instant, addr: NodeAddr) {
        if addr == NodeAddr::NONE || now < self.duplicate_due {
            return;
        }
        self.duplicate_due = now + DUPLICATE_SILENCE;
        let who = match addr == self.engine.own_addr() {
            true => "this node and another one",
            false => "two other nodes",
        };
        tracing::warn!(address = %addr, "{who} have the same node address, and get no links to each other: give each an identity of its own");
    }

    fn act_on_notices(&mut self, now: Instant) {
        let links_changed =
            |notice: &Notice| matches!(notice, Notice::LinkUp(..) | Notice::LinkDown(..));
        if self.host.notices.iter().any(links_changed) {
            for (index, enabled) in self.bearers.iter_mut().enumerate() {
                if let Some(Enabled { bearer, .. }) = enabled {
                    bearer.set_linked(self.engine.stations(BearerId(index as u8)));
                }
            }
        }
        while let Some(notice) = self.host.notices.pop() {
            match notice {
                Notice::AddressFinal(addr) => {
                    tracing::info!(address = %addr, identity = %self.engine.config().id, "node address is final");
                }
                Notice::LinkUp(peer, bearer) => {
                    let (link, plane) = self.link_text(peer, bearer);
                    tracing::info!("Established link <{link}> on network plane {plane}");
                    self.link_texts.insert((peer, bearer), (link, plane));
                }
                Notice::LinkDown(peer, reason, bearer) => {
                    let text = self.link_texts.remove(&(peer, bearer));
                    let (link, plane) = text.unwrap_or_else(|| self.link_text(peer, bearer));
                    tracing::info!(?reason, "Lost link <{link}> on network plane {plane}");
                }
                Notice::Contact { node, up: false } => {
                    tracing::info!("Lost contact with {}", self.name_of(node))
                }
                Notice::Contact { node, up: true } => {
                    tracing::debug!("contact with {}", self.name_of(node))
                }
                Notice::RekeyDue(len) => self.rekey(now, len),
                Notice::EpochWanted => {
                    // It may take the disk a while.
                    let _ = self.own.events.send(Event::EpochWanted);
                }
                Notice::DuplicateAddress(addr) => self.tell_of_duplicate(now, addr),
                Notice::Crowded(port) => channels::have_return(&mut self.host.applications, port),
                Notice::Writable(port)
                | Notice::Acceptable(port)
                | Notice::Connected(port)
                | Notice::ConnectFailed(port, _)
                | Notice::Disconnected(port, _) => self.tell_holders(now, port, notice),
            }
        }
    }

    /// Something happened to a socket, or to its connection.
    fn tell_holders(&mut self, now: Instant, port: PortId, notice: Notice) {
        if notice == Notice::Disconnected(port, Disconnect::Silent) {
            connections::deliver_silence(&self.engine, &mut self.host, port);
        }
        readiness::show(&self.engine, &mut self.host, port, notice);
        let mut number = 0;
        while let Some(slot) = self.host.applications.holder(port, number) {
            match self.tell_holder(now, slot, port, notice) {
                Ok(()) => number += 1,
                Err(violation) => self.let_go(slot, now, &violation.to_string()),
            }
        }
    }

    fn tell_holder(
        &mut self,
        now: Instant,
        slot: applications::Slot,
        port: PortId,
        notice: Notice,
    ) -> Result<(), xtipc_segment::Violation> {
        let (engine, host) = (&mut self.engine, &mut self.host);
        match notice {
            Notice::Acceptable(_) => connections::on_acceptable(engine, host, now, slot, port),
            Notice::Connected(_) => connections::on_connect_outcome(host, slot, port, Ok(())),
            Notice::ConnectFailed(_, why) => {
                connections::on_connect_outcome(host, slot, port, Err(why))
            }
            // At the end of a connection, who waits for room waits in vain.
            Notice::Writable(_) | Notice::Disconnected(..) => {
                requests::retry_held(engine, host, now, slot, port)
            }
            _ => Ok(()),
        }?;
        readiness::on_change(engine, host, slot, port)
    }

    /// Name and plane of the link to a peer, as the kernel's log lines have them.
    fn link_text(&self, peer: NodeAddr, bearer: BearerId) -> (String, char) {
        let links = self.engine.peers().find(|p| p.addr == peer);
        let links = links.into_iter().flat_map(|peer| peer.links);
        let link = links.into_iter().find(|link| link.bearer == bearer);
        link.map_or_else(
            || (peer.to_string(), '?'),
            |link| (link.name, link.network_plane),
        )
    }

    fn name_of(&self, node: NodeAddr) -> String {
        let identity = self.engine.identity_of(node);
        identity.map_or_else(|| node.to_string(), |id| id.to_string())
    }

    /// Tells the steward once that the node can be used: its address is its own.
    fn announce(&mut self) {
        if !self.announced && self.engine.own_addr() != NodeAddr::NONE {
            self.announced = true;
            tell_ready(0, &self.waiter, &self.own.events);
        }
    }

    /// Waits for anything, until `limit_ns` at most, unless something has come meanwhile.
    fn sleep(&mut self, limit_ns: Option<u64>) -> Result<(), Failure> {
        self.host
            .applications
            .note_awaited(self.engine.awaited_readers());
        let slept = self.sleep_announced(limit_ns);
        // Also those whose bells were not rung: while the worker is awake they need not ring.
        self.host.applications.note_awake();
        slept
    }

    fn sleep_announced(&mut self, limit_ns: Option<u64>) -> Result<(), Failure> {
        let stalled = self.host.applications.shared.is_stalled();
        for slot in 0..self.host.applications.slots() {
            let Some(application) = self.host.applications.get_mut(slot) else {
                continue;
            };
            let wants_room = stalled || application.wants_room(self.engine.blocked_subscribers());
            match application.side.before_sleep(wants_room) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(violation) => {
                    self.let_go(slot, Instant(now_ns()), &violation.to_string());
                    self.stirred = true;
                    return Ok(());
                }
            }
        }
        if (self.bearers.iter_mut().flatten()).any(|enabled| enabled.bearer.rx_ready()) {
            return Ok(());
        }
        let timer = self.next_due_ns().min(limit_ns.unwrap_or(u64::MAX));
        self.sleeps += 1;
        self.own.pulse().start_sleep(Some(timer));
        self.waiter.wait(Some(timer), &mut self.ready)?;
        let now = Instant(now_ns());
        self.note_round(now.0);
        if self.ready.is_empty() {
            self.idle.woken(timer, now.0);
        }
        self.act_on_ready(now)
    }

    /// Without sleeping: commands, new applications and the end of old ones do not wait for a quiet moment.
    fn listen(&mut self, now: Instant) -> Result<(), Failure> {
        self.waiter.wait(Some(now.0), &mut self.ready)?;
        self.act_on_ready(now)
    }

    fn act_on_ready(&mut self, now: Instant) -> Result<(), Failure> {
        self.listen_due_ns = now.0 + LISTEN_INTERVAL_NS;
        self.stirred |= !self.ready.is_empty();
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable_by_key(|token| Source::of(*token).turn());
        for token in ready.drain(..) {
            self.on_ready(Source::of(token), now)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn on_ready(&mut self, source: Source, now: Instant) -> Result<(), Failure> {
        match source {
            Source::Commands => self.on_commands(now)?,
            Source::Bearer => self.bearer_called = true,
            Source::Interfaces => self.on_interface_news(now),
            Source::DoorBell(slot) => {
                if let Some(application) = self.host.applications.get_mut(slot) {
                    application.side.after_sleep();
                }
            }
            Source::Process(slot) => self.outlive(slot, now, "ended"),
            Source::Handle(index) => self.on_handle(now, index)?,
            Source::Connection(slot) => {
                let about = Welcome {
                    version: VERSION,
                    node: self.engine.own_addr().0,
                    identity: self.engine.config().id.0,
                    direct_after: self.own.config.direct_after,
                };
                match self.host.applications.listen_to(slot, &about) {
                    Heard::Nothing => {}
                    Heard::Attached => self.on_attached(slot)?,
                    Heard::Asked(message, fds) => self.on_asked(now, slot, message, fds)?,
                    Heard::Gone(reason) => self.outlive(slot, now, &reason),
                }
            }
        }
        Ok(())
    }

    /// The orderly end: peers and applications are told, frames counted.
    fn stop(mut self) -> Result<(), Failure> {
        let now = Instant(now_ns());
        for slot in 0..self.host.applications.slots() {
            self.let_go(slot, now, "the daemon stops");
        }
        self.engine.stop(now, &mut self.host);
        self.host.flush(&mut self.bearers);
        self.unwatch_bearers()?;
        let bearers = std::mem::take(&mut self.bearers).into_iter().flatten();
        let bearers = bearers.map(|enabled| enabled.bearer).collect();
        let mut released = close_all(bearers, &mut self.host.pool);
        for closing in self.closing {
            released &= closing.finish(&mut self.host.pool).is_ok();
        }
        own_leaks(self.host.pool.leaks(), released)
            .map_err(|leaks| format!("frames leaked: {leaks}"))?;
        if released {
            let frames = self.host.frame_count();
            tracing::info!(worker = 0, frames, "all frames are free");
        }
        Ok(())
    }
}

fn undertaker_of(own: &WorkerConfig) -> Option<Undertaker> {
    let started = Undertaker::start(Arc::clone(own.pulse()));
    started
        .inspect_err(|error| tracing::debug!(%error, "the end of processes has no priority"))
        .ok()
}

fn node_config(config: &Config, bearers: &[Bearer], start_ns: u64) -> Result<NodeConfig, Failure> {
    let identity = match (config.identity, bearers.first()) {
        (Some(identity), _) => identity,
        (None, Some(bearer)) => identity_from(bearer.media(), bearer.media_addr())
            .ok_or("the address of the first bearer makes no identity: give one with identity")?,
        (None, None) => return Err("a node without bearers needs an identity".into()),
    };
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    // Wall-clock time, so that sessions grow across restarts.
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let units = since_epoch.as_millis() / SESSION_UNIT.as_millis();
    Ok(NodeConfig {
        id: NodeId(identity.0),
        net_id: config.cluster_id,
        random: u64::from_ne_bytes(random),
        session_base: units as u16,
        receive_buffer: config.receive_buffer,
        start: Instant(start_ns),
    })
}
