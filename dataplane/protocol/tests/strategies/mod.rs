//! Arbitrary messages of each kind, payloads left empty.
//!
//! Fields that are not on the wire in a form have the value decoding gives them: no port in
//! broadcasts, no originating node in a 24-byte header.

use proptest::collection::vec;
use proptest::prelude::*;
use xtipc_protocol::addr::{MediaAddr, NodeAddr, NodeId, PortId};
use xtipc_protocol::wire::{
    BcastNack, BcastProtocol, Body, Capabilities, Carrier, ConnKind, ConnManager, Data,
    DiscoveryKind, Encrypted, EncryptedSender, Form, FragmentPlace, GapAckRecord, GapBlock,
    GapBlocks, GapList, GroupCast, GroupKind, GroupProtocol, Importance, LinkConfig, LinkProtocol,
    MsgBundler, MsgFragmenter, NameDistributor, NameItems, Reset, Route, State, TunnelKind,
    TunnelProtocol, User,
};

fn carrier() -> impl Strategy<Value = Carrier> {
    let link = any::<(u16, u16, u16)>();
    prop_oneof![
        link.prop_map(|(seqno, ack, bcast_ack)| Carrier::Link {
            seqno,
            ack,
            bcast_ack
        }),
        any::<(u16, u32)>().prop_map(|(seqno, net_id)| Carrier::Broadcast { seqno, net_id }),
    ]
}

pub(crate) fn route() -> impl Strategy<Value = Route> {
    (carrier(), any::<(u32, u32, u32)>()).prop_map(|(carrier, (prev, orig, dest))| Route {
        carrier,
        prev_node: NodeAddr(prev),
        orig_node: NodeAddr(orig),
        dest_node: NodeAddr(dest),
    })
}

/// A destination port, if the route has room for one.
fn port_on(route: &Route, port: u32) -> PortId {
    PortId(if route.is_broadcast() { 0 } else { port })
}

fn form() -> impl Strategy<Value = Form> {
    let cast = prop_oneof![
        Just(GroupCast::Bcast),
        Just(GroupCast::Mcast),
        Just(GroupCast::Ucast)
    ];
    prop_oneof![
        any::<(bool, bool)>().prop_map(|(short, ack_required)| Form::Conn {
            short,
            ack_required
        }),
        any::<bool>().prop_map(|src_droppable| Form::Direct { src_droppable }),
        (any::<(bool, u32, u32)>(), 0..4u8, 0..16u8).prop_map(
            |((src_droppable, service, instance), scope, reroute_count)| Form::Named {
                src_droppable,
                reroute_count,
                scope,
                service,
                instance
            }
        ),
        (any::<(bool, u32, u32, u32)>(), 0..4u8).prop_map(
            |((is_rcast, service, lower, upper), scope)| Form::Mcast {
                is_rcast,
                scope,
                service,
                lower,
                upper
            }
        ),
        (cast, any::<(bool, u32, u32, u16, bool)>(), 0..4u8).prop_map(
            |(kind, (is_rcast, group, instance, bc_seqno, ack_requested), scope)| Form::Group {
                kind,
                is_rcast,
                scope,
                group,
                instance,
                bc_seqno,
                ack_requested
            }
        ),
    ]
}

pub(crate) fn data() -> impl Strategy<Value = Data<'static>> {
    let numbers = (0..4u32, 0..16u8, any::<(u32, u32)>());
    (route(), numbers, any::<(bool, bool)>(), form()).prop_map(
        |(route, (importance, errcode, (orig, dest)), (dest_droppable, syn), form)| {
            let short = matches!(form, Form::Conn { short: true, .. });
            let route = if short {
                Route {
                    orig_node: route.prev_node,
                    dest_node: NodeAddr::NONE,
                    ..route
                }
            } else {
                route
            };
            Data {
                route,
                importance: Importance::from_bits(importance),
                errcode,
                dest_droppable,
                syn,
                orig_port: PortId(orig),
                dest_port: port_on(&route, dest),
                form,
                payload: &[],
            }
        },
    )
}

pub(crate) fn bcast_protocol() -> impl Strategy<Value = BcastProtocol> {
    (route(), any::<(u16, u16, u16, u16, bool)>()).prop_map(
        |(route, (bcast_ack, gap_after, gap_to, last_bcast, bc_ack_invalid))| match route.carrier {
            Carrier::Link { .. } => BcastProtocol::Init {
                route,
                last_bcast,
                bc_ack_invalid,
            },
            Carrier::Broadcast { net_id, .. } => BcastProtocol::Nack(BcastNack {
                net_id,
                prev_node: route.prev_node,
                orig_node: route.orig_node,
                dest_node: route.dest_node,
                bcast_ack,
                gap_after,
                gap_to,
                last_bcast,
            }),
        },
    )
}

pub(crate) fn conn_manager() -> impl Strategy<Value = ConnManager<'static>> {
    let kind = prop_oneof![
        Just(ConnKind::Probe),
        Just(ConnKind::ProbeReply),
        any::<(bool, u16, u16)>().prop_map(|(nagle_ack, acked, window)| ConnKind::Ack {
            nagle_ack,
            acked,
            window
        }),
    ];
    (route(), 0..16u8, any::<(bool, u32, u32)>(), kind).prop_map(
        |(route, errcode, (dest_droppable, orig, dest), kind)| ConnManager {
            route,
            errcode,
            dest_droppable,
            orig_port: PortId(orig),
            dest_port: port_on(&route, dest),
            kind,
            payload: &[],
        },
    )
}

pub(crate) fn group_protocol() -> impl Strategy<Value = GroupProtocol> {
    let kind = (0..6, any::<(u16, u16)>()).prop_map(|(kind, (count, window))| match kind {
        0 => GroupKind::Join {
            bc_syncpt: count,
            window,
        },
        1 => GroupKind::Leave { bc_syncpt: count },
        2 => GroupKind::Adv { window },
        3 => GroupKind::Ack { bc_acked: count },
        4 => GroupKind::Reclaim,
        _ => GroupKind::Remit { remitted: count },
    });
    (route(), any::<(bool, u32, u32)>(), kind).prop_map(
        |(route, (dest_droppable, orig, dest), kind)| GroupProtocol {
            route,
            dest_droppable,
            orig_port: PortId(orig),
            dest_port: port_on(&route, dest),
            kind,
        },
    )
}

pub(crate) fn tunnel() -> impl Strategy<Value = TunnelProtocol<'static>> {
    let kind = prop_oneof![
        any::<u16>().prop_map(|sync_point| TunnelKind::Synch { sync_point }),
        any::<(u16, u16, u16)>().prop_map(|(count, fragment_no, fragment_count)| {
            TunnelKind::Failover {
                count,
                fragment_no,
                fragment_count,
            }
        }),
    ];
    (route(), 0..8u8, kind).prop_map(|(route, bearer, kind)| TunnelProtocol {
        route,
        bearer_id: if route.is_broadcast() { 0 } else { bearer },
        kind,
        payload: &[],
    })
}

pub(crate) fn name_distributor() -> impl Strategy<Value = NameDistributor<'static>> {
    (route(), any::<(bool, bool, bool, bool, u16, bool)>()).prop_map(|(route, fields)| {
        let (withdrawal, bulk, last_bulk, non_legacy, named_seqno, invalid) = fields;
        NameDistributor {
            route,
            withdrawal,
            bulk,
            last_bulk,
            non_legacy,
            named_seqno,
            bc_ack_invalid: invalid && !route.is_broadcast(),
            items: NameItems(&[]),
        }
    })
}

pub(crate) fn fragment() -> impl Strategy<Value = MsgFragmenter<'static>> {
    let place = prop_oneof![
        Just(FragmentPlace::First),
        Just(FragmentPlace::Inner),
        Just(FragmentPlace::Last)
    ];
    (route(), place, any::<(u16, u16)>(), 0..5u32).prop_map(
        |(route, place, (fragment_no, fragment_count), importance)| MsgFragmenter {
            route,
            place,
            fragment_no,
            fragment_count,
            importance: Importance::from_bits(importance),
            payload: &[],
        },
    )
}

pub(crate) fn bundler() -> impl Strategy<Value = MsgBundler<'static>> {
    (route(), any::<u16>(), 0..5u32).prop_map(|(route, count, importance)| MsgBundler {
        route,
        importance: Importance::from_bits(importance),
        count,
        payload: &[],
    })
}

/// They lie in memory that nobody frees: what borrows them has to be without a lifetime.
fn blocks() -> impl Strategy<Value = GapBlocks<'static>> {
    vec(any::<(u16, u16)>(), 0..=64).prop_map(|blocks| {
        let list: &mut GapList = Box::leak(Box::default());
        list.extend(blocks.into_iter().map(|(ack, gap)| GapBlock { ack, gap }));
        list.blocks()
    })
}

fn state() -> impl Strategy<Value = State<'static>> {
    let gaps =
        (blocks(), blocks()).prop_map(|(broadcast, unicast)| GapAckRecord { broadcast, unicast });
    (
        any::<(bool, bool)>(),
        0..8192u16,
        0..1024u16,
        proptest::option::of(gaps),
        proptest::option::of(1..=u16::MAX),
    )
        .prop_map(
            |((probe, keepalive), seq_gap, bc_gap, gaps, quarter)| State {
                probe,
                keepalive,
                seq_gap,
                bc_gap,
                gaps,
                max_packet: quarter.map(|quarter| u32::from(quarter) * 4),
            },
        )
}

fn body() -> impl Strategy<Value = Body<'static>> {
    let reset = || {
        any::<(bool, u16, [u8; 16])>().prop_map(|(peer_stopping, quarter, interface)| Reset {
            peer_stopping,
            max_packet: u32::from(quarter) * 4,
            interface,
        })
    };
    prop_oneof![
        state().prop_map(Body::State),
        reset().prop_map(Body::Reset),
        (reset(), any::<Option<u16>>()).prop_map(|(reset, dest_session)| Body::Activate {
            reset,
            dest_session
        }),
    ]
}

pub(crate) fn link_protocol() -> impl Strategy<Value = LinkProtocol<'static>> {
    let numbers = any::<(u32, u32, u16, u16, u16, u16, u16, u16, u16)>();
    (
        body(),
        numbers,
        (0..8u8, 0..8u8, 0..32u8),
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(
                body,
                numbers,
                (bearer_id, net_plane, priority),
                (redundant_link, bc_ack_invalid),
            )| {
                let (own, peer, session, tolerance_ms, acked, last_bcast, next_sent, ack, seqno) =
                    numbers;
                let bcast_ack = if matches!(body, Body::Activate { .. }) {
                    0
                } else {
                    acked
                };
                LinkProtocol {
                    own,
                    peer,
                    session,
                    bearer_id,
                    net_plane,
                    tolerance_ms,
                    priority,
                    redundant_link,
                    bc_ack_invalid,
                    bcast_ack,
                    last_bcast,
                    next_sent,
                    ack,
                    seqno,
                    body,
                }
            },
        )
}

/// True for a STATE with a gap-ack record, which a monitor record can follow.
pub(crate) fn has_gaps(message: &LinkProtocol) -> bool {
    matches!(&message.body, Body::State(State { gaps: Some(_), .. }))
}

pub(crate) fn link_config() -> impl Strategy<Value = LinkConfig> {
    let kind = prop_oneof![
        Just(DiscoveryKind::Request),
        Just(DiscoveryKind::Response),
        Just(DiscoveryKind::Trial),
        Just(DiscoveryKind::TrialFail),
    ];
    let ids = any::<([u8; 32], [u8; 16])>();
    let numbers = any::<(u16, u32, u32, u32, u32, u32)>();
    (kind, 0..0x2000u16, numbers, ids).prop_map(|(kind, bits, numbers, (media, id))| {
        let (signature, dest_domain, prev_node, net_id, net_hash, suggested) = numbers;
        let capabilities = Capabilities(bits);
        // The two fields share a bit.
        let signature = signature & 0x7fff | bits << 15;
        LinkConfig {
            kind,
            capabilities,
            signature,
            dest_domain,
            prev_node: NodeAddr(prev_node),
            net_id,
            media_addr: MediaAddr(media),
            net_hash,
            suggested: NodeAddr(suggested),
            node_id: capabilities
                .has(Capabilities::NODE_ID128)
                .then_some(NodeId(id)),
        }
    })
}

pub(crate) fn encryption_header() -> impl Strategy<Value = Encrypted<'static>> {
    let keys = (0..16u32, 0..4u8, 0..4u8, any::<u64>());
    (
        keys,
        any::<(bool, bool, bool, bool)>(),
        any::<(u32, [u8; 16])>(),
    )
        .prop_map(
            |((user, tx_key, rx_key_active, seqno), flags, (addr, id))| {
                let (destined, keepalive, master_key, rx_nokey) = flags;
                let user = User::from_bits(user);
                let sender = match user {
                    User::LinkConfig => EncryptedSender::Identity(NodeId(id)),
                    _ => EncryptedSender::Address(NodeAddr(addr)),
                };
                Encrypted {
                    user,
                    destined,
                    tx_key,
                    rx_key_active,
                    keepalive,
                    master_key,
                    rx_nokey,
                    seqno,
                    sender,
                    ciphertext: &[],
                }
            },
        )
}
