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
fn a_removed_peer_is_neither_sent_to_nor_heard_until_it_is_added_again() {
    let Some(lab) = addressed_lab() else { return };
    let [near, far] = ADDRESSES[1];
    lab.ip(1, &format!("addr add fd09::3/64 dev {INTERFACE} nodad"));
    let specs: [fn(&str, &[&str]) -> BearerSpec; 2] =
        [udp, |local, remotes| express(local, remotes, None)];
    for spec in specs {
        let mut a = End::open(&lab, 0, &spec(near, &[far]), XdpMode::Auto);
        let open = |address| End::open(&lab, 1, &udp(address, &[near]), XdpMode::Auto);
        let mut peers = [far, "fd09::3"].map(open);
        let stations = peers.each_ref().map(|peer| peer.bearer.media_addr());
        let addresses = stations.map(|station| station.udp().unwrap());
        a.bearer.set_linked(stations.iter().copied());
        let mut passed = |a: &mut End| {
            a.send(MediaDest::Broadcast, &[7; 60]);
            a.flush();
            let sent = peers.each_mut().map(|peer| peer.receive(1).len());
            for peer in &mut peers {
                peer.send(MediaDest::Broadcast, &[8; 60]);
                peer.flush();
            }
            (sent, a.receive(2).len())
        };
        assert_eq!(passed(&mut a), ([1, 1], 2));
        a.bearer.remove_remote(addresses[0]).unwrap();
        assert_eq!(passed(&mut a), ([0, 1], 1));
        assert_eq!(a.drops("rx-removed-peer"), 1);
        // That had a link, without being listed.
        a.bearer.remove_remote(addresses[1]).unwrap();
        assert_eq!(passed(&mut a), ([0, 0], 0));
        assert_eq!(a.drops("rx-removed-peer"), 3);
        a.bearer.remove_remote(addresses[1]).unwrap_err();
        for address in addresses {
            a.bearer.add_remote(address).unwrap();
        }
        assert_eq!(passed(&mut a), ([1, 1], 2));
        a.close(&lab);
        peers.into_iter().for_each(|peer| peer.close(&lab));
    }
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

/// The same over AF_XDP, with the interface named.
fn express(local: &str, remotes: &[&str], mtu: Option<u32>) -> BearerSpec {
    let mut spec = udp(local, remotes);
    if let MediaSpec::Udp(udp) = &mut spec.media {
        udp.mtu = mtu;
        if let Some(Local::Address(local)) = &mut udp.local {
            local.scope = Some(INTERFACE.into());
        }
    }
    spec
}

/// Packets that went by AF_XDP: received, sent.
fn by_xdp(end: &End) -> [u64; 2] {
    let queues = end.bearer.info().queues;
    [
        queues.iter().map(|queue| queue.rx_packets).sum(),
        queues.iter().map(|queue| queue.tx_packets).sum(),
    ]
}

/// Lets the kernel of each end resolve the other.
fn acquaint(a: &mut End, b: &mut End) {
    (a.peer, b.peer) = (b.bearer.media_addr(), a.bearer.media_addr());
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let before = [by_xdp(a)[1], by_xdp(b)[1]];
        for turned in [false, true] {
            let (from, to) = if turned {
                (&mut *b, &mut *a)
            } else {
                (&mut *a, &mut *b)
            };
            from.send(from.to_peer(), &[1; 60]);
            from.flush();
            to.receive(1);
        }
        let ways = [a.bearer.info(), b.bearer.info()].map(|info| info.mode != BearerMode::Udp);
        let known = |n: usize, end: &End| !ways[n] || by_xdp(end)[1] > before[n];
        if known(0, a) && known(1, b) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{:?} {:?}",
            a.bearer.info(),
            b.bearer.info()
        );
    }
}

#[test]
fn whole_packets_go_by_af_xdp_where_the_interface_is_named() {
    let Some(lab) = addressed_lab() else { return };
    for (addresses, mtu) in ADDRESSES.into_iter().zip([1472, 1280]) {
        for replicast in [false, true] {
            let mut ends = [0, 1].map(|side| {
                let remotes = [addresses[1 - side]];
                let remotes: &[&str] = if replicast { &remotes } else { &[] };
                let spec = express(addresses[side], remotes, None);
                End::open(&lab, side, &spec, XdpMode::Auto)
            });
            let [a, b] = &mut ends;
            assert_eq!(a.bearer.mtu(), mtu);
            let info = a.bearer.info();
            assert_eq!(info.mode, BearerMode::XdpGeneric);
            assert_eq!(
                info.mode_reason
                    .contains("packets of 1472 instead of 14000 bytes"),
                mtu == 1472,
                "{}",
                info.mode_reason
            );
            acquaint(a, b);
            let before = [by_xdp(a), by_xdp(b)];
            transfer(a, b, 2000, 100);
            transfer(b, a, 2000, mtu);
            a.send(MediaDest::Broadcast, &[7; 60]);
            a.flush();
            assert_eq!(b.receive(2), [(a.bearer.media_addr(), vec![7; 60])]);
            assert_eq!(a.receive(1), []);
            // But for one by which the kernel looks whether a neighbour is still there.
            for (end, before, passed) in
                [(&*a, before[0], [2000, 2001]), (b, before[1], [2001, 2000])]
            {
                for way in 0..2 {
                    let by_xdp = by_xdp(end)[way] - before[way];
                    assert!(by_xdp + 2 >= passed[way], "{by_xdp} of {}", passed[way]);
                }
                assert!(
                    end.bearer.info().drops.is_empty(),
                    "{:?}",
                    end.bearer.info()
                );
            }
            ends.into_iter().for_each(|end| end.close(&lab));
        }
    }
}

#[test]
fn fragments_and_plain_sockets_at_the_other_end_are_heard_beside_af_xdp() {
    let Some(lab) = addressed_lab() else { return };
    for addresses in ADDRESSES {
        let mut a = End::open(
            &lab,
            0,
            &express(addresses[0], &[], Some(5000)),
            XdpMode::Auto,
        );
        let mut plain = udp(addresses[1], &[]);
        if let MediaSpec::Udp(udp) = &mut plain.media {
            udp.mtu = Some(5000);
        }
        let mut b = End::open(&lab, 1, &plain, XdpMode::Auto);
        assert_eq!(b.bearer.info().mode, BearerMode::Udp);
        acquaint(&mut a, &mut b);
        let before = by_xdp(&a);
        transfer(&mut a, &mut b, 200, 5000);
        transfer(&mut b, &mut a, 200, 5000);
        assert!(
            by_xdp(&a)[0] <= before[0] && by_xdp(&a)[1] <= before[1],
            "in fragments"
        );
        transfer(&mut a, &mut b, 200, 1200);
        transfer(&mut b, &mut a, 200, 1200);
        assert_eq!(by_xdp(&a)[0] - before[0], 200);
        assert!(by_xdp(&a)[1] - before[1] >= 199);
        for end in [&a, &b] {
            assert!(
                end.bearer.info().drops.is_empty(),
                "{:?}",
                end.bearer.info()
            );
        }
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_route_that_changes_is_followed() {
    let Some(lab) = addressed_lab() else { return };
    let far = "192.0.2.1";
    lab.ip(1, &format!("addr add {far}/32 dev {INTERFACE}"));
    lab.ip(0, "route add 192.0.2.0/24 via 10.9.0.2");
    let [near, _] = ADDRESSES[0];
    let mut a = End::open(&lab, 0, &express(near, &[far], None), XdpMode::Auto);
    let mut b = End::open(&lab, 1, &udp(far, &[near]), XdpMode::Auto);
    acquaint(&mut a, &mut b);
    let mut sent = |a: &mut End, len| {
        let before = by_xdp(a)[1];
        for _ in 0..10 {
            // So that what the kernel tells is heard.
            a.receive(1);
            a.send(a.to_peer(), &vec![3; len]);
            a.flush();
        }
        assert_eq!(b.receive(10).len(), 10);
        by_xdp(a)[1] - before
    };
    assert!(sent(&mut a, 1400) >= 9, "by the gateway");
    lab.ip(0, "route replace 192.0.2.0/24 via 10.9.0.2 mtu lock 1000");
    assert!(sent(&mut a, 1400) <= 1, "a narrower path");
    assert!(sent(&mut a, 900) >= 9);
    lab.ip(0, "route replace 192.0.2.0/24 via 10.9.0.2");
    assert!(sent(&mut a, 1400) >= 8, "wide again");
    a.close(&lab);
    b.close(&lab);
}

#[test]
fn without_its_interface_the_bearer_goes_on_by_its_sockets() {
    let Some(lab) = addressed_lab() else { return };
    let mut a = End::open(&lab, 0, &express("10.9.0.1", &[], None), XdpMode::Auto);
    lab.enter(0);
    lab.delete_pair();
    let check = |a: &mut End| a.bearer.check(&mut a.pool, a.started.elapsed());
    assert_eq!(check(&mut a), BearerEvent::Stuck);
    a.bearer.reopen(&mut a.pool).unwrap();
    assert_eq!(check(&mut a), BearerEvent::Down);
    let info = a.bearer.info();
    assert_eq!((info.mode, info.up), (BearerMode::Udp, false));
    assert!(
        info.mode_reason.contains("went away"),
        "{}",
        info.mode_reason
    );
    a.close(&lab);
}
