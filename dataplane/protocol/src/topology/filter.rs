//! Filter bits of a subscription: which publications and which changes of them it reports.

use crate::name::Scope;

/// Filter bits. Those without a meaning are kept and ignored, as Linux does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter(pub u32);

impl Filter {
    /// An event for every matching publication.
    pub const PORTS: Self = Self(0x01);
    /// An event for the first and the last publication of each exact range; also what holds without PORTS.
    pub const SERVICE: Self = Self(0x02);
    /// Not a subscription: takes one back.
    pub const CANCEL: Self = Self(0x04);
    /// Publications of cluster scope only.
    pub const CLUSTER_SCOPE: Self = Self(0x20);
    /// Publications of node scope only.
    pub const NODE_SCOPE: Self = Self(0x40);
    /// No events about what is bound already.
    pub const NO_STATUS: Self = Self(0x80);
    /// Read in the node's own order, one of these bits shows that the subscriber has the same order.
    pub(super) const ORDER_MARK: Self = Self(Self::PORTS.0 | Self::SERVICE.0 | Self::CANCEL.0);

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// True if any of these bits is set.
    pub const fn has_any(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }

    /// PORTS and SERVICE exclude each other.
    pub(super) const fn contradicts_itself(self) -> bool {
        self.has_any(Self::PORTS) && self.has_any(Self::SERVICE)
    }

    /// Whether a change is reported; `range_edge`: of the first or last publication of its exact range.
    pub(super) const fn reports(self, range_edge: bool) -> bool {
        range_edge || self.has_any(Self::PORTS)
    }

    /// Whether publications of this scope are reported.
    pub(super) const fn admits(self, scope: Scope) -> bool {
        match scope {
            Scope::Node => !self.has_any(Self::CLUSTER_SCOPE),
            Scope::Cluster => !self.has_any(Self::NODE_SCOPE),
        }
    }
}
