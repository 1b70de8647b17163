//! What a program leaves behind that goes at once.

mod host;

use std::time::Duration;

use host::Host;
use xtipc::{Datagram, Kind, Scope, ServiceAddress};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};

#[test]
fn messages_posted_right_before_a_program_leaves_arrive() {
    const PROGRAMS: u32 = 200;
    const MESSAGES: u32 = 100;
    let host = Host::start();
    let server = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
    server.bind(SERVICE, Scope::Cluster).unwrap();
    for program in 0..PROGRAMS {
        let socket = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
        for number in 0..MESSAGES {
            let message = (program * MESSAGES + number).to_ne_bytes();
            socket.post_to(&message, SERVICE).unwrap();
        }
        drop(socket);
        for number in 0..MESSAGES {
            let message = server.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(*message, (program * MESSAGES + number).to_ne_bytes());
        }
    }
}
