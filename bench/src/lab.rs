//! Two network namespaces joined by one veth pair, or more of them on a bridge.
//!
//! Nothing of it has a name in the file system: each namespace is held by a process that dies with the run, and the
//! interfaces go with their namespaces. So no end of the run, not even SIGKILL, leaves anything behind.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use core_affinity::CoreId;
use nix::sched::CloneFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::child::{Worker, die_with_parent, own_program, say_ready};
use crate::step::MTU;
use crate::wire::Wire;

/// Name of the interface on each side.
pub(crate) const INTERFACE: &str = "eth0";
/// Its IP address.
const ADDRESSES: [std::net::Ipv4Addr; 2] = [
    std::net::Ipv4Addr::new(10, 0, 0, 1),
    std::net::Ipv4Addr::new(10, 0, 0, 2),
];

/// Its Ethernet address, by side.
const fn mac_of(side: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, side as u8 + 1]
}

/// The namespaces, as long as this lives.
pub(crate) struct Lab {
    holders: Vec<Worker>,
}

impl Lab {
    pub(crate) fn new() -> Result<Self> {
        let lab = Self::namespaces(2)?;
        let [mac0, mac1] = [0, 1].map(|side| mac_text(mac_of(side)));
        lab.ip(
            0,
            &format!(
                "link add {INTERFACE} address {mac0} mtu {MTU} \
                 type veth peer name {INTERFACE} address {mac1} mtu {MTU} netns {}",
                lab.process(1)
            ),
        )?;
        for side in 0..2 {
            let [own, other] = [ADDRESSES[side], ADDRESSES[1 - side]];
            // Without IPv6 addresses there are no frames but those of the measurements.
            lab.ip(side, &format!("link set {INTERFACE} addrgenmode none"))?;
            lab.ip(side, &format!("addr add {own}/24 dev {INTERFACE}"))?;
            lab.ip(side, "link set lo up")?;
            lab.ip(side, &format!("link set {INTERFACE} up"))?;
            let mac = mac_text(mac_of(1 - side));
            lab.ip(
                side,
                &format!("neigh add {other} lladdr {mac} dev {INTERFACE}"),
            )?;
        }
        Ok(lab)
    }

    fn namespaces(count: usize) -> Result<Self> {
        let holder = |n| Worker::start(&format!("namespace {n}"), own_program("hold")?);
        let holders = (0..count).map(holder).collect::<Result<_>>()?;
        Ok(Self { holders })
    }

    /// So many sides on one segment: a bridge in a namespace of its own, the last one.
    pub(crate) fn segment(sides: usize) -> Result<Self> {
        let lab = Self::namespaces(sides + 1)?;
        let bridge = sides;
        lab.ip(bridge, "link add segment type bridge mcast_snooping 0")?;
        lab.ip(bridge, "link set segment addrgenmode none")?;
        lab.ip(bridge, "link set segment up")?;
        for side in 0..sides {
            let (mac, place) = (mac_text(mac_of(side)), lab.process(bridge));
            lab.ip(
                side,
                &format!(
                    "link add {INTERFACE} address {mac} mtu {MTU} type veth peer name port{side} mtu {MTU} netns {place}"
                ),
            )?;
            lab.ip(side, &format!("link set {INTERFACE} addrgenmode none"))?;
            lab.ip(side, &format!("link set {INTERFACE} up"))?;
            lab.ip(bridge, &format!("link set port{side} addrgenmode none"))?;
            lab.ip(bridge, &format!("link set port{side} master segment up"))?;
        }
        Ok(lab)
    }

    /// A process in the namespace of a side.
    pub(crate) fn process(&self, side: usize) -> u32 {
        let process = self.holders[side].id();
        process.expect("the holders are processes of this host")
    }

    /// The wire as a side sees it.
    pub(crate) fn wire(&self, side: usize) -> Wire {
        Wire {
            bearer: format!("eth:{INTERFACE}"),
            interface: INTERFACE.into(),
            mac: mac_of(side),
            peer_mac: mac_of(1 - side),
            peer: ADDRESSES[1 - side],
        }
    }

    pub(crate) fn set_mtu(&self, mtu: u32) -> Result<()> {
        (0..2).try_for_each(|side| self.ip(side, &format!("link set {INTERFACE} mtu {mtu}")))
    }

    /// Gives the kernel's TIPC the wire, or takes it away.
    pub(crate) fn set_kernel_tipc(&self, enabled: bool) -> Result<()> {
        for side in 0..2 {
            if enabled {
                self.run(side, "tipc", &format!("node set identity bench-{side}"))?;
            }
            let change = if enabled { "enable" } else { "disable" };
            self.run(
                side,
                "tipc",
                &format!("bearer {change} media eth device {INTERFACE}"),
            )?;
        }
        Ok(())
    }

    /// A command that runs in the namespace of a side and dies with this process.
    fn command(&self, side: usize, program: &str) -> Result<Command> {
        let mut command = own_program("enter")?;
        command
            .arg(self.process(side).to_string())
            .args(["--", program]);
        Ok(command)
    }

    fn ip(&self, side: usize, arguments: &str) -> Result<()> {
        self.run(side, "ip", arguments)
    }

    fn run(&self, side: usize, program: &str, arguments: &str) -> Result<()> {
        let output = self
            .command(side, program)?
            .args(arguments.split_whitespace())
            .output()?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments}: {problem}");
        Ok(())
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The hidden command `hold`.
pub(crate) fn hold() -> Result<()> {
    die_with_parent()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace: this needs root")?;
    say_ready();
    // Until the run closes its end.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Moves this process, which has one thread, into the network namespace of another.
pub(crate) fn enter(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {path}"))
}

/// The hidden command `enter`.
pub(crate) fn enter_and_execute(pid: u32, command: &[String]) -> Result<()> {
    die_with_parent()?;
    enter(pid)?;
    let [program, arguments @ ..] = command else {
        anyhow::bail!("no program is named");
    };
    let failure = Command::new(program).args(arguments).exec();
    Err(failure).with_context(|| format!("cannot execute {program}"))
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    ensure!(
        core_affinity::set_for_current(CoreId { id: cpu }),
        "cannot pin a thread to processor {cpu}: is it there, and allowed?"
    );
    Ok(())
}
