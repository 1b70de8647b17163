//! Ancillary data: `struct cmsghdr` and what follows it, as the kernel writes them.

use super::SOL_TIPC;

/// Bytes before the data: length, level, type.
const HEADER_LEN: usize = size_of::<usize>() + 8;

/// Writes ancillary data into the room a program gave for it.
pub(super) struct ControlWriter<'a> {
    room: &'a mut [u8],
    used: usize,
    /// Not all found room.
    pub(super) is_cut: bool,
}

impl<'a> ControlWriter<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self {
            room,
            used: 0,
            is_cut: false,
        }
    }

    /// Bytes written.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Adds data, cut to the room there is.
    pub(super) fn put(&mut self, kind: i32, data: &[u8]) {
        let room = &mut self.room[self.used..];
        if room.len() < HEADER_LEN {
            self.is_cut = true;
            return;
        }
        let mut len = HEADER_LEN + data.len();
        if len > room.len() {
            self.is_cut = true;
            len = room.len();
        }
        let length_len = size_of::<usize>();
        room[..length_len].copy_from_slice(&len.to_ne_bytes());
        room[length_len..length_len + 4].copy_from_slice(&SOL_TIPC.to_ne_bytes());
        room[length_len + 4..HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER_LEN..len].copy_from_slice(&data[..len - HEADER_LEN]);
        let aligned = len.next_multiple_of(size_of::<usize>());
        self.used += aligned.min(room.len());
    }

    /// Adds words in the byte order of the machine.
    pub(super) fn put_words<const N: usize>(&mut self, kind: i32, words: [u32; N]) {
        let mut bytes = [0; 16];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        self.put(kind, &bytes[..N * 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_cut_and_later_data_left_out() {
        let (errinfo, retdata) = ([2, 5], b"hello");
        // Room, bytes used, whether it was cut: as recorded of Linux.
        for (room, used, is_cut) in [
            (8, 0, true),
            (16, 16, true),
            (24, 24, true),
            (30, 24, true),
            (44, 44, true),
            (48, 48, false),
            (50, 48, false),
        ] {
            let mut bytes = vec![0xee; room];
            let mut control = ControlWriter::new(&mut bytes);
            control.put_words(1, errinfo);
            control.put(2, retdata);
            assert_eq!((control.used(), control.is_cut), (used, is_cut), "{room}");
            if room >= 24 {
                assert_eq!(bytes[..8], 24usize.to_ne_bytes());
                assert_eq!(
                    bytes[16..24],
                    [2u32.to_ne_bytes(), 5u32.to_ne_bytes()].concat()
                );
            }
        }
    }
}
