//! The measuring process: rounds of steps, with a calibration around each step.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::calibrator::{self, Calibration, calibrate};
use crate::child::Worker;
use crate::cluster;
use crate::daemon::{Daemons, Mode, Settings, State};
use crate::environment::{Environment, InterfaceFacts};
use crate::extent::Extent;
use crate::goals::{COMPARISONS, Comparison, OF_INSTRUCTIONS};
use crate::ground::{Ground, Hosts};
use crate::html;
use crate::judge::{Cost, Figure, Frames, Measured, PAIRS_MIN, Round, Verdict};
use crate::lab::Lab;
use crate::method::Method;
use crate::options::Options;
use crate::output;
use crate::part::{FINISH, Part, Role};
use crate::rate::{Flow, Received, Sent};
use crate::report::Report;
use crate::serve;
use crate::session;
use crate::step::{Kind, Place, Stage, Step, Surroundings};
use crate::subject::{Subject, kernel_tipc};

/// Between requests of what is paced: 10,000 a second, far below what any subject here can do.
const INTERVAL: Duration = Duration::from_micros(100);
/// An idle daemon does something every now and then only.
const IDLE_BURSTS: u32 = 5;
/// Links have said all that is to be said at their beginning.
const SETTLE_AMONG_PEERS: Duration = Duration::from_secs(2);
/// In a load.
const LOOKS_AT_FRAMES: u32 = 4;
/// The binding of a kernel's socket reaches the other node within this time.
const SETTLE: Duration = Duration::from_millis(300);

/// The hidden command `measure`.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let autogroup_nice = session::begin()?;
    let cpus = options.cpus;
    let directory = options.directory.clone().context("no --directory")?;
    let mut environment = Environment::record(cpus, autogroup_nice);
    let ground = match options.peer {
        None => Ground::Lab(Lab::new()?, directory),
        Some(peer) => {
            let bearer = options.bearer.as_ref();
            let bearer = bearer.context("--peer needs --bearer")?;
            let own = serve::describe(bearer, directory, environment.clone())?;
            environment.interface = Some(InterfaceFacts::record(&own.interface));
            Ground::Hosts(Box::new(Hosts::meet(peer, own)?))
        }
    };
    let selected = options.steps()?;
    let mut bench = Bench {
        present: (Stage::Bare, crate::step::MTU, false),
        ground,
        daemons: None,
        options,
        cpus,
        environment,
    };
    let (mut steps, mut left_out) = (Vec::new(), Vec::new());
    for step in selected {
        match bench.obstacle(step) {
            None => steps.push(step),
            Some(why) => left_out.push((step.to_string(), why.to_owned())),
        }
    }
    ensure!(
        !steps.is_empty(),
        "nothing of it can be measured here: {left_out:?}"
    );
    let mut rounds = Vec::new();
    let (begun, limit) = (Instant::now(), Duration::from_secs(60 * options.minutes));
    let mut longest = Duration::ZERO;
    while rounds.len() < options.rounds() || bench.lacks_pairs(&rounds) {
        let before = begun.elapsed();
        if !rounds.is_empty() && before + longest > limit {
            eprintln!(
                "no further round would end within {} minutes (--minutes)",
                options.minutes
            );
            break;
        }
        rounds.push(bench.round(&steps)?);
        longest = longest.max(begun.elapsed() - before);
        eprint!("\rround {}", rounds.len());
    }
    eprintln!();
    bench.set_stage((Stage::Bare, crate::step::MTU, false))?;
    let needed = bench.pairs_needed();
    let other = match &bench.ground {
        Ground::Hosts(hosts) => Some(hosts.other.environment.clone()),
        Ground::Lab(..) => None,
    };
    let comparisons = bench.comparisons();
    let mut report = Report::new(
        bench.environment,
        Method::of(options),
        steps,
        rounds,
        comparisons,
        needed,
    );
    (report.other_host, report.left_out) = (other, left_out);
    report.print();
    // One that cannot be written does not take the other one along.
    let json = options.json.as_ref().map_or(Ok(()), |file| {
        output::write(file, &(serde_json::to_string(&report)? + "\n"))
    });
    let html = options
        .html
        .as_ref()
        .map_or(Ok(()), |file| output::write(file, &html::page(&report)));
    json.and(html)?;
    if options.check {
        report.check()?;
    }
    Ok(())
}

struct Bench<'a> {
    /// What stands on the wire.
    present: Surroundings,
    ground: Ground,
    /// Those of the present stage.
    daemons: Option<Daemons>,
    options: &'a Options,
    cpus: [usize; 2],
    environment: Environment,
}

impl Bench<'_> {
    fn comparisons(&self) -> &'static [Comparison] {
        match self.options.operations {
            None => &COMPARISONS,
            Some(_) => &OF_INSTRUCTIONS,
        }
    }

    const fn pairs_needed(&self) -> usize {
        match self.options.operations {
            None => PAIRS_MIN,
            Some(_) => 1,
        }
    }

    /// Why a step cannot be measured here.
    fn obstacle(&self, step: Step) -> Option<&'static str> {
        let (raw, ip) = self.ground.has_addresses();
        let between_hosts = matches!(self.ground, Ground::Hosts(_));
        if step.stage == Stage::Kernel && between_hosts {
            Some("the kernel's TIPC is not set up on other hosts")
        } else if step.stage == Stage::Kernel && !kernel_tipc::is_there() {
            Some("this kernel has no TIPC")
        } else if let Some(lack) = step.subject.lacks_feature() {
            Some(lack)
        } else if !self.ground.allows_mtu(step.mtu) {
            Some("the MTU of the interface between two hosts is left as it is")
        } else if between_hosts && matches!(step.stage, Stage::Native | Stage::Generic) {
            Some("a driver may not grant that mode")
        } else if between_hosts && (step.place != Place::Apart || step.kind == Kind::Peers) {
            Some("it is inside of one host")
        } else if !raw && step.subject.needs_ethernet() {
            Some("the interface of one of the hosts has no Ethernet address")
        } else if !ip && step.subject.needs_ipv4() {
            Some("the interface of one of the hosts has no IPv4 address")
        } else {
            None
        }
    }

    /// Whether a goal cannot be judged yet, but by more rounds.
    fn lacks_pairs(&self, rounds: &[Round]) -> bool {
        let goals = self.comparisons().iter().filter(|c| c.goal.is_some());
        let needed = self.pairs_needed();
        let verdicts = goals.filter_map(|goal| Verdict::of(*goal, rounds, needed));
        self.options.rounds() >= needed
            && rounds.len() < self.options.rounds_max
            && verdicts.into_iter().any(|verdict| !verdict.is_sound())
    }

    fn round(&mut self, steps: &[Step]) -> Result<Round> {
        self.set_stage(steps[0].surroundings())?;
        let calibration_before = self.calibrate()?;
        let mut measured = Vec::new();
        for &step in steps {
            self.set_stage(step.surroundings())?;
            let figure = match step.kind {
                Kind::RoundTrip | Kind::Paced => self.round_trip(step),
                Kind::Rate => self.rate(step).map(Figure::Flow),
                Kind::Load => self.load(step),
                Kind::Idle => self.idle(step),
                Kind::Peers => self.peers(step),
                Kind::Cluster => Ok(Figure::Share(cluster::idle_share(step.copies))),
            };
            measured.push(Measured {
                step,
                figure: figure.with_context(|| step.to_string())?,
                calibration_after: self.calibrate()?,
            });
        }
        Ok(Round {
            calibration_before,
            measured,
        })
    }

    fn calibrate(&self) -> Result<Calibration> {
        match self.options.operations {
            None => calibrate(self.cpus, calibrator::DURATION),
            Some(_) => Ok(Calibration::NONE),
        }
    }

    /// Starts and stops daemons, or the kernel's TIPC, as a stage needs them.
    fn set_stage(&mut self, surroundings: Surroundings) -> Result<()> {
        let (stage, mtu, _) = surroundings;
        if self.present == surroundings {
            return Ok(());
        }
        if let Some(daemons) = self.daemons.take() {
            daemons.stop()?;
        }
        if let (Stage::Kernel, Ground::Lab(lab, _)) = (self.present.0, &self.ground) {
            lab.set_kernel_tipc(false)?;
        }
        if self.present.1 != mtu {
            self.ground.set_mtu(mtu)?;
        }
        match (stage, &self.ground) {
            (Stage::Kernel, Ground::Lab(lab, _)) => lab.set_kernel_tipc(true)?,
            (Stage::Bare | Stage::Kernel, _) => {}
            (Stage::Bundling | Stage::Single | Stage::Native | Stage::Generic, ground) => {
                let settings = self.settings(surroundings);
                let mut daemons = Daemons::start(ground, &settings)?;
                if settings.mode == Mode::Auto {
                    self.environment.bearer_mode = Some(daemons.state(0)?.mode);
                }
                self.daemons = Some(daemons);
            }
        }
        self.present = surroundings;
        Ok(())
    }

    /// Of daemons.
    fn settings(&self, (stage, mtu, crowded): Surroundings) -> Settings {
        Settings {
            program: self.options.xtipcd.clone(),
            cpus: if crowded {
                [self.cpus[0]; 2]
            } else {
                self.cpus
            },
            policy: self.options.policy.clone(),
            bundling: stage != Stage::Single,
            mode: match stage {
                Stage::Native => Mode::Native,
                Stage::Generic => Mode::Generic,
                _ => Mode::Auto,
            },
            mtu,
        }
    }

    const fn extent(&self) -> Extent {
        match self.options.operations {
            None => Extent::Lasting(Duration::from_millis(self.options.burst)),
            Some(operations) => Extent::Counted(operations),
        }
    }

    fn part(&self, step: Step, role: Role) -> Result<Worker> {
        // Those that only answer or receive.
        let far = matches!(role, Role::Echo | Role::EchoUrgently | Role::Receive);
        let [near_cpu, far_cpu] = match step.place {
            Place::Apart | Place::Together => self.cpus,
            Place::OneProcessor | Place::Crowded => [self.cpus[0]; 2],
        };
        let side = usize::from(far && step.place.is_apart());
        let part = Part {
            role,
            step,
            cpus: if far {
                [far_cpu, near_cpu]
            } else {
                [near_cpu, far_cpu]
            },
            namespace: self.ground.namespace(side),
            wire: self.ground.wire(side, step.place),
            side,
            run_directory: self.ground.run_directory(side),
            attach_socket: step
                .subject
                .needs_daemons()
                .then(|| self.ground.attach_socket(side)),
            extent: self.extent(),
            interval: (step.kind == Kind::Paced).then_some(INTERVAL),
        };
        let started = self
            .ground
            .start(side, "part", &serde_json::to_string(&part)?);
        started.with_context(|| format!("{role:?}"))
    }

    fn round_trip(&self, step: Step) -> Result<Figure> {
        if step.subject.is_alone() {
            let mut itself = self.part(step, Role::AskItself)?;
            return Ok(Figure::Times(itself.answer()?));
        }
        let beside = (step.copies > 1).then(|| self.part(step, Role::Hold));
        let _beside = beside.transpose()?;
        let _echo = self.part(step, Role::Echo)?;
        let mut ask = self.part(step, Role::Ask)?;
        Ok(Figure::Times(ask.answer()?))
    }

    /// Of the sending side's daemon, if there is one.
    fn state(&mut self) -> Result<Option<State>> {
        let daemons = self.daemons.as_mut();
        daemons.map(|daemons| daemons.state(0)).transpose()
    }

    fn rate(&mut self, step: Step) -> Result<Flow> {
        if step.subject.is_alone() {
            let mut itself = self.part(step, Role::SendItself)?;
            let (sent, received): (Sent, Received) = itself.answer()?;
            return Flow::of(sent, received, 1, None).context("too few messages came");
        }
        let mut receive = self.part(step, Role::Receive)?;
        if step.subject == Subject::KernelTipc {
            std::thread::sleep(SETTLE);
        }
        let before = self.state()?;
        let mut send = self.part(step, Role::Send)?;
        let sent: Sent = send.answer()?;
        receive.tell(FINISH)?;
        let received: Received = receive.answer()?;
        let states = before.zip(self.state()?);
        let packets = states.map(|(before, after)| after.tx_packets - before.tx_packets);
        let packets = packets.filter(|_| step.place.is_apart());
        let flow = match self.options.operations {
            None => Flow::of(sent, received, step.copies, packets),
            Some(_) => Flow::whole(sent, received, packets),
        };
        let mut flow = flow.context("too few messages came")?;
        // The sender is still there, and is the only one of its daemon that has sent anything.
        flow.direct = states
            .filter(|(_, after)| after.may_go_directly > 0)
            .map(|(_, after)| after.sent_directly as f64 / after.may_go_directly as f64);
        // Between nodes whose link stays up nothing is lost or doubled.
        // A short message says too little of its number where many were rejected in a row.
        let is_in_order =
            flow.out_of_order == 0 || flow.returned > 0 && step.size < size_of::<u64>();
        let accounted = flow.lost == 0 && is_in_order && !flow.is_doubled(step.copies);
        if step.subject.is_reliable() && !accounted {
            bail!("xtipc lost, doubled or reordered messages: {flow:?}");
        }
        Ok(flow)
    }

    fn load(&mut self, step: Step) -> Result<Figure> {
        let _echo = self.part(step, Role::EchoUrgently)?;
        let mut receive = self.part(step, Role::Receive)?;
        let senders = (0..step.copies).map(|_| self.part(step, Role::Send));
        let mut senders = senders.collect::<Result<Vec<_>>>()?;
        let mut ask = self.part(step, Role::AskUrgently)?;
        let mut frames = self.frames()?;
        for _ in 0..LOOKS_AT_FRAMES {
            std::thread::sleep(Duration::from_millis(self.options.burst) / (LOOKS_AT_FRAMES + 1));
            let now = self.frames()?;
            for side in 0..2 {
                frames.free_least[side] = frames.free_least[side].min(now.free_after[side]);
            }
        }
        let urgent = ask.answer()?;
        let mut all = Sent::default();
        for sender in &mut senders {
            let sent: Sent = sender.answer()?;
            all.messages += sent.messages;
            all.returned += sent.returned;
        }
        receive.tell(FINISH)?;
        let flow = Flow::of(all, receive.answer()?, 1, None).context("too few messages came")?;
        ensure!(
            flow.lost == 0 && !flow.is_doubled(1),
            "messages vanished or came twice: {flow:?}"
        );
        frames.free_after = self.frames()?.free_after;
        Ok(Figure::Load {
            flow,
            urgent,
            frames,
        })
    }

    /// Now.
    fn frames(&mut self) -> Result<Frames> {
        let daemons = self.daemons.as_mut().context("there is no daemon")?;
        let states = [daemons.state(0)?, daemons.state(1)?];
        let free = states.map(|state| state.frames_free);
        Ok(Frames {
            total: states.map(|state| state.frames),
            free_least: free,
            free_after: free,
        })
    }

    /// A daemon alone, and then among others on a bridge.
    fn peers(&mut self, step: Step) -> Result<Figure> {
        let surroundings = (Stage::Bundling, step.mtu, false);
        let Ground::Lab(_, directory) = &self.ground else {
            bail!("peers are in namespaces");
        };
        let all = step.copies + 1;
        let ground = Ground::Lab(Lab::segment(all)?, directory.clone());
        let settings = self.settings(surroundings);
        let mut own = Daemons::start_on(&ground, 0..1, &settings)?;
        own.await_links(0, 0)?;
        // Until it has freed what only its start needs.
        std::thread::sleep(SETTLE_AMONG_PEERS);
        let alone = own.state(0)?;
        let others = Daemons::start_on(&ground, 1..all, &settings)?;
        own.await_links(0, step.copies)?;
        std::thread::sleep(SETTLE_AMONG_PEERS);
        let (processor_share, among) = self.idle_share(&mut own)?;
        others.stop()?;
        own.stop()?;
        Ok(Figure::Cost(Cost {
            processor_share,
            private_bytes: alone.private_bytes,
            resident_bytes: among.resident_bytes,
            added_bytes: among.private_bytes.saturating_sub(alone.private_bytes),
        }))
    }

    /// Of a processor that the first daemon takes, and how it is then.
    fn idle_share(&self, daemons: &mut Daemons) -> Result<(f64, State)> {
        let before = daemons.state(0)?;
        let begun = Instant::now();
        std::thread::sleep(IDLE_BURSTS * Duration::from_millis(self.options.burst));
        let after = daemons.state(0)?;
        let spent = (after.processor_ns - before.processor_ns) as f64;
        Ok((spent / begun.elapsed().as_nanos() as f64, after))
    }

    /// First a new daemon alone, for some steps' time, then with sockets.
    fn idle(&mut self, step: Step) -> Result<Figure> {
        self.set_stage((Stage::Bare, step.mtu, false))?;
        self.set_stage(step.surroundings())?;
        let mut daemons = self.daemons.take().context("there is no daemon")?;
        let (processor_share, after) = self.idle_share(&mut daemons)?;
        self.daemons = Some(daemons);
        let _holder = self.part(step, Role::Hold)?;
        let daemons = self.daemons.as_mut().context("there is no daemon")?;
        let full = daemons.state(0)?;
        Ok(Figure::Cost(Cost {
            processor_share,
            private_bytes: after.private_bytes,
            resident_bytes: after.resident_bytes,
            added_bytes: full.private_bytes.saturating_sub(after.private_bytes),
        }))
    }
}
