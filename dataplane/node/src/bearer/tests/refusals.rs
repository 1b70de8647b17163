//! Interfaces that cannot carry a bearer, each refused by name with the remedy, and nothing kept.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use xtipc_ebpf::{AttachMode, Classifier};

use super::lab::INTERFACE;
use super::*;

/// Opening in the lab's side 0 is refused with these words, and leaves the pool whole.
fn refused(lab: &Lab, spec: &BearerSpec, xdp: XdpMode, words: &[&str]) {
    lab.enter(0);
    let config = pool_config(std::slice::from_ref(spec), xdp, 1024);
    let mut pool = FramePool::new(&config).unwrap();
    let Err(error) = Bearer::open(spec, defaults(xdp), Preparation::default(), &mut pool) else {
        panic!("{spec:?} was accepted");
    };
    let text = error.to_string();
    println!("{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` in: {text}");
    }
    pool.leaks().unwrap();
}

#[test]
fn an_unknown_interface_is_refused_with_the_list_of_those_there() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    for xdp in [XdpMode::Auto, XdpMode::Off] {
        refused(&lab, &spec("nosuch0"), xdp, &["`nosuch0`", INTERFACE]);
    }
}

#[test]
fn loopback_and_tiny_mtus_are_refused() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    refused(&lab, &spec("lo"), XdpMode::Auto, &["`lo`", "Ethernet"]);
    lab.set_link(0, "mtu 99");
    refused(
        &lab,
        &spec(INTERFACE),
        XdpMode::Auto,
        &["99", "at least 100"],
    );
}

#[test]
fn listed_queues_must_be_those_the_interface_has() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let listing = |queues| BearerSpec {
        media: MediaSpec::Ethernet(EthernetSpec {
            queues,
            ..EthernetSpec::default()
        }),
        ..spec(INTERFACE)
    };
    for queues in [vec![1], vec![0, 1]] {
        refused(
            &lab,
            &listing(queues),
            XdpMode::Auto,
            &["ethtool -L eth0 combined"],
        );
    }
    End::open(&lab, 0, &listing(vec![0]), XdpMode::Auto).close(&lab);
}

#[test]
fn a_second_daemon_is_refused_with_the_process_of_the_first() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let own = format!("process {}", std::process::id());
    for first in [XdpMode::Off, XdpMode::Generic] {
        let end = End::open(&lab, 0, &spec(INTERFACE), first);
        for second in [XdpMode::Off, XdpMode::Auto] {
            refused(&lab, &spec(INTERFACE), second, &[INTERFACE, &own]);
        }
        end.close(&lab);
    }
}

#[test]
fn zero_copy_on_veth_is_refused_by_name_and_not_replaced() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let words = ["xdp = zerocopy", INTERFACE, "no zero-copy"];
    refused(&lab, &spec(INTERFACE), XdpMode::Zerocopy, &words);
    End::open(&lab, 0, &spec(INTERFACE), XdpMode::Native).close(&lab);
}

#[test]
fn a_lasting_classifier_of_another_owner_is_refused() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    lab.enter(0);
    let mut other = Classifier::load().unwrap();
    other.attach(INTERFACE, AttachMode::Native).unwrap();
    let words = [INTERFACE, xtipc_ebpf::PROGRAM_NAME];
    refused(&lab, &spec(INTERFACE), XdpMode::Auto, &words);
    drop(other);
}

#[test]
fn a_foreign_program_is_named_and_af_packet_runs_beside_it() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (source, object) = (directory.path().join("x.c"), directory.path().join("x.o"));
    let program = "__attribute__((section(\"xdp\"), used)) int somebody(void *ctx) { return 2; }\n\
                   char licence[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    std::fs::write(&source, program).unwrap();
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let compiled = Command::new(clang)
        .args(["-target", "bpfel", "-O2", "-g", "-c"])
        .args([&source, &"-o".into(), &object])
        .status()
        .unwrap();
    assert!(compiled.success());
    lab.set_link(0, &format!("xdpgeneric obj {} sec xdp", object.display()));
    for xdp in [XdpMode::Auto, XdpMode::Native] {
        refused(
            &lab,
            &spec(INTERFACE),
            xdp,
            &[INTERFACE, "\"somebody\"", "xdp = off"],
        );
    }
    let mut a = End::open(&lab, 0, &spec(INTERFACE), XdpMode::Off);
    let mut b = End::open(&lab, 1, &spec(INTERFACE), XdpMode::Auto);
    transfer(&mut b, &mut a, 100, 60);
    a.close(&lab);
    b.close(&lab);
}

/// A device of link type InfiniBand, as long as the file is open; the kernel gives it no address.
fn infiniband_device(name: &str) -> File {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    const TUNSETLINK: libc::Ioctl = 0x4004_54cd;
    let mut options = File::options();
    let tap = options.read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(libc::IFF_TAP as u16).to_ne_bytes());
    // SAFETY: the kernel reads and writes an `ifreq`, which has 40 bytes and outlives the call.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    let link_type = libc::c_ulong::from(libc::ARPHRD_INFINIBAND);
    // SAFETY: this command takes a number.
    let linked = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETLINK, link_type) };
    assert_eq!(
        (made, linked),
        (0, 0),
        "{}",
        std::io::Error::last_os_error()
    );
    tap
}

#[test]
fn each_media_refuses_the_interfaces_of_the_other_and_names_the_one_to_use() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    lab.enter(0);
    let _device = infiniband_device("ib7");
    let ib = |interface| BearerSpec {
        media: MediaSpec::InfiniBand,
        ..spec(interface)
    };
    let words = ["`ib7` has link type 32", "a bearer ib:ib7"];
    refused(&lab, &spec("ib7"), XdpMode::Auto, &words);
    let words = ["`eth0` has link type 1", "a bearer eth:eth0"];
    refused(&lab, &ib(INTERFACE), XdpMode::Auto, &words);
    let words = ["link type 32 and addresses of 0 bytes", "20 bytes"];
    refused(&lab, &ib("ib7"), XdpMode::Auto, &words);
    let words = ["`nosuch0`", "InfiniBand interfaces here: ib7"];
    refused(&lab, &ib("nosuch0"), XdpMode::Auto, &words);
}
