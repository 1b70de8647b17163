//! Which path the packets of a bearer take: the rungs for a device, and the climb down them.
//!
//! On a device with rings of its own zero-copy is the best and generic the last of AF_XDP; on veth and
//! its kind the kernel builds packet buffers anyway, so that native copy only adds a conversion.
//! A path the operator asked for is that path or an error.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use xtipc_ebpf::{AttachMode, Classifier, rx_vlan_offload};
use xtipc_management::BearerMode;
use xtipc_xsk::interface::{DeviceKind, Interface};
use xtipc_xsk::packet::{Listen, PacketConfig, PacketError, PacketSocket};
use xtipc_xsk::{BindMode, FramePool};

use super::error::{BearerError, XdpError};
use super::ethernet::{ETHERTYPE, HEADER_SIZE_MAX};
use super::nic::Path;
use super::room::single_chunk_room;
use super::xdp::{Setup, Takes, XdpPort};
use crate::config::XdpMode;

/// Buffer of an AF_PACKET socket: some thousand packets, as an AF_XDP socket holds.
pub(super) const PACKET_BUFFER: usize = 8 << 20;

/// One path, best first on most devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// AF_XDP, the device works on the frame pool.
    ZeroCopy,
    /// AF_XDP, the driver runs the classifier and the kernel copies.
    Native,
    /// AF_XDP, the network stack runs the classifier and copies.
    Generic,
    /// AF_PACKET.
    Packet,
}

impl fmt::Display for Rung {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Native => "native copy",
            Self::Generic => "generic copy",
            Self::Packet => "AF_PACKET",
        })
    }
}

impl Rung {
    /// How classifier and sockets run; `None` is not AF_XDP.
    fn modes(self) -> Option<(AttachMode, BindMode)> {
        match self {
            Self::ZeroCopy => Some((AttachMode::Native, BindMode::ZeroCopy)),
            Self::Native => Some((AttachMode::Native, BindMode::Copy)),
            Self::Generic => Some((AttachMode::Generic, BindMode::Copy)),
            Self::Packet => None,
        }
    }

    /// Its name to the tools.
    pub(super) fn mode(self) -> BearerMode {
        match self {
            Self::ZeroCopy => BearerMode::XdpZeroCopy,
            Self::Native => BearerMode::XdpNative,
            Self::Generic => BearerMode::XdpGeneric,
            Self::Packet => BearerMode::Packet,
        }
    }
}

/// The rungs to try, in order.
fn rungs(xdp: XdpMode, kind: DeviceKind) -> &'static [Rung] {
    match (xdp, kind) {
        (XdpMode::Auto, DeviceKind::Hardware) => {
            &[Rung::ZeroCopy, Rung::Native, Rung::Generic, Rung::Packet]
        }
        (XdpMode::Auto, DeviceKind::Software) => &[Rung::Generic, Rung::Native, Rung::Packet],
        (XdpMode::Zerocopy, _) => &[Rung::ZeroCopy],
        (XdpMode::Native, _) => &[Rung::Native],
        (XdpMode::Generic, _) => &[Rung::Generic],
        (XdpMode::Off, _) => &[Rung::Packet],
    }
}

/// The configured word, for messages.
fn asked(xdp: XdpMode) -> &'static str {
    match xdp {
        XdpMode::Auto => "auto",
        XdpMode::Zerocopy => "zerocopy",
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
        XdpMode::Off => "off",
    }
}

/// The path found.
pub(super) struct Found {
    pub(super) path: Path,
    pub(super) rung: Rung,
    /// Why this one and no better one.
    pub(super) reason: String,
    /// Whether a packet may lie in several chunks.
    pub(super) multi_chunk: bool,
}

/// Tries the rungs until one holds, with a classifier that is loaded already if there is one.
pub(super) fn climb(
    interface: &Interface,
    vlan: u16,
    xdp: XdpMode,
    packet_mtu: usize,
    mut ready: Option<Classifier>,
    pool: &mut FramePool,
) -> Result<Found, BearerError> {
    let mut refused = Vec::new();
    for &rung in rungs(xdp, interface.kind) {
        match try_rung(rung, interface, vlan, packet_mtu, &mut ready, pool) {
            Ok((path, multi_chunk)) => {
                return Ok(Found {
                    path,
                    rung,
                    reason: reason(rung, xdp, interface, vlan, &refused),
                    multi_chunk,
                });
            }
            Err(Refusal::Xdp(error)) if error.is_final() => return Err(BearerError::Xdp(error)),
            Err(Refusal::Xdp(source)) if xdp != XdpMode::Auto => {
                return Err(BearerError::ModeRefused {
                    interface: interface.name.clone(),
                    asked: asked(xdp),
                    rung,
                    source: Box::new(source),
                });
            }
            Err(Refusal::Xdp(error)) => {
                tracing::debug!(interface = interface.name, %rung, %error, "refused");
                refused.push((rung, error.to_string()));
            }
            Err(Refusal::Packet(source)) => {
                return Err(BearerError::Packet {
                    interface: interface.name.clone(),
                    source,
                    refused: refusals(&refused),
                });
            }
        }
    }
    unreachable!("every list of rungs ends with one whose refusal returns above")
}

/// Tries the rungs of AF_XDP for the datagrams to an address and a group, with a classifier that is loaded already if there
/// is one. Tells which rung and why, or why none: the sockets of UDP are the last one.
pub(super) fn climb_for_datagrams(
    interface: &Interface,
    own: SocketAddr,
    group: Option<IpAddr>,
    xdp: XdpMode,
    mut ready: Option<Classifier>,
    pool: &mut FramePool,
) -> Result<(XdpPort, Rung, String), String> {
    if xdp == XdpMode::Off {
        return Err("asked for by xdp = off".into());
    }
    let mut refused = Vec::new();
    for &rung in rungs(xdp, interface.kind) {
        let Some(modes) = rung.modes() else { continue };
        let takes = Takes::Datagrams(own, group);
        match open_port(modes, interface, takes, &mut ready, pool) {
            Ok((port, multi_buffer)) if !multi_buffer && needs_chunks(interface, 0) => {
                // Peers do not know that their datagrams would come in vain.
                let refusal = "the kernel has no XDP_USE_SG for the interface's MTU";
                if let Err(held) = port.close(pool).1 {
                    tracing::warn!(interface = interface.name, %held, "after a refused XDP mode");
                }
                return Err(refusal.into());
            }
            Ok((port, _)) => {
                return Ok((port, rung, reason(rung, xdp, interface, 0, &refused)));
            }
            Err(error) if error.is_final() => return Err(error.to_string()),
            Err(error) => refused.push((rung, error.to_string())),
        }
    }
    Err(refusals(&refused))
}

enum Refusal {
    Xdp(XdpError),
    Packet(PacketError),
}

fn try_rung(
    rung: Rung,
    interface: &Interface,
    vlan: u16,
    packet_mtu: usize,
    ready: &mut Option<Classifier>,
    pool: &mut FramePool,
) -> Result<(Path, bool), Refusal> {
    let Some(modes) = rung.modes() else {
        let socket = PacketSocket::open(&PacketConfig {
            ifindex: interface.index,
            listen: match vlan {
                0 => Listen::Ethertype(ETHERTYPE),
                _ => Listen::TaggedEthertype(ETHERTYPE),
            },
            frame_len: packet_mtu + HEADER_SIZE_MAX,
            buffer: PACKET_BUFFER,
        })
        .map_err(Refusal::Packet)?;
        return Ok((Path::Packet(socket), true));
    };
    let hides_tags = vlan != 0 && interface.kind == DeviceKind::Hardware;
    if hides_tags && rx_vlan_offload(&interface.name).unwrap_or(false) {
        return Err(Refusal::Xdp(XdpError::VlanOffload {
            interface: interface.name.clone(),
        }));
    }
    let (port, multi_buffer) =
        open_port(modes, interface, Takes::Vlan(vlan), ready, pool).map_err(Refusal::Xdp)?;
    Ok((Path::Xdp(Box::new(port)), multi_buffer))
}

/// Whether the longest packet of an interface does not fit into one chunk.
fn needs_chunks(interface: &Interface, vlan: u16) -> bool {
    interface.mtu as usize > single_chunk_room(vlan)
}

/// Opens AF_XDP in these modes; whether a packet may lie in several chunks.
fn open_port(
    (attach, bind): (AttachMode, BindMode),
    interface: &Interface,
    takes: Takes,
    ready: &mut Option<Classifier>,
    pool: &mut FramePool,
) -> Result<(XdpPort, bool), XdpError> {
    let vlan = match takes {
        Takes::Vlan(vlan) => vlan,
        Takes::Datagrams(..) => 0,
    };
    let multi_buffer =
        needs_chunks(interface, vlan) && xtipc_xsk::multi_buffer_supported() == Ok(true);
    let setup = Setup {
        interface: &interface.name,
        ifindex: interface.index,
        queues: interface.rx_queues,
        takes,
        attach,
        bind,
        multi_buffer,
    };
    let port = XdpPort::open(&setup, ready, pool)?;
    Ok((port, multi_buffer))
}

fn reason(
    rung: Rung,
    xdp: XdpMode,
    interface: &Interface,
    vlan: u16,
    refused: &[(Rung, String)],
) -> String {
    let driver = interface.driver.as_deref().unwrap_or("this device");
    let mut text = match (xdp, rung) {
        (XdpMode::Auto, _) if !refused.is_empty() => format!("{rung}: {}", refusals(refused)),
        (XdpMode::Auto, Rung::ZeroCopy) => format!("{rung}: granted by {driver}"),
        (XdpMode::Auto, _) => format!("{rung}: faster than native on {driver}"),
        _ => format!("{rung}: asked for by xdp = {}", asked(xdp)),
    };
    if vlan != 0 && rung != Rung::Packet && interface.kind == DeviceKind::Software {
        text.push_str(
            "; peers on this host must put the VLAN tag into their frames (ethtool -K PEER txvlan off)",
        );
    }
    text
}

fn refusals(refused: &[(Rung, String)]) -> String {
    let texts = refused
        .iter()
        .map(|(rung, why)| format!("{rung} refused ({why})"));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bearer::tests::interface;

    #[test]
    fn a_device_with_rings_is_tried_from_zero_copy_down_to_af_packet() {
        assert_eq!(
            rungs(XdpMode::Auto, DeviceKind::Hardware),
            [Rung::ZeroCopy, Rung::Native, Rung::Generic, Rung::Packet]
        );
    }

    #[test]
    fn a_software_device_is_tried_in_generic_mode_first_and_never_zero_copy() {
        assert_eq!(
            rungs(XdpMode::Auto, DeviceKind::Software),
            [Rung::Generic, Rung::Native, Rung::Packet]
        );
    }

    #[test]
    fn a_path_asked_for_is_the_only_one_tried() {
        let one = [
            (XdpMode::Zerocopy, Rung::ZeroCopy),
            (XdpMode::Native, Rung::Native),
            (XdpMode::Generic, Rung::Generic),
            (XdpMode::Off, Rung::Packet),
        ];
        for (xdp, rung) in one {
            for kind in [DeviceKind::Software, DeviceKind::Hardware] {
                assert_eq!(rungs(xdp, kind), [rung]);
            }
        }
    }

    #[test]
    fn the_reason_names_what_was_asked_granted_or_refused() {
        let nic = interface(DeviceKind::Hardware, "ice");
        let veth = interface(DeviceKind::Software, "veth");
        let of = |rung, xdp, interface, refused: &[_]| reason(rung, xdp, interface, 0, refused);
        assert_eq!(
            of(Rung::ZeroCopy, XdpMode::Auto, &nic, &[]),
            "zero-copy: granted by ice"
        );
        assert_eq!(
            of(Rung::Generic, XdpMode::Auto, &veth, &[]),
            "generic copy: faster than native on veth"
        );
        assert_eq!(
            of(Rung::Packet, XdpMode::Off, &nic, &[]),
            "AF_PACKET: asked for by xdp = off"
        );
        let refused = [
            (Rung::ZeroCopy, "no room".into()),
            (Rung::Native, "no".into()),
        ];
        assert_eq!(
            of(Rung::Generic, XdpMode::Auto, &nic, &refused),
            "generic copy: zero-copy refused (no room), native copy refused (no)"
        );
    }
}
