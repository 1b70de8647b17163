//! How a NIC chooses the receive queue of a packet: its rules (`ethtool --show-ntuple`), and its hash of IP addresses.
//!
//! Asked and changed when a bearer is set up, never on the data path: the kernel takes its lock of all interfaces for it. A rule
//! stays until it is removed, whoever made it.

use crate::interface::{Asking, InterfaceError};
use rustix::io::{Errno, Result};
use std::mem::offset_of;

const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRULE: u32 = 0x2f;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
const ETHTOOL_GRXFHINDIR: u32 = 0x38;

const ETH_FLAG_NTUPLE: u32 = 1 << 27;
const UDP_V4_FLOW: u32 = 0x02;
const UDP_V6_FLOW: u32 = 0x06;
const ETHER_FLOW: u32 = 0x12;
/// The fields of [`Extension`] count.
const FLOW_EXT: u32 = 0x8000_0000;
const RXH_IP_SRC: u64 = 1 << 4;
/// The driver can choose a location itself.
const RX_CLS_LOC_SPECIAL: u64 = 0x8000_0000;
const RX_CLS_LOC_ANY: u32 = 0xffff_ffff;
const VLAN_ID_MASK: u16 = 0x0fff;

/// `struct ethhdr`, in the place of `union ethtool_flow_union`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: [u8; 2],
    rest: [u16; 19],
}

/// `struct ethtool_flow_ext`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extension {
    padding: [u8; 2],
    destination: [u8; 6],
    vlan_ethertype: [u8; 2],
    vlan_tag: [u8; 2],
    data: [u8; 8],
}

/// `struct ethtool_rx_flow_spec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FlowSpec {
    flow_type: u32,
    header: Header,
    extension: Extension,
    header_mask: Header,
    extension_mask: Extension,
    ring: u64,
    location: u32,
}

/// `struct ethtool_rxnfc`, up to the first location.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    command: u32,
    flow_type: u32,
    data: u64,
    spec: FlowSpec,
    rule_count: u32,
    location: u32,
}

// As a C compiler lays out linux/ethtool.h.
const _: () = assert!(size_of::<Header>() == 52);
const _: () = assert!(offset_of!(Header, ethertype) == 12);
const _: () = assert!(size_of::<Extension>() == 20);
const _: () = assert!(offset_of!(Extension, vlan_tag) == 10);
const _: () = assert!(offset_of!(FlowSpec, header) == 4);
const _: () = assert!(offset_of!(FlowSpec, extension) == 56);
const _: () = assert!(offset_of!(FlowSpec, header_mask) == 76);
const _: () = assert!(offset_of!(FlowSpec, extension_mask) == 128);
const _: () = assert!(offset_of!(FlowSpec, ring) == 152);
const _: () = assert!(offset_of!(FlowSpec, location) == 160);
const _: () = assert!(size_of::<FlowSpec>() == 168);
const _: () = assert!(offset_of!(Request, spec) == 16);
const _: () = assert!(offset_of!(Request, rule_count) == 184);
const _: () = assert!(offset_of!(Request, location) == 188);
const _: () = assert!(size_of::<Request>() == 192);

// A request with room for all locations is made of words: where in it are the size of the table, how many places are in use, and these.
const DATA_AT: usize = offset_of!(Request, data) / 4;
const RULE_COUNT_AT: usize = offset_of!(Request, rule_count) / 4;
const LOCATIONS_AT: usize = offset_of!(Request, location) / 4;

/// Frames of an ethertype go into a receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which frames.
    pub ethertype: u16,
    /// Only those on this VLAN; 0: the rule does not look at tags.
    pub vlan: u16,
    /// Only those whose sender's address has these bits in its last octet ..
    pub source: u8,
    /// .. of these bits; 0: from all senders.
    pub source_mask: u8,
    /// Where they go.
    pub queue: u32,
}

impl FlowSpec {
    fn of(rule: &Rule) -> Self {
        let mut spec = Self {
            flow_type: ETHER_FLOW,
            ring: rule.queue.into(),
            ..Self::default()
        };
        spec.header.ethertype = rule.ethertype.to_be_bytes();
        spec.header_mask.ethertype = [0xff; 2];
        spec.header.source[5] = rule.source;
        spec.header_mask.source[5] = rule.source_mask;
        if rule.vlan != 0 {
            spec.flow_type |= FLOW_EXT;
            spec.extension.vlan_tag = rule.vlan.to_be_bytes();
            spec.extension_mask.vlan_tag = VLAN_ID_MASK.to_be_bytes();
        }
        spec
    }

    /// The rule, if it is about an ethertype and what else a [`Rule`] may be about. Of fields that it does not look at
    /// drivers keep what they like.
    fn rule(&self) -> Option<Rule> {
        let extension_mask = match self.flow_type & FLOW_EXT {
            0 => Extension::default(),
            _ => self.extension_mask,
        };
        let vlan = match u16::from_be_bytes(extension_mask.vlan_tag) {
            0 => 0,
            _ => u16::from_be_bytes(self.extension.vlan_tag) & VLAN_ID_MASK,
        };
        let source_mask = self.header_mask.source[5];
        let rule = Rule {
            ethertype: u16::from_be_bytes(self.header.ethertype),
            vlan,
            source: self.header.source[5] & source_mask,
            source_mask,
            queue: u32::try_from(self.ring).ok()?,
        };
        let same = Self::of(&rule);
        let is_the_same = self.flow_type & !FLOW_EXT == ETHER_FLOW
            && self.header_mask == same.header_mask
            && extension_mask == same.extension_mask;
        is_the_same.then_some(rule)
    }
}

/// A place in use in a NIC's table of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub location: u32,
    /// What stands there; `None`: a rule of another kind.
    pub rule: Option<Rule>,
}

/// The table of rules of an interface. Devices without one answer [`Errno::OPNOTSUPP`].
pub struct RuleTable<'a>(Asking<'a>);

impl<'a> RuleTable<'a> {
    /// That of an interface of the caller's network namespace.
    pub fn of(interface: &'a str) -> std::result::Result<Self, InterfaceError> {
        Ok(Self(Asking::new(interface)?))
    }

    /// All that is in it.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let (locations, _) = self.locations()?;
        let mut entries = Vec::with_capacity(locations.len());
        for location in locations {
            let mut request = Request::about(ETHTOOL_GRXCLSRULE);
            request.spec.location = location;
            match self.0.ethtool(&mut request) {
                Ok(()) => entries.push(Entry {
                    location,
                    rule: request.spec.rule(),
                }),
                // Removed meanwhile.
                Err(Errno::NOENT | Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// Adds a rule, after those that are there if the table has an order, and tells where. A driver that cannot look at all of it
    /// may still take it, as another rule: [`Self::list`] tells.
    pub fn insert(&self, rule: &Rule) -> Result<u32> {
        let mut request = Request::about(ETHTOOL_SRXCLSRLINS);
        request.spec = FlowSpec::of(rule);
        request.spec.location = self.free_location()?;
        self.0.ethtool(&mut request)?;
        Ok(request.spec.location)
    }

    /// Removes what is at a location.
    pub fn remove(&self, location: u32) -> Result<()> {
        let mut request = Request::about(ETHTOOL_SRXCLSRLDEL);
        request.spec.location = location;
        self.0.ethtool(&mut request)
    }

    /// Whether rules are off for the interface, for good or until they are switched on (`ethtool -K IFACE ntuple on`).
    pub fn is_off(&self) -> bool {
        let mut value = [ETHTOOL_GFLAGS, 0];
        self.0.ethtool(&mut value).is_ok() && value[1] & ETH_FLAG_NTUPLE == 0
    }

    /// Over how many queues datagrams are spread by their senders' IP addresses.
    pub fn queues_by_hash(&self, ipv6: bool) -> Result<u32> {
        let mut request = Request::about(ETHTOOL_GRXFH);
        request.flow_type = if ipv6 { UDP_V6_FLOW } else { UDP_V4_FLOW };
        self.0.ethtool(&mut request)?;
        if request.data & RXH_IP_SRC == 0 {
            return Ok(1);
        }
        // `struct ethtool_rxfh_indir`: the size of the table, and the table; without room for it the size alone.
        let mut head = [ETHTOOL_GRXFHINDIR, 0];
        self.0.ethtool(&mut head)?;
        let mut table = vec![0; head.len() + head[1] as usize];
        table[..head.len()].copy_from_slice(&head);
        self.0.ethtool(table.as_mut_slice())?;
        let queues = &mut table[head.len()..];
        queues.sort_unstable();
        Ok(queues.chunk_by(|one, next| one == next).count() as u32)
    }

    fn count(&self) -> Result<Request> {
        let mut request = Request::about(ETHTOOL_GRXCLSRLCNT);
        self.0.ethtool(&mut request)?;
        Ok(request)
    }

    /// The places in use, and how many there are altogether.
    fn locations(&self) -> Result<(Vec<u32>, u32)> {
        let count = self.count()?.rule_count;
        let mut words = vec![0; LOCATIONS_AT + (count as usize).max(1)];
        words[0] = ETHTOOL_GRXCLSRLALL;
        words[RULE_COUNT_AT] = count;
        self.0.ethtool(words.as_mut_slice())?;
        // Fewer if some were removed meanwhile.
        let found = words[RULE_COUNT_AT].min(count) as usize;
        let size = words[DATA_AT];
        Ok((words[LOCATIONS_AT..][..found].to_vec(), size))
    }

    fn free_location(&self) -> Result<u32> {
        if self.count()?.data & RX_CLS_LOC_SPECIAL != 0 {
            return Ok(RX_CLS_LOC_ANY);
        }
        let (taken, size) = self.locations()?;
        let mut from_the_last = (0..size).rev();
        let free = from_the_last.find(|location| !taken.contains(location));
        free.ok_or(Errno::NOSPC)
    }
}

impl Request {
    fn about(command: u32) -> Self {
        Self {
            command,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        ethertype: 0x88ca,
        vlan: 0,
        source: 1,
        source_mask: 3,
        queue: 5,
    };

    #[test]
    fn a_rule_is_read_back_from_what_was_written() {
        for vlan in [0, 7, 4094] {
            let rule = Rule { vlan, ..RULE };
            assert_eq!(FlowSpec::of(&rule).rule(), Some(rule));
        }
        let any_source = Rule {
            source: 0,
            source_mask: 0,
            ..RULE
        };
        assert_eq!(FlowSpec::of(&any_source).rule(), Some(any_source));
    }

    #[test]
    fn what_a_driver_keeps_of_fields_that_do_not_count_makes_no_difference() {
        let mut spec = FlowSpec::of(&RULE);
        spec.header.destination = [9; 6];
        spec.header.source = [0xfd; 6];
        spec.extension_mask.data = [0xff; 8];
        spec.location = 15;
        assert_eq!(spec.rule(), Some(RULE));
        spec.extension_mask = Extension::default();
        spec.flow_type |= FLOW_EXT;
        assert_eq!(spec.rule(), Some(RULE));
    }

    #[test]
    fn rules_of_other_kinds_are_none_of_ours() {
        let with = |change: fn(&mut FlowSpec)| {
            let mut spec = FlowSpec::of(&RULE);
            change(&mut spec);
            spec.rule()
        };
        assert_eq!(with(|spec| spec.flow_type = UDP_V4_FLOW), None);
        assert_eq!(with(|spec| spec.header_mask.destination[0] = 1), None);
        assert_eq!(with(|spec| spec.header_mask.source[0] = 0xff), None);
        assert_eq!(with(|spec| spec.header_mask.ethertype = [0xff, 0]), None);
        assert_eq!(with(|spec| spec.header_mask.rest[18] = 1), None);
        // Frames that are dropped, or wake the host.
        assert_eq!(with(|spec| spec.ring = u64::MAX), None);
        assert_eq!(with(|spec| spec.ring = u64::MAX - 1), None);
        let by_priority = |spec: &mut FlowSpec| {
            spec.flow_type |= FLOW_EXT;
            spec.extension_mask.vlan_tag = [0xe0, 0];
        };
        assert_eq!(with(by_priority), None);
    }

    #[test]
    fn an_interface_without_rules_says_so() {
        let table = RuleTable::of("lo").unwrap();
        assert_eq!(table.list(), Err(Errno::OPNOTSUPP));
        assert_eq!(table.insert(&RULE), Err(Errno::OPNOTSUPP));
        assert_eq!(table.queues_by_hash(false), Err(Errno::OPNOTSUPP));
    }
}
