use super::*;

const IFINDEX: u32 = 3;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hops() -> Hops {
    Hops::new(IFINDEX, ip("10.0.0.1"))
}

fn tell(hops: &mut Hops, kind: u16, sequence: u32, body: &[u8]) -> bool {
    hops.take(&Message {
        kind,
        sequence,
        body,
    })
}

fn route(kind: u8, ifindex: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; ROUTE_HEADER_SIZE];
    body[7] = kind;
    put_attribute(&mut body, RTA_OIF, &ifindex.to_ne_bytes());
    for (kind, value) in attributes {
        put_attribute(&mut body, *kind, value);
    }
    body
}

fn neighbour(to: &str, ifindex: u32, state: u16, mac: &[u8]) -> Vec<u8> {
    let mut body = vec![0; NEIGHBOUR_HEADER_SIZE];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    put_attribute(&mut body, NDA_DST, &octets(ip(to)));
    put_attribute(&mut body, NDA_LLADDR, mac);
    body
}

/// Asks for the way to a destination and gives this answer.
fn learn(hops: &mut Hops, to: &str, body: &[u8]) {
    assert_eq!(hops.find(ip(to)), None);
    let (asked, _) = hops.next_question().unwrap();
    assert_eq!(asked, ip(to));
    hops.asked(1, asked);
    assert!(!tell(hops, RTM_NEWROUTE, 1, body));
}

const REACHABLE: u16 = 0x02;
const FAILED: u16 = 0x20;

#[test]
fn a_way_is_known_when_route_and_neighbour_are() {
    let mut hops = hops();
    let to = "10.0.0.2";
    let direct = route(ROUTE_UNICAST, IFINDEX, &[(RTA_DST, &[10, 0, 0, 2])]);
    learn(&mut hops, to, &direct);
    assert_eq!(hops.find(ip(to)), None, "no neighbour");
    assert!(!hops.has_questions(), "asked once");
    for (ifindex, state) in [(IFINDEX + 1, REACHABLE), (IFINDEX, FAILED), (IFINDEX, 0x01)] {
        tell(
            &mut hops,
            RTM_NEWNEIGH,
            0,
            &neighbour(to, ifindex, state, &MAC),
        );
        assert_eq!(hops.find(ip(to)), None, "{ifindex} {state}");
    }
    let known = neighbour(to, IFINDEX, REACHABLE, &MAC);
    tell(&mut hops, RTM_NEWNEIGH, 0, &known);
    let hop = Hop {
        mac: MAC,
        mtu: None,
    };
    assert_eq!(hops.find(ip(to)), Some(hop));
    tell(&mut hops, RTM_DELNEIGH, 0, &known);
    assert_eq!(hops.find(ip(to)), None);
}

#[test]
fn behind_a_gateway_the_gateway_is_the_neighbour_and_the_path_may_be_narrower() {
    let mut metrics = Vec::new();
    put_attribute(&mut metrics, RTAX_MTU, &1400_u32.to_ne_bytes());
    let via = [&10_u16.to_ne_bytes()[..], &octets(ip("fe80::9"))].concat();
    for (attribute, gateway, value) in [
        (RTA_GATEWAY, "10.0.0.9", &[10, 0, 0, 9][..]),
        (RTA_VIA, "fe80::9", &via),
    ] {
        let mut hops = hops();
        let behind = route(
            ROUTE_UNICAST,
            IFINDEX,
            &[(attribute, value), (RTA_METRICS, &metrics)],
        );
        learn(&mut hops, "192.0.2.1", &behind);
        tell(
            &mut hops,
            RTM_NEWNEIGH,
            0,
            &neighbour(gateway, IFINDEX, REACHABLE, &MAC),
        );
        let hop = Hop {
            mac: MAC,
            mtu: Some(1400),
        };
        assert_eq!(hops.find(ip("192.0.2.1")), Some(hop));
    }
}

#[test]
fn what_does_not_go_plainly_by_the_interface_is_the_kernels() {
    let to = &[10, 0, 0, 2][..];
    let local = 2;
    for (what, body) in [
        (
            "another interface",
            route(ROUTE_UNICAST, 1, &[(RTA_DST, to)]),
        ),
        ("the host itself", route(local, IFINDEX, &[(RTA_DST, to)])),
        (
            "a tunnel",
            route(
                ROUTE_UNICAST,
                IFINDEX,
                &[(RTA_DST, to), (RTA_ENCAP_TYPE, &[1, 0])],
            ),
        ),
        ("nonsense", vec![1, 2, 3]),
    ] {
        let mut hops = hops();
        learn(&mut hops, "10.0.0.2", &body);
        tell(
            &mut hops,
            RTM_NEWNEIGH,
            0,
            &neighbour("10.0.0.2", IFINDEX, REACHABLE, &MAC),
        );
        assert_eq!(hops.find(ip("10.0.0.2")), None, "{what}");
        assert!(!hops.has_questions(), "{what}");
    }
    let mut unreachable = hops();
    assert_eq!(unreachable.find(ip("10.0.0.2")), None);
    let (asked, _) = unreachable.next_question().unwrap();
    unreachable.asked(5, asked);
    assert!(!tell(&mut unreachable, NLMSG_ERROR, 5, &[0; 4]));
    assert_eq!(unreachable.find(ip("10.0.0.2")), None);
}

#[test]
fn a_doubtful_neighbour_is_asked_by_one_datagram_of_the_kernel() {
    let mut hops = hops();
    let to = "10.0.0.2";
    learn(
        &mut hops,
        to,
        &route(ROUTE_UNICAST, IFINDEX, &[(RTA_DST, &[10, 0, 0, 2])]),
    );
    for _ in 0..2 {
        tell(
            &mut hops,
            RTM_NEWNEIGH,
            0,
            &neighbour(to, IFINDEX, NUD_STALE, &MAC),
        );
        assert_eq!(hops.find(ip(to)), None);
        assert!(hops.find(ip(to)).is_some());
    }
}

#[test]
fn a_change_of_routes_has_all_asked_again_and_meanwhile_used() {
    let mut hops = hops();
    let to = "10.0.0.2";
    let direct = route(ROUTE_UNICAST, IFINDEX, &[(RTA_DST, &[10, 0, 0, 2])]);
    learn(&mut hops, to, &direct);
    tell(
        &mut hops,
        RTM_NEWNEIGH,
        0,
        &neighbour(to, IFINDEX, REACHABLE, &MAC),
    );
    const RTM_DELLINK: u16 = 17;
    const DONE: u16 = 3;
    assert!(tell(&mut hops, RTM_NEWROUTE, 77, &direct), "nobody asked");
    assert!(tell(&mut hops, RTM_DELLINK, 0, &[]));
    assert!(!tell(&mut hops, DONE, 0, &[]));
    hops.doubt_routes();
    assert!(hops.find(ip(to)).is_some());
    let (asked, body) = hops.next_question().unwrap();
    assert_eq!(asked, ip(to));
    assert_eq!(
        attribute(&body[ROUTE_HEADER_SIZE..], RTA_DST),
        Some(&[10, 0, 0, 2][..])
    );
    hops.asked(2, asked);
    tell(
        &mut hops,
        RTM_NEWROUTE,
        2,
        &route(ROUTE_UNICAST, 9, &[(RTA_DST, &[10, 0, 0, 2])]),
    );
    assert_eq!(hops.find(ip(to)), None);
    assert!(!hops.has_questions());
}
