//! Input meant to harm: nothing panics, nothing grows without bound, honest traffic goes on.
//!
//! Rows are those of `docs/protocol/limits-and-hostile-input.md`. The attacker is a peer with a link of its own
//! (node 1 of three), or any station; nodes 0 and 2 are honest.

use super::link::link_protocol;
use std::time::Duration;
use xtipc_protocol::addr::{BearerId, Destination, PortId, SocketAddr};
use xtipc_protocol::host::{DownReason, Notice};
use xtipc_protocol::link::fsm::LinkState;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{Header, LinkProtocol, User, field, size};
use xtipc_sim::cluster::{Cluster, NET_ID, range, service};
use xtipc_sim::segment::mac_of;

const SERVICE: u32 = 5000;

/// A cluster of three whose node 1 is about to misbehave.
struct Siege {
    c: Cluster,
    server: SocketAddr,
    client: PortId,
    sent: u32,
}

impl Siege {
    fn new(seed: u64) -> Self {
        let mut c = Cluster::settled(seed, 3);
        let server = c.open(0);
        c.bind(0, server.port, (SERVICE, 0, 9));
        let client = c.open(2).port;
        c.run_for(Duration::from_secs(1));
        c.notices(0);
        c.notices(2);
        // What a mutated packet makes an engine answer need not be pretty.
        c.strict = false;
        Self {
            c,
            server,
            client,
            sent: 0,
        }
    }

    /// A header of the attacker for the victim, with the next number of its link.
    fn header(&self, user: User, kind: u32, len: usize) -> Header {
        let mut header = Header::new(user, kind, len);
        header.set(field::PREV_NODE, self.c.addr(1).0);
        if len > size::SHORT {
            header
                .set(field::ORIG_NODE, self.c.addr(1).0)
                .set(field::DEST_NODE, self.c.addr(0).0);
        }
        header
    }

    /// The victim's state of the attacker's link, as its STATE messages tell it.
    fn told(&mut self) -> LinkProtocol<'static> {
        self.c.segment.seen.clear();
        self.c.segment.record = true;
        let told = |c: &Cluster| {
            let to_attacker = c
                .segment
                .seen
                .iter()
                .rev()
                .filter(|s| s.from == 0 && s.to == Some(1));
            to_attacker.filter_map(|s| link_protocol(&s.bytes)).next()
        };
        self.c.until("a STATE of the victim", |c| told(c).is_some());
        self.c.segment.record = false;
        told(&self.c).expect("just seen")
    }

    /// Number the victim expects next on the attacker's link.
    fn next(&mut self) -> u32 {
        u32::from(self.told().ack.wrapping_add(1))
    }

    fn strike(&mut self, header: &Header, payload: &[u8]) {
        let mut header = *header;
        header.set_payload_len(payload.len());
        self.strike_raw(&[header.as_bytes(), payload].concat());
    }

    fn strike_raw(&mut self, bytes: &[u8]) {
        self.c.receive(0, mac_of(1), bytes);
    }

    /// Honest traffic between nodes 0 and 2 goes on, and their link has never been down.
    fn check(&mut self) {
        for text in ["by name", "by socket", "to all"] {
            let to = match self.sent % 3 {
                0 => service(SERVICE, 3),
                1 => Destination::Socket(self.server),
                _ => range(SERVICE, 0, 5),
            };
            self.sent += 1;
            self.c.send(2, self.client, to, text.as_bytes()).unwrap();
        }
        self.c.run_for(Duration::from_secs(2));
        let got = self.c.recv_all(0, self.server.port);
        let honest = got
            .iter()
            .filter(|m| m.about.source.node == self.c.addr(2))
            .count();
        assert_eq!(honest, 3, "{got:?}");
        let honest_node = self.c.addr(2);
        let notices = self.c.notices(0);
        let hurt = |n: &&Notice| matches!(n, Notice::LinkDown(node, ..) if *node == honest_node);
        assert!(!notices.iter().any(|n| hurt(&n)), "{notices:?}");
    }

    fn drops(&self, reason: Drop) -> u64 {
        self.c.node(0).engine.drops().get(reason)
    }

    fn frames(&self) -> usize {
        self.c.node(0).host.owned()
    }

    fn end(mut self) {
        self.check();
        self.c.kill(1);
        self.c.run_for(Duration::from_secs(5));
        assert_eq!(
            self.frames(),
            0,
            "what the attacker pinned is free after it left"
        );
        self.c.finish();
    }
}

#[test]
fn h01_to_h03_headers_and_sizes_that_cannot_be_are_dropped() {
    let mut s = Siege::new(1);
    let good = s.header(User::Low, 3, size::BASIC);
    let before = s.drops(Drop::Malformed);
    let mut count = 0;
    for user in 0..16u32 {
        for kind in 0..8u32 {
            for words in 0..16u32 {
                for stated in [0, 23, 24, 40, 76, 2000, 66_061, 0x1_ffff] {
                    let mut bytes = [good.as_bytes(), &[0xff; 60][..]].concat();
                    field::USER.set(&mut bytes, user);
                    field::TYPE.set(&mut bytes, kind);
                    field::HEADER_WORDS.set(&mut bytes, words);
                    field::SIZE.set(&mut bytes, stated);
                    for non_seq in [0, 1] {
                        field::NON_SEQ.set(&mut bytes, non_seq);
                        s.strike_raw(&bytes);
                        s.strike_raw(&bytes[..bytes.len().min(30)]);
                        count += 1;
                    }
                }
            }
        }
    }
    assert!(s.drops(Drop::Malformed) - before > count / 2);
    for len in 0..60 {
        s.strike_raw(&vec![0x41; len]);
    }
    s.end();
}

#[test]
fn h04_h05_bundles_that_lie_or_nest_deliver_only_their_honest_part() {
    let mut s = Siege::new(2);
    let mut inner = s.header(User::Low, 3, size::BASIC);
    let port = s.server.port.0;
    inner.set(field::DEST_PORT, port).set(field::ORIG_PORT, 9);
    let message = |h: &Header, text: &[u8]| {
        let mut h = *h;
        h.set_payload_len(text.len());
        let mut bytes = [h.as_bytes(), text].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0xee);
        bytes
    };
    let mut payloads = vec![vec![], vec![0; 23], vec![0xff; 60]];
    for stated in [0u32, 23, 31, 5000] {
        let mut broken = message(&inner, b"never");
        field::SIZE.set(&mut broken, stated);
        payloads.push(
            [
                message(&inner, b"honest"),
                broken,
                message(&inner, b"behind"),
            ]
            .concat(),
        );
    }
    for user in [
        User::MsgBundler,
        User::TunnelProtocol,
        User::MsgFragmenter,
        User::BcastProtocol,
        User::LinkProtocol,
    ] {
        let nested = s.header(user, 0, size::INT);
        payloads.push(
            [
                message(&nested, &message(&inner, b"nested")),
                message(&inner, b"beside"),
            ]
            .concat(),
        );
    }
    for (next, payload) in (s.next()..).zip(&payloads) {
        let mut bundle = s.header(User::MsgBundler, 0, size::INT);
        bundle.set(field::SEQNO, next).set(field::MSG_COUNT, 0xffff);
        s.strike(&bundle, payload);
    }
    let got: Vec<_> = s.c.texts(0, s.server.port);
    assert_eq!(
        got,
        [
            "honest", "honest", "honest", "honest", "beside", "beside", "beside", "beside",
            "beside"
        ]
    );
    assert_eq!(s.drops(Drop::UnexpectedUser), 5);
    s.end();
}

#[test]
fn h08_h09_cve_2024_36886_fragments_out_of_order_fail_the_link_and_leave_nothing() {
    let whole = |stated: usize| {
        let mut h = Header::new(User::Low, 3, size::BASIC);
        h.set_payload_len(stated - size::BASIC);
        [h.as_bytes(), &[7; 500][..]].concat()
    };
    let mut broken = whole(900);
    field::VERSION.set(&mut broken, 0);
    // (kind, data) in order; the last one of each breaks the assembly.
    let attacks: Vec<Vec<(u32, Vec<u8>)>> = vec![
        vec![(1, vec![1; 100])],
        vec![(2, vec![1; 100])],
        vec![(0, whole(900)), (0, whole(900))],
        vec![(0, whole(900)), (2, vec![1; 10])],
        vec![(0, whole(900)), (1, vec![1; 600])],
        vec![(0, whole(900)[..3].to_vec())],
        vec![(0, vec![])],
        vec![(0, broken)],
        vec![(0, whole(66_032)), (1, vec![1; 1400]), (2, vec![1; 1400])],
    ];
    let mut s = Siege::new(3);
    for attack in attacks {
        s.c.until("the attacker's link is up", |c| {
            c.is_up(0, 1) && c.is_up(1, 0)
        });
        s.c.run_for(Duration::from_secs(1));
        s.c.notices(0);
        for (next, (kind, data)) in (s.next()..).zip(attack) {
            let mut h = s.header(User::MsgFragmenter, kind, size::INT);
            h.set(field::SEQNO, next);
            s.strike(&h, &data);
        }
        let node = s.c.addr(1);
        assert!(s.c.notices(0).contains(&Notice::LinkDown(
            node,
            DownReason::Reassembly,
            BearerId(0)
        )));
    }
    s.end();
}

#[test]
fn h08_endless_empty_fragments_change_nothing() {
    let mut s = Siege::new(4);
    let mut next = s.next();
    let mut first = Header::new(User::Low, 3, size::BASIC);
    first.set_payload_len(66_000);
    for n in 0..20_000 {
        let mut h = s.header(User::MsgFragmenter, u32::from(n > 0), size::INT);
        h.set(field::SEQNO, next);
        next = (next + 1) & 0xffff;
        s.strike(&h, if n == 0 { first.as_bytes() } else { &[] });
    }
    assert!(s.frames() < 10);
    s.end();
}

#[test]
fn h10_a_number_that_never_comes_pins_a_share_of_the_frames_only() {
    let mut s = Siege::new(5);
    let next = s.next();
    let total = s.c.recipe.frames;
    let before = s.drops(Drop::Duplicate);
    for ahead in [8192, 20_000, 40_000, 65_000] {
        let mut h = s.header(User::Low, 3, size::BASIC);
        h.set(field::SEQNO, (next + ahead) & 0xffff);
        s.strike(&h, b"beyond the window");
    }
    assert_eq!((s.drops(Drop::Duplicate) - before, s.frames()), (4, 0));
    for ahead in 2..8191 {
        let mut h = s.header(User::Low, 3, size::BASIC);
        h.set(field::SEQNO, (next + ahead) & 0xffff);
        s.strike(&h, &[0; 1400]);
    }
    assert!(
        s.frames() <= total / 4,
        "{} of {total} frames are pinned",
        s.frames()
    );
    assert!(s.drops(Drop::DeferredLimit) > 0);
    // The broadcast link is bounded by its window.
    for ahead in 2..8000 {
        let mut h = s.header(User::Low, 1, size::MCAST);
        h.set(field::NON_SEQ, 1)
            .set(field::BROADCAST_NET_ID, NET_ID)
            .set(field::SEQNO, ahead);
        h.set(field::DEST_NODE, 0);
        s.strike(&h, &[0; 1400]);
    }
    assert!(s.frames() <= total / 4 + 50);
    s.check();
    s.end();
}

#[test]
fn h11_acknowledging_what_was_never_sent_releases_nothing() {
    let mut s = Siege::new(6);
    s.c.segment.cut(0, 1);
    let to = s.c.open(1);
    for _ in 0..10 {
        s.c.send(0, s.server.port, Destination::Socket(to), &[1; 800][..])
            .unwrap();
    }
    s.c.segment.heal();
    let held = s.frames();
    assert!(held >= 10);
    let before = s.drops(Drop::ImpossibleAck);
    for ack in [1000, 30_000] {
        let mut h = s.header(User::Low, 3, size::BASIC);
        let next = s.c.link_view(0, 1).stats.rx_packets + 1;
        h.set(field::SEQNO, next)
            .set(field::ACK, ack)
            .set(field::BCAST_ACK, 999)
            .set(field::DEST_PORT, 1);
        s.strike(&h, b"x");
    }
    assert!(s.frames() >= held, "nothing was released");
    assert!(s.drops(Drop::ImpossibleAck) - before >= 2);
    s.c.run_for(Duration::from_secs(1));
    s.end();
}

#[test]
fn h11_packets_outside_the_window_acknowledge_no_broadcasts() {
    let mut s = Siege::new(17);
    let from = s.c.open(0).port;
    for station in [1, 2] {
        let member = s.c.open(station).port;
        s.c.bind(station, member, (SERVICE, 50, 50));
    }
    s.c.run_for(Duration::from_secs(1));
    let told = s.told();
    s.c.segment.cut(0, 1);
    s.c.with(0, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Broadcast)
    });
    for _ in 0..10 {
        s.c.send(0, from, range(SERVICE, 50, 50), &b"to all"[..])
            .unwrap();
    }
    let held = |s: &Siege| s.c.node(0).engine.broadcast_link().queue_len;
    assert_eq!(held(&s), 10);
    let before = s.drops(Drop::Duplicate);
    for (n, behind) in [1, 2, 1000, 20_000].into_iter().enumerate() {
        let mut h = s.header(User::Low, 3, size::BASIC);
        h.set(field::SEQNO, u32::from((told.ack + 1).wrapping_sub(behind)))
            .set(field::ACK, u32::from(told.next_sent) - 1)
            .set(field::BCAST_ACK, u32::from(told.last_bcast) + 1 + n as u32)
            .set(field::DEST_PORT, 1);
        s.strike(&h, b"x");
    }
    assert_eq!(s.drops(Drop::Duplicate) - before, 4);
    s.c.run_for(Duration::from_millis(600));
    assert_eq!(held(&s), 10, "node 2 has all, node 1 none of them");
    s.c.segment.heal();
    s.c.run_for(Duration::from_secs(1));
    assert_eq!(held(&s), 0, "now it has");
    s.end();
}

#[test]
fn h12_h32_states_with_impossible_records_change_nothing() {
    let mut s = Siege::new(7);
    let told = s.told();
    s.c.segment.seen.clear();
    s.c.segment.record = true;
    s.c.run_for(Duration::from_secs(1));
    let from_attacker = |p: &&xtipc_sim::segment::Seen| p.from == 1 && p.to == Some(0);
    let state =
        s.c.segment
            .seen
            .iter()
            .filter(from_attacker)
            .filter_map(|p| link_protocol(&p.bytes))
            .next_back()
            .unwrap();
    s.c.segment.record = false;
    let mut records: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0, 4], vec![0, 4, 0]];
    // CVE-2026-64450: consistent in itself, longer than the message.
    records.push(vec![4, 0, 0, 0xff]);
    records.push(vec![4, 0, 0xff, 0]);
    records.push(vec![0, 3, 0, 0]);
    records.push(vec![0xff, 0xff, 0xff, 0xff]);
    let mut numbered = |record: &[u8], step: u32, gap: u32| {
        let mut h = s.header(User::LinkProtocol, 0, size::INT);
        h.set(field::SESSION, state.session.into())
            .set(field::SEQNO, u32::from(state.seqno) + step)
            .set(field::ACK, u32::from(told.next_sent) - 1)
            .set(field::NEXT_SENT, u32::from(told.ack) + 1)
            .set(field::SEQ_GAP, gap)
            .set(field::BC_GAP, gap & 0x3ff)
            .set(field::PROBE, 0);
        s.strike(&h, record);
    };
    for (step, record) in records.iter().enumerate() {
        numbered(record, 1 + step as u32, 0);
    }
    // Blocks that do not ascend, full counts, gaps beyond everything.
    for step in 0..1000u32 {
        let count = 1 + (step % 255) as usize;
        let len = 4 + 4 * count;
        let mut record = vec![(len >> 8) as u8, len as u8, count as u8, 0];
        record.extend((0..count * 4).map(|n| (n as u32 * step) as u8));
        numbered(&record, 100 + step, 0x1fff);
    }
    s.check();
    assert!(s.drops(Drop::MalformedControl) >= 8);
    s.end();
}

#[test]
fn h13_h19_other_stations_cannot_speak_for_a_peer() {
    let mut s = Siege::new(8);
    let before = s.drops(Drop::ForeignStation);
    for session in 0..200u32 {
        let mut h = s.header(User::LinkProtocol, 1, size::INT);
        h.set(field::PREV_NODE, s.c.addr(2).0)
            .set(field::SESSION, session * 300)
            .set(field::MAX_PKT, 375)
            .set_payload_len(16);
        let bytes = [h.as_bytes(), &[0; 16]].concat();
        s.c.receive(0, mac_of(1), &bytes);
        s.c.receive(0, mac_of(77), &bytes);
    }
    let mut data = s.header(User::Low, 3, size::BASIC);
    data.set(field::PREV_NODE, s.c.addr(2).0)
        .set(field::DEST_PORT, s.server.port.0);
    data.set(field::SEQNO, 5).set_payload_len(2);
    s.c.receive(0, mac_of(1), &[data.as_bytes(), b"hi"].concat());
    assert_eq!(s.drops(Drop::ForeignStation) - before, 401);
    s.end();
}

#[test]
fn cve_2023_1390_a_tiny_mtu_is_not_taken() {
    let mut s = Siege::new(9);
    for max_packet in [0, 1, 24] {
        let now = s.c.now;
        s.c.with(0, |n| n.engine.stop(now, &mut n.host));
        for kind in [1, 2] {
            let mut h = s.header(User::LinkProtocol, kind, size::INT);
            h.set(field::SESSION, 0x7000)
                .set(field::MAX_PKT, max_packet);
            s.strike(&h, &[0; 16]);
        }
        let link = s.c.link_view(0, 1);
        assert_eq!((link.state, link.mtu), (LinkState::Reset, 1500));
        s.c.until("up", |c| c.is_full_mesh());
    }
    // The smallest legal one works, bindings and all.
    let mut c = Cluster::new(10);
    c.start(0);
    c.recipe.mtu = 100;
    c.start(1);
    let socket = c.open(0).port;
    (0..100).for_each(|n| c.bind(0, socket, (SERVICE, n, n)));
    c.until("up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(5));
    assert_eq!(
        c.node(1)
            .engine
            .publications()
            .filter(|p| p.range.type_ == SERVICE)
            .count(),
        100
    );
    let there = c.open(1);
    c.send(0, socket, Destination::Socket(there), &[3; 28][..])
        .unwrap();
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.recv(1, there.port).unwrap().bytes, [3; 28]);
    c.finish();
    s.c.notices(0);
    s.c.run_for(Duration::from_secs(1));
    s.end();
}

#[test]
fn cve_2025_37757_messages_to_ports_that_do_not_exist_never_take_a_link_down() {
    let mut s = Siege::new(11);
    let mut next = s.next();
    // The attacker does not acknowledge what comes back.
    s.c.segment.cuts.insert((0, 1));
    for _ in 0..20_000 {
        let mut h = s.header(User::ConnManager, 0, size::INT);
        h.set(field::SEQNO, next)
            .set(field::DEST_PORT, 9)
            .set(field::ORIG_PORT, 10);
        next = (next + 1) & 0xffff;
        s.strike(&h, &[0; 1000]);
    }
    assert!(s.drops(Drop::ReturnOverflow) > 10_000);
    assert!(s.frames() < s.c.recipe.frames / 2);
    assert!(s.c.is_up(0, 1));
    s.check();
    s.c.segment.heal();
    s.end();
}

#[test]
fn h20_to_h23_bindings_a_peer_may_not_make_are_refused() {
    let mut s = Siege::new(12);
    let (own, peer) = (s.c.addr(0).0, s.c.addr(1).0);
    let mut next = s.next();
    let item = |w: [u32; 5]| w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
    let before = s.c.node(0).engine.publications().count();
    let mut publish = |s: &mut Siege, origin: u32, flags: (u32, u32), number: u32, items: &[u8]| {
        let mut h = s.header(User::NameDistributor, 0, size::INT);
        h.set(field::SEQNO, next)
            .set(field::ORIG_NODE, origin)
            .set(field::BULK, flags.0)
            .set(field::LAST_BULK, flags.1)
            .set(field::NON_LEGACY, 1)
            .set(field::BC_ACK_INVALID, 1)
            .set(field::NAMED_SEQNO, number);
        next = (next + 1) & 0xffff;
        s.strike(&h, items);
    };
    // Another origin, the victim itself as origin, empty ranges, system types, a torn item.
    for origin in [own, 0, 77] {
        publish(&mut s, origin, (1, 0), 0, &item([SERVICE, 1, 1, 5, 5]));
    }
    let bad = [
        [SERVICE, 10, 5, 1, 1],
        [1, 1, 1, 1, 1],
        [2, own, own, 1, 1],
        [0, own, own, 0, own],
    ];
    for words in bad {
        publish(&mut s, peer, (1, 0), 0, &item(words));
    }
    publish(&mut s, peer, (1, 0), 0, &item([SERVICE, 1, 1, 5, 5])[..19]);
    assert_eq!(s.c.node(0).engine.publications().count(), before);
    // H-22: updates whose predecessor never comes: in the end the link is reset and all is forgotten.
    for number in 0..6000u32 {
        publish(
            &mut s,
            peer,
            (0, 0),
            1000 + number,
            &item([SERVICE, 1, 1, 5, 5]),
        );
    }
    let node = s.c.addr(1);
    assert!(
        s.c.notices(0)
            .contains(&Notice::LinkDown(node, DownReason::Overflow, BearerId(0)))
    );
    s.c.until("up again", |c| c.is_full_mesh());
    s.c.run_for(Duration::from_secs(1));
    assert_eq!(s.c.node(0).engine.publications().count(), before);
    // H-20: no more than a node can have.
    let mut next = s.next();
    for batch in 0..1000u32 {
        let mut h = s.header(User::NameDistributor, 0, size::INT);
        h.set(field::SEQNO, next)
            .set(field::BULK, 1)
            .set(field::NON_LEGACY, 1)
            .set(field::BC_ACK_INVALID, 1);
        next = (next + 1) & 0xffff;
        let items: Vec<u8> = (0..71)
            .flat_map(|n| item([SERVICE + 1, batch * 71 + n, batch * 71 + n, 1, n]))
            .collect();
        s.strike(&h, &items);
    }
    assert!(s.c.node(0).engine.publications().count() <= before + 65_535);
    s.end();
}

#[test]
fn nothing_of_a_bundle_enters_the_table_after_it_took_the_link_down() {
    let mut s = Siege::new(13);
    let peer = s.c.addr(1).0;
    let next = s.next();
    // 4096 updates that wait, and in the same bundle the one too many, and a bulk.
    let update = |s: &Siege, bulk: u32, number: u32, instance: u32| {
        let mut h = s.header(User::NameDistributor, 0, size::INT);
        h.set(field::BULK, bulk)
            .set(field::NON_LEGACY, 1)
            .set(field::NAMED_SEQNO, number);
        h.set(field::BC_ACK_INVALID, 1).set_payload_len(20);
        let words = [SERVICE + 9, instance, instance, 1, 1];
        let item: Vec<u8> = words.iter().flat_map(|w: &u32| w.to_be_bytes()).collect();
        [h.as_bytes(), &item].concat()
    };
    for n in 0..4095 {
        let mut bytes = update(&s, 0, 2000 + n, n);
        field::SEQNO.set(&mut bytes, next + n);
        s.strike_raw(&bytes);
    }
    let inner = [
        update(&s, 0, 7000, 1),
        update(&s, 0, 7001, 1),
        update(&s, 1, 0, 2),
    ]
    .concat();
    let mut bundle = s.header(User::MsgBundler, 0, size::INT);
    bundle
        .set(field::SEQNO, next + 4095)
        .set(field::MSG_COUNT, 3);
    s.strike(&bundle, &inner);
    assert!(!s.c.is_up(0, 1));
    let left =
        s.c.node(0)
            .engine
            .publications()
            .filter(|p| p.node == peer && p.range.type_ != 2)
            .count();
    assert_eq!(left, 0);
    s.c.until("up again", |c| c.is_full_mesh());
    s.end();
}

#[test]
fn h07_h39_users_and_types_that_never_come_from_outside_are_dropped() {
    let mut s = Siege::new(14);
    let mut next = s.next();
    for user in [
        User::System,
        User::MsgCrypto,
        User::TopSrv,
        User::LinkConfig,
        User::GroupProtocol,
    ] {
        let len = if user == User::LinkConfig {
            size::MAX
        } else {
            size::INT
        };
        let mut h = s.header(user, 0, len);
        h.set(field::SEQNO, next);
        s.strike(&h, b"xxxx");
        if user != User::LinkConfig {
            next += 1;
        }
    }
    for kind in 0..8 {
        for errcode in [0, 1, 4, 15] {
            for reroute in [0, 1, 15] {
                let mut h = s.header(User::Critical, kind, size::MAX);
                h.set(field::SEQNO, next)
                    .set(field::ERRCODE, errcode)
                    .set(field::REROUTE_COUNT, reroute)
                    .set(field::NAME_TYPE, SERVICE + 5)
                    .set(field::ORIG_NODE, s.c.addr(0).0)
                    .set(field::SYN, u32::from(kind == 1));
                next += 1;
                s.strike(&h, &[0; 64]);
            }
        }
    }
    assert!(s.c.is_up(0, 1));
    s.c.recv_all(0, s.server.port);
    s.end();
}

#[test]
fn h43_a_second_start_point_is_ignored() {
    let mut s = Siege::new(15);
    let next = s.next();
    for (n, last) in [7u32, 65_535, 0].into_iter().enumerate() {
        let mut h = s.header(User::BcastProtocol, 0, size::INT);
        h.set(field::SEQNO, next + n as u32)
            .set(field::LAST_BCAST, last)
            .set(field::BC_ACK_INVALID, 1);
        s.strike(&h, &[]);
    }
    // The attacker's own broadcasts still arrive where they were.
    let from = s.c.open(1).port;
    s.c.run_for(Duration::from_secs(1));
    let now = s.c.now;
    s.c.with(1, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted =
            Some(xtipc_protocol::port::McastMethod::Broadcast);
        n.engine
            .send(now, from, &range(SERVICE, 0, 5), &b"ok"[..], &mut n.host)
            .unwrap();
    });
    s.c.run_for(Duration::from_millis(1));
    assert_eq!(s.c.texts(0, s.server.port), ["ok"]);
    s.end();
}

#[test]
fn h45_what_ethernet_padded_is_cut_off() {
    let mut s = Siege::new(16);
    let next = s.next();
    let mut h = s.header(User::Low, 3, size::BASIC);
    h.set(field::SEQNO, next)
        .set(field::DEST_PORT, s.server.port.0)
        .set_payload_len(2);
    s.strike_raw(&[h.as_bytes(), b"hi", &[0xaa; 100]].concat());
    assert_eq!(s.c.texts(0, s.server.port), ["hi"]);
    s.end();
}
