//! How often the bindings of service types have changed: words that the daemon alone writes, and every program that has
//! channels of datagrams looks at before each message to a service.
//!
//! Types share words: who sees a change of another one has gone to the daemon in vain. The daemon changes a word before
//! anybody can know of the binding, so who knows of it and sends sees the change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::area::{Area, make_memfd, seal_read_only, sealed_len};
use crate::generation;
use crate::primitive::AtomicU32;

const WORDS: usize = 1024;
const LEN: usize = WORDS * 4;

fn word(area: &Area, type_: u32) -> &AtomicU32 {
    area.word_at(type_ as usize % WORDS * 4)
}

/// The words, for the daemon.
#[derive(Debug)]
pub struct Board {
    area: Area,
    fd: OwnedFd,
}

impl Board {
    /// Makes one.
    pub fn create() -> io::Result<Self> {
        let fd = make_memfd("xtipc-board", LEN)?;
        let area = Area::map(fd.as_fd(), LEN, true)?;
        seal_read_only(fd.as_fd())?;
        Ok(Self { area, fd })
    }

    /// Something was bound to an instance of this type, or is no more.
    pub fn change(&self, type_: u32) {
        generation::change(word(&self.area, type_));
    }

    /// What [`BoardReader::generation`] gives now.
    pub fn generation(&self, type_: u32) -> u32 {
        generation::read(word(&self.area, type_))
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The same, for a program.
#[derive(Debug)]
pub struct BoardReader(Area);

impl BoardReader {
    /// Maps what the daemon sent.
    pub fn map(fd: &OwnedFd) -> io::Result<Self> {
        if sealed_len(fd)? != LEN {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(Area::map(fd.as_fd(), LEN, false)?))
    }

    /// Differs from what it was before a binding of this type changed.
    pub fn generation(&self, type_: u32) -> u32 {
        generation::read(word(&self.0, type_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_each_change_of_a_type_and_cannot_make_one() {
        let board = Board::create().expect("memory");
        let reader = BoardReader::map(&board.fd).expect("good memory");
        for type_ in [0, 64, 1023, 1024, u32::MAX] {
            let before = reader.generation(type_);
            board.change(type_);
            assert_ne!(reader.generation(type_), before);
            assert_eq!(reader.generation(type_), board.generation(type_));
        }
        assert!(Area::map(board.as_fd(), LEN, true).is_err(), "sealed");
        let wrong = make_memfd("wrong", LEN * 2).expect("memory");
        assert!(BoardReader::map(&wrong).is_err());
    }
}
