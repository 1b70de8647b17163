//! What an operator sees when something is wrong: one clear message on stderr, nothing on stdout, the status of the
//! tipc tool.

mod support;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{FakeDaemon, Outcome, command, run};
use xtipc_management::Response;

fn failed(stderr: &str) -> Outcome {
    Outcome {
        stdout: String::new(),
        stderr: stderr.to_owned(),
        status: Some(255),
    }
}

#[test]
fn words_and_keys_that_are_wrong_fail_as_in_the_tool() {
    let daemon = FakeDaemon::start();
    let table = [
        (
            "frob",
            "error, invalid command \"frob\"\nuse --help for command help\n",
        ),
        (
            "n list",
            "error, invalid command \"n\"\nuse --help for command help\n",
        ),
        (
            "link get priority frob x",
            "error, invalid option \"frob\"\n",
        ),
        ("link get priority link", "error, missing value\n"),
        ("node set key", "error, missing value\n"),
        ("node set key 0x12z4", "error, invalid key input\n"),
        (
            "node set key a_key_that_is_longer_than_a_key_can_be",
            "error, invalid key input\n",
        ),
        (
            "node set key this_is_a_master_key master nodeid x",
            "error, per-node key cannot be master\n",
        ),
        (
            "node set key this_is_a_master_key algname an_algorithm_of_more_letters_than_31",
            "error, invalid algname\n",
        ),
        (
            "node set key rekeying often",
            "error, invalid rekeying interval \"often\": minutes or now is accepted\n",
        ),
        (
            "node set key k master frob",
            "error, invalid option \"frob\"\n",
        ),
        ("link get priority", "error, missing link\n"),
        ("media get mtu", "error, missing media\n"),
        (
            "media get mtu media eth",
            "error, not supported for media\n",
        ),
        ("bearer enable", "error, missing bearer media\n"),
        ("bearer disable media eth", "error, missing bearer device\n"),
        ("bearer disable media udp", "error, missing bearer name\n"),
        (
            "bearer enable media udp name U",
            "error, udp bearer localip/device missing\n",
        ),
        ("bearer add media udp name U", "error, missing remoteip\n"),
        (
            "bearer add media udp name U remoteip a..b",
            "UDP remote address error: Name or service not known\n",
        ),
        (
            "bearer enable media udp name U localip a..b remoteip 10.9.0.1",
            "UDP local address error: Name or service not known\n",
        ),
        (
            "bearer remove media udp name U remoteip 10.9.0.1 remoteport 0",
            "error, invalid port \"0\": 1 to 65535 is accepted\n",
        ),
        (
            "bearer get media udp name UDP1",
            "error, missing UDP option\n",
        ),
        (
            "bearer get media eth name eth0 localip",
            "error, missing bearer device\n",
        ),
        (
            "bearer get window media foo device eth0",
            "error, invalid media type foo: eth, ib, udp and shm are accepted\n",
        ),
        (
            "bearer get window media eth device eth7",
            "Error: Bearer not found.\nxtipcd answers: Invalid argument\n",
        ),
        (
            "bearer get mtu media eth device eth0",
            "error, not supported for media\n",
        ),
        ("bearer set window 80", "error, missing bearer media\n"),
        ("link set window 80", "error, missing link\n"),
        ("media set window 80", "error, missing media\n"),
        (
            "media get mtu media foo",
            "Error: Media not found.\nxtipcd answers: Invalid argument\n",
        ),
        (
            "link get priority link nowhere",
            "xtipcd answers: Invalid argument\n",
        ),
        (
            "link get priority link broadcast-link",
            "xtipcd answers: Operation not supported\n",
        ),
        (
            "socket",
            "Usage: xtipc socket COMMAND [ARGS] ...\n\nCOMMANDS\n list                  - List sockets (ports), with -d also their owners and what they wait for\n",
        ),
        ("socket list -h", "Usage: xtipc socket list\n"),
        ("link monitor set threshold", "error, missing value\n"),
    ];
    for (line, stderr) in table {
        assert_eq!(daemon.xtipc(line), failed(stderr), "xtipc {line}");
    }
}

#[test]
fn a_wrong_option_ends_with_the_status_of_getopt_users() {
    let outcome = FakeDaemon::start().xtipc("link list -x");
    assert_eq!(
        (outcome.status, outcome.stderr.as_str()),
        (Some(1), "xtipc: invalid option -- 'x'\n")
    );
}

#[test]
fn without_a_daemon_the_message_asks_whether_it_runs() {
    for path in ["/nonexistent/control.sock", "/dev/null/control.sock"] {
        let outcome = run(command(Path::new(path), "link list")).expect("xtipc runs");
        assert_eq!(
            outcome,
            failed(&format!("no daemon at {path}: is xtipcd running?\n"))
        );
    }
    let stale = tempfile::TempDir::new().expect("a directory");
    let path = stale.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    // A child that another test is starting holds the listener between its fork and its exec.
    let ask = || run(command(&path, "link list")).expect("xtipc runs");
    let outcome = (0..100)
        .map(|_| ask())
        .find(|outcome| !outcome.stderr.contains("went away"))
        .expect("the listener is closed for good at last");
    assert_eq!(
        outcome,
        failed(&format!(
            "no daemon at {}: is xtipcd running?\n",
            path.display()
        ))
    );
}

#[test]
fn the_socket_of_an_instance_is_below_its_directory() {
    let mut named = Command::new(env!("CARGO_BIN_EXE_xtipc"));
    named.args(["--instance", "no-such-instance", "status"]);
    let expected =
        failed("no daemon at /run/xtipc/no-such-instance/control.sock: is xtipcd running?\n");
    assert_eq!(run(named).expect("xtipc runs"), expected);
}

#[test]
fn a_user_whom_the_socket_does_not_admit_is_told_so() {
    const NOBODY: u32 = 65_534;
    let daemon = FakeDaemon::start();
    let directory = daemon.socket().parent().expect("a directory").to_owned();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("own directory");
    fs::set_permissions(daemon.socket(), Permissions::from_mode(0o000)).expect("own socket");
    let is_root = fs::metadata("/proc/self").expect("procfs").uid() == 0;
    let mut asking = command(&daemon.socket(), "status");
    if is_root {
        asking.uid(NOBODY);
    }
    match run(asking) {
        Ok(outcome) => {
            assert!(
                outcome.stderr.starts_with("permission denied at "),
                "{outcome:?}"
            );
            assert_eq!(outcome.status, Some(255));
        }
        Err(error) => eprintln!("skipped: another user cannot run the binary here: {error}"),
    }
}

#[test]
fn a_daemon_that_goes_away_is_reported() {
    let daemon = FakeDaemon::accepting(|stream| {
        let mut request = String::new();
        BufReader::new(&stream)
            .read_line(&mut request)
            .expect("a request");
        (&stream)
            .write_all(b"{\"ok\":")
            .expect("a client that reads");
    });
    let stderr = format!(
        "the daemon at {} closed the connection before it had answered: it has ended, or is busy with other tools\n",
        daemon.socket().display()
    );
    assert_eq!(daemon.xtipc("status"), failed(&stderr));
}

#[test]
fn an_answer_that_is_none_is_reported() {
    for answer in [
        "garbage\n",
        "{\"ok\":{\"nodes\":[]}}\n",
        "{\"ok\":{\"links\":[{\"name\":1}]}}\n",
    ] {
        let daemon = FakeDaemon::accepting(move |stream| {
            let mut request = String::new();
            BufReader::new(&stream)
                .read_line(&mut request)
                .expect("a request");
            (&stream)
                .write_all(answer.as_bytes())
                .expect("a client that reads");
        });
        let outcome = daemon.xtipc("link list");
        assert!(
            outcome.stderr.contains("answered something else"),
            "{outcome:?}"
        );
        assert!(
            outcome
                .stderr
                .ends_with("are xtipc and xtipcd of one version?\n"),
            "{outcome:?}"
        );
        assert_eq!((outcome.stdout.as_str(), outcome.status), ("", Some(255)));
    }
}

#[test]
fn a_refusal_shows_the_text_of_the_daemon_and_the_name_of_the_error() {
    let daemon = FakeDaemon::answering(|_| Response::error(1, "only root may ask that"));
    let stderr = "Error: only root may ask that.\nxtipcd answers: Operation not permitted\n";
    assert_eq!(daemon.xtipc("status"), failed(stderr));
}

#[test]
fn a_reader_that_leaves_early_causes_no_message() {
    let daemon = FakeDaemon::start();
    let mut asking = command(&daemon.socket(), "link list");
    let mut child = asking
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xtipc runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
