//! Mutated and random packets: no panic, no leak, and afterwards everything works.

use std::time::Duration;
use xtipc_protocol::addr::{Destination, MediaAddr};
use xtipc_protocol::wire::{Msg, field};
use xtipc_sim::cluster::{Cluster, range, service};
use xtipc_sim::host::FRAME_ROOM;
use xtipc_sim::rng::Rng;
use xtipc_sim::segment::mac_of;

const SERVICE: u32 = 5000;

/// Real packets of a busy pair, of every kind the engine sends.
fn corpus(seed: u64) -> Vec<(usize, usize, Vec<u8>)> {
    let mut c = Cluster::new(seed);
    c.segment.record = true;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    let (a, b) = (c.open(0), c.open(1));
    c.bind(1, b.port, (SERVICE, 0, 9));
    c.bind(0, a.port, (SERVICE, 5, 20));
    c.run_for(Duration::from_millis(100));
    c.segment.faults.loss = 100;
    for n in 0..150usize {
        let to = [
            Destination::Socket(b),
            service(SERVICE, 1),
            range(SERVICE, 0, 9),
        ][n % 3];
        let len = if n.is_multiple_of(40) { 5000 } else { 10 };
        let _ = c.send(0, a.port, to, &vec![1; len][..]);
    }
    c.run_for(Duration::from_secs(3));
    let now = c.now;
    c.with(0, |n| n.engine.stop(now, &mut n.host));
    let seen = c.segment.seen.iter();
    seen.map(|s| (s.from, s.to.unwrap_or(1 - s.from), s.bytes.clone()))
        .collect()
}

#[test]
fn mutated_packets_thrown_at_a_pair_do_no_lasting_harm() {
    let corpus = corpus(20);
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let mut c = Cluster::settled(20, 2);
        c.strict = false;
        for round in 0..20_000 {
            let (from, to, bytes) = &corpus[rng.below(corpus.len() as u64) as usize];
            let mut bytes = bytes.clone();
            for _ in 0..rng.below(4) {
                match rng.below(4) {
                    0 => {
                        let bit = rng.below(bytes.len() as u64 * 8) as usize;
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                    1 if bytes.len() >= 2 => {
                        // A header field becomes extreme.
                        let at = rng.below(bytes.len().min(60) as u64 / 2) as usize * 2;
                        let value = rng.pick(&[0u16, 1, 0x7fff, 0x8000, 0xffff]);
                        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
                    }
                    2 => bytes.truncate(rng.within(1..bytes.len() as u64 + 1) as usize),
                    _ => {
                        let more = rng.below((FRAME_ROOM + 1 - bytes.len()) as u64) as usize;
                        bytes.extend(std::iter::repeat_n(0x55, more));
                    }
                }
            }
            // Often what the link expects next, so that it gets past the first checks.
            if bytes.len() >= 12
                && rng.chance(500)
                && c.is_running(*to)
                && let Some(link) = c
                    .peer_view(*to, *from)
                    .and_then(|p| p.links.into_iter().next())
            {
                let ahead = rng.below(4) as u32;
                field::SEQNO.set(&mut bytes, link.stats.rx_packets + 1 + ahead);
            }
            c.receive(*to, mac_of(*from), &bytes);
            if round % 100 == 0 {
                c.run_for(Duration::from_millis(50));
            }
        }
        c.until(&format!("seed {seed}: the pair is up"), |c| {
            c.is_full_mesh()
        });
        c.run_for(Duration::from_secs(90));
        c.until(&format!("seed {seed}: the pair is up for good"), |c| {
            c.is_full_mesh()
        });
        let (a, b) = (c.open(0).port, c.open(1));
        c.bind(1, b.port, (SERVICE + 1, 0, 0));
        c.run_for(Duration::from_secs(1));
        for to in [
            Destination::Socket(b),
            service(SERVICE + 1, 0),
            range(SERVICE + 1, 0, 0),
        ] {
            c.send(0, a, to, &b"alive"[..]).unwrap();
        }
        c.run_for(Duration::from_secs(1));
        assert_eq!(c.texts(1, b.port), ["alive"; 3], "seed {seed}");
        c.finish();
    }
}

#[test]
fn random_bytes_are_only_counted() {
    let mut c = Cluster::settled(21, 2);
    let mut rng = Rng::new(21);
    for _ in 0..100_000 {
        let len = rng.below(120) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        if len >= 16 && rng.chance(900) {
            field::VERSION.set(&mut bytes, 2);
            field::SIZE.set(&mut bytes, len as u32);
            field::PREV_NODE.set(&mut bytes, c.addr(1).0);
        }
        let source = if rng.chance(500) {
            mac_of(1)
        } else {
            mac_of(9)
        };
        c.strict = false;
        c.receive(0, source, &bytes);
    }
    c.until("the link is up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(5));
    c.until("the link stays up", |c| c.is_full_mesh());
    c.finish();
}

#[test]
fn flipped_bits_on_the_wire_crash_nobody_and_leak_nothing() {
    for seed in 0..10 {
        let mut c = Cluster::settled(seed, 3);
        c.strict = false;
        c.segment.faults.corruption = 50;
        let sockets: Vec<_> = (0..3).map(|s| c.open(s)).collect();
        for n in 0..500u32 {
            let from = (n % 3) as usize;
            let to = Destination::Socket(sockets[(from + 1) % 3]);
            let _ = c.send(from, sockets[from].port, to, &[5; 700][..]);
            if n % 50 == 0 {
                c.bind(from, sockets[from].port, (SERVICE, n, n));
            }
            c.run_for(Duration::from_millis(10));
            for (station, socket) in sockets.iter().enumerate() {
                c.recv_all(station, socket.port);
            }
        }
        c.segment.faults.corruption = 0;
        c.until("up", |c| c.is_full_mesh());
        c.finish();
    }
}

#[test]
fn packets_for_a_node_without_an_address_or_a_bearer_do_nothing() {
    let corpus = corpus(22);
    let mut c = Cluster::new(22);
    c.start(0);
    for (_, _, bytes) in &corpus {
        c.receive(0, mac_of(1), bytes);
        assert!(Msg::check(bytes).is_ok());
        let now = c.now;
        c.with(0, |n| {
            let nowhere = xtipc_protocol::addr::BearerId(2);
            n.engine.on_packet(
                now,
                nowhere,
                MediaAddr::ethernet(mac_of(1)),
                bytes,
                &mut n.host,
            );
        });
    }
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.node(0).host.owned(), 0);
    c.finish();
}
