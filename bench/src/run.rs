//! The measuring process: rounds of steps, with a calibration around each step.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::calibrator::{self, Calibration, calibrate};
use crate::child::Worker;
use crate::cluster;
use crate::daemon::{Daemons, Mode, Settings, State};
use crate::environment::{Environment, InterfaceFacts};
use crate::extent::Extent;
use crate::goals::{COMPARISONS, Comparison, OF_INSTRUCTIONS};
use crate::ground::{Description, Ground, Hosts};
use crate::html;
use crate::judge::{Cost, Figure, Measured, PAIRS_MIN, Round, Verdict};
use crate::lab::Lab;
use crate::options::Options;
use crate::part::{FINISH, Part, Role};
use crate::plan::select;
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
/// The binding of a kernel's socket reaches the other node within this time.
const SETTLE: Duration = Duration::from_millis(300);

/// The hidden command `measure`.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let autogroup_nice = session::begin()?;
    options.check()?;
    let cpus = options.cpus()?;
    let directory = options.directory.clone().context("no --directory")?;
    let mut environment = Environment::record(cpus, autogroup_nice);
    let ground = match options.peer {
        None => Ground::Lab(Lab::new()?, directory),
        Some(peer) => {
            let bearer = options.bearer.as_deref();
            let bearer = bearer.context("--peer needs --bearer eth:INTERFACE")?;
            let own = Description {
                directory,
                ..serve::describe(bearer, environment.clone())?
            };
            environment.interface = Some(InterfaceFacts::record(&own.interface));
            Ground::Hosts(Box::new(Hosts::meet(peer, own)?))
        }
    };
    let sets = options.sets();
    let selected = select(&sets, &options.only);
    ensure!(
        !selected.is_empty(),
        "--only {}: no step has this in its name",
        options.only.join(" --only ")
    );
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
    while rounds.len() < options.rounds || bench.lacks_pairs(&rounds) {
        rounds.push(bench.round(&steps)?);
        eprint!("\rround {}", rounds.len());
    }
    eprint!("\r");
    bench.set_stage((Stage::Bare, crate::step::MTU, false))?;
    let needed = bench.pairs_needed();
    let other = match &bench.ground {
        Ground::Hosts(hosts) => Some(hosts.other.environment.clone()),
        Ground::Lab(..) => None,
    };
    let comparisons = bench.comparisons();
    let counted = options.operations.is_some();
    let mut report = Report::new(bench.environment, steps, rounds, comparisons, needed);
    (report.other_host, report.left_out, report.counted) = (other, left_out, counted);
    report.print();
    if let Some(file) = &options.json {
        write(file, &(serde_json::to_string(&report)? + "\n"))?;
    }
    if let Some(file) = &options.html {
        write(file, &html::page(&report))?;
    }
    if options.check {
        report.check()?;
    }
    Ok(())
}

fn write(file: &PathBuf, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
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
        } else if between_hosts && step.place != Place::Apart {
            Some("it is inside of one host")
        } else {
            None
        }
    }

    /// Whether a goal cannot be judged yet, but by more rounds.
    fn lacks_pairs(&self, rounds: &[Round]) -> bool {
        let goals = self.comparisons().iter().filter(|c| c.goal.is_some());
        let needed = self.pairs_needed();
        let verdicts = goals.filter_map(|goal| Verdict::of(*goal, rounds, needed));
        self.options.rounds >= needed
            && rounds.len() < self.options.rounds_max
            && verdicts.into_iter().any(|verdict| !verdict.is_sound())
    }

    fn round(&mut self, steps: &[Step]) -> Result<Round> {
        self.set_stage(steps[0].surroundings())?;
        let calibration_before_ns = self.calibrate()?;
        let mut measured = Vec::new();
        for &step in steps {
            self.set_stage(step.surroundings())?;
            let figure = match step.kind {
                Kind::RoundTrip | Kind::Paced => self.round_trip(step),
                Kind::Rate => self.rate(step).map(Figure::Flow),
                Kind::Load => self.load(step),
                Kind::Idle => self.idle(step),
                Kind::Cluster => Ok(Figure::Share(cluster::idle_share(step.copies))),
            };
            measured.push(Measured {
                step,
                figure: figure.with_context(|| step.to_string())?,
                calibration_after_ns: self.calibrate()?,
            });
        }
        Ok(Round {
            calibration_before_ns,
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
        let (stage, mtu, crowded) = surroundings;
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
                let settings = Settings {
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
                };
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
        if step.subject.is_reliable() && (flow.lost > 0 || flow.out_of_order > 0) {
            bail!("xtipc lost, doubled or reordered messages: {flow:?}");
        }
        Ok(flow)
    }

    fn load(&self, step: Step) -> Result<Figure> {
        let _echo = self.part(step, Role::EchoUrgently)?;
        let mut receive = self.part(step, Role::Receive)?;
        let senders = (0..step.copies).map(|_| self.part(step, Role::Send));
        let mut senders = senders.collect::<Result<Vec<_>>>()?;
        let mut ask = self.part(step, Role::AskUrgently)?;
        let urgent = ask.answer()?;
        let mut all = Sent::default();
        for sender in &mut senders {
            let sent: Sent = sender.answer()?;
            all.messages += sent.messages;
            all.returned += sent.returned;
        }
        receive.tell(FINISH)?;
        let flow = Flow::of(all, receive.answer()?, 1, None).context("too few messages came")?;
        ensure!(flow.lost == 0, "messages vanished: {flow:?}");
        Ok(Figure::Load { flow, urgent })
    }

    /// First a new daemon alone, for some steps' time, then with sockets.
    fn idle(&mut self, step: Step) -> Result<Figure> {
        self.set_stage((Stage::Bare, step.mtu, false))?;
        self.set_stage(step.surroundings())?;
        let daemons = self.daemons.as_mut().context("there is no daemon")?;
        let before = daemons.state(0)?;
        let begun = std::time::Instant::now();
        std::thread::sleep(IDLE_BURSTS * Duration::from_millis(self.options.burst));
        let after = daemons.state(0)?;
        let spent = (after.processor_ns - before.processor_ns) as f64;
        let processor_share = spent / begun.elapsed().as_nanos() as f64;
        let _holder = self.part(step, Role::Hold)?;
        let daemons = self.daemons.as_mut().context("there is no daemon")?;
        let full = daemons.state(0)?;
        Ok(Figure::Cost(Cost {
            processor_share,
            private_bytes: after.private_bytes,
            resident_bytes: after.resident_bytes,
            sockets_bytes: full.private_bytes.saturating_sub(after.private_bytes),
        }))
    }
}
