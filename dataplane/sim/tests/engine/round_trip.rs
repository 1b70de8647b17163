//! What a link knows of its round trip (`docs/protocol/link.md`, round trip).

use super::link::{is_data, lose_once, pair};
use std::time::Duration;
use xtipc_protocol::addr::Destination;
use xtipc_protocol::engine::PathView;
use xtipc_sim::cluster::Cluster;

fn path(c: &Cluster) -> PathView {
    c.node(0).engine.path(c.addr(1))
}

#[test]
fn an_idle_link_measures_by_probes_and_forgets_what_was_before() {
    let mut c = Cluster::settled(90, 2);
    c.run_for(Duration::from_secs(11));
    let before = path(&c);
    assert!(before.up && !before.congested);
    let ms = Duration::from_millis;
    c.segment.delay_us = 20_000;
    c.run_for(Duration::from_secs(11));
    let trip = path(&c).round_trip.expect("probes were answered");
    assert_eq!(trip, ms(40));
    assert!(before.round_trip.expect("probes were answered") < ms(2));
    c.finish();
}

#[test]
fn a_busy_link_measures_by_acknowledgements_also_while_packets_are_lost() {
    let mut c = Cluster::settled(91, 2);
    let (port, to) = pair(&mut c);
    let ms = Duration::from_millis;
    c.segment.delay_us = 10_000;
    c.run_for(Duration::from_secs(11));
    let mut lost = 0;
    lose_once(&mut c, move |msg| {
        lost += u32::from(is_data(msg));
        is_data(msg) && lost.is_multiple_of(5)
    });
    for _ in 0..2000 {
        // In flight: what 20 ms of round trip and an acknowledgement for each 16th packet make.
        let _ = c.send(0, port, Destination::Socket(to), &[1; 1000][..]);
        c.run_for(ms(1));
        c.recv_all(1, to.port);
    }
    let seen = path(&c);
    let trip = seen.round_trip.expect("packets were acknowledged");
    assert_eq!(trip, ms(20));
    assert!(
        seen.in_flight > 0 && seen.mss > 1400 && seen.window >= 50,
        "{seen:?}"
    );
    assert!(c.link_view(0, 1).stats.retransmitted > 0);
    c.run_for(Duration::from_secs(2));
    c.finish();
}
