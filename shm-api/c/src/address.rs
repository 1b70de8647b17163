//! Addresses, and how they are written.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU32, Ordering};

use xtipc_descriptors::calls::{life, options};
use xtipc_descriptors::memory::{In, InOut, Out};

use crate::sockets::{tipc_sockaddr, tipc_socket};

/// A service address, {type, instance}: `node` is 0 for the whole cluster, or the number of the node that is meant.
/// Where `type` is 0: the address of a socket, `instance` being its port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct tipc_addr {
    pub r#type: u32,
    pub instance: u32,
    pub node: u32,
}

/// The request for a link's name: `struct tipc_sioc_ln_req`.
#[repr(C)]
struct LinkRequest {
    peer: u32,
    bearer: u32,
    name: [u8; 68],
}

const SIOCGETLINKNAME: u64 = 0x89e0;

/// The number of this node; 0 as long as it has none.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_own_node() -> u32 {
    static NODE: AtomicU32 = AtomicU32::new(0);
    let known = NODE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let sd = tipc_socket(libc::SOCK_RDM | libc::SOCK_CLOEXEC);
    let mut own = tipc_addr::default();
    if sd >= 0 {
        tipc_sockaddr(sd, &raw mut own);
        life::close(sd);
    }
    NODE.store(own.node, Ordering::Relaxed);
    own.node
}

/// Writes an address as type:instance@node, or 0:port@node; returns buf.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_ntoa(addr: *const tipc_addr, buf: *mut c_char, len: usize) -> *mut c_char {
    let text = In::new(addr).read().map_or_else(
        |_| String::new(),
        |addr| match addr.r#type {
            0 => format!("0:{:010}@{:x}", addr.instance, addr.node),
            known => format!("{known}:{}@{:x}", addr.instance, addr.node),
        },
    );
    put(&text, buf, len)
}

/// Writes a service range as type:lower:upper@node; returns buf.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_rtoa(
    r#type: u32,
    lower: u32,
    upper: u32,
    node: u32,
    buf: *mut c_char,
    len: usize,
) -> *mut c_char {
    put(&format!("{type}:{lower}:{upper}@{node:x}"), buf, len)
}

/// Writes the name of the link to a node over a bearer; an empty one if there is no such link. Returns buf.
#[unsafe(no_mangle)]
pub extern "C" fn tipc_linkname(
    buf: *mut c_char,
    len: usize,
    peer: u32,
    bearerid: c_int,
) -> *mut c_char {
    let mut request = LinkRequest {
        peer,
        bearer: bearerid.cast_unsigned(),
        name: [0; 68],
    };
    let sd = tipc_socket(libc::SOCK_RDM | libc::SOCK_CLOEXEC);
    if sd >= 0 {
        let argument = InOut::new((&raw mut request).cast());
        if options::ioctl(sd, SIOCGETLINKNAME, argument) < 0 {
            request.name = [0; 68];
        }
        life::close(sd);
    }
    let name = request.name.split(|byte| *byte == 0).next();
    put(&String::from_utf8_lossy(name.unwrap_or_default()), buf, len)
}

/// Writes as much of a text as there is room for, and a zero.
fn put(text: &str, buf: *mut c_char, len: usize) -> *mut c_char {
    if let Ok(room) = Out::<u8>::new(buf.cast()).slice(len)
        && let Some(room_for_text) = room.len().checked_sub(1)
    {
        let count = text.len().min(room_for_text);
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        room[count] = 0;
    }
    buf
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(addr: tipc_addr, len: usize) -> Vec<u8> {
        let mut buf = [b'#'; 40];
        tipc_ntoa(&raw const addr, buf.as_mut_ptr().cast(), len);
        buf[..len + 1].to_vec()
    }

    #[test]
    fn addresses_are_cut_to_the_room_and_nothing_is_written_behind_it() {
        let [service, socket] = [(18888, 17), (0, 99)].map(|(r#type, instance)| tipc_addr {
            r#type,
            instance,
            node: 0x01001002,
        });
        assert!(written(service, 39).starts_with(b"18888:17@1001002\0#"));
        assert!(written(socket, 39).starts_with(b"0:0000000099@1001002\0#"));
        assert_eq!(written(service, 6), b"18888\0#");
        assert_eq!(written(service, 1), b"\0#");
        assert_eq!(written(service, 0), b"#");
    }

    #[test]
    fn without_room_nothing_is_written() {
        assert!(tipc_ntoa(std::ptr::null(), std::ptr::null_mut(), 8).is_null());
        let mut buf = [b'#'; 40];
        tipc_rtoa(1, 2, 3, 4, buf.as_mut_ptr().cast(), 40);
        assert!(buf.starts_with(b"1:2:3@4\0#"));
    }
}
