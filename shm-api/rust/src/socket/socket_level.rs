//! `setsockopt` and `getsockopt` of level SOL_SOCKET (`docs/protocol/calls.md`, options and requests). Most of them mean
//! nothing to a TIPC socket, which only keeps them.

use std::time::Duration;

use xtipc_segment::{Phase, Request, SocketKind, SocketState};

use super::options::number;
use super::{AF_TIPC, Errno, Result, Socket};
use crate::lock;

/// A receive buffer is twice what was asked for, as the kernel counts its own bookkeeping in.
const BUFFER_MIN: i32 = 2304;
const BUFFER_MAX: i32 = 16 << 20;
const SEND_BUFFER_MIN: i32 = 4608;
const TIMEVAL_LEN: usize = 16;
const LINGER_LEN: usize = 8;

/// What a kept option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// 0 or anything else, which then reads as 1.
    Flag,
    Number,
    /// At least 0.
    Unsigned,
}

/// Options that are kept and that change nothing, and what they are at first.
const KEPT: [(i32, Takes, i32); 13] = [
    (libc::SO_DEBUG, Takes::Flag, 0),
    (libc::SO_REUSEADDR, Takes::Flag, 0),
    (libc::SO_DONTROUTE, Takes::Flag, 0),
    (libc::SO_BROADCAST, Takes::Flag, 0),
    (libc::SO_KEEPALIVE, Takes::Flag, 0),
    (libc::SO_OOBINLINE, Takes::Flag, 0),
    (libc::SO_NO_CHECK, Takes::Flag, 0),
    (libc::SO_PASSCRED, Takes::Flag, 0),
    (libc::SO_RXQ_OVFL, Takes::Flag, 0),
    (libc::SO_PRIORITY, Takes::Number, 0),
    (libc::SO_MARK, Takes::Number, 0),
    (libc::SO_INCOMING_CPU, Takes::Number, -1),
    (libc::SO_BUSY_POLL, Takes::Unsigned, 0),
];

/// Which time stamps were asked for. TIPC gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamps {
    None,
    Micros,
    Nanos,
}

/// What the calls need to know and the daemon does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) receive_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    pub(super) receive_low_water: i32,
    send_buffer: i32,
    /// On or off, and seconds. Closing waits for nothing either way.
    linger: [u32; 2],
    stamps: Stamps,
    kept: [i32; KEPT.len()],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            receive_timeout: None,
            send_timeout: None,
            receive_low_water: 1,
            send_buffer: 212_992,
            linger: [0; 2],
            stamps: Stamps::None,
            kept: KEPT.map(|(_, _, initial)| initial),
        }
    }
}

impl Socket {
    pub(super) fn set_socket_option(&self, name: i32, value: &[u8]) -> Result<()> {
        let wanted = number(value)?.cast_signed();
        if let libc::SO_RCVBUF | libc::SO_RCVBUFFORCE = name {
            let bytes = doubled(wanted).clamp(BUFFER_MIN, BUFFER_MAX);
            self.call(Request::SetReceiveBuffer {
                bytes: bytes.cast_unsigned(),
            })?;
            return Ok(());
        }
        let mut settings = lock(&self.settings);
        match name {
            libc::SO_RCVTIMEO => settings.receive_timeout = time_limit(value)?,
            libc::SO_SNDTIMEO => settings.send_timeout = time_limit(value)?,
            libc::SO_RCVLOWAT => {
                settings.receive_low_water = match wanted {
                    0 => 1,
                    ..0 => i32::MAX,
                    _ => wanted,
                };
            }
            libc::SO_SNDBUF | libc::SO_SNDBUFFORCE => {
                settings.send_buffer = doubled(wanted).clamp(SEND_BUFFER_MIN, BUFFER_MAX);
            }
            libc::SO_LINGER => settings.linger = lingering(value, settings.linger)?,
            libc::SO_TIMESTAMP if wanted != 0 => settings.stamps = Stamps::Micros,
            libc::SO_TIMESTAMPNS if wanted != 0 => settings.stamps = Stamps::Nanos,
            libc::SO_TIMESTAMP | libc::SO_TIMESTAMPNS => settings.stamps = Stamps::None,
            libc::SO_BSDCOMPAT => {}
            // Only sockets of the internet families share ports.
            libc::SO_REUSEPORT if wanted == 0 => {}
            libc::SO_REUSEPORT | libc::SO_PEEK_OFF => return Err(Errno(libc::EOPNOTSUPP)),
            _ => settings.keep(name, wanted)?,
        }
        Ok(())
    }

    pub(super) fn socket_option(&self, name: i32, out: &mut [u8]) -> Result<usize> {
        let settings = *lock(&self.settings);
        let value = match name {
            libc::SO_RCVTIMEO => return Ok(put(out, &timeval(settings.receive_timeout))),
            libc::SO_SNDTIMEO => return Ok(put(out, &timeval(settings.send_timeout))),
            libc::SO_LINGER => {
                let [on, seconds] = settings.linger.map(u32::to_ne_bytes);
                return Ok(put(out, &[on, seconds].concat()));
            }
            libc::SO_ERROR => self.take_error().err().map_or(0, |error| error.0),
            libc::SO_RCVBUF => {
                let [_, bytes] = self.call(Request::GetState)?;
                i32::try_from(bytes).unwrap_or(i32::MAX)
            }
            libc::SO_ACCEPTCONN => {
                let [state, _] = self.call(Request::GetState)?;
                let phase = SocketState::from_bits_retain(state).phase();
                (phase == Phase::Listening).into()
            }
            _ => settings.get(self.kind, name)?,
        };
        Ok(put(out, &value.to_ne_bytes()))
    }
}

impl Settings {
    fn keep(&mut self, name: i32, wanted: i32) -> Result<()> {
        let (at, takes) = kept(name).ok_or(Errno(libc::ENOPROTOOPT))?;
        self.kept[at] = match takes {
            Takes::Flag => (wanted != 0).into(),
            Takes::Unsigned if wanted < 0 => return Err(Errno(libc::EINVAL)),
            Takes::Number | Takes::Unsigned => wanted,
        };
        Ok(())
    }

    fn get(&self, kind: SocketKind, name: i32) -> Result<i32> {
        Ok(match name {
            libc::SO_TYPE => kind as i32,
            libc::SO_DOMAIN => AF_TIPC,
            libc::SO_PROTOCOL | libc::SO_BSDCOMPAT | libc::SO_REUSEPORT => 0,
            libc::SO_RCVLOWAT => self.receive_low_water,
            libc::SO_SNDLOWAT => 1,
            libc::SO_SNDBUF => self.send_buffer,
            libc::SO_TIMESTAMP => (self.stamps == Stamps::Micros).into(),
            libc::SO_TIMESTAMPNS => (self.stamps == Stamps::Nanos).into(),
            libc::SO_PEEK_OFF => return Err(Errno(libc::EOPNOTSUPP)),
            _ => self.kept[kept(name).ok_or(Errno(libc::ENOPROTOOPT))?.0],
        })
    }
}

/// Where a kept option is, and what it takes.
fn kept(name: i32) -> Option<(usize, Takes)> {
    let at = KEPT.iter().position(|(kept, _, _)| *kept == name)?;
    Some((at, KEPT[at].1))
}

/// `struct linger`. Switched off, it keeps its time.
fn lingering(value: &[u8], before: [u32; 2]) -> Result<[u32; 2]> {
    let bytes = value
        .first_chunk::<LINGER_LEN>()
        .ok_or(Errno(libc::EINVAL))?;
    let [on, seconds] = [number(&bytes[..4])?, number(&bytes[4..])?];
    Ok(match on {
        0 => [0, before[1]],
        _ => [1, seconds],
    })
}

fn doubled(bytes: i32) -> i32 {
    bytes.max(0).saturating_mul(2)
}

/// `struct timeval`; 0 is no limit.
fn time_limit(value: &[u8]) -> Result<Option<Duration>> {
    let bytes = value
        .first_chunk::<TIMEVAL_LEN>()
        .ok_or(Errno(libc::EINVAL))?;
    let half = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        i64::from_ne_bytes(word)
    };
    let (seconds, micros) = (half(0), half(8));
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno(libc::EDOM));
    }
    // A negative limit is one that is over at once.
    let limit = match u64::try_from(seconds) {
        Ok(seconds) => Duration::new(seconds, micros as u32 * 1000),
        Err(_) => return Ok(Some(Duration::ZERO)),
    };
    Ok((!limit.is_zero()).then_some(limit))
}

fn timeval(limit: Option<Duration>) -> [u8; TIMEVAL_LEN] {
    let limit = limit.unwrap_or_default();
    let mut bytes = [0; TIMEVAL_LEN];
    bytes[..8].copy_from_slice(&limit.as_secs().to_ne_bytes());
    bytes[8..].copy_from_slice(&i64::from(limit.subsec_micros()).to_ne_bytes());
    bytes
}

/// Cut to the room there is, as the kernel does with options of this level.
fn put(out: &mut [u8], value: &[u8]) -> usize {
    let len = value.len().min(out.len());
    out[..len].copy_from_slice(&value[..len]);
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_reads_as_it_was_written_and_0_is_none() {
        let limits = [0, 1, 999, 1000, 1500, 86_400_000].map(Duration::from_millis);
        for limit in limits {
            let wanted = (!limit.is_zero()).then_some(limit);
            assert_eq!(time_limit(&timeval(wanted)), Ok(wanted));
        }
        assert_eq!(time_limit(&[0; 15]), Err(Errno(libc::EINVAL)));
        let million = [[0; 8], 1_000_000i64.to_ne_bytes()].concat();
        assert_eq!(time_limit(&million), Err(Errno(libc::EDOM)));
        let negative = [(-1i64).to_ne_bytes(), [0; 8]].concat();
        assert_eq!(time_limit(&negative), Ok(Some(Duration::ZERO)));
    }
}
