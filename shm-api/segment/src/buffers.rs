//! The daemon's private record of delivery buffers that are out with the application.

use crate::blocks::{BlockMap, Run};
use crate::daemon::Consumed;
use crate::delivery::{Meta, ReleaseKind};
use crate::handle::Handle;
use crate::request::PayloadPlace;
use crate::violation::Violation;

/// A buffer just taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) handle: Handle,
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

#[derive(Debug, Default)]
struct Record {
    meta: Meta,
    len: u32,
    run: Run,
    /// Order of delivery.
    number: u64,
    out: bool,
    consumed: bool,
    /// Its message was taken as unread; the application may have been about to consume it.
    taken: bool,
}

impl Record {
    fn unread(&self) -> Unread {
        Unread {
            meta: self.meta,
            place: PayloadPlace {
                offset: self.run.offset() as u32,
                len: self.len,
            },
            number: self.number,
        }
    }

    /// Notice that its message is read, or not.
    fn consumed(&self, read: bool) -> Consumed {
        Consumed {
            socket: self.meta.socket,
            cost: self.meta.cost,
            cookie: self.meta.cookie,
            read,
            count: 1,
        }
    }

    /// Whether its message can be one more of these.
    fn is_alike(&self, consumed: &Consumed) -> bool {
        let meta = &self.meta;
        meta.socket == consumed.socket
            && meta.cost == consumed.cost
            && meta.cookie == consumed.cookie
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// By the block where the buffer begins, as far as the arena was ever in use.
    records: Vec<Record>,
    blocks: BlockMap,
    out: usize,
    limit: usize,
    next_number: u64,
}

impl Buffers {
    pub(crate) fn new(limit: u32, arena_len: usize) -> Self {
        Self {
            records: Vec::new(),
            blocks: BlockMap::new(arena_len),
            out: 0,
            limit: limit as usize,
            next_number: 0,
        }
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }

    pub(crate) fn take(&mut self, meta: &Meta, len: usize) -> Option<Taken> {
        if self.out == self.limit {
            return None;
        }
        // Of an empty message too there is a record.
        let run = self.blocks.take(len.max(1))?;
        let number = self.next_number;
        let record = Record {
            meta: *meta,
            len: len as u32,
            run,
            number,
            out: true,
            consumed: false,
            taken: false,
        };
        let block = run.first() as usize;
        match self.records.get_mut(block) {
            Some(slot) => *slot = record,
            None => {
                self.records.resize_with(block, Record::default);
                self.records.push(record);
            }
        }
        self.out += 1;
        self.next_number += 1;
        Some(Taken {
            handle: Handle::new(run.first(), number),
            place: PayloadPlace {
                offset: run.offset() as u32,
                len: len as u32,
            },
        })
    }

    pub(crate) fn release(
        &mut self,
        handle: Handle,
        kind: ReleaseKind,
    ) -> Result<Released, Violation> {
        let record = find(&mut self.records, handle)?;
        let read = kind.contains(ReleaseKind::CONSUMED);
        let returned = kind.contains(ReleaseKind::RETURNED);
        if record.consumed && !returned && !std::mem::take(&mut record.taken) {
            return Err(Violation::Buffer {
                handle: handle.bits(),
            });
        }
        let consumed = (!record.consumed).then(|| record.consumed(read));
        record.consumed = true;
        if returned {
            record.out = false;
            let run = record.run;
            self.free(run, 1);
        }
        Ok(Released { consumed, returned })
    }

    /// Takes the buffers of messages back that were delivered one after the other, and used up.
    pub(crate) fn use_up(
        &mut self,
        first: Handle,
        count: u32,
        mut on_consumed: impl FnMut(Consumed),
    ) -> Result<(), Violation> {
        let mut handle = first;
        let mut violation = None;
        let mut freed = Run::empty_at(first.block() as u32);
        let mut used_up = 0;
        let mut consumed: Option<Consumed> = None;
        while used_up < count {
            let record = match find(&mut self.records, handle) {
                Ok(record) => record,
                Err(found) => {
                    violation = Some(found);
                    break;
                }
            };
            match &mut consumed {
                _ if record.consumed => {}
                Some(alike) if record.is_alike(alike) => alike.count += 1,
                _ => {
                    let before = consumed.replace(record.consumed(true));
                    before.into_iter().for_each(&mut on_consumed);
                }
            }
            record.out = false;
            // Behind a buffer of several blocks none begins at the next, and the next handle is found to be wrong.
            freed = freed.and(record.run);
            handle = handle.next();
            used_up += 1;
        }
        consumed.into_iter().for_each(on_consumed);
        self.free(freed, used_up as usize);
        violation.map_or(Ok(()), Err)
    }

    /// Takes a buffer back whose message the application keeps. `None`: the message was taken as unread before. The bytes
    /// are there until the next call.
    pub(crate) fn keep(&mut self, handle: Handle) -> Result<Option<Unread>, Violation> {
        let record = find(&mut self.records, handle)?;
        let taken = std::mem::take(&mut record.taken);
        if record.consumed && !taken {
            return Err(Violation::Buffer {
                handle: handle.bits(),
            });
        }
        record.out = false;
        let (unread, run) = (record.unread(), record.run);
        self.free(run, 1);
        Ok((!taken).then_some(unread))
    }

    fn free(&mut self, run: Run, buffers: usize) {
        self.blocks.give_back(run);
        self.out -= buffers;
    }

    /// Gives every buffer that is out and not consumed, and counts it as consumed.
    pub(crate) fn take_unread(&mut self, socket: Option<u32>) -> impl Iterator<Item = Unread> {
        let mut left = self.out;
        let out = self.records.iter_mut().map_while(move |record| {
            let more = left > 0;
            left -= usize::from(more && record.out);
            more.then_some(record)
        });
        let is_unread = move |record: &&mut Record| {
            record.out && !record.consumed && socket.is_none_or(|s| s == record.meta.socket)
        };
        out.filter(is_unread).map(|record| {
            record.consumed = true;
            record.taken = true;
            record.unread()
        })
    }
}

/// The record of a buffer that is out.
#[inline]
fn find(records: &mut [Record], handle: Handle) -> Result<&mut Record, Violation> {
    let block = handle.block();
    let record = records.get_mut(block);
    let is_meant =
        |record: &&mut Record| record.out && Handle::new(block as u32, record.number) == handle;
    record.filter(is_meant).ok_or(Violation::Buffer {
        handle: handle.bits(),
    })
}
