use xtipc_management::{
    BearerInfo, Binding, Connection, LinkInfo, LinkKind, LinkState, Media, NodeInfo, OwnNode,
    Property, Publication, Scope, ServiceAddress, SocketInfo, SocketKind, UdpAddresses,
};

use super::*;
use crate::family::{bearer, link, monitor, net, node, property, publication, socket, top, udp};

const PORT: u32 = 4711;
const DUMP: u16 = flag::REQUEST | flag::DUMP;
const DO: u16 = flag::REQUEST | flag::ACK;

fn request(kind: u16, command: u8, flags: u16, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    let payload = [&[command, 1, 0, 0][..], &writer.into_bytes()].concat();
    message(kind, flags, 7, 0, &payload)
}

fn of_tipc(command: Command, flags: u16, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    request(family::TYPE, command as u8, flags, write)
}

const EXPLAINED: Asker = Asker {
    port: PORT,
    explained: true,
    capped: false,
};

fn answered(bytes: &[u8], ask: impl FnMut(&Request) -> Answer) -> Vec<Vec<u8>> {
    let (asked, _) = Message::first(bytes).unwrap();
    assert!(is_for_tipc(&asked));
    answer(&asked, EXPLAINED, ask)
}

/// The messages in datagrams: type, flags and what is in them behind the header.
fn split(datagrams: &[Vec<u8>]) -> Vec<(u16, u16, &[u8])> {
    let mut all = Vec::new();
    for datagram in datagrams {
        let mut rest = &datagram[..];
        while let Some((message, next)) = Message::first(rest) {
            assert_eq!(message.sequence, 7);
            assert_eq!(message.bytes()[12..16], PORT.to_ne_bytes());
            all.push((message.kind, message.flags, &message.bytes()[HEADER_LEN..]));
            rest = next;
        }
        assert!(rest.is_empty());
    }
    all
}

/// The errno and the text of the only message.
fn refusal(datagrams: &[Vec<u8>]) -> (i32, String) {
    let [(family::ERROR, flags, payload)] = split(datagrams)[..] else {
        panic!("{datagrams:?}");
    };
    assert_eq!(flags, flag::ACK_TLVS);
    let errno = i32::from_ne_bytes(*payload.first_chunk().unwrap());
    let asked = u32::from_ne_bytes(*payload[4..].first_chunk().unwrap()) as usize;
    let attributes = Attributes::check(&payload[4 + asked.next_multiple_of(4)..]).unwrap();
    (
        -errno,
        attributes
            .text(family::ERROR_TEXT)
            .unwrap()
            .unwrap()
            .to_owned(),
    )
}

/// What is in the attribute of each message of a list.
fn listed<'a>(datagrams: &'a [Vec<u8>], kind: u16) -> Vec<Attributes<'a>> {
    let mut all = split(datagrams);
    let end = (family::DONE, flag::MULTI, &[0; 4][..]);
    assert_eq!(all.pop(), Some(end));
    let mut found = Vec::new();
    for (message, flags, payload) in all {
        assert_eq!((message, flags), (family::TYPE, flag::MULTI));
        let attributes = Attributes::check(&payload[GENERIC]).unwrap();
        found.push(attributes.nest(kind).unwrap().unwrap());
    }
    found
}

const GENERIC: std::ops::RangeFrom<usize> = crate::wire::GENERIC_LEN..;

fn nobody(request: &Request) -> Answer {
    panic!("{request:?}")
}

fn node_is_there(request: &Request) -> Answer {
    assert_eq!(*request, Request::NodeGet);
    Ok(Reply::Node(OwnNode {
        identity: "anna".parse().unwrap(),
        address: 0x1001,
        address_is_final: true,
        cluster_id: 4711,
    }))
}

#[test]
fn the_family_is_found_by_its_name_and_number() {
    for by_name in [true, false] {
        let asked = request(
            control::TYPE,
            control::GET_FAMILY,
            DO,
            |writer| match by_name {
                true => writer.text(control::FAMILY_NAME, family::NAME),
                false => writer.bytes(control::FAMILY_ID, &family::TYPE.to_ne_bytes()),
            },
        );
        let datagrams = answered(&asked, node_is_there);
        let [
            (control::TYPE, 0, payload),
            (family::ERROR, flag::CAPPED, end),
        ] = split(&datagrams)[..]
        else {
            panic!("{datagrams:?}");
        };
        assert_eq!(end[..4], [0; 4]);
        assert_eq!(payload[0], control::NEW_FAMILY);
        let attributes = Attributes::check(&payload[GENERIC]).unwrap();
        assert_eq!(
            attributes.text(control::FAMILY_NAME),
            Ok(Some(family::NAME))
        );
        assert_eq!(
            attributes.array(control::FAMILY_ID),
            Ok(Some(family::TYPE.to_ne_bytes()))
        );
        let operations = attributes.nest(control::OPERATIONS).unwrap().unwrap();
        assert_eq!(operations.iter().count(), Command::ALL.len());
    }
}

#[test]
fn without_a_node_there_is_no_family() {
    let asked = request(control::TYPE, control::GET_FAMILY, DO, |writer| {
        writer.text(control::FAMILY_NAME, family::NAME)
    });
    let absent = |_: &Request| {
        let text = "no daemon".into();
        Err(Failure { errno: 2, text })
    };
    assert_eq!(refusal(&answered(&asked, absent)), (2, "no daemon".into()));
}

#[test]
fn what_is_of_other_families_is_left_alone() {
    let other = request(control::TYPE, control::GET_FAMILY, DO, |writer| {
        writer.text(control::FAMILY_NAME, "nl80211")
    });
    let all = request(control::TYPE, control::GET_FAMILY, DUMP, |_| ());
    let broken = request(control::TYPE, control::GET_FAMILY, DO, |writer| {
        writer.bytes(control::FAMILY_NAME, &[255])
    });
    for bytes in [
        other,
        all,
        broken,
        request(30, 3, DO, |_| ()),
        message(control::TYPE, DO, 1, 0, &[]),
    ] {
        assert!(!is_for_tipc(&Message::first(&bytes).unwrap().0));
    }
}

#[test]
fn wrong_messages_are_refused_and_say_why() {
    let refused = |bytes: &[u8]| refusal(&answered(bytes, nobody));
    assert_eq!(
        refused(&message(family::TYPE, DO, 7, 0, &[])),
        (EINVAL, "the message has no command".into())
    );
    let unknown = request(family::TYPE, 26, DO, |_| ());
    assert_eq!(
        refused(&unknown),
        (
            EOPNOTSUPP,
            "command 26 is unknown: 2 to 25 are accepted".into()
        )
    );
    let no_list = of_tipc(Command::BearerSet, DUMP, |_| ());
    assert_eq!(
        refused(&no_list),
        (EOPNOTSUPP, "this command gives no list".into())
    );
    let list = of_tipc(Command::NodeGet, DO, |_| ());
    assert_eq!(refused(&list).0, EOPNOTSUPP);
    let missing = of_tipc(Command::BearerGet, DO, |_| ());
    assert_eq!(
        refused(&missing).1,
        "attribute 1, which holds the bearer, is missing"
    );
    let too_long = message(
        family::TYPE,
        DO,
        7,
        0,
        &[Command::BearerGet as u8, 1, 0, 0, 9, 0, 1, 0],
    );
    assert_eq!(
        refused(&too_long),
        (EINVAL, "attribute 1 is not within what holds it".into())
    );
    let half = of_tipc(Command::MonitorSet, DO, |writer| {
        writer.nest(top::MONITOR, |writer| {
            writer.bytes(monitor::THRESHOLD, &[1, 0])
        });
    });
    assert_eq!(refused(&half).1, "attribute 1 has 2 bytes, 4 are accepted");
    let comma = of_tipc(Command::BearerEnable, DO, |writer| {
        writer.nest(top::BEARER, |writer| {
            writer.text(bearer::NAME, "eth:eth0,vlan=4")
        });
    });
    assert_eq!(refused(&comma).1, "Illegal name");
    let identity = of_tipc(Command::NetSet, DO, |_| ());
    assert_eq!(refused(&identity).0, 1);
}

#[test]
fn no_bytes_make_it_fail() {
    let valid = of_tipc(Command::BearerEnable, DO, |writer| {
        writer.nest(top::BEARER, |writer| {
            writer.text(bearer::NAME, "udp:UDP1");
            writer.nest(bearer::UDP, |writer| {
                writer.bytes(udp::LOCAL, &[2, 0, 1, 2, 10, 0, 0, 1])
            });
        });
    });
    let mut asked = 0;
    for at in HEADER_LEN..valid.len() {
        for value in [0, 1, 4, 5, 127, 128, 255] {
            let mut bytes = valid.clone();
            bytes[at] = value;
            let answer = answered(&bytes, |request| {
                asked += 1;
                assert!(!matches!(request, Request::NodeList));
                Err(invalid("no"))
            });
            assert_eq!(split(&answer).last().unwrap().0, family::ERROR);
        }
    }
    assert!(asked > 0);
}

#[test]
fn bearers_are_enabled_as_the_configuration_names_them() {
    let mut storage = [0; 128];
    storage[..8].copy_from_slice(&[2, 0, 0x17, 0xe6, 10, 0, 0, 1]);
    let mut group = storage;
    group[4..8].copy_from_slice(&[228, 0, 18, 103]);
    let asked = of_tipc(Command::BearerEnable, DO, |writer| {
        writer.nest(top::BEARER, |writer| {
            writer.text(bearer::NAME, "udp:UDP1");
            writer.nest(bearer::PROPERTIES, |writer| {
                writer.number(property::PRIORITY, 5)
            });
            writer.nest(bearer::UDP, |writer| {
                writer.bytes(udp::LOCAL, &storage);
                writer.bytes(udp::REMOTE, &group);
            });
        });
    });
    let datagrams = answered(&asked, |request| {
        let bearer = "udp:UDP1,localip=10.0.0.1,localport=6118,remoteip=228.0.18.103,remoteport=6118,priority=5".into();
        assert_eq!(*request, Request::BearerEnable { bearer });
        Ok(Reply::Done)
    });
    assert_eq!(split(&datagrams)[..].len(), 1);
    assert_eq!(split(&datagrams)[0].2[..4], [0; 4]);
}

#[test]
fn each_property_is_set_by_itself() {
    let asked = of_tipc(Command::LinkSet, DO, |writer| {
        writer.nest(top::LINK, |writer| {
            writer.text(link::NAME, "a:eth0-b:eth0");
            writer.nest(link::PROPERTIES, |writer| {
                writer.number(property::TOLERANCE, 500);
                writer.number(property::WINDOW, 60);
            });
        });
    });
    let mut set = Vec::new();
    answered(&asked, |request| {
        let Request::LinkSet {
            name,
            property,
            value,
        } = request
        else {
            panic!("{request:?}");
        };
        assert_eq!(name, "a:eth0-b:eth0");
        set.push((*property, *value));
        Ok(Reply::Done)
    });
    assert_eq!(set, [(Property::Tolerance, 500), (Property::Window, 60)]);
}

#[test]
fn a_key_keeps_its_bytes_and_its_algorithm() {
    let mut key = [0; 32 + 4 + 20];
    key[..8].copy_from_slice(b"gcm(aes)");
    key[32..36].copy_from_slice(&20u32.to_ne_bytes());
    key[36..].copy_from_slice(&[0xa5; 20]);
    let asked = |key: &[u8]| {
        of_tipc(Command::KeySet, DO, |writer| {
            writer.nest(top::NODE, |writer| {
                writer.bytes(node::KEY, key);
                writer.number(node::REKEYING, u32::MAX);
            });
        })
    };
    answered(&asked(&key), |request| {
        let Request::KeySet {
            key: Some(key),
            algorithm,
            rekeying,
            master: false,
            node: None,
        } = request
        else {
            panic!("{request:?}");
        };
        assert_eq!(key.decode().unwrap().as_ref(), [0xa5; 20]);
        assert_eq!(algorithm, "gcm(aes)");
        assert_eq!(*rekeying, Some(xtipc_management::RekeyingTime::Now));
        Ok(Reply::Done)
    });
    for wrong in [&key[..30], &key[..40], &[1; 56]] {
        assert_eq!(refusal(&answered(&asked(wrong), nobody)).0, EINVAL);
    }
}

#[test]
fn lists_have_an_end_and_share_datagrams() {
    let nodes = |count: u32| {
        answered(&of_tipc(Command::NodeGet, DUMP, |_| ()), move |_| {
            let node = |address| NodeInfo {
                identity: [1; 16].into(),
                address,
                up: address % 2 == 0,
            };
            Ok(Reply::Nodes((0..count).map(node).collect()))
        })
    };
    assert_eq!(listed(&nodes(0), top::NODE).len(), 0);
    let many = nodes(1000);
    assert!(many.len() < 20 && many.iter().all(|datagram| datagram.len() <= DATAGRAM_MAX));
    for (address, attributes) in (0..).zip(listed(&many, top::NODE)) {
        assert_eq!(attributes.number(node::ADDRESS), Ok(Some(address)));
        assert_eq!(attributes.has(node::UP), address % 2 == 0);
    }
}

#[test]
fn the_own_node_is_shown_with_its_cluster_and_identity() {
    let datagrams = answered(&of_tipc(Command::NetGet, DUMP, |_| ()), node_is_there);
    let all = listed(&datagrams, top::NET);
    assert_eq!(all[0].number(net::CLUSTER_ID), Ok(Some(4711)));
    assert_eq!(all[0].get(net::IDENTITY[0]), Some(&b"anna\0\0\0\0"[..]));
    assert_eq!(all[0].get(net::IDENTITY[1]), Some(&[0; 8][..]));
}

#[test]
fn bearers_show_their_properties_and_addresses() {
    let all = vec![
        BearerInfo {
            name: "eth:eth0".into(),
            priority: 10,
            ..BearerInfo::default()
        },
        BearerInfo {
            name: "udp:UDP1".into(),
            media: Media::Udp,
            mtu: 14000,
            udp: Some(UdpAddresses {
                local: "10.0.0.1:6118".parse().unwrap(),
                remotes: vec![
                    "10.0.0.2:6118".parse().unwrap(),
                    "[fe80::1%3]:6119".parse().unwrap(),
                ],
            }),
            ..BearerInfo::default()
        },
    ];
    let ask = |request: &Request| {
        assert_eq!(*request, Request::BearerList);
        Ok(Reply::Bearers(all.clone()))
    };
    let datagrams = answered(&of_tipc(Command::BearerGet, DUMP, |_| ()), ask);
    let [eth, other] = listed(&datagrams, top::BEARER)[..] else {
        panic!("two bearers");
    };
    let properties = eth.nest(bearer::PROPERTIES).unwrap().unwrap();
    assert_eq!(properties.number(property::PRIORITY), Ok(Some(10)));
    assert!(!properties.has(property::MTU) && !eth.has(bearer::UDP));
    let options = other.nest(bearer::UDP).unwrap().unwrap();
    assert!(options.has(udp::SEVERAL_REMOTES));
    assert_eq!(
        options.get(udp::LOCAL).unwrap()[..8],
        [2, 0, 0x17, 0xe6, 10, 0, 0, 1]
    );
    let named = |command, flags, name: &str| {
        of_tipc(command, flags, |writer| {
            writer.nest(top::BEARER, |writer| writer.text(bearer::NAME, name))
        })
    };
    let datagrams = answered(&named(Command::UdpGetRemote, DUMP, "udp:UDP1"), ask);
    assert_eq!(split(&datagrams).len(), 3);
    let gone = answered(&named(Command::BearerGet, DO, "eth:eth1"), ask);
    assert_eq!(refusal(&gone), (EINVAL, "Bearer not found".into()));
}

#[test]
fn links_show_their_state_and_count_from_zero() {
    let statistics = xtipc_management::LinkStatistics {
        rx_packets: 5,
        tx_packets: 6,
        ..Default::default()
    };
    let state = LinkState::Standby;
    let kind = LinkKind::Unicast {
        state,
        mtu: 1500,
        priority: 10,
        tolerance_ms: 1500,
        window_max: 50,
    };
    let all = vec![
        LinkInfo {
            name: "broadcast-link".into(),
            window: 50,
            kind: LinkKind::BroadcastSend,
            statistics: statistics.clone(),
        },
        LinkInfo {
            name: "a:eth0-b:eth0".into(),
            window: 50,
            kind,
            statistics,
        },
    ];
    let datagrams = answered(&of_tipc(Command::LinkGet, DUMP, |_| ()), |request| {
        let filter = xtipc_management::LinkFilter::Usual;
        assert_eq!(*request, Request::LinkStatistics { filter });
        Ok(Reply::LinkStatistics(all.clone()))
    });
    let [broadcast, unicast] = listed(&datagrams, top::LINK)[..] else {
        panic!("two links");
    };
    let counted = |link: Attributes<'_>, kind| {
        link.nest(link::STATISTICS)
            .unwrap()
            .unwrap()
            .number(kind)
            .unwrap()
    };
    assert!(broadcast.has(link::BROADCAST) && !broadcast.has(link::MTU));
    assert_eq!(
        (counted(broadcast, 1), counted(broadcast, 6)),
        (Some(5), Some(6))
    );
    assert!(unicast.has(link::UP) && !unicast.has(link::ACTIVE) && !unicast.has(link::BROADCAST));
    assert_eq!(
        (counted(unicast, 1), unicast.number(link::RECEIVED)),
        (Some(0), Ok(Some(5)))
    );
    assert_eq!(
        unicast
            .nest(link::STATISTICS)
            .unwrap()
            .unwrap()
            .iter()
            .count(),
        33
    );
}

#[test]
fn sockets_show_what_they_are_bound_or_connected_to() {
    let about = |port, bound, connected| SocketInfo {
        port,
        kind: SocketKind::Rdm,
        pid: None,
        bound,
        connected,
        receive_queue_messages: 0,
        receive_queue_bytes: 0,
        drops: 0,
        details: None,
    };
    let binding = Binding {
        service_type: 100,
        lower: 1,
        upper: 2,
        scope: Scope::Cluster,
    };
    let service = ServiceAddress {
        service_type: 100,
        instance: 1,
    };
    let peer = Connection {
        address: 0x1002,
        port: 9,
        via: Some(service),
    };
    let ask = |request: &Request| match request {
        Request::NodeGet => node_is_there(request),
        _ => Ok(Reply::Sockets(vec![
            about(1, vec![binding], None),
            about(2, vec![], Some(peer)),
            about(3, vec![], None),
        ])),
    };
    let datagrams = answered(&of_tipc(Command::SocketGet, DUMP, |_| ()), ask);
    let [bound, connected, free] = listed(&datagrams, top::SOCKET)[..] else {
        panic!("three sockets");
    };
    assert!(bound.has(socket::IS_BOUND) && !free.has(socket::IS_BOUND));
    let nest = connected.nest(socket::CONNECTION).unwrap().unwrap();
    assert_eq!(nest.number(socket::CONNECTION_PORT), Ok(Some(9)));
    assert!(nest.has(socket::CONNECTION_HAS_SERVICE));
    let of = |port| {
        of_tipc(Command::PublicationGet, DUMP, |writer| {
            writer.nest(top::SOCKET, |writer| writer.number(socket::PORT, port));
        })
    };
    let datagrams = answered(&of(1), ask);
    assert_eq!(
        listed(&datagrams, top::PUBLICATION)[0].number(publication::UPPER),
        Ok(Some(2))
    );
    assert_eq!(
        refusal(&answered(&of(5), ask)),
        (EINVAL, "there is no socket 5".into())
    );
}

#[test]
fn the_name_table_shows_scopes_by_number() {
    let entry = Publication {
        service_type: 1,
        lower: 2,
        upper: 3,
        scope: Scope::Node,
        port: 4,
        address: 5,
        node: None,
    };
    let datagrams = answered(&of_tipc(Command::NameTableGet, DUMP, |_| ()), |_| {
        Ok(Reply::NameTable(vec![entry.clone()]))
    });
    let nest = listed(&datagrams, top::NAME_TABLE)[0]
        .nest(publication::ENTRY)
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            nest.number(publication::SCOPE),
            nest.number(publication::NODE)
        ),
        (Ok(Some(3)), Ok(Some(5)))
    );
}
