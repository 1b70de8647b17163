//! Two embedded nodes, joined by memory, that one thread drives by turns: a message of 64 bytes posted to the other node and received
//! there, and one back. What is waited for is there at the first look, so no wait is counted.

use std::path::Path;
use std::time::Duration;

use xtipc::{
    Datagram, EmbeddedNode, Kind, Scope, ServiceAddress, SocketAddress, Subscriber, Subscription,
};

const PAYLOAD: [u8; 64] = [7; 64];
const SERVICE: ServiceAddress = ServiceAddress {
    type_: 1000,
    instance: 1,
};
const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes sleep while they wait for each other at the start, so that the count of that is nearly the same in each run.
fn start(directory: &Path, name: &str) -> EmbeddedNode {
    let directory = directory.display();
    let settings = format!(
        "identity = \"{name}\"\nbearer = [\"shm:wire,dir={directory}/wire\"]\nrun_dir = \"{directory}/{name}\"\n\
         policy = \"sleep\"\nlog = \"off\"\n"
    );
    EmbeddedNode::start(&settings).expect("a node in memory")
}

/// A round trip: two messages.
pub(crate) fn round_trips(count: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let nodes = ["client", "server"].map(|name| start(directory.path(), name));
    let [here, there] = nodes.each_ref().map(|node| node.attach().expect("its own"));
    let server = Datagram::open(&there, Kind::Rdm).expect("a socket");
    server.bind(SERVICE, Scope::Cluster).expect("a free name");
    let subscriber = Subscriber::open(&here).expect("a socket");
    let wanted = Subscription::bindings(SERVICE);
    subscriber.subscribe(&wanted).expect("the first");
    subscriber.recv().expect("the server's binding");
    let client = Datagram::open(&here, Kind::Rdm).expect("a socket");
    for _ in 0..count {
        client.post_to(&PAYLOAD, SERVICE).expect("room");
        let asker = pass(&server);
        server.post_to(&PAYLOAD, asker).expect("room");
        pass(&client);
    }
}

/// Receives a message, and gives who sent it.
fn pass(socket: &Datagram) -> SocketAddress {
    let message = socket.recv_timeout(PATIENCE).expect("a message");
    assert_eq!(*message, PAYLOAD);
    message.source()
}
