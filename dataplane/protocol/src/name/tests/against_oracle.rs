//! The binding table against a table of plain vectors that follows the wording of
//! `docs/protocol/names.md` and nothing else.

use super::super::{BindingTable, Lookup, Publication, Scope, ScopeFilter, ServiceRange};
use super::{OTHER_PEER, OWN, PEER};
use proptest::prelude::*;

/// A range object: its lists have the next choice first.
struct OracleRange {
    range: ServiceRange,
    all: Vec<Publication>,
    local: Vec<Publication>,
}

/// Range objects, the one created last first; a stable sort by `lower` gives table order.
#[derive(Default)]
struct Oracle {
    ranges: Vec<OracleRange>,
    /// Everything, in order of creation.
    history: Vec<Publication>,
}

impl Oracle {
    fn table_order(&mut self, wanted: ServiceRange) -> Vec<&mut OracleRange> {
        let mut found: Vec<_> = self
            .ranges
            .iter_mut()
            .filter(|r| r.range.overlaps(wanted))
            .collect();
        found.sort_by_key(|r| r.range.lower);
        found
    }

    /// `Some(range_edge)` unless it is a duplicate.
    fn publish(&mut self, p: Publication) -> Option<bool> {
        let same = |q: &Publication| {
            Publication {
                scope: p.scope,
                ..*q
            } == p
        };
        if self.history.iter().any(same) {
            return None;
        }
        self.history.push(p);
        let position = self.ranges.iter().position(|r| r.range == p.range);
        if position.is_none() {
            self.ranges.insert(
                0,
                OracleRange {
                    range: p.range,
                    all: vec![],
                    local: vec![],
                },
            );
        }
        let entry = &mut self.ranges[position.unwrap_or(0)];
        entry.all.insert(0, p);
        if p.node == OWN {
            entry.local.insert(0, p);
        }
        Some(position.is_none())
    }

    fn withdraw(&mut self, p: Publication) -> Option<(Publication, bool)> {
        let same = |q: &Publication| {
            Publication {
                scope: p.scope,
                ..*q
            } == p
        };
        let found = self.history.remove(self.history.iter().position(same)?);
        let position = self.ranges.iter().position(|r| r.range == p.range)?;
        let entry = &mut self.ranges[position];
        entry.all.retain(|q| !same(q));
        entry.local.retain(|q| !same(q));
        let range_edge = entry.all.is_empty();
        if range_edge {
            self.ranges.remove(position);
        }
        Some((found, range_edge))
    }

    fn purge(&mut self, node: u32) -> Vec<(Publication, bool)> {
        let lost: Vec<_> = self
            .history
            .iter()
            .copied()
            .filter(|p| p.node == node)
            .collect();
        lost.into_iter().filter_map(|p| self.withdraw(p)).collect()
    }

    fn anycast(&mut self, type_: u32, instance: u32, domain: u32) -> Lookup {
        if domain != 0 && domain != OWN {
            return Lookup::Delegate { node: domain };
        }
        for entry in self.table_order(ServiceRange::instance(type_, instance)) {
            let list = if domain == OWN {
                &mut entry.local
            } else {
                &mut entry.all
            };
            if let Some(&Publication { port, node, .. }) = list.first() {
                list.rotate_left(1);
                return Lookup::Found { port, node };
            }
        }
        Lookup::None
    }

    fn nodes(&mut self, wanted: ServiceRange) -> Vec<u32> {
        let matching = self.table_order(wanted);
        sorted(matching.iter().flat_map(|r| r.all.iter().map(|p| p.node)))
    }

    fn ports(&mut self, wanted: ServiceRange, filter: ScopeFilter) -> Vec<u32> {
        let admitted =
            |p: &&Publication| filter == ScopeFilter::Any || filter == ScopeFilter::Only(p.scope);
        let matching = self.table_order(wanted);
        sorted(
            matching
                .iter()
                .flat_map(|r| r.local.iter().filter(admitted).map(|p| p.port)),
        )
    }

    fn overlapping(&mut self, wanted: ServiceRange) -> Vec<Publication> {
        self.table_order(wanted)
            .into_iter()
            .flat_map(|r| r.all.clone())
            .collect()
    }
}

fn sorted(values: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut values: Vec<u32> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Publication),
    Withdraw(Publication),
    /// Withdraws what was published so many (modulo) bindings ago.
    WithdrawExisting(usize),
    Purge(u32),
    Anycast(u32, u32, u32),
    Multicast(ServiceRange, ScopeFilter),
}

/// Few enough values that ranges nest, touch, repeat and conflict all the time.
fn a_range() -> impl Strategy<Value = ServiceRange> {
    let bounds = prop_oneof![
        4 => (0u32..24, 0u32..6).prop_map(|(lower, length)| (lower, lower + length)),
        1 => Just((0, u32::MAX)),
        1 => (u32::MAX - 3..=u32::MAX).prop_map(|lower| (lower, u32::MAX)),
        3 => (0u32..24).prop_map(|instance| (instance, instance)),
    ];
    (100u32..102, bounds).prop_map(|(type_, (lower, upper))| ServiceRange {
        type_,
        lower,
        upper,
    })
}

fn a_publication() -> impl Strategy<Value = Publication> {
    let node = prop_oneof![2 => Just(OWN), 2 => Just(PEER), 1 => Just(OTHER_PEER)];
    (a_range(), node, 1u32..5, 0u32..2, any::<bool>()).prop_map(
        |(range, node, port, key, local)| {
            let scope = if local && node == OWN {
                Scope::Node
            } else {
                Scope::Cluster
            };
            Publication {
                range,
                scope,
                port,
                node,
                key,
            }
        },
    )
}

fn a_step() -> impl Strategy<Value = Step> {
    let instance = prop_oneof![9 => 0u32..32, 1 => u32::MAX - 4..=u32::MAX];
    let domain = prop_oneof![4 => Just(0), 4 => Just(OWN), 1 => Just(PEER)];
    let filter = prop_oneof![
        Just(ScopeFilter::Any),
        Just(ScopeFilter::Only(Scope::Cluster)),
        Just(ScopeFilter::Only(Scope::Node))
    ];
    prop_oneof![
        8 => a_publication().prop_map(Step::Publish),
        1 => a_publication().prop_map(Step::Withdraw),
        4 => any::<usize>().prop_map(Step::WithdrawExisting),
        1 => prop_oneof![9 => Just(PEER), 9 => Just(OTHER_PEER), 1 => Just(OWN)].prop_map(Step::Purge),
        8 => (100u32..103, instance, domain).prop_map(|(t, i, d)| Step::Anycast(t, i, d)),
        4 => (a_range(), filter).prop_map(|(range, filter)| Step::Multicast(range, filter)),
    ]
}

fn withdraw_both(table: &mut BindingTable, oracle: &mut Oracle, p: Publication) {
    let change = table.withdraw(p.range, p.port, p.node, p.key);
    assert_eq!(
        change.map(|c| (c.publication, c.range_edge)),
        oracle.withdraw(p)
    );
}

fn run(table: &mut BindingTable, oracle: &mut Oracle, step: Step) {
    match step {
        Step::Publish(p) => {
            assert_eq!(
                table.publish(p).ok().map(|c| c.range_edge),
                oracle.publish(p)
            );
        }
        Step::Withdraw(p) => withdraw_both(table, oracle, p),
        Step::WithdrawExisting(n) => {
            if let Some(&p) = oracle.history.get(n % oracle.history.len().max(1)) {
                withdraw_both(table, oracle, p);
            }
        }
        Step::Purge(node) => {
            let mut withdrawn = Vec::new();
            table.purge_node(node, |c| withdrawn.push((c.publication, c.range_edge)));
            let expected = if node == OWN {
                Vec::new()
            } else {
                oracle.purge(node)
            };
            assert_eq!(withdrawn, expected);
        }
        Step::Anycast(type_, instance, domain) => {
            let found = table.anycast(type_, instance, domain);
            assert_eq!(found, oracle.anycast(type_, instance, domain));
        }
        Step::Multicast(range, filter) => {
            let mut nodes = table.multicast_nodes(range).to_vec();
            nodes.sort_unstable();
            assert_eq!(nodes, oracle.nodes(range));
            assert_eq!(
                table.multicast_ports(range, filter),
                oracle.ports(range, filter)
            );
        }
    }
}

fn compare(table: &BindingTable, oracle: &mut Oracle) {
    assert_eq!(table.len(), oracle.history.len());
    for type_ in [100, 101] {
        let everything = ServiceRange {
            type_,
            lower: 0,
            upper: u32::MAX,
        };
        let (listed, ids): (Vec<_>, Vec<_>) = table.overlapping(everything).unzip();
        assert_eq!(listed, oracle.overlapping(everything));
        let mut by_id: Vec<_> = ids.into_iter().zip(listed).collect();
        by_id.sort_unstable_by_key(|&(id, _)| id);
        let made = oracle.history.iter().filter(|p| p.range.type_ == type_);
        assert!(by_id.iter().map(|(_, p)| p).eq(made));
    }
    let bulk = oracle
        .history
        .iter()
        .filter(|p| p.node == OWN && p.scope == Scope::Cluster);
    assert!(table.own_cluster_publications().eq(bulk.copied()));
    for node in [PEER, OTHER_PEER] {
        let learned = oracle.history.iter().filter(|p| p.node == node).count();
        assert_eq!(table.learned_from(node) as usize, learned);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_answer_is_that_of_a_table_of_plain_vectors(
        seed: u64,
        steps in prop::collection::vec(a_step(), 1..160),
    ) {
        let (mut table, mut oracle) = (BindingTable::new(OWN, seed), Oracle::default());
        for step in steps {
            run(&mut table, &mut oracle, step);
            compare(&table, &mut oracle);
        }
    }
}
