//! The sockets of a situation by name, and the steps that are calls on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use xtipc::socket::{AF_TIPC, Errno, ReceiveRoom, SIOCGETLINKNAME, SIOCGETNODEID, Socket};
use xtipc::{Datagram, Kind, Node, Scope, ServiceAddress, Subscriber, Subscription};

use crate::text::{self, FLAGS_OUT, POLL, errno_name, number, unsigned};

const CONTROL_MAX: usize = 4096;
const FILL_MAX: usize = 10_000;
const SERVICE_ADDRESS: u8 = 2;
const EVENT_LEN: usize = 48;

#[derive(Default)]
struct Sockets {
    /// In the order in which they were made.
    by_name: Vec<(String, Arc<Socket>)>,
    /// Port to name and node, also of sockets that are closed.
    names: HashMap<u32, (String, u32)>,
}

/// A service type that no situation has.
const MARKER: u32 = 4_000_000_000;

/// The nodes that have sockets.
#[derive(Clone)]
pub(crate) struct Nodes {
    pub(crate) here: Node,
    pub(crate) far: Option<Node>,
}

impl Nodes {
    /// Waits until each node has heard of all that the other has bound and withdrawn: of that one tells the other in order.
    pub(crate) fn settle(&self) -> Result<()> {
        let Some(far) = &self.far else {
            return Ok(());
        };
        for (here, there) in [(&self.here, far), (far, &self.here)] {
            let marker = Datagram::open(there, Kind::Rdm)?;
            let socket = marker.local_addr()?;
            let instance = ServiceAddress {
                type_: MARKER,
                instance: socket.port,
            };
            let subscriber = Subscriber::open(here)?;
            subscriber.subscribe(&Subscription::bindings(instance))?;
            marker.bind(instance, Scope::Cluster)?;
            while subscriber.recv()?.socket != socket {}
        }
        Ok(())
    }
}

pub(crate) struct World {
    nodes: Nodes,
    own_node: u32,
    sockets: Mutex<Sockets>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(nodes: &Nodes) -> Self {
        Self {
            nodes: nodes.clone(),
            own_node: nodes.here.address(),
            sockets: Mutex::default(),
        }
    }

    /// Wakes who waits.
    pub(crate) fn shut_down(&self) {
        for (_, socket) in &lock(&self.sockets).by_name {
            // All that counts is that nobody waits any more.
            let _ = socket.shutdown(libc::SHUT_RDWR);
        }
    }

    /// Closes the sockets, receivers first.
    pub(crate) fn close(&self) {
        while lock(&self.sockets).by_name.pop().is_some() {}
    }

    fn socket(&self, name: &str) -> Result<Arc<Socket>> {
        let sockets = lock(&self.sockets);
        let found = sockets.by_name.iter().find(|(known, _)| known == name);
        Ok(Arc::clone(
            &found.with_context(|| format!("no socket {name}"))?.1,
        ))
    }

    fn adopt(&self, name: &str, socket: Socket) -> Result<()> {
        let [port, node] = port_and_node(&socket.local_address()?.to_bytes());
        let mut sockets = lock(&self.sockets);
        sockets.by_name.retain(|(known, _)| known != name);
        sockets.by_name.push((name.into(), Arc::new(socket)));
        sockets.names.insert(port, (name.into(), node));
        Ok(())
    }

    fn node_of(&self, word: &str) -> Result<u32> {
        match word {
            "here" => Ok(self.own_node),
            "far" => Ok(self.far()?.address()),
            word => unsigned(word),
        }
    }

    /// `kind:numbers` with `/len=`, `/scope=`, `/family=` and `/type=` for what is out of the ordinary.
    fn address(&self, word: &str) -> Result<Option<Vec<u8>>> {
        if word == "-" {
            return Ok(None);
        }
        let mut parts = word.split('/');
        let mut name = parts.next().unwrap_or_default().split(':');
        let kind = name.next().unwrap_or_default();
        let words: Vec<&str> = name.collect();
        let node =
            |at: usize, default| words.get(at).map_or(Ok(default), |word| self.node_of(word));
        let (kind, numbers) = match (kind, &words[..]) {
            ("socket", [socket, ..]) => {
                let (port, home) = self.port_of(socket)?;
                (3, [port, node(1, home)?, 0])
            }
            ("service", [type_, instance, ..]) => {
                (2, [unsigned(type_)?, unsigned(instance)?, node(2, 0)?])
            }
            ("range", [type_, lower, upper]) => {
                (1, [unsigned(type_)?, unsigned(lower)?, unsigned(upper)?])
            }
            _ => bail!("`{word}` is no address"),
        };
        let (mut family, mut kind, mut scope, mut len) = (AF_TIPC as u16, kind, 0, 16);
        for part in parts {
            let (key, value) = part.split_once('=').context("a change is KEY=NUMBER")?;
            let value = number(value)?;
            match key {
                "family" => family = value as u16,
                "type" => kind = value as u8,
                "scope" => scope = value as i8,
                "len" => len = value as usize,
                _ => bail!("`{key}` of an address cannot be changed"),
            }
        }
        let mut bytes = family.to_ne_bytes().to_vec();
        bytes.extend([kind, scope as u8]);
        bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        bytes.resize(len, 0);
        Ok(Some(bytes))
    }

    fn far(&self) -> Result<&Node> {
        let far = self.nodes.far.as_ref();
        far.context("XTIPC_FAR_SOCKET names the attach socket of the other node")
    }

    /// The port and its node.
    fn port_of(&self, word: &str) -> Result<(u32, u32)> {
        if let Ok(port) = word.parse() {
            return Ok((port, self.own_node));
        }
        let sockets = lock(&self.sockets);
        let known = sockets.names.iter().find(|(_, (name, _))| name == word);
        let (port, (_, node)) = known.with_context(|| format!("no socket {word}"))?;
        Ok((*port, *node))
    }

    fn shown_address(&self, address: &[u8; 16]) -> String {
        let [port, node] = port_and_node(address);
        match address[..3] {
            [0, 0, _] => return "none".into(),
            [_, _, SERVICE_ADDRESS] => {
                let words = text::words_in(address);
                return format!("service:{}:{}", words[1], words[2]);
            }
            _ => {}
        }
        self.shown_socket(port, node)
    }

    fn shown_socket(&self, port: u32, node: u32) -> String {
        let sockets = lock(&self.sockets);
        let (name, home) = match sockets.names.get(&port) {
            Some((name, home)) => (name.as_str(), *home),
            None if port == 0 => ("0", self.own_node),
            None => ("unknown", self.own_node),
        };
        match node {
            node if node == home => name.into(),
            0 => format!("{name}@0"),
            node if self
                .nodes
                .far
                .as_ref()
                .is_some_and(|far| far.address() == node) =>
            {
                format!("{name}@far")
            }
            node => format!("{name}@{node:x}"),
        }
    }

    pub(crate) fn mask(&self, name: &str) -> Result<i16> {
        Ok(self.socket(name)?.poll()?)
    }

    /// Does one step that is a call; its result as text.
    pub(crate) fn step(&self, names: &[&str], words: &[&str]) -> Result<String> {
        let ok = |()| "ok".to_owned();
        Ok(match *words {
            ["socket", kind, ref rest @ ..] => {
                let protocol = rest.first().map_or(Ok(0), |word| number(word))? as i32;
                let socket = Socket::open(&self.nodes.here, text::socket_type(kind)?, protocol)?;
                self.adopt(names[0], socket).map(ok)?
            }
            ["far", "socket", kind] => {
                let socket = Socket::open(self.far()?, text::socket_type(kind)?, 0)?;
                self.adopt(names[0], socket).map(ok)?
            }
            ["socketpair", kind] => {
                let (one, other) = Socket::pair(&self.nodes.here, text::socket_type(kind)?, 0)?;
                self.adopt(names[0], one)?;
                self.adopt(names[1], other).map(ok)?
            }
            ["nonblock", name, on] => {
                self.socket(name)?.set_nonblocking(on == "1");
                ok(())
            }
            ["close", name] => {
                lock(&self.sockets)
                    .by_name
                    .retain(|(known, _)| known != name);
                ok(())
            }
            ["bind", name, address] => {
                let address = self.address(address)?.unwrap_or_default();
                self.socket(name)?.bind(&address).map(ok)?
            }
            ["connect", name, address] => {
                let address = self.address(address)?.unwrap_or_default();
                self.socket(name)?.connect(&address).map(ok)?
            }
            ["listen", name, ..] => self.socket(name)?.listen(0).map(ok)?,
            ["accept", name] => {
                let (socket, peer) = self.socket(name)?.accept()?;
                self.adopt(names[0], socket)?;
                format!("ok, from {}", self.shown_address(&peer.to_bytes()))
            }
            ["shutdown", name, ref how @ ..] => {
                let how = match how.first() {
                    None | Some(&"rdwr") => libc::SHUT_RDWR,
                    Some(&"rd") => libc::SHUT_RD,
                    Some(&"wr") => libc::SHUT_WR,
                    Some(word) => number(word)? as i32,
                };
                self.socket(name)?.shutdown(how).map(ok)?
            }
            ["getsockname", name] => {
                self.shown_address(&self.socket(name)?.local_address()?.to_bytes())
            }
            ["getpeername", name] => {
                self.shown_address(&self.socket(name)?.peer_address()?.to_bytes())
            }
            ["poll", name] => self.poll(name)?,
            ["send", name, data, ref rest @ ..] => self.send(name, data, rest)?.to_string(),
            ["fill", name, data, ref rest @ ..] => self.fill(name, data, rest)?,
            ["drain", name, ref rest @ ..] => self.drain(name, rest)?,
            ["recv", name, ref rest @ ..] => self.receive(name, rest)?,
            ["setopt", name, level, option, value, ref rest @ ..] => {
                let (level, option) = text::level_and_option(level, option)?;
                let value = text::option_value(value)?;
                let whole = value.as_ref().map_or(0, Vec::len);
                let len = text::setting(rest, "len")?.map_or(whole, |len| len as usize);
                let value = value.map(|mut value| {
                    value.resize(len, 0);
                    value
                });
                let socket = self.socket(name)?;
                socket
                    .set_option(level, option, value.as_deref(), len)
                    .map(ok)?
            }
            ["getopt", name, level, option, ref rest @ ..] => {
                self.option(name, text::level_and_option(level, option)?, rest)?
            }
            ["subscribe", name, what, timeout, ref filters @ ..] => {
                let request = text::subscription(what, timeout, filters)?;
                self.socket(name)?.send(&request, 0, None)?.to_string()
            }
            ["ioctl", name, request, ref rest @ ..] => self.ioctl(name, request, rest)?,
            _ => bail!("no such step"),
        })
    }

    /// Takes an event of the topology service.
    pub(crate) fn event(&self, name: &str, swapped: bool) -> Result<String> {
        let mut event = [0; EVENT_LEN];
        let room = ReceiveRoom {
            data: &mut event,
            control: None,
        };
        let len = self.socket(name)?.receive(room, libc::MSG_DONTWAIT)?.len;
        if len != EVENT_LEN {
            return Ok(format!("{len} bytes"));
        }
        let words = text::words_in(&event);
        let word = |at: usize| {
            if swapped {
                words[at].swap_bytes()
            } else {
                words[at]
            }
        };
        let what = match word(0) {
            1 => "published",
            2 => "withdrawn",
            3 => "timeout",
            other => bail!("event {other}"),
        };
        let kind = word(5);
        let instance = |at: usize| match word(at) {
            node if kind == 0 && node == self.own_node => "here".to_owned(),
            number => number.to_string(),
        };
        let (range, by) = (
            format!("{kind}:{}:{}", instance(1), instance(2)),
            self.shown_socket(word(3), word(4)),
        );
        Ok(format!(
            "{what} {range} by {by}, for {}",
            text::shown(&event[40..])
        ))
    }

    pub(crate) fn poll(&self, name: &str) -> Result<String> {
        let mask = self.mask(name)?;
        let names = text::names_of(&POLL, |bit| mask & bit != 0).join(" ");
        Ok(if names.is_empty() {
            "nothing".into()
        } else {
            names
        })
    }

    fn send(&self, name: &str, data: &str, rest: &[&str]) -> Result<usize> {
        let data = text::data(data)?;
        let address = rest.first().map_or(Ok(None), |word| self.address(word))?;
        let flags = rest
            .iter()
            .skip(1)
            .try_fold(0, |all, word| anyhow::Ok(all | text::flag(word)?))?;
        Ok(self.socket(name)?.send(&data, flags, address.as_deref())?)
    }

    /// Sends until it would block.
    fn fill(&self, name: &str, data: &str, rest: &[&str]) -> Result<String> {
        let address = rest.first().copied().unwrap_or("-");
        for count in 0..FILL_MAX {
            if let Err(error) = self.send(name, data, &[address, "dontwait"]) {
                let error = error.downcast::<Errno>()?;
                return Ok(format!("{count} sent, then {}", errno_name(error.0)));
            }
        }
        Ok(format!("{FILL_MAX} sent"))
    }

    /// Receives until it would block.
    fn drain(&self, name: &str, rest: &[&str]) -> Result<String> {
        let size = rest.first().map_or(Ok(66_000), |word| number(word))? as usize;
        let (mut count, mut total) = (0, 0);
        let mut data = vec![0; size];
        let socket = self.socket(name)?;
        loop {
            let room = ReceiveRoom {
                data: &mut data,
                control: None,
            };
            let end = match socket.receive(room, libc::MSG_DONTWAIT) {
                Ok(received) if received.len > 0 => {
                    (count, total) = (count + 1, total + received.len);
                    continue;
                }
                Ok(_) => "0".into(),
                Err(error) => errno_name(error.0),
            };
            return Ok(format!("{count} received, {total} bytes, then {end}"));
        }
    }

    /// `recv NAME [SIZE] [FLAG...] [control=N] [name=N]`
    fn receive(&self, name: &str, words: &[&str]) -> Result<String> {
        let control_size = text::setting(words, "control")?.unwrap_or(0) as usize;
        let name_size = text::setting(words, "name")?.unwrap_or(64);
        let (mut size, mut flags) = (70_000, 0);
        for word in words.iter().filter(|word| !word.contains('=')) {
            match word.parse() {
                Ok(number) => size = number,
                Err(_) => flags |= text::flag(word)?,
            }
        }
        let (mut data, mut control) = (vec![0; size], vec![0; control_size.min(CONTROL_MAX)]);
        let room = ReceiveRoom {
            data: &mut data,
            control: (control_size > 0).then_some(&mut control[..]),
        };
        let received = self.socket(name)?.receive(room, flags)?;
        let mut parts = vec![received.len.to_string()];
        if received.len > 0 {
            parts.push(text::shown(&data[..received.len]));
        }
        if name_size > 0 {
            let mut name = received.name;
            name[(name_size as usize).min(received.name_len)..].fill(0);
            let addresses = name[..received.name_len].as_chunks::<16>().0;
            let shown: Vec<String> = addresses.iter().map(|a| self.shown_address(a)).collect();
            parts.push(format!("from {}", shown.join(" ")));
        }
        parts.extend(text::shown_control(&control[..received.control_len])?);
        parts.extend(text::names_of(&FLAGS_OUT, |bit| received.flags & bit != 0));
        Ok(parts.join(", "))
    }

    fn option(&self, name: &str, (level, option): (i32, i32), rest: &[&str]) -> Result<String> {
        let len = text::setting(rest, "len")?.unwrap_or(4) as usize;
        let mut value = vec![0; len];
        let len = self.socket(name)?.option(level, option, &mut value)?;
        let value = &value[..len];
        Ok(match text::words_in(value)[..] {
            [number] => number.to_string(),
            [one, other] => format!("{one}:{other}"),
            [seconds, _, micros, _] => format!("{}ms", seconds * 1000 + micros / 1000),
            _ => format!("{len} bytes"),
        })
    }

    fn ioctl(&self, name: &str, request: &str, rest: &[&str]) -> Result<String> {
        let socket = self.socket(name)?;
        let mut argument = [0; 76];
        if let [node, ..] = rest {
            argument[..4].copy_from_slice(&self.node_of(node)?.to_ne_bytes());
        }
        match request {
            "linkname" => {
                let bearer = unsigned(rest.get(1).context("linkname NODE BEARER")?)?;
                argument[4..8].copy_from_slice(&bearer.to_ne_bytes());
                socket.ioctl(SIOCGETLINKNAME, &mut argument)?;
                let name = argument[8..].split(|byte| *byte == 0).next();
                Ok(text::shown(name.unwrap_or_default()))
            }
            "nodeid" => {
                socket.ioctl(SIOCGETNODEID, &mut argument)?;
                let known = argument[4..20].iter().any(|byte| *byte != 0);
                Ok(if known { "an identity" } else { "nothing" }.into())
            }
            request => {
                let request = if request == "inq" { "0x541b" } else { request };
                socket.ioctl(number(request)? as u64, &mut argument)?;
                Ok("ok".into())
            }
        }
    }
}

fn port_and_node(address: &[u8; 16]) -> [u32; 2] {
    let words = text::words_in(address);
    [words[1], words[2]]
}
