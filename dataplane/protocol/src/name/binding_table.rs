//! The binding table: who serves which service range, in this cluster as this node knows it.
//!
//! Owned by the engine. Rules of `docs/protocol/names.md`, as Linux applies
//! them:
//!
//! * ranges of a service are searched in *table order* (see `range_tree`), and anycast uses only
//!   the first that qualifies;
//! * each range has a list of all its publications and one of the own node's; a new publication
//!   becomes the head of both, a lookup takes the head and moves it to the tail, and the two rotate
//!   independently;
//! * publications of one origin are kept in the order made or learned: the own ones are the bulk,
//!   those of a peer go in that order when the peer is lost.
//!
//! What is let in at all is decided in `admission`, more strictly than by Linux.
//!
//! Domains in the legacy Z.C.N format (whole zone, whole cluster) have no meaning here: an address
//! names one node.
//!
//! Lookups cost O(log ranges + matches) and allocate nothing once the two result buffers have
//! grown to what the bindings need.

use super::admission::{Limits, PublishError, counts_for_own_limit};
use super::range_tree::{Overlap, Ranges, Reach};
use super::storage::{Binding, Chain, Links, List};
use super::{Publication, Scope, ServiceRange};
use crate::slab::{NIL, Slab};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::HashTable;
use std::cmp::Reverse;
use std::hash::{Hash, Hasher};

/// Origin of the own publications, whatever number the node has.
const OWN: u32 = 0;

/// What publishing or withdrawing changed, for the topology service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The publication added or removed.
    pub publication: Publication,
    /// Larger for a publication made or learned later; unique in this table.
    pub id: u64,
    /// It is the first, or was the last, of its exact range: what a subscription without PORTS
    /// reports.
    pub range_edge: bool,
}

/// Answer to an anycast lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Send to this socket.
    Found {
        /// Its port.
        port: u32,
        /// Its node.
        node: u32,
    },
    /// Send to port 0 of this node: it does the lookup (lookup scope node in the header).
    Delegate {
        /// The lookup domain that was asked for.
        node: u32,
    },
    /// Nobody serves this address.
    None,
}

/// Which local publications a multicast may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeFilter {
    /// Multicast that originated on the own node.
    Any,
    /// `Only(Scope::Cluster)` for multicast from another node; for group messages the lookup scope
    /// of the header.
    Only(Scope),
}

#[derive(Clone, Copy)]
struct Service {
    type_: u32,
    root: u32,
    ranges: u32,
    /// Those of them that hold more than one instance.
    wide: u32,
    created: u64,
}

#[derive(Clone, Copy)]
struct Origin {
    node: u32,
    count: u32,
    /// A peer's publications in the order learned; the own cluster-scope ones in the order made.
    publications: List,
    /// Multicast round that met this node last.
    round: u64,
}

/// See the [module](self).
pub struct BindingTable {
    limits: Limits,
    keyed: KeyedHash,
    services: Slab<Service>,
    service_index: HashTable<u32>,
    ranges: Ranges,
    range_index: HashTable<u32>,
    bindings: Slab<Binding>,
    binding_index: HashTable<u32>,
    origins: Slab<Origin>,
    origin_index: HashTable<u32>,
    own_node_scope: List,
    learned: u32,
    created: u64,
    round: u64,
    nodes_found: Vec<u32>,
    ports_found: Vec<u32>,
    /// Types whose bindings have changed since somebody asked.
    changed: Vec<u32>,
}

impl BindingTable {
    /// `own_node` is 0 while the node has no address. `seed` should be unknown to peers: it keys
    /// the hash indices and shapes the trees, and never shows in an answer.
    pub fn new(own_node: u32, seed: u64) -> Self {
        Self::with_limits(own_node, seed, Limits::default())
    }

    /// A table with other limits than the default ones.
    pub fn with_limits(own_node: u32, seed: u64, limits: Limits) -> Self {
        let mut origins = Slab::new();
        let own = origins.insert(Origin::new(own_node));
        debug_assert_eq!(own, OWN);
        Self {
            limits,
            keyed: KeyedHash(SharedSeed::from_u64(seed)),
            services: Slab::new(),
            service_index: HashTable::new(),
            ranges: Ranges::new(seed),
            range_index: HashTable::new(),
            bindings: Slab::new(),
            binding_index: HashTable::new(),
            origins,
            origin_index: HashTable::new(),
            own_node_scope: List::EMPTY,
            learned: 0,
            created: 0,
            round: 0,
            nodes_found: Vec::new(),
            ports_found: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// A service type of which a binding was added or removed since it was told last; some are told more than once.
    pub fn take_changed(&mut self) -> Option<u32> {
        self.changed.pop()
    }

    /// Whether there is such a type.
    #[inline]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn note_changed(&mut self, type_: u32) {
        if self.changed.last() != Some(&type_) {
            self.changed.push(type_);
        }
    }

    /// The one socket that anything sent to this instance reaches: its port and node. `None`: nobody serves it, or others
    /// do as well.
    pub fn sole(&self, type_: u32, instance: u32) -> Option<(u32, u32)> {
        let range = ServiceRange {
            type_,
            lower: instance,
            upper: instance,
        };
        let overlap = Overlap {
            lower: instance,
            upper: instance,
            reach: Reach::All,
        };
        let mut sockets = self
            .publications_below(self.root(range), overlap)
            .map(|index| self.publication(index))
            .map(|publication| (publication.port, publication.node));
        let first = sockets.next()?;
        sockets.all(|other| other == first).then_some(first)
    }

    /// The own node number, 0 while there is none.
    pub fn own_node(&self) -> u32 {
        self.origins[OWN].node
    }

    /// The address became final: own publications move to it (§1.9). No events arise from that.
    /// Nothing may have been learned from a peer of this number.
    pub fn set_own_node(&mut self, node: u32) {
        assert!(
            node == self.own_node() || self.find_origin(node).is_none(),
            "the own address must not be that of a known peer"
        );
        self.origins[OWN].node = node;
    }

    /// Bindings in the table.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// True if nothing is bound.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bindings learned from this peer.
    pub fn learned_from(&self, peer: u32) -> u32 {
        match self.find_origin(peer) {
            Some(origin) if origin != OWN => self.origins[origin].count,
            _ => 0,
        }
    }

    /// Memory the table has allocated.
    pub fn allocated_bytes(&self) -> usize {
        self.services.allocated_bytes()
            + self.ranges.allocated_bytes()
            + self.bindings.allocated_bytes()
            + self.origins.allocated_bytes()
            + self.service_index.allocation_size()
            + self.range_index.allocation_size()
            + self.binding_index.allocation_size()
            + self.origin_index.allocation_size()
            + (self.nodes_found.capacity() + self.ports_found.capacity() + self.changed.capacity())
                * size_of::<u32>()
    }

    /// Adds a binding of the own node (`publication.node` is the own node number) or one learned
    /// from a peer. Whether an application may bind the type is for the socket layer to check.
    pub fn publish(&mut self, publication: Publication) -> Result<Change, PublishError> {
        let Publication {
            range,
            port,
            node,
            key,
            ..
        } = publication;
        if !range.is_valid() {
            return Err(PublishError::EmptyRange(range.lower, range.upper));
        }
        let own = node == self.own_node();
        if own {
            self.limits.admit_own(range, self.origins[OWN].count)?;
        } else {
            self.limits
                .admit_learned(publication, self.learned_from(node), self.learned)?;
        }
        // Bindings with node 0 exist only as long as this node has no number itself; Linux takes
        // them as equal to any node.
        let found = self.find_range(range);
        let duplicate = |range| {
            self.find_binding(range, port, node, key).is_some()
                || self.find_binding(range, port, 0, key).is_some()
        };
        if found.is_some_and(duplicate) {
            return Err(PublishError::Duplicate);
        }
        let range_index = found.unwrap_or_else(|| self.create_range(range));
        let origin = if own { OWN } else { self.origin_of_peer(node) };
        Ok(self.insert(publication, range_index, origin))
    }

    /// Removes the binding with this exact range, port, node and key; node 0 stands for any node
    /// (the first match in the range's list goes). `None` if there is no such binding.
    pub fn withdraw(
        &mut self,
        range: ServiceRange,
        port: u32,
        node: u32,
        key: u32,
    ) -> Option<Change> {
        let range_index = self.find_range(range)?;
        let binding = match node {
            0 => self.find_binding_of_any_node(range_index, port, key)?,
            _ => self.find_binding(range_index, port, node, key)?,
        };
        Some(self.remove(binding))
    }

    /// Removes everything learned from a lost peer, in the order learned.
    pub fn purge_node(&mut self, peer: u32, mut withdrawn: impl FnMut(Change)) {
        // The origin is freed with its last binding, hence looked up anew each time.
        while let Some(origin) = self.find_origin(peer).filter(|&origin| origin != OWN)
            && let Some(first) = self.origins[origin].publications.first()
        {
            withdrawn(self.remove(first));
        }
    }

    /// Chooses the socket for a message to `{type_, instance}` (§1.5) and moves it to the end of
    /// the line. `domain` is the node that shall do the lookup, 0 for the whole cluster.
    ///
    /// A rerouted message is looked up with the own node as domain if its header has lookup scope
    /// node, else with 0 (§1.8).
    pub fn anycast(&mut self, type_: u32, instance: u32, domain: u32) -> Lookup {
        let Some(reach) = self.reach_of(domain) else {
            return Lookup::Delegate { node: domain };
        };
        let Some(range) = self.range_for(type_, instance, reach) else {
            return Lookup::None;
        };
        let range = self.ranges.get_mut(range);
        let chosen = match reach {
            Reach::All => range.all.rotate(&self.bindings, Chain::All),
            Reach::Local => range.local.rotate(&self.bindings, Chain::Local),
        };
        match chosen.map(|index| &self.bindings[index]) {
            Some(found) => Lookup::Found {
                port: found.port,
                node: self.origins[found.origin].node,
            },
            None => Lookup::None,
        }
    }

    /// Whether [`Self::anycast`] gives the same each time, as long as bindings do not change: there is one socket to choose,
    /// or another node chooses.
    pub fn is_anycast_constant(&self, type_: u32, instance: u32, domain: u32) -> bool {
        let Some(reach) = self.reach_of(domain) else {
            return true;
        };
        let Some(range) = self.range_for(type_, instance, reach) else {
            return false;
        };
        let range = self.ranges.get(range);
        match reach {
            Reach::All => range.all.is_single(&self.bindings, Chain::All),
            Reach::Local => range.local.is_single(&self.bindings, Chain::Local),
        }
    }

    /// Which lists a look-up in this domain uses; `None`: those of another node.
    #[inline]
    fn reach_of(&self, domain: u32) -> Option<Reach> {
        // Without a number the own node *is* domain 0, so a standalone node uses local lists.
        if domain == self.own_node() {
            Some(Reach::Local)
        } else {
            (domain == 0).then_some(Reach::All)
        }
    }

    /// The range that a look-up of an instance chooses from.
    #[inline]
    fn range_for(&self, type_: u32, instance: u32, reach: Reach) -> Option<u32> {
        let service = self.find_service(type_)?;
        match self.services[service] {
            // Of ranges of one instance each, one at most holds this one: nothing to search.
            Service { wide: 0, .. } => self.find_range_of(service, instance, instance),
            Service { root, .. } => {
                let overlap = Overlap {
                    lower: instance,
                    upper: instance,
                    reach,
                };
                self.ranges.first(root, overlap)
            }
        }
    }

    /// The nodes a multicast to `range` must reach, each once, the own node among them if it has
    /// a binding there; scopes do not matter (§1.6). Empty: nobody to reach.
    pub fn multicast_nodes(&mut self, range: ServiceRange) -> &[u32] {
        self.round += 1;
        let mut nodes = std::mem::take(&mut self.nodes_found);
        nodes.clear();
        let overlap = Overlap {
            lower: range.lower,
            upper: range.upper,
            reach: Reach::All,
        };
        let mut next = self.ranges.first(self.root(range), overlap);
        while let Some(index) = next {
            for binding in self.ranges.get(index).all.iter(&self.bindings, Chain::All) {
                let origin = &mut self.origins[self.bindings[binding].origin];
                if origin.round != self.round {
                    origin.round = self.round;
                    nodes.push(origin.node);
                }
            }
            next = self.ranges.next(index, overlap);
        }
        self.nodes_found = nodes;
        &self.nodes_found
    }

    /// The local ports that get a copy of a multicast to `range`, each once however many of its
    /// bindings match, in ascending order (§1.6).
    pub fn multicast_ports(&mut self, range: ServiceRange, filter: ScopeFilter) -> &[u32] {
        let mut ports = std::mem::take(&mut self.ports_found);
        ports.clear();
        let overlap = Overlap {
            lower: range.lower,
            upper: range.upper,
            reach: Reach::Local,
        };
        let mut next = self.ranges.first(self.root(range), overlap);
        while let Some(index) = next {
            let local = self
                .ranges
                .get(index)
                .local
                .iter(&self.bindings, Chain::Local);
            let local = local.map(|binding| &self.bindings[binding]);
            ports.extend(local.filter(|b| filter.admits(b.scope)).map(|b| b.port));
            next = self.ranges.next(index, overlap);
        }
        ports.sort_unstable();
        ports.dedup();
        self.ports_found = ports;
        &self.ports_found
    }

    /// Own cluster-scope bindings in the order made: exactly what a bulk carries.
    pub fn own_cluster_publications(&self) -> impl Iterator<Item = Publication> + '_ {
        let list = self.origins[OWN].publications;
        list.iter(&self.bindings, Chain::Origin)
            .map(|index| self.publication(index))
    }

    /// Publications, with their ids, of every range that overlaps, in table order; those of one
    /// range come together. A new subscription starts from this: all of them with PORTS, else the
    /// one with the lowest id of each range, sorted by id (§3.6).
    pub fn overlapping(
        &self,
        range: ServiceRange,
    ) -> impl Iterator<Item = (Publication, u64)> + '_ {
        let overlap = Overlap {
            lower: range.lower,
            upper: range.upper,
            reach: Reach::All,
        };
        self.publications_below(self.root(range), overlap)
            .map(|b| (self.publication(b), self.bindings[b].id))
    }

    /// Everything, in the order Linux dumps it: services by the low ten bits of their type (newest
    /// first among equals), ranges in table order, publications as their list stands now.
    pub fn iter(&self) -> impl Iterator<Item = Publication> + '_ {
        let mut services: Vec<&Service> = self
            .service_index
            .iter()
            .map(|&index| &self.services[index])
            .collect();
        services.sort_unstable_by_key(|s| (s.type_ & 1023, Reverse(s.created)));
        services
            .into_iter()
            .flat_map(|s| self.publications_below(s.root, Overlap::EVERYTHING))
            .map(|index| self.publication(index))
    }

    fn publications_below(&self, root: u32, overlap: Overlap) -> impl Iterator<Item = u32> + '_ {
        self.ranges
            .matches(root, overlap)
            .flat_map(|range| self.ranges.get(range).all.iter(&self.bindings, Chain::All))
    }

    /// Links a new binding everywhere it belongs.
    fn insert(&mut self, publication: Publication, range_index: u32, origin: u32) -> Change {
        let Publication {
            range,
            scope,
            port,
            key,
            ..
        } = publication;
        self.note_changed(range.type_);
        self.created += 1;
        let id = self.created;
        let links = [Links::UNLINKED; 3];
        let index = self.bindings.insert(Binding {
            id,
            port,
            key,
            origin,
            range: range_index,
            links,
            scope,
        });

        let (keyed, bindings) = (&self.keyed, &self.bindings);
        self.binding_index
            .insert_unique(keyed.of((range_index, port, key)), index, |&b| {
                let Binding {
                    range, port, key, ..
                } = bindings[b];
                keyed.of((range, port, key))
            });
        let bindings = &mut self.bindings;
        let entry = self.ranges.get_mut(range_index);
        let range_edge = entry.all.is_empty();
        entry.all.push_front(bindings, Chain::All, index);
        if origin == OWN {
            let first_local = entry.local.is_empty();
            entry.local.push_front(bindings, Chain::Local, index);
            if first_local {
                self.ranges.local_changed(range_index);
            }
            self.origins[OWN].count += u32::from(counts_for_own_limit(range.type_));
        } else {
            self.origins[origin].count += 1;
            self.learned += 1;
        }
        let in_order = match (origin, scope) {
            (OWN, Scope::Node) => &mut self.own_node_scope,
            _ => &mut self.origins[origin].publications,
        };
        in_order.push_back(bindings, Chain::Origin, index);
        Change {
            publication,
            id,
            range_edge,
        }
    }

    /// Unlinks a binding from everywhere; empty ranges, services and origins go with it.
    fn remove(&mut self, index: u32) -> Change {
        let publication = self.publication(index);
        let Binding {
            id,
            port,
            key,
            origin,
            range: range_index,
            scope,
            ..
        } = self.bindings[index];
        self.note_changed(publication.range.type_);
        let hash = self.keyed.of((range_index, port, key));
        if let Ok(entry) = self.binding_index.find_entry(hash, |&b| b == index) {
            entry.remove();
        }
        let bindings = &mut self.bindings;
        let in_order = match (origin, scope) {
            (OWN, Scope::Node) => &mut self.own_node_scope,
            _ => &mut self.origins[origin].publications,
        };
        in_order.unlink(bindings, Chain::Origin, index);
        let entry = self.ranges.get_mut(range_index);
        entry.all.unlink(bindings, Chain::All, index);
        let range_edge = entry.all.is_empty();
        if origin == OWN {
            entry.local.unlink(bindings, Chain::Local, index);
            if entry.local.is_empty() {
                self.ranges.local_changed(range_index);
            }
            self.origins[OWN].count -= u32::from(counts_for_own_limit(publication.range.type_));
        } else {
            self.learned -= 1;
            self.origins[origin].count -= 1;
            if self.origins[origin].count == 0 {
                self.forget_origin(origin);
            }
        }
        self.bindings.remove(index);
        if range_edge {
            self.remove_range(publication.range, range_index);
        }
        Change {
            publication,
            id,
            range_edge,
        }
    }

    fn publication(&self, index: u32) -> Publication {
        let Binding {
            port,
            key,
            origin,
            range,
            scope,
            ..
        } = self.bindings[index];
        let range = self.ranges.get(range);
        Publication {
            range: ServiceRange {
                type_: self.services[range.service].type_,
                lower: range.lower,
                upper: range.upper,
            },
            scope,
            port,
            node: self.origins[origin].node,
            key,
        }
    }

    fn find_service(&self, type_: u32) -> Option<u32> {
        let found = |&index: &u32| self.services[index].type_ == type_;
        self.service_index
            .find(self.keyed.of(type_), found)
            .copied()
    }

    /// The tree to search for matches of `range`; none for an empty range.
    fn root(&self, range: ServiceRange) -> u32 {
        let service = range
            .is_valid()
            .then(|| self.find_service(range.type_))
            .flatten();
        service.map_or(NIL, |service| self.services[service].root)
    }

    fn find_range(&self, range: ServiceRange) -> Option<u32> {
        let service = self.find_service(range.type_)?;
        self.find_range_of(service, range.lower, range.upper)
    }

    fn find_range_of(&self, service: u32, lower: u32, upper: u32) -> Option<u32> {
        let key = (service, lower, upper);
        let found = |&index: &u32| {
            let entry = self.ranges.get(index);
            (entry.service, entry.lower, entry.upper) == key
        };
        self.range_index.find(self.keyed.of(key), found).copied()
    }

    /// Bindings of this range with this port and key: one of each node at most.
    fn candidates(&self, range: u32, port: u32, key: u32) -> impl Iterator<Item = u32> + '_ {
        let hash = self.keyed.of((range, port, key));
        self.binding_index
            .iter_hash(hash)
            .copied()
            .filter(move |&index| {
                let binding = &self.bindings[index];
                (binding.range, binding.port, binding.key) == (range, port, key)
            })
    }

    fn find_binding(&self, range: u32, port: u32, node: u32, key: u32) -> Option<u32> {
        self.candidates(range, port, key)
            .find(|&index| self.origins[self.bindings[index].origin].node == node)
    }

    fn find_binding_of_any_node(&self, range: u32, port: u32, key: u32) -> Option<u32> {
        let mut candidates = self.candidates(range, port, key);
        let first = candidates.next()?;
        if candidates.next().is_none() {
            return Some(first);
        }
        // Several nodes have it: only the list of the range knows which one Linux would take.
        self.ranges
            .get(range)
            .all
            .iter(&self.bindings, Chain::All)
            .find(|&index| {
                let binding = &self.bindings[index];
                (binding.port, binding.key) == (port, key)
            })
    }

    fn find_origin(&self, node: u32) -> Option<u32> {
        if node == self.own_node() {
            return Some(OWN);
        }
        let found = |&index: &u32| self.origins[index].node == node;
        self.origin_index.find(self.keyed.of(node), found).copied()
    }

    fn origin_of_peer(&mut self, peer: u32) -> u32 {
        if let Some(known) = self.find_origin(peer) {
            return known;
        }
        let index = self.origins.insert(Origin::new(peer));
        let (keyed, origins) = (&self.keyed, &self.origins);
        self.origin_index
            .insert_unique(keyed.of(peer), index, |&other| {
                keyed.of(origins[other].node)
            });
        index
    }

    fn forget_origin(&mut self, index: u32) {
        let hash = self.keyed.of(self.origins[index].node);
        if let Ok(entry) = self.origin_index.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        self.origins.remove(index);
    }

    fn create_service(&mut self, type_: u32) -> u32 {
        self.created += 1;
        let index = self.services.insert(Service {
            type_,
            root: NIL,
            ranges: 0,
            wide: 0,
            created: self.created,
        });
        let (keyed, services) = (&self.keyed, &self.services);
        self.service_index
            .insert_unique(keyed.of(type_), index, |&other| {
                keyed.of(services[other].type_)
            });
        index
    }

    fn create_range(&mut self, range: ServiceRange) -> u32 {
        let ServiceRange {
            type_,
            lower,
            upper,
        } = range;
        let service = self
            .find_service(type_)
            .unwrap_or_else(|| self.create_service(type_));
        let entry = &mut self.services[service];
        entry.ranges += 1;
        entry.wide += u32::from(lower != upper);
        let index = self.ranges.insert(&mut entry.root, service, lower, upper);
        let (keyed, ranges) = (&self.keyed, &self.ranges);
        let hash = keyed.of((service, lower, upper));
        self.range_index.insert_unique(hash, index, |&other| {
            let entry = ranges.get(other);
            keyed.of((entry.service, entry.lower, entry.upper))
        });
        index
    }

    fn remove_range(&mut self, range: ServiceRange, index: u32) {
        let service = self.ranges.get(index).service;
        let hash = self.keyed.of((service, range.lower, range.upper));
        if let Ok(entry) = self.range_index.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        let entry = &mut self.services[service];
        self.ranges.remove(&mut entry.root, index);
        entry.ranges -= 1;
        entry.wide -= u32::from(range.lower != range.upper);
        if entry.ranges == 0 {
            let hash = self.keyed.of(range.type_);
            if let Ok(entry) = self
                .service_index
                .find_entry(hash, |&other| other == service)
            {
                entry.remove();
            }
            self.services.remove(service);
        }
    }
}

impl Origin {
    const fn new(node: u32) -> Self {
        Self {
            node,
            count: 0,
            publications: List::EMPTY,
            round: 0,
        }
    }
}

impl ScopeFilter {
    fn admits(self, scope: Scope) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => scope == wanted,
        }
    }
}

/// The hash of the indices, keyed by a secret, because peers choose most of what is hashed here.
struct KeyedHash(SharedSeed);

impl KeyedHash {
    #[inline]
    fn of(&self, value: impl Hash) -> u64 {
        let mut hasher = FoldHasher::with_seed(0, &self.0);
        value.hash(&mut hasher);
        hasher.finish()
    }
}
