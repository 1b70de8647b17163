//! Opens sockets as a test tells it to, on standard input and output.
//!
//! The requests, the answers and the pattern of the payloads are described in `tests/interop/drive.py`, which does
//! the same on a Linux node: a test treats both alike.

#[path = "drive/connections.rs"]
mod connections;
#[path = "drive/crowd.rs"]
mod crowd;
#[path = "drive/groups.rs"]
mod groups;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, Write};
use std::str::{FromStr, SplitWhitespace};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use xtipc::{
    Datagram, Destination, DestinationName, Error, EventKind, Importance, Kind, Message,
    MulticastMethod, Node, Rejection, Scope, ServiceAddress, ServiceRange, SocketAddress,
    Subscriber, Subscription,
};

use connections::{Ends, NAMING, OPENING};
use crowd::Crowd;
use groups::Members;

const END_OF_STREAM: u32 = 1 << 31;
const STAMP_LEN: usize = 12;
const COLLECT_BUFFER: u32 = 16 << 20;
/// A flood that was held up makes good for no more than this: else it pours all that at once into a receive buffer, whose reader may
/// be held up too.
const CAUGHT_UP_MAX: Duration = Duration::from_millis(500);
const CREDIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Byte `i` of pattern `seed` is `seed + PATTERN_STEP * i` modulo `PATTERN_PERIOD`.
const PATTERN_PERIOD: usize = 251;
const PATTERN_STEP: usize = 7;

fn main() -> Result<()> {
    let mut driver = Driver {
        node: Node::attach()?,
        sockets: Vec::new(),
        subscribers: Vec::new(),
        ends: Ends::default(),
        members: Members::default(),
        crowd: Crowd::default(),
    };
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready {}", std::process::id())?;
    output.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = Words(line.split_whitespace());
        let answer = match driver.obey(&mut words) {
            Ok(Some(answer)) => format!("ok {answer}"),
            Ok(None) => "timeout".into(),
            Err(error) => match errno_of(&error) {
                Some(errno) => format!("failed {errno} {error:#}"),
                None => format!("error {error:#}"),
            }
            .replace('\n', " "),
        };
        writeln!(output, "{}", answer.trim_end())?;
        output.flush()?;
    }
    Ok(())
}

/// What the socket interface of the kernel would say, if it would say anything.
fn errno_of(error: &anyhow::Error) -> Option<i32> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(error.errno());
    }
    let error = error.downcast_ref::<std::io::Error>()?;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or(error.raw_os_error(), |inner: &Error| Some(inner.errno()))
}

/// The words of a request, taken one after the other.
struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn text(&mut self, what: &str) -> Result<&'a str> {
        self.0.next().with_context(|| format!("{what} is missing"))
    }

    fn number<T>(&mut self, what: &str) -> Result<T>
    where
        T: FromStr<Err = std::num::ParseIntError>,
    {
        let word = self.text(what)?;
        word.parse()
            .with_context(|| format!("{what} `{word}` is no such number"))
    }

    fn millis(&mut self, what: &str) -> Result<Duration> {
        Ok(Duration::from_millis(self.number(what)?))
    }

    fn destination(&mut self) -> Result<Destination> {
        let word = self.text("destination")?;
        let (kind, numbers) = word.split_once(',').context("destination has no numbers")?;
        let numbers: Vec<u32> = numbers
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(match (kind, &numbers[..]) {
            ("service", &[type_, instance]) => ServiceAddress { type_, instance }.into(),
            ("service", &[type_, instance, domain]) => Destination::Service {
                address: ServiceAddress { type_, instance },
                domain,
            },
            ("socket", &[node, port]) => SocketAddress { port, node }.into(),
            ("range", &[type_, lower, upper]) => ServiceRange {
                type_,
                lower,
                upper,
            }
            .into(),
            _ => bail!("unknown destination {word}"),
        })
    }

    fn sizes(&mut self) -> Result<Vec<usize>> {
        let sizes = self.text("sizes")?.split(',').map(str::parse);
        Ok(sizes.collect::<Result<_, _>>()?)
    }

    fn buffer(&mut self) -> Result<u32> {
        match self.text("option")? {
            "buffer" => self.number("value"),
            other => bail!("a listener has no option {other}"),
        }
    }

    fn subscription(&mut self) -> Result<Subscription> {
        let range = ServiceRange {
            type_: self.number("type")?,
            lower: self.number("lower")?,
            upper: self.number("upper")?,
        };
        let subscription = match self.text("filter")? {
            "ports" => Subscription::bindings(range),
            "service" => Subscription::services(range),
            other => bail!("unknown filter {other}"),
        };
        Ok(match self.text("timeout")? {
            "forever" => subscription,
            ms => subscription.lasting(Duration::from_millis(ms.parse()?)),
        })
    }

    fn binding(&mut self) -> Result<(ServiceRange, Scope)> {
        let range = ServiceRange {
            type_: self.number("type")?,
            lower: self.number("lower")?,
            upper: self.number("upper")?,
        };
        let scope = match self.text("scope")? {
            "cluster" => Scope::Cluster,
            "node" => Scope::Node,
            other => bail!("unknown scope {other}"),
        };
        Ok((range, scope))
    }
}

/// The sockets and subscribers of this process, by number.
struct Driver {
    node: Node,
    sockets: Vec<Option<Datagram>>,
    subscribers: Vec<Subscriber>,
    ends: Ends,
    members: Members,
    crowd: Crowd,
}

impl Driver {
    /// Carries out a request; `None` is a receive that timed out.
    fn obey(&mut self, words: &mut Words<'_>) -> Result<Option<String>> {
        let verb = words.text("request")?;
        match verb {
            "open" => return self.open(words).map(Some),
            "subscriber" => {
                self.subscribers.push(Subscriber::open(&self.node)?);
                return Ok(Some((self.subscribers.len() - 1).to_string()));
            }
            "subscribe" | "cancel" | "event" => return self.track(verb, words),
            _ if crowd::VERBS.contains(&verb) => return self.crowd.obey(&self.node, verb, words),
            "adopt" => return self.ends.adopt(&self.node, words),
            _ if OPENING.contains(&verb) => return self.ends.open(&self.node, verb, words),
            _ if groups::VERBS.contains(&verb) => {
                return self.members.obey(&self.node, verb, words);
            }
            _ if NAMING.contains(&verb) => return self.ends.obey(&mut self.crowd, verb, words),
            "die" => {
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                )?;
            }
            _ => {}
        }
        let number: usize = words.number("socket")?;
        let slot = self.sockets.get_mut(number).context("no such socket")?;
        if verb == "close" {
            *slot = None;
            return Ok(Some(String::new()));
        }
        let socket = slot.as_ref().context("the socket is closed")?;
        match verb {
            "bind" => {
                let (range, scope) = words.binding()?;
                socket.bind(range, scope)?;
            }
            "unbind" => {
                let (range, scope) = words.binding()?;
                socket.unbind(range, scope)?;
            }
            "importance" => {
                let number = words.number("importance")?;
                let importance = Importance::from_number(number)
                    .with_context(|| format!("{number} is no importance"))?;
                socket.set_importance(importance)?;
            }
            "multicast" => socket.set_multicast_method(match words.text("method")? {
                "broadcast" => MulticastMethod::Broadcast,
                "replicast" => MulticastMethod::Replicast,
                other => bail!("unknown multicast method {other}"),
            })?,
            "droppable" => socket.set_dest_droppable(words.number::<u8>("droppable")? != 0)?,
            "send" => {
                let destination = words.destination()?;
                let seed = words.number("seed")?;
                let size = words.number("size")?;
                socket.send_to(&pattern(seed, size), destination)?;
            }
            "recv" => return recv(socket, words),
            "flood" => return flood(socket, words).map(Some),
            // What a receiver that stands still for a second loses says nothing about the link.
            "buffer" => socket.set_receive_buffer(COLLECT_BUFFER)?,
            "pour" => return pour(socket, words).map(Some),
            "collect" => return collect(socket, words).map(Some),
            "ask" => return ask(socket, words).map(Some),
            "answer" => return answer(socket, words).map(Some),
            _ => bail!("unknown request {verb}"),
        }
        Ok(Some(String::new()))
    }

    fn track(&self, verb: &str, words: &mut Words<'_>) -> Result<Option<String>> {
        let number: usize = words.number("subscriber")?;
        let subscriber = self.subscribers.get(number).context("no such subscriber")?;
        match verb {
            "subscribe" => subscriber.subscribe(&words.subscription()?)?,
            "cancel" => subscriber.cancel(&words.subscription()?)?,
            _ => return event(subscriber, words),
        }
        Ok(Some(String::new()))
    }

    fn open(&mut self, words: &mut Words<'_>) -> Result<String> {
        let kind = match words.text("socket kind")? {
            "rdm" => Kind::Rdm,
            "dgram" => Kind::Dgram,
            other => bail!("unknown socket kind {other}"),
        };
        let socket = Datagram::open(&self.node, kind)?;
        let address = socket.local_addr()?;
        self.sockets.push(Some(socket));
        Ok(format!(
            "{} {} {}",
            self.sockets.len() - 1,
            address.port,
            address.node
        ))
    }
}

fn event(subscriber: &Subscriber, words: &mut Words<'_>) -> Result<Option<String>> {
    subscriber.set_read_timeout(Some(words.millis("timeout")?));
    let event = match subscriber.recv() {
        Ok(event) => event,
        Err(Error::TimedOut | Error::WouldBlock) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let kind = match event.kind {
        EventKind::Published => "published",
        EventKind::Withdrawn => "withdrawn",
        EventKind::Timeout => "timeout",
    };
    let ServiceRange {
        type_,
        lower,
        upper,
    } = event.range;
    let SocketAddress { port, node } = event.socket;
    Ok(Some(format!(
        "{kind} {type_} {lower} {upper} {port} {node} {}",
        now.as_nanos()
    )))
}

fn recv(socket: &Datagram, words: &mut Words<'_>) -> Result<Option<String>> {
    let message = match socket.recv_timeout(words.millis("timeout")?) {
        Ok(message) => message,
        Err(Error::TimedOut | Error::WouldBlock) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (type_, lower, upper) = match message.destination() {
        DestinationName::None => (0, 0, 0),
        DestinationName::Service(address) => (address.type_, address.instance, address.instance),
        DestinationName::Multicast(range) => (range.type_, range.lower, range.upper),
    };
    let SocketAddress { port, node } = message.source();
    let error = message.error().map_or(0, error_code);
    Ok(Some(format!(
        "{} {} {node} {port} {error} {type_} {lower} {upper}",
        message.len(),
        crc32(&message)
    )))
}

fn error_code(rejection: Rejection) -> u8 {
    match rejection {
        Rejection::NoName => 1,
        Rejection::NoPort => 2,
        Rejection::NoNode => 3,
        Rejection::Overload => 4,
        Rejection::Shutdown => 5,
        Rejection::Other(code) => code,
    }
}

/// Sends stamped messages at a steady pace, and at last the mark that ends the stream.
fn flood(socket: &Datagram, words: &mut Words<'_>) -> Result<String> {
    let destination = words.destination()?;
    let stream = words.number("stream")?;
    let duration = words.millis("duration")?;
    let gap = Duration::from_micros(words.number("gap")?);
    let sizes = words.sizes()?;
    let start = Instant::now();
    let (mut sent, mut due) = (0, start);
    for size in sizes.iter().cycle() {
        if start.elapsed() >= duration {
            break;
        }
        socket.send_to(&stamped(stream, sent, *size), destination)?;
        sent += 1;
        let now = Instant::now();
        due = (due + gap).max(now - CAUGHT_UP_MAX);
        std::thread::sleep(due.saturating_duration_since(now));
    }
    socket.send_to(
        &stamped(stream, sent | END_OF_STREAM, STAMP_LEN),
        destination,
    )?;
    Ok(sent.to_string())
}

/// Sends stamped messages as fast as the receivers tell that they have come.
fn pour(socket: &Datagram, words: &mut Words<'_>) -> Result<String> {
    let destination = words.destination()?;
    let stream = words.number("stream")?;
    let end = Instant::now() + words.millis("duration")?;
    let window: u32 = words.number("window")?;
    let members: usize = words.number("members")?;
    let sizes = words.sizes()?;
    let mut told: HashMap<SocketAddress, u32> = HashMap::new();
    let (mut sent, mut granted, mut returned) = (0, window, 0);
    for size in sizes.iter().cycle() {
        while sent >= granted {
            let message = socket.recv_timeout(CREDIT_TIMEOUT).with_context(|| {
                format!("no credit: {sent} sent, {returned} returned, {told:?}")
            })?;
            if message.error().is_some() {
                returned += 1;
                continue;
            }
            let count = message.get(4..).and_then(<[u8]>::first_chunk);
            let count = u32::from_be_bytes(*count.context("a credit of no length")?);
            told.insert(message.source(), count);
            if told.len() == members {
                granted = window + told.values().min().copied().unwrap_or(0);
            }
        }
        if Instant::now() >= end {
            break;
        }
        socket.send_to(&stamped(stream, sent, *size), destination)?;
        sent += 1;
    }
    socket.send_to(
        &stamped(stream, sent | END_OF_STREAM, STAMP_LEN),
        destination,
    )?;
    Ok(format!("{sent} {returned}"))
}

/// What arrived of one stream of stamped messages.
#[derive(Default)]
struct Stream {
    /// All before it have come.
    next: u32,
    /// Those behind it that have come.
    early: BTreeSet<u32>,
    highest: Option<u32>,
    duplicate: u32,
    reordered: u32,
    expected: Option<usize>,
}

impl Stream {
    fn add(&mut self, number: u32) {
        if number & END_OF_STREAM != 0 {
            self.expected = Some((number & !END_OF_STREAM) as usize);
            return;
        }
        if number < self.next || !self.early.insert(number) {
            self.duplicate += 1;
            return;
        }
        if self.highest.is_some_and(|highest| number < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
        while self.early.remove(&self.next) {
            self.next += 1;
        }
    }

    fn count(&self) -> usize {
        self.next as usize + self.early.len()
    }

    /// The number of a message that does not tell it.
    fn following(&self) -> u32 {
        self.highest.map_or(0, |highest| highest + 1)
    }

    fn lost(&self) -> usize {
        let expected = self.expected.unwrap_or(self.following() as usize);
        expected.saturating_sub(self.count())
    }
}

fn collect(socket: &Datagram, words: &mut Words<'_>) -> Result<String> {
    let streams: usize = words.number("streams")?;
    let idle = words.millis("idle time")?;
    let end = Instant::now() + words.millis("limit")?;
    let credit: usize = words.0.next().map_or(Ok(0), str::parse)?;
    socket.set_receive_buffer(COLLECT_BUFFER)?;
    let mut found: BTreeMap<u32, Stream> = BTreeMap::new();
    let mut streams_of: HashMap<SocketAddress, u32> = HashMap::new();
    let (mut good, mut corrupt, mut returned) = (0, 0, 0);
    while found.values().filter(|s| s.expected.is_some()).count() < streams {
        let patience = idle.min(end.saturating_duration_since(Instant::now()));
        let message = match socket.recv_timeout(patience) {
            Ok(message) => message,
            Err(Error::TimedOut | Error::WouldBlock) => break,
            Err(error) => return Err(error.into()),
        };
        if message.error().is_some() {
            returned += 1;
            continue;
        }
        let of_sender = streams_of.get(&message.source()).copied();
        let following = of_sender.map(|stream| (stream, found[&stream].following()));
        let Some((key, number)) = read_stamp(&message, following) else {
            corrupt += 1;
            continue;
        };
        good += 1;
        streams_of.insert(message.source(), key);
        let stream = found.entry(key).or_default();
        stream.add(number);
        if credit > 0 && stream.count().is_multiple_of(credit) {
            let told = [key, stream.count() as u32].map(u32::to_be_bytes);
            socket.send_to(told.as_flattened(), message.source())?;
        }
    }
    let mut answer = format!("{good} {corrupt} {returned}");
    for (stream, s) in &found {
        let (count, lost) = (s.count(), s.lost());
        answer += &format!(" {stream}:{count}:{lost}:{}:{}", s.duplicate, s.reordered);
    }
    Ok(answer)
}

/// Binds an address of its own, asks, waits for the answer by that address, and withdraws it, over and over;
/// so many at a time.
fn ask(socket: &Datagram, words: &mut Words<'_>) -> Result<String> {
    let destination = words.destination()?;
    let type_ = words.number("type")?;
    let count = words.number("count")?;
    let width = words.number("width")?;
    let patience = words.millis("patience")?;
    let own = |number| ServiceRange {
        type_,
        lower: number,
        upper: number,
    };
    let mut questions = 0..count;
    let mut open = BTreeSet::new();
    let mut answered = 0;
    loop {
        while open.len() < width
            && let Some(number) = questions.next()
        {
            socket.bind(own(number), Scope::Cluster)?;
            socket.send_to(&stamped(type_, number, STAMP_LEN), destination)?;
            open.insert(number);
        }
        if open.is_empty() {
            return Ok(answered.to_string());
        }
        let message = match socket.recv_timeout(patience) {
            Ok(message) => message,
            Err(Error::TimedOut | Error::WouldBlock) => return Ok(answered.to_string()),
            Err(error) => return Err(error.into()),
        };
        if let Some((_, number)) = read_stamp(&message, None)
            && open.remove(&number)
        {
            socket.unbind(own(number), Scope::Cluster)?;
            answered += 1;
        }
    }
}

/// Answers questions by the service address that they name.
fn answer(socket: &Datagram, words: &mut Words<'_>) -> Result<String> {
    let count: u32 = words.number("count")?;
    let idle = words.millis("idle time")?;
    let (mut answered, mut unreachable) = (0, 0);
    while answered + unreachable < count {
        let question = match socket.recv_timeout(idle) {
            Ok(message) => message,
            Err(Error::TimedOut | Error::WouldBlock) => break,
            Err(error) => return Err(error.into()),
        };
        let (type_, instance) = read_stamp(&question, None).context("that is no question")?;
        match socket.send_to(&question, ServiceAddress { type_, instance }) {
            Ok(_) => answered += 1,
            Err(Error::Unreachable { .. }) => unreachable += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(format!("{answered} {unreachable}"))
}

/// Stream and number of a message, if it is whole. One too short for the stamp is the `following` of its sender's.
fn read_stamp(message: &Message, following: Option<(u32, u32)>) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u32::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let (stream, number) = match message.len() {
        STAMP_LEN.. => (word(0)?, word(4)?),
        _ => following?,
    };
    (**message == stamped(stream, number, message.len())).then_some((stream, number))
}

fn stamped(stream: u32, number: u32, size: usize) -> Vec<u8> {
    if size < STAMP_LEN {
        return pattern(number as usize, size);
    }
    let mut message = Vec::with_capacity(size.max(STAMP_LEN));
    message.extend(stream.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend((size as u32).to_be_bytes());
    let seed = (number & !END_OF_STREAM) as usize;
    message.extend(pattern(seed, size.saturating_sub(STAMP_LEN)));
    message
}

fn pattern(seed: usize, size: usize) -> Vec<u8> {
    let seed = seed % PATTERN_PERIOD;
    let mut period = [0; PATTERN_PERIOD];
    for (i, byte) in period.iter_mut().enumerate() {
        *byte = ((seed + PATTERN_STEP * i) % PATTERN_PERIOD) as u8;
    }
    let mut bytes = period.repeat(size.div_ceil(PATTERN_PERIOD));
    bytes.truncate(size);
    bytes
}

/// The CRC of zlib.
fn crc32(bytes: &[u8]) -> u32 {
    crc32_more(0, bytes)
}

/// The CRC of what had this CRC and goes on with these bytes.
fn crc32_more(crc: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!crc, |crc, byte| {
        crc >> 8 ^ CRC_TABLE[(crc as u8 ^ byte) as usize]
    })
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ 0xedb8_8320 & (crc & 1).wrapping_neg();
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};
