//! Service names: the binding table and the distribution of bindings between nodes.
//!
//! * [`binding_table`] - which sockets are bound to which service ranges, and the anycast and
//!   multicast lookups over them (`docs/protocol/names.md`);
//! * [`distribution`] - name items, bulk and update messages, and the receiver's ordering rules
//!   (§2 of the same page).
//!
//! Owned by the engine; pure state without I/O, clock or threads. Two tables that are fed the same
//! operations in the same order give the same answers, which is what replicas rely on.

mod admission;
pub mod binding_table;
pub mod distribution;
mod range_tree;
mod storage;
#[cfg(test)]
mod tests;

pub use admission::{Limits, PublishError};
pub use binding_table::{BindingTable, Change, Lookup, ScopeFilter};
pub use distribution::{
    Bulk, BulkMessage, Distributor, Item, NameFlags, NameMessage, Operation, Update, UpdateError,
    UpdateQueue,
};

/// Service type of the `{0, node, node}` binding by which a node makes itself known.
pub const NODE_STATE_TYPE: u32 = 0;
/// Service type of the topology server.
pub const TOP_SRV_TYPE: u32 = 1;
/// Service type of the `{2, peer, peer}` bindings, one for each working link.
pub const LINK_STATE_TYPE: u32 = 2;
/// Types below this cannot be bound by applications (they can be looked up and subscribed to).
pub const RESERVED_TYPES: u32 = 64;

/// A service type with an inclusive range of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceRange {
    /// Service type.
    pub type_: u32,
    /// First instance.
    pub lower: u32,
    /// Last instance.
    pub upper: u32,
}

impl ServiceRange {
    /// The range of the single instance `{type_, instance}`.
    pub const fn instance(type_: u32, instance: u32) -> Self {
        Self {
            type_,
            lower: instance,
            upper: instance,
        }
    }

    /// False for a range no instance is in (`lower > upper`), which no table holds.
    pub const fn is_valid(self) -> bool {
        self.lower <= self.upper
    }

    /// True if both have the same type and at least one instance in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.type_ == other.type_ && self.lower <= other.upper && other.lower <= self.upper
    }
}

/// How far a binding is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// On every node of the cluster.
    Cluster = 2,
    /// In the own node's table only; never distributed.
    Node = 3,
}

impl Scope {
    /// Scope of a bind request or header field: 3 is node, everything else counts as cluster.
    pub const fn from_wire(value: u32) -> Self {
        if value == Self::Node as u32 {
            Self::Node
        } else {
            Self::Cluster
        }
    }

    /// The number by which messages and the socket API know this scope.
    #[inline]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}

/// One binding: a socket (or the system itself) serves a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publication {
    /// What is bound.
    pub range: ServiceRange,
    /// How far it is visible. Always cluster when learned from a peer.
    pub scope: Scope,
    /// Port of the bound socket.
    pub port: u32,
    /// Node of the bound socket; 0 on a node that has no address yet.
    pub node: u32,
    /// Tells several bindings of one socket apart.
    pub key: u32,
}

impl Publication {
    /// The binding by which `node` makes itself known to the cluster, made once its address is
    /// final. Peers report "node up" because of it, so it must be in every bulk.
    pub const fn node_state(node: u32) -> Self {
        Self {
            range: ServiceRange::instance(NODE_STATE_TYPE, node),
            scope: Scope::Cluster,
            port: 0,
            node,
            key: node,
        }
    }

    /// The node-scope binding that stands for one working link to `peer`.
    pub const fn link_state(own_node: u32, peer: u32, own_bearer: u16, peer_bearer: u16) -> Self {
        let reference = (peer_bearer as u32) << 16 | own_bearer as u32;
        Self {
            range: ServiceRange::instance(LINK_STATE_TYPE, peer),
            scope: Scope::Node,
            port: reference,
            node: own_node,
            key: reference,
        }
    }
}
