//! Packets as text: a name for each user and type, and one line for each packet.

use super::{
    BcastProtocol, Body, Carrier, ConnKind, ConnManager, Data, DiscoveryKind, DomainRecord,
    Encrypted, EncryptedSender, Form, GapBlocks, GroupKind, GroupProtocol, Importance, LinkConfig,
    LinkProtocol, Msg, NameDistributor, Packet, Route, TunnelKind, TunnelProtocol, User, errcode,
};
use std::fmt::{self, Display, Formatter};

/// The name of a message type; `"?"` for one that does not exist.
pub fn type_name(user: User, kind: u32) -> &'static str {
    let names: &[&'static str] = match user {
        User::Low | User::Medium | User::High | User::Critical => &[
            "CONN_MSG",
            "MCAST_MSG",
            "NAMED_MSG",
            "DIRECT_MSG",
            "GRP_MEMBER_EVT",
            "GRP_BCAST_MSG",
            "GRP_MCAST_MSG",
            "GRP_UCAST_MSG",
        ],
        User::BcastProtocol => &["BCAST_INIT"],
        User::MsgBundler => &["BUNDLE"],
        User::LinkProtocol => &["STATE", "RESET", "ACTIVATE"],
        User::ConnManager => &["CONN_PROBE", "CONN_PROBE_REPLY", "CONN_ACK"],
        User::GroupProtocol => &[
            "GRP_JOIN",
            "GRP_LEAVE",
            "GRP_ADV",
            "GRP_ACK",
            "GRP_RECLAIM",
            "GRP_REMIT",
        ],
        User::TunnelProtocol => &["SYNCH", "FAILOVER"],
        User::NameDistributor => &["PUBLICATION", "WITHDRAWAL"],
        User::MsgFragmenter => &["FIRST_FRAGMENT", "FRAGMENT", "LAST_FRAGMENT"],
        User::LinkConfig => &["DSC_REQ", "DSC_RESP", "DSC_TRIAL", "DSC_TRIAL_FAIL"],
        User::MsgCrypto => &["KEY_DISTR"],
        User::System | User::TopSrv => &[],
    };
    names.get(kind as usize).copied().unwrap_or("?")
}

impl Msg<'_> {
    /// What the message is called; `"?"` if its user or type does not exist.
    pub fn name(self) -> &'static str {
        type_name(self.user(), self.kind())
    }
}

/// One line: the name, then what matters for this type. Fields at rest are left out.
impl Display for Packet<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Data(m) => data(f, m),
            Self::BcastProtocol(BcastProtocol::Init {
                route: r,
                last_bcast,
                ..
            }) => {
                write!(f, " {} last_bcast {last_bcast}", Routed(r))
            }
            Self::BcastProtocol(BcastProtocol::Nack(m)) => write!(
                f,
                " {}>{} after {} to {} last_bcast {}",
                m.prev_node, m.dest_node, m.gap_after, m.gap_to, m.last_bcast
            ),
            Self::MsgBundler(m) => {
                write!(f, " {} {} messages:", Routed(&m.route), m.count)?;
                m.messages()
                    .try_for_each(|inner| write!(f, " {}/{}", inner.name(), inner.size()))
            }
            Self::LinkProtocol { message, domain } => link(f, message, domain.as_ref()),
            Self::ConnManager(m) => conn_manager(f, m),
            Self::GroupProtocol(m) => group(f, m),
            Self::TunnelProtocol(m) => tunnel(f, m),
            Self::NameDistributor(m) => names(f, m),
            Self::MsgFragmenter(m) => {
                write!(
                    f,
                    " {} no {} {} B",
                    Routed(&m.route),
                    m.fragment_no,
                    m.payload.len()
                )
            }
            Self::LinkConfig(m) => discovery(f, m),
            // The key is a secret.
            Self::MsgCrypto(m) => write!(
                f,
                " {} generation {} mode {} key {} B",
                Routed(&m.route),
                m.generation,
                m.mode,
                m.key.len()
            ),
            Self::Encrypted(m) => encrypted(f, m),
        }
    }
}

struct Routed<'a>(&'a Route);

impl Display for Routed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Route {
            carrier,
            prev_node,
            orig_node,
            dest_node,
        } = self.0;
        write!(f, "{prev_node}>{dest_node}")?;
        if orig_node != prev_node {
            write!(f, " from {orig_node}")?;
        }
        match *carrier {
            Carrier::Link {
                seqno,
                ack,
                bcast_ack,
            } => {
                write!(f, " seq {seqno} ack {ack}")?;
                nonzero(f, "bcast_ack", bcast_ack.into())
            }
            Carrier::Broadcast { seqno, net_id } => write!(f, " broadcast {seqno} net {net_id}"),
        }
    }
}

fn nonzero(f: &mut Formatter<'_>, name: &str, value: u32) -> fmt::Result {
    if value == 0 {
        Ok(())
    } else {
        write!(f, " {name} {value}")
    }
}

fn flags(f: &mut Formatter<'_>, flags: &[(bool, &str)]) -> fmt::Result {
    flags
        .iter()
        .filter(|(set, _)| *set)
        .try_for_each(|(_, name)| write!(f, " {name}"))
}

fn error(f: &mut Formatter<'_>, code: u8) -> fmt::Result {
    match u32::from(code) {
        errcode::OK => Ok(()),
        errcode::NO_NAME => f.write_str(" NO_NAME"),
        errcode::NO_PORT => f.write_str(" NO_PORT"),
        errcode::NO_NODE => f.write_str(" NO_NODE"),
        errcode::OVERLOAD => f.write_str(" OVERLOAD"),
        errcode::CONN_SHUTDOWN => f.write_str(" CONN_SHUTDOWN"),
        other => write!(f, " error {other}"),
    }
}

fn data(f: &mut Formatter<'_>, m: &Data<'_>) -> fmt::Result {
    write!(
        f,
        " {} port {:x}>{:x}",
        Routed(&m.route),
        m.orig_port.0,
        m.dest_port.0
    )?;
    match m.form {
        Form::Conn { ack_required, .. } => flags(f, &[(ack_required, "ack_required")])?,
        Form::Direct { src_droppable } => flags(f, &[(src_droppable, "src_droppable")])?,
        Form::Named {
            src_droppable,
            reroute_count,
            service,
            instance,
            ..
        } => {
            write!(f, " service {service},{instance}")?;
            nonzero(f, "reroutes", reroute_count.into())?;
            flags(f, &[(src_droppable, "src_droppable")])?;
        }
        Form::Mcast {
            is_rcast,
            service,
            lower,
            upper,
            ..
        } => {
            write!(f, " range {service},{lower},{upper}")?;
            flags(f, &[(is_rcast, "replicast")])?;
        }
        Form::Group {
            is_rcast,
            group,
            instance,
            bc_seqno,
            ack_requested,
            ..
        } => {
            write!(f, " group {group},{instance} bc {bc_seqno}")?;
            flags(
                f,
                &[(is_rcast, "replicast"), (ack_requested, "ack_requested")],
            )?;
        }
    }
    flags(f, &[(m.syn, "syn"), (m.dest_droppable, "droppable")])?;
    error(f, m.errcode)?;
    if m.importance != Importance::Low {
        write!(f, " {:?}", m.importance)?;
    }
    write!(f, " {} B", m.payload.len())
}

fn link(f: &mut Formatter<'_>, m: &LinkProtocol, domain: Option<&DomainRecord<'_>>) -> fmt::Result {
    if let Body::State(state) = &m.body {
        let answer = state.keepalive && !state.probe;
        flags(f, &[(state.probe, "probe"), (answer, "answer")])?;
    }
    write!(
        f,
        " {:x}>{:x} session {} seq {} ack {}",
        m.own, m.peer, m.session, m.seqno, m.ack
    )?;
    write!(f, " next {} last_bcast {}", m.next_sent, m.last_bcast)?;
    nonzero(f, "bcast_ack", m.bcast_ack.into())?;
    let (redundant, invalid) = (m.redundant_link, m.bc_ack_invalid);
    flags(
        f,
        &[(redundant, "redundant_link"), (invalid, "bc_ack_invalid")],
    )?;
    nonzero(f, "tolerance", m.tolerance_ms.into())?;
    nonzero(f, "priority", m.priority.into())?;
    match &m.body {
        Body::State(state) => {
            nonzero(f, "gap", state.seq_gap.into())?;
            nonzero(f, "bc_gap", state.bc_gap.into())?;
            nonzero(f, "mtu", state.max_packet.unwrap_or(0))?;
            if let Some(gaps) = &state.gaps {
                blocks(f, "received", gaps.unicast)?;
                blocks(f, "bc_received", gaps.broadcast)?;
            }
        }
        Body::Reset(reset) | Body::Activate { reset, .. } => {
            let name = reset.interface_name().escape_ascii();
            write!(
                f,
                " mtu {} interface {name} bearer {}",
                reset.max_packet, m.bearer_id
            )?;
            flags(f, &[(reset.peer_stopping, "stopping")])?;
        }
    }
    if let Body::Activate {
        dest_session: Some(session),
        ..
    } = m.body
    {
        write!(f, " of session {session}")?;
    }
    domain.map_or(Ok(()), |record| {
        let (generation, ack) = (record.generation, record.ack_generation);
        write!(
            f,
            " domain {generation} ack {ack} members {}",
            record.members.len()
        )
    })
}

fn blocks(f: &mut Formatter<'_>, name: &str, blocks: GapBlocks<'_>) -> fmt::Result {
    if !blocks.is_empty() {
        write!(f, " {name}")?;
    }
    blocks.iter().try_for_each(|b| match b.gap {
        0 => write!(f, " ..{}", b.ack),
        gap => write!(f, " ..{} not {gap}", b.ack),
    })
}

fn conn_manager(f: &mut Formatter<'_>, m: &ConnManager<'_>) -> fmt::Result {
    write!(
        f,
        " {} port {:x}>{:x}",
        Routed(&m.route),
        m.orig_port.0,
        m.dest_port.0
    )?;
    if let ConnKind::Ack {
        nagle_ack,
        acked,
        window,
    } = m.kind
    {
        write!(f, " acked {acked} window {window}")?;
        flags(f, &[(nagle_ack, "nagle_ack")])?;
    }
    error(f, m.errcode)
}

fn group(f: &mut Formatter<'_>, m: &GroupProtocol) -> fmt::Result {
    write!(
        f,
        " {} port {:x}>{:x}",
        Routed(&m.route),
        m.orig_port.0,
        m.dest_port.0
    )?;
    match m.kind {
        GroupKind::Join { bc_syncpt, window } => write!(f, " bc {bc_syncpt} window {window}"),
        GroupKind::Leave { bc_syncpt } => write!(f, " bc {bc_syncpt}"),
        GroupKind::Adv { window } => write!(f, " window {window}"),
        GroupKind::Ack { bc_acked } => write!(f, " bc {bc_acked}"),
        GroupKind::Reclaim => Ok(()),
        GroupKind::Remit { remitted } => write!(f, " remitted {remitted}"),
    }
}

fn tunnel(f: &mut Formatter<'_>, m: &TunnelProtocol<'_>) -> fmt::Result {
    write!(f, " {} bearer {}", Routed(&m.route), m.bearer_id)?;
    match m.kind {
        TunnelKind::Synch { sync_point } => write!(f, " point {sync_point}")?,
        TunnelKind::Failover {
            count,
            fragment_no: 0,
            ..
        } => write!(f, " of {count}")?,
        TunnelKind::Failover {
            count,
            fragment_no,
            fragment_count,
        } => {
            write!(f, " of {count} piece {fragment_no} of {fragment_count}")?;
        }
    }
    match m.inner() {
        None => write!(f, " {} B", m.payload.len()),
        Some(Ok(inner)) => write!(f, ": {}/{}", inner.name(), inner.size()),
        Some(Err(error)) => write!(f, ": {error}"),
    }
}

fn names(f: &mut Formatter<'_>, m: &NameDistributor<'_>) -> fmt::Result {
    /// More items than this are counted only.
    const SHOWN: usize = 4;
    write!(f, " {} update {}", Routed(&m.route), m.named_seqno)?;
    flags(
        f,
        &[
            (m.bulk, "bulk"),
            (m.last_bulk, "last"),
            (!m.non_legacy, "legacy"),
        ],
    )?;
    for item in m.items.iter().take(SHOWN) {
        write!(
            f,
            " {},{},{}@{:x}",
            item.service, item.lower, item.upper, item.port
        )?;
    }
    nonzero(
        f,
        "and more:",
        m.items.iter().len().saturating_sub(SHOWN) as u32,
    )
}

fn discovery(f: &mut Formatter<'_>, m: &LinkConfig) -> fmt::Result {
    write!(f, " {} net {} at {:?}", m.prev_node, m.net_id, m.media_addr)?;
    write!(
        f,
        " signature {:04x} capabilities {:x}",
        m.signature, m.capabilities.0
    )?;
    if m.dest_domain != 0 {
        write!(f, " to {:x}", m.dest_domain)?;
    }
    if m.kind == DiscoveryKind::TrialFail {
        write!(f, " suggested {}", m.suggested)?;
    }
    m.node_id.map_or(Ok(()), |id| write!(f, " identity {id}"))
}

fn encrypted(f: &mut Formatter<'_>, m: &Encrypted<'_>) -> fmt::Result {
    match m.sender {
        EncryptedSender::Address(addr) => write!(f, " {addr}")?,
        EncryptedSender::Identity(id) => write!(f, " identity {id}")?,
    }
    write!(
        f,
        " seq {} tx_key {} rx_key {}",
        m.seqno, m.tx_key, m.rx_key_active
    )?;
    let shown = [
        (m.user == User::LinkConfig, "discovery"),
        (m.user == User::LinkProtocol, "state"),
        (m.destined, "destined"),
        (m.keepalive, "keepalive"),
        (m.master_key, "master_key"),
        (m.rx_nokey, "no_rx_key"),
    ];
    flags(f, &shown)?;
    write!(f, " {} B", m.ciphertext.len())
}
