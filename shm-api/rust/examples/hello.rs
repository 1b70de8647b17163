//! Hello world over TIPC.
//!
//! `hello server` answers greetings, `hello client` sends one, `hello` alone does both in one process. The two find
//! each other by service address, wherever in the cluster they run.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use xtipc::{Datagram, Error, Kind, Node, Scope, ServiceAddress};

const INSTANCE: u32 = 17;
const PATIENCE: Duration = Duration::from_secs(10);

/// Greets by service address.
#[derive(Parser)]
struct Arguments {
    /// What to be; both if not given.
    role: Option<Role>,
    /// Service type, 64 or more.
    #[arg(default_value_t = 18888)]
    service_type: u32,
    /// Attach socket; else XTIPC_SOCKET, else /run/xtipc/attach.sock.
    #[arg(long)]
    socket: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Server,
    Client,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let node = match &arguments.socket {
        Some(path) => Node::builder().socket_path(path).attach()?,
        None => Node::attach()?,
    };
    let service = ServiceAddress {
        type_: arguments.service_type,
        instance: INSTANCE,
    };
    match arguments.role {
        Some(Role::Server) => {
            let server = open_server(&node, service)?;
            loop {
                answer(&server)?;
            }
        }
        Some(Role::Client) => greet(&node, service),
        None => {
            let server = open_server(&node, service)?;
            let server = thread::spawn(move || answer(&server));
            greet(&node, service)?;
            server.join().expect("the server does not panic")
        }
    }
}

fn open_server(node: &Node, service: ServiceAddress) -> anyhow::Result<Datagram> {
    let server = Datagram::open(node, Kind::Rdm)?;
    server.bind(service, Scope::Cluster)?;
    println!("server: bound to {service} on node {:x}", node.address());
    Ok(server)
}

fn answer(server: &Datagram) -> anyhow::Result<()> {
    let greeting = server.recv()?;
    let text = String::from_utf8_lossy(&greeting);
    println!("server: \"{text}\" from {}", greeting.source());
    server.send_to(b"Hello from the server!", greeting.source())?;
    Ok(())
}

fn greet(node: &Node, service: ServiceAddress) -> anyhow::Result<()> {
    let client = Datagram::open(node, Kind::Rdm)?;
    // A greeting that cannot be delivered shall come back.
    client.set_dest_droppable(false)?;
    let start = Instant::now();
    let mut told = false;
    while let Err(error) = client.send_to(b"Hello World!", service) {
        if !matches!(error, Error::Unreachable { .. }) || start.elapsed() > PATIENCE {
            return Err(error).context("greeting");
        }
        if !told {
            println!("client: waiting for a server of {service}");
            told = true;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let answer = client.recv_timeout(PATIENCE).context("no answer")?;
    if let Some(reason) = answer.error() {
        bail!("the greeting came back: {reason:?}");
    }
    let text = String::from_utf8_lossy(&answer);
    println!("client: \"{text}\" from {}", answer.source());
    Ok(())
}
