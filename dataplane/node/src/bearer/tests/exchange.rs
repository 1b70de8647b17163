//! Packets from one bearer to another, on each path.

use xtipc_management::BearerMode;

use super::lab::INTERFACE;
use super::*;

const PATHS: [(XdpMode, BearerMode); 4] = [
    (XdpMode::Off, BearerMode::Packet),
    (XdpMode::Generic, BearerMode::XdpGeneric),
    (XdpMode::Native, BearerMode::XdpNative),
    (XdpMode::Auto, BearerMode::XdpGeneric),
];

#[test]
fn each_path_carries_packets_both_ways_once_and_in_order() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    for (xdp, mode) in PATHS {
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let info = a.bearer.info();
        assert_eq!(info.mode, mode, "{}", info.mode_reason);
        println!("{xdp:?}: {}", info.mode_reason);
        transfer(&mut a, &mut b, 20_000, 100);
        transfer(&mut b, &mut a, 20_000, 1500);
        let info = a.bearer.info();
        assert_eq!((info.tx_packets, info.rx_packets), (20_000, 20_000));
        assert_eq!((info.tx_bytes, info.rx_bytes), (2_000_000, 30_000_000));
        assert!(info.drops.is_empty(), "{:?}", info.drops);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn the_paths_understand_each_other_and_broadcasts_arrive() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let mut packet = End::open(&lab, 0, &spec(INTERFACE), XdpMode::Off);
    let mut xdp = End::open(&lab, 1, &spec(INTERFACE), XdpMode::Native);
    transfer(&mut packet, &mut xdp, 1000, 60);
    transfer(&mut xdp, &mut packet, 1000, 60);
    packet.send(MediaDest::Broadcast, &[7; 60]);
    assert_eq!(xdp.receive(1), [(station(0), vec![7; 60])]);
    xdp.send(MediaDest::Broadcast, &[8; 60]);
    xdp.flush();
    assert_eq!(packet.receive(1), [(station(1), vec![8; 60])]);
    packet.close(&lab);
    xdp.close(&lab);
}

#[test]
fn jumbo_packets_pass_through_frames_of_several_chunks() {
    let Some(lab) = Lab::new(9000, 1) else { return };
    let without_chunks = xtipc_xsk::multi_buffer_supported() == Ok(false);
    for (xdp, _) in PATHS {
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let mtu = a.bearer.mtu();
        let expected = if without_chunks && xdp != XdpMode::Off {
            3826
        } else {
            9000
        };
        assert_eq!(mtu, expected, "{xdp:?}: {}", a.bearer.info().mode_reason);
        transfer(&mut a, &mut b, 2000, mtu);
        transfer(&mut b, &mut a, 2000, mtu);
        transfer(&mut a, &mut b, 100, 3900);
        a.send(a.to_peer(), &vec![0; mtu + 1]);
        assert_eq!(a.drops("tx-too-long"), 1);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn all_queues_of_an_interface_are_served() {
    let Some(lab) = Lab::new(1500, 4) else { return };
    let [mut a, mut b] = pair(&lab, &spec(INTERFACE), XdpMode::Native);
    let queues = a.bearer.info().queues;
    let numbers: Vec<_> = queues.iter().map(|queue| queue.queue).collect();
    assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
    assert_eq!(numbers.len(), a.bearer.fds().count());
    transfer(&mut a, &mut b, 2000, 60);
    a.close(&lab);
    b.close(&lab);
}

#[test]
fn what_goes_to_several_stations_is_spread_over_the_queues() {
    let Some(lab) = Lab::new(1500, 2) else { return };
    for xdp in [XdpMode::Generic, XdpMode::Native] {
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let other = MediaAddr::ethernet([2, 0, 0, 0, 0, 9]);
        a.spread_over(vec![0, 1]);
        a.bearer.set_linked([station(1), other].into_iter());
        // Nothing is in transmission: the next round lets them change.
        a.flush();
        let mut queues = [station(1), other].map(|to| a.bearer.queue_to(&to));
        queues.sort_unstable();
        assert_eq!(queues, [Some(0), Some(1)]);
        for _ in 0..20 {
            a.send(MediaDest::Unicast(other), &[1; 60]);
            transfer(&mut a, &mut b, 100, 60);
        }
        a.flush();
        let mut sent: Vec<_> = (a.bearer.info().queues.iter())
            .map(|q| q.tx_packets)
            .collect();
        sent.sort_unstable();
        assert_eq!(sent, [20, 2000], "{xdp:?}");
        assert_eq!(a.bearer.info().tx_packets, 2020);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_bearer_with_a_vlan_hears_that_vlan_only() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let on = |vlan| BearerSpec {
        media: MediaSpec::Ethernet(EthernetSpec {
            vlan,
            ..EthernetSpec::default()
        }),
        ..spec(INTERFACE)
    };
    for (xdp, _) in PATHS {
        let mut a = End::open(&lab, 0, &on(Some(7)), xdp);
        let mut b = End::open(&lab, 1, &on(Some(7)), xdp);
        transfer(&mut a, &mut b, 2000, 1400);
        transfer(&mut b, &mut a, 2000, 1500);
        b.close(&lab);
        for vlan in [None, Some(8)] {
            let mut other = End::open(&lab, 1, &on(vlan), xdp);
            other.send(other.to_peer(), &[1; 60]);
            other.flush();
            assert_eq!(a.receive(1), [], "{xdp:?} {vlan:?}");
            a.send(a.to_peer(), &[1; 60]);
            a.flush();
            assert_eq!(other.receive(1), [], "{xdp:?} {vlan:?}");
            let info = other.bearer.info();
            let counted = match info.classifier.get("passed-vlan") {
                Some(&count) => count,
                None => other.drops("rx-other-vlan"),
            };
            assert_eq!(counted, 1, "{xdp:?} {vlan:?} {info:?}");
            other.close(&lab);
        }
        a.close(&lab);
    }
}

#[test]
fn frames_for_another_host_are_not_taken() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    for (xdp, _) in PATHS {
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let third = MediaDest::Unicast(MediaAddr::ethernet([2, 0, 0, 0, 0, 3]));
        a.send(third, &[1; 60]);
        a.send(a.to_peer(), &[2; 60]);
        a.flush();
        assert_eq!(b.receive(2), [(station(0), vec![2; 60])], "{xdp:?}");
        let info = b.bearer.info();
        let passed = info.classifier.get("passed-foreign-mac");
        let dropped = info.drops.get("rx-foreign-mac");
        assert_eq!(passed.or(dropped), Some(&1), "{xdp:?} {info:?}");
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_frame_on_its_way_out_is_sent_elsewhere_as_a_copy() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    for (xdp, _) in PATHS {
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let to_peer = a.to_peer();
        let frame = a.pool.alloc(xtipc_xsk::Reserve::Data).unwrap();
        a.pool.bytes_mut(frame).unwrap()[HEADROOM..HEADROOM + 60].fill(5);
        // Nothing is flushed in between: on AF_XDP the frame stays in TX.
        for to in [MediaDest::Broadcast, to_peer, to_peer, MediaDest::Broadcast] {
            a.bearer
                .transmit(&mut a.pool, frame, to, 60, Reserve::Control);
        }
        a.flush();
        assert_eq!(b.receive(4), vec![(station(0), vec![5; 60]); 4], "{xdp:?}");
        a.pool.release(frame);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_flood_beyond_the_ring_is_sent_or_counted() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    for (xdp, _) in PATHS {
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let to_peer = a.to_peer();
        let frame = a.pool.alloc(xtipc_xsk::Reserve::Data).unwrap();
        a.pool.bytes_mut(frame).unwrap()[HEADROOM..HEADROOM + 60].fill(5);
        for _ in 0..10_000 {
            a.bearer
                .transmit(&mut a.pool, frame, to_peer, 60, Reserve::Data);
        }
        a.flush();
        a.pool.release(frame);
        let info = a.bearer.info();
        let dropped: u64 = info.drops.values().sum();
        assert_eq!(info.tx_packets + dropped, 10_000, "{xdp:?} {info:?}");
        assert!(info.tx_packets > 2000, "{xdp:?} {info:?}");
        // What was too much for the receiver does not keep it from hearing on.
        b.receive(usize::MAX);
        transfer(&mut a, &mut b, 500, 60);
        a.close(&lab);
        b.close(&lab);
    }
}
