//! The IP addresses of the interfaces of the calling thread's network namespace.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// The interface is up and has a carrier.
    pub up: bool,
}

/// All of them, in the kernel's order.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
    let asking = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut first = std::ptr::null_mut();
    // SAFETY: the call stores a list in `first`, or fails and stores nothing.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: `next` is null or an entry of the list, which lives until it is freed below.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: every entry names its interface by a C string of the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        let Ok(interface) = name.to_str() else {
            continue;
        };
        // SAFETY: null, or an address of the list whose size its family tells.
        let Some(ip) = (unsafe { ip_of(entry.ifa_addr) }) else {
            continue;
        };
        // One that vanishes meanwhile has no address any more.
        if let Ok(index) = name_to_index(&asking, interface) {
            let wanted = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();
            found.push(InterfaceAddress {
                interface: interface.to_owned(),
                index,
                ip,
                up: entry.ifa_flags & wanted == wanted,
            });
        }
    }
    // SAFETY: `first` is the list stored above, freed once; nothing of it is kept.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a socket address of the size that its family has.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: by the contract of this function.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family tells that it is one.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family tells that it is one.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_address() {
        let all = addresses().unwrap();
        let loopback = all
            .iter()
            .find(|address| address.ip == IpAddr::from(Ipv4Addr::LOCALHOST));
        let Some(loopback) = loopback else {
            println!("skipped: no loopback address in this namespace");
            return;
        };
        assert_eq!((loopback.interface.as_str(), loopback.index), ("lo", 1));
    }
}
