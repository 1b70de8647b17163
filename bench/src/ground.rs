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
    pub(crate) interface: String,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
    /// Where its daemon's directories are made.
    pub(crate) directory: PathBuf,
    pub(crate) environment: Environment,
}

/// This host and the one that serves.
pub(crate) struct Hosts {
    peer: SocketAddr,
    own: Description,
    pub(crate) other: Description,
}

impl Hosts {
    /// Asks the other host who it is.
    pub(crate) fn meet(peer: SocketAddr, own: Description) -> Result<Self> {
        let (mut output, mut input) = open(peer, &Request::Describe)?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        input.flush()?;
        let other = serde_json::from_str(&line).with_context(|| {
            format!("{peer} is no `xtipc-bench serve` of this version: `{line}`")
        })?;
        Ok(Self { peer, own, other })
    }

    fn side(&self, side: usize) -> &Description {
        [&self.own, &self.other][side]
    }
}

fn open(peer: SocketAddr, request: &Request) -> Result<(BufReader<TcpStream>, TcpStream)> {
    let mut input = TcpStream::connect_timeout(&peer, CONNECT_PATIENCE)
        .with_context(|| format!("no `xtipc-bench serve` at {peer}"))?;
    input.set_nodelay(true)?;
    writeln!(input, "{}", serde_json::to_string(request)?)?;
    Ok((BufReader::new(input.try_clone()?), input))
}

impl Ground {
    /// A process in this role for a side.
    pub(crate) fn start(&self, side: usize, role: &str, argument: &str) -> Result<Worker> {
        let name = format!("the {role} of side {side}");
        match self {
            Self::Hosts(hosts) if side == 1 => {
                let request = Request::Start {
                    role: role.into(),
                    argument: argument.into(),
                };
                let (output, input) = open(hosts.peer, &request)?;
                Worker::remote(&name, output, input)
            }
            Self::Lab(..) | Self::Hosts(_) => {
                let mut command = own_program(role)?;
                command.arg(argument);
                Worker::start(&name, command)
            }
        }
    }

    pub(crate) fn namespace(&self, side: usize) -> Option<u32> {
        match self {
            Self::Lab(lab, _) => Some(lab.process(side)),
            Self::Hosts(_) => None,
        }
    }

    pub(crate) fn interface(&self, side: usize) -> &str {
        match self {
            Self::Lab(..) => crate::lab::INTERFACE,
            Self::Hosts(hosts) => &hosts.side(side).interface,
        }
    }

    pub(crate) fn wire(&self, side: usize, place: Place) -> Wire {
        let mut wire = match self {
            Self::Lab(lab, _) => lab.wire(side),
            Self::Hosts(hosts) => Wire {
                interface: hosts.side(side).interface.clone(),
                mac: hosts.side(side).mac,
                peer_mac: hosts.side(1 - side).mac,
                peer: hosts.side(1 - side).address,
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
