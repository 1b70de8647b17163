//! UDP sockets that take and send datagrams in batches: the path of UDP bearers.
//!
//! Nothing in here keeps a frame of the pool: what is to be sent is copied when it is staged. Checksums are the
//! kernel's. Datagrams longer than the path's MTU are cut by IP, without "don't fragment".

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Datagrams taken or sent with one system call.
const BATCH: usize = 32;
/// No datagram is longer.
const DATAGRAM_MAX: usize = 65_535;
/// Routers on the way of a datagram to a group, as many as the kernel lets one to a station pass. It would let none; but a
/// node behind a router that is heard, as Linux nodes are, has to be told as much as it tells.
pub const HOPS: u8 = 64;
/// Index of the drops in what `SO_MEMINFO` tells (`SK_MEMINFO_DROPS` of `linux/sock_diag.h`), and the number of its words.
const MEMINFO_DROPS: usize = 8;
const MEMINFO_WORDS: usize = 9;

/// A step of the opening that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub struct UdpError {
    step: &'static str,
    source: io::Error,
}

impl UdpError {
    fn at(step: &'static str) -> impl Fn(Errno) -> Self {
        move |source| Self {
            step,
            source: source.into(),
        }
    }

    /// The error number of the system.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(libc::EIO)
    }
}

/// A bound socket with its buffers.
pub struct UdpSocket {
    fd: OwnedFd,
    buffers: Box<[u8]>,
    staged: Vec<u8>,
    /// Where each staged datagram ends, and where it goes.
    datagrams: Vec<(usize, SocketAddr)>,
    /// The last call left nothing behind: wait before the next one.
    drained: bool,
}

impl UdpSocket {
    /// A socket that hears what is sent to this address, and sends from it. Other sockets may have the same group, but
    /// not the same address. `buffer`: bytes that the kernel may hold for each direction.
    pub fn open(local: SocketAddr, buffer: usize) -> Result<Self, UdpError> {
        let fd = open(local, buffer)?;
        if local.ip().is_multicast() {
            let step = UdpError::at("share a multicast group");
            sockopt::set_socket_reuseaddr(&fd, true).map_err(step)?;
        }
        bind(&fd, &local).map_err(UdpError::at("bind the UDP socket to its address"))?;
        Ok(Self::with(fd))
    }

    /// What is sent to groups leaves by the interface with this index, on which `local` is an own address, passes as many
    /// routers as what is sent to stations, and does not come back.
    pub fn send_groups_by(&self, local: IpAddr, ifindex: u32) -> Result<(), UdpError> {
        let (fd, step) = (
            &self.fd,
            UdpError::at("choose the interface of a multicast group"),
        );
        let chosen = match local {
            IpAddr::V4(ip) => {
                let request = membership_v4(Ipv4Addr::UNSPECIFIED, ip, ifindex);
                set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
                    .and_then(|()| {
                        set(
                            fd,
                            libc::IPPROTO_IP,
                            libc::IP_MULTICAST_TTL,
                            &i32::from(HOPS),
                        )
                    })
                    .and_then(|()| set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, &0))
            }
            IpAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &ifindex)
                .and_then(|()| {
                    set(
                        fd,
                        libc::IPPROTO_IPV6,
                        libc::IPV6_MULTICAST_HOPS,
                        &i32::from(HOPS),
                    )
                })
                .and_then(|()| set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &0)),
        };
        chosen.map_err(step)
    }

    /// Hears this group on the interface with this index too, on which `local` is an own address.
    pub fn join(&self, group: IpAddr, local: IpAddr, ifindex: u32) -> Result<(), UdpError> {
        let fd = &self.fd;
        let joined = match (group, local) {
            (IpAddr::V4(group), IpAddr::V4(local)) => {
                let request = membership_v4(group, local, ifindex);
                set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0)
                    .and_then(|()| set(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request))
            }
            (IpAddr::V6(group), _) => {
                let request = membership_v6(group, ifindex);
                set(fd, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => Err(Errno::AFNOSUPPORT),
        };
        match joined {
            // It does so already.
            Err(Errno::ADDRINUSE) => Ok(()),
            joined => joined.map_err(UdpError::at("join the multicast group")),
        }
    }

    fn with(fd: OwnedFd) -> Self {
        Self {
            fd,
            buffers: vec![0; DATAGRAM_MAX * BATCH].into_boxed_slice(),
            staged: Vec::new(),
            datagrams: Vec::with_capacity(BATCH),
            drained: true,
        }
    }

    /// Hands up to `budget` received datagrams and their senders to the callback; returns how many. An error of the
    /// socket ends the round.
    pub fn receive(
        &mut self,
        budget: usize,
        mut on_datagram: impl FnMut(SocketAddr, &[u8]),
    ) -> usize {
        let mut datagrams = 0;
        while datagrams < budget {
            let wanted = BATCH.min(budget - datagrams);
            let taken = self.receive_batch(wanted, &mut on_datagram);
            datagrams += taken;
            self.drained = taken < wanted;
            if self.drained {
                break;
            }
        }
        datagrams
    }

    fn receive_batch(
        &mut self,
        wanted: usize,
        on_datagram: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> usize {
        let mut senders = [Name::default(); BATCH];
        // SAFETY: plain integers and pointers, for which all zero is a value.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let buffers = self.buffers.chunks_exact_mut(DATAGRAM_MAX);
        for (((message, part), sender), buffer) in messages
            .iter_mut()
            .zip(&mut parts)
            .zip(&mut senders)
            .zip(buffers)
        {
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = buffer.len();
            message.msg_hdr.msg_name = sender.0.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = sender.0.len() as libc::socklen_t;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `wanted` ≤ BATCH headers, each with one part and one name; all are local or of `self`, exclusively
        // borrowed, and outlive the call.
        let taken = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                wanted as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let taken = usize::try_from(taken).unwrap_or(0);
        let buffers = self.buffers.chunks_exact(DATAGRAM_MAX);
        for ((message, sender), buffer) in messages.iter().zip(&senders).zip(buffers).take(taken) {
            let len = (message.msg_len as usize).min(buffer.len());
            if let Some(sender) = sender.socket() {
                on_datagram(sender, &buffer[..len]);
            }
        }
        taken
    }

    /// Copies a datagram that is to be sent. True: enough are staged for a [`Self::flush`].
    pub fn stage(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.staged.extend_from_slice(datagram);
        self.datagrams.push((self.staged.len(), to));
        self.datagrams.len() == BATCH
    }

    /// Sends what is staged and tells the outcome and length of each. Nothing stays staged.
    pub fn flush(&mut self, mut outcome: impl FnMut(usize, Result<(), Errno>)) {
        let mut first = 0;
        while first < self.datagrams.len() {
            let sent = self.send_from(first);
            let sent = match sent {
                Ok(sent) => {
                    (first..first + sent).for_each(|n| outcome(self.len_of(n), Ok(())));
                    sent
                }
                // Says something about the first datagram only; the next may go elsewhere.
                Err(error) => {
                    outcome(self.len_of(first), Err(error));
                    1
                }
            };
            first += sent;
        }
        self.datagrams.clear();
        self.staged.clear();
    }

    fn start_of(&self, datagram: usize) -> usize {
        datagram
            .checked_sub(1)
            .map_or(0, |before| self.datagrams[before].0)
    }

    fn len_of(&self, datagram: usize) -> usize {
        self.datagrams[datagram].0 - self.start_of(datagram)
    }

    /// Sends the staged datagrams from this one on, until one is refused; how many were sent, at least one.
    fn send_from(&mut self, first: usize) -> Result<usize, Errno> {
        let mut names = [Name::default(); BATCH];
        // SAFETY: plain integers and pointers, for which all zero is a value.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let mut start = self.start_of(first);
        let wanted = (self.datagrams.len() - first).min(BATCH);
        for (((message, part), name), (end, to)) in messages
            .iter_mut()
            .zip(&mut parts)
            .zip(&mut names)
            .zip(&self.datagrams[first..first + wanted])
        {
            let bytes = &mut self.staged[start..*end];
            part.iov_base = bytes.as_mut_ptr().cast();
            part.iov_len = bytes.len();
            message.msg_hdr.msg_namelen = name.set(*to);
            message.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            start = *end;
        }
        // SAFETY: `wanted` ≤ BATCH headers, each with one part of `self.staged` and one name; all outlive the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                wanted as u32,
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(sent) {
            Ok(sent) if sent > 0 => Ok(sent),
            _ => Err(last_error()),
        }
    }

    /// Whether the last round may have left datagrams behind.
    pub fn rx_ready(&self) -> bool {
        !self.drained
    }

    /// Datagrams the kernel dropped, mostly because the receive buffer was full, since the opening.
    pub fn kernel_drops(&self) -> u64 {
        let mut words = [0u32; MEMINFO_WORDS];
        let mut len = size_of_val(&words) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, which `words` has.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                words.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            words[MEMINFO_DROPS].into()
        } else {
            0
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(family_of: SocketAddr, buffer: usize) -> Result<OwnedFd, UdpError> {
    let (family, level, option) = match family_of {
        SocketAddr::V4(_) => (AddressFamily::INET, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        SocketAddr::V6(_) => (
            AddressFamily::INET6,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
        ),
    };
    let step = UdpError::at("open a UDP socket");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::DGRAM, flags, None).map_err(&step)?;
    // Both families have the same number for it.
    set(&fd, level, option, &libc::IP_PMTUDISC_DONT).map_err(&step)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&fd, true).map_err(step)?;
    }
    // Both only hold more in a burst; without CAP_NET_ADMIN the system's limit holds.
    if sockopt::set_socket_recv_buffer_size_force(&fd, buffer).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&fd, buffer);
    }
    let _ = sockopt::set_socket_send_buffer_size_force(&fd, buffer);
    Ok(fd)
}

/// Room for the address of a UDP socket of either family, aligned as the kernel's structures are.
#[derive(Clone, Copy, Default)]
#[repr(C, align(8))]
struct Name([u8; 32]);

/// Places in `sockaddr_in` and `sockaddr_in6`.
const PORT: usize = 2;
const V4_ADDRESS: usize = 4;
const V6_ADDRESS: usize = 8;
const V6_SCOPE: usize = 24;

impl Name {
    /// Writes an address; gives its length.
    fn set(&mut self, to: SocketAddr) -> libc::socklen_t {
        self.0 = [0; 32];
        self.0[PORT..PORT + 2].copy_from_slice(&to.port().to_be_bytes());
        match to {
            SocketAddr::V4(to) => {
                self.0[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                self.0[V4_ADDRESS..V4_ADDRESS + 4].copy_from_slice(&to.ip().octets());
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(to) => {
                self.0[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                self.0[V6_ADDRESS..V6_ADDRESS + 16].copy_from_slice(&to.ip().octets());
                self.0[V6_SCOPE..V6_SCOPE + 4].copy_from_slice(&to.scope_id().to_ne_bytes());
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    /// The address that the kernel wrote.
    fn socket(&self) -> Option<SocketAddr> {
        let family = u16::from_ne_bytes(self.at(0));
        let port = u16::from_be_bytes(self.at(PORT));
        match i32::from(family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(self.at::<4>(V4_ADDRESS));
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.at::<16>(V6_ADDRESS));
                let scope = u32::from_ne_bytes(self.at(V6_SCOPE));
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }

    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        std::array::from_fn(|n| self.0[offset + n])
    }
}

fn membership_v4(group: Ipv4Addr, local: Ipv4Addr, ifindex: u32) -> libc::ip_mreqn {
    let address = |ip: Ipv4Addr| libc::in_addr {
        s_addr: u32::from_ne_bytes(ip.octets()),
    };
    libc::ip_mreqn {
        imr_multiaddr: address(group),
        imr_address: address(local),
        imr_ifindex: ifindex.cast_signed(),
    }
}

fn membership_v6(group: Ipv6Addr, ifindex: u32) -> libc::ipv6_mreq {
    libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr {
            s6_addr: group.octets(),
        },
        ipv6mr_interface: ifindex,
    }
}

/// Sets an option whose value is plain old data.
fn set<T: Copy>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> Result<(), Errno> {
    // SAFETY: the kernel reads the bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

fn last_error() -> Errno {
    let code = io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Two sockets on the loopback interface.
    fn pair(ip: &str) -> Option<[(UdpSocket, SocketAddr); 2]> {
        let open = || {
            let socket = UdpSocket::open(SocketAddr::new(ip.parse().unwrap(), 0), 1 << 20).ok()?;
            let name = rustix::net::getsockname(&socket).unwrap();
            let address = SocketAddr::try_from(name).unwrap();
            Some((socket, address))
        };
        Some([open()?, open()?])
    }

    fn take(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut taken, started) = (Vec::new(), Instant::now());
        while taken.len() < count && started.elapsed() < Duration::from_secs(5) {
            socket.receive(64, |from, datagram| taken.push((from, datagram.to_vec())));
        }
        taken
    }

    #[test]
    fn datagrams_of_all_sizes_arrive_with_their_sender_in_order() {
        for ip in ["127.0.0.1", "::1"] {
            let Some([(mut a, from), (mut b, to)]) = pair(ip) else {
                println!("no {ip} here");
                continue;
            };
            let lens = [0, 1, 1400, 14_000, 65_000, 7];
            for round in 0..10u8 {
                let mut outcomes = Vec::new();
                for len in lens {
                    a.stage(to, &vec![round; len]);
                }
                a.flush(|len, result| outcomes.push((len, result)));
                assert_eq!(outcomes, lens.map(|len| (len, Ok(()))));
                let expected = lens.map(|len| (from, vec![round; len]));
                assert!(take(&mut b, lens.len()) == expected, "{ip}");
            }
            assert_eq!(b.kernel_drops(), 0);
        }
    }

    #[test]
    fn a_refused_datagram_does_not_keep_the_others_from_being_sent() {
        let Some([(mut a, from), (mut b, to)]) = pair("127.0.0.1") else {
            panic!("no IPv4")
        };
        let nowhere: SocketAddr = "255.255.255.255:9".parse().unwrap();
        a.stage(nowhere, b"refused: no permission to broadcast");
        a.stage(to, b"first");
        a.stage(nowhere, b"refused");
        a.stage(to, b"second");
        let mut outcomes = Vec::new();
        a.flush(|_, result| outcomes.push(result.is_ok()));
        assert_eq!(outcomes, [false, true, false, true]);
        assert_eq!(
            take(&mut b, 2),
            [(from, b"first".to_vec()), (from, b"second".to_vec())]
        );
    }
}
