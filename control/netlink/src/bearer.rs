//! Commands that change bearers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xtipc_management::Request;

use crate::answer::{Ask, Failed, Shown, invalid, named, nested, unsupported};
use crate::change::{done, set_all};
use crate::family::{bearer, property, top, udp};
use crate::show::{AF_INET, AF_INET6};
use crate::wire::Attributes;

/// Its name, such as `eth:eth0`. In the text form of a bearer a comma would begin an option.
fn name<'a>(attributes: Attributes<'a>) -> Result<&'a str, Failed> {
    let name = named(attributes, bearer::NAME, "bearer")?;
    match name.contains(',') {
        true => Err(Failed(invalid("Illegal name"))),
        false => Ok(name),
    }
}

pub(crate) fn enable(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::BEARER, "bearer")?;
    let mut bearer = name(wanted)?.to_owned();
    if let Some(options) = wanted.nest(bearer::UDP)? {
        let mut option = |key: &str, address: SocketAddr| {
            let (ip, port) = (address.ip(), address.port());
            bearer.push_str(&format!(",{key}ip={ip},{key}port={port}"));
        };
        let local = address(options, udp::LOCAL)?;
        let local = local.ok_or_else(|| Failed(invalid("UDP local address is missing")))?;
        if let SocketAddr::V6(v6) = local
            && v6.scope_id() != 0
        {
            // The daemon may know the interface by another number.
            let text = "the interface of this address is needed by name: xtipc bearer enable media udp name NAME localip IP%DEVICE";
            return Err(Failed(unsupported(text)));
        }
        option("local", local);
        if let Some(remote) = address(options, udp::REMOTE)? {
            option("remote", remote);
        }
    }
    if let Some(properties) = wanted.nest(bearer::PROPERTIES)?
        && let Some(priority) = properties.number(property::PRIORITY)?
    {
        bearer.push_str(&format!(",priority={priority}"));
    }
    done(ask, Request::BearerEnable { bearer })
}

pub(crate) fn disable(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::BEARER, "bearer")?;
    let name = name(wanted)?.to_owned();
    done(ask, Request::BearerDisable { name })
}

pub(crate) fn add(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::BEARER, "bearer")?;
    let name = name(wanted)?.to_owned();
    let remote = match wanted.nest(bearer::UDP)? {
        Some(options) => address(options, udp::REMOTE)?,
        None => None,
    };
    let remote = remote.ok_or_else(|| Failed(invalid("UDP remote address is missing")))?;
    done(ask, Request::BearerAdd { name, remote })
}

pub(crate) fn set(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::BEARER, "bearer")?;
    let name = name(wanted)?;
    set_all(wanted.nest(bearer::PROPERTIES)?, ask, |property, value| {
        Request::BearerSet {
            name: name.to_owned(),
            property,
            value,
        }
    })
}

/// An address and port, from `struct sockaddr_storage` or as much of it as the family has.
fn address(options: Attributes<'_>, kind: u16) -> Result<Option<SocketAddr>, Failed> {
    let Some(bytes) = options.get(kind) else {
        return Ok(None);
    };
    let parsed = socket_address(bytes);
    parsed.map(Some).ok_or_else(|| {
        let text = format!("attribute {kind} is no address: those of IPv4 and IPv6 are accepted");
        Failed(invalid(text))
    })
}

fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let ip: IpAddr = match family {
        AF_INET => Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?).into(),
        AF_INET6 => Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    let mut address = SocketAddr::new(ip, port);
    if let SocketAddr::V6(address) = &mut address {
        address.set_scope_id(u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?));
    }
    Some(address)
}
