//! What happens to an interface under an open bearer, and what is left after it.

use super::lab::INTERFACE;
use super::*;
use crate::bearer::BearerEvent;

const MODES: [XdpMode; 3] = [XdpMode::Off, XdpMode::Generic, XdpMode::Native];

impl End {
    fn check(&mut self, lab: &Lab) -> BearerEvent {
        lab.enter(self.side);
        self.bearer.check(&mut self.pool, self.started.elapsed())
    }

    /// When what was sent should have been completed.
    fn check_late(&mut self, lab: &Lab) -> BearerEvent {
        lab.enter(self.side);
        let now = self.started.elapsed() + Duration::from_secs(2);
        self.bearer.check(&mut self.pool, now)
    }

    /// The next event; the kernel tells of a carrier late.
    fn event(&mut self, lab: &Lab) -> BearerEvent {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let event = self.check(lab);
            if event != BearerEvent::Fine || Instant::now() > deadline {
                return event;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_deleted_interface_is_seen_and_the_bearer_closes_without_leaks() {
    for xdp in MODES {
        let Some(lab) = Lab::new(1500, 1) else { return };
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        transfer(&mut a, &mut b, 100, 60);
        assert_eq!(a.check(&lab), BearerEvent::Fine);
        lab.delete_pair();
        for end in [&mut a, &mut b] {
            end.send(end.to_peer(), &[1; 60]);
            end.flush();
            assert_eq!(end.receive(1), []);
            assert_eq!(end.check(&lab), BearerEvent::Gone, "{xdp:?}");
        }
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn an_interface_set_down_is_heard_again_when_it_is_up() {
    for xdp in MODES {
        let Some(lab) = Lab::new(1500, 1) else { return };
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        lab.set_link(0, "down");
        assert_eq!(a.event(&lab), BearerEvent::Down);
        assert!(!a.bearer.info().up);
        // The other end lost its carrier.
        assert_eq!(b.event(&lab), BearerEvent::Down);
        a.send(a.to_peer(), &[1; 60]);
        a.flush();
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(
            a.check(&lab),
            BearerEvent::Fine,
            "{xdp:?}: nothing to repair"
        );
        lab.set_link(0, "up");
        assert_eq!(a.event(&lab), BearerEvent::Up);
        assert_eq!(b.event(&lab), BearerEvent::Up);
        a.flush();
        // A ring kept the packet; AF_PACKET counted it.
        let kept = b.receive(1).len() as u64;
        assert_eq!(kept + a.drops("tx-interface-down"), 1, "{xdp:?}");
        transfer(&mut a, &mut b, 500, 60);
        transfer(&mut b, &mut a, 500, 60);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_changed_address_and_mtu_are_followed_one_by_one() {
    for xdp in MODES {
        let Some(lab) = Lab::new(1500, 1) else { return };
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        lab.set_link(1, "address 02:00:00:00:00:99 mtu 1400");
        assert_eq!(b.check(&lab), BearerEvent::MacChanged);
        assert_eq!(b.bearer.media_addr().mac(), [2, 0, 0, 0, 0, 0x99]);
        assert_eq!(b.check(&lab), BearerEvent::MtuChanged);
        assert_eq!(b.bearer.mtu(), 1400);
        assert_eq!(b.check(&lab), BearerEvent::Fine);
        let new = MediaDest::Unicast(b.bearer.media_addr());
        a.send(a.to_peer(), &[1; 60]);
        a.send(new, &[2; 60]);
        a.flush();
        assert_eq!(b.receive(2), [(station(0), vec![2; 60])], "{xdp:?}");
        b.send(b.to_peer(), &[3; 60]);
        b.flush();
        assert_eq!(a.receive(0), []);
        lab.set_link(1, "mtu 1500");
        lab.set_link(0, "mtu 1300");
        assert_eq!(a.check(&lab), BearerEvent::MtuChanged);
        assert_eq!(b.check(&lab), BearerEvent::MtuChanged);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_renamed_interface_stays_the_bearers() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let [mut a, mut b] = pair(&lab, &spec(INTERFACE), XdpMode::Generic);
    lab.set_link(0, "down");
    assert_eq!(a.event(&lab), BearerEvent::Down);
    lab.ip(0, &format!("link set dev {INTERFACE} name other0"));
    lab.ip(0, "link set dev other0 up");
    assert_eq!(a.event(&lab), BearerEvent::Up);
    transfer(&mut a, &mut b, 100, 60);
    a.close(&lab);
    b.close(&lab);
}

#[test]
fn sockets_made_anew_carry_on() {
    for xdp in MODES {
        let Some(lab) = Lab::new(1500, 2) else { return };
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        transfer(&mut a, &mut b, 500, 60);
        for _ in 0..3 {
            // One packet lies in the ring, unsent, and no other queue sends.
            a.send(a.to_peer(), &[1; 60]);
            let has_sockets = xdp != XdpMode::Off;
            assert_eq!(a.check_late(&lab) == BearerEvent::Stuck, has_sockets);
            while a.check(&lab) != BearerEvent::Fine {
                a.bearer.reopen(&mut a.pool).unwrap();
            }
            for queue in a.bearer.info().queues {
                assert_eq!(queue.tx_packets, 0, "made anew");
            }
            b.receive(1);
            transfer(&mut a, &mut b, 500, 60);
            transfer(&mut b, &mut a, 500, 60);
        }
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_stuck_queue_is_made_anew_alone_and_another_one_sends_meanwhile() {
    for xdp in [XdpMode::Generic, XdpMode::Native] {
        let Some(lab) = Lab::new(1500, 2) else { return };
        let [mut a, mut b] = pair(&lab, &spec(INTERFACE), xdp);
        let others = [3, 4, 5].map(|last| MediaAddr::ethernet([2, 0, 0, 0, 0, last]));
        a.spread_over(vec![0, 1]);
        a.bearer.set_linked(others.into_iter().chain([station(1)]));
        transfer(&mut a, &mut b, 500, 60);
        let by = |a: &End, station| a.bearer.queue_to(&station);
        let on_queue = |a: &End, queue| {
            let stations = others
                .into_iter()
                .filter(|other| by(a, *other) == Some(queue));
            stations.collect::<Vec<_>>()
        };
        assert_eq!(
            [0, 1]
                .map(|queue| on_queue(&a, queue).len())
                .iter()
                .sum::<usize>(),
            3
        );
        let stuck = on_queue(&a, 1)[0];
        // Somebody else holds the socket, so that the kernel does not release it.
        let held = a
            .bearer
            .fds()
            .nth(1)
            .unwrap()
            .0
            .try_clone_to_owned()
            .unwrap();
        a.send(MediaDest::Unicast(stuck), &[1; 60]);
        assert_eq!(a.check_late(&lab), BearerEvent::Stuck, "{xdp:?}");
        a.bearer.reopen(&mut a.pool).unwrap();
        a.spread_over(vec![0, 1]);
        assert_eq!(a.bearer.fds().count(), 1);
        assert_eq!(by(&a, stuck), Some(0));
        assert_eq!(by(&a, station(1)), Some(0));
        transfer(&mut a, &mut b, 500, 60);
        assert_eq!(a.check(&lab), BearerEvent::Stuck);
        drop(held);
        while a.check(&lab) != BearerEvent::Fine {
            a.bearer.reopen(&mut a.pool).unwrap();
            a.spread_over(vec![0, 1]);
        }
        let sent: Vec<_> = (a.bearer.info().queues.iter())
            .map(|q| q.tx_packets)
            .collect();
        assert!(sent[0] >= 500, "{sent:?}: it was never closed");
        transfer(&mut a, &mut b, 500, 60);
        assert_eq!(
            [on_queue(&a, 0).len(), on_queue(&a, 1).len()].iter().min(),
            Some(&1)
        );
        transfer(&mut b, &mut a, 500, 60);
        a.close(&lab);
        b.close(&lab);
    }
}

#[test]
fn a_closed_bearer_leaves_no_program_and_can_be_opened_again() {
    let Some(lab) = Lab::new(1500, 1) else { return };
    let before = lab.ip(0, "-d link");
    for xdp in MODES {
        for _ in 0..3 {
            let end = End::open(&lab, 0, &spec(INTERFACE), xdp);
            assert!(end.bearer.info().up);
            end.close(&lab);
        }
        lab.enter(0);
        let occupants = xtipc_ebpf::Interface::query(INTERFACE).unwrap().occupants;
        assert_eq!(occupants, []);
    }
    assert_eq!(lab.ip(0, "-d link"), before);
}
