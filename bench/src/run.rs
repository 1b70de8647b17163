//! The measuring process: rounds of steps, with a calibration around each step.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::calibrator::{self, Calibration, calibrate};
use crate::child::{Worker, own_program};
use crate::daemon::{Daemons, Settings};
use crate::environment::Environment;
use crate::judge::{Figure, Measured, PAIRS_MIN, Round, Verdict};
use crate::lab::Lab;
use crate::part::{FINISH, Part, Role};
use crate::plan::{COMPARISONS, Kind, Stage, Step, select};
use crate::rate::{Flow, Received, Sent};
use crate::report::Report;
use crate::session;
use crate::subject::{SIZE_MIN, Subject};

/// Options of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds; ratios are judged from 5 undisturbed pairs on
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// While pairs are lacking because the machine was disturbed, at most so many rounds
    #[arg(long, default_value_t = 15)]
    rounds_max: usize,
    /// Only steps whose names contain this word, repeatable: `--only rate --only xtipc`
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Fail if a goal is missed, or cannot be judged
    #[arg(long)]
    check: bool,
    /// Also write everything to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Bytes of a message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// MTU of the interfaces
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// Milliseconds that a step measures, 1 to 1000, after a tenth of it to warm up
    #[arg(long, default_value_t = 400, value_name = "MS")]
    burst: u64,
    /// Processors of the two nodes: of each daemon and its application
    #[arg(long, default_value = "0,1", value_delimiter = ',', num_args = 2)]
    cpus: Vec<usize>,
    /// What an idle worker of the daemon does: busy, adaptive or sleep
    #[arg(long, default_value = "adaptive")]
    policy: String,
    /// The daemon [default: xtipcd beside this program]
    #[arg(long, value_name = "PROGRAM")]
    xtipcd: Option<PathBuf>,
    /// Where the daemons' directories are made
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
}

impl Options {
    /// As they were given.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        std::env::args().skip(2).collect()
    }

    fn cpus(&self) -> Result<[usize; 2]> {
        let cpus = <[usize; 2]>::try_from(&self.cpus[..]);
        let [first, second] = cpus.ok().context("--cpus: two processors, as in 0,1")?;
        ensure!(
            first != second,
            "--cpus {first},{second}: two different ones"
        );
        Ok([first, second])
    }

    fn check(&self) -> Result<()> {
        let size_max = self.mtu as usize - 100;
        ensure!(
            (SIZE_MIN..=size_max).contains(&self.size),
            "--size {}: {SIZE_MIN} to {size_max} bytes, so that a message fits into a packet",
            self.size
        );
        ensure!(
            (1..=1000).contains(&self.burst),
            "--burst {}: 1 to 1000 milliseconds",
            self.burst
        );
        ensure!(self.rounds > 0, "--rounds 0: at least one");
        Ok(())
    }

    fn program(&self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let program = self
            .xtipcd
            .clone()
            .unwrap_or_else(|| own.with_file_name("xtipcd"));
        ensure!(
            program.exists(),
            "{} does not exist: build xtipcd or name it by --xtipcd",
            program.display()
        );
        Ok(program)
    }
}

/// The hidden command `measure`.
pub(crate) fn measure(options: &Options) -> Result<()> {
    let autogroup_nice = session::begin()?;
    options.check()?;
    let steps = select(&options.only);
    ensure!(
        !steps.is_empty(),
        "--only {}: no step has this in its name",
        options.only.join(" --only ")
    );
    let cpus = options.cpus()?;
    let mut bench = Bench {
        lab: Lab::new(options.mtu)?,
        daemons: None,
        options,
        directory: options.directory.clone().context("no --directory")?,
        cpus,
        environment: Environment::record(cpus, autogroup_nice),
    };
    let mut rounds = Vec::new();
    while rounds.len() < options.rounds || bench.lacks_pairs(&rounds) {
        rounds.push(bench.round(&steps)?);
        eprint!("\rround {}", rounds.len());
    }
    eprint!("\r");
    bench.set_stage(Stage::Bare)?;
    let report = Report::new(bench.environment, options.size, steps, rounds);
    report.print();
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if options.check {
        report.check()?;
    }
    Ok(())
}

struct Bench<'a> {
    lab: Lab,
    /// Those of the present stage.
    daemons: Option<Daemons>,
    options: &'a Options,
    directory: PathBuf,
    cpus: [usize; 2],
    environment: Environment,
}

impl Bench<'_> {
    /// Whether a goal cannot be judged yet, but by more rounds.
    fn lacks_pairs(&self, rounds: &[Round]) -> bool {
        let goals = COMPARISONS.iter().filter(|c| c.goal.is_some());
        let verdicts = goals.filter_map(|goal| Verdict::of(*goal, rounds));
        self.options.rounds >= PAIRS_MIN
            && rounds.len() < self.options.rounds_max
            && verdicts.into_iter().any(|verdict| !verdict.is_sound())
    }

    fn round(&mut self, steps: &[Step]) -> Result<Round> {
        self.set_stage(steps[0].stage)?;
        let calibration_before_ns = self.calibrate()?;
        let mut measured = Vec::new();
        for &step in steps {
            self.set_stage(step.stage)?;
            let figure = match step.kind {
                Kind::RoundTrip => self.round_trip(step),
                Kind::Rate => self.rate(step),
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
        calibrate(self.cpus, calibrator::DURATION)
    }

    /// Starts and stops daemons as a stage needs them.
    fn set_stage(&mut self, stage: Stage) -> Result<()> {
        let settings = match stage {
            Stage::Bare => None,
            Stage::Bundling | Stage::Single => Some(Settings {
                program: self.options.program()?,
                directory: self.directory.clone(),
                cpus: self.cpus,
                policy: self.options.policy.clone(),
                bundling: stage == Stage::Bundling,
            }),
        };
        if self.daemons.as_ref().map(|daemons| &daemons.settings) == settings.as_ref() {
            return Ok(());
        }
        if let Some(daemons) = self.daemons.take() {
            daemons.stop()?;
        }
        if let Some(settings) = settings {
            let daemons = Daemons::start(&self.lab, &settings)?;
            self.environment.bearer_mode = Some(daemons.mode()?);
            self.daemons = Some(daemons);
        }
        Ok(())
    }

    fn part(&self, step: Step, role: Role) -> Result<Worker> {
        let side = match role {
            Role::Ask | Role::Send => 0,
            Role::Echo | Role::Receive => 1,
        };
        let burst = Duration::from_millis(self.options.burst);
        let daemons = self.daemons.as_ref();
        let part = Part {
            role,
            subject: step.subject,
            wait: step.wait,
            size: self.options.size,
            side,
            cpu: self.cpus[side],
            namespace: self.lab.process(side),
            attach_socket: daemons.map(|daemons| daemons.attach_socket(side)),
            warm_up: burst / 10,
            duration: burst,
        };
        let mut command = own_program("part")?;
        command.arg(serde_json::to_string(&part)?);
        Worker::start(&format!("{role:?} of {step}"), command)
    }

    fn round_trip(&self, step: Step) -> Result<Figure> {
        let _echo = self.part(step, Role::Echo)?;
        let mut ask = self.part(step, Role::Ask)?;
        Ok(Figure::Times(ask.answer()?))
    }

    fn rate(&self, step: Step) -> Result<Figure> {
        let packets = || match &self.daemons {
            Some(daemons) => daemons.tx_packets(0).map(Some),
            None => Ok(None),
        };
        let mut receive = self.part(step, Role::Receive)?;
        let before = packets()?;
        let mut send = self.part(step, Role::Send)?;
        let sent: Sent = send.answer()?;
        receive.tell(FINISH)?;
        let received: Received = receive.answer()?;
        let packets = packets()?.zip(before).map(|(after, before)| after - before);
        let flow = Flow::of(sent, received, packets).context("too few messages came")?;
        // RDM between nodes whose link stays up loses and doubles nothing.
        if step.subject == Subject::Xtipc && (flow.lost > 0 || flow.out_of_order > 0) {
            bail!("xtipc lost, doubled or reordered messages: {flow:?}");
        }
        Ok(Figure::Flow(flow))
    }
}
