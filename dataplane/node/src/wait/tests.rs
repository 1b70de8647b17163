use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::clock::now_ns;

const MS: u64 = 1_000_000;

/// Runs a test with each back end this machine grants; epoll is always one.
fn with_both(test: fn(Waiter)) {
    test(Waiter::with_backend(Backend::Epoll).unwrap());
    match Waiter::with_backend(Backend::IoUring) {
        Ok(waiter) => test(waiter),
        Err(error) => println!("skipped for io_uring: {error}"),
    }
}

fn bell() -> std::os::fd::OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn ring(fd: &impl AsFd) {
    rustix::io::write(fd, &1u64.to_ne_bytes()).unwrap();
}

fn silence(fd: &impl AsFd) {
    rustix::io::read(fd, &mut [0; 8]).unwrap();
}

/// What is ready within 20 ms.
fn soon(waiter: &mut Waiter) -> Vec<Token> {
    let mut ready = Vec::new();
    waiter.wait(Some(now_ns() + 20 * MS), &mut ready).unwrap();
    ready.sort();
    ready
}

#[test]
fn the_first_choice_is_shown_as_text() {
    let waiter = Waiter::new().unwrap();
    match waiter.backend() {
        Backend::IoUring => assert_eq!(waiter.description(), "io_uring"),
        Backend::Epoll => assert!(waiter.description().starts_with("epoll (cannot make")),
    }
}

#[test]
fn a_ready_fd_is_reported_again_and_again_until_it_is_drained() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(7)).unwrap();
        assert_eq!(soon(&mut waiter), []);
        ring(&bell);
        for _ in 0..3 {
            assert_eq!(soon(&mut waiter), [Token(7)]);
        }
        silence(&bell);
        assert_eq!(soon(&mut waiter), []);
        ring(&bell);
        assert_eq!(soon(&mut waiter), [Token(7)]);
    });
}

#[test]
fn what_was_rung_and_drained_between_two_waits_is_not_reported() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        assert_eq!(soon(&mut waiter), [], "armed and quiet");
        for _ in 0..100 {
            ring(&bell);
            silence(&bell);
        }
        // At most one completion was under way when the wait began.
        soon(&mut waiter);
        assert_eq!(soon(&mut waiter), []);
    });
}

#[test]
fn a_bell_from_another_thread_ends_a_wait_without_deadline() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(3)).unwrap();
        let ringer = {
            let bell = bell.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                ring(&bell);
            })
        };
        let mut ready = Vec::new();
        waiter.wait(None, &mut ready).unwrap();
        assert_eq!(ready, [Token(3)]);
        ringer.join().unwrap();
    });
}

#[test]
fn a_wait_ends_at_its_deadline_not_before_and_soon_after() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        let mut ready = vec![Token(99)];
        let mut latest_us = u64::MAX;
        for (round, wait_us) in [300, 2_000, 20_000].into_iter().chain([300; 7]).enumerate() {
            if round > 3 && latest_us < 5_000 {
                break;
            }
            let deadline = now_ns() + wait_us * 1000;
            waiter.wait(Some(deadline), &mut ready).unwrap();
            let now = now_ns();
            assert_eq!(ready, []);
            assert!(now >= deadline, "woke {} ns early", deadline - now);
            latest_us = latest_us.min((now - deadline) / 1000);
        }
        println!("{}: best lateness {latest_us} us", waiter.description());
        assert!(latest_us < 5_000, "never closer than {latest_us} us");
    });
}

#[test]
fn a_deadline_in_the_past_only_looks() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        let mut ready = Vec::new();
        for deadline in [0, 1, now_ns()] {
            waiter.wait(Some(deadline), &mut ready).unwrap();
            assert_eq!(ready, []);
        }
        ring(&bell);
        // epoll may report the expired timer first only together with what is ready.
        waiter.wait(Some(0), &mut ready).unwrap();
        assert_eq!(ready, [Token(1)]);
    });
}

/// How often the calling thread has waited in the kernel.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

/// A worker that spins looks each millisecond.
#[test]
fn a_look_is_no_sleep() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        let mut ready = Vec::new();
        waiter.wait(Some(now_ns()), &mut ready).unwrap();
        let before = sleeps();
        for _ in 0..100 {
            waiter.wait(Some(now_ns()), &mut ready).unwrap();
        }
        // Reading the file may sleep once in a while.
        assert!(sleeps() - before < 10, "{}", waiter.description());
    });
}

#[test]
fn a_removed_fd_is_silent() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        assert_eq!(soon(&mut waiter), []);
        waiter.remove(Token(1)).unwrap();
        ring(&bell);
        assert_eq!(soon(&mut waiter), []);
    });
}

#[test]
fn closing_a_removed_fd_is_seen_at_its_other_end_at_once() {
    with_both(|mut waiter| {
        let (mut far, near) = UnixStream::pair().unwrap();
        waiter.add(&near, Interest::Read, Token(1)).unwrap();
        assert_eq!(soon(&mut waiter), []);
        waiter.remove(Token(1)).unwrap();
        drop(near);
        far.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_token_is_used_once_at_a_time() {
    with_both(|mut waiter| {
        let (first, second) = (bell(), bell());
        waiter.add(&first, Interest::Read, Token(1)).unwrap();
        assert!(matches!(
            waiter.add(&second, Interest::Read, Token(1)),
            Err(WaitError::TokenTaken(1))
        ));
        assert!(matches!(
            waiter.add(&second, Interest::Read, TIMER),
            Err(WaitError::TokenTaken(u64::MAX))
        ));
        ring(&first);
        assert_eq!(soon(&mut waiter), [Token(1)]);
        waiter.remove(Token(1)).unwrap();
        assert!(matches!(
            waiter.remove(Token(1)),
            Err(WaitError::NoSuchToken(1))
        ));
        waiter.add(&second, Interest::Read, Token(1)).unwrap();
        assert_eq!(
            soon(&mut waiter),
            [],
            "the first fd's state is not the second's"
        );
    });
}

#[test]
fn hang_up_and_room_to_write_are_reported() {
    with_both(|mut waiter| {
        let (far, near) = UnixStream::pair().unwrap();
        waiter.add(&near, Interest::Write, Token(1)).unwrap();
        assert_eq!(soon(&mut waiter), [Token(1)]);
        waiter.remove(Token(1)).unwrap();
        waiter.add(&near, Interest::Read, Token(2)).unwrap();
        assert_eq!(soon(&mut waiter), []);
        drop(far);
        assert_eq!(soon(&mut waiter), [Token(2)]);
    });
}

#[test]
fn more_fds_than_the_submission_queue_holds_are_all_seen() {
    with_both(|mut waiter| {
        let bells: Vec<_> = (0..300).map(|_| bell()).collect();
        for (n, bell) in (0..).zip(&bells) {
            waiter.add(bell, Interest::Read, Token(n)).unwrap();
        }
        assert_eq!(soon(&mut waiter), []);
        for bell in &bells {
            ring(bell);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            for token in soon(&mut waiter) {
                let index = usize::try_from(token.0).unwrap();
                silence(&bells[index]);
                assert!(seen.insert(token), "{token:?} after it was drained");
            }
        }
        assert_eq!(seen.len(), bells.len());
        for n in 0..300 {
            waiter.remove(Token(n)).unwrap();
        }
        assert_eq!(soon(&mut waiter), []);
    });
}

/// The idle cost of a node with one link: a probe timer of 150 ms, one frame a probe, a tick of 375 ms.
#[test]
fn sixteen_wakes_a_second_cost_far_less_than_half_a_percent_of_a_core() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        let mut ready = Vec::with_capacity(4);
        let before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let wakes = 200;
        for _ in 0..wakes {
            waiter.wait(Some(now_ns() + MS / 2), &mut ready).unwrap();
        }
        let after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let spent = (after.tv_sec - before.tv_sec) * 1_000_000_000 + after.tv_nsec - before.tv_nsec;
        println!(
            "{}: {} ns of processor a wake",
            waiter.description(),
            spent / wakes
        );
        // 16 wakes a second within 0.5 % of a core leave 312 µs for each.
        assert!(spent / wakes < 200_000);
    });
}

#[test]
fn what_was_rung_more_than_once_and_drained_can_be_removed() {
    with_both(|mut waiter| {
        let bell = bell();
        waiter.add(&bell, Interest::Read, Token(1)).unwrap();
        assert_eq!(soon(&mut waiter), [], "armed and quiet");
        // After more than one ring the kernel looks again, and finds nothing.
        ring(&bell);
        ring(&bell);
        silence(&bell);
        let (removed, is_removed) = mpsc::channel();
        let bell = &bell;
        std::thread::scope(|scope| {
            let helper = scope.spawn(move || {
                let outcome = is_removed.recv_timeout(Duration::from_secs(10));
                // Ends a removal that hangs.
                ring(bell);
                outcome
            });
            waiter.remove(Token(1)).unwrap();
            // Fails if the helper has given up.
            let _ = removed.send(());
            assert_eq!(helper.join().unwrap(), Ok(()), "the removal hung");
        });
    });
}
