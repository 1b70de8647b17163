//! Nodes whose process is stopped for a while, as SIGSTOP does.

use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId};
use xtipc_protocol::host::Notice;
use xtipc_sim::checks::tables_agree;
use xtipc_sim::cluster::{Cluster, range};

const SERVICE: u32 = 5000;
/// Packets that wait for a stopped process: an AF_XDP ring of the daemon.
const RING: usize = 2048;

fn links_lost(c: &mut Cluster) -> usize {
    let notices: Vec<_> = c
        .stations()
        .into_iter()
        .flat_map(|s| c.notices(s))
        .collect();
    let lost = |n: &&Notice| matches!(n, Notice::LinkDown(..));
    notices.iter().filter(lost).count()
}

/// A sender on node 0 and a receiver on node 1.
fn pair(c: &mut Cluster) -> (PortId, Destination, PortId) {
    let (from, to) = (c.open(0).port, c.open(1));
    c.bind(1, to.port, (SERVICE, 0, 99));
    c.with(1, |n| n.engine.set_receive_buffer(to.port, 16 << 20))
        .unwrap();
    c.run_for(Duration::from_secs(1));
    (from, Destination::Socket(to), to.port)
}

/// Sends numbered messages for a while, as fast as they are taken.
fn send_for(c: &mut Cluster, from: PortId, to: Destination, sent: &mut u32, ms: u64) {
    for _ in 0..ms {
        while c.send(0, from, to, &sent.to_be_bytes()[..]).is_ok() {
            *sent += 1;
            if sent.is_multiple_of(10) {
                break;
            }
        }
        c.run_for(Duration::from_millis(1));
    }
}

fn numbers(c: &mut Cluster, port: PortId) -> Vec<u32> {
    let number = |m: xtipc_sim::host::Received| u32::from_be_bytes(m.bytes[..].try_into().unwrap());
    c.recv_all(1, port).into_iter().map(number).collect()
}

#[test]
fn a_process_that_stands_still_for_a_second_keeps_its_links_and_loses_no_message() {
    for stopped in [0, 1] {
        let mut c = Cluster::settled(1, 3);
        let (from, to, port) = pair(&mut c);
        let mut sent = 0;
        send_for(&mut c, from, to, &mut sent, 20);
        links_lost(&mut c);
        // A ring too small for what arrives: the rest comes again.
        c.suspend(stopped, Duration::from_secs(1), 64);
        if stopped == 1 {
            send_for(&mut c, from, to, &mut sent, 1000);
        } else {
            c.run_for(Duration::from_secs(1));
        }
        send_for(&mut c, from, to, &mut sent, 20);
        c.run_for(Duration::from_secs(2));
        assert_eq!(links_lost(&mut c), 0);
        assert!(sent >= 400, "{sent}");
        let got = numbers(&mut c, port);
        let all = got.iter().copied().eq(0..sent);
        assert!(all, "{} messages of {sent}, or out of order", got.len());
        c.finish();
    }
}

#[test]
fn a_process_that_stood_still_for_ten_seconds_has_its_links_and_tables_within_one() {
    for seed in 0..10 {
        let mut c = Cluster::settled(seed, 4);
        let (from, to, _) = pair(&mut c);
        c.suspend(1, Duration::from_secs(10), RING);
        let mut sent = 0;
        send_for(&mut c, from, to, &mut sent, 500);
        // Who went on changes the tables meanwhile.
        let other = c.open(2).port;
        c.bind(2, other, (SERVICE, 100, 199));
        c.run_for(Duration::from_millis(9_500));
        assert!(!c.is_suspended(1) && !c.is_up(0, 1));
        assert!(c.reaches(Duration::from_secs(1), |c| c.is_full_mesh()
            && tables_agree(c)));
        c.send(0, from, range(SERVICE, 0, 200), &b"again"[..])
            .unwrap();
        c.run_for(Duration::from_secs(1));
        assert_eq!(c.texts(2, other), ["again"], "seed {seed}");
        c.finish();
    }
}
