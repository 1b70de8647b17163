//! Two xtipcd, one on each side, with a link between them, or more. Each has a process of ours beside it, on its host, that
//! started it and tells what it is asked.

use std::fs;
use std::io::BufRead;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use xtipc_management::{BearerMode, Client, Status};

use crate::child::{Worker, die_with_parent, own_program, say_ready, terminate};
use crate::ground::Ground;

/// How long a link may take: the trial of the node address is one second of it.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// Many nodes share their processors.
const LINK_PATIENCE_EACH: Duration = Duration::from_millis(500);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// With what the daemons are started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The program; on another host that beside the serving program.
    pub(crate) program: Option<PathBuf>,
    /// The processor of the worker of the first side, and of all others.
    pub(crate) cpus: [usize; 2],
    /// What an idle worker does.
    pub(crate) policy: String,
    /// Whether messages may share a packet.
    pub(crate) bundling: bool,
    /// Which way packets take, as the daemon's key `xdp` says it.
    pub(crate) mode: Mode,
    /// Of the interfaces.
    pub(crate) mtu: u32,
}

/// See [`Settings::mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// What the daemon chooses.
    Auto,
    Native,
    Generic,
}

impl Mode {
    const fn key(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What one of ours is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) side: usize,
    /// A process in the network namespace of the side, if that is not the present one.
    pub(crate) namespace: Option<u32>,
    pub(crate) bearer: String,
    pub(crate) run_directory: PathBuf,
}

/// What one of ours tells.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Which way the packets take.
    pub(crate) mode: BearerMode,
    /// Packets sent.
    pub(crate) tx_packets: u64,
    /// Of the frame pool: all, and those in nobody's hands.
    pub(crate) frames: u32,
    pub(crate) frames_free: u32,
    /// Messages of its applications that went by direct channels, and all that could have.
    pub(crate) sent_directly: u64,
    pub(crate) may_go_directly: u64,
    /// Time on a processor so far, of all threads.
    pub(crate) processor_ns: u64,
    /// Resident memory that is not shared with other processes, and with them.
    pub(crate) private_bytes: u64,
    pub(crate) resident_bytes: u64,
}

/// See the module. The daemons are killed on drop; [`Daemons::stop`] is the orderly end.
pub(crate) struct Daemons {
    keepers: Vec<Worker>,
}

/// Before the number of peers to which there are to be links.
const LINKS: &str = "links ";
const STATE: &str = "state";
const STOP: &str = "stop";

impl Daemons {
    /// Starts both and waits for their link.
    pub(crate) fn start(ground: &Ground, settings: &Settings) -> Result<Self> {
        let mut daemons = Self::start_on(ground, 0..2, settings)?;
        (0..2).try_for_each(|side| daemons.await_links(side, 1))?;
        Ok(daemons)
    }

    /// Starts those of some sides.
    pub(crate) fn start_on(
        ground: &Ground,
        sides: Range<usize>,
        settings: &Settings,
    ) -> Result<Self> {
        let keepers = sides.map(|side| {
            let setup = Setup {
                settings: settings.clone(),
                side,
                namespace: ground.namespace(side),
                bearer: ground.bearer(side),
                run_directory: ground.run_directory(side),
            };
            ground.start(side, "daemon", &serde_json::to_string(&setup)?)
        });
        let keepers = keepers.collect::<Result<_>>()?;
        Ok(Self { keepers })
    }

    /// Waits until a side, counted from the first of these, has links to so many peers.
    pub(crate) fn await_links(&mut self, side: usize, peers: usize) -> Result<()> {
        let linked = self.ask(side, &format!("{LINKS}{peers}"));
        linked.with_context(|| format!("the daemon of side {side} has no link"))?;
        Ok(())
    }

    fn ask(&mut self, side: usize, what: &str) -> Result<State> {
        self.keepers[side].tell(what)?;
        self.keepers[side].answer()
    }

    /// How a side is now.
    pub(crate) fn state(&mut self, side: usize) -> Result<State> {
        self.ask(side, STATE)
    }

    /// Stops both; a daemon that does not end in order is an error, since it counts its frames at its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        for keeper in &mut self.keepers {
            keeper.tell(STOP)?;
            let in_order: bool = keeper.answer()?;
            ensure!(in_order, "an xtipcd did not end in order");
        }
        Ok(())
    }
}

/// The hidden command `daemon`.
pub(crate) fn keep(setup: &str) -> Result<()> {
    die_with_parent()?;
    let setup: Setup = serde_json::from_str(setup)?;
    let mut daemon = start(&setup)?;
    let control = setup.run_directory.join("control.sock");
    say_ready();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.as_str() {
            line if line.starts_with(LINKS) => {
                let peers = line[LINKS.len()..].parse()?;
                serde_json::to_string(&await_links(&mut daemon, &control, peers)?)?
            }
            STATE => serde_json::to_string(&state(&daemon, &control)?)?,
            STOP => serde_json::to_string(&terminate(&mut daemon, STOP_PATIENCE)?.success())?,
            other => bail!("told to `{other}`"),
        };
        println!("{answer}");
    }
    Ok(())
}

fn start(setup: &Setup) -> Result<Child> {
    let settings = &setup.settings;
    let program = match &settings.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("xtipcd"),
    };
    ensure!(
        program.exists(),
        "{} does not exist: build xtipcd or name it by --xtipcd",
        program.display()
    );
    let namespace = setup.namespace.unwrap_or_else(std::process::id);
    let mut command = own_program("enter")?;
    command.arg(namespace.to_string()).arg("--").arg(&program);
    command
        .args(["--config", "/dev/null", "--log", "warn"])
        .arg("--run-dir")
        .arg(&setup.run_directory)
        .args(["--identity", &format!("bench-{}", setup.side)])
        .args(["--bearer", &setup.bearer])
        .args(["--cpus", &settings.cpus[setup.side.min(1)].to_string()])
        .args(["--policy", &settings.policy])
        .args(["--xdp", settings.mode.key()]);
    if !settings.bundling {
        command.args(["--bundling", "false"]);
    }
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn await_links(daemon: &mut Child, control: &Path, peers: usize) -> Result<State> {
    let deadline = Instant::now() + LINK_PATIENCE + LINK_PATIENCE_EACH * peers as u32;
    loop {
        if let Some(status) = daemon.try_wait()? {
            bail!("the daemon ended: {status}");
        }
        let status = ask(control);
        let linked = |status: &Status| {
            let up = status.peers.iter().filter(|peer| peer.links_up > 0);
            up.count() >= peers
        };
        if status.as_ref().is_ok_and(linked) {
            return state(daemon, control);
        }
        ensure!(
            Instant::now() < deadline,
            "no links to {peers} peers in time: {status:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn ask(control: &Path) -> Result<Status> {
    Ok(*Client::connect(control)?.status()?)
}

fn state(daemon: &Child, control: &Path) -> Result<State> {
    let status = ask(control)?;
    let bearer = status.bearers.first();
    let attachments = status.attachments.iter();
    let process = PathBuf::from(format!("/proc/{}", daemon.id()));
    let memory = fs::read_to_string(process.join("smaps_rollup"))?;
    Ok(State {
        mode: bearer.context("the daemon has no bearer any more")?.mode,
        tx_packets: status.bearers.iter().map(|bearer| bearer.tx_packets).sum(),
        frames: status.frames.total,
        frames_free: status.frames.free,
        sent_directly: attachments.clone().map(|a| a.sent_directly).sum(),
        may_go_directly: attachments.map(|a| a.may_go_directly).sum(),
        processor_ns: processor_time(Pid::from_raw(daemon.id() as i32))?,
        private_bytes: kibibytes(&memory, "Private_Clean:") + kibibytes(&memory, "Private_Dirty:"),
        resident_bytes: kibibytes(&memory, "Rss:"),
    })
}

/// Of all threads, those that have ended too, in nanoseconds.
fn processor_time(process: Pid) -> Result<u64> {
    let time = clock_getcpuclockid(process)?.now()?;
    Ok(Duration::from(time).as_nanos() as u64)
}

/// The value of a line in bytes.
fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_text() {
        let text = "5600-7ffd ---p 00:00 0 [rollup]\nRss:              1764 kB\nPrivate_Dirty:     120 kB\n";
        assert_eq!(kibibytes(text, "Rss:"), 1764 << 10);
        assert_eq!(kibibytes(text, "Private_Dirty:"), 120 << 10);
        assert_eq!(kibibytes(text, "Private_Clean:"), 0);
    }

    #[test]
    fn the_own_processor_time_grows() {
        let own = Pid::this();
        let before = processor_time(own).unwrap();
        // A thread that ends takes its time with it from the list of threads.
        let busy = || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(20) {}
        };
        thread::spawn(busy).join().unwrap();
        assert!(processor_time(own).unwrap() > before);
    }
}
