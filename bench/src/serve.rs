//! `xtipc-bench serve`: the other host of a run between two.
//!
//! Each connection asks for one thing ([`Request`]). A process that is asked for has the connection as standard input and
//! output, and ends with it. Whoever connects may start measurements and daemons here, and nothing else: listen on an
//! address that only the measuring host reaches.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};

use crate::bearer::{Bearer, Interface};
use crate::child::own_program;
use crate::environment::{Environment, InterfaceFacts};
use crate::ground::{Description, Request, watch};
use crate::session;

/// Options of `serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen for the measuring host. Whoever reaches it may start measurements here
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The bearer of this host's daemon that leads to the measuring one, as xtipcd has it: eth:eth1, udp:wan,localip=10.0.0.2.
    /// TCP, UDP and raw frames are measured through its interface
    #[arg(long)]
    bearer: Bearer,
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
    let interface = options.bearer.interface()?.name;
    environment.interface = Some(InterfaceFacts::record(&interface));
    let description = describe(&options.bearer, directory, environment)?;
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

/// Two runs at once would measure each other.
static PRESENT: Mutex<Option<SocketAddr>> = Mutex::new(None);

/// Tells who this host is, and waits for the end of the run.
fn serve_run(connection: &mut TcpStream, description: &Description) -> Result<()> {
    writeln!(connection, "{}", serde_json::to_string(description)?)?;
    // Nothing comes but the end, or the loss of the other host.
    let _ = connection.read(&mut [0; 1]);
    Ok(())
}

fn answer(mut connection: TcpStream, description: &Description) -> Result<()> {
    watch(&connection)?;
    let asking = connection.peer_addr()?;
    let mut line = String::new();
    // The asking side says no more before it has an answer: nothing else is in this buffer.
    BufReader::new(connection.try_clone()?).read_line(&mut line)?;
    let request = serde_json::from_str(&line).with_context(|| format!("asked for `{line}`"))?;
    let (role, argument) = match request {
        Request::Describe => {
            let mut present = PRESENT.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(present) = *present {
                writeln!(connection, "busy with the run of {present}")?;
                return Ok(());
            }
            *present = Some(asking);
            drop(present);
            let described = serve_run(&mut connection, description);
            *PRESENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return described;
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

/// Who this host is on that bearer.
pub(crate) fn describe(
    bearer: &Bearer,
    directory: PathBuf,
    environment: Environment,
) -> Result<Description> {
    let Interface { name, mac, address } = bearer.interface()?;
    Ok(Description {
        bearer: bearer.to_string(),
        interface: name,
        mac,
        address,
        directory,
        environment,
    })
}
