//! Tests of the binding table and of name distribution.

mod against_oracle;
mod binding_table;
mod delivery_order;
mod distribution;
mod scale;

use super::{Publication, Scope, ServiceRange};

const OWN: u32 = 0x0100_1001;
const PEER: u32 = 0x0100_1002;
const OTHER_PEER: u32 = 0x0100_1003;

fn range(type_: u32, lower: u32, upper: u32) -> ServiceRange {
    ServiceRange {
        type_,
        lower,
        upper,
    }
}

/// A cluster-scope binding whose key is derived from the port.
fn bound(range: ServiceRange, node: u32, port: u32) -> Publication {
    Publication {
        range,
        scope: Scope::Cluster,
        port,
        node,
        key: port + 1,
    }
}

fn node_scope(publication: Publication) -> Publication {
    Publication {
        scope: Scope::Node,
        ..publication
    }
}
