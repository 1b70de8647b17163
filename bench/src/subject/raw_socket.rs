//! Sockets of families whose addresses the standard library does not know: addresses are bytes here.

#![allow(
    unsafe_code,
    reason = "no crate here has these families' addresses in a safe form"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Longest address in use here.
const ADDRESS_MAX: usize = 32;

/// An address as the kernel wrote it.
#[derive(Clone, Copy)]
pub(super) struct Address {
    bytes: [u8; ADDRESS_MAX],
    len: usize,
}

impl Address {
    pub(super) fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; ADDRESS_MAX];
        let mut len = 0;
        for part in parts {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        Self { bytes, len }
    }
}

/// See the module.
pub(super) struct RawSocket(OwnedFd);

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl RawSocket {
    pub(super) fn open(family: i32, kind: i32, protocol: i32) -> io::Result<Self> {
        // SAFETY: plain values; the kernel checks them.
        let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
        checked(fd as isize)?;
        // SAFETY: a descriptor just made, that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn bind(&self, address: &Address) -> io::Result<()> {
        let (fd, len) = (self.0.as_raw_fd(), address.len as u32);
        // SAFETY: `len` bytes at the address are readable, and of no form that the kernel would rely on.
        let result = unsafe { libc::bind(fd, address.bytes.as_ptr().cast(), len) };
        checked(result as isize).map(drop)
    }

    pub(super) fn send_to(&self, message: &[u8], address: &Address) -> io::Result<()> {
        let (fd, len) = (self.0.as_raw_fd(), address.len as u32);
        let to = address.bytes.as_ptr().cast();
        // SAFETY: message and address are readable over the given lengths.
        let sent = unsafe { libc::sendto(fd, message.as_ptr().cast(), message.len(), 0, to, len) };
        checked(sent).map(drop)
    }

    pub(super) fn receive(&self, out: &mut [u8], flags: i32) -> io::Result<(usize, Address)> {
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
    pub(super) fn set_patience(&self, patience: std::time::Duration) -> io::Result<()> {
        let timeout = rustix::net::sockopt::Timeout::Recv;
        Ok(rustix::net::sockopt::set_socket_timeout(
            &self.0,
            timeout,
            Some(patience),
        )?)
    }
}
