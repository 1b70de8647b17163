//! No InfiniBand is needed: the kernel's answers are made up, and a veth pair carries packets to the first six of the
//! twenty bytes.

use std::time::{Duration, Instant};

use xtipc_ebpf::netlink::put_attribute;
use xtipc_xsk::{PoolConfig, Reserve};

use super::*;
use crate::bearer::links::{self, Link};
use crate::bearer::tests::lab::{INTERFACE, Lab, MAC};

const ROOM: usize = 4096 - HEADROOM;
/// Queue pair and GID, as `ip link` shows them.
const ADDRESS: [u8; 20] = *b"\x80\x00\x00\x48\xfe\x80\0\0\0\0\0\0\x02\x11\x22\x33\x44\x55\x66\x77";
/// The IPv4 broadcast group of the default partition.
const BROADCAST: [u8; 20] =
    *b"\x00\xff\xff\xff\xff\x12\x40\x1b\xff\xff\0\0\0\0\0\0\xff\xff\xff\xff";

/// The kernel's answer about an interface with index 7.
fn link(link_type: u16, flags: i32, address: &[u8]) -> Link {
    let mut answer = vec![0; 2];
    answer.extend(link_type.to_ne_bytes());
    answer.extend(7_u32.to_ne_bytes());
    answer.extend(flags.to_ne_bytes());
    answer.extend([0; 4]);
    for (kind, value) in [
        (1, address),
        (2, &BROADCAST[..]),
        (3, b"ib0\0"),
        (4, &2044_u32.to_ne_bytes()[..]),
    ] {
        put_attribute(&mut answer, kind, value);
    }
    Link::new(answer).unwrap()
}

/// A side of the lab as if its interface had long addresses.
fn port(lab: &Lab, side: usize) -> Port {
    lab.enter(side);
    let all = Link::all().unwrap();
    let found = all
        .iter()
        .find(|link| link.name().as_deref() == Some(INTERFACE));
    let long = |mac: [u8; 6]| {
        let mut address = ADDRESS;
        address[..6].copy_from_slice(&mac);
        address
    };
    Port {
        name: INTERFACE.into(),
        index: found.unwrap().index(),
        address: long(MAC[side]),
        broadcast: long([0xff; 6]),
        mtu: 2044,
        up: true,
    }
}

fn pool() -> FramePool {
    let sizes = PoolConfig {
        frame_count: 64,
        chunks_per_frame: 1,
        control_reserve: 16,
        receive_areas: 0,
        spare_areas: 0,
        receive_chunks: 512,
    };
    FramePool::new(&sizes).unwrap()
}

fn send(bearer: &mut InfiniBandBearer, pool: &mut FramePool, to: MediaDest, packet: &[u8]) {
    let frame = pool.alloc(Reserve::Data).unwrap();
    let bytes = pool.bytes_mut(frame).unwrap();
    bytes[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
    bearer.transmit(pool, frame, to, packet.len());
    pool.release(frame);
}

/// What arrives until nothing comes for a while.
fn receive(bearer: &mut InfiniBandBearer) -> Vec<Vec<u8>> {
    let (mut packets, mut heard) = (Vec::new(), Instant::now());
    while heard.elapsed() < Duration::from_millis(100) {
        let taken = bearer.receive(64, |from, packet| {
            assert_eq!(from, MediaAddr::UNTOLD);
            packets.push(packet.to_vec());
        });
        if taken > 0 {
            heard = Instant::now();
        }
    }
    packets
}

#[test]
fn an_ipoib_interface_is_what_the_kernel_says_of_it() {
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    let expected = Port {
        name: "ib0".into(),
        index: 7,
        address: ADDRESS,
        broadcast: BROADCAST,
        mtu: 2044,
        up: true,
    };
    let found = Port::parse(&link(links::INFINIBAND, up, &ADDRESS));
    assert_eq!(found, Some(expected.clone()));
    let without_carrier = Port::parse(&link(links::INFINIBAND, libc::IFF_UP, &ADDRESS));
    assert_eq!(
        without_carrier,
        Some(Port {
            up: false,
            ..expected
        })
    );
    assert_eq!(Port::parse(&link(links::ETHERNET, up, &ADDRESS)), None);
    for len in 0..20 {
        let short = link(links::INFINIBAND, up, &ADDRESS[..len]);
        assert_eq!(Port::parse(&short), None, "{len}");
    }
}

#[test]
fn packets_go_to_one_station_and_to_all_by_20_byte_addresses() {
    let Some(lab) = Lab::new(2044, 1) else { return };
    let ports = [0, 1].map(|side| port(&lab, side));
    let to_1 = MediaDest::Unicast(MediaAddr::from_infiniband(ports[1].address));
    let [mut a, mut b] = ports.map(|port| {
        lab.enter(usize::from(port.address[5]) - 1);
        InfiniBandBearer::on(port, ROOM).unwrap()
    });
    let (mut pool, long) = (pool(), vec![7; 2044]);
    send(&mut a, &mut pool, to_1, b"one");
    send(&mut a, &mut pool, MediaDest::Broadcast, b"all");
    send(&mut a, &mut pool, to_1, &long);
    assert_eq!(receive(&mut b), [b"one".to_vec(), b"all".to_vec(), long]);
    // A switch would not bring it here, but a promiscuous interface does.
    let mut other = b.port.address;
    other[3] = 9;
    lab.set_link(1, "promisc on");
    let other = MediaDest::Unicast(MediaAddr::from_infiniband(other));
    send(&mut a, &mut pool, other, b"another's");
    send(&mut a, &mut pool, to_1, &[0; 2045]);
    assert!(receive(&mut b).is_empty());
    assert_eq!(b.info().drops["rx-foreign-mac"], 1);
    assert_eq!(a.info().drops["tx-too-long"], 1);
    // Sent packets do not come back.
    assert!(receive(&mut a).is_empty());
    let info = a.info();
    assert_eq!(
        (info.tx_packets, info.media, info.mtu),
        (4, Media::Ib, 2044)
    );
    assert_eq!(
        info.media_address,
        "02:00:00:00:00:01:00:00:00:00:00:00:02:11:22:33:44:55:66:77"
    );
    pool.leaks().unwrap();
}

#[test]
fn what_happens_to_the_interface_is_reported_one_by_one() {
    let Some(lab) = Lab::new(2044, 1) else { return };
    let first = port(&lab, 0);
    let mut bearer = InfiniBandBearer::on(first.clone(), ROOM).unwrap();
    assert_eq!(bearer.follow(first.clone()), BearerEvent::Fine);
    let mut then = Port {
        address: ADDRESS,
        mtu: 1000,
        up: false,
        ..first
    };
    for event in [
        BearerEvent::MacChanged,
        BearerEvent::MtuChanged,
        BearerEvent::Down,
        BearerEvent::Fine,
    ] {
        assert_eq!(bearer.follow(then.clone()), event);
    }
    assert_eq!(bearer.media_addr(), MediaAddr::from_infiniband(ADDRESS));
    assert_eq!(bearer.mtu(), 1000);
    then.up = true;
    assert_eq!(bearer.follow(then.clone()), BearerEvent::Up);
    then.mtu = 99;
    assert_eq!(bearer.follow(then), BearerEvent::TooNarrow);
    // The veth pair is no IPoIB interface; to the kernel's answer there is none.
    assert_eq!(bearer.check(), BearerEvent::Gone);
}
