//! An AF_PACKET socket on one interface: the path where AF_XDP is refused or switched off, and how the lab's
//! relay joins two interfaces.
//!
//! Takes the frames that the interface receives, not what it sends; for whom they are is the caller's to check.
//! Nothing in here keeps a frame of the pool: `send` copies.
//!
//! The kernel takes VLAN tags out of received frames. A socket for all ethertypes is told the tag beside the
//! frame (PACKET_AUXDATA); one for a single ethertype gets the frame after the kernel has forgotten the
//! tag, and only finds it marked as another host's. So a bearer with a VLAN listens to all ethertypes, with
//! a filter, and one without spares the rest of the interface's traffic that cost.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with, sockopt};

/// Frames taken with one system call.
const BATCH: usize = 32;
/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `ETH_P_ALL` of `linux/if_ether.h`.
const ALL_ETHERTYPES: u16 = 3;
/// Where the data of a control message starts.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// Room for one control message with a `tpacket_auxdata`, aligned as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 40]);

const _: () = assert!(size_of::<Control>() >= CONTROL_HEADER + size_of::<libc::tpacket_auxdata>());

/// A step of the opening that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub struct PacketError {
    step: &'static str,
    source: io::Error,
}

/// Which received frames a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Those of one ethertype, their tags forgotten.
    Ethertype(u16),
    /// Those of one ethertype, with their tags.
    TaggedEthertype(u16),
    /// All that are on the wire, with their tags, to whomever they are addressed.
    Everything,
    /// Those of one ethertype, without the header of the link: its addresses need not be Ethernet's.
    PacketsOf(u16),
}

/// What a socket is opened for.
#[derive(Clone, Copy, Debug)]
pub struct PacketConfig {
    /// The interface.
    pub ifindex: u32,
    /// Which frames.
    pub listen: Listen,
    /// Bytes of the longest frame; longer ones arrive cut.
    pub frame_len: usize,
    /// Bytes that the kernel may hold for each direction, its own overhead included.
    pub buffer: usize,
}

/// A hardware address of the longest kind, as IP over InfiniBand has it.
pub type LongAddress = [u8; 20];

/// `struct sockaddr_ll` with room for it: the kernel reads as many bytes of address as are told.
#[repr(C)]
struct LongDestination {
    family: u16,
    /// In network byte order.
    protocol: u16,
    ifindex: i32,
    link_type: u16,
    packet_type: u8,
    address_len: u8,
    address: LongAddress,
}

const _: () = assert!(
    std::mem::offset_of!(LongDestination, address)
        == std::mem::offset_of!(libc::sockaddr_ll, sll_addr)
);

/// An 802.1Q or 802.1ad tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Its ethertype.
    pub protocol: u16,
    /// Priority and VLAN id.
    pub control: u16,
}

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub struct PacketFrame<'a> {
    /// Ethernet header and what follows, without the tag that the kernel took out; of [`Listen::PacketsOf`] only what
    /// follows.
    pub bytes: &'a [u8],
    /// The tag that the kernel took out and told.
    pub tag: Option<VlanTag>,
    /// The kernel took the frame for another host's, by its address or its VLAN.
    pub other_host: bool,
}

/// A bound socket with its receive buffers.
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: u32,
    ethertype: u16,
    buffers: Box<[u8]>,
    buffer_len: usize,
    /// The last call left nothing behind: wait before the next one.
    drained: bool,
    kernel_drops: u64,
}

impl PacketSocket {
    /// Opens a socket and binds it to its interface.
    pub fn open(config: &PacketConfig) -> Result<Self, PacketError> {
        let step = |step| move |source: io::Error| PacketError { step, source };
        let kind = match config.listen {
            Listen::PacketsOf(_) => SocketType::DGRAM,
            _ => SocketType::RAW,
        };
        let fd = socket_with(
            AddressFamily::PACKET,
            kind,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // Hears nothing before it is bound.
            None,
        )
        .map_err(|error| step("open an AF_PACKET socket (CAP_NET_RAW is needed)")(error.into()))?;
        set_option(&fd, libc::PACKET_AUXDATA).map_err(step("ask for VLAN tags"))?;
        set_option(&fd, PACKET_IGNORE_OUTGOING).map_err(step("leave out sent frames"))?;
        // Only a shortcut, as AF_XDP takes it: without, frames go through the qdisc.
        let _ = set_option(&fd, libc::PACKET_QDISC_BYPASS);
        // Both only hold more in a burst; without CAP_NET_ADMIN the system's limit holds.
        if sockopt::set_socket_recv_buffer_size_force(&fd, config.buffer).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&fd, config.buffer);
        }
        let _ = sockopt::set_socket_send_buffer_size_force(&fd, config.buffer);
        let ethertype = match config.listen {
            Listen::Ethertype(ethertype) | Listen::PacketsOf(ethertype) => ethertype,
            Listen::TaggedEthertype(ethertype) => {
                attach_filter(&fd, ethertype).map_err(step("attach a packet filter"))?;
                ALL_ETHERTYPES
            }
            Listen::Everything => {
                hear_everything(&fd, config.ifindex).map_err(step("hear all frames"))?;
                ALL_ETHERTYPES
            }
        };
        bind(&fd, config.ifindex, ethertype).map_err(step("bind the AF_PACKET socket"))?;
        Ok(Self {
            fd,
            ifindex: config.ifindex,
            ethertype,
            buffers: vec![0; config.frame_len * BATCH].into_boxed_slice(),
            buffer_len: config.frame_len,
            drained: true,
            kernel_drops: 0,
        })
    }

    /// Hands up to `budget` received frames to the callback; returns how many. Errors of the socket
    /// (interface down) end the round: they say nothing that a look at the interface does not find.
    pub fn receive(&mut self, budget: usize, mut on_frame: impl FnMut(PacketFrame<'_>)) -> usize {
        let mut frames = 0;
        while frames < budget {
            let wanted = BATCH.min(budget - frames);
            let taken = self.receive_batch(wanted, &mut on_frame);
            frames += taken;
            self.drained = taken < wanted;
            if self.drained {
                break;
            }
        }
        frames
    }

    fn receive_batch(
        &mut self,
        wanted: usize,
        on_frame: &mut impl FnMut(PacketFrame<'_>),
    ) -> usize {
        let mut controls = [Control([0; 40]); BATCH];
        // SAFETY: plain integers and pointers, for which all zero is a value.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        // SAFETY: plain integers, for which all zero is a value.
        let mut senders: [libc::sockaddr_ll; BATCH] = unsafe { zeroed() };
        let buffers = self.buffers.chunks_exact_mut(self.buffer_len);
        for ((((message, part), control), sender), buffer) in messages
            .iter_mut()
            .zip(&mut parts)
            .zip(&mut controls)
            .zip(&mut senders)
            .zip(buffers)
        {
            message.msg_hdr.msg_name = (&raw mut *sender).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = buffer.len();
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.0.len() as _;
        }
        // SAFETY: `wanted` ≤ BATCH headers, each with one part, name and control buffer; all are
        // local or of `self`, exclusively borrowed, and outlive the call.
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
        let buffers = self.buffers.chunks_exact(self.buffer_len);
        for (((message, control), sender), buffer) in messages
            .iter()
            .zip(&controls)
            .zip(&senders)
            .zip(buffers)
            .take(taken)
        {
            let len = (message.msg_len as usize).min(buffer.len());
            on_frame(PacketFrame {
                bytes: &buffer[..len],
                tag: stripped_tag(&control.0),
                other_host: sender.sll_pkttype == libc::PACKET_OTHERHOST,
            });
        }
        taken
    }

    /// Sends one frame, Ethernet header first.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), Errno> {
        again_if_down(|| send(&self.fd, frame, SendFlags::DONTWAIT).map(|_| ()))
    }

    /// Sends one packet to a station, behind the header that the interface makes; of a socket for [`Listen::PacketsOf`].
    pub fn send_to(&mut self, packet: &[u8], to: LongAddress) -> Result<(), Errno> {
        let destination = LongDestination {
            family: libc::AF_PACKET as u16,
            protocol: self.ethertype.to_be(),
            ifindex: self.ifindex.cast_signed(),
            link_type: 0,
            packet_type: 0,
            address_len: size_of::<LongAddress>() as u8,
            address: to,
        };
        again_if_down(|| {
            // SAFETY: the kernel reads the packet and a name of the size told; both outlive the call.
            let sent = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    libc::MSG_DONTWAIT,
                    (&raw const destination).cast(),
                    size_of_val(&destination) as libc::socklen_t,
                )
            };
            match sent {
                0.. => Ok(()),
                _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
            }
        })
    }

    /// Makes the buffers fit frames of another length.
    pub fn set_frame_len(&mut self, frame_len: usize) {
        self.buffer_len = frame_len;
        self.buffers = vec![0; frame_len * BATCH].into_boxed_slice();
    }

    /// Whether the last round may have left frames behind.
    pub fn rx_ready(&self) -> bool {
        !self.drained
    }

    /// Frames the kernel dropped because the receive buffer was full, since the opening.
    pub fn kernel_drops(&self) -> u64 {
        self.kernel_drops
    }

    /// Asks the kernel, which forgets its count with each answer.
    pub fn read_kernel_drops(&mut self) {
        // SAFETY: plain integers, for which all zero is a value.
        let mut statistics: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to a structure of that size.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            self.kernel_drops += u64::from(statistics.tp_drops);
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An error of the interface may be the word of an earlier moment: it is kept for the next call, whichever that is.
fn again_if_down(send: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match send() {
        Err(Errno::NETDOWN) => send(),
        result => result,
    }
}

/// The tag that the kernel took out of a frame, if there was one and it is told.
fn stripped_tag(control: &[u8]) -> Option<VlanTag> {
    let number = |at: usize| {
        let bytes = control.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let short = |at: usize| u16::from_ne_bytes([control[at], control[at + 1]]);
    // struct cmsghdr: length, level, type; struct tpacket_auxdata: status first.
    let level = number(CONTROL_HEADER - 8);
    let kind = number(CONTROL_HEADER - 4);
    let is_auxdata =
        level == Some(libc::SOL_PACKET as u32) && kind == Some(libc::PACKET_AUXDATA as u32);
    let status = number(CONTROL_HEADER).unwrap_or(0);
    if !is_auxdata || status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let protocol = match status & libc::TP_STATUS_VLAN_TPID_VALID {
        0 => libc::ETH_P_8021Q as u16,
        _ => short(CONTROL_HEADER + std::mem::offset_of!(libc::tpacket_auxdata, tp_vlan_tpid)),
    };
    let control = short(CONTROL_HEADER + std::mem::offset_of!(libc::tpacket_auxdata, tp_vlan_tci));
    Some(VlanTag { protocol, control })
}

fn set_option(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    answer(result)
}

/// Makes the interface hand over frames to other stations too, as long as the socket lives.
fn hear_everything(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: ifindex as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    // SAFETY: the kernel reads one `packet_mreq`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    };
    answer(result)
}

/// Lets only frames of one ethertype through.
fn attach_filter(fd: &OwnedFd, ethertype: u16) -> io::Result<()> {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let load = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let protocol = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned();
    let mut program = [
        instruction(load, 0, 0, protocol),
        instruction(jump, 0, 1, u32::from(ethertype)),
        instruction(end, 0, 0, u32::MAX),
        instruction(end, 0, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads a `sock_fprog` and the instructions it points to, which outlive the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    answer(result)
}

fn answer(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bind(fd: &OwnedFd, ifindex: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: plain integers, for which all zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = ifindex as libc::c_int;
    // SAFETY: the kernel reads a `sockaddr_ll` of the size told, which outlives the call.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    answer(result)
}
