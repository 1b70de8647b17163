//! The classifier on real interfaces: a bridge that floods, an occupied interface, dead owners.
//!
//! Each test builds its own lab of two network namespaces and needs root. The lab:
//!
//! ```text
//!   namespace "…-net"                            namespace "…-host"
//!   sender ── port0 ┐
//!   third  ── port1 ├ bridge, floods everything
//!             port2 ┘─────────────────────────── eth0   <- the classifier
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with, sockopt,
};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities,
};
use xtipc_ebpf::{
    AttachError, AttachMode, Classifier, Interface, LoadError, OccupantMode, PROGRAM_NAME,
    QueueCounters, rx_vlan_offload,
};

const TIPC: u16 = 0x88ca;
const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x22];
const THIRD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x33];
/// Set in the process that only holds an attachment until it is killed.
const HOLDER: &str = "XTIPC_TEST_HOLDS_NAMESPACE";
const MODES: [AttachMode; 2] = [AttachMode::Native, AttachMode::Generic];

#[test]
fn frames_flooded_for_another_host_go_to_the_kernel() {
    let Some(lab) = Lab::new("flood") else { return };
    let sender = lab.sender();
    lab.enter_host();
    for mode in MODES {
        let mut classifier = attached(mode);
        let kernel = packet_socket();
        // Bound to the queue, but without buffers: what is redirected to it vanishes.
        let socket = xdp_socket();
        classifier.insert_socket(0, &socket).unwrap();

        for number in 0..10 {
            sender.send(THIRD_MAC, number);
            assert_eq!(receive(&kernel), Some(number), "{mode}");
        }
        assert_eq!(
            sum(&classifier),
            QueueCounters {
                passed_foreign_mac: 10,
                ..sum_of_none()
            }
        );

        sender.send(HOST_MAC, 100);
        sender.send([0xff; 6], 101);
        assert_eq!(receive(&kernel), None, "{mode}: ours are taken");
        let expected = QueueCounters {
            passed_foreign_mac: 10,
            redirected: 2,
            ..sum_of_none()
        };
        assert_eq!(sum(&classifier), expected, "{mode}");
    }
}

#[test]
fn a_changed_address_is_followed_on_the_running_interface() {
    let Some(lab) = Lab::new("address") else {
        return;
    };
    let sender = lab.sender();
    lab.enter_host();
    let mut classifier = attached(AttachMode::Generic);
    let kernel = packet_socket();
    lab.host_ip(&format!("link set eth0 address {}", text(THIRD_MAC)));
    classifier
        .set_mac(Interface::query("eth0").unwrap().mac.unwrap())
        .unwrap();
    sender.send(THIRD_MAC, 1);
    assert_eq!(receive(&kernel), Some(1));
    sender.send(HOST_MAC, 2);
    assert_eq!(receive(&kernel), Some(2));
    let expected = QueueCounters {
        no_socket: 1,
        passed_foreign_mac: 1,
        ..sum_of_none()
    };
    assert_eq!(sum(&classifier), expected);
}

#[test]
fn an_interface_occupied_by_xtipc_is_refused_with_the_programs_name() {
    let Some(lab) = Lab::new("twice") else { return };
    lab.enter_host();
    let held = [
        (AttachMode::Native, OccupantMode::Native),
        (AttachMode::Generic, OccupantMode::Generic),
    ];
    for (mode, found) in held {
        let _first = attached(mode);
        for second in MODES {
            let refused = Classifier::load()
                .unwrap()
                .attach("eth0", second)
                .unwrap_err();
            let AttachError::Occupied {
                interface,
                occupant,
            } = &refused
            else {
                panic!("{mode} then {second}: {refused}");
            };
            assert_eq!(interface, "eth0");
            assert_eq!(occupant.program_name.as_deref(), Some(PROGRAM_NAME));
            assert_eq!(occupant.mode, found);
            assert!(
                lab.shown()
                    .contains(&format!("prog/xdp id {}", occupant.program_id))
            );
            assert!(
                refused.to_string().contains("eth0") && refused.to_string().contains(PROGRAM_NAME)
            );
        }
    }
}

#[test]
fn a_foreign_program_is_refused_at_once_and_left_in_place() {
    let Some(lab) = Lab::new("foreign") else {
        return;
    };
    lab.enter_host();
    let object = foreign_program(&lab.host);
    lab.host_ip(&format!(
        "link set dev eth0 xdpgeneric obj {} sec xdp",
        object.display()
    ));
    std::fs::remove_file(object).unwrap();

    let mut classifier = Classifier::load().unwrap();
    let begin = Instant::now();
    let refused = classifier.attach("eth0", AttachMode::Generic).unwrap_err();
    let waited = begin.elapsed();
    assert!(
        waited < Duration::from_secs(2),
        "a foreign program is not waited for: {waited:?}"
    );
    let AttachError::Occupied { occupant, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(occupant.program_name.as_deref(), Some("foreign_program"));
    assert!(lab.shown().contains("prog/xdp"), "it stays");
}

#[test]
fn one_classifier_serves_one_interface() {
    let Some(lab) = Lab::new("single") else {
        return;
    };
    lab.enter_host();
    let mut classifier = attached(AttachMode::Generic);
    let refused = classifier.attach("eth0", AttachMode::Generic).unwrap_err();
    assert!(
        matches!(refused, AttachError::AlreadyAttached { .. }),
        "{refused}"
    );
    classifier.detach();
    classifier.attach("eth0", AttachMode::Native).unwrap();
}

#[test]
fn interfaces_that_cannot_carry_a_classifier_are_refused_by_name() {
    let Some(lab) = Lab::new("unfit") else { return };
    lab.enter_host();
    let mut classifier = Classifier::load().unwrap();
    let unknown = classifier
        .attach("no-such-device", AttachMode::Native)
        .unwrap_err();
    assert!(
        matches!(&unknown, AttachError::UnknownInterface { interface } if interface == "no-such-device")
    );
    let loopback = classifier.attach("lo", AttachMode::Generic).unwrap_err();
    assert!(
        matches!(loopback, AttachError::NotEthernet { .. }),
        "{loopback}"
    );
    lab.host_ip("link add plain0 type bridge");
    let no_driver_support = classifier.attach("plain0", AttachMode::Native).unwrap_err();
    assert!(
        matches!(
            &no_driver_support,
            AttachError::ModeRefused {
                mode: AttachMode::Native,
                ..
            }
        ),
        "{no_driver_support}"
    );
    classifier.attach("plain0", AttachMode::Generic).unwrap();
}

#[test]
fn dropping_or_detaching_gives_the_interface_back_to_the_kernel() {
    let Some(lab) = Lab::new("drop") else { return };
    let sender = lab.sender();
    lab.enter_host();
    let kernel = packet_socket();
    let socket = xdp_socket();
    for (number, mode) in (0..).zip(MODES) {
        let mut classifier = attached(mode);
        classifier.insert_socket(0, &socket).unwrap();
        assert!(lab.shown().contains("prog/xdp"));
        sender.send(HOST_MAC, number);
        assert_eq!(receive(&kernel), None, "{mode}: taken while attached");

        drop(classifier);
        lab.assert_released();
        sender.send(HOST_MAC, number + 10);
        assert_eq!(
            receive(&kernel),
            Some(number + 10),
            "{mode}: left to the kernel afterwards"
        );

        let mut classifier = attached(mode);
        classifier.detach();
        lab.assert_released();
    }
}

#[test]
fn a_killed_owner_leaves_nothing_behind() {
    if let Ok(namespace) = std::env::var(HOLDER) {
        hold_until_killed(&namespace);
    }
    let Some(lab) = Lab::new("kill") else { return };
    let sender = lab.sender();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_killed_owner_leaves_nothing_behind",
            "--nocapture",
        ])
        .env(HOLDER, &lab.host)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("attached")),
        "the owner attaches"
    );
    lab.enter_host();
    assert!(lab.shown().contains("prog/xdp"));

    owner.kill().unwrap();
    // At once, before the dead process is collected: its attachment is waited for.
    let successor = attached(AttachMode::Native);
    owner.wait().unwrap();
    drop(successor);
    lab.assert_released();
    let kernel = packet_socket();
    sender.send(HOST_MAC, 7);
    assert_eq!(receive(&kernel), Some(7));
}

#[test]
fn loading_without_cap_bpf_is_refused_by_that_name() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs capabilities to drop");
        return;
    }
    // Capabilities belong to the thread, so the other tests keep theirs.
    let mut sets = capabilities(None).unwrap();
    sets.effective
        .remove(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets).unwrap();
    let Err(refused) = Classifier::load() else {
        panic!("loaded without CAP_BPF");
    };
    let LoadError::NotPermitted { missing } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(missing, "missing: CAP_BPF");
}

#[test]
fn vlan_offload_is_reported_per_interface() {
    let Some(lab) = Lab::new("offload") else {
        return;
    };
    lab.enter_host();
    assert!(rx_vlan_offload("eth0").unwrap(), "veth starts with it on");
    lab.host_ip("link add plain0 type bridge");
    assert!(
        !rx_vlan_offload("plain0").unwrap(),
        "a bridge has no such feature"
    );
    let unknown = rx_vlan_offload("no-such-device").unwrap_err();
    assert_eq!(unknown.kind(), std::io::ErrorKind::NotFound);
}

/// The other process of `a_killed_owner_leaves_nothing_behind`.
fn hold_until_killed(namespace: &str) -> ! {
    enter(namespace);
    let _classifier = attached(AttachMode::Native);
    println!("attached");
    std::io::stdout().flush().unwrap();
    sleep(Duration::from_secs(60));
    panic!("nobody killed the owner");
}

/// A classifier on `eth0` of the present namespace that takes untagged frames.
fn attached(mode: AttachMode) -> Classifier {
    let mut classifier = Classifier::load().unwrap();
    classifier.allow_vlan(0).unwrap();
    classifier.attach("eth0", mode).unwrap();
    classifier
}

/// All queues together. What else the kernel receives is of no interest here.
fn sum(classifier: &Classifier) -> QueueCounters {
    classifier
        .counters()
        .unwrap()
        .iter()
        .fold(sum_of_none(), |sum, queue| QueueCounters {
            redirected: sum.redirected + queue.redirected,
            passed_foreign_mac: sum.passed_foreign_mac + queue.passed_foreign_mac,
            passed_vlan: sum.passed_vlan + queue.passed_vlan,
            no_socket: sum.no_socket + queue.no_socket,
            ..sum
        })
}

fn sum_of_none() -> QueueCounters {
    QueueCounters::default()
}

/// Two namespaces joined by a flooding bridge, deleted at the end of the test.
struct Lab {
    net: String,
    host: String,
}

impl Lab {
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces and XDP need root");
            return None;
        }
        let unique = format!("xtipc-{name}-{}", std::process::id());
        let lab = Self {
            net: format!("{unique}-net"),
            host: format!("{unique}-host"),
        };
        for namespace in [&lab.net, &lab.host] {
            ip(&format!("netns add {namespace}"));
            // No IPv6 chatter that would teach the bridge addresses or add to the counters.
            let conf = "/proc/sys/net/ipv6/conf";
            let off =
                format!("echo 1 >{conf}/all/disable_ipv6 && echo 1 >{conf}/default/disable_ipv6");
            let status = Command::new("ip")
                .args(["netns", "exec", namespace, "sh", "-c", &off])
                .status()
                .expect("ip runs");
            assert!(status.success(), "IPv6 cannot be switched off");
        }
        // An ageing time of zero: the bridge never learns, so it floods.
        lab.net_ip("link add bridge type bridge ageing_time 0 forward_delay 0");
        lab.net_ip("link add port0 type veth peer name sender");
        lab.net_ip("link add port1 type veth peer name third");
        lab.net_ip(&format!(
            "link add port2 type veth peer name eth0 netns {}",
            lab.host
        ));
        lab.net_ip(&format!("link set third address {}", text(THIRD_MAC)));
        lab.host_ip(&format!("link set eth0 address {} up", text(HOST_MAC)));
        for port in ["port0", "port1", "port2"] {
            lab.net_ip(&format!("link set {port} master bridge up"));
        }
        for device in ["bridge", "sender", "third"] {
            lab.net_ip(&format!("link set {device} up"));
        }
        Some(lab)
    }

    fn net_ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.net));
    }

    fn host_ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.host));
    }

    /// Moves the calling thread into the namespace of the host under test.
    fn enter_host(&self) {
        enter(&self.host);
    }

    fn sender(&self) -> Sender {
        enter(&self.net);
        let socket = packet_socket();
        let index = Interface::query("sender").unwrap().index;
        bind_to_device(&socket, index);
        Sender(socket)
    }

    /// What `ip link show` prints of the host's interface.
    fn shown(&self) -> String {
        let shown = Command::new("ip")
            .args(["-n", &self.host, "link", "show", "eth0"])
            .output()
            .unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }

    /// The kernel may release an attachment a little after its owner.
    fn assert_released(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.shown().contains("xdp") {
            assert!(
                Instant::now() < deadline,
                "still attached: {}",
                self.shown()
            );
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.net, &self.host] {
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .status();
        }
    }
}

/// Sends TIPC frames into the bridge.
struct Sender(OwnedFd);

impl Sender {
    fn send(&self, destination: [u8; 6], number: u8) {
        let mut frame = Vec::from(destination);
        frame.extend([0x02, 0, 0, 0, 0, 0x44]);
        frame.extend(TIPC.to_be_bytes());
        frame.extend([number; 50]);
        assert_eq!(
            send(&self.0, &frame, SendFlags::empty()).unwrap(),
            frame.len()
        );
    }
}

/// A packet socket for TIPC frames of all interfaces in the present namespace. It sees a received
/// frame only after XDP passed it.
fn packet_socket() -> OwnedFd {
    let protocol = Protocol::from_raw(u32::from(TIPC.to_be()).try_into().unwrap());
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )
    .unwrap();
    let patience = Duration::from_millis(200);
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience)).unwrap();
    socket
}

/// The number in the next frame the kernel received; `None` when there is none for a while.
fn receive(socket: &OwnedFd) -> Option<u8> {
    let mut frame = [0; 128];
    match recv(socket, &mut frame[..], RecvFlags::empty()) {
        Ok((size, _)) => Some(frame[..size][14]),
        Err(rustix::io::Errno::AGAIN) => None,
        Err(error) => panic!("{error}"),
    }
}

/// An AF_XDP socket bound to queue 0 of `eth0`, without any receive buffers.
fn xdp_socket() -> OwnedFd {
    const CHUNK: usize = 4096;
    let area = Vec::leak(vec![0_u8; 2 * CHUNK]);
    let socket = socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let umem = XdpUmemReg {
        addr: area.as_ptr().addr().next_multiple_of(CHUNK) as u64,
        len: CHUNK as u64,
        chunk_size: CHUNK.try_into().unwrap(),
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(&socket, umem).unwrap();
    sockopt::set_xdp_umem_fill_ring_size(&socket, 2).unwrap();
    sockopt::set_xdp_umem_completion_ring_size(&socket, 2).unwrap();
    sockopt::set_xdp_rx_ring_size(&socket, 2).unwrap();
    let index = Interface::query("eth0").unwrap().index;
    bind(
        &socket,
        &SocketAddrXdp::new(SocketAddrXdpFlags::empty(), index, 0),
    )
    .unwrap();
    socket
}

fn bind_to_device(socket: &OwnedFd, index: u32) {
    // SAFETY: all zeros are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET.try_into().unwrap();
    address.sll_protocol = TIPC.to_be();
    address.sll_ifindex = index.try_into().unwrap();
    let size = size_of_val(&address).try_into().unwrap();
    // SAFETY: `address` is a socket address of `size` bytes that lives through the call.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Compiles an XDP program that is not ours.
fn foreign_program(unique: &str) -> PathBuf {
    let object = std::env::temp_dir().join(format!("{unique}.o"));
    let mut clang = Command::new("clang")
        .args(["-target", "bpfel", "-O2", "-g", "-x", "c", "-c", "-", "-o"])
        .arg(&object)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let source =
        b"__attribute__((section(\"xdp\"), used)) int foreign_program(void *frame) { return 2; }";
    clang.stdin.take().unwrap().write_all(source).unwrap();
    assert!(clang.wait().unwrap().success());
    object
}

fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(done.success(), "ip {arguments}");
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
