//! Measures round trips of messages to an echo service.
//!
//! `ping --serve` is the echo service, `ping` measures. They find each other by service address.

use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use xtipc::{Datagram, Error, Kind, MESSAGE_LEN_MAX, Node, Scope, ServiceAddress};

const PATIENCE: Duration = Duration::from_secs(10);

/// Measures round trips to an echo service.
#[derive(Parser)]
struct Arguments {
    /// Round trips.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Round trips before the measurement, not counted.
    #[arg(long, default_value_t = 1000)]
    warm_up: u64,
    /// Bytes per message, 1 to 66000.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Service address of the echo service, TYPE:INSTANCE.
    #[arg(long, default_value = "18889:1")]
    service: Service,
    /// Be the echo service.
    #[arg(long)]
    serve: bool,
    /// Attach socket; else XTIPC_SOCKET, else /run/xtipc/attach.sock.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Be a node of one's own with these settings, separated by ';': 'bearer = ["eth:eth1"]; policy = "busy"'.
    #[cfg(feature = "embedded")]
    #[arg(long, conflicts_with = "socket")]
    embed: Option<String>,
}

#[derive(Clone, Copy)]
struct Service(ServiceAddress);

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |number: &str| number.parse().ok();
        let address = text.split_once(':').and_then(|(type_, instance)| {
            Some(ServiceAddress {
                type_: parse(type_)?,
                instance: parse(instance)?,
            })
        });
        address
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is not TYPE:INSTANCE"))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        (1..=MESSAGE_LEN_MAX).contains(&arguments.size),
        "--size {}: 1 to {MESSAGE_LEN_MAX} bytes",
        arguments.size
    );
    ensure!(arguments.count > 0, "--count 0: at least one round trip");
    let node = attach(&arguments)?;
    if arguments.serve {
        serve(&node, arguments.service.0)
    } else {
        measure(&node, &arguments)
    }
}

fn attach(arguments: &Arguments) -> anyhow::Result<Node> {
    #[cfg(feature = "embedded")]
    if let Some(settings) = &arguments.embed {
        return Ok(xtipc::EmbeddedNode::start(&settings.replace(';', "\n"))?.attach()?);
    }
    Ok(match &arguments.socket {
        Some(path) => Node::builder().socket_path(path).attach()?,
        None => Node::attach()?,
    })
}

fn serve(node: &Node, service: ServiceAddress) -> anyhow::Result<()> {
    let socket = Datagram::open(node, Kind::Rdm)?;
    socket.bind(service, Scope::Cluster)?;
    println!("echoing on {service}");
    loop {
        let message = socket.recv()?;
        // Not waiting for the verdict saves a switch to the daemon and back. A client that has ended meanwhile is no
        // reason to end, too.
        socket.post_to(&message, message.source())?;
    }
}

fn measure(node: &Node, arguments: &Arguments) -> anyhow::Result<()> {
    let service = arguments.service.0;
    let socket = Datagram::open(node, Kind::Rdm)?;
    // A ping that cannot be delivered shall come back.
    socket.set_dest_droppable(false)?;
    let payload = vec![0x5a; arguments.size];
    wait_for_service(&socket, service)?;
    for _ in 0..arguments.warm_up {
        round_trip(&socket, &payload, service)?;
    }
    socket.flush()?;
    let mut nanoseconds = Histogram::<u64>::new(3)?;
    for _ in 0..arguments.count {
        let start = Instant::now();
        round_trip(&socket, &payload, service)?;
        nanoseconds.record(start.elapsed().as_nanos().try_into()?)?;
    }
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let quantile = |q| microseconds(nanoseconds.value_at_quantile(q));
    println!(
        "{} round trips of {} bytes to {service}: p50 {:.2} us, p90 {:.2} us, p99 {:.2} us, max {:.2} us",
        arguments.count,
        arguments.size,
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        microseconds(nanoseconds.max()),
    );
    Ok(())
}

fn wait_for_service(socket: &Datagram, service: ServiceAddress) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        // Empty: only asks whether it can be sent, receivers throw it away.
        match socket.send_to(b"", service) {
            Ok(()) => return Ok(()),
            Err(Error::Unreachable { .. }) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn round_trip(socket: &Datagram, payload: &[u8], service: ServiceAddress) -> anyhow::Result<()> {
    socket.post_to(payload, service)?;
    let echo = socket.recv_timeout(PATIENCE).context("no echo")?;
    if let Some(reason) = echo.error() {
        bail!("the message came back: {reason:?}");
    }
    ensure!(*echo == *payload, "the echo differs from what was sent");
    Ok(())
}
