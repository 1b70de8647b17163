//! Sends a message to itself and receives it, `pair COUNT` times: for counting the instructions of that (`scripts/preload-cost`).

use anyhow::Context;
use xtipc::{Datagram, Kind, Node};

const LEN: usize = 64;

fn main() -> anyhow::Result<()> {
    let count: u64 = std::env::args()
        .nth(1)
        .context("pair COUNT")?
        .parse()
        .context("COUNT")?;
    let node = Node::attach()?;
    let socket = Datagram::open(&node, Kind::Rdm)?;
    let own = socket.local_addr()?;
    let mut bytes = [0; LEN];
    for _ in 0..count {
        socket.send_to(&bytes, own)?;
        bytes.copy_from_slice(&socket.recv()?);
    }
    Ok(())
}
