//! Sending (`docs/protocol/calls.md`, sending).

use std::sync::atomic::Ordering;

use xtipc_segment::{Destination, MESSAGE_LEN_MAX, PayloadPlace, Request, SendFlags, SocketKind};

use super::{Errno, RawAddress, Result, Socket, errno, is_connected_kind};
use crate::attachment::Patience;
use crate::{Error, lock};

impl Socket {
    /// `sendto` with an address, by its bytes, or `send`. Of the flags only `MSG_DONTWAIT` has a meaning.
    pub fn send(&self, data: &[u8], flags: i32, address: Option<&[u8]>) -> Result<usize> {
        if !is_connected_kind(self.kind) {
            let destination = check(data, address)?;
            self.submit(data, flags, destination)?;
            return Ok(data.len());
        }
        if self.is_fresh() && address.is_some() {
            return self.connect_with(data, flags, address);
        }
        match self.kind {
            SocketKind::Stream if data.len() > MESSAGE_LEN_MAX => self.send_parts(data, flags),
            _ => {
                check(data, None)?;
                self.submit(data, flags, None)?;
                Ok(data.len())
            }
        }
    }

    /// A stream sends more than a message holds in several, as far as there is room.
    fn send_parts(&self, data: &[u8], flags: i32) -> Result<usize> {
        let mut sent = 0;
        for part in data.chunks(MESSAGE_LEN_MAX) {
            match self.submit(part, flags, None) {
                Ok(()) => sent += part.len(),
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// The first message, with an address, asks for a connection. If it may wait it does so for the outcome, which it
    /// does not tell.
    fn connect_with(&self, data: &[u8], flags: i32, address: Option<&[u8]>) -> Result<usize> {
        let destination = check(data, address)?;
        self.submit(data, flags, destination)?;
        self.fresh.store(false, Ordering::Relaxed);
        if self.waits(flags) && !data.is_empty() {
            let request = Request::Connect {
                flags: SendFlags::empty(),
                destination: None,
            };
            let patience = Patience::lasting(lock(&self.settings).send_timeout).of_system_call();
            match self.attachment.call_within(self.id, request, patience) {
                Ok(Ok(_)) | Err(Error::Interrupted) => {}
                Ok(Err(_)) => drop(self.take_error()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(data.len())
    }

    fn submit(&self, data: &[u8], flags: i32, destination: Option<Destination>) -> Result<()> {
        let request = |payload: PayloadPlace, flags: SendFlags| Request::Send {
            flags,
            destination,
            payload,
        };
        let patience = if self.waits(flags) {
            Patience::lasting(lock(&self.settings).send_timeout).of_system_call()
        } else {
            Patience::None
        };
        let attachment = &self.attachment;
        let result = match is_connected_kind(self.kind) {
            false => attachment.send_datagram(self.id, data, destination, patience)?,
            true if destination.is_none() => {
                attachment.send_connected(self.id, data, request, patience)?
            }
            true => attachment.send(self.id, data, request, patience)?,
        };
        match result {
            0.. => Ok(()),
            // The error that made the connection end comes before the consequence.
            result if result == -libc::EPIPE => self.take_error().and(Err(Errno(libc::EPIPE))),
            result => Err(errno(result)),
        }
    }
}

fn check(data: &[u8], address: Option<&[u8]>) -> Result<Option<Destination>> {
    if data.len() > MESSAGE_LEN_MAX {
        return Err(Errno(libc::EMSGSIZE));
    }
    let address = address.map(RawAddress::parse).transpose()?;
    Ok(address.map(|address| address.name.into()))
}
