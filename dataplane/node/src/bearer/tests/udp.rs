//! UDP bearers at the ends of a veth pair.

use xtipc_management::BearerMode;

use super::lab::INTERFACE;
use super::*;
use crate::bearer::BearerEvent;
use crate::config::{Local, Remote, ScopedIp, UdpSpec};

/// The addresses of the sides in both families.
const ADDRESSES: [[&str; 2]; 2] = [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]];

fn addressed_lab() -> Option<Lab> {
    let lab = Lab::new(1500, 1)?;
    for side in 0..2 {
        add_addresses(&lab, side);
    }
    Some(lab)
}

fn add_addresses(lab: &Lab, side: usize) {
    let [[v4, v6]] = [[ADDRESSES[0][side], ADDRESSES[1][side]]];
    lab.ip(side, &format!("addr add {v4}/24 dev {INTERFACE}"));
    lab.ip(side, &format!("addr add {v6}/64 dev {INTERFACE} nodad"));
}

fn udp(local: &str, remotes: &[&str]) -> BearerSpec {
    let remote = |ip: &&str| Remote {
        ip: ip.parse().unwrap(),
        port: None,
    };
    BearerSpec {
        interface: "UDP1".into(),
        media: MediaSpec::Udp(UdpSpec {
            local: Some(Local::Address(ScopedIp {
                ip: local.parse().unwrap(),
                scope: None,
            })),
            remotes: remotes.iter().map(remote).collect(),
            ..UdpSpec::default()
        }),
        ..BearerSpec::default()
    }
}

fn open_pair(lab: &Lab, addresses: [&str; 2], replicast: bool) -> [End; 2] {
    [0, 1].map(|side| {
        let remotes = [addresses[1 - side]];
        let remotes: &[&str] = if replicast { &remotes } else { &[] };
        End::open(lab, side, &udp(addresses[side], remotes), XdpMode::Auto)
    })
}

#[test]
fn packets_pass_over_both_families_once_and_in_order() {
    let Some(lab) = addressed_lab() else { return };
    for (addresses, mtu) in ADDRESSES.into_iter().zip([14_000, 1280]) {
        for replicast in [false, true] {
            let [mut a, mut b] = open_pair(&lab, addresses, replicast);
            assert_eq!(a.bearer.mtu(), mtu);
            (a.peer, b.peer) = (b.bearer.media_addr(), a.bearer.media_addr());
            transfer(&mut a, &mut b, 2000, 100);
            transfer(&mut b, &mut a, 2000, mtu);
            a.send(MediaDest::Broadcast, &[7; 60]);
            a.flush();
            assert_eq!(b.receive(2), [(a.bearer.media_addr(), vec![7; 60])]);
            assert_eq!(a.receive(1), []);
            a.send(a.to_peer(), &vec![0; mtu + 1]);
            assert_eq!(a.drops("tx-too-long"), 1);
            let info = b.bearer.info();
            assert_eq!((info.mode, info.up), (BearerMode::Udp, true));
            assert!(info.drops.is_empty(), "{:?}", info.drops);
            assert_eq!(b.bearer.reaches_all_at_once(), !replicast);
            a.close(&lab);
            b.close(&lab);
        }
    }
}

#[test]
fn copies_go_to_configured_and_linked_peers_once_each() {
    let Some(lab) = addressed_lab() else { return };
    lab.ip(1, &format!("addr add 10.9.0.3/24 dev {INTERFACE}"));
    lab.ip(1, &format!("addr add 10.9.0.4/24 dev {INTERFACE}"));
    let mut a = End::open(&lab, 0, &udp("10.9.0.1", &["10.9.0.2"]), XdpMode::Auto);
    let open = |address| End::open(&lab, 1, &udp(address, &["10.9.0.1"]), XdpMode::Auto);
    let mut peers = ["10.9.0.2", "10.9.0.3", "10.9.0.4"].map(open);
    let stations = peers.each_ref().map(|peer| peer.bearer.media_addr());
    let mut heard = |a: &mut End| {
        a.send(MediaDest::Broadcast, &[7; 60]);
        a.flush();
        peers.each_mut().map(|peer| peer.receive(2).len())
    };
    assert_eq!(heard(&mut a), [1, 0, 0]);
    a.bearer.set_linked(stations[..2].iter().copied());
    assert_eq!(heard(&mut a), [1, 1, 0]);
    a.bearer.set_linked(stations[2..].iter().copied());
    assert_eq!(heard(&mut a), [1, 0, 1]);
    a.bearer.set_linked(std::iter::empty());
    assert_eq!(heard(&mut a), [1, 0, 0]);
}

#[test]
fn an_address_that_goes_and_comes_back_is_heard_again_by_the_group_too() {
    let Some(lab) = addressed_lab() else { return };
    for addresses in ADDRESSES {
        let [mut a, mut b] = open_pair(&lab, addresses, false);
        let check = |end: &mut End| {
            lab.enter(end.side);
            end.bearer.check(&mut end.pool, end.started.elapsed())
        };
        assert_eq!(check(&mut a), BearerEvent::Fine);
        lab.set_link(0, "down");
        assert_eq!(check(&mut a), BearerEvent::Down);
        assert!(!a.bearer.info().up);
        lab.set_link(0, "up");
        // The kernel takes IPv6 addresses away with the link.
        let _ = lab.try_ip(
            0,
            &format!("addr add {}/64 dev {INTERFACE} nodad", ADDRESSES[1][0]),
        );
        let deadline = Instant::now() + Duration::from_secs(5);
        while check(&mut a) != BearerEvent::Up {
            assert!(Instant::now() < deadline, "{addresses:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The carrier of the other end is told a moment later, too.
        while check(&mut b) != BearerEvent::Fine || !b.bearer.info().up {
            assert!(Instant::now() < deadline, "{addresses:?}");
        }
        b.send(MediaDest::Broadcast, &[8; 60]);
        b.flush();
        assert_eq!(a.receive(1), [(b.bearer.media_addr(), vec![8; 60])]);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn an_address_that_is_not_here_or_taken_is_refused() {
    let Some(lab) = addressed_lab() else { return };
    lab.enter(0);
    let refusal = |spec: &BearerSpec| {
        let config = pool_config(std::slice::from_ref(spec), XdpMode::Auto, 1024);
        let mut pool = FramePool::new(&config).unwrap();
        match Bearer::open(
            spec,
            defaults(XdpMode::Auto),
            Preparation::default(),
            &mut pool,
        ) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    };
    let missing = refusal(&udp("10.9.0.77", &[]));
    assert!(
        missing.contains("no interface has the address 10.9.0.77"),
        "{missing}"
    );
    assert!(missing.contains("10.9.0.1"), "{missing}");
    let first = End::open(&lab, 0, &udp("10.9.0.1", &[]), XdpMode::Auto);
    let taken = refusal(&udp("10.9.0.1", &[]));
    assert!(
        taken.contains("bind the UDP socket to its address"),
        "{taken}"
    );
    first.close(&lab);
    let mut by_device = udp("10.9.0.1", &[]);
    by_device.media = MediaSpec::Udp(UdpSpec {
        local: Some(Local::Device(INTERFACE.into())),
        ..UdpSpec::default()
    });
    let opened = End::open(&lab, 0, &by_device, XdpMode::Auto);
    assert_eq!(opened.bearer.media_addr().to_string(), "10.9.0.1:6118");
    opened.close(&lab);
}
