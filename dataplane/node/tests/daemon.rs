//! The program from outside: start, readiness, several instances, stop, refusals. Its nodes have no bearer,
//! so it needs no privileges.

use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A directory for one test, and the daemons started in it.
struct Host {
    directory: tempfile::TempDir,
    notifications: UnixDatagram,
}

/// A daemon that is killed if the test ends early.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the daemon did not end within 10 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notifications = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notifications
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            directory,
            notifications,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtipcd"));
        let empty = self.path("empty.toml");
        std::fs::write(&empty, "").unwrap();
        command
            .args(["--identity", "alone", "--log", "debug"])
            .arg("--config")
            .arg(empty)
            .arg("--run-dir")
            .arg(self.path("run"))
            .args(flags)
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env_remove("XTIPC_LOG")
            .stderr(Stdio::piped());
        command
    }

    /// Starts a daemon and waits until it says that it is ready.
    fn start(&self, flags: &[&str]) -> Daemon {
        let daemon = Daemon(self.command(flags).spawn().unwrap());
        assert_eq!(self.notification(), "READY=1");
        daemon
    }

    fn notification(&self) -> String {
        let mut text = [0; 256];
        let n = self.notifications.recv(&mut text).expect("a notification");
        String::from_utf8_lossy(&text[..n]).trim().to_owned()
    }

    fn refused(&self, flags: &[&str]) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.command(flags).output().unwrap();
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_daemon_becomes_ready_and_leaves_nothing_in_its_run_directory_at_sigterm() {
    let host = Host::new();
    let mut daemon = host.start(&["--workers", "2"]);
    assert_eq!(
        names(&host.path("run")),
        ["attach.sock", "control.sock", "xtipcd.pid"]
    );
    let pid = std::fs::read_to_string(host.path("run/xtipcd.pid")).unwrap();
    assert_eq!(pid.trim(), daemon.0.id().to_string());
    for ignored in [Signal::HUP, Signal::USR1, Signal::USR2] {
        daemon.signal(ignored);
    }
    daemon.signal(Signal::TERM);
    assert_eq!(host.notification(), "STOPPING=1");
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!host.path("run").exists());
}

#[test]
fn signals_that_come_together_ask_for_one_orderly_stop() {
    let host = Host::new();
    for _ in 0..20 {
        let mut daemon = host.start(&[]);
        let begun = Instant::now();
        for _ in 0..10 {
            // What comes later is a second request.
            if begun.elapsed() > Duration::from_millis(100) {
                break;
            }
            daemon.signal(Signal::TERM);
            // Long enough for it to take them one by one, and it is still stopping.
            std::thread::sleep(Duration::from_micros(50));
        }
        assert_eq!(host.notification(), "STOPPING=1");
        assert_eq!(daemon.exit_code(), Some(0));
    }
}

#[test]
fn tools_get_answers_on_the_control_socket() {
    let host = Host::new();
    let _daemon = host.start(&[]);
    let mut client = xtipc_management::Client::connect(&host.path("run/control.sock")).unwrap();
    let reply = client.call(&xtipc_management::Request::Status);
    // A daemon that cannot say much still answers.
    let answered = matches!(
        reply,
        Ok(_) | Err(xtipc_management::ClientError::Refused(_))
    );
    assert!(answered, "{reply:?}");
}

#[test]
fn a_crowd_of_tools_that_is_refused_leaves_few_lines_in_the_log() {
    let host = Host::new();
    let mut daemon = host.start(&[]);
    let connect = || UnixStream::connect(host.path("run/control.sock")).unwrap();
    let tools: Vec<_> = (0..100).map(|_| connect()).collect();
    // The last one has been refused.
    let mut last = &tools[99];
    assert_eq!(last.read(&mut [0]).unwrap(), 0);
    drop(tools);
    daemon.signal(Signal::TERM);
    let mut log = String::new();
    let mut stderr = daemon.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    let lines = log.lines().filter(|line| line.contains("refused"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn a_crowd_of_tools_that_comes_at_once_is_served() {
    let host = Host::new();
    let daemon = host.start(&[]);
    // So that all of them are there before the first is served.
    daemon.signal(Signal::STOP);
    std::thread::scope(|scope| {
        let tools: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| still_answers(&host)))
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        daemon.signal(Signal::CONT);
        let failed = tools.into_iter().filter_map(|tool| tool.join().err());
        assert_eq!(failed.count(), 0);
    });
}

#[test]
fn a_worker_that_never_sleeps_answers_tools_and_hears_of_the_stop() {
    let host = Host::new();
    let mut daemon = host.start(&["--policy", "busy"]);
    let mut client = xtipc_management::Client::connect(&host.path("run/control.sock")).unwrap();
    let reply = client.call(&xtipc_management::Request::Status);
    assert!(reply.is_ok(), "{reply:?}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_second_daemon_of_the_same_instance_is_refused_and_harms_nothing() {
    let host = Host::new();
    let first = host.start(&[]);
    let (code, stderr) = host.refused(&[]);
    assert_eq!(code, Some(1));
    let expected = format!("is in use by xtipcd with pid {}", first.0.id());
    assert!(stderr.contains(&expected), "{stderr}");
    UnixStream::connect(host.path("run/control.sock")).unwrap();
}

#[test]
fn a_socket_of_another_instance_is_found_taken_before_the_node_says_anything() {
    let host = Host::new();
    let taken = host.path("shared.sock");
    let socket = ["--socket", taken.to_str().unwrap()];
    let first = host.start(&[&socket[..], &["--instance", "red"]].concat());
    let (code, stderr) = host.refused(&[&socket[..], &["--instance", "blue"]].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("is in use by another process"), "{stderr}");
    assert!(!stderr.contains("worker"), "{stderr}");
    drop(first);
}

#[test]
fn instances_run_side_by_side() {
    let host = Host::new();
    let mut red = host.start(&["--instance", "red"]);
    let mut blue = host.start(&["--instance", "blue"]);
    red.signal(Signal::INT);
    assert_eq!(red.exit_code(), Some(0));
    assert_eq!(names(&host.path("run")), ["blue"]);
    UnixStream::connect(host.path("run/blue/control.sock")).unwrap();
    blue.signal(Signal::TERM);
    assert_eq!(blue.exit_code(), Some(0));
}

#[test]
fn after_a_kill_the_next_start_replaces_what_was_left() {
    let host = Host::new();
    let mut daemon = host.start(&[]);
    daemon.signal(Signal::KILL);
    assert_eq!(daemon.exit_code(), None);
    assert!(host.path("run/attach.sock").exists());
    let _next = host.start(&[]);
    UnixStream::connect(host.path("run/control.sock")).unwrap();
}

#[test]
fn wrong_settings_end_with_2_and_what_the_system_has_not_with_1() {
    let host = Host::new();
    let (code, stderr) = host.refused(&["--tolerance", "7"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        stderr,
        "xtipcd: command line: --tolerance: tolerance: `7` is out of range; accepted: 50 to 30000 (milliseconds)\n"
    );
    let (code, stderr) = host.refused(&["--cpus", "1000"]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("processor 1000 does not exist; accepted: 0"),
        "{stderr}"
    );
    let (code, stderr) = host.refused(&["--socket", "/nonexistent/x"]);
    assert_eq!(code, Some(1));
    let expected =
        "cannot bind the socket /nonexistent/x: No such file or directory (os error 2)\n";
    assert!(stderr.ends_with(expected), "{stderr}");
    assert!(!host.path("run").exists());
    assert_eq!(host.refused(&["--check"]).0, Some(0));
}

#[test]
fn a_service_manager_without_a_place_in_the_file_system_is_told_too() {
    let host = Host::new();
    let name = format!("xtipc-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut command = host.command(&[]);
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _daemon = Daemon(command.spawn().unwrap());
    let mut text = [0; 64];
    let n = manager.recv(&mut text).expect("a notification");
    assert_eq!(&text[..n], b"READY=1\n");
}

#[test]
fn a_daemon_may_have_as_many_descriptors_as_the_hard_limit_allows() {
    let host = Host::new();
    let plain = host.command(&[]);
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"ulimit -Sn 64; exec "$@""#, "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("NOTIFY_SOCKET", host.path("notify"))
        .stderr(Stdio::null());
    let daemon = Daemon(command.spawn().unwrap());
    assert_eq!(host.notification(), "READY=1");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.0.id())).unwrap();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let [soft, hard] = [0, 1].map(|word| files.unwrap().split_whitespace().nth(word));
    assert_eq!(soft, hard, "{limits}");
}

/// Leaves two lines in the log: a program has come, and gone.
fn attach_once(host: &Host) {
    xtipc::Node::builder()
        .socket_path(host.path("run/attach.sock"))
        .attach()
        .unwrap();
}

fn still_answers(host: &Host) {
    let mut client = xtipc_management::Client::connect(&host.path("run/control.sock")).unwrap();
    let reply = client.call(&xtipc_management::Request::Status);
    assert!(reply.is_ok(), "{reply:?}");
}

#[test]
fn a_log_that_nobody_takes_holds_up_nothing() {
    let host = Host::new();
    let mut daemon = host.start(&[]);
    let mut log = daemon.0.stderr.take().unwrap();
    rustix::pipe::fcntl_setpipe_size(&log, 4096).unwrap();
    (0..50).for_each(|_| attach_once(&host));
    still_answers(&host);
    assert!(log.read(&mut [0; 4096]).unwrap() > 0);
    attach_once(&host);
    daemon.signal(Signal::TERM);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(" lines of the log were not taken"), "{rest}");
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_log_whose_reader_has_gone_ends_nothing() {
    let host = Host::new();
    let mut daemon = host.start(&[]);
    drop(daemon.0.stderr.take());
    attach_once(&host);
    still_answers(&host);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn an_idle_daemon_costs_less_than_half_a_percent_of_a_core() {
    let host = Host::new();
    let daemon = host.start(&[]);
    // What its threads have run, in nanoseconds: ticks of 10 ms fall on whoever runs by chance.
    let spent = || -> u64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.0.id())).unwrap();
        let spent = threads.map(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            let ran = stat.split(' ').next().unwrap();
            ran.parse::<u64>().unwrap()
        });
        spent.sum()
    };
    let before = spent();
    std::thread::sleep(Duration::from_secs(4));
    let spent = Duration::from_nanos(spent() - before);
    println!("{spent:?} in 4 s");
    assert!(spent <= Duration::from_millis(20), "{spent:?} in 4 s");
}
