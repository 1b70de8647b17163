//! Commands that change links, media, monitors and keys; and those that are refused.

use xtipc_management::{Failure, KeyText, NodeIdentity, Property, RekeyingTime, Reply, Request};

use crate::answer::{Ask, Failed, Shown, invalid, named, nested, unexpected, unsupported};
use crate::family::{self, Command, monitor, node, property, top};
use crate::wire::Attributes;

/// `struct tipc_aead_key`: name of the algorithm, length, key.
const ALGORITHM_LEN: usize = 32;
const KEY_AT: usize = ALGORITHM_LEN + 4;
/// The interval that means at once.
const REKEYING_NOW: u32 = u32::MAX;

/// Has the daemon change something.
pub(crate) fn done(ask: Ask<'_>, request: Request) -> Shown {
    match ask(&request)? {
        Reply::Done => Ok(Vec::new()),
        _ => Err(unexpected()),
    }
}

/// Has it set each property that is there.
pub(crate) fn set_all(
    properties: Option<Attributes<'_>>,
    ask: Ask<'_>,
    request: impl Fn(Property, u32) -> Request,
) -> Shown {
    let properties = properties.ok_or_else(|| Failed(invalid("the properties are missing")))?;
    if properties.has(property::BROADCAST) || properties.has(property::BROADCAST_RATIO) {
        let text = "xtipcd chooses broadcast or copies for each message by itself";
        return Err(Failed(unsupported(text)));
    }
    for (kind, property) in [
        (property::PRIORITY, Property::Priority),
        (property::TOLERANCE, Property::Tolerance),
        (property::WINDOW, Property::Window),
        (property::MTU, Property::Mtu),
    ] {
        if let Some(value) = properties.number(kind)? {
            done(ask, request(property, value))?;
        }
    }
    Ok(Vec::new())
}

pub(crate) fn link(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::LINK, "link")?;
    let name = named(wanted, family::link::NAME, "link")?;
    set_all(
        wanted.nest(family::link::PROPERTIES)?,
        ask,
        |property, value| Request::LinkSet {
            name: name.to_owned(),
            property,
            value,
        },
    )
}

pub(crate) fn media(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::MEDIA, "media")?;
    let name = named(wanted, family::media::NAME, "media")?;
    set_all(
        wanted.nest(family::media::PROPERTIES)?,
        ask,
        |property, value| Request::MediaSet {
            name: name.to_owned(),
            property,
            value,
        },
    )
}

pub(crate) fn monitor(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::MONITOR, "monitor")?;
    match wanted.number(monitor::THRESHOLD)? {
        Some(threshold) => done(ask, Request::MonitorSet { threshold }),
        None => Err(Failed(invalid("the threshold is missing"))),
    }
}

pub(crate) fn key(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::NODE, "key")?;
    let rekeying = wanted.number(node::REKEYING)?.map(|minutes| match minutes {
        0 => RekeyingTime::Off,
        REKEYING_NOW => RekeyingTime::Now,
        minutes => RekeyingTime::Minutes(minutes),
    });
    let (key, algorithm) = match wanted.get(node::KEY) {
        None => (None, "gcm(aes)".to_owned()),
        Some(bytes) => {
            let text = "attribute 4 is no key: accepted are the name of an algorithm in 32 bytes, a length, and so many bytes";
            let (key, algorithm) = key_of(bytes).ok_or_else(|| Failed(invalid(text)))?;
            (Some(key), algorithm)
        }
    };
    let request = Request::KeySet {
        key,
        algorithm,
        node: wanted.array(node::ID)?.map(NodeIdentity),
        master: wanted.has(node::KEY_IS_MASTER),
        rekeying,
    };
    done(ask, request)
}

fn key_of(bytes: &[u8]) -> Option<(KeyText, String)> {
    let name = bytes.get(..ALGORITHM_LEN)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    let len = u32::from_ne_bytes(*bytes.get(ALGORITHM_LEN..)?.first_chunk()?) as usize;
    let key = bytes.get(KEY_AT..)?;
    if key.len() != len {
        return None;
    }
    let mut text = String::with_capacity(2 + 2 * len);
    text.push_str("0x");
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    Some((
        KeyText::new(text),
        std::str::from_utf8(&name[..end]).ok()?.to_owned(),
    ))
}

pub(crate) fn flush(ask: Ask<'_>) -> Shown {
    done(ask, Request::KeyFlush)
}

/// Why xtipcd does not do what Linux would, and what is to be done instead.
pub(crate) fn refusal(command: Command) -> Failure {
    match command {
        Command::NetSet => Failure {
            errno: 1, // EPERM, as in Linux once there is an address
            text: "the node has its identity and cluster id from the start: xtipcd --identity ID --cluster-id N".into(),
        },
        Command::PeerRemove => unsupported("xtipcd forgets peers that are down by itself"),
        _ => unsupported("xtipcd does not reset statistics: xtipc link statistics show tells them since the link is up"),
    }
}
