//! What names a bearer on the command line, and what a new one is given.
//!
//! Reference: `docs/protocol/management.md`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

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
    #[error("UDP {side} address error: {reason}\n")]
    NoAddress {
        side: &'static str,
        /// In the words of the system.
        reason: String,
    },
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
        let device = typed.value("device");
        if device.is_none() && typed.value("localip").is_none() {
            return Err(BearerWordsError::MissingLocal);
        }
        // Of the other media it is in the name.
        text.extend(device.map(|device| format!(",device={device}")));
    }
    let local = typed.value("localip");
    let local = local.map(|given| ip("local", given, None)).transpose()?;
    let like = local.map(|(ip, _)| ip);
    let remote = typed.value("remoteip");
    let remote = remote.map(|given| ip("remote", given, like)).transpose()?;
    for key in OPTIONS {
        let value = match key {
            "localip" => local.map(address_text),
            "remoteip" => remote.map(address_text),
            _ => typed.value(key).map(str::to_owned),
        };
        if let Some(value) = value {
            text.push_str(&format!(",{key}={value}"));
        }
    }
    Ok(text)
}

/// A peer of a UDP bearer.
pub(crate) fn remote(typed: &Typed<Command>) -> Result<SocketAddr, BearerWordsError> {
    let given = typed
        .value("remoteip")
        .ok_or(BearerWordsError::MissingRemote)?;
    // The interface of a link-local one is the bearer's.
    let (address, _) = ip("remote", given, None)?;
    let port = match typed.value("remoteport") {
        None => UDP_PORT,
        Some(port) => match port.parse() {
            Ok(number) if number > 0 => number,
            _ => return Err(BearerWordsError::NoPort(port.to_owned())),
        },
    };
    Ok(SocketAddr::new(address, port))
}

/// An address, and its interface if it is named behind a `%`. A name of a host is resolved by the system: here, for the
/// daemon would stand still meanwhile. Of several addresses it is the first of the family of `like`.
fn ip<'a>(
    side: &'static str,
    given: &'a str,
    like: Option<IpAddr>,
) -> Result<(IpAddr, Option<&'a str>), BearerWordsError> {
    let (address, interface) = match given.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (given, None),
    };
    if let Ok(address) = address.parse() {
        return Ok((address, interface));
    }
    let no_address = |reason: &str| BearerWordsError::NoAddress {
        side,
        reason: reason.to_owned(),
    };
    let found = (given, 0).to_socket_addrs().map_err(|error| {
        let text = error.to_string();
        no_address(text.rsplit(": ").next().unwrap_or(&text))
    })?;
    let found: Vec<_> = found.map(|found| found.ip()).collect();
    let is_alike = |ip: &&IpAddr| like.is_none_or(|like| like.is_ipv4() == ip.is_ipv4());
    let best = found.iter().find(is_alike).or(found.first());
    let best = best.ok_or_else(|| no_address("the name has no address"))?;
    Ok((*best, None))
}

fn address_text((ip, interface): (IpAddr, Option<&str>)) -> String {
    match interface {
        Some(interface) => format!("{ip}%{interface}"),
        None => ip.to_string(),
    }
}
