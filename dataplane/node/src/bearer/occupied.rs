//! What is on an interface already: questions to netlink.
//!
//! Two TIPC nodes behind one hardware address answer the same peers: a bearer on an interface that the kernel holds is
//! refused. The question goes through
//! generic netlink as the `tipc` tool asks it, in the calling thread's network namespace, and
//! never makes the kernel load its TIPC module.

use std::io;

use xtipc_ebpf::netlink::{GENERIC_HEADER_SIZE, Netlink, attribute, generic_header, text};
use xtipc_ebpf::{Interface, Occupant, PROGRAM_NAME};

use super::error::BearerError;

/// The kernel's generic netlink family for TIPC (`linux/tipc_netlink.h`).
const FAMILY: &str = "TIPCv2";
const FAMILY_VERSION: u8 = 1;
const TIPC_NL_BEARER_GET: u8 = 4;
const TIPC_NLA_BEARER: u16 = 1;
const TIPC_NLA_BEARER_NAME: u16 = 1;

/// Refuses an interface on which the kernel's TIPC has a bearer of this media.
pub(super) fn refuse_kernel_bearer(
    media: &'static str,
    interface: &str,
) -> Result<(), BearerError> {
    match kernel_bearer(&format!("{media}:{interface}")) {
        Ok(true) => Err(BearerError::KernelBearer {
            media,
            interface: interface.into(),
        }),
        Ok(false) => Ok(()),
        Err(error) => {
            tracing::warn!(interface, %error, "cannot ask for the kernel's TIPC bearers");
            Ok(())
        }
    }
}

/// Whether the kernel's TIPC has a bearer of this name. A kernel without TIPC has none.
fn kernel_bearer(name: &str) -> io::Result<bool> {
    let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC))?;
    let Some(family) = netlink.generic_family(FAMILY)? else {
        return Ok(false);
    };
    let bearers = netlink.dump(family, &generic_header(TIPC_NL_BEARER_GET, FAMILY_VERSION))?;
    Ok(bearers.iter().any(|answer| is_bearer(answer, name)))
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

/// Whether one answer of the dump is about the bearer of this name.
fn is_bearer(answer: &[u8], name: &str) -> bool {
    answer
        .get(GENERIC_HEADER_SIZE..)
        .and_then(|list| attribute(list, TIPC_NLA_BEARER))
        .and_then(|bearer| attribute(bearer, TIPC_NLA_BEARER_NAME))
        .is_some_and(|found| text(found) == name.as_bytes())
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
    fn only_the_bearer_of_this_media_on_this_interface_counts() {
        assert!(is_bearer(&answer("eth:eth0"), "eth:eth0"));
        for other in [
            "eth:eth01",
            "eth:eth",
            "ib:eth0",
            "udp:eth0",
            "eth0",
            "eth:",
        ] {
            assert!(!is_bearer(&answer(other), "eth:eth0"), "{other}");
        }
        assert!(!is_bearer(&[], "eth:eth0"));
    }

    #[test]
    fn a_kernel_without_tipc_has_no_bearer() {
        if std::fs::read_to_string("/proc/modules").is_ok_and(|modules| modules.contains("tipc ")) {
            eprintln!("skipped: this kernel has TIPC");
            return;
        }
        assert!(!kernel_bearer("eth:lo").unwrap());
    }
}
