//! Just enough netlink for a bearer: ask the kernel one question, read the attributes of the answer; or follow what
//! changes.
//!
//! Used for what is attached to an interface, for routes and neighbours (rtnetlink), for its features (generic netlink
//! `ethtool`) and the kernel's own TIPC bearers (generic netlink `TIPCv2`). Answers come from
//! the kernel, yet every length is checked: a malformed answer ends the iteration.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with,
};

/// Bytes of `struct nlmsghdr`.
const HEADER_SIZE: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER_SIZE: usize = 4;
/// Messages and attributes start on multiples of this.
const ALIGNMENT: usize = 4;
/// The kernel fills at most 32 KiB per datagram of a dump (`NLMSG_GOODSIZE` and above).
pub const DATAGRAM_SIZE: usize = 64 * 1024;
/// Bytes of `struct genlmsghdr`, which starts each generic netlink body.
pub const GENERIC_HEADER_SIZE: usize = 4;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// The kind of a refusal, or of an acknowledgement.
pub const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_FIRST_OWN_TYPE: u16 = 16;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// The two upper bits of an attribute's type are flags (nested, byte order).
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// A netlink socket of the calling thread's network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket to one of `rustix::net::netlink`'s protocols (`None`: `NETLINK_ROUTE`).
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Opens a socket to `NETLINK_ROUTE` that also hears what changes in these groups (`RTMGRP_*` of
    /// `linux/rtnetlink.h`). To be used with [`Self::ask`] and [`Self::take`].
    pub fn following(groups: u32) -> io::Result<Self> {
        let following = Self::open(None)?;
        bind(&following.socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(following)
    }

    /// Asks for one object, or for all, without waiting for the answer. Returns the sequence number it will have.
    pub fn ask(&mut self, kind: u16, all: bool, body: &[u8]) -> io::Result<u32> {
        self.request(kind, if all { NLM_F_DUMP } else { 0 }, body)?;
        Ok(self.sequence)
    }

    /// Hands over what has come, in this buffer, without waiting. `ENOBUFS`: something was lost.
    pub fn take(
        &self,
        buffer: &mut [u8],
        mut on_message: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        loop {
            let received = match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((received, _)) => received,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..received];
            while let Some((message, after)) = Message::split(rest) {
                rest = after;
                on_message(message);
            }
        }
    }

    /// Asks for one object. Returns the bodies of the answers, or the kernel's error.
    pub fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.exchange(kind, NLM_F_ACK, body)
    }

    /// Asks for all objects of a kind. Returns the body of each.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.exchange(kind, NLM_F_DUMP, body)
    }

    /// The id of a generic netlink family; `None` when the kernel has none of that name now.
    ///
    /// Lists the families instead of asking by name: asking by name makes the kernel load the
    /// module that would provide the family.
    pub fn generic_family(&mut self, name: &str) -> io::Result<Option<u16>> {
        let families = self.dump(GENL_ID_CTRL, &generic_header(CTRL_CMD_GETFAMILY, 1))?;
        Ok(families.iter().find_map(|family| {
            let family = family.get(GENERIC_HEADER_SIZE..)?;
            let found = text(attribute(family, CTRL_ATTR_FAMILY_NAME)?);
            let id = attribute(family, CTRL_ATTR_FAMILY_ID)?.first_chunk()?;
            (found == name.as_bytes()).then_some(u16::from_ne_bytes(*id))
        }))
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let size = u32::try_from(HEADER_SIZE + body.len()).map_err(io::Error::other)?;
        let mut request = Vec::with_capacity(HEADER_SIZE + body.len());
        request.extend(size.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend(body);
        sendto(
            &self.socket,
            &request,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }

    fn exchange(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.request(kind, flags, body)?;
        let mut answers = Vec::new();
        let mut datagram = vec![0; DATAGRAM_SIZE];
        loop {
            let (received, _) = recv(&self.socket, &mut datagram[..], RecvFlags::empty())?;
            let mut rest = &datagram[..received];
            while let Some((message, after)) = Message::split(rest) {
                rest = after;
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => return message.error().map_or(Ok(answers), Err),
                    NLMSG_FIRST_OWN_TYPE.. => answers.push(message.body.to_vec()),
                    _ => {}
                }
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it is about.
    pub kind: u16,
    /// The question that it answers; a change that is told unasked has the number of whoever made it.
    pub sequence: u32,
    /// What is behind its header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    fn split(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let header: &[u8; HEADER_SIZE] = datagram.first_chunk()?;
        let [s0, s1, s2, s3, k0, k1, _, _, q0, q1, q2, q3, ..] = *header;
        let size = usize::try_from(u32::from_ne_bytes([s0, s1, s2, s3])).ok()?;
        let message = Self {
            kind: u16::from_ne_bytes([k0, k1]),
            sequence: u32::from_ne_bytes([q0, q1, q2, q3]),
            body: datagram.get(HEADER_SIZE..size)?,
        };
        let after = datagram
            .get(size.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((message, after))
    }

    /// The error of an `NLMSG_ERROR` message; `None` for a plain acknowledgement.
    fn error(&self) -> Option<io::Error> {
        match self
            .body
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code))
        {
            Some(0) => None,
            Some(code) => Some(io::Error::from_raw_os_error(-code)),
            None => Some(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The header that starts the body of a generic netlink request.
pub fn generic_header(command: u8, version: u8) -> [u8; GENERIC_HEADER_SIZE] {
    [command, version, 0, 0]
}

/// Appends an attribute with its padding. `value` must be shorter than 64 KiB.
pub fn put_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let size = u16::try_from(ATTRIBUTE_HEADER_SIZE + value.len())
        .expect("attributes of requests are short");
    body.extend(size.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
}

/// The attributes in `bytes` in order, as (type, value). A nested attribute's value is again such a list.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let [s0, s1, k0, k1] = *rest.first_chunk()?;
        let size = usize::from(u16::from_ne_bytes([s0, s1]));
        let value = rest.get(ATTRIBUTE_HEADER_SIZE..size)?;
        rest = rest
            .get(size.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & ATTRIBUTE_TYPE_MASK, value))
    })
}

/// The value of the first attribute of a type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A string attribute's value without the terminating NUL.
pub fn text(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_put() {
        let mut body = Vec::new();
        put_attribute(&mut body, 7, b"eth0\0");
        put_attribute(&mut body, 9, &[1, 2, 3, 4]);
        let read: Vec<_> = attributes(&body).collect();
        assert_eq!(read, [(7, &b"eth0\0"[..]), (9, &[1, 2, 3, 4][..])]);
        assert_eq!(attribute(&body, 7).map(text), Some(&b"eth0"[..]));
        assert_eq!(attribute(&body, 8), None);
    }

    #[test]
    fn a_malformed_attribute_ends_the_list() {
        for broken in [
            &[0, 0, 0, 0][..],
            &[3, 0, 1, 0],
            &[200, 0, 1, 0, 9],
            &[8, 0],
        ] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }

    #[test]
    fn families_are_found_by_name_and_absent_ones_are_none() {
        let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC)).unwrap();
        assert_eq!(
            netlink.generic_family("nlctrl").unwrap(),
            Some(GENL_ID_CTRL)
        );
        assert_eq!(netlink.generic_family("no-such-family").unwrap(), None);
    }

    #[test]
    fn the_kernels_refusal_is_an_error() {
        let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC)).unwrap();
        let refused = netlink
            .get(GENL_ID_CTRL, &generic_header(0xff, 1))
            .unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
