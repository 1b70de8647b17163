//! What is on an interface already, and which interfaces there are: questions to netlink.
//!
//! Two TIPC nodes behind one hardware address answer the same peers: the steward asks here before
//! it enables an Ethernet bearer, and refuses one that the kernel holds. The question goes through
//! generic netlink as the `tipc` tool asks it, in the calling thread's network namespace, and
//! never makes the kernel load its TIPC module.

use std::io;

use xtipc_ebpf::netlink::{GENERIC_HEADER_SIZE, Netlink, attribute, generic_header, text};
use xtipc_ebpf::{Interface, Occupant, PROGRAM_NAME};

const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`; the link type is its third and fourth byte, the index follows.
const LINK_HEADER_SIZE: usize = 16;
const ARPHRD_ETHER: u16 = 1;
const IFLA_IFNAME: u16 = 3;

/// The kernel's generic netlink family for TIPC (`linux/tipc_netlink.h`).
const FAMILY: &str = "TIPCv2";
const FAMILY_VERSION: u8 = 1;
const TIPC_NL_BEARER_GET: u8 = 4;
const TIPC_NLA_BEARER: u16 = 1;
const TIPC_NLA_BEARER_NAME: u16 = 1;

/// Whether the kernel's TIPC has an Ethernet bearer on `interface`. A kernel without TIPC has none.
pub(crate) fn kernel_bearer(interface: &str) -> io::Result<bool> {
    let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC))?;
    let Some(family) = netlink.generic_family(FAMILY)? else {
        return Ok(false);
    };
    let bearers = netlink.dump(family, &generic_header(TIPC_NL_BEARER_GET, FAMILY_VERSION))?;
    Ok(bearers
        .iter()
        .any(|answer| is_ethernet_bearer_on(answer, interface)))
}

/// The foreign XDP program on an interface. A classifier of xtipc may be the remains of a dead
/// process: attaching waits for those.
pub(super) fn program(interface: &str) -> Option<Occupant> {
    let occupants = Interface::query(interface).ok()?.occupants;
    occupants.into_iter().find(|occupant| {
        let name = occupant.program_name.as_deref();
        name.is_some_and(|name| name != PROGRAM_NAME)
    })
}

/// The names of all Ethernet interfaces.
pub(super) fn ethernet_interfaces() -> io::Result<Vec<String>> {
    let links = Netlink::open(None)?.dump(RTM_GETLINK, &[0; LINK_HEADER_SIZE])?;
    let ethernet = links
        .iter()
        .filter(|link| link.get(2..4) == Some(&ARPHRD_ETHER.to_ne_bytes()));
    Ok(ethernet.filter_map(|link| link_name(link)).collect())
}

/// The name of the interface with this index; `None` if there is none.
pub(super) fn name_of(index: u32) -> Option<String> {
    let links = Netlink::open(None)
        .and_then(|mut netlink| netlink.dump(RTM_GETLINK, &[0; LINK_HEADER_SIZE]))
        .ok()?;
    let link = links
        .iter()
        .find(|link| link.get(4..8) == Some(&index.to_ne_bytes()))?;
    link_name(link)
}

fn link_name(link: &[u8]) -> Option<String> {
    let name = attribute(link.get(LINK_HEADER_SIZE..)?, IFLA_IFNAME)?;
    String::from_utf8(text(name).to_vec()).ok()
}

/// Whether one answer of the dump names the Ethernet bearer of this interface.
fn is_ethernet_bearer_on(answer: &[u8], interface: &str) -> bool {
    answer
        .get(GENERIC_HEADER_SIZE..)
        .and_then(|list| attribute(list, TIPC_NLA_BEARER))
        .and_then(|bearer| attribute(bearer, TIPC_NLA_BEARER_NAME))
        .and_then(|name| text(name).strip_prefix(b"eth:"))
        == Some(interface.as_bytes())
}

#[cfg(test)]
mod tests {
    use xtipc_ebpf::netlink::put_attribute;

    use super::*;

    fn answer(name: &str) -> Vec<u8> {
        let mut bearer = Vec::new();
        put_attribute(
            &mut bearer,
            TIPC_NLA_BEARER_NAME,
            format!("{name}\0").as_bytes(),
        );
        let mut answer = generic_header(TIPC_NL_BEARER_GET, FAMILY_VERSION).to_vec();
        put_attribute(&mut answer, TIPC_NLA_BEARER, &bearer);
        answer
    }

    #[test]
    fn only_the_ethernet_bearer_of_this_interface_counts() {
        assert!(is_ethernet_bearer_on(&answer("eth:eth0"), "eth0"));
        for other in [
            "eth:eth01",
            "eth:eth",
            "ib:eth0",
            "udp:eth0",
            "eth0",
            "eth:",
        ] {
            assert!(!is_ethernet_bearer_on(&answer(other), "eth0"), "{other}");
        }
        assert!(!is_ethernet_bearer_on(&[], "eth0"));
    }

    #[test]
    fn a_kernel_without_tipc_has_no_bearer() {
        if std::fs::read_to_string("/proc/modules").is_ok_and(|modules| modules.contains("tipc ")) {
            eprintln!("skipped: this kernel has TIPC");
            return;
        }
        assert!(!kernel_bearer("lo").unwrap());
    }
}
