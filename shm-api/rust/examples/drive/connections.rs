//! Connections, as `tests/interop/drive.py` describes the requests.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use xtipc::{
    Connection, ConnectionKind, Error, Importance, Listener, Node, Scope, ServiceRange,
    SharedHandle, SocketAddress,
};

use super::crowd::Crowd;
use super::{Words, crc32, crc32_more, pattern};

enum End {
    Listener(Listener),
    Connection(Connection),
}

/// The listeners and connections of this process, by number.
#[derive(Default)]
pub(super) struct Ends(Vec<Option<End>>);

/// Requests of this module that open something.
pub(super) const OPENING: [&str; 4] = ["listen", "connect", "imply", "clients"];
/// Those that name an end.
pub(super) const NAMING: [&str; 13] = [
    "accept", "option", "write", "read", "fill", "pump", "drain", "name", "shutdown", "hangup",
    "echo", "share", "gather",
];

impl Ends {
    fn add(&mut self, end: End) -> Result<String> {
        let name = match &end {
            End::Listener(listener) => listener.local_addr(),
            End::Connection(connection) => connection.local_addr(),
        }?;
        self.0.push(Some(end));
        Ok(format!("{} {} {}", self.0.len() - 1, name.port, name.node))
    }

    /// Does what opens an end.
    pub(super) fn open(
        &mut self,
        node: &Node,
        verb: &str,
        words: &mut Words<'_>,
    ) -> Result<Option<String>> {
        let kind = match words.text("connection kind")? {
            "stream" => ConnectionKind::Stream,
            "seqpacket" => ConnectionKind::Seqpacket,
            other => bail!("unknown connection kind {other}"),
        };
        let end = match verb {
            "listen" => End::Listener(listen(node, kind, words)?),
            "connect" => {
                let (to, ms) = (words.destination()?, words.number("timeout")?);
                End::Connection(Connection::connect_timeout(node, kind, to, ms)?)
            }
            "imply" => {
                let to = words.destination()?;
                let first = pattern(words.number("seed")?, words.number("size")?);
                End::Connection(Connection::connect_with(node, kind, to, &first)?)
            }
            _ => return clients(node, kind, words).map(Some),
        };
        self.add(end).map(Some)
    }

    /// Takes a connection that another process passes on at a path.
    pub(super) fn adopt(&mut self, node: &Node, words: &mut Words<'_>) -> Result<Option<String>> {
        // The path is there once somebody listens, which binding alone does not do.
        let path = words.text("path")?;
        let unheard = format!("{path}.new");
        let meeting = UnixListener::bind(&unheard)?;
        std::fs::rename(&unheard, path)?;
        let (giver, _) = meeting.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&giver, bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let handle = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let handle = handle.context("no handle came")?.into();
        self.add(End::Connection(Connection::adopt(node, &handle)?))
            .map(Some)
    }

    /// Does what is asked of an end.
    pub(super) fn obey(
        &mut self,
        crowd: &mut Crowd,
        verb: &str,
        words: &mut Words<'_>,
    ) -> Result<Option<String>> {
        let number: usize = words.number("end")?;
        let slot = self.0.get_mut(number).context("no such end")?;
        if verb == "hangup" {
            *slot = None;
            return Ok(Some(String::new()));
        }
        match slot.as_mut().context("the end is closed")? {
            End::Listener(listener) if verb == "accept" => {
                let patience = words.millis("timeout")?;
                let accepted = listener.accept_timeout(patience);
                let Some((connection, peer)) = in_time(accepted)? else {
                    return Ok(None);
                };
                let end = self.add(End::Connection(connection))?;
                Ok(Some(format!("{end} {} {}", peer.port, peer.node)))
            }
            End::Listener(listener) if verb == "gather" => crowd.gather(listener, words).map(Some),
            End::Listener(listener) if verb == "echo" => echo(listener, words).map(Some),
            End::Listener(listener) if verb == "option" => {
                let bytes = words.buffer()?;
                listener.set_receive_buffer(bytes)?;
                Ok(Some(String::new()))
            }
            End::Listener(_) => bail!("a listener does not {verb}"),
            End::Connection(connection) => on_connection(connection, verb, words),
        }
    }
}

/// `None` if the time was over.
fn in_time<T>(result: xtipc::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::TimedOut | Error::WouldBlock) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn listen(node: &Node, kind: ConnectionKind, words: &mut Words<'_>) -> Result<Listener> {
    let (type_, instance) = (words.number("type")?, words.number("instance")?);
    if type_ == 0 {
        return Ok(Listener::open(node, kind)?);
    }
    let range = ServiceRange {
        type_,
        lower: instance,
        upper: instance,
    };
    Ok(Listener::bind(node, kind, range, Scope::Cluster)?)
}

fn on_connection(
    connection: &mut Connection,
    verb: &str,
    words: &mut Words<'_>,
) -> Result<Option<String>> {
    let mut answer = String::new();
    match verb {
        "option" => match words.text("option")? {
            "nodelay" => connection.set_nodelay(words.number::<u8>("value")? != 0)?,
            "importance" => {
                let importance = Importance::from_number(words.number("value")?);
                connection.set_importance(importance.context("no such importance")?)?;
            }
            "buffer" => connection.set_receive_buffer(words.number("value")?)?,
            other => bail!("unknown option {other}"),
        },
        "write" => {
            let bytes = pattern(words.number("seed")?, words.number("size")?);
            answer = connection.send(&bytes)?.to_string();
        }
        "read" => {
            let mut bytes = vec![0; words.number("size")?];
            connection.set_read_timeout(Some(words.millis("timeout")?));
            let Some(len) = in_time_of_io(connection.read(&mut bytes))? else {
                return Ok(None);
            };
            answer = format!("{len} {}", crc32(&bytes[..len]));
        }
        "fill" => answer = fill(connection, words)?,
        "pump" => answer = pump(connection, words)?,
        "drain" => answer = drain(connection, words)?,
        "name" => {
            let (own, peer) = (connection.local_addr()?, connection.peer_addr()?);
            let SocketAddress { port, node } = own;
            answer = format!("{port} {node} {} {}", peer.port, peer.node);
        }
        "share" => pass_on(&connection.share()?, words.text("path")?)?,
        "shutdown" => connection.shutdown()?,
        _ => bail!("a connection does not {verb}"),
    }
    Ok(Some(answer))
}

/// Passes a handle to the process that waits for it at a path.
fn pass_on(handle: &SharedHandle, path: &str) -> Result<()> {
    let taker = UnixStream::connect(path)?;
    let fds = [handle.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = [IoSlice::new(&[0])];
    rustix::net::sendmsg(&taker, &bytes, &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn in_time_of_io<T>(result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn fill(connection: &Connection, words: &mut Words<'_>) -> Result<String> {
    let bytes = pattern(0, words.number("size")?);
    connection.set_write_timeout(Some(words.millis("timeout")?));
    let mut count = 0;
    while in_time(connection.send(&bytes))?.is_some() {
        count += 1;
    }
    connection.set_write_timeout(None);
    Ok(count.to_string())
}

fn pump(mut connection: &Connection, words: &mut Words<'_>) -> Result<String> {
    let seed = words.number("seed")?;
    let mut left: usize = words.number("bytes")?;
    let piece = pattern(seed, words.number("piece")?);
    let mut crc = 0;
    while left > 0 {
        let part = &piece[..piece.len().min(left)];
        connection.write_all(part)?;
        crc = crc32_more(crc, part);
        left -= part.len();
    }
    Ok(crc.to_string())
}

fn drain(mut connection: &Connection, words: &mut Words<'_>) -> Result<String> {
    let size: usize = words.number("bytes")?;
    connection.set_read_timeout(Some(words.millis("timeout")?));
    let pause = Duration::from_micros(words.number("pause")?);
    let piece: usize = words.number("piece")?;
    let (mut got, mut crc, mut next_pause) = (0, 0, piece);
    let mut bytes = vec![0; 66_000];
    while got < size {
        let len = connection.read(&mut bytes)?;
        if len == 0 {
            break;
        }
        crc = crc32_more(crc, &bytes[..len]);
        got += len;
        while got >= next_pause {
            next_pause += piece;
            thread::sleep(pause);
        }
    }
    Ok(format!("{got} {crc}"))
}

/// Sends back what comes on the connections it accepts, until each has ended.
fn echo(listener: &Listener, words: &mut Words<'_>) -> Result<String> {
    let count = words.number("count")?;
    thread::scope(|scope| {
        let accepted: Vec<_> = (0..count)
            .map(|_| {
                let (connection, _) = listener.accept()?;
                Ok(scope.spawn(move || -> xtipc::Result<()> {
                    while let Some(message) = connection.recv()? {
                        connection.send(&message)?;
                    }
                    Ok(())
                }))
            })
            .collect::<xtipc::Result<_>>()?;
        let count = accepted.len();
        for thread in accepted {
            thread.join().map_err(|_| anyhow::anyhow!("a thread"))??;
        }
        Ok(count.to_string())
    })
}

fn clients(node: &Node, kind: ConnectionKind, words: &mut Words<'_>) -> Result<String> {
    let to = words.destination()?;
    let count = words.number("count")?;
    let rounds = words.number("rounds")?;
    let connect = |_| Connection::connect(node, kind, to);
    let connections: Vec<_> = (0..count).map(connect).collect::<Result<_, _>>()?;
    let expected: HashMap<usize, Vec<u8>> = (0..count + rounds)
        .map(|seed| (seed, pattern(seed, 100 + count)))
        .collect();
    let mut good = 0;
    for number in 0..rounds {
        let part = |seed: usize| &expected[&(seed + number)][..100 + seed];
        for (seed, connection) in connections.iter().enumerate() {
            connection.send(part(seed))?;
        }
        for (seed, connection) in connections.iter().enumerate() {
            let message = connection.recv()?.context("an end")?;
            good += usize::from(*message == *part(seed));
        }
    }
    for connection in &connections {
        connection.shutdown()?;
    }
    Ok(good.to_string())
}
