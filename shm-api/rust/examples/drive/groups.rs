//! Members of groups, as `tests/interop/drive.py` describes the requests.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtipc::{Error, Group, GroupEvent, Joining, Node, ServiceAddress, SocketAddress};

use super::{Words, crc32, pattern, stamped};

/// Requests of this module.
pub(super) const VERBS: [&str; 7] = ["join", "tell", "hear", "talk", "heed", "chorus", "leave"];
/// How long to wait until the member that is meant is known.
const KNOWN: Duration = Duration::from_secs(10);

/// The members of this process, by number.
#[derive(Default)]
pub(super) struct Members(Vec<Option<Group>>);

/// To whom a message goes.
#[derive(Clone, Copy)]
enum Whom {
    All,
    At(u32),
    Any(u32),
    Socket(SocketAddress),
}

impl Whom {
    fn parse(word: &str) -> Result<Self> {
        let (kind, numbers) = word.split_once(',').unwrap_or((word, ""));
        let numbers: Vec<u32> = numbers
            .split_terminator(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(match (kind, &numbers[..]) {
            ("all", []) => Self::All,
            ("at", &[instance]) => Self::At(instance),
            ("any", &[instance]) => Self::Any(instance),
            ("socket", &[node, port]) => Self::Socket(SocketAddress { port, node }),
            _ => bail!("{word} is nobody"),
        })
    }

    /// Tries as long as the member that is meant is not known yet.
    fn tell(self, group: &Group, payload: &[u8]) -> Result<()> {
        let end = Instant::now() + KNOWN;
        loop {
            let sent = match self {
                Self::All => group.broadcast(payload),
                Self::At(instance) => group.multicast(payload, instance),
                Self::Any(instance) => group.anycast(payload, instance),
                Self::Socket(member) => group.send_to(payload, member),
            };
            match sent {
                Err(Error::NoMember { .. }) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(10));
                }
                sent => return Ok(sent?),
            }
        }
    }
}

impl Members {
    /// Carries out a request; `None` is one that timed out.
    pub(super) fn obey(
        &mut self,
        node: &Node,
        verb: &str,
        words: &mut Words<'_>,
    ) -> Result<Option<String>> {
        match verb {
            "join" => return self.join(node, words).map(Some),
            "chorus" => return chorus(words).map(Some),
            _ => {}
        }
        let number: usize = words.number("member")?;
        let slot = self.0.get_mut(number).context("no such member")?;
        if verb == "leave" {
            slot.take().context("the member has left")?.leave()?;
            return Ok(Some(String::new()));
        }
        let group = slot.as_ref().context("the member has left")?;
        match verb {
            "tell" => {
                let whom = Whom::parse(words.text("whom")?)?;
                let (seed, size) = (words.number("seed")?, words.number("size")?);
                whom.tell(group, &pattern(seed, size))?;
                Ok(Some(String::new()))
            }
            "hear" => hear(group, words),
            "talk" => talk(group, words).map(Some),
            _ => heed(group, words).map(Some),
        }
    }

    fn join(&mut self, node: &Node, words: &mut Words<'_>) -> Result<String> {
        let address = ServiceAddress {
            type_: words.number("type")?,
            instance: words.number("instance")?,
        };
        let flags = words.text("flags")?;
        let joining = Joining {
            loopback: flags.contains("loopback"),
            events: flags.contains("events"),
            ..Joining::default()
        };
        let group = Group::join(node, address, joining)?;
        let own = group.local_addr()?;
        self.0.push(Some(group));
        Ok(format!("{} {} {}", self.0.len() - 1, own.port, own.node))
    }
}

fn hear(group: &Group, words: &mut Words<'_>) -> Result<Option<String>> {
    let news = match group.recv_timeout(words.millis("timeout")?) {
        Ok(news) => news,
        Err(Error::TimedOut | Error::WouldBlock) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (what, who, len, crc) = match &news {
        GroupEvent::Message { from, message } => ("message", from, message.len(), crc32(message)),
        GroupEvent::Joined(member) => ("joined", member, 0, 0),
        GroupEvent::Left(member) => ("left", member, 0, 0),
    };
    let (instance, SocketAddress { port, node }) = (who.address.instance, who.socket);
    Ok(Some(format!("{what} {instance} {port} {node} {len} {crc}")))
}

/// Sends stamped messages to all that are named, in turn.
fn talk(group: &Group, words: &mut Words<'_>) -> Result<String> {
    let count: u32 = words.number("count")?;
    let whom = words.text("whom")?.split('/').map(Whom::parse);
    let whom: Vec<Whom> = whom.collect::<Result<_>>()?;
    let sizes = words.sizes()?;
    let stream = group.address().instance;
    let turns = whom.iter().cycle().zip(sizes.iter().cycle());
    for (number, (whom, size)) in (0..count).zip(turns) {
        whom.tell(group, &stamped(stream, number, *size))?;
    }
    Ok(count.to_string())
}

/// Hears so many messages, or until none comes, and tells of each member how many, and how many out of order.
fn heed(group: &Group, words: &mut Words<'_>) -> Result<String> {
    let awaited: u32 = words.number("count")?;
    let idle = words.millis("idle")?;
    let pause = Duration::from_micros(words.number("pause")?);
    let pause_after: u32 = words.number("messages")?;
    let (mut bad, mut count) = (0, 0);
    let mut heard: BTreeMap<u32, (u32, u32, u32)> = BTreeMap::new();
    while count < awaited {
        let news = match group.recv_timeout(idle) {
            Ok(news) => news,
            Err(Error::TimedOut | Error::WouldBlock) => break,
            Err(error) => return Err(error.into()),
        };
        let GroupEvent::Message { from, message } = news else {
            continue;
        };
        let instance = from.address.instance;
        let words: Vec<u32> = message
            .as_chunks::<4>()
            .0
            .iter()
            .take(3)
            .map(|word| u32::from_be_bytes(*word))
            .collect();
        let [stream, number, _] = words[..] else {
            bail!("a message of {} bytes has no stamp", message.len());
        };
        bad += u32::from(*message != stamped(stream, number, message.len()) || stream != instance);
        let (all, disordered, next) = heard.entry(instance).or_default();
        *all += 1;
        *disordered += u32::from(number < *next);
        *next = number + 1;
        count += 1;
        if count % pause_after == 0 {
            thread::sleep(pause);
        }
    }
    let each = heard
        .iter()
        .map(|(instance, (count, disordered, _))| format!(" {instance}:{count}:{disordered}"));
    Ok(format!("{bad}{}", each.collect::<String>()))
}

/// Many members, each with an attachment of its own.
fn chorus(words: &mut Words<'_>) -> Result<String> {
    let type_ = words.number("type")?;
    let (first, members): (u32, u32) = (words.number("first")?, words.number("members")?);
    let count: u32 = words.number("count")?;
    let whom = Whom::parse(words.text("whom")?)?;
    let size = words.number("size")?;
    let singers: Vec<_> = (first..first + members)
        .map(|instance| {
            thread::spawn(move || -> Result<()> {
                let address = ServiceAddress { type_, instance };
                let joining = Joining {
                    events: false,
                    ..Joining::default()
                };
                let group = Group::join(&Node::attach()?, address, joining)?;
                (0..count).try_for_each(|n| whom.tell(&group, &stamped(instance, n, size)))
            })
        })
        .collect();
    for singer in singers {
        match singer.join() {
            Ok(sung) => sung?,
            Err(_) => bail!("a member panicked"),
        }
    }
    Ok(count.to_string())
}
