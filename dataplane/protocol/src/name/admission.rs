//! Which publications the binding table lets in.
//!
//! Own ones are checked as Linux does. Peers are not trusted: what one of them may publish, and how
//! much, is limited here where Linux accepts anything. Reference:
//! `docs/protocol/names.md` and rows H-20, H-23 of
//! `docs/protocol/limits-and-hostile-input.md`.

use super::{LINK_STATE_TYPE, NODE_STATE_TYPE, Publication, Scope, ServiceRange, TOP_SRV_TYPE};
use thiserror::Error;

/// How many bindings the table accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Own bindings, not counting the system's (types 0, 1 and 2).
    pub own: u32,
    /// Bindings learned from one peer. A Linux node has 65534 of sockets and its NODE_STATE.
    pub per_peer: u32,
    /// Bindings learned from all peers together: 100 to 160 bytes each.
    pub learned: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            own: 65_534,
            per_peer: 65_535,
            learned: 1 << 20,
        }
    }
}

/// Why a publication was refused. The table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// No instance is in the range.
    #[error("range {0}..{1} is empty: lower must not be above upper")]
    EmptyRange(u32, u32),
    /// The same range, port, node and key is there already.
    #[error("this range, port, node and key is already published")]
    Duplicate,
    /// The own node has as many bindings as it may have.
    #[error("this node already has {0} bindings, the most it may have")]
    OwnLimit(u32),
    /// The peer has published as much as is accepted from one.
    #[error("peer {0:#x} already has {1} bindings, the most accepted from one peer")]
    PeerLimit(u32, u32),
    /// The peers together have published as much as is accepted.
    #[error("{0} bindings were learned from peers, the most accepted")]
    LearnedLimit(u32),
    /// A type that only the system itself binds (a peer may publish `{0, peer, peer}` of these).
    #[error("peer {0:#x} may not publish service type {1} with this range")]
    ReservedType(u32, u32),
    /// A node-scope binding of another node.
    #[error("a binding of peer {0:#x} must have cluster scope")]
    ForeignNodeScope(u32),
    /// Node 0 is nobody once the own node has a number.
    #[error("a binding must name the node of its socket, not 0")]
    NoNode,
}

impl Limits {
    /// `own_count` is the number of own bindings that count.
    pub(super) fn admit_own(
        &self,
        range: ServiceRange,
        own_count: u32,
    ) -> Result<(), PublishError> {
        if counts_for_own_limit(range.type_) && own_count >= self.own {
            return Err(PublishError::OwnLimit(self.own));
        }
        Ok(())
    }

    /// The counts are those of bindings learned so far.
    pub(super) fn admit_learned(
        &self,
        publication: Publication,
        from_this_peer: u32,
        from_all_peers: u32,
    ) -> Result<(), PublishError> {
        let Publication {
            range,
            scope,
            node: peer,
            ..
        } = publication;
        if peer == 0 {
            return Err(PublishError::NoNode);
        }
        if scope != Scope::Cluster {
            return Err(PublishError::ForeignNodeScope(peer));
        }
        let reserved = match range.type_ {
            NODE_STATE_TYPE => (range.lower, range.upper) != (peer, peer),
            TOP_SRV_TYPE | LINK_STATE_TYPE => true,
            _ => false,
        };
        if reserved {
            return Err(PublishError::ReservedType(peer, range.type_));
        }
        if from_this_peer >= self.per_peer {
            return Err(PublishError::PeerLimit(peer, self.per_peer));
        }
        if from_all_peers >= self.learned {
            return Err(PublishError::LearnedLimit(self.learned));
        }
        Ok(())
    }
}

/// The system's own bindings do not count, so they can always be made.
pub(super) fn counts_for_own_limit(type_: u32) -> bool {
    !matches!(type_, NODE_STATE_TYPE | TOP_SRV_TYPE | LINK_STATE_TYPE)
}
