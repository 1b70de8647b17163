//! Direct channels of the attachment's sockets (`docs/protocol/channels.md`).
//!
//! A channel is one more source of a socket's queue, and one more way for what it sends; nobody else need know of it. After
//! some messages the library asks the daemon for a channel; the daemon offers it to both ends. Each end then switches
//! what it sends, when the other one has mapped the channel and nothing of its own is under way by the daemon. The notice of
//! that stands in the peer's queue, behind what came by the daemon; what comes by the daemon later waits until the
//! channel was read up to the switch back, or to the end of the connection.
//!
//! All of it is under the attachment's lock, but what tells the peer of consumption, which is in the messages.

mod bells;
mod calls;
mod leaving;
mod making;
mod pairs;
mod receiving;
mod sending;
mod standing_by;
mod waits;
mod waking;

use xtipc_segment::channel::Channel;
use xtipc_segment::{DestinationName, Importance, SocketAddress};

pub(crate) use bells::Bells;
pub(crate) use leaving::Leaving;
pub(crate) use making::Offer;
pub(crate) use pairs::Partners;
pub(crate) use standing_by::give_way;
use waits::Waits;

/// Messages by the daemon before it is asked again for what it could not do.
const PAUSE: u32 = 64;

/// Which way a socket sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// By the daemon; so many messages until a channel is asked for.
    Daemon(u32),
    /// By the daemon, which was asked for a channel.
    Asked,
    /// By the daemon; there is a channel, so many messages until the next attempt to switch.
    Offered(u32),
    /// The request to switch is under way: nothing can be sent.
    Switching(u64),
    /// By the channel.
    Channel,
    /// By the daemon, once the peer has told what it took of the channel.
    Revoked,
    /// By the daemon, for ever.
    #[default]
    Never,
}

/// What is to be done with a message to be sent.
pub(crate) enum Way {
    /// It was sent by the channel, and the peer stands by or not.
    Sent(bool),
    /// It has to wait for the peer to read.
    Congested,
    /// It has to wait for the answer to a request.
    Switching(u64),
    /// It has to wait for the peer to tell whether it took the message of this number, if that is this one.
    Revoked(Option<u32>),
    /// It is to be given to the daemon, and [`Core::note_sent`] called when that has answered.
    Daemon,
}

/// The channel of a socket.
#[derive(Debug)]
pub(crate) struct Direct {
    channel: Channel,
    peer: SocketAddress,
    name: DestinationName,
    importance: Importance,
    /// What is not read is dropped, and does not come back.
    droppable: bool,
    /// Somebody waits to be able to send.
    room_awaited: bool,
    /// How it waits, for who looks on.
    waits: Waits,
    /// The bell is in a descriptor that the program polls.
    watched: bool,
    /// Messages of which it is being found out whether the peer, which takes nothing more, took them.
    unclear: u32,
    /// Units unacknowledged of what came by the daemon, until all of that was taken out of the queue.
    take_over: Option<u32>,
    sends: u32,
}
