//! What it takes to learn which socket serves a name: a subscription that ends at once, its event, and its end. The binding
//! is one of the other node.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xtipc::{Datagram, EventKind, Kind, Node, Scope, ServiceAddress, Subscriber, Subscription};

use crate::child::say_ready;
use crate::round_trip::{Asker, PATIENCE};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 18895,
    instance: 1,
};

/// Is what is looked up.
pub(crate) fn bound(node: &Node) -> Result<()> {
    let socket = Datagram::open(node, Kind::Rdm)?;
    socket.bind(SERVICE, Scope::Cluster)?;
    say_ready();
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// The end that asks, of its own node.
pub(crate) struct Ask(Subscriber);

impl Ask {
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let subscriber = Subscriber::open(node)?;
        subscriber.set_read_timeout(Some(PATIENCE));
        let bindings = Subscription::bindings(SERVICE);
        subscriber.subscribe(&bindings)?;
        subscriber.recv().context("the other side is not bound")?;
        subscriber.cancel(&bindings)?;
        Ok(Self(subscriber))
    }
}

impl Asker for Ask {
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
        let now = Subscription::bindings(SERVICE).lasting(Duration::ZERO);
        self.0.subscribe(&now)?;
        let mut found = 0;
        loop {
            match self.0.recv().context("no event")?.kind {
                EventKind::Published => found += 1,
                EventKind::Timeout => break,
                EventKind::Withdrawn => bail!("the other side has withdrawn its binding"),
            }
        }
        ensure!(found == 1, "{found} bindings where there is one");
        answer.copy_from_slice(message);
        Ok(answer.len())
    }
}
