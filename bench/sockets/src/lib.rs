//! Sockets of families whose addresses no crate in use here has in a safe form: AF_PACKET and the kernel's AF_TIPC. Their
//! addresses are bytes here. And AF_XDP sockets of xsk-rs, whose functions are unsafe (the feature `xsk-rs`).

#[cfg(feature = "xsk-rs")]
pub mod xsk_rs;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Longest address in use here.
const ADDRESS_MAX: usize = 32;

/// An address as the kernel reads and writes it.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    bytes: [u8; ADDRESS_MAX],
    len: usize,
}

impl Address {
    /// The parts one after the other, at most 32 bytes in all.
    pub fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; ADDRESS_MAX];
        let mut len = 0;
        for part in parts {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        Self { bytes, len }
    }
}

/// A socket; closed on drop.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl RawSocket {
    /// As `socket` does.
    pub fn open(family: i32, kind: i32, protocol: i32) -> io::Result<Self> {
        // SAFETY: plain values; the kernel checks them.
        let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
        checked(fd as isize)?;
        // SAFETY: a descriptor just made, that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// As `bind` does.
    pub fn bind(&self, address: &Address) -> io::Result<()> {
        let (fd, len) = (self.0.as_raw_fd(), address.len as u32);
        // SAFETY: `len` bytes at the address are readable, and of no form that the kernel would rely on.
        let result = unsafe { libc::bind(fd, address.bytes.as_ptr().cast(), len) };
        checked(result as isize).map(drop)
    }

    /// Sends a message as a whole.
    pub fn send_to(&self, message: &[u8], address: &Address) -> io::Result<()> {
        let (fd, len) = (self.0.as_raw_fd(), address.len as u32);
        let to = address.bytes.as_ptr().cast();
        // SAFETY: message and address are readable over the given lengths.
        let sent = unsafe { libc::sendto(fd, message.as_ptr().cast(), message.len(), 0, to, len) };
        checked(sent).map(drop)
    }

    /// Receives a message with these flags; gives its length, at most that of `out`, and where it is from.
    pub fn receive(&self, out: &mut [u8], flags: i32) -> io::Result<(usize, Address)> {
        let mut from = Address::new(&[]);
        let mut len = ADDRESS_MAX as u32;
        let (fd, place) = (self.0.as_raw_fd(), from.bytes.as_mut_ptr().cast());
        let (start, room) = (out.as_mut_ptr().cast(), out.len());
        // SAFETY: message and address are writable over the given lengths.
        let received = unsafe { libc::recvfrom(fd, start, room, flags, place, &raw mut len) };
        let received = checked(received)?;
        from.len = (len as usize).min(ADDRESS_MAX);
        Ok((received, from))
    }

    /// How long [`RawSocket::receive`] waits at most.
    pub fn set_patience(&self, patience: std::time::Duration) -> io::Result<()> {
        let timeout = rustix::net::sockopt::Timeout::Recv;
        Ok(rustix::net::sockopt::set_socket_timeout(
            &self.0,
            timeout,
            Some(patience),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_from_one_unix_socket_to_another() {
        let family = (libc::AF_UNIX as u16).to_ne_bytes();
        // In the abstract namespace: nothing is left behind.
        let name = format!("\0sockets-test-{}", std::process::id());
        let address = Address::new(&[&family, name.as_bytes()]);
        let open = || RawSocket::open(libc::AF_UNIX, libc::SOCK_DGRAM, 0).unwrap();
        let (receiver, sender) = (open(), open());
        receiver.bind(&address).unwrap();
        sender.send_to(b"hello", &address).unwrap();
        let mut message = [0; 10];
        let (len, _) = receiver.receive(&mut message, 0).unwrap();
        assert_eq!(message[..len], *b"hello");
        let patience = std::time::Duration::from_millis(10);
        receiver.set_patience(patience).unwrap();
        let nothing = receiver.receive(&mut message, 0).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
