//! Links and their monitors.

use xtipc_management::{
    LinkFilter, LinkInfo, LinkKind, LinkState, LinkStatistics, MonitoredInfo, Reply, Request,
};

use crate::answer::{Ask, Failed, Shown, invalid, named, nested};
use crate::family::{link, monitor, property, top};
use crate::show::{ask_for, within};
use crate::wire::{Attributes, Writer};

/// Forces by what broadcasts are sent, or has it chosen.
const AUTOSELECT: u32 = 4;
/// Percent of the nodes above which broadcast is chosen.
const RATIO: u32 = 10;

pub(crate) fn all(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    // Also those on which broadcasts of each peer arrive.
    let filter = match attributes.nest(top::LINK)? {
        None => LinkFilter::Usual,
        Some(nest) if nest.has(link::BROADCAST) => LinkFilter::All,
        Some(_) => return Err(Failed(invalid("a list is of all links"))),
    };
    let all = ask_for!(
        ask,
        Request::LinkStatistics { filter },
        Reply::LinkStatistics
    );
    Ok(all.iter().map(about).collect())
}

pub(crate) fn one(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::LINK, "link")?;
    let name = named(wanted, link::NAME, "link")?.to_owned();
    let info = ask_for!(ask, Request::LinkGet { name }, Reply::Link);
    Ok(vec![about(&info)])
}

fn about(info: &LinkInfo) -> Writer {
    let counted = &info.statistics;
    within(top::LINK, |writer| {
        writer.text(link::NAME, &info.name);
        writer.number(link::RECEIVED, counted.rx_packets);
        writer.number(link::SENT, counted.tx_packets);
        match &info.kind {
            LinkKind::Unicast {
                state,
                mtu,
                priority,
                tolerance_ms,
                ..
            } => {
                writer.number(link::MTU, *mtu);
                writer.flag_if(*state != LinkState::Defunct, link::UP);
                writer.flag_if(*state == LinkState::Active, link::ACTIVE);
                writer.nest(link::PROPERTIES, |writer| {
                    writer.number(property::PRIORITY, *priority);
                    writer.number(property::TOLERANCE, *tolerance_ms);
                    writer.number(property::WINDOW, info.window);
                });
                // Packets are counted from these on, which began anew with the link.
                statistics(writer, counted, [0, 0], |_| true);
            }
            LinkKind::BroadcastSend | LinkKind::BroadcastReceive => {
                writer.flag_if(true, link::BROADCAST);
                writer.flag_if(true, link::UP);
                writer.nest(link::PROPERTIES, |writer| {
                    writer.number(property::WINDOW, info.window);
                    writer.number(property::BROADCAST, AUTOSELECT);
                    writer.number(property::BROADCAST_RATIO, RATIO);
                });
                let packets = [counted.rx_packets, counted.tx_packets];
                statistics(writer, counted, packets, is_of_broadcast);
            }
        }
    })
}

/// The counters that broadcast links have, too: packets and what they held, negative acknowledgements, queues.
fn is_of_broadcast(kind: u16) -> bool {
    matches!(kind, 1..=10 | 23 | 24 | 27..=33)
}

/// Counters, in the order of their numbers.
fn statistics(
    writer: &mut Writer,
    counted: &LinkStatistics,
    [rx, tx]: [u32; 2],
    has: impl Fn(u16) -> bool,
) {
    let profile = &counted.tx_profile;
    let octets = u32::try_from(profile.octets).unwrap_or(u32::MAX);
    let [p0, p1, p2, p3, p4, p5, p6] = profile.counts;
    let all = [
        rx,
        counted.rx_fragments,
        counted.rx_fragmented,
        counted.rx_bundles,
        counted.rx_bundled,
        tx,
        counted.tx_fragments,
        counted.tx_fragmented,
        counted.tx_bundles,
        counted.tx_bundled,
        // Programs divide by it.
        profile.samples.max(1),
        profile.samples,
        octets,
        p0,
        p1,
        p2,
        p3,
        p4,
        p5,
        p6,
        counted.rx_states,
        counted.rx_probes,
        counted.rx_naks,
        counted.rx_deferred,
        counted.tx_states,
        counted.tx_probes,
        counted.tx_naks,
        counted.tx_acks,
        counted.retransmitted,
        counted.rx_duplicates,
        counted.link_congestions,
        counted.send_queue_max,
        counted.send_queue_average,
    ];
    writer.nest(link::STATISTICS, |writer| {
        for (kind, value) in (1..).zip(all).filter(|(kind, _)| has(*kind)) {
            writer.number(kind, value);
        }
    });
}

pub(crate) fn threshold(ask: Ask<'_>) -> Shown {
    let info = ask_for!(ask, Request::MonitorGet, Reply::Monitors);
    Ok(vec![within(top::MONITOR, |writer| {
        writer.number(monitor::THRESHOLD, info.threshold);
    })])
}

pub(crate) fn monitors(ask: Ask<'_>) -> Shown {
    let info = ask_for!(ask, Request::MonitorGet, Reply::Monitors);
    let about = |(index, of_bearer): (usize, &xtipc_management::MonitorInfo)| {
        within(top::MONITOR, |writer| {
            writer.number(monitor::BEARER, index as u32);
            writer.flag_if(of_bearer.ring, monitor::IS_RING);
            writer.text(monitor::BEARER_NAME, &of_bearer.bearer);
            writer.number(monitor::PEERS, of_bearer.nodes.len() as u32);
            writer.number(monitor::GENERATION, of_bearer.generation);
        })
    };
    Ok(info.bearers.iter().enumerate().map(about).collect())
}

/// The nodes that a bearer's monitor knows.
pub(crate) fn monitored(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::MONITOR, "monitor")?;
    let Some(index) = wanted.number(monitor::BEARER)? else {
        return Err(Failed(invalid("the number of the bearer is missing")));
    };
    let info = ask_for!(ask, Request::MonitorGet, Reply::Monitors);
    let of_bearer = info.bearers.get(index as usize);
    let of_bearer =
        of_bearer.ok_or_else(|| Failed(invalid(format!("there is no bearer {index}"))))?;
    let nodes = of_bearer.nodes.iter().enumerate();
    Ok(nodes
        .map(|(at, node)| about_monitored(at == 0, node))
        .collect())
}

fn about_monitored(is_own: bool, node: &MonitoredInfo) -> Writer {
    within(top::MONITOR_PEER, |writer| {
        writer.number(monitor::PEER_ADDRESS, node.address);
        writer.number(monitor::PEER_APPLIED, node.applied);
        writer.flag_if(node.up, monitor::PEER_UP);
        writer.flag_if(is_own, monitor::PEER_IS_LOCAL);
        writer.flag_if(node.direct && !is_own, monitor::PEER_IS_HEAD);
        if let Some(domain) = &node.domain {
            let bits = domain.iter().take(64).enumerate();
            let up = bits.fold(0, |all, (at, (_, up))| all | u64::from(*up) << at);
            let members: Vec<u8> = domain
                .iter()
                .flat_map(|(address, _)| address.to_ne_bytes())
                .collect();
            writer.number(monitor::PEER_GENERATION, node.generation);
            writer.bytes(monitor::PEER_MEMBERS_UP, &up.to_ne_bytes());
            writer.bytes(monitor::PEER_MEMBERS, &members);
        }
    })
}
