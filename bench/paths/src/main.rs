//! `xtipc-paths PATH COUNT`: walks one hot path of the program so many times, and does nothing else that depends on the
//! count. `scripts/paths` runs it twice under callgrind: the difference is what one walk costs.

#![forbid(unsafe_code)]

mod channel;
mod embedded;
mod engine;
mod hop;
mod host;
mod receiving;
mod rings;

use std::hint::black_box;

use anyhow::{Context, Result, bail};
use xtipc_protocol::addr::NodeAddr;
use xtipc_protocol::name::{BindingTable, Lookup, Publication, Scope, ServiceRange};

/// Walks a path so many times.
type Walk = fn(u64);

/// All paths; their names are the argument.
const PATHS: [(&str, Walk); 19] = [
    ("message_single", |count| {
        engine::messages(count, 64, engine::Packets::One)
    }),
    ("message_bundled", |count| {
        engine::messages(count, 64, engine::Packets::Shared)
    }),
    ("message_of_batch", engine::messages_of_batches),
    ("message_1400", |count| {
        engine::messages(count, 1400, engine::Packets::One)
    }),
    ("message_fragmented", |count| {
        engine::messages(count, 10_000, engine::Packets::One)
    }),
    ("message_60000", |count| {
        engine::messages(count, 60_000, engine::Packets::One)
    }),
    ("message_local", engine::local_messages),
    ("message_connected", engine::connected_messages),
    ("idle_millisecond", engine::idle),
    ("look_up", look_up),
    ("rings", rings::requests_and_deliveries),
    ("rings_batch", rings::batches_and_deliveries),
    ("receive", |count| receiving::messages(count, 1)),
    ("receive_batch", |count| receiving::messages(count, 64)),
    ("channel", channel::messages),
    ("channel_batch", channel::batches),
    ("channel_loan", channel::loans),
    ("hop", hop::there_and_back),
    ("embedded", embedded::round_trips),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &arguments[..] else {
        let names = PATHS.map(|(name, _)| name);
        bail!("xtipc-paths PATH COUNT; paths: {}", names.join(", "));
    };
    let path = PATHS.iter().find(|(path, _)| path == name);
    let (_, walk) = path.with_context(|| format!("no path {name}"))?;
    walk(
        count
            .parse()
            .with_context(|| format!("{count} is no count"))?,
    );
    Ok(())
}

/// An instance among 1000 instances, each bound by four nodes.
fn look_up(count: u64) {
    const INSTANCES: u32 = 1000;
    let mut table = BindingTable::new(0x0100_1001, 1);
    for binding in 0..4 * INSTANCES {
        let (instance, node) = (binding / 4, binding % 4);
        let publication = Publication {
            range: ServiceRange::instance(1000, instance),
            scope: Scope::Cluster,
            port: instance + 1,
            node: NodeAddr(0x0100_2000 + node).0,
            key: instance + 2,
        };
        let published = table.publish(publication);
        published.expect("the table is far below its limits");
    }
    for number in 0..count {
        let instance = (number as u32).wrapping_mul(2_654_435_761) % INSTANCES;
        assert_ne!(black_box(table.anycast(1000, instance, 0)), Lookup::None);
    }
}
