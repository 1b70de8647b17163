//! Both ends of the control socket, against each other and against rubbish.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;
use xtipc_management::*;

/// A node that has one peer and no links.
fn answer(request: Request) -> Response {
    match request {
        Request::NodeList => Response::Ok(Reply::Nodes(vec![NodeInfo {
            identity: "node-2".parse().expect("a name"),
            address: 0x435d_6465,
            up: true,
        }])),
        Request::Status => Response::Ok(Reply::Nodes(Vec::new())),
        _ => Response::error(95, "not here"),
    }
}

fn listen() -> (TempDir, PathBuf, UnixListener) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    (directory, path, listener)
}

/// Sends raw octets to `serve` and gives back the lines it answers and how it ended.
fn raw(octets: &[u8]) -> (Vec<String>, Result<(), TransportError>) {
    let (mut client, server) = UnixStream::pair().expect("a pair");
    let serving = thread::spawn(move || serve(&server, answer));
    client.write_all(octets).expect("room in the socket buffer");
    client
        .shutdown(std::net::Shutdown::Write)
        .expect("an open socket");
    let lines = BufReader::new(client)
        .lines()
        .map(|line| line.expect("UTF-8"))
        .collect();
    (lines, serving.join().expect("serve does not panic"))
}

#[test]
fn one_connection_carries_many_requests() {
    let (_directory, path, listener) = listen();
    let serving = thread::spawn(move || serve(&listener.accept().expect("a client").0, answer));
    let mut client = Client::connect(&path).expect("a daemon");
    for _ in 0..3 {
        assert_eq!(client.nodes().expect("a list")[0].address, 0x435d_6465);
        let refused = client.links().expect_err("no links");
        assert_eq!(refused.to_string(), "not here (errno 95)");
    }
    assert!(
        matches!(client.status(), Err(ClientError::Unexpected { .. })),
        "the reply to another request"
    );
    drop(client);
    serving
        .join()
        .expect("serve does not panic")
        .expect("a client that leaves between requests is no error");
}

#[test]
fn the_lines_on_the_wire_are_these() {
    let line =
        |request| String::from_utf8(encode_request(&request).expect("short")).expect("UTF-8");
    assert_eq!(line(Request::NodeList), "{\"request\":\"node-list\"}\n");
    assert_eq!(
        line(Request::LinkStatistics {
            filter: LinkFilter::Name("a\nb".to_owned())
        }),
        "{\"request\":\"link-statistics\",\"filter\":{\"name\":\"a\\nb\"}}\n"
    );
    assert_eq!(
        line(Request::LinkStatistics {
            filter: LinkFilter::Usual
        }),
        "{\"request\":\"link-statistics\",\"filter\":\"usual\"}\n"
    );
    let (lines, _) = raw(b"{\"request\":\"node-list\"}\n{\"request\":\"link-list\"}\n");
    assert_eq!(
        lines,
        [
            "{\"ok\":{\"nodes\":[{\"identity\":\"6e6f64652d3200000000000000000000\",\"address\":1130194021,\"up\":true}]}}",
            "{\"error\":{\"errno\":95,\"text\":\"not here\"}}",
        ]
    );
}

#[test]
fn a_request_nobody_can_read_is_refused_and_the_next_is_answered() {
    let unreadable: [&[u8]; 6] = [
        b"\n",
        b"frob\n",
        b"{}\n",
        b"{\"request\":\"frob\"}\n",
        b"[[[[\n",
        b"\xff\xfe\0\n",
    ];
    for octets in unreadable {
        let (lines, end) = raw(&[octets, b"{\"request\":\"node-list\"}\n"].concat());
        assert!(
            lines[0].starts_with("{\"error\":{\"errno\":22,"),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("{\"ok\":"), "{lines:?}");
        end.expect("the connection went on");
    }
}

#[test]
fn a_request_without_end_closes_the_connection() {
    let (lines, end) = raw(&[b' '; MAX_REQUEST]);
    assert_eq!(
        lines,
        ["{\"error\":{\"errno\":22,\"text\":\"a line of more than 4096 octets\"}}"]
    );
    assert!(matches!(
        end,
        Err(TransportError::TooLong { limit: MAX_REQUEST })
    ));
    let (lines, end) = raw(b"{\"request\":");
    assert!(lines.is_empty() && matches!(end, Err(TransportError::Truncated)));
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let (_directory, path, listener) = listen();
    let mut client = Client::connect(&path).expect("a daemon");
    let refused = client.link("x".repeat(MAX_REQUEST));
    assert!(matches!(
        refused,
        Err(ClientError::Request(TransportError::TooLong { .. }))
    ));
    drop(client);
    let mut sent = Vec::new();
    listener
        .accept()
        .expect("a client")
        .0
        .read_to_end(&mut sent)
        .expect("its end");
    assert_eq!(sent, b"");
}

#[test]
fn an_answer_that_is_too_long_becomes_an_error_that_fits() {
    let link = LinkSummary {
        name: "x".repeat(MAX_RESPONSE),
        up: true,
    };
    let line = encode_response(&Response::Ok(Reply::Links(vec![link])));
    let Response::Error(failure) = decode_response(&line).expect("a response") else {
        panic!("an answer of more than {MAX_RESPONSE} octets was sent");
    };
    assert_eq!(failure.errno, 90);
}

#[test]
fn a_status_of_another_version_is_understood() {
    let line = b"{\"ok\":{\"status\":{\"pid\":7,\"added-later\":[1],\"workers\":[{\"id\":3}]}}}\n";
    let Ok(Response::Ok(Reply::Status(status))) = decode_response(line) else {
        panic!("a status")
    };
    assert_eq!(
        (status.pid, status.workers[0].id, status.workers[0].policy),
        (7, 3, WorkerPolicy::Adaptive)
    );
}
