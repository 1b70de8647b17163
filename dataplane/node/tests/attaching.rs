//! What a program may ask for when it attaches.

mod host;

use std::thread;
use std::time::Duration;

use host::Host;
use rustix::process::{Pid, Signal, kill_process};
use xtipc::{Error, Node, NodeBuilder};

fn builder(host: &Host) -> NodeBuilder {
    Node::builder().socket_path(host.attach_socket())
}

/// KiB of the shared memory of segments that this process has touched.
fn resident_kib() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines();
    let mut sum = 0;
    while let Some(line) = lines.next() {
        if line.contains("/memfd:xtipc-") {
            let resident = lines.find(|line| line.starts_with("Rss:")).unwrap();
            sum += resident
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap();
        }
    }
    sum
}

#[test]
fn memory_taken_at_once_is_there_before_it_is_touched() {
    let host = Host::start();
    let node = builder(&host).attach().unwrap();
    let lazy = resident_kib();
    assert!(lazy < 1024, "{lazy} KiB");
    let prefaulted = builder(&host).prefault(true).attach().unwrap();
    let taken = resident_kib() - lazy;
    assert!(taken > 6 * 1024, "{taken} KiB");
    drop((node, prefaulted));
}

#[test]
fn a_worker_that_serves_no_applications_is_refused_with_the_one_that_does() {
    let host = Host::start();
    builder(&host).worker(0).attach().unwrap();
    let refused = builder(&host).worker(3).attach().unwrap_err();
    let Error::Refused { reason } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(reason, "worker 3 serves no applications, worker 0 does");
}

#[test]
fn a_crowd_of_programs_that_comes_at_once_is_attached() {
    let host = Host::start();
    let daemon = Pid::from_raw(host.pid().cast_signed()).unwrap();
    // So that all of them are there before the first is served.
    kill_process(daemon, Signal::STOP).unwrap();
    thread::scope(|scope| {
        let programs: Vec<_> = (0..120)
            .map(|_| scope.spawn(|| builder(&host).attach()))
            .collect();
        thread::sleep(Duration::from_millis(200));
        kill_process(daemon, Signal::CONT).unwrap();
        for program in programs {
            program.join().unwrap().unwrap();
        }
    });
}
