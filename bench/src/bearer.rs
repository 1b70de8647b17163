//! The bearer between two hosts, and the interface beneath it, through which the baselines go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// As xtipcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    text: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Interface(String),
    /// The own address, of UDP.
    Address(IpAddr),
}

const ACCEPTED: &str = "accepted are eth:INTERFACE, ib:INTERFACE, udp:NAME,localip=ADDRESS and udp:NAME,device=INTERFACE, \
                        each with further keys of xtipcd";

impl FromStr for Bearer {
    type Err = String;

    /// What the daemon takes of it, the daemon judges.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("{why}; {ACCEPTED}"));
        let Some((media, rest)) = text.split_once(':') else {
            return refused("no media");
        };
        let mut parts = rest.split(',');
        let name = parts.next().unwrap_or_default();
        let place = match media {
            _ if name.is_empty() => return refused("no name behind the colon"),
            "eth" | "ib" => Place::Interface(name.into()),
            "udp" => {
                let mut keys = parts.filter_map(|part| part.split_once('='));
                match keys.find(|(key, _)| matches!(*key, "localip" | "device")) {
                    Some(("device", interface)) => Place::Interface(interface.into()),
                    Some((_, address)) => match address.split_once('%') {
                        Some((_, interface)) => Place::Interface(interface.into()),
                        None => match address.parse() {
                            Ok(address) => Place::Address(address),
                            Err(_) => return refused(&format!("`{address}` is no IP address")),
                        },
                    },
                    None => return refused("no own address"),
                }
            }
            _ => return refused(&format!("no media `{media}` between hosts")),
        };
        let text = text.into();
        Ok(Self { text, place })
    }
}

impl fmt::Display for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An interface, and what the baselines use of it where it has that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) address: Option<Ipv4Addr>,
}

impl Bearer {
    /// The interface that it is on.
    pub(crate) fn interface(&self) -> Result<Interface> {
        let (name, address) = match &self.place {
            Place::Interface(name) => (name.clone(), addresses_of(name)?.first().copied()),
            Place::Address(own) => {
                let name = interface_with(*own)
                    .with_context(|| format!("--bearer {self}: no interface has {own}"))?;
                let address = match own {
                    IpAddr::V4(own) => Some(*own),
                    IpAddr::V6(_) => addresses_of(&name)?.first().copied(),
                };
                (name, address)
            }
        };
        let Some(mac) = link_address(&name)? else {
            bail!("--bearer {self}: no interface {name}");
        };
        Ok(Interface { name, mac, address })
    }
}

/// What the hardware is called: of InfiniBand no address of Ethernet. `None`: there is no such interface. The files of
/// sysfs may be those of another network namespace.
fn link_address(interface: &str) -> Result<Option<Option<[u8; 6]>>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let mut own = all.filter(|address| address.interface_name == interface);
    Ok(own.find_map(|own| {
        let link = *own.address?.as_link_addr()?;
        Some(link.addr().filter(|_| link.halen() == 6))
    }))
}

/// IPv4 addresses of an interface.
fn addresses_of(interface: &str) -> Result<Vec<Ipv4Addr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let own = all.filter(|address| address.interface_name == interface);
    let ips = own.filter_map(|address| Some(address.address?.as_sockaddr_in()?.ip()));
    Ok(ips.collect())
}

fn interface_with(own: IpAddr) -> Option<String> {
    let mut all = nix::ifaddrs::getifaddrs().ok()?;
    let found = all.find(|address| {
        let address = address.address.as_ref();
        let v4 = address.and_then(|a| Some(IpAddr::from(a.as_sockaddr_in()?.ip())));
        let v6 = address.and_then(|a| Some(IpAddr::from(a.as_sockaddr_in6()?.ip())));
        v4.or(v6) == Some(own)
    })?;
    Some(found.interface_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(bearer: &str) -> Result<Interface> {
        bearer.parse::<Bearer>().unwrap().interface()
    }

    #[test]
    fn the_interface_is_the_named_one_or_that_with_the_own_address() {
        let lo = Interface {
            name: "lo".into(),
            mac: Some([0; 6]),
            address: Some(Ipv4Addr::LOCALHOST),
        };
        for bearer in [
            "eth:lo",
            "eth:lo,priority=3",
            "udp:wan,localip=127.0.0.1,remoteip=127.0.0.2",
            "udp:wan,device=lo",
            "udp:wan,localip=fe80::1%lo",
        ] {
            assert_eq!(interface(bearer).unwrap(), lo, "{bearer}");
        }
        for (bearer, clue) in [
            ("eth:nonesuch", "no interface nonesuch"),
            (
                "udp:wan,localip=203.0.113.77",
                "no interface has 203.0.113.77",
            ),
        ] {
            let error = interface(bearer).unwrap_err().to_string();
            assert!(error.contains(clue), "{error}");
        }
    }

    #[test]
    fn what_is_no_bearer_is_told_what_is() {
        for (bearer, clue) in [
            ("eth1", "no media"),
            ("eth:", "no name"),
            ("shm:pod", "no media `shm` between hosts"),
            ("udp:wan", "no own address"),
            ("udp:wan,localip=ten", "`ten` is no IP address"),
        ] {
            let error = bearer.parse::<Bearer>().unwrap_err();
            assert!(error.contains(clue) && error.contains(ACCEPTED), "{error}");
        }
    }
}
