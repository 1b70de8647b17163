//! The daemon's settings: one struct is the keys of the TOML file and the flags of the command line.
//!
//! [`Settings`] holds what was given, as it was given; [`Config`] is what follows from it, checked, with
//! every default filled in. A flag overrides the same key of the file. Every error names where the value
//! came from, the key, what was wrong with it and what is accepted.

mod bearer;
mod resolve;
mod sysctl;
#[cfg(test)]
mod tests;
mod udp;
mod value;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde::Deserialize;
use xtipc_management::NodeIdentity;
use xtipc_protocol::addr::{Media, MediaAddr};
use xtipc_protocol::crypto::ClearText;
use xtipc_protocol::monitor::Supervision;

pub use bearer::{BearerSpec, EthernetSpec, MediaSpec, ShmSpec};
pub(crate) use udp::{HEADERS_V4, HEADERS_V6, MTU_LEAST, MTU_MAX, REMOTES_MAX, is_for_somebody};
pub use udp::{Local, PORT_DEFAULT, Refused, Remote, ScopedIp, UdpSpec};
pub use value::Value;

use crate::policy::Policy;

/// Read when `--config` does not name another file; it may be missing.
pub const CONFIG_PATH_DEFAULT: &str = "/etc/xtipc/xtipcd.toml";
/// The environment variable that sets the log filter below `--log` and above the file.
pub const LOG_VARIABLE: &str = "XTIPC_LOG";

/// The command line of `xtipcd`.
#[derive(Debug, Default, Parser)]
#[command(name = "xtipcd", version, about = "TIPC in user space: one node")]
pub struct CommandLine {
    /// Configuration file [default: /etc/xtipc/xtipcd.toml, which may be missing]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Only read and check the settings
    #[arg(long)]
    pub check: bool,
    /// Every key of the file.
    #[command(flatten)]
    pub settings: Settings,
}

/// The keys of the file, which are the flags, as they were given.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Name of this node among several on one host
    #[arg(long, value_name = "NAME")]
    pub instance: Option<Value>,
    /// Node identity: up to 16 of 0-9 A-Z a-z . : _ @ -, or up to 32 hex digits [default: MAC or IP address of the first bearer]
    #[arg(long, value_name = "ID")]
    pub identity: Option<Value>,
    /// Cluster id (network id) [default: 4711]
    #[arg(long, value_name = "NUMBER")]
    pub cluster_id: Option<Value>,
    /// Bearer, repeatable: `eth:IFACE[,vlan=ID][,queues=LIST]`,
    /// `udp:NAME,localip=IP|device=IFACE[,localport=P][,remoteip=IP[,remoteport=P]]...[,mtu=N]`,
    /// `shm:NAME[,dir=PATH]`; each with `[,priority=N][,tolerance=MS][,window=N]`
    #[arg(long, value_name = "BEARER")]
    pub bearer: Vec<Value>,
    /// Socket on which applications attach [default: attach.sock in the run directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<Value>,
    /// Number of worker threads: the first runs the node, the others serve its AF_XDP queues [default: 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<Value>,
    /// Processors to pin the workers to, like 0,2-3 [default: not pinned]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<Value>,
    /// Where the interrupts of the queues that carry TIPC go: to the processors of the workers (workers), if these are pinned,
    /// where they go anyway (leave), or to processors like 0,2-3, one for each worker [default: workers]
    #[arg(long, value_name = "WHERE")]
    pub interrupts: Option<Value>,
    /// What an idle worker does: busy, adaptive or sleep [default: adaptive]
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Value>,
    /// Ethernet bearers by AF_XDP: auto, zerocopy, native, generic or off [default: auto]
    #[arg(long, value_name = "MODE")]
    pub xdp: Option<Value>,
    /// Link tolerance in milliseconds, 50 to 30000 [default: 1500]
    #[arg(long, value_name = "MS")]
    pub tolerance: Option<Value>,
    /// Frames in the pool shared by all Ethernet bearers [default: 8192]
    #[arg(long, value_name = "COUNT")]
    pub frames: Option<Value>,
    /// Messages that wait to be sent share packets: true or false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub bundling: Option<Value>,
    /// Messages of a connection within the node that go by the daemon before it gets a direct channel, 0 for never
    /// [default: 32]
    #[arg(long, value_name = "COUNT")]
    pub direct_after: Option<Value>,
    /// Seconds after which a direct channel is given up that nothing goes by, 0 for never [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub direct_idle: Option<Value>,
    /// Links that are watched: all (mesh), those of the ring once there are more than 32 nodes (ring), or auto: all up
    /// to 1,000 nodes [default: auto]
    #[arg(long, value_name = "MODE")]
    pub supervision: Option<Value>,
    /// File with the session key of the cluster, readable by its owner only
    #[arg(long, value_name = "PATH")]
    pub key_file: Option<Value>,
    /// File with the cluster's master key, for newcomers and to distribute session keys
    #[arg(long, value_name = "PATH")]
    pub master_key_file: Option<Value>,
    /// Minutes until the session key is replaced by a random one, 0 for never [default: 1440]
    #[arg(long, value_name = "MINUTES")]
    pub rekeying: Option<Value>,
    /// What is not encrypted is refused: auto (once there is a key), required (always) or mixed (never) [default: auto]
    #[arg(long, value_name = "MODE")]
    pub encryption: Option<Value>,
    /// What has to outlive the daemon is here; an instance has its own directory below it [default: /var/lib/xtipc]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<Value>,
    /// Log filter: off, error, warn, info, debug, trace or target=level,... [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<Value>,
    /// Sockets and pid file are here; an instance has its own directory below it [default: /run/xtipc]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<Value>,
    /// Permissions of the attach socket, octal text [default: 0660]
    #[arg(long, value_name = "MODE")]
    pub attach_mode: Option<Value>,
    /// Group of the attach socket [default: the daemon's]
    #[arg(long, value_name = "GROUP")]
    pub attach_group: Option<Value>,
    /// Permissions of the control socket, octal text [default: 0660]
    #[arg(long, value_name = "MODE")]
    pub control_mode: Option<Value>,
    /// Group of the control socket [default: the daemon's]
    #[arg(long, value_name = "GROUP")]
    pub control_group: Option<Value>,
    /// As net.tipc.tipc_rmem: the second number is the receive buffer of a new socket in bytes
    /// [default: 524288 2097152 16777216]
    #[arg(long, value_name = "MIN DEFAULT MAX")]
    pub tipc_rmem: Option<Value>,
    /// As net.tipc.key_exchange_enabled: session keys are given to others and taken from them, 1 or 0 [default: 1]
    #[arg(long, value_name = "0|1")]
    pub key_exchange_enabled: Option<Value>,
    /// As net.tipc.bc_retruni: broadcasts that a peer misses are sent again to that peer alone, unless 0 [default: 0]
    #[arg(long, value_name = "NUMBER")]
    pub bc_retruni: Option<Value>,
    /// As net.tipc.named_timeout: without effect
    #[arg(long, value_name = "MS")]
    pub named_timeout: Option<Value>,
    /// As net.tipc.max_tfms: without effect
    #[arg(long, value_name = "NUMBER")]
    pub max_tfms: Option<Value>,
    /// As net.tipc.sk_filter: without effect
    #[arg(long, value_name = "PORT SOCKET TYPE LOWER UPPER")]
    pub sk_filter: Option<Value>,
}

/// Where the interrupts of a NIC's queues go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterruptsSpec {
    /// To the processor of the worker that serves the queue, if it is pinned.
    Workers,
    /// Where they go anyway.
    Leave,
    /// To these, by worker.
    Cpus(Vec<usize>),
}

/// How bearers over Ethernet, and over UDP with their interface named, use AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The best the device grants.
    Auto,
    /// Zero-copy or nothing.
    Zerocopy,
    /// Copy mode in the driver.
    Native,
    /// Copy mode in the network stack.
    Generic,
    /// AF_PACKET instead of AF_XDP.
    Off,
}

/// Who may open one of the daemon's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the socket file.
    pub mode: u32,
    /// Group of the socket file; `None` leaves the daemon's own.
    pub group: Option<u32>,
}

/// The identity of a node that was not given one, from its first bearer's own address
/// (docs/protocol/discovery.md): the MAC or IP address and zeros. `None` on media whose addresses do not fit.
pub fn identity_from(media: Media, address: MediaAddr) -> Option<NodeIdentity> {
    let mut identity = [0; 16];
    match media {
        Media::Ethernet => identity[..6].copy_from_slice(&address.mac()),
        Media::Udp => match address.udp()?.ip() {
            IpAddr::V4(ip) => identity[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => identity = ip.octets(),
        },
        Media::InfiniBand | Media::SharedMemory => return None,
    }
    Some(NodeIdentity(identity))
}

/// Checked settings with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of this node among several on the host.
    pub instance: Option<String>,
    /// `None`: taken from the first bearer's address.
    pub identity: Option<NodeIdentity>,
    /// Network id; nodes with another one are ignored.
    pub cluster_id: u32,
    /// At most three; with none the identity is given.
    pub bearers: Vec<BearerSpec>,
    /// Where applications attach.
    pub attach_socket: PathBuf,
    /// Where the tools ask.
    pub control_socket: PathBuf,
    /// Permissions of the attach socket.
    pub attach_access: Access,
    /// Permissions of the control socket.
    pub control_access: Access,
    /// 1..=64.
    pub workers: usize,
    /// Empty, or at least one processor for each worker: worker `n` runs on `cpus[n]`.
    pub cpus: Vec<usize>,
    /// Where the interrupts of the queues go that they serve.
    pub interrupts: InterruptsSpec,
    /// What an idle worker does.
    pub policy: Policy,
    /// How bearers over Ethernet, and over UDP with their interface named, use AF_XDP.
    pub xdp: XdpMode,
    /// Link tolerance of bearers that name none.
    pub tolerance_ms: u32,
    /// Frames in the pool.
    pub frames: u32,
    /// Small messages that applications have submitted together share packets.
    pub bundling: bool,
    /// Messages of a connection before it gets a direct channel, 0 for never.
    pub direct_after: u32,
    /// Seconds that a direct channel may be idle, 0 for all.
    pub direct_idle: u32,
    /// Which links are watched.
    pub supervision: Supervision,
    /// Known to hold a key when the settings were checked.
    pub key_file: Option<PathBuf>,
    /// The same.
    pub master_key_file: Option<PathBuf>,
    /// 0 for never, `None` for the protocol's default.
    pub rekeying_minutes: Option<u32>,
    /// What is done with packets in clear.
    pub encryption: ClearText,
    /// The instance's own; made when something has to be kept.
    pub state_dir: PathBuf,
    /// Filter in the syntax of `tracing`, known to parse.
    pub log: String,
    /// Sockets and pid file; the instance's own.
    pub run_dir: PathBuf,
    /// Receive buffer of a new socket in bytes.
    pub receive_buffer: u32,
    /// Session keys are given to others and taken from them.
    pub key_exchange: bool,
    /// Broadcasts that a peer misses are sent again to that peer alone.
    pub broadcast_repair_by_unicast: bool,
    /// What was given and has no effect, and why: a sentence each.
    pub without_effect: Vec<String>,
}

impl Config {
    /// Reads the file, lays the flags over it and checks the result.
    /// `log_variable` is the value of [`LOG_VARIABLE`], if it is set.
    pub fn load(
        command_line: CommandLine,
        log_variable: Option<String>,
    ) -> Result<Self, ConfigError> {
        let named = command_line.config;
        let path = named
            .as_deref()
            .unwrap_or_else(|| Path::new(CONFIG_PATH_DEFAULT));
        let file = match std::fs::read_to_string(path) {
            Ok(text) => parse_file(path, &text)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Settings::default()
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.into(),
                    source,
                });
            }
        };
        resolve::Layers {
            flags: command_line.settings,
            log_variable: log_variable.map(Value::from),
            path,
            file,
        }
        .resolve()
    }

    /// The settings that a text in the form of the file makes, without a file or flags.
    pub fn from_text(text: &str) -> Result<Self, ConfigError> {
        let path = Path::new("settings");
        resolve::Layers {
            flags: Settings::default(),
            log_variable: None,
            path,
            file: parse_file(path, text)?,
        }
        .resolve()
    }

    /// The shortest link tolerance in use, which sets how late a worker may be.
    pub fn tolerance_ms_min(&self) -> u32 {
        self.bearers
            .iter()
            .filter_map(|b| b.tolerance_ms)
            .fold(self.tolerance_ms, u32::min)
    }
}

fn parse_file(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|e| ConfigError::Syntax {
        path: path.into(),
        message: e.to_string().trim_end().to_owned(),
    })
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read, or was named and is missing.
    #[error("{}: cannot read the configuration file: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of a type no key takes; the message shows the line.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is accepted there.
        message: String,
    },
    /// A value that its key does not take.
    #[error("{origin}: {key}: {problem}; accepted: {accepted}")]
    Value {
        /// File, command line or environment.
        origin: String,
        /// The key.
        key: &'static str,
        /// What was wrong.
        problem: String,
        /// What is accepted.
        accepted: String,
    },
}
