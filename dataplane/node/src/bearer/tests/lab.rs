//! Two network namespaces joined by a veth pair, for bearers at both ends.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xtipc_xsk::interface::Interface;

use crate::config::BearerSpec;

/// The interface in each namespace.
pub(in crate::bearer) const INTERFACE: &str = "eth0";
/// The address of side 0; the last byte of side 1 is one more.
pub(in crate::bearer) const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

static LABS: AtomicU32 = AtomicU32::new(0);

/// Lives as long as its namespaces. The test's own thread is moved between them and ends with the test.
pub(in crate::bearer) struct Lab {
    namespaces: [String; 2],
}

impl Lab {
    /// `None`, with the reason printed, where that is not allowed.
    pub(in crate::bearer) fn new(mtu: u32, queues: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to make network namespaces");
            return None;
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let unique = format!("xtipc-bearer-{}-{number}", std::process::id());
        let lab = Self {
            namespaces: [0, 1].map(|side| format!("{unique}-{side}")),
        };
        let [ns0, ns1] = &lab.namespaces;
        ip(&format!("netns add {ns0}"));
        ip(&format!("netns add {ns1}"));
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!(
            "-n {ns0} link add {INTERFACE} mtu {mtu} address 02:00:00:00:00:01 {queues} \
             type veth peer name {INTERFACE} mtu {mtu} address 02:00:00:00:00:02 {queues} netns {ns1}"
        ));
        for side in 0..2 {
            lab.set_link(side, "up");
        }
        for side in 0..2 {
            lab.enter(side);
            // The kernel tells the carrier a moment later.
            let deadline = Instant::now() + Duration::from_secs(5);
            while !Interface::query(INTERFACE).unwrap().running {
                assert!(Instant::now() < deadline, "no carrier on a new veth pair");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Some(lab)
    }

    /// Moves the calling thread into a side's network namespace.
    pub(in crate::bearer) fn enter(&self, side: usize) {
        let namespace = File::open(format!("/run/netns/{}", self.namespaces[side])).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    pub(in crate::bearer) fn set_link(&self, side: usize, change: &str) {
        self.ip(side, &format!("link set dev {INTERFACE} {change}"));
    }

    pub(super) fn delete_pair(&self) {
        self.ip(0, &format!("link del {INTERFACE}"));
    }

    pub(super) fn ip(&self, side: usize, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.namespaces[side]))
    }

    /// What may be refused.
    pub(super) fn try_ip(&self, side: usize, arguments: &str) -> bool {
        let arguments = format!("-n {} {arguments}", self.namespaces[side]);
        let output = Command::new("ip")
            .args(arguments.split_whitespace())
            .output();
        output.unwrap().status.success()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // Also takes the veth pair along. Nothing to be done if it fails, least of all in a panic.
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
        }
    }
}

pub(super) fn spec(interface: &str) -> BearerSpec {
    BearerSpec {
        interface: interface.into(),
        ..BearerSpec::default()
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
