//! Executes situations on xtipc, by the C-shaped calls.
//!
//! Reads situations from standard input and prints them with the result of each step, as
//! `tests/differential/on_kernel.py` does on the kernel's sockets. `tests/differential/README.md` describes the steps.

mod jobs;
mod text;
mod world;

use std::io::Read;

use anyhow::Result;
use xtipc::Node;

use jobs::Situation;
use world::Nodes;

fn main() -> Result<()> {
    xtipc_test_signals::handle()?;
    let node = Node::attach()?;
    let far = std::env::var_os("XTIPC_FAR_SOCKET")
        .map(|path| Node::builder().socket_path(path).attach())
        .transpose()?;
    let nodes = Nodes { here: node, far };
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let mut situation = Situation::new(&nodes);
    for line in input.lines() {
        if line.starts_with("  ") {
            let result = situation.execute(line);
            println!("{line} -> {result}");
        } else {
            situation.close();
            nodes.settle()?;
            situation = Situation::new(&nodes);
            println!("{line}");
        }
    }
    situation.close();
    Ok(())
}
