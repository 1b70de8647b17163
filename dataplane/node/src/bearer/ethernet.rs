//! The Ethernet header before a TIPC packet: written when sending, taken off when receiving.
//!
//! One optional 802.1Q tag; the numbers are in network byte order. See `docs/protocol/wire.md`.

/// TIPC's ethertype.
pub(super) const ETHERTYPE: u16 = 0x88ca;
const ETHERTYPE_VLAN: u16 = 0x8100;
const VLAN_ID_MASK: u16 = 0x0fff;

/// Bytes of the header without a tag.
pub(super) const HEADER_SIZE: usize = 14;
/// Bytes of an 802.1Q tag.
const TAG_SIZE: usize = 4;
/// Bytes of the longest header.
pub(super) const HEADER_SIZE_MAX: usize = HEADER_SIZE + TAG_SIZE;

/// A MAC address.
pub(super) type Mac = [u8; 6];

/// Everybody on the segment.
pub(super) const BROADCAST: Mac = [0xff; 6];

/// A header ready to be written.
pub(super) struct Header {
    bytes: [u8; HEADER_SIZE_MAX],
    len: usize,
}

impl Header {
    /// The header of a TIPC packet; VLAN 0 stands for no tag.
    pub(super) fn new(to: Mac, from: Mac, vlan: u16) -> Self {
        let mut bytes = [0; HEADER_SIZE_MAX];
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
        let len = header_size(vlan);
        if vlan != 0 {
            bytes[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
            bytes[14..16].copy_from_slice(&vlan.to_be_bytes());
        }
        bytes[len - 2..len].copy_from_slice(&ETHERTYPE.to_be_bytes());
        Self { bytes, len }
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Bytes of the header of a frame on this VLAN.
pub(super) fn header_size(vlan: u16) -> usize {
    if vlan == 0 {
        HEADER_SIZE
    } else {
        HEADER_SIZE_MAX
    }
}

/// A received frame, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Destination.
    pub(super) to: Mac,
    /// Source.
    pub(super) from: Mac,
    /// VLAN id of the tag in the frame; 0 without one.
    pub(super) vlan: u16,
    /// The TIPC packet, with the padding of a short frame behind it.
    pub(super) packet: &'a [u8],
}

impl<'a> Received<'a> {
    /// `None` for what is no whole header of a TIPC frame.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let (to, rest) = frame.split_first_chunk::<6>()?;
        let (from, rest) = rest.split_first_chunk::<6>()?;
        let (mut ethertype, mut packet) = number(rest)?;
        let mut vlan = 0;
        if ethertype == ETHERTYPE_VLAN {
            let (control, rest) = number(packet)?;
            vlan = control & VLAN_ID_MASK;
            (ethertype, packet) = number(rest)?;
        }
        (ethertype == ETHERTYPE).then_some(Self {
            to: *to,
            from: *from,
            vlan,
            packet,
        })
    }

    /// Whether a host with this address is among those it was sent to.
    pub(super) fn is_for(&self, own: Mac) -> bool {
        self.to == own || self.to[0] & 1 != 0
    }
}

/// The VLAN id in the control field of a tag.
pub(super) fn vlan_id(control: u16) -> u16 {
    control & VLAN_ID_MASK
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*first), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const PEER: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn a_header_is_read_as_it_was_written_with_and_without_a_tag() {
        for (vlan, size) in [(0, 14), (1, 18), (4094, 18)] {
            let header = Header::new(PEER, OWN, vlan);
            assert_eq!(header.as_bytes().len(), size);
            let frame = [header.as_bytes(), b"packet"].concat();
            let expected = Received {
                to: PEER,
                from: OWN,
                vlan,
                packet: b"packet",
            };
            assert_eq!(Received::parse(&frame), Some(expected));
        }
    }

    #[test]
    fn the_bytes_are_those_of_ethernet_ii_and_802_1q() {
        let untagged = [0xff, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xca];
        assert_eq!(Header::new(BROADCAST, OWN, 0).as_bytes(), untagged);
        let tagged = Header::new(BROADCAST, OWN, 0x123);
        assert_eq!(tagged.as_bytes()[12..], [0x81, 0, 0x01, 0x23, 0x88, 0xca]);
    }

    #[test]
    fn a_tag_that_carries_priority_only_counts_as_no_vlan() {
        let mut frame = Header::new(PEER, OWN, 7).as_bytes().to_vec();
        frame[14..16].copy_from_slice(&0xe000_u16.to_be_bytes());
        assert_eq!(Received::parse(&frame).unwrap().vlan, 0);
    }

    #[test]
    fn cut_and_foreign_frames_are_refused() {
        let whole = Header::new(PEER, OWN, 7);
        for len in 0..whole.as_bytes().len() {
            assert_eq!(Received::parse(&whole.as_bytes()[..len]), None, "{len}");
        }
        let mut ipv4 = Header::new(PEER, OWN, 0).as_bytes().to_vec();
        ipv4[12..14].copy_from_slice(&[8, 0]);
        assert_eq!(Received::parse(&ipv4), None);
    }

    #[test]
    fn only_own_and_group_addresses_are_for_this_host() {
        for (to, expected) in [
            (OWN, true),
            (BROADCAST, true),
            ([1, 0, 0x5e, 0, 0, 1], true),
            (PEER, false),
        ] {
            let header = Header::new(to, PEER, 0);
            let frame = Received::parse(header.as_bytes()).unwrap();
            assert_eq!(frame.is_for(OWN), expected, "{to:?}");
        }
    }
}
