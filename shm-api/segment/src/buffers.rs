//! The daemon's private record of delivery buffers that are out with the application.

use crate::blocks::{BlockMap, Run};
use crate::daemon::Consumed;
use crate::delivery::{Meta, ReleaseKind};
use crate::request::PayloadPlace;
use crate::violation::Violation;

/// A buffer just taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) handle: u32,
    pub(crate) place: PayloadPlace,
}

/// A message whose buffer is given back although nobody has read it.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) meta: Meta,
    pub(crate) place: PayloadPlace,
    /// Order of delivery.
    pub(crate) number: u64,
}

/// Effect of one release entry.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) consumed: Option<Consumed>,
    pub(crate) returned: bool,
}

#[derive(Debug)]
struct Record {
    meta: Meta,
    place: PayloadPlace,
    run: Run,
    /// Order of delivery.
    number: u64,
    /// Upper half of the handle: an entry for an earlier use of the record is a violation.
    generation: u16,
    out: bool,
    consumed: bool,
    /// Its message was taken as unread; the application may have been about to consume it.
    taken: bool,
}

/// Grows with the number of buffers out at once, up to the limit.
#[derive(Debug)]
pub(crate) struct Buffers {
    records: Vec<Record>,
    free: Vec<u16>,
    blocks: BlockMap,
    limit: usize,
    next_number: u64,
}

impl Buffers {
    /// `limit` is at most 2^16: a handle carries the record in 16 bits.
    pub(crate) fn new(limit: u32, arena_len: usize) -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            blocks: BlockMap::new(arena_len),
            limit: limit as usize,
            next_number: 0,
        }
    }

    pub(crate) fn out(&self) -> usize {
        self.records.len() - self.free.len()
    }

    pub(crate) fn take(&mut self, meta: &Meta, len: usize) -> Option<Taken> {
        if self.free.is_empty() && self.records.len() == self.limit {
            return None;
        }
        let run = self.blocks.take(len)?;
        let place = PayloadPlace {
            offset: run.offset() as u32,
            len: len as u32,
        };
        let number = self.next_number;
        self.next_number += 1;
        let (index, generation) = match self.free.pop() {
            Some(index) => (index, self.records[usize::from(index)].generation),
            None => (self.records.len() as u16, 0),
        };
        let record = Record {
            meta: *meta,
            place,
            run,
            number,
            generation,
            out: true,
            consumed: false,
            taken: false,
        };
        match self.records.get_mut(usize::from(index)) {
            Some(slot) => *slot = record,
            None => self.records.push(record),
        }
        Some(Taken {
            handle: u32::from(generation) << 16 | u32::from(index),
            place,
        })
    }

    pub(crate) fn release(
        &mut self,
        handle: u32,
        kind: ReleaseKind,
    ) -> Result<Released, Violation> {
        let index = self.find(handle)?;
        let record = &mut self.records[usize::from(index)];
        let read = kind.contains(ReleaseKind::CONSUMED);
        let returned = kind.contains(ReleaseKind::RETURNED);
        if record.consumed && !returned && !std::mem::take(&mut record.taken) {
            return Err(Violation::Buffer { handle });
        }
        let consumed = (!record.consumed).then_some(Consumed {
            socket: record.meta.socket,
            cost: record.meta.cost,
            cookie: record.meta.cookie,
            read,
        });
        record.consumed = true;
        if returned {
            self.free(index);
        }
        Ok(Released { consumed, returned })
    }

    /// Takes a buffer back whose message the application keeps. `None`: the message was taken as unread before. The bytes
    /// are there until the next call.
    pub(crate) fn keep(&mut self, handle: u32) -> Result<Option<Unread>, Violation> {
        let index = self.find(handle)?;
        let record = &mut self.records[usize::from(index)];
        let taken = std::mem::take(&mut record.taken);
        if record.consumed && !taken {
            return Err(Violation::Buffer { handle });
        }
        let unread = Unread {
            meta: record.meta,
            place: record.place,
            number: record.number,
        };
        self.free(index);
        Ok((!taken).then_some(unread))
    }

    /// The record of a buffer that is out.
    fn find(&self, handle: u32) -> Result<u16, Violation> {
        let (index, generation) = (handle as u16, (handle >> 16) as u16);
        let record = self.records.get(usize::from(index));
        match record.filter(|record| record.out && record.generation == generation) {
            Some(_) => Ok(index),
            None => Err(Violation::Buffer { handle }),
        }
    }

    fn free(&mut self, index: u16) {
        let record = &mut self.records[usize::from(index)];
        record.out = false;
        record.generation = record.generation.wrapping_add(1);
        self.blocks.give_back(record.run);
        self.free.push(index);
    }

    /// Gives every buffer that is out and not consumed, and counts it as consumed.
    pub(crate) fn take_unread(&mut self, socket: Option<u32>) -> impl Iterator<Item = Unread> {
        let is_unread = move |record: &&mut Record| {
            record.out && !record.consumed && socket.is_none_or(|s| s == record.meta.socket)
        };
        self.records.iter_mut().filter(is_unread).map(|record| {
            record.consumed = true;
            record.taken = true;
            Unread {
                meta: record.meta,
                place: record.place,
                number: record.number,
            }
        })
    }
}
