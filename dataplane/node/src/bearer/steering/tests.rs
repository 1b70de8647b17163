//! Rules against tables that answer as drivers do.

use std::cell::RefCell;

use xtipc_xsk::interface::DeviceKind;

use super::*;
use crate::bearer::tests::interface;

/// What a driver makes of a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    /// It looks at all of it.
    Able,
    /// It does not look at addresses with other masks than a full one, and says nothing (igb).
    BlindForMasks,
    /// It has rules, but none like these (i40e).
    Unable,
    /// It has no rules (veth).
    None,
}

struct FakeNic {
    driver: Driver,
    entries: RefCell<Vec<Entry>>,
}

impl FakeNic {
    fn new(driver: Driver) -> Self {
        let entries = RefCell::default();
        Self { driver, entries }
    }

    fn rules(&self) -> Vec<Rule> {
        let entries = self.entries.borrow();
        entries.iter().filter_map(|entry| entry.rule).collect()
    }
}

impl Table for FakeNic {
    fn list(&self) -> rustix::io::Result<Vec<Entry>> {
        match self.driver {
            Driver::None => Err(Errno::OPNOTSUPP),
            _ => Ok(self.entries.borrow().clone()),
        }
    }

    fn insert(&self, rule: &Rule) -> rustix::io::Result<u32> {
        let mut made = *rule;
        match self.driver {
            Driver::Able => {}
            Driver::BlindForMasks => (made.source, made.source_mask) = (0, 0),
            Driver::Unable | Driver::None => return Err(Errno::OPNOTSUPP),
        }
        let mut entries = self.entries.borrow_mut();
        let same = |entry: &Entry| {
            let there = entry.rule.map(|rule| Rule { queue: 0, ..rule });
            there == Some(Rule { queue: 0, ..made })
        };
        if entries.iter().any(same) {
            return Err(Errno::EXIST);
        }
        let free = (0..16).rev();
        let mut free = free.filter(|place| entries.iter().all(|entry| entry.location != *place));
        let location = free.next().ok_or(Errno::NOSPC)?;
        let rule = Some(made);
        entries.push(Entry { location, rule });
        Ok(location)
    }

    fn remove(&self, location: u32) -> rustix::io::Result<()> {
        let mut entries = self.entries.borrow_mut();
        let place = entries.iter().position(|entry| entry.location == location);
        entries.remove(place.ok_or(Errno::NOENT)?);
        Ok(())
    }
}

fn place() -> (tempfile::TempDir, Note<Rule>) {
    let run_dir = tempfile::tempdir().unwrap();
    let note = Note::of(run_dir.path(), 7);
    (run_dir, note)
}

fn to_queue(queue: u32) -> Rule {
    rules(0, &[queue])[0]
}

#[test]
fn each_worker_has_a_queue_to_share() {
    assert_eq!(queues_to_share(&[1]), Err(Refusal::OneQueue));
    assert_eq!(queues_to_share(&[1, 1, 1]), Err(Refusal::OneWorker));
    assert_eq!(queues_to_share(&[1, 2, 1, 2]), Ok(vec![0, 1]));
    assert_eq!(queues_to_share(&[2, 3, 2, 1]), Ok(vec![0, 1, 3]));
    assert_eq!(one_of_each_worker(&[]), [0]);
}

/// Made in a NIC that there is not: nothing is to be removed from it.
fn steering_by(made: Vec<Entry>, note: Note<Rule>) -> Steering {
    Steering::Rules(Directed {
        ifindex: u32::MAX,
        entries: made,
        note,
    })
}

#[test]
fn the_queue_of_a_sender_is_told_and_all_workers_send() {
    let (_run_dir, note) = place();
    let nic = FakeNic::new(Driver::Able);
    let made = direct(&nic, 0, &[0, 1, 2], &note).unwrap();
    let steering = steering_by(made, note);
    assert_eq!(steering.queue_from([2, 0, 0, 0, 0, 8]), Some(1));
    assert_eq!(steering.queue_from([2, 0, 0, 0, 0, 9]), Some(2));
    assert_eq!(steering.queues_to_send_by(&[1, 2, 3]), [0, 1, 2]);
    assert_eq!(steering.queues_to_send_by(&[1, 1, 1]), [0]);
}

#[test]
fn a_queue_that_all_comes_into_is_not_sent_by() {
    let (_run_dir, note) = place();
    let nic = FakeNic::new(Driver::BlindForMasks);
    let made = direct(&nic, 0, &[0, 1], &note).unwrap();
    let steering = steering_by(made, note);
    assert_eq!(steering.queue_from([2, 0, 0, 0, 0, 8]), Some(1));
    assert_eq!(steering.queues_to_send_by(&[1, 2]), [0]);
    assert_eq!(steering.queues_to_send_by(&[1]), [0]);
    let without = Steering::Software(String::new());
    assert_eq!(without.queues_to_send_by(&[1, 2]), [0, 1]);
    assert_eq!(without.queue_from([2, 0, 0, 0, 0, 8]), None);
}

#[test]
fn senders_are_told_apart_by_as_many_bits_as_there_are_queues_for() {
    let (_run_dir, note) = place();
    let nic = FakeNic::new(Driver::Able);
    let made = direct(&nic, 7, &[0, 1, 2], &note).unwrap();
    let found = nic.rules();
    let of = |rule: &Rule| (rule.vlan, rule.source, rule.source_mask, rule.queue);
    let expected = [(7, 0, 1, 1), (7, 1, 1, 2)];
    assert_eq!(found.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!(note.read(), found);
    withdraw(&nic, &made, &note).unwrap();
    assert!(nic.rules().is_empty() && note.read().is_empty());
}

#[test]
fn a_nic_that_ignores_part_of_the_rules_gets_one_for_all_senders() {
    let (_run_dir, note) = place();
    let nic = FakeNic::new(Driver::BlindForMasks);
    direct(&nic, 0, &[0, 1, 2, 4], &note).unwrap();
    assert_eq!(nic.rules(), [to_queue(4)]);
    assert_eq!(note.read(), [to_queue(4)]);
}

#[test]
fn a_refused_rule_leaves_nothing_behind() {
    for (driver, refusal) in [
        (Driver::Unable, Refusal::Refused(Errno::OPNOTSUPP)),
        (Driver::None, Refusal::NoTable(Errno::OPNOTSUPP)),
    ] {
        let (run_dir, note) = place();
        let nic = FakeNic::new(driver);
        assert_eq!(direct(&nic, 0, &[1, 2], &note), Err(refusal));
        assert!(nic.rules().is_empty());
        assert_eq!(std::fs::read_dir(run_dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn without_a_place_for_the_note_no_rule_is_made() {
    let note = Note::of(Path::new("/nonexistent"), 7);
    let nic = FakeNic::new(Driver::Able);
    let refusal = direct(&nic, 0, &[1], &note);
    assert!(matches!(refusal, Err(Refusal::Unnoted(_))));
    assert!(nic.rules().is_empty());
}

#[test]
fn rules_of_others_stay() {
    let (_run_dir, note) = place();
    let nic = FakeNic::new(Driver::Able);
    let mut others = vec![
        Rule {
            ethertype: 0x88f7,
            ..to_queue(3)
        },
        to_queue(2),
    ];
    for rule in &others {
        nic.insert(rule).unwrap();
    }
    assert_eq!(direct(&nic, 0, &[1], &note), Err(Refusal::Taken(2)));
    assert_eq!(nic.rules(), others);
    // Another VLAN's are other frames.
    let made = direct(&nic, 5, &[1], &note).unwrap();
    nic.remove(made[0].location).unwrap();
    others.push(Rule {
        vlan: 5,
        ..to_queue(3)
    });
    nic.insert(&others[2]).unwrap();
    withdraw(&nic, &made, &note).unwrap();
    assert_eq!(nic.rules(), others, "what took the place of ours stays");
}

#[test]
fn the_next_start_removes_what_a_killed_daemon_left_and_nothing_else() {
    let (_run_dir, note) = place();
    let nic = FakeNic::new(Driver::Able);
    let other = Rule {
        ethertype: 0x88f7,
        ..to_queue(1)
    };
    nic.insert(&other).unwrap();
    direct(&nic, 0, &[1, 2], &note).unwrap();
    recover(&nic, &note).unwrap();
    assert_eq!(nic.rules(), [other]);
    // Nothing is noted any more.
    nic.insert(&to_queue(1)).unwrap();
    recover(&nic, &note).unwrap();
    assert_eq!(nic.rules(), [other, to_queue(1)]);
}

#[test]
fn the_reason_names_driver_answer_and_remedy() {
    let interface = interface(DeviceKind::Hardware, "ixgbe");
    let refused = Refusal::Refused(Errno::OPNOTSUPP);
    assert_eq!(
        refused.text(&interface, true),
        "ixgbe refused the rule: Operation not supported (os error 95); rules are off, or this NIC has none (ethtool -K eth0 ntuple on)"
    );
    assert_eq!(
        refused.text(&interface, false),
        "ixgbe refused the rule: Operation not supported (os error 95)"
    );
}

#[test]
fn what_is_shown_is_what_the_rules_do() {
    let entry = |location, queue| Entry {
        location,
        rule: Some(to_queue(queue)),
    };
    let came = |packets: [u64; 3]| {
        let infos = packets
            .iter()
            .zip(0..)
            .map(|(&rx_packets, queue)| QueueInfo {
                queue,
                rx_packets,
                ..QueueInfo::default()
            });
        infos.collect::<Vec<_>>()
    };
    let (one, two) = (entry(15, 1), entry(14, 2));
    let text = "TIPC comes into queue 1".to_owned();
    assert_eq!(shown(&[one], &[one], &came([0; 3])), Ok(text.clone()));
    assert_eq!(shown(&[one], &[two, one], &came([2, 9, 0])), Ok(text));
    assert_eq!(
        shown(&[one, two], &[one, two], &came([0, 0, 9])).unwrap(),
        "TIPC comes into queues 1, 2 by the senders' addresses"
    );
    assert_eq!(
        shown(&[one], &[one], &came([9, 0, 0])).unwrap_err(),
        "the NIC keeps the rules, and yet nothing has come into queue 1"
    );
    let moved = shown(&[one], &[entry(15, 2)], &came([0; 3]));
    assert_eq!(moved.unwrap_err(), "somebody else has removed the rules");
}

#[test]
fn one_worker_makes_no_rules_and_shows_nothing() {
    let (run_dir, _) = place();
    let lo = Interface {
        name: "lo".into(),
        index: 1,
        driver: None,
        ..interface(DeviceKind::Software, "")
    };
    let steering = Steering::set_up(&lo, 0, &[], run_dir.path());
    assert_eq!(steering.info(&lo, &[]), None);
    let steering = Steering::set_up(&lo, 0, &[1, 2], run_dir.path());
    let shown = steering.info(&lo, &[]).unwrap();
    assert_eq!(shown.way, SteeringWay::Software);
    assert_eq!(
        shown.reason,
        "the driver has no rules for queues: Operation not supported (os error 95)"
    );
    assert_eq!(std::fs::read_dir(run_dir.path()).unwrap().count(), 0);
}
