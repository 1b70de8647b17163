//! `setsockopt` and `getsockopt` (`docs/protocol/calls.md`, options and requests).

use std::time::Duration;

use xtipc_segment::{
    GroupFlags, Phase, Request, Scope, ServiceAddress, SocketKind, SocketState, option,
};

use super::{AF_TIPC, Errno, FIRST_USER_TYPE, Result, SOL_TIPC, Settings, Socket};
use crate::lock;

/// Obsolete: always 0.
const NODE_RECVQ_DEPTH: u32 = 131;
const GROUP_LEAVE: u32 = 136;
/// A receive buffer is twice what was asked for, as the kernel counts its own bookkeeping in.
const BUFFER_MIN: i32 = 2304;
const BUFFER_MAX: i32 = 16 << 20;
const SEND_BUFFER_MIN: i32 = 4608;
const TIMEVAL_LEN: usize = 16;

impl Socket {
    /// `setsockopt`; `None` is a null pointer, of which `len` says how long it is said to be.
    pub fn set_option(
        &self,
        level: i32,
        name: i32,
        value: Option<&[u8]>,
        len: usize,
    ) -> Result<()> {
        match level {
            SOL_TIPC => self.set_tipc_option(name as u32, value, len),
            libc::SOL_SOCKET => self.set_socket_option(name, value.unwrap_or_default()),
            libc::IPPROTO_TCP if self.kind == SocketKind::Stream => Ok(()),
            _ => Err(Errno(libc::ENOPROTOOPT)),
        }
    }

    fn set_tipc_option(&self, option: u32, value: Option<&[u8]>, len: usize) -> Result<()> {
        let invalid = Errno(libc::EINVAL);
        let value = match option {
            option::IMPORTANCE
            | option::SRC_DROPPABLE
            | option::DEST_DROPPABLE
            | option::CONN_TIMEOUT
            | option::NODELAY => number(value.unwrap_or_default())?,
            option::MCAST_BROADCAST | option::MCAST_REPLICAST | GROUP_LEAVE => match value {
                None if len == 0 => 1,
                _ => return Err(invalid),
            },
            option::GROUP_JOIN => return self.join(value.unwrap_or_default()),
            _ => return Err(invalid),
        };
        self.call(match option {
            GROUP_LEAVE => Request::LeaveGroup,
            _ => Request::SetOption { option, value },
        })
        .map(drop)
    }

    /// Joins a group: type, instance, scope and flags.
    fn join(&self, value: &[u8]) -> Result<()> {
        let words = value.first_chunk::<16>().ok_or(Errno(libc::EINVAL))?;
        let word = |at: usize| number(&words[at * 4..]);
        let [type_, instance, scope, flags] = [word(0)?, word(1)?, word(2)?, word(3)?];
        if type_ < FIRST_USER_TYPE {
            return Err(Errno(libc::EACCES));
        }
        let scope = match scope {
            0..=2 => Scope::Cluster,
            3 => Scope::Node,
            _ => return Err(Errno(libc::EINVAL)),
        };
        let address = ServiceAddress { type_, instance };
        let flags = GroupFlags::from_bits_truncate(flags);
        self.call(Request::JoinGroup {
            address,
            scope,
            flags,
        })
        .map(drop)
    }

    fn set_socket_option(&self, name: i32, value: &[u8]) -> Result<()> {
        match name {
            libc::SO_RCVTIMEO => lock(&self.settings).receive_timeout = time_limit(value)?,
            libc::SO_SNDTIMEO => lock(&self.settings).send_timeout = time_limit(value)?,
            libc::SO_RCVLOWAT => {
                let wanted = number(value)?.cast_signed();
                lock(&self.settings).receive_low_water = match wanted {
                    0 => 1,
                    ..0 => i32::MAX,
                    _ => wanted,
                };
            }
            libc::SO_RCVBUF => {
                let bytes = doubled(number(value)?).clamp(BUFFER_MIN, BUFFER_MAX);
                let bytes_wanted = bytes.cast_unsigned();
                self.call(Request::SetReceiveBuffer {
                    bytes: bytes_wanted,
                })?;
                lock(&self.settings).receive_buffer = bytes;
            }
            libc::SO_SNDBUF => {
                let bytes = doubled(number(value)?).clamp(SEND_BUFFER_MIN, BUFFER_MAX);
                lock(&self.settings).send_buffer = bytes;
            }
            libc::SO_REUSEADDR => lock(&self.settings).reuse_address = number(value)? != 0,
            _ => return Err(Errno(libc::ENOPROTOOPT)),
        }
        Ok(())
    }

    /// `getsockopt`: writes the value into `out`, gives its length.
    pub fn option(&self, level: i32, name: i32, out: &mut [u8]) -> Result<usize> {
        match level {
            SOL_TIPC => {
                let place = out.first_chunk_mut::<4>().ok_or(Errno(libc::EINVAL))?;
                *place = self.tipc_option(name as u32)?.to_ne_bytes();
                Ok(4)
            }
            libc::SOL_SOCKET => self.socket_option(name, out),
            libc::IPPROTO_TCP if self.kind == SocketKind::Stream => Ok(0),
            _ => Err(Errno(libc::ENOPROTOOPT)),
        }
    }

    fn tipc_option(&self, option: u32) -> Result<u32> {
        match option {
            NODE_RECVQ_DEPTH => Ok(0),
            _ => Ok(self.call(Request::GetOption { option })?[0] as u32),
        }
    }

    fn socket_option(&self, name: i32, out: &mut [u8]) -> Result<usize> {
        let settings = *lock(&self.settings);
        let value = match name {
            libc::SO_RCVTIMEO => return Ok(put(out, &timeval(settings.receive_timeout))),
            libc::SO_SNDTIMEO => return Ok(put(out, &timeval(settings.send_timeout))),
            libc::SO_ERROR => self.take_error().err().map_or(0, |error| error.0),
            libc::SO_ACCEPTCONN => {
                let [state, _] = self.call(Request::GetState)?;
                let phase = SocketState::from_bits_retain(state).phase();
                (phase == Phase::Listening).into()
            }
            _ => plain_option(self.kind, &settings, name)?,
        };
        Ok(put(out, &value.to_ne_bytes()))
    }
}

/// Options that need nobody to be asked.
fn plain_option(kind: SocketKind, settings: &Settings, name: i32) -> Result<i32> {
    Ok(match name {
        libc::SO_TYPE => kind as i32,
        libc::SO_DOMAIN => AF_TIPC,
        libc::SO_PROTOCOL => 0,
        libc::SO_RCVLOWAT => settings.receive_low_water,
        libc::SO_RCVBUF => settings.receive_buffer,
        libc::SO_SNDBUF => settings.send_buffer,
        libc::SO_REUSEADDR => settings.reuse_address.into(),
        _ => return Err(Errno(libc::ENOPROTOOPT)),
    })
}

fn number(value: &[u8]) -> Result<u32> {
    let bytes = value.first_chunk::<4>().ok_or(Errno(libc::EINVAL))?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn doubled(bytes: u32) -> i32 {
    i32::try_from(bytes).unwrap_or(0).saturating_mul(2)
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
