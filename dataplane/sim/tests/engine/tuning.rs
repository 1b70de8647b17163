//! Settings that are changed and bearers that go while the node runs.

use crate::link::{down_reasons, link_protocol, state};
use std::time::Duration;
use xtipc_protocol::addr::{BearerId, Destination};
use xtipc_protocol::engine::LinkView;
use xtipc_protocol::host::DownReason;
use xtipc_protocol::link::Setting;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::Fate;

const BEARER: BearerId = BearerId(0);

fn set_link(c: &mut Cluster, station: usize, peer: usize, setting: Setting) {
    let (now, node) = (c.now, c.addr(peer));
    let is_set = c.with(station, |n| {
        n.engine.set_link(now, node, BEARER, setting, &mut n.host)
    });
    assert!(is_set, "there is such a link");
}

fn link(c: &Cluster, of: usize, peer: usize) -> LinkView {
    c.link_view(of, peer)
}

#[test]
fn the_peer_adopts_a_tolerance_even_if_the_first_announcement_is_lost() {
    for tolerance_ms in [50, 700, 30_000] {
        let mut c = Cluster::settled(1, 2);
        let mut lost = false;
        c.segment.filter = Some(Box::new(move |flight| {
            let message = link_protocol(&flight.bytes);
            let announces = message.is_some_and(|m| state(&m).is_some() && m.tolerance_ms != 0);
            if announces && !std::mem::replace(&mut lost, true) {
                Fate::Lose
            } else {
                Fate::Pass
            }
        }));
        set_link(&mut c, 0, 1, Setting::Tolerance(tolerance_ms));
        assert_eq!(link(&c, 1, 0).tolerance_ms, 1500);
        c.run_for(Duration::from_millis(500));
        assert_eq!(link(&c, 1, 0).tolerance_ms, tolerance_ms);
        c.run_for(Duration::from_secs(5));
        assert_eq!(link(&c, 0, 1).tolerance_ms, tolerance_ms);
        assert_eq!(
            (down_reasons(&mut c, 0), down_reasons(&mut c, 1)),
            (vec![], vec![])
        );
        // And it counts: the other end is given up after it.
        let died = c.now;
        c.kill(1);
        c.until("given up", |c| {
            c.node(0).engine.peers().all(|peer| !peer.up)
        });
        let took = c.now.since(died);
        let tolerance = Duration::from_millis(tolerance_ms.into());
        assert!(took <= tolerance + Duration::from_millis(50), "{took:?}");
        assert!(took > tolerance / 2, "{took:?}");
    }
}

#[test]
fn a_priority_is_adopted_by_taking_the_link_down_and_up_once() {
    let mut c = Cluster::settled(2, 2);
    c.notices(0);
    c.notices(1);
    set_link(&mut c, 0, 1, Setting::Priority(12));
    c.run_for(Duration::from_secs(3));
    assert!(c.is_full_mesh());
    assert_eq!((link(&c, 0, 1).priority, link(&c, 1, 0).priority), (12, 12));
    assert_eq!(down_reasons(&mut c, 1), [DownReason::PriorityChange]);
    assert_eq!(down_reasons(&mut c, 0).len(), 1);
}

#[test]
fn a_window_is_the_most_there_is_from_then_on() {
    let mut c = Cluster::settled(3, 2);
    set_link(&mut c, 0, 1, Setting::Window(60));
    let (from, to) = crate::link::pair(&mut c);
    for round in 0..200 {
        for _ in 0..4 {
            let _ = c.send(
                0,
                from,
                Destination::Socket(to),
                &vec![round as u8; 20_000][..],
            );
        }
        c.run_for(Duration::from_millis(1));
        assert!(link(&c, 0, 1).window <= 60);
        c.recv_all(1, to.port);
    }
    assert_eq!(link(&c, 0, 1).window, 60, "it was used");
    assert_eq!(
        (link(&c, 0, 1).window_max, link(&c, 1, 0).window_max),
        (60, 8191)
    );
}

#[test]
fn a_bearer_that_is_removed_tells_its_peers_and_keeps_nothing() {
    let mut c = Cluster::settled(4, 3);
    let now = c.now;
    c.with(0, |n| n.engine.remove_bearer(now, BEARER, &mut n.host));
    assert_eq!(c.node(0).engine.bearer_params(BEARER), None);
    assert!(c.node(0).engine.peers().all(|peer| peer.links.is_empty()));
    c.run_for(Duration::from_millis(1));
    assert!(!c.is_up(1, 0) && !c.is_up(2, 0) && c.is_up(1, 2));
    assert_eq!(c.node(0).host.owned(), 0);
    c.segment.record = true;
    c.segment.seen.clear();
    c.run_for(Duration::from_secs(400));
    assert!(
        c.segment.seen.iter().all(|seen| seen.from != 0),
        "it still sends"
    );
    assert_eq!(
        c.node(0).engine.peers().count(),
        0,
        "its peers are forgotten after a while"
    );
}
