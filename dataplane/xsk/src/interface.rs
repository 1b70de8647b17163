//! What the kernel says about a network interface, for the choice of a bearer's mode.
//!
//! Asked once when a bearer is set up, never on the data path. Address, MTU and flags come from ioctls and
//! so from the caller's network namespace; device link and queues from sysfs, which may show another
//! namespace (it is that of the mount): it is believed only if its `ifindex` agrees.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs;
use std::path::{Path, PathBuf};

/// Drivers of devices without hardware that also lack, or have only for show, a device link in sysfs.
const SOFTWARE_DRIVERS: [&str; 12] = [
    "veth",
    "tun",
    "bridge",
    "bonding",
    "team",
    "dummy",
    "macvlan",
    "ipvlan",
    "vlan",
    "802.1Q VLAN Support",
    "netkit",
    "vxlan",
];

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// What stands behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Packets stay in the kernel as skbs (veth, tun, bridge, …): generic XDP is the fastest there.
    Software,
    /// A device with rings of its own, real or virtual (virtio): native XDP and zero-copy are worth trying.
    Hardware,
}

/// A snapshot of an Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in the caller's network namespace.
    pub index: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU: bytes after the Ethernet header.
    pub mtu: u32,
    /// It is set up (IFF_UP).
    pub up: bool,
    /// It has a carrier (IFF_RUNNING).
    pub running: bool,
    /// The driver's name, where ethtool tells one.
    pub driver: Option<String>,
    /// What stands behind it.
    pub kind: DeviceKind,
    /// Its receive queues in use.
    pub rx_queues: u32,
}

/// Why an interface could not be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The name does not fit an interface.
    #[error("`{0}` is no interface name: 1 to 15 bytes without `/` are possible")]
    Name(String),
    /// No interface has this name.
    #[error("no interface `{0}` in this network namespace")]
    NotFound(String),
    /// The interface has no Ethernet addresses.
    #[error(
        "interface `{name}` has link type {link_type}: only Ethernet (1) can carry an Ethernet bearer{}",
        remedy(name, *link_type)
    )]
    NotEthernet {
        /// The interface.
        name: String,
        /// Its ARPHRD_ number.
        link_type: u16,
    },
    /// A question failed.
    #[error("cannot ask for the {question} of interface `{name}`: {source}")]
    System {
        /// The interface.
        name: String,
        /// What was asked.
        question: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
}

fn remedy(name: &str, link_type: u16) -> String {
    match link_type {
        libc::ARPHRD_INFINIBAND => format!("; InfiniBand carries a bearer ib:{name}"),
        _ => String::new(),
    }
}

impl Interface {
    /// Asks the kernel about an interface of the caller's network namespace.
    pub fn query(name: &str) -> Result<Self, InterfaceError> {
        let asking = Asking::new(name)?;
        let index = match rustix::net::netdevice::name_to_index(&asking.socket, name) {
            Err(Errno::NODEV) => return Err(InterfaceError::NotFound(name.to_owned())),
            result => asking.answer("index", result)?,
        };
        let hardware = asking.ioctl("MAC address", libc::SIOCGIFHWADDR, asking.request())?;
        // SAFETY: SIOCGIFHWADDR succeeded and so wrote this member; any bytes are a sockaddr.
        let address = unsafe { hardware.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(InterfaceError::NotEthernet {
                name: name.to_owned(),
                link_type: address.sa_family,
            });
        }
        let mut mac = [0; 6];
        for (byte, raw) in mac.iter_mut().zip(address.sa_data) {
            *byte = raw as u8;
        }
        let with_mtu = asking.ioctl("MTU", libc::SIOCGIFMTU, asking.request())?;
        // SAFETY: SIOCGIFMTU succeeded and so wrote this member.
        let mtu = unsafe { with_mtu.ifr_ifru.ifru_mtu };
        let with_flags = asking.ioctl("flags", libc::SIOCGIFFLAGS, asking.request())?;
        // SAFETY: SIOCGIFFLAGS succeeded and so wrote this member.
        let flags = i32::from(unsafe { with_flags.ifr_ifru.ifru_flags });

        let driver = asking.driver();
        let sysfs = sysfs_of(name, index);
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
            mtu: mtu as u32,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            kind: device_kind(driver.as_deref(), sysfs.as_deref()),
            rx_queues: sysfs
                .as_deref()
                .and_then(count_rx_queues)
                .or_else(|| asking.rx_channels())
                .unwrap_or(1),
            driver,
        })
    }

    /// The NUMA node of the device behind it, where the system tells one.
    pub fn numa_node(&self) -> Option<u32> {
        let directory = sysfs_of(&self.name, self.index)?;
        // The device of a virtio NIC is on one that has it.
        let places = ["device/numa_node", "device/../numa_node"];
        let node = places
            .iter()
            .find_map(|place| fs::read_to_string(directory.join(place)).ok())?;
        // -1: unknown.
        node.trim().parse().ok()
    }
}

fn device_kind(driver: Option<&str>, sysfs: Option<&Path>) -> DeviceKind {
    let is_software = driver.is_some_and(|driver| SOFTWARE_DRIVERS.contains(&driver))
        || sysfs.is_some_and(|directory| !directory.join("device").exists());
    if is_software {
        DeviceKind::Software
    } else {
        DeviceKind::Hardware
    }
}

/// The interface's sysfs directory, if it is about the same interface.
fn sysfs_of(name: &str, index: u32) -> Option<PathBuf> {
    let directory = Path::new("/sys/class/net").join(name);
    let its_index: u32 = fs::read_to_string(directory.join("ifindex"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (its_index == index).then_some(directory)
}

fn count_rx_queues(directory: &Path) -> Option<u32> {
    let entries = fs::read_dir(directory.join("queues")).ok()?;
    let count = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rx-"))
        .count();
    (count > 0).then_some(count as u32)
}

/// A socket to ask ioctls through, and whom they are about.
pub(crate) struct Asking<'a> {
    socket: OwnedFd,
    name: &'a str,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

const _: () = assert!(size_of::<Channels>() == 36);

impl<'a> Asking<'a> {
    pub(crate) fn new(name: &'a str) -> Result<Self, InterfaceError> {
        // 16 bytes with the terminating zero; a slash would lead out of the sysfs directory.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
            return Err(InterfaceError::Name(name.to_owned()));
        }
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let socket = socket.map_err(|source| InterfaceError::System {
            name: name.to_owned(),
            question: "existence",
            source,
        })?;
        Ok(Self { socket, name })
    }

    fn answer<T>(
        &self,
        question: &'static str,
        result: rustix::io::Result<T>,
    ) -> Result<T, InterfaceError> {
        result.map_err(|source| InterfaceError::System {
            name: self.name.to_owned(),
            question,
            source,
        })
    }

    /// A request about the interface, with all else zero.
    fn request(&self) -> libc::ifreq {
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        libc::ifreq {
            ifr_name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: std::ptr::null_mut(),
            },
        }
    }

    fn ioctl(
        &self,
        question: &'static str,
        command: libc::Ioctl,
        mut request: libc::ifreq,
    ) -> Result<libc::ifreq, InterfaceError> {
        let result = self.call(command, &mut request);
        self.answer(question, result)?;
        Ok(request)
    }

    /// Has the kernel read and write a structure of the ethtool command that stands in its first word. Its size must be that of the
    /// command, with what it counts of itself.
    pub(crate) fn ethtool<T: ?Sized>(&self, structure: &mut T) -> rustix::io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = (&raw mut *structure).cast();
        self.call(libc::SIOCETHTOOL, &mut request)
    }

    fn call(&self, command: libc::Ioctl, request: &mut libc::ifreq) -> rustix::io::Result<()> {
        // SAFETY: all commands used here read and write one `ifreq`, and what its `ifru_data` points to
        // (ETHTOOL only) is a structure of the ethtool command's size that outlives the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), command, &raw mut *request) };
        if result < 0 {
            let code = std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO);
            return Err(Errno::from_raw_os_error(code));
        }
        Ok(())
    }

    fn driver(&self) -> Option<String> {
        let mut info = DriverInfo {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            rest: [0; 160],
        };
        self.ethtool(&mut info).ok()?;
        let name = info.driver.split(|&byte| byte == 0).next()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn rx_channels(&self) -> Option<u32> {
        let mut channels = Channels {
            command: ETHTOOL_GCHANNELS,
            ..Channels::default()
        };
        self.ethtool(&mut channels).ok()?;
        let count = channels.rx + channels.combined;
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_refused_with_its_link_type() {
        let error = Interface::query("lo").unwrap_err();
        assert!(
            matches!(error, InterfaceError::NotEthernet { link_type: 772, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = Interface::query("nosuchif0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no interface `nosuchif0` in this network namespace"
        );
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "sixteen-bytes-xx", "../lo", "a\0b"] {
            assert!(
                matches!(Interface::query(name), Err(InterfaceError::Name(_))),
                "{name:?}"
            );
        }
    }
}
