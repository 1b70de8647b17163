//! The output of every command, byte for byte, from the real binary asking a fake daemon.

mod support;

use serde_json::{Value, json};
use support::{FakeDaemon, Outcome};
use xtipc_management::Response;

fn good(stdout: &str) -> Outcome {
    Outcome {
        stdout: stdout.to_owned(),
        stderr: String::new(),
        status: Some(0),
    }
}

#[test]
fn text_and_json_are_those_of_the_tipc_tool() {
    let daemon = FakeDaemon::start();
    let table = [
        ("node list", include_str!("data/node-list.txt")),
        (
            "node get identity",
            include_str!("data/node-get-identity.txt"),
        ),
        ("node get address", "0a010000\n"),
        ("node get netid", "4711\n"),
        ("node get clusterid", "4711\n"),
        ("link monitor get threshold", "32\n"),
        ("-j link mon get threshold", "[{\"threshold\":32}]\n"),
        ("link monitor set threshold 8", ""),
        (
            "link monitor summary",
            include_str!("data/monitor-summary.txt"),
        ),
        (
            "link monitor summary -j",
            include_str!("data/monitor-summary.json"),
        ),
        ("link monitor list", include_str!("data/monitor-list.txt")),
        ("link monitor list media eth device eth1", ""),
        (
            "link monitor list -j",
            include_str!("data/monitor-list.json"),
        ),
        ("node get key", include_str!("data/node-get-key.txt")),
        (
            "node get k -jp",
            include_str!("data/node-get-key-pretty.json"),
        ),
        ("link list", include_str!("data/link-list.txt")),
        ("link list -p", include_str!("data/link-list.txt")),
        ("-j link list", include_str!("data/link-list.json")),
        ("link -jp list", include_str!("data/link-list-pretty.json")),
        (
            "link statistics show",
            include_str!("data/link-statistics.txt"),
        ),
        ("link statistics show link nowhere", ""),
        ("link statistics show link nowhere -j", "[]\n"),
        (
            "-j -p link stat show link node-2",
            include_str!("data/link-statistics-node-2-pretty.json"),
        ),
        (
            "link get priority link 0a0000000001:eth0-node-2:eth0",
            "10\n",
        ),
        (
            "link get tolerance link 0a0000000001:eth0-node-2:eth0 -j",
            "[{\"tolerance\":1500}]\n",
        ),
        ("link get window link broadcast-link", "50\n"),
        (
            "link get window link 0a0000000001:eth0-node-2:eth0",
            "8191\n",
        ),
        ("bearer get tolerance media eth device eth0", "1500\n"),
        ("nametable show", include_str!("data/nametable.txt")),
        ("nametable show -j", include_str!("data/nametable.json")),
        ("bearer get media udp name UDP1 localip", "10.9.0.1\n"),
        ("bearer get med udp n UDP1 localport", "6118\n"),
        (
            "bearer get media udp name UDP1 remoteip",
            "10.9.0.7\n10.9.0.2\n",
        ),
        ("bearer get media udp remoteport name UDP1", "6118\n7000\n"),
        ("bearer list", include_str!("data/bearer-list.txt")),
        (
            "bearer list -d",
            include_str!("data/bearer-list-details.txt"),
        ),
        ("media list", "eth\nudp\n"),
        ("media get window media eth", "8191\n"),
        ("media get mtu media udp", "14000\n"),
        ("socket list", include_str!("data/socket-list.txt")),
        (
            "socket list -d",
            include_str!("data/socket-list-details.txt"),
        ),
        ("status", include_str!("data/status.txt")),
    ];
    for (line, stdout) in table {
        assert_eq!(daemon.xtipc(line), good(stdout), "xtipc {line}");
    }
}

#[test]
fn link_all_also_lists_the_broadcast_receive_links() {
    let text = FakeDaemon::start()
        .xtipc("link statistics show link all")
        .stdout;
    let names: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("Link <"))
        .collect();
    assert_eq!(
        names,
        [
            "Link <broadcast-link>",
            "Link <broadcast-link:node-2>",
            "Link <0a0000000001:eth0-node-2:eth0>"
        ]
    );
}

#[test]
fn json_of_the_commands_that_print_only_text_in_the_tool() {
    let daemon = FakeDaemon::start();
    let ask =
        |line: &str| -> Value { serde_json::from_str(&daemon.xtipc(line).stdout).expect(line) };
    assert_eq!(
        ask("node list -j")[1],
        json!({"identity": "node-2", "hash": "435d6465", "address": 1_130_194_021, "state": "up"})
    );
    assert_eq!(
        ask("node get identity -j"),
        json!([{"identity": "0a0000000001", "hash": "0a010000"}])
    );
    assert_eq!(ask("node get address -j"), json!([{"address": "0a010000"}]));
    assert_eq!(
        ask("node get netid -jp"),
        json!([{"netid": 4711, "clusterid": 4711}])
    );
    assert_eq!(ask("media list -j")[1]["mtu"], json!(14_000));
    assert_eq!(ask("bearer list -j")[0]["mode"], json!("xdp-generic"));
    assert_eq!(
        ask("socket list -j")[0]["bound"],
        json!([{"type": 1, "lower": 1, "upper": 1, "scope": "node"}])
    );
    assert_eq!(
        ask("socket list -j")[1]["connected"]["via"],
        json!({"type": 18_888, "instance": 17})
    );
    let status = ask("status -j");
    assert_eq!(status[0]["node"]["identity"], json!("0a0000000001"));
    assert_eq!(status[0]["peers"][0]["identity"], json!("node-2"));
    assert_eq!(
        status[0]["bearers"][0]["queues"][0]["kernel"]["rx-dropped"],
        json!(1)
    );
    assert_eq!(status[0]["workers"][0]["wait"], json!("io-uring"));
    assert_eq!(status, ask("status -jp"), "the layout changes nothing");
}

#[test]
fn an_empty_node_prints_only_what_the_tool_prints() {
    let daemon = FakeDaemon::answering(|request| {
        use xtipc_management::{OwnNode, Reply, Request, Response};
        Response::Ok(match request {
            Request::NodeList => Reply::Nodes(Vec::new()),
            Request::NodeGet => Reply::Node(OwnNode {
                cluster_id: 4711,
                ..OwnNode::default()
            }),
            Request::NameTable => Reply::NameTable(Vec::new()),
            Request::BearerList => Reply::Bearers(Vec::new()),
            Request::SocketList { .. } => Reply::Sockets(Vec::new()),
            other => return Response::error(22, format!("not asked here: {other:?}")),
        })
    });
    let unset = format!("Node Identity                    Hash\n{:33}00000000\n", "");
    let table = [
        (
            "node list",
            "Node Identity                    Hash     State\n",
        ),
        ("node get identity", unset.as_str()),
        ("nametable show", ""),
        ("nametable show -j", "[]\n"),
        ("bearer list", ""),
        ("bearer list -d", ""),
        ("socket list", ""),
    ];
    for (line, stdout) in table {
        assert_eq!(daemon.xtipc(line), good(stdout), "xtipc {line}");
    }
}

#[test]
fn what_changes_something_is_sent_as_it_was_typed_and_prints_nothing() {
    let asked = FakeDaemon::answering(|request| {
        Response::error(22, serde_json::to_string(&request).expect("JSON"))
    });
    let table = [
        (
            "bearer enable media eth device eth1 domain 0",
            r#"{"request":"bearer-enable","bearer":"eth:eth1"}"#,
        ),
        (
            "bearer enable prio 4 m eth dev eth1 vlan 7 tol 800 queues 0,1 w 60",
            r#"{"request":"bearer-enable","bearer":"eth:eth1,priority=4,tolerance=800,window=60,vlan=7,queues=0,1"}"#,
        ),
        (
            "bearer enable media udp name U localip 10.9.0.1 remoteport 7000 remoteip 10.9.0.2",
            r#"{"request":"bearer-enable","bearer":"udp:U,localip=10.9.0.1,remoteip=10.9.0.2,remoteport=7000"}"#,
        ),
        (
            "bearer enable media udp name U device eth1 mtu 9000",
            r#"{"request":"bearer-enable","bearer":"udp:U,device=eth1,mtu=9000"}"#,
        ),
        (
            "bearer enable media udp name U localip 127.0.0.1 remoteip localhost",
            r#"{"request":"bearer-enable","bearer":"udp:U,localip=127.0.0.1,remoteip=127.0.0.1"}"#,
        ),
        (
            "bearer enable media udp name U localip fe80::1%eth1 remoteip fe80::2",
            r#"{"request":"bearer-enable","bearer":"udp:U,localip=fe80::1%eth1,remoteip=fe80::2"}"#,
        ),
        (
            "bearer enable media udp name U localip 10.9.0.1 device eth1",
            r#"{"request":"bearer-enable","bearer":"udp:U,device=eth1,localip=10.9.0.1"}"#,
        ),
        (
            // Not an address as it stands: the system makes one of it, as of a name.
            "bearer add media udp name U remoteip 10.9",
            r#"{"request":"bearer-add","name":"udp:U","remote":"10.0.0.9:6118"}"#,
        ),
        (
            "bearer enable media shm name pod dir /run/pod window 80",
            r#"{"request":"bearer-enable","bearer":"shm:pod,window=80,dir=/run/pod"}"#,
        ),
        (
            "bearer enable media ib device ib0 priority 5",
            r#"{"request":"bearer-enable","bearer":"ib:ib0,priority=5"}"#,
        ),
        (
            "bearer disable media shm name pod",
            r#"{"request":"bearer-disable","name":"shm:pod"}"#,
        ),
        (
            "bearer add media udp name U remoteip 10.9.0.3",
            r#"{"request":"bearer-add","name":"udp:U","remote":"10.9.0.3:6118"}"#,
        ),
        (
            "bearer add media udp name U remoteip fe80::3%eth0",
            r#"{"request":"bearer-add","name":"udp:U","remote":"[fe80::3]:6118"}"#,
        ),
        (
            "bearer remove media udp name U remoteip fd09::3 remoteport 7000",
            r#"{"request":"bearer-remove","name":"udp:U","remote":"[fd09::3]:7000"}"#,
        ),
        (
            "bearer set mtu 1400 media udp name U",
            r#"{"request":"bearer-set","name":"udp:U","property":"mtu","value":1400}"#,
        ),
        (
            "bearer disable media eth device eth1",
            r#"{"request":"bearer-disable","name":"eth:eth1"}"#,
        ),
        (
            "bearer set tolerance 900 media eth device eth1",
            r#"{"request":"bearer-set","name":"eth:eth1","property":"tolerance","value":900}"#,
        ),
        (
            "link set priority 12 link a:eth0-b:eth0",
            r#"{"request":"link-set","name":"a:eth0-b:eth0","property":"priority","value":12}"#,
        ),
        (
            "media set window 60 media udp",
            r#"{"request":"media-set","name":"udp","property":"window","value":60}"#,
        ),
    ];
    let keys = [
        (
            "node set key this_is_a_master_key master",
            r#"{"request":"key-set","key":"this_is_a_master_key","algorithm":"gcm(aes)","node":null,"master":true,"rekeying":null}"#,
        ),
        (
            "no set k 0x1234 rekey 5 algname other nodeid 0a0000000001",
            r#"{"request":"key-set","key":"0x1234","algorithm":"other","node":"30613030303030303030303100000000","master":false,"rekeying":{"minutes":5}}"#,
        ),
        (
            "node set key rekeying now",
            r#"{"request":"key-set","key":null,"algorithm":"gcm(aes)","node":null,"master":false,"rekeying":"now"}"#,
        ),
        ("node flush key", r#"{"request":"key-flush"}"#),
    ];
    let done = FakeDaemon::start();
    for (line, request) in table.into_iter().chain(keys) {
        let expected = format!("Error: {request}.\nxtipcd answers: Invalid argument\n");
        assert_eq!(asked.xtipc(line).stderr, expected, "xtipc {line}");
        let outcome = done.xtipc(line);
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(0), ""));
    }
}
