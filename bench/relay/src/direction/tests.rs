use super::*;

const MS: Duration = Duration::from_millis(1);

fn sound() -> Faults {
    Faults {
        loss: Share(0),
        burst: 1,
        duplication: Share(0),
        reordering: Share(0),
        straggle: MS,
        behind: 0,
        corruption: Share(0),
        corrupt_within: usize::MAX,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    }
}

/// Frame `number` as bytes: an Ethernet header and the number.
fn frame(number: u32) -> Vec<u8> {
    [&[0; ETHERNET_HEADER][..], &number.to_be_bytes()].concat()
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(*frame[ETHERNET_HEADER..].first_chunk().unwrap())
}

/// Sends `count` frames, one in each `gap`, waits for the last, and returns when each frame came out, in order.
fn pass(direction: &mut Direction, count: u32, gap: Duration) -> Vec<(Duration, u32)> {
    let mut out = Vec::new();
    for i in 0..count {
        let now = gap * i;
        while let Some(due) = direction.next_due().filter(|due| *due <= now) {
            direction.release(due, |bytes| {
                out.push((due, number(bytes)));
                Ok(())
            });
        }
        direction.take(now, &mut frame(i), |bytes| {
            out.push((now, number(bytes)));
            Ok(())
        });
    }
    while let Some(due) = direction.next_due() {
        direction.release(due, |bytes| {
            out.push((due, number(bytes)));
            Ok(())
        });
    }
    out
}

fn numbers(out: &[(Duration, u32)]) -> Vec<u32> {
    out.iter().map(|(_, number)| *number).collect()
}

/// True if `count` is `percent` of `of`, by a tenth more or less.
fn is_about(count: u64, percent: f64, of: u64) -> bool {
    let expected = of as f64 * percent / 100.0;
    (count as f64 - expected).abs() < expected / 10.0
}

#[test]
fn a_sound_wire_passes_every_frame_at_once_and_in_order() {
    let mut direction = Direction::new(sound(), 1, 0);
    let out = pass(&mut direction, 1000, MS);
    assert!(out.iter().zip(0..).all(|(got, i)| *got == (MS * i, i)));
    assert_eq!((out.len(), direction.held()), (1000, 0));
}

#[test]
fn the_same_seed_makes_the_same_decisions_and_another_seed_or_direction_others() {
    let faults = Faults {
        loss: Share(50_000),
        duplication: Share(50_000),
        reordering: Share(50_000),
        ..sound()
    };
    let run = |seed, way| pass(&mut Direction::new(faults, seed, way), 2000, MS / 100);
    assert_eq!(run(7, 0), run(7, 0));
    assert_ne!(numbers(&run(7, 0)), numbers(&run(8, 0)));
    assert_ne!(numbers(&run(7, 0)), numbers(&run(7, 1)));
}

#[test]
fn decisions_do_not_depend_on_when_frames_come() {
    let faults = Faults {
        loss: Share(100_000),
        duplication: Share(100_000),
        ..sound()
    };
    let run = |gap| numbers(&pass(&mut Direction::new(faults, 3, 0), 5000, gap));
    assert_eq!(run(MS), run(MS * 7));
}

#[test]
fn each_share_is_met() {
    let faults = Faults {
        loss: Share(50_000),
        duplication: Share(20_000),
        reordering: Share(100_000),
        corruption: Share(10_000),
        ..sound()
    };
    let mut direction = Direction::new(faults, 42, 0);
    let out = pass(&mut direction, 200_000, MS / 1000);
    let counters = direction.counters;
    let arrived = counters.frames - counters.lost;
    assert!(is_about(counters.lost, 5.0, 200_000), "{counters:?}");
    assert!(is_about(counters.duplicated, 2.0, arrived), "{counters:?}");
    assert!(is_about(counters.reordered, 10.0, arrived), "{counters:?}");
    assert!(is_about(counters.corrupted, 1.0, arrived), "{counters:?}");
    assert_eq!(counters.sent, arrived + counters.duplicated);
    assert_eq!(counters.sent, out.len() as u64);
}

#[test]
fn everything_or_nothing_is_lost_at_the_ends_of_the_scale() {
    let lost = |loss| {
        let mut direction = Direction::new(Faults { loss, ..sound() }, 1, 0);
        pass(&mut direction, 10_000, MS);
        direction.counters.lost
    };
    assert_eq!((lost(Share(0)), lost(Share(1_000_000))), (0, 10_000));
}

#[test]
fn bursts_lose_the_same_share_in_runs_of_the_given_length() {
    let faults = Faults {
        loss: Share(50_000),
        burst: 8,
        ..sound()
    };
    let mut direction = Direction::new(faults, 5, 0);
    let arrived = numbers(&pass(&mut direction, 400_000, MS));
    assert!(is_about(direction.counters.lost, 5.0, 400_000));
    let gaps: Vec<u32> = arrived.windows(2).map(|two| two[1] - two[0] - 1).collect();
    // Two bursts may follow each other.
    assert!(gaps.iter().all(|gap| gap.is_multiple_of(8)));
}

#[test]
fn a_reordered_frame_comes_later_by_no_more_than_the_straggle() {
    let faults = Faults {
        reordering: Share(100_000),
        straggle: MS * 5,
        ..sound()
    };
    let mut direction = Direction::new(faults, 9, 0);
    let out = pass(&mut direction, 20_000, MS);
    assert_ne!(numbers(&out), (0..20_000).collect::<Vec<_>>());
    for (at, number) in out {
        assert!(
            at >= MS * number && at <= MS * (number + 5),
            "{number} at {at:?}"
        );
    }
}

#[test]
fn a_frame_behind_k_others_is_overtaken_by_exactly_k() {
    let faults = Faults {
        reordering: Share(1000),
        straggle: Duration::from_secs(3600),
        behind: 3,
        ..sound()
    };
    let out = numbers(&pass(&mut Direction::new(faults, 11, 0), 20_000, MS));
    let mut overtaken = 0;
    for (place, number) in out.iter().enumerate() {
        let later = out[..place]
            .iter()
            .rev()
            .take(10)
            .filter(|n| *n > number)
            .count();
        assert!(
            later == 0 || later == 3 || *number > 19_990,
            "{number}: {later}"
        );
        overtaken += usize::from(later == 3);
    }
    assert!(overtaken > 5, "{overtaken}");
}

#[test]
fn a_frame_that_nothing_overtakes_goes_on_after_the_straggle() {
    let faults = Faults {
        reordering: Share(1_000_000),
        behind: 3,
        ..sound()
    };
    assert_eq!(pass(&mut Direction::new(faults, 1, 0), 1, MS), [(MS, 0)]);
}

#[test]
fn delay_and_jitter_keep_the_order() {
    let faults = Faults {
        delay: MS * 10,
        jitter: MS * 4,
        ..sound()
    };
    let out = pass(&mut Direction::new(faults, 2, 0), 5000, MS / 10);
    assert_eq!(numbers(&out), (0..5000).collect::<Vec<_>>());
    let times = out.iter().map(|(at, number)| *at - MS / 10 * *number);
    let (least, most) = (times.clone().min().unwrap(), times.max().unwrap());
    assert!(least >= MS * 10 && most <= MS * 14, "{least:?} {most:?}");
    assert!(most - least > MS * 3, "{least:?} {most:?}");
}

#[test]
fn corruption_changes_one_byte_of_those_named_and_never_the_ethernet_header() {
    let faults = Faults {
        corruption: Share(1_000_000),
        corrupt_within: 10,
        ..sound()
    };
    let mut direction = Direction::new(faults, 4, 0);
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        direction.take(Duration::ZERO, &mut [0; 60], |bytes| {
            let changed: Vec<usize> = (0..60).filter(|i| bytes[*i] != 0).collect();
            assert_eq!(changed.len(), 1);
            places.insert(changed[0]);
            Ok(())
        });
    }
    assert_eq!(places, (14..24).collect());
    // Nothing there to change.
    direction.take(Duration::ZERO, &mut [0; 14], |_| Ok(()));
    assert_eq!(direction.counters.corrupted, 1000);
}

#[test]
fn a_direction_holds_no_more_than_its_limit_and_counts_the_rest() {
    let faults = Faults {
        delay: Duration::from_secs(60),
        ..sound()
    };
    let mut direction = Direction::new(faults, 1, 0);
    for _ in 0..HELD_MAX + 10 {
        direction.take(Duration::ZERO, &mut frame(1), |_| Ok(()));
    }
    assert_eq!(
        (direction.held(), direction.counters.overflow),
        (HELD_MAX, 10)
    );
}

#[test]
fn a_refused_frame_is_counted_and_gone() {
    let mut direction = Direction::new(sound(), 1, 0);
    direction.take(Duration::ZERO, &mut frame(1), |_| Err(Refused));
    assert_eq!(
        (direction.counters.sent, direction.counters.refused),
        (0, 1)
    );
    assert_eq!(direction.held(), 0);
}
