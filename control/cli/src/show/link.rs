//! Links and their statistics. Reference: `docs/protocol/management.md`.

use serde::Serialize;
use xtipc_management::{
    ClientError, Failure, LinkInfo, LinkKind, LinkState, LinkStatistics, LinkSummary, Property,
    SizeProfile,
};

use super::{node::state, printable};
use crate::json::Fields;

/// `EOPNOTSUPP`, for a property that broadcast links do not have.
const NOT_SUPPORTED: i32 = 95;

/// The size classes of the profile, as they are named in text and JSON.
const SIZE_CLASSES: [&str; 7] = [
    "0-64", "-256", "-1024", "-4096", "-16384", "-32768", "-66000",
];

pub(crate) fn list_text(links: &[LinkSummary]) -> String {
    links
        .iter()
        .map(|link| format!("{}: {}\n", printable(&link.name), state(link.up)))
        .collect()
}

pub(crate) fn list_json(links: &[LinkSummary]) -> [Fields<&str, &'static str>; 1] {
    [Fields(
        links
            .iter()
            .map(|link| (link.name.as_str(), state(link.up)))
            .collect(),
    )]
}

/// The name and value of a property.
pub(crate) fn property(
    link: &LinkInfo,
    property: Property,
) -> Result<(&'static str, u32), ClientError> {
    match (property, &link.kind) {
        // The largest, as it was set; the present one is in the statistics.
        (Property::Window, LinkKind::Unicast { window_max, .. }) => Ok(("window", *window_max)),
        (Property::Window, _) => Ok(("window", link.window)),
        (Property::Priority, LinkKind::Unicast { priority, .. }) => Ok(("priority", *priority)),
        (Property::Tolerance, LinkKind::Unicast { tolerance_ms, .. }) => {
            Ok(("tolerance", *tolerance_ms))
        }
        (Property::Mtu, LinkKind::Unicast { mtu, .. }) => Ok(("mtu", *mtu)),
        (_, LinkKind::BroadcastSend | LinkKind::BroadcastReceive) => {
            Err(ClientError::Refused(Failure {
                errno: NOT_SUPPORTED,
                text: String::new(),
            }))
        }
    }
}

pub(crate) fn statistics_text(links: &[LinkInfo]) -> String {
    links.iter().map(link_text).collect()
}

fn link_text(link: &LinkInfo) -> String {
    let s = &link.statistics;
    let state_line = match &link.kind {
        LinkKind::Unicast {
            state,
            mtu,
            priority,
            tolerance_ms,
            ..
        } => {
            format!(
                "  {}  MTU:{mtu}  Priority:{priority}  Tolerance:{tolerance_ms} ms",
                state_word(*state)
            )
        }
        LinkKind::BroadcastSend | LinkKind::BroadcastReceive => String::new(),
    };
    let (profile, rx_states, tx_states) = match link.kind {
        LinkKind::Unicast { .. } => (
            profile_text(&s.tx_profile),
            format!("states:{} probes:{} ", s.rx_states, s.rx_probes),
            format!("states:{} probes:{} ", s.tx_states, s.tx_probes),
        ),
        LinkKind::BroadcastSend | LinkKind::BroadcastReceive => Default::default(),
    };
    format!(
        "Link <{}>\n{state_line}  Window:{} packets\n\
         \x20 RX packets:{} fragments:{}/{} bundles:{}/{}\n\
         \x20 TX packets:{} fragments:{}/{} bundles:{}/{}\n\
         {profile}\
         \x20 RX {rx_states}naks:{} defs:{} dups:{}\n\
         \x20 TX {tx_states}naks:{} acks:{} retrans:{}\n\
         \x20 Congestion link:{}  Send queue max:{} avg:{}\n\n",
        printable(&link.name),
        link.window,
        s.rx_packets,
        s.rx_fragments,
        s.rx_fragmented,
        s.rx_bundles,
        s.rx_bundled,
        s.tx_packets,
        s.tx_fragments,
        s.tx_fragmented,
        s.tx_bundles,
        s.tx_bundled,
        s.rx_naks,
        s.rx_deferred,
        s.rx_duplicates,
        s.tx_naks,
        s.tx_acks,
        s.retransmitted,
        s.link_congestions,
        s.send_queue_max,
        s.send_queue_average,
    )
}

fn profile_text(profile: &SizeProfile) -> String {
    let classes: Vec<String> = percentages(profile)
        .into_iter()
        .map(|(class, percent)| format!("{class}:{percent}%"))
        .collect();
    format!(
        "  TX profile sample:{} packets average:{} octets\n  {}\n",
        profile.samples,
        average(profile),
        classes.join(" ")
    )
}

fn average(profile: &SizeProfile) -> u64 {
    profile.octets / u64::from(profile.samples.max(1))
}

/// The size classes with their shares, rounded to the nearest percent.
fn percentages(profile: &SizeProfile) -> Vec<(&'static str, u64)> {
    let all = u64::from(profile.samples.max(1));
    let share = |count: &u32| (u64::from(*count) * 100 + all / 2) / all;
    SIZE_CLASSES
        .into_iter()
        .zip(profile.counts.iter().map(share))
        .collect()
}

fn state_word(state: LinkState) -> &'static str {
    match state {
        LinkState::Active => "ACTIVE",
        LinkState::Standby => "STANDBY",
        LinkState::Defunct => "DEFUNCT",
    }
}

/// Groups of counters carry the name of their first counter, as in the tool.
type Group = Fields<&'static str, u32>;

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum LinkJson<'a> {
    Unicast(UnicastJson<'a>),
    Broadcast(BroadcastJson<'a>),
}

#[derive(Serialize)]
pub(crate) struct UnicastJson<'a> {
    link: &'a str,
    state: [&'static str; 1],
    mtu: u32,
    priority: u32,
    tolerance: u32,
    window: u32,
    #[serde(rename = "rx packets")]
    rx_packets: Group,
    #[serde(rename = "tx packets")]
    tx_packets: Group,
    #[serde(rename = "tx profile sample")]
    samples: u32,
    #[serde(rename = "packets average")]
    average: u64,
    #[serde(flatten)]
    profile: Fields<&'static str, u64>,
    #[serde(rename = "rx states")]
    rx_states: Group,
    #[serde(rename = "tx states")]
    tx_states: Group,
    #[serde(flatten)]
    queue: Group,
}

#[derive(Serialize)]
pub(crate) struct BroadcastJson<'a> {
    link: &'a str,
    window: u32,
    #[serde(rename = "rx packets")]
    rx_packets: Group,
    #[serde(rename = "tx packets")]
    tx_packets: Group,
    #[serde(rename = "rx naks")]
    rx_naks: Group,
    #[serde(rename = "tx naks")]
    tx_naks: Group,
    #[serde(flatten)]
    queue: Group,
}

pub(crate) fn statistics_json(links: &[LinkInfo]) -> Vec<LinkJson<'_>> {
    links.iter().map(link_json).collect()
}

fn link_json(info: &LinkInfo) -> LinkJson<'_> {
    let s = &info.statistics;
    let (rx_packets, tx_packets, queue) = (rx_packets(s), tx_packets(s), queue(s));
    let rx_tail = [
        ("naks", s.rx_naks),
        ("defs", s.rx_deferred),
        ("dups", s.rx_duplicates),
    ];
    let tx_tail = [
        ("naks", s.tx_naks),
        ("acks", s.tx_acks),
        ("retrans", s.retransmitted),
    ];
    match info.kind {
        LinkKind::Unicast {
            state,
            mtu,
            priority,
            tolerance_ms,
            ..
        } => LinkJson::Unicast(UnicastJson {
            link: &info.name,
            state: [state_word(state)],
            mtu,
            priority,
            tolerance: tolerance_ms,
            window: info.window,
            rx_packets,
            tx_packets,
            samples: s.tx_profile.samples,
            average: average(&s.tx_profile),
            profile: Fields(percentages(&s.tx_profile)),
            rx_states: Fields(
                [
                    &[("rx states", s.rx_states), ("probes", s.rx_probes)][..],
                    &rx_tail,
                ]
                .concat(),
            ),
            tx_states: Fields(
                [
                    &[("tx states", s.tx_states), ("probes", s.tx_probes)][..],
                    &tx_tail,
                ]
                .concat(),
            ),
            queue,
        }),
        LinkKind::BroadcastSend | LinkKind::BroadcastReceive => {
            let [(_, rx_naks), rx_rest @ ..] = rx_tail;
            let [(_, tx_naks), tx_rest @ ..] = tx_tail;
            LinkJson::Broadcast(BroadcastJson {
                link: &info.name,
                window: info.window,
                rx_packets,
                tx_packets,
                rx_naks: Fields([&[("rx naks", rx_naks)][..], &rx_rest].concat()),
                tx_naks: Fields([&[("tx naks", tx_naks)][..], &tx_rest].concat()),
                queue,
            })
        }
    }
}

fn rx_packets(s: &LinkStatistics) -> Group {
    Fields(vec![
        ("rx packets", s.rx_packets),
        ("fragments", s.rx_fragments),
        ("fragmented", s.rx_fragmented),
        ("bundles", s.rx_bundles),
        ("bundled", s.rx_bundled),
    ])
}

fn tx_packets(s: &LinkStatistics) -> Group {
    Fields(vec![
        ("tx packets", s.tx_packets),
        ("fragments", s.tx_fragments),
        ("fragmented", s.tx_fragmented),
        ("bundles", s.tx_bundles),
        ("bundled", s.tx_bundled),
    ])
}

fn queue(s: &LinkStatistics) -> Group {
    Fields(vec![
        ("congestion link", s.link_congestions),
        ("send queue max", s.send_queue_max),
        ("avg", s.send_queue_average),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_to_the_nearest_percent() {
        let profile = SizeProfile {
            samples: 8,
            octets: 99,
            counts: [3, 5, 0, 0, 0, 0, 0],
        };
        let shares = percentages(&profile);
        assert_eq!(
            shares[..3],
            [("0-64", 38), ("-256", 63), ("-1024", 0)],
            "37.5 and 62.5 go up"
        );
        assert_eq!(average(&profile), 12);
    }

    #[test]
    fn a_link_without_samples_divides_by_nothing() {
        let text = profile_text(&SizeProfile::default());
        assert!(
            text.starts_with("  TX profile sample:0 packets average:0 octets\n  0-64:0% -256:0%"),
            "{text}"
        );
    }
}
