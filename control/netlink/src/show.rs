//! Bearers, media, nodes, the binding table and sockets.

use std::net::SocketAddr;

use xtipc_management::{
    BearerInfo, Media, MediaInfo, NodeIdentity, Publication, Reply, Request, Scope, SocketInfo,
};

use crate::answer::{Ask, Failed, Shown, invalid, named, nested};
use crate::family::{bearer, media, net, node, property, publication, socket, top, udp};
use crate::wire::{Attributes, Writer};

/// Asks for facts of one kind.
macro_rules! ask_for {
    ($ask:expr, $request:expr, $reply:path) => {
        match $ask(&$request)? {
            $reply(facts) => facts,
            _ => return Err($crate::answer::unexpected()),
        }
    };
}
pub(crate) use ask_for;

/// A message with one attribute that holds the others.
pub(crate) fn within(kind: u16, write: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::default();
    writer.nest(kind, write);
    writer
}

pub(crate) fn bearers(ask: Ask<'_>) -> Shown {
    let all = ask_for!(ask, Request::BearerList, Reply::Bearers);
    Ok(all.iter().map(about_bearer).collect())
}

pub(crate) fn bearer(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::BEARER, "bearer")?;
    Ok(vec![about_bearer(&named_bearer(wanted, ask)?)])
}

/// The bearer of this name.
fn named_bearer(attributes: Attributes<'_>, ask: Ask<'_>) -> Result<BearerInfo, Failed> {
    let name = named(attributes, bearer::NAME, "bearer")?;
    let all = ask_for!(ask, Request::BearerList, Reply::Bearers);
    let found = all.into_iter().find(|bearer| bearer.name == name);
    found.ok_or_else(|| Failed(invalid("Bearer not found")))
}

fn about_bearer(info: &BearerInfo) -> Writer {
    within(top::BEARER, |writer| {
        writer.text(bearer::NAME, &info.name);
        writer.nest(bearer::PROPERTIES, |writer| {
            writer.number(property::PRIORITY, info.priority);
            writer.number(property::TOLERANCE, info.tolerance_ms);
            writer.number(property::WINDOW, info.window);
            if info.media == Media::Udp {
                writer.number(property::MTU, info.mtu);
            }
        });
        if let Some(addresses) = &info.udp {
            writer.nest(bearer::UDP, |writer| {
                writer.bytes(udp::LOCAL, &address_bytes(addresses.local));
                match addresses.remotes.as_slice() {
                    [group] if group.ip().is_multicast() => {
                        writer.bytes(udp::REMOTE, &address_bytes(*group));
                    }
                    remotes => {
                        if let Some(first) = remotes.first() {
                            writer.bytes(udp::REMOTE, &address_bytes(*first));
                        }
                        writer.flag_if(true, udp::SEVERAL_REMOTES);
                    }
                }
            });
        }
    })
}

/// `struct sockaddr_storage`
fn address_bytes(address: SocketAddr) -> [u8; 128] {
    let mut bytes = [0; 128];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            bytes[4..8].copy_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            bytes[8..24].copy_from_slice(&address.ip().octets());
            bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// Families of addresses.
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;

/// The peers of a UDP bearer that sends copies.
pub(crate) fn remotes(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::BEARER, "bearer")?;
    let info = named_bearer(wanted, ask)?;
    let Some(addresses) = info.udp else {
        return Err(Failed(invalid("UDP option is unsupported")));
    };
    let about = |address: SocketAddr| {
        let mut writer = Writer::default();
        writer.bytes(udp::REMOTE, &address_bytes(address));
        writer
    };
    Ok(addresses.remotes.into_iter().map(about).collect())
}

pub(crate) fn all_media(ask: Ask<'_>) -> Shown {
    let all = ask_for!(ask, Request::MediaList, Reply::Media);
    Ok(all.iter().map(about_media).collect())
}

pub(crate) fn media(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let name = named(
        nested(attributes, top::MEDIA, "media")?,
        media::NAME,
        "media",
    )?;
    let all = ask_for!(ask, Request::MediaList, Reply::Media);
    match all.iter().find(|media| media.name == name) {
        Some(found) => Ok(vec![about_media(found)]),
        None => Err(Failed(invalid("Media not found"))),
    }
}

fn about_media(info: &MediaInfo) -> Writer {
    within(top::MEDIA, |writer| {
        writer.text(media::NAME, &info.name);
        writer.nest(media::PROPERTIES, |writer| {
            writer.number(property::PRIORITY, info.priority);
            writer.number(property::TOLERANCE, info.tolerance_ms);
            writer.number(property::WINDOW, info.window);
            if let Some(mtu) = info.mtu {
                writer.number(property::MTU, mtu);
            }
        });
    })
}

pub(crate) fn nodes(ask: Ask<'_>) -> Shown {
    let all = ask_for!(ask, Request::NodeList, Reply::Nodes);
    let about = |info: &xtipc_management::NodeInfo| {
        within(top::NODE, |writer| {
            writer.number(node::ADDRESS, info.address);
            writer.flag_if(info.up, node::UP);
        })
    };
    Ok(all.iter().map(about).collect())
}

pub(crate) fn net(ask: Ask<'_>) -> Shown {
    let own = ask_for!(ask, Request::NodeGet, Reply::Node);
    let NodeIdentity(identity) = own.identity;
    Ok(vec![within(top::NET, |writer| {
        writer.number(net::CLUSTER_ID, own.cluster_id);
        for (kind, half) in net::IDENTITY.into_iter().zip(identity.chunks_exact(8)) {
            writer.bytes(kind, half);
        }
    })])
}

/// A node of xtipc has no address of the old kind.
pub(crate) fn legacy_address() -> Shown {
    Ok(vec![within(top::NET, |_| ())])
}

pub(crate) fn name_table(ask: Ask<'_>) -> Shown {
    let all = ask_for!(ask, Request::NameTable, Reply::NameTable);
    let about = |(key, info): (usize, &Publication)| {
        within(top::NAME_TABLE, |writer| {
            writer.nest(publication::ENTRY, |writer| {
                writer.number(publication::TYPE, info.service_type);
                writer.number(publication::LOWER, info.lower);
                writer.number(publication::UPPER, info.upper);
                writer.number(publication::SCOPE, scope(info.scope));
                writer.number(publication::NODE, info.address);
                writer.number(publication::PORT, info.port);
                writer.number(publication::KEY, key as u32);
            });
        })
    };
    Ok(all.iter().enumerate().map(about).collect())
}

fn scope(scope: Scope) -> u32 {
    match scope {
        Scope::Zone => 1,
        Scope::Cluster => 2,
        Scope::Node => 3,
    }
}

pub(crate) fn sockets(ask: Ask<'_>) -> Shown {
    let own = ask_for!(ask, Request::NodeGet, Reply::Node);
    let all = ask_for!(ask, Request::SocketList { details: false }, Reply::Sockets);
    let about = |info: &SocketInfo| {
        within(top::SOCKET, |writer| {
            writer.number(socket::PORT, info.port);
            writer.number(socket::NODE, own.address);
            match &info.connected {
                None => writer.flag_if(!info.bound.is_empty(), socket::IS_BOUND),
                Some(peer) => writer.nest(socket::CONNECTION, |writer| {
                    writer.number(socket::CONNECTION_NODE, peer.address);
                    writer.number(socket::CONNECTION_PORT, peer.port);
                    if let Some(service) = &peer.via {
                        writer.flag_if(true, socket::CONNECTION_HAS_SERVICE);
                        writer.number(socket::CONNECTION_TYPE, service.service_type);
                        writer.number(socket::CONNECTION_INSTANCE, service.instance);
                    }
                }),
            }
        })
    };
    Ok(all.iter().map(about).collect())
}

/// The bindings of a socket.
pub(crate) fn bindings(attributes: Attributes<'_>, ask: Ask<'_>) -> Shown {
    let wanted = nested(attributes, top::SOCKET, "socket")?;
    let Some(port) = wanted.number(socket::PORT)? else {
        return Err(Failed(invalid("the port of the socket is missing")));
    };
    let all = ask_for!(ask, Request::SocketList { details: false }, Reply::Sockets);
    let Some(found) = all.into_iter().find(|socket| socket.port == port) else {
        return Err(Failed(invalid(format!("there is no socket {port}"))));
    };
    let about = |(key, binding): (usize, &xtipc_management::Binding)| {
        within(top::PUBLICATION, |writer| {
            writer.number(publication::KEY, key as u32);
            writer.number(publication::TYPE, binding.service_type);
            writer.number(publication::LOWER, binding.lower);
            writer.number(publication::UPPER, binding.upper);
        })
    };
    Ok(found.bound.iter().enumerate().map(about).collect())
}
