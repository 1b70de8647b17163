//! What names a bearer on the command line, and what a new one is given.
//!
//! Reference: `docs/protocol/management.md`.

use std::net::{IpAddr, SocketAddr};

use crate::commands::Command;
use crate::grammar::Typed;

/// What is wrong with the words that describe a bearer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BearerWordsError {
    #[error("error, missing bearer media\n")]
    MissingMedia,
    #[error("error, missing bearer {0}\n")]
    Missing(&'static str),
    #[error("error, invalid media type {0}: eth, ib, udp and shm are accepted\n")]
    UnknownMedia(String),
    #[error("error, udp bearer localip/device missing\n")]
    MissingLocal,
    #[error("error, missing remoteip\n")]
    MissingRemote,
    #[error("error, invalid address \"{0}\": an IPv4 or IPv6 address is accepted\n")]
    NoAddress(String),
    #[error("error, invalid port \"{0}\": 1 to 65535 is accepted\n")]
    NoPort(String),
    #[error("error, missing UDP option\n")]
    MissingUdpOption,
}

/// The port of TIPC over UDP.
const UDP_PORT: u16 = 6118;
/// Keys that the daemon's text form of a bearer has, too. A remote port belongs to the remote address before it.
const OPTIONS: [&str; 11] = [
    "priority",
    "tolerance",
    "window",
    "vlan",
    "queues",
    "localip",
    "localport",
    "remoteip",
    "remoteport",
    "mtu",
    "dir",
];

/// The bearer's name, such as `eth:eth0`.
pub(crate) fn name(typed: &Typed<Command>) -> Result<String, BearerWordsError> {
    // `bearer get media udp …` has the media right behind its last word.
    let media = typed.first.as_deref().or_else(|| typed.value("media"));
    let media = media.ok_or(BearerWordsError::MissingMedia)?;
    let key = match media {
        "eth" | "ib" => "device",
        "udp" | "shm" => "name",
        _ => return Err(BearerWordsError::UnknownMedia(media.to_owned())),
    };
    let name = typed.value(key).ok_or(BearerWordsError::Missing(key))?;
    Ok(format!("{media}:{name}"))
}

/// A new bearer in the text form of the daemon's configuration, such as `eth:eth0,priority=5`.
pub(crate) fn specification(typed: &Typed<Command>) -> Result<String, BearerWordsError> {
    let mut text = name(typed)?;
    if typed.value("media") == Some("udp") {
        match (typed.value("localip"), typed.value("device")) {
            (None, None) => return Err(BearerWordsError::MissingLocal),
            (None, Some(device)) => text.push_str(&format!(",device={device}")),
            (Some(_), _) => {}
        }
    }
    for key in OPTIONS {
        if let Some(value) = typed.value(key) {
            text.push_str(&format!(",{key}={value}"));
        }
    }
    Ok(text)
}

/// A peer of a UDP bearer.
pub(crate) fn remote(typed: &Typed<Command>) -> Result<SocketAddr, BearerWordsError> {
    let ip = typed
        .value("remoteip")
        .ok_or(BearerWordsError::MissingRemote)?;
    let no_address = |_| BearerWordsError::NoAddress(ip.to_owned());
    // The interface of a link-local one is the bearer's.
    let address = ip.split_once('%').map_or(ip, |(address, _)| address);
    let address: IpAddr = address.parse().map_err(no_address)?;
    let port = match typed.value("remoteport") {
        None => UDP_PORT,
        Some(port) => match port.parse() {
            Ok(number) if number > 0 => number,
            _ => return Err(BearerWordsError::NoPort(port.to_owned())),
        },
    };
    Ok(SocketAddr::new(address, port))
}
