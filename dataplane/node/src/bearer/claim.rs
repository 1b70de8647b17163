//! One daemon per interface: a claim that the kernel drops when its holder dies.
//!
//! The claim is a listening socket with an abstract Unix name made of the interface index. Such names
//! belong to the network namespace, as the index does. Nobody accepts on it: connecting to it is
//! how a second daemon learns the holder's process (SO_PEERCRED).

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    sockopt,
};
use rustix::process::geteuid;

use super::error::BearerError;

/// A holder that ends may leave the claim for a moment to a child that has not yet called exec.
const RELEASE_WAIT: Duration = Duration::from_millis(200);
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// The interface is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    /// `None` where the name was taken by a user who cannot run a bearer.
    _socket: Option<OwnedFd>,
}

impl Claim {
    /// Claims an interface of the calling thread's network namespace.
    pub(super) fn new(interface: &str, ifindex: u32) -> Result<Self, BearerError> {
        let taken = |process| BearerError::OtherDaemon {
            interface: interface.into(),
            process,
        };
        match claim_in_time(ifindex) {
            Ok(socket) => Ok(Self {
                _socket: Some(socket),
            }),
            Err(Errno::ADDRINUSE) => match holder(ifindex) {
                Ok(holder) if holder.uid.is_root() || holder.uid == geteuid() => {
                    Err(taken(Some(holder.pid.as_raw_nonzero().get())))
                }
                // Anybody may take the name; that must not keep a node from its interface.
                Ok(holder) => {
                    tracing::warn!(
                        interface,
                        process = holder.pid.as_raw_nonzero().get(),
                        uid = holder.uid.as_raw(),
                        "a process of another user claims this interface for a bearer: ignored"
                    );
                    Ok(Self { _socket: None })
                }
                Err(_) => Err(taken(None)),
            },
            Err(error) => {
                tracing::warn!(interface, %error, "cannot keep other daemons off this interface");
                Ok(Self { _socket: None })
            }
        }
    }
}

fn name(ifindex: u32) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new_abstract_name(format!("xtipc-bearer-{ifindex}").as_bytes())
}

fn claim_in_time(ifindex: u32) -> rustix::io::Result<OwnedFd> {
    let deadline = Instant::now() + RELEASE_WAIT;
    loop {
        match claim(ifindex) {
            Err(Errno::ADDRINUSE) if Instant::now() < deadline => std::thread::sleep(RELEASE_POLL),
            result => return result,
        }
    }
}

fn claim(ifindex: u32) -> rustix::io::Result<OwnedFd> {
    let socket = unix_socket()?;
    bind(&socket, &name(ifindex)?)?;
    listen(&socket, 8)?;
    Ok(socket)
}

fn holder(ifindex: u32) -> rustix::io::Result<rustix::net::UCred> {
    let socket = unix_socket()?;
    // Not waiting: with a full backlog the answer is "somebody".
    connect(&socket, &name(ifindex)?)?;
    sockopt::socket_peercred(&socket)
}

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}
