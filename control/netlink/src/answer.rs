//! From a message to the messages that answer it.

use xtipc_management::{Failure, Reply, Request};

use crate::family::{self, Command, control};
use crate::wire::{Attributes, HEADER_LEN, Malformed, Message, Writer, flag, message};
use crate::{bearer, change, link, show};

/// Numbers of errors that netlink itself gives.
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
/// Answers of a list share datagrams of at most this many bytes: programs have room for 8 KiB.
const DATAGRAM_MAX: usize = 4096;

/// Who asks, and how it wants to be told of errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker {
    /// The address of its netlink socket.
    pub port: u32,
    /// It has set `NETLINK_EXT_ACK`: errors come with a text.
    pub explained: bool,
    /// It has set `NETLINK_CAP_ACK`: errors come without the request.
    pub capped: bool,
}

/// What the daemon answers.
pub(crate) type Answer = Result<Reply, Failure>;
/// Attributes of the messages that are the answer.
pub(crate) type Shown = Result<Vec<Writer>, Failed>;

/// Asks the daemon.
pub(crate) type Ask<'a> = &'a mut dyn FnMut(&Request) -> Answer;

impl From<Malformed> for Failed {
    fn from(malformed: Malformed) -> Self {
        Self(invalid(malformed.to_string()))
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

/// A failure, or attributes that are none.
pub(crate) struct Failed(pub(crate) Failure);

pub(crate) fn invalid(text: impl Into<String>) -> Failure {
    Failure {
        errno: EINVAL,
        text: text.into(),
    }
}

pub(crate) fn unsupported(text: impl Into<String>) -> Failure {
    Failure {
        errno: EOPNOTSUPP,
        text: text.into(),
    }
}

/// The reply of another request than was made.
pub(crate) fn unexpected() -> Failed {
    Failed(Failure {
        errno: 71, // EPROTO
        text: "xtipcd gave the reply to another request".into(),
    })
}

/// The attributes within the one that each message of a command has.
pub(crate) fn nested<'a>(
    attributes: Attributes<'a>,
    kind: u16,
    what: &str,
) -> Result<Attributes<'a>, Failed> {
    match attributes.nest(kind)? {
        Some(nest) => Ok(nest),
        None => Err(Failed(invalid(format!(
            "attribute {kind}, which holds the {what}, is missing"
        )))),
    }
}

pub(crate) fn named<'a>(
    attributes: Attributes<'a>,
    kind: u16,
    what: &str,
) -> Result<&'a str, Failed> {
    match attributes.text(kind)? {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Failed(invalid(format!(
            "the name of the {what} is missing"
        )))),
    }
}

/// Whether a message asks for the family or is of it.
pub fn is_for_tipc(message: &Message<'_>) -> bool {
    match message.kind {
        family::TYPE => true,
        control::TYPE => asks_for_family(message),
        _ => false,
    }
}

fn asks_for_family(message: &Message<'_>) -> bool {
    let Some((control::GET_FAMILY, attributes)) = message.command() else {
        return false;
    };
    let Ok(attributes) = Attributes::check(attributes) else {
        return false;
    };
    let is_id = || attributes.array(control::FAMILY_ID) == Ok(Some(family::TYPE.to_ne_bytes()));
    message.flags & flag::DUMP != flag::DUMP
        && (attributes.text(control::FAMILY_NAME) == Ok(Some(family::NAME)) || is_id())
}

/// The datagrams that answer a message [for TIPC](is_for_tipc). `ask` has the daemon answer a request.
pub fn answer(
    asked: &Message<'_>,
    asker: Asker,
    mut ask: impl FnMut(&Request) -> Answer,
) -> Vec<Vec<u8>> {
    let acknowledged = asked.flags & flag::ACK != 0;
    if asked.flags & flag::REQUEST == 0 {
        return Vec::from_iter(acknowledged.then(|| outcome(asked, asker, None)));
    }
    let dumps = asked.flags & flag::DUMP == flag::DUMP;
    match shown(asked, dumps, &mut ask) {
        Err(Failed(failure)) => vec![outcome(asked, asker, Some(&failure))],
        Ok((command, all)) if dumps => list(asked, asker, command, all),
        Ok((command, all)) => {
            let one = |writer| of_family(asked, asker, command, 0, writer);
            let mut datagrams: Vec<_> = all.into_iter().map(one).collect();
            if acknowledged {
                datagrams.push(outcome(asked, asker, None));
            }
            datagrams
        }
    }
}

/// The number of the command in the answers, and what they hold.
fn shown(asked: &Message<'_>, dumps: bool, ask: Ask<'_>) -> Result<(u8, Vec<Writer>), Failed> {
    let Some((number, attributes)) = asked.command() else {
        return Err(Failed(invalid("the message has no command")));
    };
    let attributes = Attributes::check(attributes)?;
    if asked.kind == control::TYPE {
        // Without a node the family is not there.
        ask(&Request::NodeGet)?;
        return Ok((control::NEW_FAMILY, vec![about_family()]));
    }
    let Some(command) = Command::of(number) else {
        let text = format!("command {number} is unknown: 2 to 25 are accepted");
        return Err(Failed(unsupported(text)));
    };
    let allowed = if dumps {
        command.dumps()
    } else {
        command.does()
    };
    if !allowed {
        let text = match dumps {
            true => "this command gives no list",
            false => "this command gives a list: NLM_F_DUMP is needed",
        };
        return Err(Failed(unsupported(text)));
    }
    use Command as C;
    let all = match command {
        C::BearerGet if dumps => show::bearers(ask),
        C::BearerGet => show::bearer(attributes, ask),
        C::UdpGetRemote => show::remotes(attributes, ask),
        C::MediaGet if dumps => show::all_media(ask),
        C::MediaGet => show::media(attributes, ask),
        C::LinkGet if dumps => link::all(attributes, ask),
        C::LinkGet => link::one(attributes, ask),
        C::MonitorGet if dumps => link::monitors(ask),
        C::MonitorGet => link::threshold(ask),
        C::MonitorPeerGet => link::monitored(attributes, ask),
        C::SocketGet => show::sockets(ask),
        C::PublicationGet => show::bindings(attributes, ask),
        C::NameTableGet => show::name_table(ask),
        C::NodeGet => show::nodes(ask),
        C::NetGet => show::net(ask),
        C::LegacyAddressGet => show::legacy_address(),
        C::BearerEnable => bearer::enable(attributes, ask),
        C::BearerDisable => bearer::disable(attributes, ask),
        C::BearerAdd => bearer::add(attributes, ask),
        C::BearerSet => bearer::set(attributes, ask),
        C::LinkSet => change::link(attributes, ask),
        C::MediaSet => change::media(attributes, ask),
        C::MonitorSet => change::monitor(attributes, ask),
        C::KeySet => change::key(attributes, ask),
        C::KeyFlush => change::flush(ask),
        C::LinkResetStatistics | C::PeerRemove | C::NetSet => Err(Failed(change::refusal(command))),
    };
    all.map(|all| (number, all))
}

fn about_family() -> Writer {
    let mut writer = Writer::default();
    writer.text(control::FAMILY_NAME, family::NAME);
    writer.bytes(control::FAMILY_ID, &family::TYPE.to_ne_bytes());
    writer.number(control::VERSION, family::VERSION);
    writer.number(control::HEADER_SIZE, 0);
    writer.number(control::ATTRIBUTE_MAX, family::ATTRIBUTE_MAX);
    writer.nest(control::OPERATIONS, |writer| {
        for (index, command) in Command::ALL.into_iter().enumerate() {
            writer.nest(index as u16 + 1, |writer| {
                let flag = |can: bool, flag: u32| if can { flag } else { 0 };
                let does = flag(command.does(), control::CAN_DO);
                let dumps = flag(command.dumps(), control::CAN_DUMP);
                writer.number(control::OPERATION_ID, u32::from(command as u8));
                writer.number(control::OPERATION_FLAGS, does | dumps);
            });
        }
    });
    writer
}

fn of_family(
    asked: &Message<'_>,
    asker: Asker,
    command: u8,
    flags: u16,
    writer: Writer,
) -> Vec<u8> {
    let header = [command, family::VERSION as u8, 0, 0];
    let payload = [&header[..], &writer.into_bytes()].concat();
    message(asked.kind, flags, asked.sequence, asker.port, &payload)
}

/// Messages of a list, and its end.
fn list(asked: &Message<'_>, asker: Asker, command: u8, all: Vec<Writer>) -> Vec<Vec<u8>> {
    let one = |writer| of_family(asked, asker, command, flag::MULTI, writer);
    let end = message(
        family::DONE,
        flag::MULTI,
        asked.sequence,
        asker.port,
        &[0; 4],
    );
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for message in all.into_iter().map(one).chain([end]) {
        match datagrams.last_mut() {
            Some(last) if last.len() + message.len() <= DATAGRAM_MAX => last.extend(message),
            _ => datagrams.push(message),
        }
    }
    datagrams
}

/// The message that tells whether a request failed, and why.
fn outcome(asked: &Message<'_>, asker: Asker, failure: Option<&Failure>) -> Vec<u8> {
    let mut flags = 0;
    let mut payload = failure
        .map_or(0, |failure| -failure.errno)
        .to_ne_bytes()
        .to_vec();
    let request = asked.bytes();
    if failure.is_none() || asker.capped {
        payload.extend_from_slice(&request[..HEADER_LEN]);
        flags |= flag::CAPPED;
    } else {
        payload.extend_from_slice(request);
        payload.resize(payload.len().next_multiple_of(4), 0);
    }
    if let Some(failure) = failure.filter(|failure| asker.explained && !failure.text.is_empty()) {
        let mut writer = Writer::default();
        writer.text(family::ERROR_TEXT, &failure.text);
        payload.extend(writer.into_bytes());
        flags |= flag::ACK_TLVS;
    }
    message(family::ERROR, flags, asked.sequence, asker.port, &payload)
}

#[cfg(test)]
mod tests;
