//! Where the two sides are: in two network namespaces of this machine, or on this host and another one.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::child::{Worker, own_program};
use crate::environment::Environment;
use crate::lab::Lab;
use crate::step::Place;
use crate::wire::Wire;

/// The other host answers within this time.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) enum Ground {
    /// Namespaces, and where the daemons' directories are made.
    Lab(Lab, PathBuf),
    /// Two hosts.
    Hosts(Box<Hosts>),
}

/// What `serve` is asked for, one line of JSON at the beginning of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Who it is.
    Describe,
    /// A process in this role, with this argument, on whose standard input and output the connection goes on.
    Start { role: String, argument: String },
}

/// Who a serving host is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) bearer: String,
    pub(crate) interface: String,
    /// `None`: it is none of Ethernet.
    pub(crate) mac: Option<[u8; 6]>,
    /// `None`: it has no IPv4 address.
    pub(crate) address: Option<Ipv4Addr>,
    /// Where its daemon's directories are made.
    pub(crate) directory: PathBuf,
    pub(crate) environment: Environment,
}

/// This host and the one that serves.
pub(crate) struct Hosts {
    peer: SocketAddr,
    /// Lasts as long as the other host serves.
    connection: TcpStream,
    own: Description,
    pub(crate) other: Description,
}

impl Hosts {
    /// Asks the other host who it is.
    pub(crate) fn meet(peer: SocketAddr, own: Description) -> Result<Self> {
        let connection = open(peer, &Request::Describe)?;
        let mut line = String::new();
        connection.set_read_timeout(Some(CONNECT_PATIENCE))?;
        let said = BufReader::new(connection.try_clone()?).read_line(&mut line);
        said.with_context(|| format!("{peer} does not answer as `xtipc-bench serve` does"))?;
        let foreign = || {
            format!(
                "{peer} is no `xtipc-bench serve`: it said `{}`",
                line.trim()
            )
        };
        let said: serde_json::Value = serde_json::from_str(&line).with_context(foreign)?;
        let version = said["environment"]["version"].as_str();
        let version = version.with_context(foreign)?.to_owned();
        ensure!(
            version == own.environment.version,
            "{peer} serves by version {version}, this is {}: both are to be the same",
            own.environment.version
        );
        let other = serde_json::from_value(said).with_context(|| {
            format!("{peer} serves by another build of version {version}: both are to be the same")
        })?;
        Ok(Self {
            peer,
            connection,
            own,
            other,
        })
    }

    fn side(&self, side: usize) -> &Description {
        [&self.own, &self.other][side]
    }
}

fn open(peer: SocketAddr, request: &Request) -> Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&peer, CONNECT_PATIENCE)
        .with_context(|| format!("no `xtipc-bench serve` at {peer}"))?;
    watch(&connection)?;
    writeln!(connection, "{}", serde_json::to_string(request)?)?;
    Ok(connection)
}

/// Has the end of a connection be known also if the other host went away without a word.
pub(crate) fn watch(connection: &TcpStream) -> Result<()> {
    use rustix::net::sockopt;
    connection.set_nodelay(true)?;
    sockopt::set_socket_keepalive(connection, true)?;
    sockopt::set_tcp_keepidle(connection, Duration::from_secs(5))?;
    sockopt::set_tcp_keepintvl(connection, Duration::from_secs(2))?;
    sockopt::set_tcp_keepcnt(connection, 3)?;
    Ok(())
}

impl Ground {
    /// A process in this role for a side.
    pub(crate) fn start(&self, side: usize, role: &str, argument: &str) -> Result<Worker> {
        let name = format!("the {role} of side {side}");
        let worker = match self {
            Self::Hosts(hosts) if side == 1 => {
                let request = Request::Start {
                    role: role.into(),
                    argument: argument.into(),
                };
                Worker::remote(&name, open(hosts.peer, &request)?)
            }
            Self::Lab(..) | Self::Hosts(_) => {
                let mut command = own_program(role)?;
                command.arg(argument);
                Worker::start(&name, command)
            }
        }?;
        match self {
            Self::Lab(..) => Ok(worker),
            Self::Hosts(hosts) => worker.while_there_is(&hosts.connection),
        }
    }

    pub(crate) fn namespace(&self, side: usize) -> Option<u32> {
        match self {
            Self::Lab(lab, _) => Some(lab.process(side)),
            Self::Hosts(_) => None,
        }
    }

    /// Of the daemon of a side.
    pub(crate) fn bearer(&self, side: usize) -> String {
        match self {
            Self::Lab(..) => format!("eth:{}", crate::lab::INTERFACE),
            Self::Hosts(hosts) => hosts.side(side).bearer.clone(),
        }
    }

    /// Whether both sides have addresses for raw frames, and for TCP and UDP.
    pub(crate) fn has_addresses(&self) -> (bool, bool) {
        match self {
            Self::Lab(..) => (true, true),
            Self::Hosts(hosts) => {
                let sides = [&hosts.own, &hosts.other];
                (
                    sides.iter().all(|side| side.mac.is_some()),
                    sides.iter().all(|side| side.address.is_some()),
                )
            }
        }
    }

    pub(crate) fn wire(&self, side: usize, place: Place) -> Wire {
        let mut wire = match self {
            Self::Lab(lab, _) => lab.wire(side),
            Self::Hosts(hosts) => Wire {
                bearer: hosts.side(side).bearer.clone(),
                interface: hosts.side(side).interface.clone(),
                // What needs an address that is not there is not measured.
                mac: hosts.side(side).mac.unwrap_or_default(),
                peer_mac: hosts.side(1 - side).mac.unwrap_or_default(),
                peer: hosts
                    .side(1 - side)
                    .address
                    .unwrap_or(Ipv4Addr::UNSPECIFIED),
            },
        };
        if !place.is_apart() {
            wire.peer = Ipv4Addr::LOCALHOST;
        }
        wire
    }

    pub(crate) fn run_directory(&self, side: usize) -> PathBuf {
        let directory = match self {
            Self::Lab(_, directory) => directory,
            Self::Hosts(hosts) => &hosts.side(side).directory,
        };
        directory.join(format!("node-{side}"))
    }

    /// Where applications of a side attach.
    pub(crate) fn attach_socket(&self, side: usize) -> PathBuf {
        self.run_directory(side).join("attach.sock")
    }

    /// Whether the MTU can be had.
    pub(crate) fn allows_mtu(&self, mtu: u32) -> bool {
        match self {
            Self::Lab(..) => true,
            Self::Hosts(_) => mtu == crate::step::MTU,
        }
    }

    pub(crate) fn set_mtu(&self, mtu: u32) -> Result<()> {
        match self {
            Self::Lab(lab, _) => lab.set_mtu(mtu),
            Self::Hosts(_) => {
                ensure!(self.allows_mtu(mtu), "MTU {mtu} of other hosts");
                Ok(())
            }
        }
    }
}
