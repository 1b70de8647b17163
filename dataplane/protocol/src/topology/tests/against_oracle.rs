//! The service against plain vectors that follow the wording of `docs/protocol/topology.md` and nothing else.

use super::*;
use proptest::prelude::*;

struct Subscribed {
    by: Subscriber,
    what: Subscription,
    deadline: Option<u64>,
}

/// Publications and subscriptions, oldest first; what each subscriber is to be told.
#[derive(Default)]
struct Oracle {
    now_ms: u64,
    publications: Vec<Publication>,
    subscriptions: Vec<Subscribed>,
    told: Vec<(Subscriber, Event)>,
}

impl Oracle {
    fn admits(filter: Filter, scope: Scope) -> bool {
        let unwanted = match scope {
            Scope::Node => 0x20,
            Scope::Cluster => 0x40,
        };
        filter.0 & unwanted == 0
    }

    fn event(kind: EventKind, p: &Publication, what: Subscription) -> Event {
        Event {
            kind,
            found_lower: p.range.lower,
            found_upper: p.range.upper,
            port: p.port,
            node: p.node,
            subscription: what,
        }
    }

    fn subscribe(&mut self, by: Subscriber, what: Subscription) {
        let filter = what.filter();
        if filter.0 & 0x80 == 0 {
            let mut seen = Vec::new();
            for p in &self.publications {
                let first_of_range = !seen.contains(&p.range);
                seen.push(p.range);
                if p.range.overlaps(what.range())
                    && (filter.0 & 1 != 0 || first_of_range)
                    && Self::admits(filter, p.scope)
                {
                    self.told
                        .push((by, Self::event(EventKind::Published, p, what)));
                }
            }
        }
        let deadline = what
            .timeout()
            .map(|timeout| self.now_ms + timeout.as_millis() as u64);
        self.subscriptions.push(Subscribed { by, what, deadline });
        self.pass(0);
    }

    fn cancel(&mut self, by: Subscriber, what: Subscription) {
        let newest = self
            .subscriptions
            .iter()
            .rposition(|s| s.by == by && s.what == what);
        if let Some(newest) = newest {
            self.subscriptions.remove(newest);
        }
    }

    fn change(&mut self, kind: EventKind, p: &Publication) {
        let others_of_range = self.publications.iter().any(|q| q.range == p.range);
        for Subscribed { by, what, .. } in self.subscriptions.iter().rev() {
            let filter = what.filter();
            if p.range.overlaps(what.range())
                && (filter.0 & 1 != 0 || !others_of_range)
                && Self::admits(filter, p.scope)
            {
                self.told.push((*by, Self::event(kind, p, *what)));
            }
        }
    }

    fn publish(&mut self, p: Publication) {
        let same =
            |q: &Publication| (q.range, q.port, q.node, q.key) == (p.range, p.port, p.node, p.key);
        if !self.publications.iter().any(same) {
            self.change(EventKind::Published, &p);
            self.publications.push(p);
        }
    }

    fn withdraw(&mut self, p: Publication) {
        let same =
            |q: &Publication| (q.range, q.port, q.node, q.key) == (p.range, p.port, p.node, p.key);
        if let Some(found) = self.publications.iter().position(same) {
            let gone = self.publications.remove(found);
            self.change(EventKind::Withdrawn, &gone);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        loop {
            let due = self.subscriptions.iter().enumerate();
            let due = due
                .filter_map(|(n, s)| Some((s.deadline?, n)))
                .filter(|(deadline, _)| *deadline <= self.now_ms);
            let Some((_, next)) = due.min() else {
                return;
            };
            let Subscribed { by, what, .. } = self.subscriptions.remove(next);
            let event = Event {
                kind: EventKind::Timeout,
                found_lower: what.range().lower,
                found_upper: what.range().upper,
                port: 0,
                node: 0,
                subscription: what,
            };
            self.told.push((by, event));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Publication),
    Withdraw(Publication),
    Lose,
    Subscribe(Subscriber, Subscription),
    Cancel(Subscriber, Subscription),
    Close(Subscriber),
    Read(Subscriber),
    Pass(u64),
}

fn ranges() -> impl Strategy<Value = ServiceRange> {
    let bound = prop_oneof![0u32..6, Just(1000), Just(u32::MAX - 1), Just(u32::MAX)];
    (70u32..72, bound.clone(), bound).prop_map(|(t, a, b)| range(t, a.min(b), a.max(b)))
}

fn publications() -> impl Strategy<Value = Publication> {
    (ranges(), 1u32..4, any::<bool>(), any::<bool>()).prop_map(|(range, port, own, node)| {
        let p = bound(range, port);
        match (own, node) {
            (true, true) => node_scope(p),
            (true, false) => p,
            (false, _) => Publication { node: PEER, ..p },
        }
    })
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    let filters = prop_oneof![
        Just(Filter::PORTS),
        Just(Filter::SERVICE),
        Just(Filter::PORTS.with(Filter::NO_STATUS)),
        Just(Filter::SERVICE.with(Filter::CLUSTER_SCOPE)),
        Just(Filter::PORTS.with(Filter::NODE_SCOPE)),
    ];
    let timeouts = prop_oneof![Just(None), (0u32..30).prop_map(Some)];
    (ranges(), filters, timeouts, any::<bool>()).prop_map(|(range, filter, timeout, swap)| {
        let s = Subscription::new(range, filter, timeout, [7; 8]);
        if swap { s.swapped() } else { s }
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let who = prop_oneof![Just(ANNA), Just(BERT)];
    prop_oneof![
        6 => publications().prop_map(Step::Publish),
        4 => publications().prop_map(Step::Withdraw),
        1 => Just(Step::Lose),
        5 => (who.clone(), subscriptions()).prop_map(|(w, s)| Step::Subscribe(w, s)),
        2 => (who.clone(), subscriptions()).prop_map(|(w, s)| Step::Cancel(w, s)),
        1 => who.clone().prop_map(Step::Close),
        2 => who.prop_map(Step::Read),
        3 => (0u64..20).prop_map(Step::Pass),
    ]
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut lab, mut oracle) = (Lab::new(), Oracle::default());
    let mut subscribed: Vec<Subscription> = Vec::new();
    let read = |lab: &mut Lab, oracle: &mut Oracle, who: Subscriber| {
        let expected: Vec<Event> = oracle
            .told
            .iter()
            .filter(|(w, _)| *w == who)
            .map(|(_, e)| *e)
            .collect();
        oracle.told.retain(|(w, _)| *w != who);
        prop_assert_eq!(lab.events(who), expected);
        Ok(())
    };
    for step in steps {
        match step {
            Step::Publish(p) => {
                lab.publish(p);
                oracle.publish(p);
            }
            Step::Withdraw(p) => {
                lab.withdraw(p);
                oracle.withdraw(p);
            }
            Step::Lose => {
                lab.lose(PEER);
                let of_peer = |p: &&Publication| p.node == PEER;
                let lost: Vec<_> = oracle
                    .publications
                    .iter()
                    .filter(of_peer)
                    .copied()
                    .collect();
                lost.into_iter().for_each(|p| oracle.withdraw(p));
            }
            Step::Subscribe(who, s) => {
                lab.subscribe(who, s);
                oracle.subscribe(who, s);
                subscribed.push(s);
            }
            Step::Cancel(who, s) => {
                // Mostly something that may be there.
                let s = subscribed.pop().unwrap_or(s);
                prop_assert_eq!(lab.send(who, &with_cancel(s)), Ok(()));
                oracle.cancel(who, s);
            }
            Step::Close(who) => {
                lab.service.close(who);
                lab.service.open(who, None);
                oracle.subscriptions.retain(|s| s.by != who);
                oracle.told.retain(|(w, _)| *w != who);
            }
            Step::Read(who) => read(&mut lab, &mut oracle, who)?,
            Step::Pass(ms) => {
                lab.pass(ms);
                oracle.pass(ms);
            }
        }
        prop_assert_eq!(lab.service.len(), oracle.subscriptions.len());
        let next = oracle.subscriptions.iter().filter_map(|s| s.deadline).min();
        prop_assert_eq!(lab.service.next_timeout(), next.map(Instant::from_millis));
    }
    read(&mut lab, &mut oracle, ANNA)?;
    read(&mut lab, &mut oracle, BERT)?;
    lab.service.close(ANNA);
    lab.service.close(BERT);
    prop_assert!(lab.service.is_empty());
    prop_assert_eq!(lab.service.next_timeout(), None);
    Ok(())
}

proptest! {
    #[test]
    fn every_subscriber_is_told_what_the_wording_says(steps in proptest::collection::vec(steps(), 1..120)) {
        run(steps)?;
    }
}
