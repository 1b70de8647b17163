//! `xtipc-bench code`: what the protocol code costs, without I/O.
//!
//! Prints, per operation, the median over rounds and the spread. The figures compare two builds on one machine in one
//! sitting; they are not latencies of a cluster.

use std::hint::black_box;
use std::time::Instant;

use xtipc_protocol::addr::NodeAddr;
use xtipc_protocol::name::{BindingTable, Lookup, Publication, Scope, ServiceRange};
use xtipc_protocol::wire::{
    DataType, GapAckRecord, GapBlock, Header, LinkProtocol, Msg, User, field, size,
};

const ROUNDS: usize = 11;

/// Runs `operation` in rounds of `count` and prints nanoseconds for each.
fn measure(what: &str, count: usize, mut operation: impl FnMut(usize)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(&mut operation);
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let (least, median, most) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("{what:<52} {median:>8.1} ns  ({least:.1} to {most:.1})");
}

fn direct_message() -> Vec<u8> {
    let mut header = Header::new(User::Low, DataType::Direct as u32, size::BASIC);
    header
        .set(field::PREV_NODE, 0x0100_1001)
        .set(field::ORIG_PORT, 1)
        .set(field::DEST_PORT, 2)
        .set(field::DEST_NODE, 0x0100_1002)
        .set_payload_len(64);
    let mut message = header.as_bytes().to_vec();
    message.resize(size::BASIC + 64, 7);
    message
}

fn state_message() -> Vec<u8> {
    let blocks = (0..8).map(|n| GapBlock {
        ack: 10 + n * 10,
        gap: u16::from(n < 7),
    });
    let gaps = GapAckRecord {
        broadcast: Default::default(),
        unicast: blocks.collect(),
    };
    let mut header = Header::internal(User::LinkProtocol, 0, 0x0100_1001, 0x0100_1002);
    header
        .set(field::SEQ_GAP, 1)
        .set_payload_len(gaps.wire_len());
    let mut message = header.as_bytes().to_vec();
    message.resize(size::INT + gaps.wire_len(), 0);
    gaps.emit(&mut message[size::INT..]);
    message
}

/// A table of `instances` single instances of one type, each bound by four nodes.
fn binding_table(instances: u32) -> BindingTable {
    let mut table = BindingTable::new(0x0100_1001, 1);
    for instance in 0..instances {
        for node in 0..4 {
            let publication = Publication {
                range: ServiceRange::instance(1000, instance),
                scope: Scope::Cluster,
                port: instance + 1,
                node: NodeAddr(0x0100_2000 + node).0,
                key: instance + 2,
            };
            table
                .publish(publication)
                .expect("the table is far below its limits");
        }
    }
    table
}

/// Measures and prints all of it.
pub(crate) fn run() {
    let message = direct_message();
    measure("check a 64-byte datagram", 1_000_000, |_| {
        black_box(Msg::check(black_box(&message))).expect("the message is well formed");
    });
    let state = state_message();
    measure("parse a STATE with eight gap-ack blocks", 200_000, |_| {
        let msg = Msg::check(black_box(&state)).expect("the message is well formed");
        black_box(LinkProtocol::parse(msg, true)).expect("the STATE is well formed");
    });
    for instances in [25, 25_000] {
        let mut table = binding_table(instances);
        let bindings = table.len();
        measure(
            &format!("look up an instance among {bindings} bindings"),
            200_000,
            |n| {
                let instance = (n as u32).wrapping_mul(2_654_435_761) % instances;
                assert_ne!(black_box(table.anycast(1000, instance, 0)), Lookup::None);
            },
        );
        println!(
            "    {} bytes for each binding",
            table.allocated_bytes() / bindings
        );
    }
}
