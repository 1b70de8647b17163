//! The text form of a bearer: `eth:IFACE[,key=value]...`, `ib:IFACE...`, `udp:NAME,localip=ADDRESS[,key=value]...`.

use std::path::PathBuf;

use super::ConfigError;
use super::udp::UdpSpec;
use super::value::{Given, Value, number, number_list};

const SYNTAX: &str = "eth:IFACE[,priority=0..32][,tolerance=50..30000][,window=50..8191]\
                      [,vlan=1..4094][,queues=LIST], or ib:IFACE[,priority=...], or udp:NAME,localip=ADDRESS|device=IFACE[,localport=PORT]\
                      [,remoteip=ADDRESS[,remoteport=PORT]]...[,mtu=128..65507][,priority=...], or shm:NAME[,dir=PATH]\
                      [,priority=...]";
/// As a priority: what bearers of the media have that say nothing else.
const PRIORITY_OF_MEDIA: u8 = 32;
/// Highest receive queue number a device can have that we would meet.
const QUEUE_MAX: usize = 1023;
/// A socket in it has a path of at most 107 bytes.
const DIRECTORY_MAX: usize = 80;

/// One bearer of the configuration; the values it gives are defaults for the links made on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BearerSpec {
    /// The part of its name behind the media, 1 to 15 bytes: the network interface, of UDP any name. Whether the
    /// interface exists is seen when the bearer is opened.
    pub interface: String,
    /// What carries its packets.
    pub media: MediaSpec,
    /// Link priority, 0..=31; that of its media if not given.
    pub priority: Option<u8>,
    /// Link tolerance in milliseconds, 50..=30000.
    pub tolerance_ms: Option<u32>,
    /// Largest send window in packets, 50..=8191.
    pub window_max: Option<u16>,
}

/// A media, with what only its bearers can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaSpec {
    /// Ethernet.
    Ethernet(EthernetSpec),
    /// IP over InfiniBand interfaces.
    InfiniBand,
    /// UDP over IPv4 or IPv6.
    Udp(UdpSpec),
    /// Memory shared by nodes of one host.
    SharedMemory(ShmSpec),
}

impl Default for MediaSpec {
    fn default() -> Self {
        Self::Ethernet(EthernetSpec::default())
    }
}

impl MediaSpec {
    /// Its name, as the tools have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ethernet(_) => "eth",
            Self::InfiniBand => "ib",
            Self::Udp(_) => "udp",
            Self::SharedMemory(_) => "shm",
        }
    }
}

/// What only an Ethernet bearer is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EthernetSpec {
    /// VLAN id, 1..=4094.
    pub vlan: Option<u16>,
    /// Receive queues to use, ascending; empty means all.
    pub queues: Vec<usize>,
}

/// What only a bearer over shared memory is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShmSpec {
    /// Where the nodes meet; if not given, a directory of all bearers of this host with the same name.
    pub dir: Option<PathBuf>,
}

impl BearerSpec {
    /// The bearer's name as the tools print it. Link names use only the part behind the colon.
    pub fn name(&self) -> String {
        format!("{}:{}", self.media.name(), self.interface)
    }

    /// The same for a bearer that an operator enables while the daemon runs.
    pub fn from_operator(text: &str) -> Result<Self, ConfigError> {
        let value = Value::from(text.to_owned());
        Self::parse(&Given {
            origin: "command".into(),
            key: "bearer",
            value: &value,
        })
    }

    pub(super) fn parse(given: &Given<'_>) -> Result<Self, ConfigError> {
        let text = given.value.to_string();
        let (name, options) = match text.split_once(',') {
            Some((name, options)) => (name, split_options(options)),
            None => (text.as_str(), Vec::new()),
        };
        let (media, interface) = match name.split_once(':') {
            Some(("eth", interface)) => (MediaSpec::default(), interface),
            Some(("ib", interface)) => (MediaSpec::InfiniBand, interface),
            Some(("udp", interface)) => (MediaSpec::Udp(UdpSpec::default()), interface),
            Some(("shm", interface)) => (MediaSpec::SharedMemory(ShmSpec::default()), interface),
            _ => return Err(given.refuse_value("does not start with a known media", SYNTAX)),
        };
        if !is_interface_name(interface) {
            return Err(given.refuse_value(
                match media {
                    MediaSpec::Ethernet(_) | MediaSpec::InfiniBand => {
                        "does not name a network interface"
                    }
                    MediaSpec::Udp(_) | MediaSpec::SharedMemory(_) => "does not name a bearer",
                },
                format!("{SYNTAX}, IFACE and NAME of 1 to 15 characters without / : and blanks"),
            ));
        }
        let mut bearer = Self {
            interface: interface.to_owned(),
            media,
            ..Self::default()
        };
        for (key, value) in options {
            bearer.set(given, key, &value)?;
        }
        bearer.priority = bearer.priority.filter(|given| *given != PRIORITY_OF_MEDIA);
        if let MediaSpec::Udp(udp) = &bearer.media {
            udp.check().map_err(|wrong| {
                given.refuse(
                    format!("{} in `{}`", wrong.problem, given.value),
                    wrong.accepted,
                )
            })?;
        }
        Ok(bearer)
    }

    fn set(&mut self, given: &Given<'_>, key: &str, value: &str) -> Result<(), ConfigError> {
        let wrong = |problem: String, accepted: String| {
            given.refuse(
                format!("{key}=`{value}` in `{}` {problem}", given.value),
                accepted,
            )
        };
        let ranged = |accepted| {
            number(value, accepted)
                .map_err(|(why, range)| wrong(why.into(), format!("{key}={range}")))
        };
        let twice = match (key, &mut self.media) {
            ("priority", _) => {
                let accepted = 0..=PRIORITY_OF_MEDIA.into();
                replace(&mut self.priority, ranged(accepted)?)
            }
            ("tolerance", _) => replace(&mut self.tolerance_ms, ranged(50..=30_000)?),
            ("window", _) => replace(&mut self.window_max, ranged(50..=8191)?),
            ("vlan", MediaSpec::Ethernet(ethernet)) => {
                replace(&mut ethernet.vlan, ranged(1..=4094)?)
            }
            ("queues", MediaSpec::Ethernet(ethernet)) => {
                let queues = number_list(value, QUEUE_MAX).ok_or_else(|| {
                    let accepted =
                        format!("queues= distinct numbers up to {QUEUE_MAX}, like 0,2-3");
                    wrong("is no list".into(), accepted)
                })?;
                !std::mem::replace(&mut ethernet.queues, queues).is_empty()
            }
            ("dir", MediaSpec::SharedMemory(shm)) => {
                let dir = PathBuf::from(value);
                if !dir.is_absolute() || value.len() > DIRECTORY_MAX {
                    let accepted = format!("an absolute path of at most {DIRECTORY_MAX} bytes");
                    return Err(wrong("is no directory to meet in".into(), accepted));
                }
                shm.dir.replace(dir).is_some()
            }
            (_, MediaSpec::Udp(udp)) if UdpSpec::KEYS.contains(&key) => udp
                .set(key, value)
                .map_err(|refused| wrong(refused.problem, refused.accepted))?,
            _ => {
                return Err(
                    given.refuse(format!("`{key}` in `{}` is not known", given.value), SYNTAX)
                );
            }
        };
        if twice {
            return Err(given.refuse(format!("{key} is given twice in `{}`", given.value), SYNTAX));
        }
        Ok(())
    }
}

/// Stores a value that was checked against the range of its type; tells whether there was one before.
fn replace<T: TryFrom<u32>>(slot: &mut Option<T>, value: u32) -> bool {
    std::mem::replace(slot, T::try_from(value).ok()).is_some()
}

/// `a=1,queues=0,2-3,b=2` as pairs: a part without `=` goes on with the list before it.
fn split_options(options: &str) -> Vec<(&str, String)> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for part in options.split(',') {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((key, value)), _) => pairs.push((key, value.to_owned())),
            (None, Some((_, list))) => {
                list.push(',');
                list.push_str(part);
            }
            (None, None) => pairs.push((part, String::new())),
        }
    }
    pairs
}

/// What the kernel takes as the name of a device.
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}
