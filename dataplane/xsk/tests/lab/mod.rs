//! Two network namespaces joined by a veth pair, and the smallest XDP program that feeds a socket.

use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::process::Command;
use xtipc_xsk::XskSocket;
use xtipc_xsk::interface::Interface;

/// TIPC's.
pub(crate) const TEST_ETHERTYPE: u16 = 0x88ca;

/// Lives as long as its namespaces. Everything else of the host is untouched; the test's thread is
/// moved between the namespaces and ends with the test.
pub(crate) struct Lab {
    namespaces: [String; 2],
    interfaces: [String; 2],
}

impl Lab {
    /// `None`, with the reason printed, where that is not allowed.
    pub(crate) fn new(tag: &str, mtu: u32, queues: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to make network namespaces");
            return None;
        }
        let unique = format!("{tag}{}", std::process::id());
        let lab = Self {
            namespaces: [0, 1].map(|side| format!("xtipc-xsk-{unique}-{side}")),
            interfaces: [0, 1].map(|side| format!("x{unique}{side}")),
        };
        let ([ns0, ns1], [if0, if1]) = (&lab.namespaces, &lab.interfaces);
        ip(&format!("netns add {ns0}"));
        ip(&format!("netns add {ns1}"));
        ip(&format!(
            "-n {ns0} link add {if0} mtu {mtu} address 02:00:00:00:00:00 numrxqueues {queues} numtxqueues {queues} \
             type veth peer name {if1} mtu {mtu} address 02:00:00:00:00:01 \
             numrxqueues {queues} numtxqueues {queues} netns {ns1}"
        ));
        for side in 0..2 {
            lab.set_link(side, "up");
        }
        Some(lab)
    }

    /// Moves the calling thread into a side's network namespace.
    pub(crate) fn enter(&self, side: usize) {
        let namespace = File::open(format!("/run/netns/{}", self.namespaces[side])).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// The side's interface; the thread must have entered the side.
    pub(crate) fn interface(&self, side: usize) -> Interface {
        Interface::query(&self.interfaces[side]).unwrap()
    }

    pub(crate) fn set_link(&self, side: usize, state: &str) {
        ip(&format!(
            "-n {} link set {} {state}",
            self.namespaces[side], self.interfaces[side]
        ));
    }

    pub(crate) fn delete_pair(&mut self) {
        ip(&format!(
            "-n {} link del {}",
            self.namespaces[0], self.interfaces[0]
        ));
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

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;

/// `bpf(2)` with attributes given as 32-bit words.
fn bpf(command: libc::c_long, attributes: &[u32; 32]) -> libc::c_long {
    let len = size_of_val(attributes);
    // SAFETY: the kernel reads `len` bytes; the addresses inside are of live data (see the callers).
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), len) }
}

fn bpf_fd(what: &str, command: libc::c_long, attributes: &[u32; 32]) -> OwnedFd {
    let fd = bpf(command, attributes);
    assert!(fd >= 0, "{what}: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else has.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// The address as two words of attributes, low one first (little endian, as all test machines are).
fn address<T: ?Sized>(of: &T) -> [u32; 2] {
    let address = (&raw const *of).addr() as u64;
    [address as u32, (address >> 32) as u32]
}

fn attributes(words: &[(usize, u32)]) -> [u32; 32] {
    let mut attributes = [0; 32];
    for &(index, word) in words {
        attributes[index] = word;
    }
    attributes
}

/// An XDP program in generic mode: every packet goes to the socket of its queue, or on to the kernel.
pub(crate) struct Program {
    map: OwnedFd,
    /// Detaches when it is closed.
    _link: OwnedFd,
}

impl Program {
    pub(crate) fn attach(ifindex: u32, frags: bool) -> Self {
        // map_type, key_size, value_size, max_entries.
        let sizes = attributes(&[(0, BPF_MAP_TYPE_XSKMAP), (1, 4), (2, 4), (3, 64)]);
        let map = bpf_fd("making an XSKMAP", BPF_MAP_CREATE, &sizes);
        let instruction = |code: u64, dst: u64, src: u64, offset: u64, value: u64| {
            code | dst << 8 | src << 12 | offset << 16 | value << 32
        };
        let code = [
            instruction(0x61, 2, 1, 16, 0), // r2 = ctx->rx_queue_index
            instruction(0x18, 1, 1, 0, map.as_raw_fd() as u64), // r1 = the map,
            0,                              //      high half
            instruction(0xb7, 3, 0, 0, 2),  // r3 = XDP_PASS
            instruction(0x85, 0, 0, 0, 51), // r0 = bpf_redirect_map(r1, r2, r3)
            instruction(0x95, 0, 0, 0, 0),  // return r0
        ];
        let license = c"Dual MIT/GPL";
        let [code_low, code_high] = address(&code);
        let [license_low, license_high] = address(license);
        let flags = if frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
        // prog_type, insn_cnt, insns, license, …, prog_flags at byte 44.
        let load = attributes(&[
            (0, BPF_PROG_TYPE_XDP),
            (1, code.len() as u32),
            (2, code_low),
            (3, code_high),
            (4, license_low),
            (5, license_high),
            (11, flags),
        ]);
        let program = bpf_fd("loading the XDP program", BPF_PROG_LOAD, &load);
        // prog_fd, target_ifindex, attach_type, flags.
        let link = attributes(&[
            (0, program.as_raw_fd() as u32),
            (1, ifindex),
            (2, BPF_XDP),
            (3, XDP_FLAGS_SKB_MODE),
        ]);
        Self {
            map,
            _link: bpf_fd("attaching the XDP program", BPF_LINK_CREATE, &link),
        }
    }

    /// Gives the packets of a queue to a socket.
    pub(crate) fn steer(&self, queue: u32, socket: &XskSocket) {
        let value = socket.as_fd().as_raw_fd() as u32;
        let ([key_low, key_high], [value_low, value_high]) = (address(&queue), address(&value));
        // map_fd, (padding), key, value, flags.
        let update = attributes(&[
            (0, self.map.as_raw_fd() as u32),
            (2, key_low),
            (3, key_high),
            (4, value_low),
            (5, value_high),
        ]);
        let result = bpf(BPF_MAP_UPDATE_ELEM, &update);
        assert!(
            result == 0,
            "steering queue {queue}: {}",
            std::io::Error::last_os_error()
        );
    }
}
