//! `xtipc-bench serve`: the other host of a run between two.
//!
//! Each connection asks for one thing ([`Request`]). A process that is asked for has the connection as standard input and
//! output, and ends with it. Whoever connects may start measurements and daemons here, and nothing else: listen on an
//! address that only the measuring host reaches.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};

use crate::child::own_program;
use crate::environment::{Environment, InterfaceFacts};
use crate::ground::{Description, Request};
use crate::session;

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen for the measuring host. Whoever reaches it may start measurements here
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The interface that leads to the measuring host, which needs an IPv4 address for TCP and UDP
    #[arg(long, value_name = "eth:INTERFACE")]
    bearer: String,
    /// Where the daemon's directory is made
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
}

impl Options {
    /// As they were given.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        std::env::args().skip(2).collect()
    }
}

/// Roles that may be asked for.
const ROLES: [&str; 2] = ["part", "daemon"];

/// The hidden command `serving`: serves until it is killed.
pub(crate) fn serving(options: &Options) -> Result<()> {
    let autogroup_nice = session::begin()?;
    let directory = options.directory.clone().context("no --directory")?;
    let mut environment = Environment::record([0, 1], autogroup_nice);
    let interface = interface_of(&options.bearer)?;
    environment.interface = Some(InterfaceFacts::record(interface));
    let description = Description {
        directory,
        ..describe(&options.bearer, environment)?
    };
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    eprintln!("serving {interface} on {}", listener.local_addr()?);
    for connection in listener.incoming() {
        let (connection, description) = (connection?, description.clone());
        // A process ends with the thread that started it, which ends with the connection.
        thread::spawn(move || {
            if let Err(error) = answer(connection, &description) {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

fn answer(mut connection: TcpStream, description: &Description) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut line = String::new();
    // The asking side says no more before it has an answer: nothing else is in this buffer.
    BufReader::new(connection.try_clone()?).read_line(&mut line)?;
    let request = serde_json::from_str(&line).with_context(|| format!("asked for `{line}`"))?;
    let (role, argument) = match request {
        Request::Describe => {
            writeln!(connection, "{}", serde_json::to_string(description)?)?;
            return Ok(());
        }
        Request::Start { role, argument } => (role, argument),
    };
    ensure!(ROLES.contains(&role.as_str()), "asked for a role `{role}`");
    let descriptor = || anyhow::Ok(Stdio::from(OwnedFd::from(connection.try_clone()?)));
    let mut child = own_program(&role)?
        .arg(&argument)
        .stdin(descriptor()?)
        .stdout(descriptor()?)
        .spawn()
        .with_context(|| format!("cannot start the {role}"))?;
    // Until the asking side closes.
    while child.try_wait()?.is_none() {
        let mut closing = [PollFd::new(&connection, PollFlags::RDHUP)];
        let tenth_of_a_second = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        if poll(&mut closing, Some(&tenth_of_a_second))? > 0 {
            // It may have ended meanwhile.
            let _ = child.kill();
            child.wait()?;
        }
    }
    Ok(())
}

fn interface_of(bearer: &str) -> Result<&str> {
    let interface = bearer.strip_prefix("eth:");
    interface.with_context(|| format!("--bearer {bearer}: eth:INTERFACE is accepted"))
}

/// Who this host is on that bearer.
pub(crate) fn describe(bearer: &str, environment: Environment) -> Result<Description> {
    let interface = interface_of(bearer)?;
    Ok(Description {
        mac: mac_of(interface)?,
        address: address_of(interface)?,
        interface: interface.into(),
        directory: PathBuf::new(),
        environment,
    })
}

fn mac_of(interface: &str) -> Result<[u8; 6]> {
    let path = format!("/sys/class/net/{interface}/address");
    let text = fs::read_to_string(&path).with_context(|| format!("no interface {interface}"))?;
    let bytes = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes.collect::<Result<Vec<_>, _>>();
    let mac = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    mac.with_context(|| format!("{interface} has no Ethernet address"))
}

fn address_of(interface: &str) -> Result<Ipv4Addr> {
    for address in nix::ifaddrs::getifaddrs()? {
        let ip = address.address.as_ref().and_then(|a| a.as_sockaddr_in());
        if let (true, Some(ip)) = (address.interface_name == interface, ip) {
            return Ok(ip.ip());
        }
    }
    bail!("{interface} has no IPv4 address: TCP and UDP are measured beside")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_names_an_ethernet_interface() {
        assert_eq!(interface_of("eth:eth1").unwrap(), "eth1");
        assert!(interface_of("eth1").is_err());
        assert_eq!(address_of("lo").unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!(mac_of("lo").unwrap(), [0; 6]);
        assert!(mac_of("nonesuch").is_err());
    }
}
