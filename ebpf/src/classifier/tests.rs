//! Frame by frame through `BPF_PROG_TEST_RUN`: verdict and counter of each. Nothing is attached.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use aya::programs::{TestRun, TestRunOptions};
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

const PASS: u32 = 2;
const REDIRECT: u32 = 4;

const OWN: [u8; 6] = [0x02, 0, 0, 0, 0, 0x11];
const FOREIGN: [u8; 6] = [0x02, 0, 0, 0, 0, 0x12];
const BROADCAST: [u8; 6] = [0xff; 6];
const MULTICAST: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];

const TIPC: [u8; 2] = [0x88, 0xca];
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const DOT1Q: [u8; 2] = [0x81, 0x00];
const DOT1AD: [u8; 2] = [0x88, 0xa8];

const ZERO: QueueCounters = QueueCounters {
    queue: 0,
    redirected: 0,
    passed_other: 0,
    passed_foreign_mac: 0,
    passed_vlan: 0,
    no_socket: 0,
};
const REDIRECTED: (u32, QueueCounters) = (
    REDIRECT,
    QueueCounters {
        redirected: 1,
        ..ZERO
    },
);
const OTHER: (u32, QueueCounters) = (
    PASS,
    QueueCounters {
        passed_other: 1,
        ..ZERO
    },
);
const FOREIGN_MAC: (u32, QueueCounters) = (
    PASS,
    QueueCounters {
        passed_foreign_mac: 1,
        ..ZERO
    },
);
const OTHER_VLAN: (u32, QueueCounters) = (
    PASS,
    QueueCounters {
        passed_vlan: 1,
        ..ZERO
    },
);
const NO_SOCKET: (u32, QueueCounters) = (
    PASS,
    QueueCounters {
        no_socket: 1,
        ..ZERO
    },
);

/// A classifier that knows our address, and takes untagged frames and VLAN 100.
fn classifier() -> Option<Classifier> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: loading a classifier needs root");
        return None;
    }
    let mut classifier = Classifier::load().unwrap();
    classifier.set_mac(OWN).unwrap();
    classifier.allow_vlan(0).unwrap();
    classifier.allow_vlan(100).unwrap();
    Some(classifier)
}

/// The same with a socket for queue 0, which must outlive the test's frames.
fn classifier_with_socket() -> Option<(Classifier, OwnedFd)> {
    let mut classifier = classifier()?;
    let socket = socket();
    classifier.insert_socket(0, &socket).unwrap();
    Some((classifier, socket))
}

/// An AF_XDP socket, set up just as far as the socket map asks for. It never receives anything:
/// a test run only asks for the verdict.
fn socket() -> OwnedFd {
    const CHUNK: usize = 4096;
    let area = Vec::leak(vec![0_u8; 2 * CHUNK]);
    let start = (area.as_ptr().addr()).next_multiple_of(CHUNK);
    let socket = socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let umem = XdpUmemReg {
        addr: start as u64,
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
    socket
}

/// A frame to `destination` with these ethertypes and tags in order, and a TIPC-sized body.
fn frame(destination: [u8; 6], parts: &[[u8; 2]]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(destination);
    frame.extend([0x02, 0, 0, 0, 0, 0x99]);
    frame.extend(parts.concat());
    frame.extend([0x5a; 60]);
    frame
}

fn vlan(id: u16) -> [u8; 2] {
    id.to_be_bytes()
}

fn run(classifier: &mut Classifier, frame: &[u8]) -> Result<u32, ProgramError> {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::new()
    };
    Ok(program(&mut classifier.object)
        .test_run(options)?
        .return_value)
}

/// Verdict on the frame, and by how much each counter of queue 0 went up.
fn judge(classifier: &mut Classifier, frame: &[u8]) -> (u32, QueueCounters) {
    let before = classifier.queue_counters(0).unwrap();
    let verdict = run(classifier, frame).unwrap();
    let after = classifier.queue_counters(0).unwrap();
    let counted = QueueCounters {
        queue: 0,
        redirected: after.redirected - before.redirected,
        passed_other: after.passed_other - before.passed_other,
        passed_foreign_mac: after.passed_foreign_mac - before.passed_foreign_mac,
        passed_vlan: after.passed_vlan - before.passed_vlan,
        no_socket: after.no_socket - before.no_socket,
    };
    (verdict, counted)
}

#[test]
fn tipc_frames_for_this_host_are_redirected_and_no_others() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    let cases: &[(&str, Vec<u8>, (u32, QueueCounters))] = &[
        ("own address", frame(OWN, &[TIPC]), REDIRECTED),
        ("broadcast", frame(BROADCAST, &[TIPC]), REDIRECTED),
        ("multicast", frame(MULTICAST, &[TIPC]), REDIRECTED),
        (
            "another host's address",
            frame(FOREIGN, &[TIPC]),
            FOREIGN_MAC,
        ),
        ("IPv4", frame(OWN, &[IPV4]), OTHER),
        ("IPv4 for another host", frame(FOREIGN, &[IPV4]), OTHER),
        ("ARP broadcast", frame(BROADCAST, &[ARP]), OTHER),
        ("length instead of ethertype", frame(OWN, &[[0, 60]]), OTHER),
        (
            "TIPC's ethertype in the body",
            frame(OWN, &[IPV4, TIPC, TIPC]),
            OTHER,
        ),
        (
            "TIPC's ethertype with swapped bytes",
            frame(OWN, &[[0xca, 0x88]]),
            OTHER,
        ),
        (
            "a tag, but without its ethertype",
            frame(OWN, &[vlan(100), TIPC]),
            OTHER,
        ),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(judge(&mut classifier, frame), *expected, "{name}");
    }
}

#[test]
fn an_address_is_compared_in_every_byte() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    classifier
        .set_mac([0x02, 0x81, 0x92, 0xa3, 0xb4, 0xc5])
        .unwrap();
    let own = frame([0x02, 0x81, 0x92, 0xa3, 0xb4, 0xc5], &[TIPC]);
    assert_eq!(judge(&mut classifier, &own), REDIRECTED);
    for byte in 0..6 {
        let mut foreign = own.clone();
        foreign[byte] ^= 0x40;
        assert_eq!(judge(&mut classifier, &foreign), FOREIGN_MAC, "byte {byte}");
    }
}

#[test]
fn a_vlan_is_taken_exactly_when_it_is_configured() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    let cases: &[(&str, Vec<u8>, (u32, QueueCounters))] = &[
        (
            "configured",
            frame(OWN, &[DOT1Q, vlan(100), TIPC]),
            REDIRECTED,
        ),
        (
            "configured, with priority",
            frame(OWN, &[DOT1Q, vlan(0xe000 | 100), TIPC]),
            REDIRECTED,
        ),
        (
            "configured, broadcast",
            frame(BROADCAST, &[DOT1Q, vlan(100), TIPC]),
            REDIRECTED,
        ),
        (
            "configured, another host",
            frame(FOREIGN, &[DOT1Q, vlan(100), TIPC]),
            FOREIGN_MAC,
        ),
        (
            "configured, IPv4",
            frame(OWN, &[DOT1Q, vlan(100), IPV4]),
            OTHER,
        ),
        (
            "not configured",
            frame(OWN, &[DOT1Q, vlan(101), TIPC]),
            OTHER_VLAN,
        ),
        (
            "same bit of another word",
            frame(OWN, &[DOT1Q, vlan(100 + 64), TIPC]),
            OTHER_VLAN,
        ),
        (
            "not configured, another host",
            frame(FOREIGN, &[DOT1Q, vlan(7), TIPC]),
            OTHER_VLAN,
        ),
        (
            "reserved id",
            frame(OWN, &[DOT1Q, vlan(4095), TIPC]),
            OTHER_VLAN,
        ),
        (
            "priority only",
            frame(OWN, &[DOT1Q, vlan(0x6000), TIPC]),
            REDIRECTED,
        ),
        (
            "two tags",
            frame(OWN, &[DOT1Q, vlan(100), DOT1Q, vlan(100), TIPC]),
            OTHER,
        ),
        ("service tag", frame(OWN, &[DOT1AD, vlan(100), TIPC]), OTHER),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(judge(&mut classifier, frame), *expected, "{name}");
    }
}

#[test]
fn vlans_are_allowed_and_denied_while_running() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    let untagged = frame(OWN, &[TIPC]);
    let highest = frame(OWN, &[DOT1Q, vlan(4094), TIPC]);
    assert_eq!(judge(&mut classifier, &highest), OTHER_VLAN);
    classifier.allow_vlan(4094).unwrap();
    assert_eq!(judge(&mut classifier, &highest), REDIRECTED);
    classifier.deny_vlan(0).unwrap();
    assert_eq!(judge(&mut classifier, &untagged), OTHER_VLAN);
    assert_eq!(judge(&mut classifier, &highest), REDIRECTED);
    classifier.deny_vlan(4094).unwrap();
    assert_eq!(judge(&mut classifier, &highest), OTHER_VLAN);
    assert!(matches!(
        classifier.allow_vlan(4095),
        Err(UpdateError::VlanId(4095))
    ));
}

#[test]
fn truncated_frames_pass_to_the_kernel() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    let tagged = frame(OWN, &[DOT1Q, vlan(100), TIPC]);
    for size in 0..14 {
        // The kernel itself refuses to run such a frame; should one ever come, it passes.
        if let Ok(verdict) = run(&mut classifier, &tagged[..size]) {
            assert_eq!(verdict, PASS, "{size} bytes");
        }
    }
    for size in 14..18 {
        assert_eq!(
            judge(&mut classifier, &tagged[..size]),
            OTHER,
            "{size} bytes"
        );
    }
    assert_eq!(judge(&mut classifier, &tagged[..18]), REDIRECTED);
    assert_eq!(
        judge(&mut classifier, &frame(OWN, &[TIPC])[..14]),
        REDIRECTED
    );
}

#[test]
fn a_frame_that_meets_no_socket_passes_and_is_counted() {
    let Some(mut classifier) = classifier() else {
        return;
    };
    let frame = frame(OWN, &[TIPC]);
    assert_eq!(judge(&mut classifier, &frame), NO_SOCKET);
    let socket = socket();
    classifier.insert_socket(0, &socket).unwrap();
    assert_eq!(judge(&mut classifier, &frame), REDIRECTED);
    classifier.remove_socket(0).unwrap();
    assert_eq!(judge(&mut classifier, &frame), NO_SOCKET);
    classifier.remove_socket(0).unwrap();
    classifier.insert_socket(0, &socket).unwrap();
    drop(socket);
    assert_eq!(
        judge(&mut classifier, &frame),
        NO_SOCKET,
        "a closed socket leaves the map"
    );
}

#[test]
fn a_change_of_address_takes_effect_for_the_next_frame() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    let (old, new) = (frame(OWN, &[TIPC]), frame(FOREIGN, &[TIPC]));
    assert_eq!(judge(&mut classifier, &old), REDIRECTED);
    classifier.set_mac(FOREIGN).unwrap();
    assert_eq!(judge(&mut classifier, &old), FOREIGN_MAC);
    assert_eq!(judge(&mut classifier, &new), REDIRECTED);
    assert_eq!(
        judge(&mut classifier, &frame(BROADCAST, &[TIPC])),
        REDIRECTED
    );
}

#[test]
fn a_new_classifier_takes_nothing() {
    if classifier().is_none() {
        return;
    }
    let mut classifier = Classifier::load().unwrap();
    classifier.insert_socket(0, socket()).unwrap();
    assert_eq!(
        judge(&mut classifier, &frame(BROADCAST, &[TIPC])),
        OTHER_VLAN
    );
    assert_eq!(
        judge(&mut classifier, &frame(OWN, &[DOT1Q, vlan(1), TIPC])),
        OTHER_VLAN
    );
}

#[test]
fn queues_beyond_the_limit_are_refused_by_number() {
    let Some(mut classifier) = classifier() else {
        return;
    };
    let refused = classifier.insert_socket(256, socket()).unwrap_err();
    assert!(
        matches!(
            refused,
            UpdateError::QueueTooHigh {
                queue: 256,
                limit: 256
            }
        ),
        "{refused}"
    );
}

#[test]
fn each_queue_has_its_own_socket_and_counters() {
    let Some((mut classifier, _socket)) = classifier_with_socket() else {
        return;
    };
    let name = format!("xtipc-queues-{}", std::process::id());
    let namespace = Namespace::new(&name);
    namespace.ip("link add q0 numrxqueues 2 numtxqueues 2 type veth peer name q1");
    let device = Interface::query("q0").unwrap();
    assert_eq!(device.rx_queues, 2);

    let frame = frame(OWN, &[TIPC]);
    let on_queue_1 = run_on(&mut classifier, &frame, device.index, 1);
    assert_eq!(on_queue_1, PASS, "the socket is that of queue 0");
    assert_eq!(run_on(&mut classifier, &frame, device.index, 0), REDIRECT);
    let expected = [
        QueueCounters {
            queue: 0,
            redirected: 1,
            ..ZERO
        },
        QueueCounters {
            queue: 1,
            no_socket: 1,
            ..ZERO
        },
    ];
    assert_eq!(classifier.counters().unwrap()[..2], expected);
}

/// Runs the frame as if queue `queue` of that interface had received it.
fn run_on(classifier: &mut Classifier, frame: &[u8], index: u32, queue: u32) -> u32 {
    let end = u32::try_from(frame.len()).unwrap();
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: Vec<u8> = [0, end, 0, index, queue, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        ..TestRunOptions::new()
    };
    program(&mut classifier.object)
        .test_run(options)
        .unwrap()
        .return_value
}

/// A network namespace that the creating thread enters, deleted at the end of the test.
struct Namespace<'a>(&'a str);

impl<'a> Namespace<'a> {
    fn new(name: &'a str) -> Self {
        assert!(
            Command::new("ip")
                .args(["netns", "add", name])
                .status()
                .unwrap()
                .success()
        );
        let namespace = Self(name);
        let file = File::open(format!("/run/netns/{name}")).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        namespace
    }

    fn ip(&self, arguments: &str) {
        let done = Command::new("ip")
            .args(["-n", self.0])
            .args(arguments.split(' '))
            .status();
        assert!(done.unwrap().success(), "ip {arguments}");
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", self.0])
            .status();
    }
}

const ADDRESS: [&str; 2] = ["10.0.0.1", "fd00::1"];
const GROUP: [&str; 2] = ["228.0.18.103", "ff02::4711"];
const PORT: u16 = 6118;

/// A frame with a UDP packet of eight bytes.
fn datagram(mac: [u8; 6], to: &str, port: u16) -> Vec<u8> {
    let mut frame = [mac, [0x02, 0, 0, 0, 0, 0x99]].concat();
    match to.parse().unwrap() {
        IpAddr::V4(to) => {
            frame.extend(IPV4);
            frame.extend([0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2]);
            frame.extend(to.octets());
        }
        IpAddr::V6(to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 17, 64]);
            frame.extend([0xfd; 16]);
            frame.extend(to.octets());
        }
    }
    frame.extend([0x17, 0xe6]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 16, 0, 0]);
    frame.extend([0x5a; 8]);
    frame
}

/// With a byte of the IP header changed.
fn changed(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[14 + at] = byte;
    frame
}

#[test]
fn whole_datagrams_to_the_bearers_port_and_addresses_are_redirected_and_no_others() {
    for family in 0..2 {
        let Some((mut classifier, _socket)) = classifier_with_socket() else {
            return;
        };
        let (own, group) = (ADDRESS[family], GROUP[family]);
        let other = datagram(OWN, ADDRESS[1 - family], PORT);
        assert_eq!(judge(&mut classifier, &datagram(OWN, own, PORT)), OTHER);
        let local = SocketAddr::new(own.parse().unwrap(), PORT);
        let heard = Some(group.parse().unwrap());
        classifier.take_datagrams(local, heard).unwrap();
        let ours = datagram(OWN, own, PORT);
        let mut tagged = ours.clone();
        tagged.splice(12..12, [DOT1Q, vlan(0)].concat());
        let stranger = ["10.0.0.3", "fd00::3"][family];
        let mut cases = vec![
            ("own address", ours.clone(), REDIRECTED),
            ("group", datagram(MULTICAST, group, PORT), REDIRECTED),
            (
                "another host's frame",
                datagram(FOREIGN, own, PORT),
                FOREIGN_MAC,
            ),
            ("another port", datagram(OWN, own, PORT + 1), OTHER),
            ("another address", datagram(OWN, stranger, PORT), OTHER),
            ("the other family", other, OTHER),
            ("behind a tag", tagged, OTHER),
            ("no UDP header", ours[..ours.len() - 16].to_vec(), OTHER),
            ("TIPC beside it", frame(OWN, &[TIPC]), REDIRECTED),
        ];
        if family == 0 {
            cases.extend([
                ("first fragment", changed(ours.clone(), 6, 0x20), OTHER),
                ("last fragment", changed(ours.clone(), 7, 1), OTHER),
                ("not to be cut", changed(ours.clone(), 6, 0x40), REDIRECTED),
                ("options", changed(ours.clone(), 0, 0x46), OTHER),
                ("TCP", changed(ours, 9, 6), OTHER),
            ]);
        } else {
            cases.push(("fragment", changed(ours.clone(), 6, 44), OTHER));
            cases.push(("another version", changed(ours, 0, 0x40), OTHER));
        }
        for (what, frame, expected) in cases {
            assert_eq!(judge(&mut classifier, &frame), expected, "{what} to {own}");
        }
    }
}
