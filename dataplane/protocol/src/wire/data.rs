//! Data messages: what sockets send to each other (`docs/protocol/wire.md`, data messages).

use super::field as f;
use super::{DataType, Header, Importance, Msg, Route, User, WireError, size};
use crate::addr::PortId;

/// A data message of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Sequence and nodes.
    pub route: Route,
    /// Importance, `Low` to `Critical`: the message user.
    pub importance: Importance,
    /// Why it came back ([`super::errcode`]); 0 for a message that did not.
    pub errcode: u8,
    /// Drop silently instead of returning.
    pub dest_droppable: bool,
    /// Connection request; in a multicast, the method switch marker.
    pub syn: bool,
    /// Sending socket.
    pub orig_port: PortId,
    /// Destination socket; 0 for packets of the broadcast link, which have none.
    pub dest_port: PortId,
    /// How it is addressed.
    pub form: Form,
    /// What the application sent.
    pub payload: &'a [u8],
}

/// The part of a data message that depends on its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Connection data.
    Conn {
        /// 24-byte header, without originating and destination node. Returned messages have 32.
        short: bool,
        /// Nagle: acknowledge at once.
        ack_required: bool,
    },
    /// To a socket.
    Direct {
        /// The sender may drop it at congestion.
        src_droppable: bool,
    },
    /// To a service address.
    Named {
        /// The sender may drop it at congestion.
        src_droppable: bool,
        /// Secondary look-ups done.
        reroute_count: u8,
        /// Scope of the look-up.
        scope: u8,
        /// Service type.
        service: u32,
        /// Service instance.
        instance: u32,
    },
    /// To a service range.
    Mcast {
        /// Sent by replicast.
        is_rcast: bool,
        /// Scope of the look-up.
        scope: u8,
        /// Service type.
        service: u32,
        /// Lowest instance.
        lower: u32,
        /// Highest instance.
        upper: u32,
    },
    /// Between members of a group.
    Group {
        /// To whom.
        kind: GroupCast,
        /// Sent by replicast.
        is_rcast: bool,
        /// Scope of the look-up; stale in a unicast.
        scope: u8,
        /// Service type of the group.
        group: u32,
        /// Instance of a multicast, 0 in a broadcast, stale in a unicast.
        instance: u32,
        /// Broadcast number of the sending member.
        bc_seqno: u16,
        /// Acknowledgement requested; stale in a unicast.
        ack_requested: bool,
    },
}

/// The three group data messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupCast {
    /// To every member.
    Bcast,
    /// To the members at one instance.
    Mcast,
    /// To one member.
    Ucast,
}

impl<'a> Data<'a> {
    pub(super) fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        let route = Route::parse(msg);
        Ok(Self {
            route,
            importance: Importance::from_bits(msg.user() as u32),
            errcode: msg.get(f::ERRCODE) as u8,
            dest_droppable: msg.flag(f::DEST_DROPPABLE),
            syn: msg.flag(f::SYN),
            orig_port: PortId(msg.get(f::ORIG_PORT)),
            dest_port: PortId(route.word5(msg, f::DEST_PORT)),
            form: Form::parse(msg)?,
            payload: msg.payload(),
        })
    }

    /// The message type.
    pub fn data_type(&self) -> DataType {
        match self.form {
            Form::Conn { .. } => DataType::Conn,
            Form::Direct { .. } => DataType::Direct,
            Form::Named { .. } => DataType::Named,
            Form::Mcast { .. } => DataType::Mcast,
            Form::Group {
                kind: GroupCast::Bcast,
                ..
            } => DataType::GroupBcast,
            Form::Group {
                kind: GroupCast::Mcast,
                ..
            } => DataType::GroupMcast,
            Form::Group {
                kind: GroupCast::Ucast,
                ..
            } => DataType::GroupUcast,
        }
    }

    /// The message user, which is the importance.
    pub fn user(&self) -> User {
        User::from_bits(self.importance as u32)
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::new(
            self.user(),
            self.data_type() as u32,
            self.form.header_size(),
        );
        h.set(f::ERRCODE, self.errcode.into())
            .set(f::DEST_DROPPABLE, self.dest_droppable.into())
            .set(f::SYN, self.syn.into())
            .set(f::ORIG_PORT, self.orig_port.0)
            .set(f::DEST_PORT, self.dest_port.0);
        self.form.emit(&mut h);
        self.route.emit(&mut h);
        h
    }
}

impl Form {
    fn parse(msg: Msg<'_>) -> Result<Self, WireError> {
        let scope = msg.get(f::LOOKUP_SCOPE) as u8;
        let src_droppable = msg.flag(f::SRC_DROPPABLE);
        Ok(match msg.data_type() {
            DataType::Conn => Self::Conn {
                short: msg.header_size() == size::SHORT,
                ack_required: msg.flag(f::ACK_REQUIRED),
            },
            DataType::Direct => Self::Direct { src_droppable },
            DataType::Named => Self::Named {
                src_droppable,
                reroute_count: msg.get(f::REROUTE_COUNT) as u8,
                scope,
                service: msg.get(f::NAME_TYPE),
                instance: msg.get(f::NAME_LOWER),
            },
            DataType::Mcast => Self::Mcast {
                is_rcast: msg.flag(f::IS_RCAST),
                scope,
                service: msg.get(f::NAME_TYPE),
                lower: msg.get(f::NAME_LOWER),
                upper: msg.get(f::NAME_UPPER),
            },
            DataType::GroupBcast => Self::parse_group(msg, GroupCast::Bcast),
            DataType::GroupMcast => Self::parse_group(msg, GroupCast::Mcast),
            DataType::GroupUcast => Self::parse_group(msg, GroupCast::Ucast),
            DataType::GroupMemberEvent => {
                return Err(WireError::Malformed(
                    "data type: GRP_MEMBER_EVT is local to a node",
                ));
            }
        })
    }

    fn parse_group(msg: Msg<'_>, kind: GroupCast) -> Self {
        Self::Group {
            kind,
            is_rcast: msg.flag(f::IS_RCAST),
            scope: msg.get(f::LOOKUP_SCOPE) as u8,
            group: msg.get(f::NAME_TYPE),
            instance: msg.get(f::NAME_LOWER),
            bc_seqno: msg.get16(f::GROUP_BC_SEQNO),
            ack_requested: msg.flag(f::GROUP_ACK_REQ),
        }
    }

    fn header_size(&self) -> usize {
        match self {
            Self::Conn { short: true, .. } => size::SHORT,
            Self::Conn { short: false, .. } | Self::Direct { .. } => size::BASIC,
            Self::Named { .. } => size::NAMED,
            Self::Mcast { .. } | Self::Group { .. } => size::MCAST,
        }
    }

    fn emit(&self, h: &mut Header) {
        match *self {
            Self::Conn { ack_required, .. } => h.set(f::ACK_REQUIRED, ack_required.into()),
            Self::Direct { src_droppable } => h.set(f::SRC_DROPPABLE, src_droppable.into()),
            Self::Named {
                src_droppable,
                reroute_count,
                scope,
                service,
                instance,
            } => h
                .set(f::SRC_DROPPABLE, src_droppable.into())
                .set(f::REROUTE_COUNT, reroute_count.into())
                .set(f::LOOKUP_SCOPE, scope.into())
                .set(f::NAME_TYPE, service)
                .set(f::NAME_LOWER, instance),
            Self::Mcast {
                is_rcast,
                scope,
                service,
                lower,
                upper,
            } => h
                .set(f::IS_RCAST, is_rcast.into())
                .set(f::LOOKUP_SCOPE, scope.into())
                .set(f::NAME_TYPE, service)
                .set(f::NAME_LOWER, lower)
                .set(f::NAME_UPPER, upper),
            Self::Group {
                is_rcast,
                scope,
                group,
                instance,
                bc_seqno,
                ack_requested,
                ..
            } => h
                .set(f::IS_RCAST, is_rcast.into())
                .set(f::LOOKUP_SCOPE, scope.into())
                .set(f::NAME_TYPE, group)
                .set(f::NAME_LOWER, instance)
                .set(f::GROUP_BC_SEQNO, bc_seqno.into())
                .set(f::GROUP_ACK_REQ, ack_requested.into()),
        };
    }
}
