//! Messages of netlink and their attributes: checked when read, aligned when written. Numbers are in the byte order of the machine.

/// Bytes before the payload of a message: length, type, flags, sequence number and port.
pub(crate) const HEADER_LEN: usize = 16;
/// Bytes of the header of generic netlink: command, version and two that are not used.
pub(crate) const GENERIC_LEN: usize = 4;
const ATTRIBUTE_LEN: usize = 4;
const ALIGNMENT: usize = 4;
/// Bits of an attribute's type that are no part of its number.
const TYPE_FLAGS: u16 = 0xc000;
const NESTED: u16 = 0x8000;

/// Flags of messages.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const MULTI: u16 = 2;
    pub(crate) const ACK: u16 = 4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const CAPPED: u16 = 0x100;
    pub(crate) const ACK_TLVS: u16 = 0x200;
}

/// A message, as long as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message of a datagram, and what follows it. `None`: there is no whole one.
    pub fn first(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = number(datagram, 0)? as usize;
        let bytes = datagram
            .get(..len)
            .filter(|bytes| bytes.len() >= HEADER_LEN)?;
        let message = Self {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: number(bytes, 8)?,
            bytes,
        };
        let next = len.next_multiple_of(ALIGNMENT);
        Some((message, datagram.get(next..).unwrap_or_default()))
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The command of a message of generic netlink, and its attributes.
    pub(crate) fn command(&self) -> Option<(u8, &'a [u8])> {
        let payload = &self.bytes[HEADER_LEN..];
        let attributes = payload.get(GENERIC_LEN..)?;
        Some((payload[0], attributes))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Why attributes are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// One says that it is longer than what holds it, or shorter than its header.
    Length(u16),
    /// One is not as long as its kind wants.
    Size { kind: u16, have: usize, want: usize },
    /// One is no text that ends with a zero or its length.
    Text(u16),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(kind) => {
                write!(f, "attribute {kind} is not within what holds it")
            }
            Self::Size { kind, have, want } => {
                write!(f, "attribute {kind} has {have} bytes, {want} are accepted")
            }
            Self::Text(kind) => write!(f, "attribute {kind} is no text"),
        }
    }
}

/// Attributes beside each other, each within its bounds. Of several of one kind the last counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn check(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let all = Self(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((_, _, next)) = split(rest) else {
                let kind = half(rest, 2).unwrap_or(0);
                return Err(Malformed::Length(kind & !TYPE_FLAGS));
            };
            rest = next;
        }
        Ok(all)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (kind, value, next) = split(rest)?;
            rest = next;
            Some((kind, value))
        })
    }

    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter()
            .filter(|(found, _)| *found == kind)
            .last()
            .map(|(_, value)| value)
    }

    pub(crate) fn has(self, kind: u16) -> bool {
        self.get(kind).is_some()
    }

    pub(crate) fn nest(self, kind: u16) -> Result<Option<Self>, Malformed> {
        self.get(kind).map(Self::check).transpose()
    }

    /// So many bytes.
    pub(crate) fn array<const N: usize>(self, kind: u16) -> Result<Option<[u8; N]>, Malformed> {
        let Some(value) = self.get(kind) else {
            return Ok(None);
        };
        match value.try_into() {
            Ok(array) => Ok(Some(array)),
            Err(_) => Err(Malformed::Size {
                kind,
                have: value.len(),
                want: N,
            }),
        }
    }

    pub(crate) fn number(self, kind: u16) -> Result<Option<u32>, Malformed> {
        Ok(self.array(kind)?.map(u32::from_ne_bytes))
    }

    /// A text, up to a zero.
    pub(crate) fn text(self, kind: u16) -> Result<Option<&'a str>, Malformed> {
        let Some(value) = self.get(kind) else {
            return Ok(None);
        };
        let end = value.iter().position(|byte| *byte == 0);
        let text = std::str::from_utf8(&value[..end.unwrap_or(value.len())]);
        text.map(Some).map_err(|_| Malformed::Text(kind))
    }
}

/// The first attribute, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (len, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
    let value = bytes.get(ATTRIBUTE_LEN..len)?;
    let next = bytes.get(len.next_multiple_of(ALIGNMENT)..);
    Some((kind & !TYPE_FLAGS, value, next.unwrap_or_default()))
}

/// Attributes being written.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.0.extend_from_slice(value));
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn flag_if(&mut self, condition: bool, kind: u16) {
        if condition {
            self.bytes(kind, &[]);
        }
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |writer| {
            writer.0.extend_from_slice(value.as_bytes());
            writer.0.push(0);
        });
    }

    pub(crate) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, write);
    }

    fn attribute(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; ATTRIBUTE_LEN]);
        write(self);
        // No text of the daemon is that long; one that were would be cut by whoever reads it.
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[start + 2..start + ATTRIBUTE_LEN].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A message with this payload.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + payload.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(ALIGNMENT));
    bytes.extend_from_slice(&(len as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&port.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(len.next_multiple_of(ALIGNMENT), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.text(1, "eth:eth0");
        writer.nest(2, |writer| {
            writer.number(3, 7);
            writer.flag_if(true, 4);
            writer.flag_if(false, 5);
        });
        let bytes = writer.into_bytes();
        let whole = message(
            30,
            flag::REQUEST,
            9,
            11,
            &[&[5, 1, 0, 0][..], &bytes].concat(),
        );
        let (message, rest) = Message::first(&whole).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            (message.kind, message.flags, message.sequence),
            (30, flag::REQUEST, 9)
        );
        let (command, attributes) = message.command().unwrap();
        assert_eq!(command, 5);
        let attributes = Attributes::check(attributes).unwrap();
        assert_eq!(attributes.text(1), Ok(Some("eth:eth0")));
        let nest = attributes.nest(2).unwrap().unwrap();
        assert_eq!(nest.number(3), Ok(Some(7)));
        assert!(nest.has(4) && !nest.has(5));
        assert_eq!(nest.iter().count(), 2);
    }

    #[test]
    fn attributes_that_are_too_long_or_too_short_are_refused() {
        for bytes in [
            &[1, 0, 9, 0][..],
            &[3, 0, 9, 0],
            &[9, 0, 9, 0, 1, 2, 3, 4],
            &[4, 0, 9, 0, 1],
        ] {
            let wrong = Attributes::check(bytes).unwrap_err();
            assert!(matches!(wrong, Malformed::Length(0 | 9)), "{wrong:?}");
        }
        let five = Attributes::check(&[9, 0, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0]).unwrap();
        let (have, want) = (5, 4);
        assert_eq!(
            five.number(1),
            Err(Malformed::Size {
                kind: 1,
                have,
                want
            })
        );
        assert_eq!(
            Attributes::check(&[5, 0, 1, 0, 255, 0, 0, 0])
                .unwrap()
                .text(1),
            Err(Malformed::Text(1))
        );
    }

    #[test]
    fn a_message_is_whole_or_none() {
        let whole = message(30, 0, 1, 2, &[1, 2, 3]);
        assert_eq!(whole.len(), 20);
        assert_eq!(Message::first(&whole).unwrap().0.bytes().len(), 19);
        assert_eq!(Message::first(&whole[..18]), None);
        assert_eq!(Message::first(&[15; 15]), None);
        let short = [&15u32.to_ne_bytes()[..], &[0; 20]].concat();
        assert_eq!(Message::first(&short), None);
        let two = [&whole[..], &whole].concat();
        let (_, rest) = Message::first(&two).unwrap();
        assert_eq!(rest, whole);
    }
}
