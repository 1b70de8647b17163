//! Byte layout of the two areas. All numbers are in the machine's byte order: both sides run on it.
//!
//! ```text
//! application area (the application writes)     daemon area (the daemon writes; the application maps it read-only)
//!      0  Header                                     0  Header (a copy; this one the application checks and uses)
//!   1024  sleep word of the application           1024  sleep word of the daemon
//!   1152  submission tail                         1152  submission head
//!   1280  completion head                         1280  completion tail
//!   1408  delivery head                           1408  delivery tail
//!   1536  release tail                            1536  release head
//!                                                 1664  where the daemon serves this segment
//!                                                 1792  1: messages wait for delivery memory
//!                                                 2048  path states (32 of 64 bytes)
//!   4096  submission ring  (64-byte entries)      4096  completion ring (32-byte entries)
//!      …  release ring     ( 8-byte entries)         …  delivery ring   (64-byte entries)
//!      …  submission arena (page aligned)            …  delivery arena  (page aligned)
//! ```
//!
//! Words that are written by different sides never share 128 bytes (two lines: the adjacent-line prefetcher).
//! Positions of rings and arenas are to be taken from the header; later versions may insert regions, and a reader
//! takes no region it does not know.

use std::mem::{offset_of, size_of};

/// First bytes of both areas.
pub const MAGIC: [u8; 8] = *b"XTIPCSEG";
/// Version of the layout and of the entries. Sides of different versions refuse each other.
pub const VERSION: u32 = 10;

/// Words of a submission entry.
pub(crate) const SUBMISSION_WORDS: usize = 8;
/// Words of a completion entry.
pub(crate) const COMPLETION_WORDS: usize = 4;
/// Words of a delivery entry.
pub(crate) const DELIVERY_WORDS: usize = 8;
/// Words of a release entry.
pub(crate) const RELEASE_WORDS: usize = 1;

const PAGE: u32 = 4096;
/// Path states, in the daemon area.
pub(crate) const PATHS: RingPlace = RingPlace {
    offset: 2048,
    entries: crate::path::PATHS_MAX,
    entry_size: crate::snapshot::SNAPSHOT_WORDS as u32 * 8,
};
const FIRST_WORD: usize = 1024;
const WORD_DISTANCE: usize = 128;

/// In [`Word::Processor`], besides the number: the daemon's worker is in SCHED_IDLE.
pub(crate) const IDLE_CLASS: u32 = 1 << 31;

/// The shared words at the start of each area, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Word {
    Sleep = 0,
    Submission = 1,
    Completion = 2,
    Delivery = 3,
    Release = 4,
    Processor = 5,
    Crowded = 6,
}

impl Word {
    pub(crate) const fn offset(self) -> usize {
        FIRST_WORD + self as usize * WORD_DISTANCE
    }
}

/// Place of a ring in its area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RingPlace {
    /// Byte offset of the first entry.
    pub offset: u32,
    /// Number of entries, a power of two.
    pub entries: u32,
    /// Bytes per entry.
    pub entry_size: u32,
}

/// Place of an arena in its area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ArenaPlace {
    /// Byte offset of the first byte.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// Start of each area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// Size of this structure.
    pub header_size: u32,
    /// Length of the application area.
    pub application_len: u32,
    /// Length of the daemon area.
    pub daemon_len: u32,
    /// Submission ring, in the application area.
    pub submissions: RingPlace,
    /// Release ring, in the application area.
    pub releases: RingPlace,
    /// Submission arena, in the application area.
    pub submission_arena: ArenaPlace,
    /// Completion ring, in the daemon area.
    pub completions: RingPlace,
    /// Delivery ring, in the daemon area.
    pub deliveries: RingPlace,
    /// Delivery arena, in the daemon area.
    pub delivery_arena: ArenaPlace,
}

const _: () = {
    assert!(size_of::<RingPlace>() == 12);
    assert!(size_of::<ArenaPlace>() == 8);
    assert!(size_of::<Header>() == 88);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, application_len) == 16);
    assert!(offset_of!(Header, submissions) == 24);
    assert!(offset_of!(Header, releases) == 36);
    assert!(offset_of!(Header, submission_arena) == 48);
    assert!(offset_of!(Header, completions) == 56);
    assert!(offset_of!(Header, deliveries) == 68);
    assert!(offset_of!(Header, delivery_arena) == 80);
    assert!(size_of::<Header>() <= FIRST_WORD);
    assert!(Word::Crowded.offset() + WORD_DISTANCE <= PATHS.offset as usize);
    assert!(PATHS.offset + PATHS.entries * PATHS.entry_size <= PAGE);
};

/// How large to make a segment. Memory is taken from the machine only as it is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of the submission ring; the completion ring has twice as many. A power of two, 2 to 65,536.
    pub submissions: u32,
    /// Entries of the delivery ring, and limit of messages in the delivery arena at once; the release ring has twice
    /// as many entries. A power of two, 2 to 65,536.
    pub deliveries: u32,
    /// Bytes of the submission arena: a multiple of 4096, 128 KiB to 1 GiB.
    pub submission_arena: u32,
    /// Bytes of the delivery arena: a multiple of 4096, 128 KiB to 1 GiB.
    pub delivery_arena: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            submissions: 1024,
            deliveries: 4096,
            submission_arena: 2 << 20,
            delivery_arena: 4 << 20,
        }
    }
}

/// A segment cannot have this size or this header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A ring has an impossible number of entries.
    #[error("{ring} ring of {entries} entries: must be a power of two from 2 to 131072")]
    Ring {
        /// Which ring.
        ring: &'static str,
        /// Entries asked for.
        entries: u32,
    },
    /// An arena has an impossible length.
    #[error("{arena} arena of {len} bytes: must be a multiple of 4096 from 128 KiB to 1 GiB")]
    Arena {
        /// Which arena.
        arena: &'static str,
        /// Bytes asked for.
        len: u32,
    },
    /// The memory does not start with the magic.
    #[error("not an xtipc segment: it starts with {0:?}")]
    Magic([u8; 8]),
    /// The memory has another layout.
    #[error("segment layout version {found}, this library knows version {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A region lies outside its area, or its entries have another size.
    #[error("{region} does not fit its area")]
    Region {
        /// Which region.
        region: &'static str,
    },
}

const ARENA_MIN: u32 = 128 << 10;
const ARENA_MAX: u32 = 1 << 30;
/// Twice the largest ring that can be asked for.
const ENTRIES_MAX: u32 = 1 << 17;

fn check_entries(ring: &'static str, entries: u32) -> Result<(), LayoutError> {
    if !entries.is_power_of_two() || !(2..=ENTRIES_MAX).contains(&entries) {
        return Err(LayoutError::Ring { ring, entries });
    }
    Ok(())
}

fn check_arena(arena: &'static str, len: u32) -> Result<(), LayoutError> {
    if !len.is_multiple_of(PAGE) || !(ARENA_MIN..=ARENA_MAX).contains(&len) {
        return Err(LayoutError::Arena { arena, len });
    }
    Ok(())
}

impl Header {
    /// Lays out the two areas.
    pub(crate) fn lay_out(sizes: &Sizes) -> Result<Self, LayoutError> {
        check_arena("submission", sizes.submission_arena)?;
        check_arena("delivery", sizes.delivery_arena)?;
        for (ring, entries) in [
            ("submission", sizes.submissions),
            ("delivery", sizes.deliveries),
        ] {
            // The rings of twice this size must be possible too.
            check_entries(ring, entries.saturating_mul(2))?;
            check_entries(ring, entries)?;
        }
        let ring = |offset: u32, entries: u32, words: usize| RingPlace {
            offset,
            entries,
            entry_size: words as u32 * 8,
        };
        let end = |place: RingPlace| place.offset + place.entries * place.entry_size;
        let page_up = |at: u32| at.next_multiple_of(PAGE);

        let submissions = ring(PAGE, sizes.submissions, SUBMISSION_WORDS);
        let releases = ring(
            end(submissions).next_multiple_of(128),
            sizes.deliveries * 2,
            RELEASE_WORDS,
        );
        let submission_arena = ArenaPlace {
            offset: page_up(end(releases)),
            len: sizes.submission_arena,
        };
        let completions = ring(PAGE, sizes.submissions * 2, COMPLETION_WORDS);
        let deliveries = ring(
            end(completions).next_multiple_of(128),
            sizes.deliveries,
            DELIVERY_WORDS,
        );
        let delivery_arena = ArenaPlace {
            offset: page_up(end(deliveries)),
            len: sizes.delivery_arena,
        };
        Ok(Self {
            magic: MAGIC,
            version: VERSION,
            header_size: size_of::<Self>() as u32,
            application_len: submission_arena.offset + submission_arena.len,
            daemon_len: delivery_arena.offset + delivery_arena.len,
            submissions,
            releases,
            submission_arena,
            completions,
            deliveries,
            delivery_arena,
        })
    }

    /// Checks a header that the other side wrote, so that every region can be used without further checks.
    pub(crate) fn check(
        &self,
        application_len: usize,
        daemon_len: usize,
    ) -> Result<(), LayoutError> {
        if self.magic != MAGIC {
            return Err(LayoutError::Magic(self.magic));
        }
        if self.version != VERSION {
            return Err(LayoutError::Version {
                found: self.version,
            });
        }
        if self.application_len as usize != application_len
            || self.daemon_len as usize != daemon_len
        {
            return Err(LayoutError::Region { region: "header" });
        }
        let rings = [
            (
                "submission",
                self.submissions,
                application_len,
                SUBMISSION_WORDS,
            ),
            ("release", self.releases, application_len, RELEASE_WORDS),
            ("completion", self.completions, daemon_len, COMPLETION_WORDS),
            ("delivery", self.deliveries, daemon_len, DELIVERY_WORDS),
        ];
        for (region, place, area, words) in rings {
            check_entries(region, place.entries)?;
            let end = place.offset as usize + place.entries as usize * words * 8;
            if place.entry_size as usize != words * 8
                || place.offset < PAGE
                || !place.offset.is_multiple_of(128)
                || end > area
            {
                return Err(LayoutError::Region { region });
            }
        }
        let arenas = [
            ("submission arena", self.submission_arena, application_len),
            ("delivery arena", self.delivery_arena, daemon_len),
        ];
        for (region, place, area) in arenas {
            check_arena(region, place.len)?;
            if !place.offset.is_multiple_of(PAGE)
                || place.offset < PAGE
                || place.offset as usize + place.len as usize > area
            {
                return Err(LayoutError::Region { region });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_layout_is_the_documented_one() {
        let header = Header::lay_out(&Sizes::default()).expect("default sizes");
        assert_eq!(header.submissions.offset, 4096);
        assert_eq!(header.releases.offset, 4096 + 1024 * 64);
        assert_eq!(header.submission_arena.offset, 4096 + 1024 * 64 + 8192 * 8);
        assert_eq!(header.completions.offset, 4096);
        assert_eq!(header.deliveries.offset, 4096 + 2048 * 32);
        assert_eq!(header.delivery_arena.offset, 4096 + 2048 * 32 + 4096 * 64);
        assert_eq!(Word::Sleep.offset(), 1024);
        assert_eq!(Word::Release.offset(), 1536);
        assert_eq!(Word::Processor.offset(), 1664);
        assert_eq!(
            header.check(header.application_len as usize, header.daemon_len as usize),
            Ok(())
        );
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_accepted_ones() {
        let odd = Sizes {
            submissions: 1000,
            ..Sizes::default()
        };
        let error = Header::lay_out(&odd).expect_err("not a power of two");
        assert!(error.to_string().contains("power of two"), "{error}");
        let huge = Sizes {
            deliveries: 1 << 17,
            ..Sizes::default()
        };
        assert!(Header::lay_out(&huge).is_err());
        let small = Sizes {
            delivery_arena: 4096,
            ..Sizes::default()
        };
        let error = Header::lay_out(&small).expect_err("no message fits");
        assert!(error.to_string().contains("128 KiB"), "{error}");
    }

    proptest! {
        #[test]
        fn a_header_with_any_field_changed_is_refused_or_stays_inside_its_areas(
            field in 0usize..22, value in any::<u32>(),
        ) {
            let good = Header::lay_out(&Sizes::default()).expect("default sizes");
            let (application_len, daemon_len) = (good.application_len as usize, good.daemon_len as usize);
            let mut changed = good;
            let places = [
                &mut changed.version,
                &mut changed.application_len,
                &mut changed.daemon_len,
                &mut changed.submissions.offset,
                &mut changed.submissions.entries,
                &mut changed.submissions.entry_size,
                &mut changed.releases.offset,
                &mut changed.releases.entries,
                &mut changed.releases.entry_size,
                &mut changed.submission_arena.offset,
                &mut changed.submission_arena.len,
                &mut changed.completions.offset,
                &mut changed.completions.entries,
                &mut changed.completions.entry_size,
                &mut changed.deliveries.offset,
                &mut changed.deliveries.entries,
                &mut changed.deliveries.entry_size,
                &mut changed.delivery_arena.offset,
                &mut changed.delivery_arena.len,
            ];
            let count = places.len();
            *places.into_iter().nth(field % count).expect("in range") = value;
            if changed.check(application_len, daemon_len).is_ok() {
                let end = |place: RingPlace| {
                    place.offset as usize + place.entries as usize * place.entry_size as usize
                };
                prop_assert!(end(changed.submissions) <= application_len);
                prop_assert!(end(changed.releases) <= application_len);
                prop_assert!(end(changed.completions) <= daemon_len);
                prop_assert!(end(changed.deliveries) <= daemon_len);
            }
        }
    }
}
