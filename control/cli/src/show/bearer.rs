//! Bearers and media. Reference: `docs/protocol/management.md`.

use xtipc_management::{
    BearerInfo, BearerMode, ClientError, Counters, Failure, Interrupt, Interrupts, Media,
    MediaInfo, Property, QueueInfo, SteeringWay,
};

use super::{node::state, printable};
use crate::Error;
use crate::bearer::BearerWordsError;

/// `EINVAL`, for a media nobody knows.
const INVALID_ARGUMENT: i32 = 22;

pub(crate) fn list_text(bearers: &[BearerInfo], details: bool) -> String {
    let line = |bearer: &BearerInfo| {
        let more = if details {
            details_text(bearer)
        } else {
            String::new()
        };
        format!("{}\n{more}", bearer.name)
    };
    bearers.iter().map(line).collect()
}

/// The lines below the name of a bearer: state, path and why this path, traffic, drops.
pub(crate) fn details_text(bearer: &BearerInfo) -> String {
    let numa = bearer
        .numa_node
        .map_or(String::new(), |node| format!("  NUMA node:{node}"));
    let mut text = format!(
        "  {}  MTU:{}  Priority:{}  Tolerance:{} ms  Window:{} packets  {}{numa}\n",
        state(bearer.up),
        bearer.mtu,
        bearer.priority,
        bearer.tolerance_ms,
        bearer.window,
        bearer.media_address,
    );
    text += &match bearer.mode_reason.as_str() {
        "" => format!("  path: {}\n", path(bearer.mode)),
        reason => format!("  path: {} ({reason})\n", path(bearer.mode)),
    };
    if let Some(diagnosis) = &bearer.diagnosis {
        text += &format!("  diagnosis: {diagnosis}\n");
    }
    if let Some(steering) = &bearer.steering {
        text += &format!("  steering: {} ({})\n", way(steering.way), steering.reason);
    }
    if let Some(interrupts) = &bearer.interrupts {
        text += &interrupts_text(interrupts);
    }
    text += &format!(
        "  RX packets:{} octets:{}\n",
        bearer.rx_packets, bearer.rx_bytes
    );
    text += &format!(
        "  TX packets:{} octets:{}\n",
        bearer.tx_packets, bearer.tx_bytes
    );
    text += &counters_text("  drops", &bearer.drops);
    text += &counters_text("  classifier", &bearer.classifier);
    text + &bearer.queues.iter().map(queue_text).collect::<String>()
}

fn queue_text(queue: &QueueInfo) -> String {
    let head = format!(
        "  queue {}: worker:{} RX packets:{} TX packets:{}\n",
        queue.queue, queue.worker, queue.rx_packets, queue.tx_packets
    );
    head + &counters_text("    kernel", &queue.kernel)
        + &counters_text("    handed over", &queue.handover)
}

fn interrupts_text(interrupts: &Interrupts) -> String {
    let way = match interrupts.placed {
        true => "placed",
        false => "left alone",
    };
    let line = |interrupt: &Interrupt| {
        let Interrupt {
            number,
            name,
            queue,
            cpus,
        } = interrupt;
        format!(
            "    {number} {} of queue {queue}: cpu {cpus}\n",
            printable(name)
        )
    };
    let lines = interrupts.lines.iter().map(line).collect::<String>();
    format!("  interrupts: {way} ({})\n{lines}", interrupts.reason)
}

fn path(mode: BearerMode) -> &'static str {
    match mode {
        BearerMode::XdpZeroCopy => "AF_XDP zero-copy",
        BearerMode::XdpNative => "AF_XDP native copy",
        BearerMode::XdpGeneric => "AF_XDP generic copy",
        BearerMode::Packet => "AF_PACKET",
        BearerMode::Udp => "UDP socket",
        BearerMode::SharedMemory => "shared memory",
    }
}

fn way(way: SteeringWay) -> &'static str {
    match way {
        SteeringWay::Rules => "rules of the NIC",
        SteeringWay::Hash => "hash of the NIC",
        SteeringWay::Software => "software",
    }
}

/// One line of named counters, without those that are zero; nothing when all are.
pub(crate) fn counters_text(heading: &str, counters: &Counters) -> String {
    let shown: String = counters
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|(name, count)| format!(" {name}:{count}"))
        .collect();
    if shown.is_empty() {
        shown
    } else {
        format!("{heading}:{shown}\n")
    }
}

fn named<'a>(all: &'a [BearerInfo], name: &str) -> Result<&'a BearerInfo, Error> {
    let bearer = all.iter().find(|bearer| bearer.name == name);
    bearer.ok_or_else(|| {
        let text = "Bearer not found".to_owned();
        let errno = INVALID_ARGUMENT;
        ClientError::Refused(Failure { errno, text }).into()
    })
}

/// The addresses of a UDP bearer that are asked for, one a line.
pub(crate) fn udp_text(
    all: &[BearerInfo],
    name: &str,
    is_asked: impl Fn(&str) -> bool,
) -> Result<String, Error> {
    let Some(udp) = &named(all, name)?.udp else {
        return Err(Error::NotOfMedia);
    };
    let lines: Vec<String> = if is_asked("localip") {
        vec![udp.local.ip().to_string()]
    } else if is_asked("localport") {
        vec![udp.local.port().to_string()]
    } else if is_asked("remoteip") {
        udp.remotes.iter().map(|to| to.ip().to_string()).collect()
    } else if is_asked("remoteport") {
        udp.remotes.iter().map(|to| to.port().to_string()).collect()
    } else {
        return Err(BearerWordsError::MissingUdpOption.into());
    };
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// The name and value of a property of the bearer with this name.
pub(crate) fn property(
    all: &[BearerInfo],
    name: &str,
    property: Property,
) -> Result<(&'static str, u32), Error> {
    let bearer = named(all, name)?;
    let value = match property {
        Property::Priority => bearer.priority,
        Property::Tolerance => bearer.tolerance_ms,
        Property::Window => bearer.window,
        Property::Mtu if bearer.media == Media::Udp => bearer.mtu,
        Property::Mtu => return Err(Error::NotOfMedia),
    };
    Ok((property.name(), value))
}

pub(crate) fn media_text(media: &[MediaInfo]) -> String {
    media
        .iter()
        .map(|media| format!("{}\n", media.name))
        .collect()
}

/// The name and value of a property.
pub(crate) fn media_property(
    all: &[MediaInfo],
    name: &str,
    property: Property,
) -> Result<(&'static str, u32), Error> {
    let unknown = || {
        ClientError::Refused(Failure {
            errno: INVALID_ARGUMENT,
            text: "Media not found".to_owned(),
        })
    };
    let media = all
        .iter()
        .find(|media| media.name == name)
        .ok_or_else(unknown)?;
    Ok(match property {
        Property::Priority => ("priority", media.priority),
        Property::Tolerance => ("tolerance", media.tolerance_ms),
        Property::Window => ("window", media.window),
        Property::Mtu => ("mtu", media.mtu.ok_or(Error::NotOfMedia)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_has_a_line_of_its_own_below_the_path() {
        let bearer = BearerInfo {
            diagnosis: Some("nothing was heard".into()),
            ..BearerInfo::default()
        };
        let text = details_text(&bearer);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines[1..3],
            ["path: AF_PACKET", "diagnosis: nothing was heard"]
        );
        assert!(!details_text(&BearerInfo::default()).contains("diagnosis"));
    }
}
