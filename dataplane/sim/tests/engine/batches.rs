//! Several messages handed over together: they go where they would go one by one.

use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::engine::{SendError, SentMany};
use xtipc_protocol::host::Payload;
use xtipc_protocol::wire::size;
use xtipc_sim::cluster::{Cluster, service};
use xtipc_sim::segment::Fate;

struct Owned(Vec<u8>);

impl Payload for Owned {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        self.0[..].copy_to(offset, out);
    }
}

/// Sends these from node 0; what came of it, and how many were taken.
fn send_many(
    c: &mut Cluster,
    from: PortId,
    to: Destination,
    messages: impl IntoIterator<Item = Vec<u8>>,
) -> (SentMany, usize) {
    let now = c.now;
    c.with(0, |node| {
        let mut taken = 0;
        let messages = messages.into_iter().inspect(|_| taken += 1).map(Owned);
        let host = &mut node.host;
        let done = node.engine.send_many(now, from, &to, messages, host);
        (done, taken)
    })
}

fn numbered(count: u8, len: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |number| vec![number; len])
}

fn all_sent(sent: usize) -> SentMany {
    SentMany {
        sent,
        ..SentMany::default()
    }
}

/// First bytes of what waits at a socket.
fn marks(c: &mut Cluster, station: usize, port: PortId) -> Vec<u8> {
    let received = c.recv_all(station, port);
    received.iter().map(|message| message.bytes[0]).collect()
}

#[test]
fn messages_of_any_size_come_in_order_and_small_ones_share_packets() {
    let mut c = Cluster::settled(80, 2);
    let (from, to) = (c.open(0).port, c.open(1));
    let lens = [64, 1, 64, 3000, 64, 64, 1400, 64];
    let before = c.link_view(0, 1).stats;
    c.gathering(0, |c| {
        let messages = lens.iter().enumerate();
        let messages = messages.map(|(number, len)| vec![number as u8; *len]);
        let (done, _) = send_many(c, from, Destination::Socket(to), messages);
        assert_eq!(done, all_sent(lens.len()));
    });
    c.run_for(Duration::from_millis(5));
    let received = c.recv_all(1, to.port);
    for (number, (message, len)) in received.iter().zip(lens).enumerate() {
        assert_eq!(message.bytes, vec![number as u8; len]);
    }
    assert_eq!(received.len(), lens.len());
    let after = c.link_view(0, 1).stats;
    assert!(after.tx_bundled >= before.tx_bundled + 4, "{after:?}");
    c.finish();
}

#[test]
fn of_several_sockets_each_gets_its_turn() {
    let mut c = Cluster::settled(81, 3);
    let from = c.open(0).port;
    let servers = [
        (1, c.open(1).port),
        (2, c.open(2).port),
        (0, c.open(0).port),
    ];
    for (station, port) in servers {
        c.bind(station, port, (5000, 1, 1));
    }
    c.run_for(Duration::from_secs(1));
    let (done, _) = send_many(&mut c, from, service(5000, 1), numbered(9, 64));
    assert_eq!(done, all_sent(9));
    c.run_for(Duration::from_millis(5));
    let got = servers.map(|(station, port)| marks(&mut c, station, port));
    for marks in &got {
        assert_eq!(marks.len(), 3, "{got:?}");
        assert!(marks.is_sorted_by_key(|mark| mark / 3), "{got:?}");
    }
    c.finish();
}

#[test]
fn a_congested_link_takes_as_many_as_it_does_one_by_one() {
    let taken = |together: bool| {
        let mut c = Cluster::settled(82, 2);
        let (from, to) = (c.open(0).port, c.open(1));
        c.segment.filter = Some(Box::new(|flight| match flight.from {
            1 => Fate::Lose,
            _ => Fate::Pass,
        }));
        let mut sent = 0;
        if together {
            let endless = std::iter::repeat_with(|| vec![1; 1300]);
            let (done, taken) = send_many(&mut c, from, Destination::Socket(to), endless);
            assert_eq!((done.failed, done.congested), (None, true));
            assert_eq!(
                taken,
                done.sent + 1,
                "the one that was refused, and none behind it"
            );
            sent = done.sent;
        } else {
            let to = Destination::Socket(to);
            while c.send(0, from, to, &[1; 1300][..]).is_ok() {
                sent += 1;
            }
        }
        let waits = c.node(0).engine.waiting(from).is_some();
        assert!(waits, "and its sender waits for it");
        c.segment.filter = None;
        c.run_for(Duration::from_secs(2));
        assert_eq!(c.recv_all(1, to.port).len(), sent);
        // What was refused once goes on where it stopped.
        let (done, _) = send_many(&mut c, from, Destination::Socket(to), numbered(2, 9));
        assert_eq!(done, all_sent(2));
        c.run_for(Duration::from_millis(5));
        assert_eq!(marks(&mut c, 1, to.port), [0, 1]);
        c.finish();
        sent
    };
    assert_eq!(taken(true), taken(false));
}

#[test]
fn one_that_cannot_be_sent_keeps_none_behind_it_from_being_sent() {
    let mut c = Cluster::settled(83, 2);
    let (from, to) = (c.open(0).port, c.open(1));
    let messages = [vec![1; 8], vec![2; size::MAX_PAYLOAD + 1], vec![3; 8]];
    let (done, _) = send_many(&mut c, from, Destination::Socket(to), messages);
    let too_long = SendError::TooLong(size::MAX_PAYLOAD + 1);
    assert_eq!(
        done,
        SentMany {
            sent: 2,
            failed: Some(too_long),
            congested: false
        }
    );
    c.run_for(Duration::from_millis(5));
    assert_eq!(marks(&mut c, 1, to.port), [1, 3]);

    let nowhere = SocketAddr {
        port: to.port,
        node: NodeAddr(0x0100_3333),
    };
    let (done, taken) = send_many(&mut c, from, Destination::Socket(nowhere), numbered(3, 8));
    let unreachable = SentMany {
        sent: 0,
        failed: Some(SendError::Unreachable),
        congested: false,
    };
    assert_eq!((done, taken), (unreachable, 3));
    c.finish();
}
