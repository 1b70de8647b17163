use std::io::Write;

use super::*;

/// The result of these flags and this file, `path` standing for it in messages.
fn load_with(
    flags: &[&str],
    file: &str,
    log_variable: Option<&str>,
) -> Result<Config, ConfigError> {
    let mut path = tempfile::NamedTempFile::new().unwrap();
    path.write_all(file.as_bytes()).unwrap();
    let name = path.path().to_str().unwrap();
    let line = ["xtipcd", "--config", name].into_iter();
    let line = line.chain(flags.iter().copied());
    let command_line = CommandLine::try_parse_from(line).unwrap();
    Config::load(command_line, log_variable.map(str::to_owned))
}

fn load(flags: &[&str], file: &str) -> Result<Config, ConfigError> {
    load_with(flags, file, None)
}

/// The message without the file's random name.
fn message(flags: &[&str], file: &str) -> String {
    let text = load(flags, file).unwrap_err().to_string();
    match text.split_once(": ") {
        Some((origin, rest)) if origin.starts_with('/') => format!("FILE: {rest}"),
        _ => text,
    }
}

fn bearer(text: &str) -> Result<BearerSpec, ConfigError> {
    let identity = ["--identity", "node", "--bearer", text];
    load(&identity, "").map(|mut config| config.bearers.remove(0))
}

#[test]
fn one_bearer_is_enough_and_all_else_has_defaults() {
    let config = load(&["--bearer", "eth:eth0"], "").unwrap();
    let expected = Config {
        instance: None,
        identity: None,
        cluster_id: 4711,
        bearers: vec![BearerSpec {
            interface: "eth0".into(),
            ..BearerSpec::default()
        }],
        attach_socket: "/run/xtipc/attach.sock".into(),
        control_socket: "/run/xtipc/control.sock".into(),
        attach_access: Access {
            mode: 0o660,
            group: None,
        },
        control_access: Access {
            mode: 0o660,
            group: None,
        },
        workers: 1,
        cpus: vec![],
        interrupts: InterruptsSpec::Workers,
        policy: Policy::Adaptive,
        xdp: XdpMode::Auto,
        tolerance_ms: 1500,
        frames: 8192,
        bundling: true,
        supervision: Supervision::Auto,
        direct_after: 32,
        direct_idle: 60,
        key_file: None,
        master_key_file: None,
        rekeying_minutes: None,
        encryption: ClearText::Auto,
        state_dir: "/var/lib/xtipc".into(),
        log: "info".into(),
        run_dir: "/run/xtipc".into(),
        receive_buffer: 2_097_152,
        key_exchange: true,
        broadcast_repair_by_unicast: false,
        without_effect: vec![],
    };
    assert_eq!(config, expected);
}

#[test]
fn every_key_of_the_file_is_taken() {
    let config = load(
        &[],
        r#"
        instance = "red"
        identity = "node1"
        cluster_id = 42
        bearer = ["eth:eth0,priority=12,tolerance=800", "eth:eth1"]
        socket = "/run/red.sock"
        workers = 2
        cpus = [0, 2, 3]
        interrupts = "1,4"
        policy = "sleep"
        xdp = "generic"
        tolerance = 3000
        frames = 2048
        bundling = false
        direct_after = 1
        direct_idle = 5
        supervision = "ring"
        rekeying = 0
        encryption = "required"
        state_dir = "/tmp/state"
        log = "warn,xtipcd=debug"
        run_dir = "/tmp/run"
        attach_mode = "0666"
        attach_group = "root"
        control_mode = "600"
        control_group = 7
        tipc_rmem = "4096 65536\t131072"
        key_exchange_enabled = 0
        bc_retruni = 1
        named_timeout = 2000
        max_tfms = 10
        sk_filter = [0, 0, 0, 0, 0]
        "#,
    )
    .unwrap();
    assert_eq!(config.instance.as_deref(), Some("red"));
    assert_eq!(
        config.identity,
        Some(NodeIdentity(*b"node1\0\0\0\0\0\0\0\0\0\0\0"))
    );
    assert_eq!(config.cluster_id, 42);
    assert_eq!(config.bearers[0].priority, Some(12));
    assert_eq!(config.bearers[1].name(), "eth:eth1");
    assert_eq!(config.attach_socket, Path::new("/run/red.sock"));
    assert_eq!(
        config.control_socket,
        Path::new("/tmp/run/red/control.sock")
    );
    assert_eq!(
        (
            config.rekeying_minutes,
            config.encryption,
            config.supervision
        ),
        (Some(0), ClearText::Refused, Supervision::Ring)
    );
    assert_eq!(config.state_dir, Path::new("/tmp/state/red"));
    assert_eq!((config.workers, &config.cpus[..]), (2, &[0, 2, 3][..]));
    assert_eq!(config.interrupts, InterruptsSpec::Cpus(vec![1, 4]));
    assert_eq!(
        (config.policy, config.xdp),
        (Policy::Sleep, XdpMode::Generic)
    );
    assert_eq!(
        (config.tolerance_ms, config.tolerance_ms_min()),
        (3000, 800)
    );
    assert_eq!((config.frames, config.receive_buffer), (2048, 65_536));
    assert!(!config.key_exchange);
    assert!(config.broadcast_repair_by_unicast);
    assert!(!config.bundling);
    assert_eq!((config.direct_after, config.direct_idle), (1, 5));
    assert_eq!(config.log, "warn,xtipcd=debug");
    assert_eq!(config.run_dir, Path::new("/tmp/run/red"));
    let access = |mode, group| Access { mode, group };
    assert_eq!(config.attach_access, access(0o666, Some(0)));
    assert_eq!(config.control_access, access(0o600, Some(7)));
}

#[test]
fn every_key_is_a_flag_and_every_flag_but_config_and_check_a_key() {
    use clap::CommandFactory;
    let command = CommandLine::command();
    let flags = command.get_arguments().filter_map(|a| a.get_long());
    let mut flags: Vec<_> = flags
        .filter(|f| !["config", "check", "help", "version"].contains(f))
        .map(|f| f.replace('-', "_"))
        .collect();
    flags.sort();
    // The parser's complaint about an unknown key lists the known ones.
    let complaint = message(&[], "no_such_key = 1");
    let (_, expected) = complaint.split_once("expected one of").unwrap();
    let mut keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    keys.sort();
    assert_eq!(keys, flags);
}

#[test]
fn flags_override_the_file_and_its_bearers_as_a_whole() {
    let file = "bearer = [\"eth:eth0\", \"eth:eth1\"]\ntolerance = 500\nworkers = 3";
    let config = load(&["--bearer", "eth:eth2", "--tolerance", "700"], file).unwrap();
    assert_eq!(config.bearers.len(), 1);
    assert_eq!(config.bearers[0].interface, "eth2");
    assert_eq!((config.tolerance_ms, config.workers), (700, 3));
}

#[test]
fn an_instance_has_directories_of_its_own() {
    let config = load(&["--instance", "a.1", "--identity", "x"], "").unwrap();
    assert_eq!(config.run_dir, Path::new("/run/xtipc/a.1"));
    assert_eq!(
        config.attach_socket,
        Path::new("/run/xtipc/a.1/attach.sock")
    );
}

#[test]
fn identities_are_text_or_hex_or_a_mac() {
    let identity = |text| {
        load(&["--identity", text], "")
            .map(|c| c.identity.unwrap().0)
            .map_err(|e| e.to_string())
    };
    assert_eq!(identity("sixteen.chars@_-"), Ok(*b"sixteen.chars@_-"));
    // Up to 16 characters are text even if they could be hex digits, as in the Linux tool.
    assert_eq!(identity("0123456789abcdef"), Ok(*b"0123456789abcdef"));
    let mut hex = [0; 16];
    (hex[0], hex[15]) = (0x52, 0xfe);
    assert_eq!(identity("520000000000000000000000000000FE"), Ok(hex));
    let from = |media, address| identity_from(media, address).map(|identity| identity.0);
    let mac = MediaAddr::ethernet([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    assert_eq!(
        from(Media::Ethernet, mac),
        Some(*b"\x52\x54\x00\x12\x34\x56\0\0\0\0\0\0\0\0\0\0")
    );
    let udp = |text: &str| from(Media::Udp, MediaAddr::from_udp(text.parse().unwrap()));
    assert_eq!(
        udp("10.1.0.9:6118"),
        Some(*b"\x0a\x01\x00\x09\0\0\0\0\0\0\0\0\0\0\0\0")
    );
    let v6 = "[2001:db8::7]:6118";
    assert_eq!(
        udp(v6),
        Some(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07")
    );
    assert_eq!(
        from(Media::InfiniBand, MediaAddr::from_infiniband([1; 20])),
        None
    );
    for wrong in [
        "",
        "seventeen.chars@_-",
        "a b",
        "00000000000000000000000000000000",
    ] {
        let refusal = identity(wrong).unwrap_err();
        assert_eq!(
            refusal,
            format!(
                "command line: --identity: identity: `{wrong}` is no node identity; accepted: \
                 up to 16 of 0-9 A-Z a-z . : _ @ -, or up to 32 hex digits that are not all zero"
            )
        );
    }
}

#[test]
fn a_bearer_carries_its_own_settings_in_any_order() {
    let all = bearer("eth:ens3,queues=0,2-3,vlan=100,window=200,tolerance=60,priority=0").unwrap();
    let expected = BearerSpec {
        interface: "ens3".into(),
        priority: Some(0),
        tolerance_ms: Some(60),
        window_max: Some(200),
        media: MediaSpec::Ethernet(EthernetSpec {
            vlan: Some(100),
            queues: vec![0, 2, 3],
        }),
    };
    assert_eq!(all, expected);
    let MediaSpec::Ethernet(ethernet) = bearer("eth:ens3,queues=5").unwrap().media else {
        panic!("another media");
    };
    assert_eq!(ethernet.queues, [5]);
    let priority = |text| bearer(text).unwrap().priority;
    assert_eq!(priority("eth:ens3,priority=31"), Some(31));
    assert_eq!(
        priority("udp:U,device=ens3,priority=32"),
        None,
        "the media's"
    );
}

#[test]
fn a_udp_bearer_has_an_own_address_and_a_list_of_peers() {
    let text = "udp:UDP1,localip=fe80::1%eth0,localport=7000,remoteip=fe80::2,remoteip=2001:db8::3,\
                remoteport=7001,mtu=1300,window=60";
    let expected = BearerSpec {
        interface: "UDP1".into(),
        media: MediaSpec::Udp(UdpSpec {
            local: Some(Local::Address(ScopedIp {
                ip: "fe80::1".parse().unwrap(),
                scope: Some("eth0".into()),
            })),
            local_port: Some(7000),
            remotes: vec![
                Remote {
                    ip: "fe80::2".parse().unwrap(),
                    port: None,
                },
                Remote {
                    ip: "2001:db8::3".parse().unwrap(),
                    port: Some(7001),
                },
            ],
            group_port: None,
            mtu: Some(1300),
        }),
        window_max: Some(60),
        ..BearerSpec::default()
    };
    assert_eq!(bearer(text).unwrap(), expected);
    assert_eq!(expected.name(), "udp:UDP1");
    let MediaSpec::Udp(udp) = bearer("udp:UDP2,device=eth1,remoteport=9").unwrap().media else {
        panic!("another media");
    };
    assert_eq!(udp.group_port, Some(9));
    assert_eq!(udp.local, Some(Local::Device("eth1".into())));
    let by_sign = bearer("udp:U,localip=10.0.0.1%eth1").unwrap();
    for both in [
        "udp:U,localip=10.0.0.1,device=eth1",
        "udp:U,device=eth1,localip=10.0.0.1",
    ] {
        assert_eq!(bearer(both).unwrap(), by_sign, "{both}");
    }
}

#[test]
fn a_shared_memory_bearer_has_a_directory_or_takes_the_one_of_its_name() {
    let spec = bearer("shm:pod,dir=/run/pod,window=100");
    assert_eq!(spec.as_ref().unwrap().name(), "shm:pod");
    let dir = |text| match bearer(text).unwrap().media {
        MediaSpec::SharedMemory(shm) => shm.dir,
        other => panic!("{other:?}"),
    };
    assert_eq!(dir("shm:pod,dir=/run/pod"), Some("/run/pod".into()));
    assert_eq!(dir("shm:pod"), None);
}

#[test]
fn an_infiniband_bearer_has_what_all_links_have() {
    let expected = BearerSpec {
        interface: "ib0".into(),
        media: MediaSpec::InfiniBand,
        window_max: Some(100),
        ..BearerSpec::default()
    };
    assert_eq!(bearer("ib:ib0,window=100").unwrap(), expected);
    assert_eq!(expected.name(), "ib:ib0");
}

#[test]
fn a_bearer_that_cannot_be_is_refused_with_the_part_that_is_wrong() {
    for (text, part) in [
        ("eth0", "does not start with a known media"),
        ("fddi:f0", "does not start with a known media"),
        ("ib:ib0,vlan=3", "`vlan` in `ib:ib0,vlan=3` is not known"),
        ("udp:UDP1", "there is no own address"),
        (
            "udp:UDP1,localip=10.0.0",
            "localip=`10.0.0` in `udp:UDP1,localip=10.0.0` is no address",
        ),
        ("udp:UDP1,localip=228.0.0.1", "is no address of one node"),
        ("udp:UDP1,localip=0.0.0.0", "is no address of one node"),
        (
            "udp:UDP1,localip=10.0.0.1,remoteip=255.255.255.255",
            "is no address of one peer, nor of a group",
        ),
        (
            "udp:a_name_of_16_char,device=eth0",
            "does not name a bearer",
        ),
        (
            "udp:UDP1,localip=10.0.0.1%eth0,device=eth0",
            "device is given twice",
        ),
        (
            "udp:UDP1,device=eth0,localip=10.0.0.1,device=eth1",
            "device is given twice",
        ),
        (
            "udp:UDP1,device=eth0,localip=10.0.0.1%eth0",
            "localip is given twice",
        ),
        (
            "udp:UDP1,localip=10.0.0.1,localport=0",
            "is no port; accepted: 1 to 65535",
        ),
        (
            "udp:UDP1,localip=10.0.0.1,remoteport=9,remoteip=10.0.0.2",
            "a remoteport stands before the first remoteip",
        ),
        (
            "udp:UDP1,localip=10.0.0.1,remoteip=::1",
            "own address 10.0.0.1 and remoteip ::1 are of two families",
        ),
        (
            "udp:UDP1,localip=10.0.0.1,remoteip=10.0.0.2,remoteip=228.0.0.1",
            "a multicast group beside other peers",
        ),
        (
            "udp:UDP1,localip=10.0.0.1,mtu=127",
            "accepted: 128 to 65507",
        ),
        (
            "udp:UDP1,localip=::1,mtu=147",
            "accepted: 148 to 65507 over IPv6",
        ),
        ("udp:UDP1,localip=10.0.0.1,vlan=1", "`vlan` in"),
        ("eth:eth0,localip=10.0.0.1", "`localip` in"),
        ("shm:pod,dir=pod", "is no directory to meet in"),
        ("shm:pod,mtu=1500", "`mtu` in"),
        ("eth:", "does not name a network interface"),
        ("eth:sixteen_letters_", "does not name a network interface"),
        ("eth:a/b", "does not name a network interface"),
        ("eth:eth0,", "`` in `eth:eth0,` is not known"),
        ("eth:eth0,prio=3", "`prio` in"),
        (
            "eth:eth0,priority=33",
            "is out of range; accepted: priority=0 to 32",
        ),
        (
            "eth:eth0,priority=-1",
            "is out of range; accepted: priority=0 to 32",
        ),
        ("eth:eth0,tolerance=49", "accepted: tolerance=50 to 30000"),
        (
            "eth:eth0,window=x",
            "window=`x` in `eth:eth0,window=x` is not a whole number",
        ),
        ("eth:eth0,vlan=4095", "accepted: vlan=1 to 4094"),
        ("eth:eth0,queues=", "is no list"),
        ("eth:eth0,queues=3-1", "is no list"),
        ("eth:eth0,queues=1,1", "is no list"),
        ("eth:eth0,vlan=1,vlan=2", "vlan is given twice"),
        ("eth:eth0,priority=32,priority=5", "priority is given twice"),
        (
            "eth:eth0,queues=1,priority=2,queues=2",
            "queues is given twice",
        ),
    ] {
        let refusal = bearer(text).unwrap_err().to_string();
        assert!(
            refusal.starts_with("command line: --bearer: bearer: "),
            "{refusal}"
        );
        assert!(refusal.contains(part), "{text}: {refusal}");
    }
}

#[test]
fn bearers_are_at_most_three_and_of_different_interfaces() {
    let four = "bearer = [\"eth:a\", \"eth:b\", \"eth:c\", \"eth:d\"]";
    assert_eq!(
        message(&[], four),
        "FILE: bearer: `eth:d` is one bearer too many; accepted: at most 3 bearers"
    );
    assert_eq!(
        message(&[], "bearer = [\"eth:a\", \"eth:a,vlan=3\"]"),
        "FILE: bearer: `eth:a,vlan=3` names an interface that already is a bearer; \
         accepted: each interface once"
    );
}

#[test]
fn values_out_of_place_are_refused_with_what_is_accepted() {
    for (line, rest) in [
        (
            "tolerance = 49",
            "tolerance: `49` is out of range; accepted: 50 to 30000 (milliseconds)",
        ),
        (
            "tolerance = \"1s\"",
            "tolerance: `1s` is not a whole number; accepted: 50 to 30000 (milliseconds)",
        ),
        (
            "cluster_id = 0",
            "cluster_id: `0` is out of range; accepted: 1 to 9999",
        ),
        (
            "cluster_id = 10000",
            "cluster_id: `10000` is out of range; accepted: 1 to 9999",
        ),
        (
            "workers = 65",
            "workers: `65` is out of range; accepted: 1 to 64",
        ),
        (
            "policy = \"lazy\"",
            "policy: `lazy` is not known; accepted: busy, adaptive, sleep",
        ),
        (
            "xdp = \"on\"",
            "xdp: `on` is not known; accepted: auto, zerocopy, native, generic, off",
        ),
        (
            "cpus = \"0-\"",
            "cpus: `0-` is no list of processors; accepted: distinct numbers up to 1023, like 0,2-3",
        ),
        (
            "cpus = [0, 0]",
            "cpus: `0,0` is no list of processors; accepted: distinct numbers up to 1023, like 0,2-3",
        ),
        (
            "cpus = 0\nworkers = 2",
            "cpus: `0` has fewer processors than there are workers (2); accepted: one processor for each worker",
        ),
        (
            "interrupts = \"off\"",
            "interrupts: `off` is not known; accepted: workers, leave, or processors like 0,2-3",
        ),
        (
            "interrupts = 3\nworkers = 2",
            "interrupts: `3` has fewer processors than there are workers (2); accepted: one processor for each worker",
        ),
        (
            "socket = \"a.sock\"",
            "socket: `a.sock` is not an absolute path; accepted: a path that starts with /",
        ),
        (
            "socket = \"/run/xtipc/control.sock\"",
            "socket: `/run/xtipc/control.sock` is the control socket; accepted: another path",
        ),
        (
            "instance = \"../x\"",
            "instance: `../x` is no name of an instance; accepted: 1 to 32 of 0-9 A-Z a-z . _ -, not starting with . or - and not ending in .sock",
        ),
        (
            "attach_mode = 0o660",
            "attach_mode: `432` is not text; accepted: octal text of three digits, like \"0660\"",
        ),
        (
            "attach_mode = \"1777\"",
            "attach_mode: `1777` is not a set of permissions; accepted: octal text of three digits, like \"0660\"",
        ),
        (
            "control_group = \"no such\"",
            "control_group: `no such` is no group; accepted: a group number or a name in /etc/group",
        ),
        (
            "log = \"loud\"",
            "log: `loud` is no log filter; accepted: off, error, warn, info, debug, trace, or target=level,...",
        ),
        (
            "log = \"xtipcd=loud\"",
            "log: `xtipcd=loud` is no log filter; accepted: off, error, warn, info, debug, trace, or target=level,...",
        ),
    ] {
        let file = format!("bearer = [\"eth:eth0\"]\n{line}");
        assert_eq!(message(&[], &file), format!("FILE: {rest}"));
    }
}

#[test]
fn a_path_too_long_for_a_socket_is_refused() {
    let long = format!("/{}", "x".repeat(107));
    let refusal = message(&["--bearer", "eth:a", "--socket", &long], "");
    assert!(refusal.ends_with("is too long for a socket; accepted: a path of at most 107 bytes"));
    let refusal = message(&["--bearer", "eth:a", "--run-dir", &long], "");
    assert!(refusal.contains("run_dir: "), "{refusal}");
}

#[test]
fn unknown_keys_and_broken_files_are_refused_with_file_and_line() {
    let refusal = message(&[], "bearer = [\"eth:eth0\"]\ntolerence = 3");
    assert!(refusal.contains("line 2"), "{refusal}");
    assert!(
        refusal.contains("unknown field `tolerence`, expected one of"),
        "{refusal}"
    );
    let refusal = message(&[], "bearer = [");
    assert!(
        refusal.starts_with("FILE: TOML parse error at line 1"),
        "{refusal}"
    );
    let refusal = message(&[], "workers = 1.5");
    assert!(
        refusal.contains("a text, a whole number, true, false or a list"),
        "{refusal}"
    );
}

#[test]
fn a_named_file_must_be_there() {
    let command_line =
        CommandLine::try_parse_from(["xtipcd", "--config", "/no/such.toml"]).unwrap();
    let refusal = Config::load(command_line, None).unwrap_err().to_string();
    assert!(
        refusal.starts_with("/no/such.toml: cannot read the configuration file: No such file"),
        "{refusal}"
    );
}

#[test]
fn a_node_needs_a_bearer_or_an_identity() {
    let refusal = message(&[], "");
    assert!(
        refusal.contains("neither a bearer nor an identity"),
        "{refusal}"
    );
    assert!(
        load(&["--identity", "alone"], "")
            .unwrap()
            .bearers
            .is_empty()
    );
}

#[test]
fn the_log_filter_comes_from_flag_then_environment_then_file() {
    let bearer = ["--bearer", "eth:a"];
    let with_flag = ["--bearer", "eth:a", "--log", "error"];
    let file = "log = \"warn\"";
    let log = |flags: &[&str], variable| load_with(flags, file, variable).map(|c| c.log);
    assert_eq!(log(&with_flag, Some("debug")).unwrap(), "error");
    assert_eq!(log(&bearer, Some("debug")).unwrap(), "debug");
    assert_eq!(log(&bearer, None).unwrap(), "warn");
    let refusal = log(&bearer, Some("loud")).unwrap_err().to_string();
    assert!(
        refusal.starts_with("environment: XTIPC_LOG: log: `loud`"),
        "{refusal}"
    );
}

#[test]
fn a_key_file_is_looked_at_when_the_settings_are_checked() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"this_is_a_master_key\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let flags = ["--bearer", "eth:eth0", "--key-file", &path];
    let config = load(&flags, "").unwrap();
    assert_eq!(config.key_file.as_deref(), Some(file.path()));
    file.write_all(b"and more").unwrap();
    let text = message(&flags, "");
    assert!(
        text.contains("holds no key of 20, 28 or 36 bytes; accepted: a file of root"),
        "{text}"
    );
    let text = message(&flags[..2], "master_key_file = \"/nonexistent\"");
    assert!(
        text.starts_with("FILE: master_key_file: `/nonexistent` cannot be read"),
        "{text}"
    );
}

#[test]
fn settings_of_the_kernel_are_taken_and_those_without_effect_told() {
    let bearer = ["--bearer", "eth:a"];
    let config = load(&bearer, "named_timeout = 0\nsk_filter = \"1 0 0 0 7\"").unwrap();
    assert_eq!(config.without_effect.len(), 2);
    assert!(
        config.without_effect[0].ends_with(
            ": named_timeout: without effect: no update of a binding waits to be applied"
        ),
        "{:?}",
        config.without_effect
    );
    let flag = [&bearer[..], &["--tipc-rmem", "1 8192 1"]].concat();
    assert_eq!(load(&flag, "").unwrap().receive_buffer, 8192);
    for (wrong, told) in [
        (
            "tipc_rmem = 65536",
            "tipc_rmem: `65536` is not three numbers",
        ),
        ("tipc_rmem = [1, 4095, 9]", "an impossible size"),
        (
            "tipc_rmem = \"1 8k 9\"",
            "`8k` in `1 8k 9` is not a whole number",
        ),
        ("tipc_rmem = \"0 8192 9\"", "accepted: 1 to 2147483647"),
        (
            "key_exchange_enabled = 2",
            "`2` is out of range; accepted: 0 to 1",
        ),
        (
            "key_exchange_enabled = 0\nrekeying = 5",
            "rekeying: `5` makes keys that nobody learns",
        ),
        ("bc_retruni = -1", "bc_retruni: `-1` is out of range"),
        ("max_tfms = 0", "`0` in `0` is out of range"),
        (
            "sk_filter = [0, 0]",
            "`0,0` is not as many numbers as it takes; accepted: 5, from 0 on",
        ),
    ] {
        let refusal = message(&bearer, wrong);
        assert!(refusal.contains(told), "{wrong}: {refusal}");
    }
    let keeps = load(&bearer, "key_exchange_enabled = 0\nrekeying = 0").unwrap();
    assert!(!keeps.key_exchange);
}
