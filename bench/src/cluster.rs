//! What an idle node's engine costs among many: clusters of engines in simulated time.
//!
//! All engines run one after the other in this process. What they take, with the simulated wire between them, over the
//! simulated time and the number of nodes, is the share of a processor of one node.

use std::time::{Duration, Instant};

use xtipc_sim::cluster::Cluster;

/// Simulated time that is measured.
const SPAN: Duration = Duration::from_secs(3);

/// Of a processor, by one of so many nodes that have links to all others.
pub(crate) fn idle_share(nodes: usize) -> f64 {
    let mut cluster = Cluster::settled(1, nodes);
    cluster.strict = false;
    let begun = Instant::now();
    cluster.run_for(SPAN);
    begun.elapsed().as_secs_f64() / SPAN.as_secs_f64() / nodes as f64
}
