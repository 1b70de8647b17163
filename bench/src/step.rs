//! One measurement: what is measured, of what, between whom.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::subject::{Subject, Wait, loan};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Times of operations, the next one when the one before has ended.
    RoundTrip,
    /// The same at a fixed rate, from when each was due.
    Paced,
    /// Messages per second, one way.
    Rate,
    /// The same of [`Step::copies`] senders at once, and meanwhile round trips of the highest importance.
    Load,
    /// What a daemon costs that has nothing to do, and what a socket of it does.
    Idle,
    /// The same of a daemon among [`Step::copies`] others, and what they add to its memory.
    Peers,
    /// The same of an engine among [`Step::copies`] nodes, in simulated time.
    Cluster,
}

/// Where the two ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// On two nodes, each with a processor.
    Apart,
    /// On one node, each with a processor.
    Together,
    /// On one node and one processor.
    OneProcessor,
    /// On two nodes that share a processor.
    Crowded,
}

impl Place {
    /// On two nodes.
    pub(crate) const fn is_apart(self) -> bool {
        matches!(self, Self::Apart | Self::Crowded)
    }
}

/// What stands on the wire while a step is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Nothing but the interfaces.
    Bare,
    /// Daemons that let messages share a packet.
    Bundling,
    /// Daemons that send each message in a packet of its own.
    Single,
    /// Bundling daemons that are told the way of their packets.
    Native,
    Generic,
    /// The kernel's TIPC.
    Kernel,
}

/// The stage of a step, the MTU, and whether daemons share a processor.
pub(crate) type Surroundings = (Stage, u32, bool);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) subject: Subject,
    pub(crate) wait: Wait,
    pub(crate) stage: Stage,
    pub(crate) place: Place,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Of the interfaces.
    pub(crate) mtu: u32,
    /// Senders of a load, receivers of a multicast, sockets of an idle daemon or beside a round trip, nodes.
    pub(crate) copies: usize,
}

/// What names leave out.
const SIZE: usize = 64;
pub(crate) const MTU: u32 = 1500;

impl Step {
    /// 64 bytes between two nodes, MTU 1500.
    pub(crate) const fn new(kind: Kind, subject: Subject, wait: Wait) -> Self {
        let stage = match subject {
            Subject::KernelTipc => Stage::Kernel,
            _ if matches!(kind, Kind::Cluster | Kind::Peers) => Stage::Bare,
            _ if subject.needs_daemons() => Stage::Bundling,
            _ => Stage::Bare,
        };
        Self {
            kind,
            subject,
            wait,
            stage,
            place: Place::Apart,
            size: SIZE,
            mtu: MTU,
            copies: 1,
        }
    }

    pub(crate) const fn on(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    pub(crate) const fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    pub(crate) const fn sized(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    pub(crate) const fn over(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    pub(crate) const fn times(mut self, copies: usize) -> Self {
        self.copies = copies;
        self
    }
}

impl Step {
    /// Bytes of a message that its sender writes and its receiver reads.
    pub(crate) fn touched(&self) -> usize {
        match self.subject {
            Subject::XtipcLoan => self.size.min(loan::TOUCHED),
            _ => self.size,
        }
    }

    /// What it is measured in: changing that takes a second.
    pub(crate) fn surroundings(&self) -> Surroundings {
        let has_daemons = !matches!(self.stage, Stage::Bare | Stage::Kernel);
        (
            self.stage,
            self.mtu,
            has_daemons && self.place == Place::Crowded,
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::RoundTrip => "round trip",
            Kind::Paced => "paced",
            Kind::Rate => "rate",
            Kind::Load => "load",
            Kind::Idle => "idle",
            Kind::Peers => "peers",
            Kind::Cluster => "cluster",
        };
        write!(f, "{kind} {}", self.subject)?;
        match self.kind {
            Kind::RoundTrip | Kind::Paced => write!(f, " {}", self.wait)?,
            Kind::Rate if self.subject == Subject::Xtipc => f.write_str(match self.stage {
                Stage::Single => " single",
                _ => " bundled",
            })?,
            Kind::Rate | Kind::Load | Kind::Idle | Kind::Peers | Kind::Cluster => {}
        }
        match self.stage {
            Stage::Native => f.write_str(", native XDP")?,
            Stage::Generic => f.write_str(", generic XDP")?,
            Stage::Bare | Stage::Bundling | Stage::Single | Stage::Kernel => {}
        }
        match self.place {
            Place::Apart => {}
            Place::Together => f.write_str(" local")?,
            Place::OneProcessor => f.write_str(" local, one processor")?,
            Place::Crowded => f.write_str(", one processor")?,
        }
        if self.size != SIZE {
            write!(f, " {} B", self.size)?;
        }
        if self.mtu != MTU {
            write!(f, " MTU {}", self.mtu)?;
        }
        match (self.kind, self.copies) {
            (_, 1) => Ok(()),
            (Kind::RoundTrip, sockets) => write!(f, " beside {sockets} sockets"),
            (_, copies) => write!(f, " x{copies}"),
        }
    }
}
