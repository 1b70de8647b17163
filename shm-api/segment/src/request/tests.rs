use super::*;
use proptest::prelude::*;

fn destination() -> impl Strategy<Value = Option<Destination>> {
    any::<(u8, u32, u32, u32)>().prop_map(|(kind, a, b, c)| {
        Some(match kind % 4 {
            0 => return None,
            1 => Destination::Multicast(ServiceRange {
                type_: a,
                lower: b,
                upper: c,
            }),
            2 => Destination::Service {
                address: ServiceAddress {
                    type_: a,
                    instance: b,
                },
                domain: c,
            },
            _ => Destination::Socket(SocketAddress { port: a, node: b }),
        })
    })
}

fn request() -> impl Strategy<Value = Request> {
    (0u8..35, destination(), any::<[u32; 4]>(), any::<bool>()).prop_map(
        |(which, destination, [a, b, c, _], flag)| {
            let range = ServiceRange {
                type_: a,
                lower: b,
                upper: c,
            };
            let scope = if flag { Scope::Cluster } else { Scope::Node };
            match which {
                0 => Request::OpenSocket {
                    kind: if flag {
                        SocketKind::Rdm
                    } else {
                        SocketKind::Dgram
                    },
                },
                1 => Request::CloseSocket,
                2 => Request::Bind { range, scope },
                3 => Request::Unbind { range, scope },
                4 => Request::UnbindAll,
                5 => Request::Send {
                    flags: if flag {
                        SendFlags::DONTWAIT
                    } else {
                        SendFlags::empty()
                    },
                    destination,
                    payload: PayloadPlace {
                        offset: a % 4096,
                        len: b % 4096,
                    },
                },
                6 => Request::Connect {
                    flags: if flag {
                        SendFlags::DONTWAIT
                    } else {
                        SendFlags::empty()
                    },
                    destination,
                },
                7 => Request::SetOption {
                    option: a,
                    value: b,
                },
                8 => Request::GetOption { option: a },
                9 => Request::SetReceiveBuffer { bytes: a },
                10 => Request::GetName,
                11 => Request::Cancel { tag: pair(a, b) },
                12 => Request::Listen { limit: a },
                13 => Request::Accept {
                    flags: if flag {
                        SendFlags::DONTWAIT
                    } else {
                        SendFlags::empty()
                    },
                },
                14 => Request::Shutdown,
                15 => Request::GetPeer,
                16 => Request::OpenSubscriber,
                17 => Request::JoinGroup {
                    address: ServiceAddress {
                        type_: a,
                        instance: b,
                    },
                    scope,
                    flags: GroupFlags::from_bits_truncate(c),
                },
                18 => Request::LeaveGroup,
                19 => Request::OpenPath { node: a },
                20 => Request::ClosePath { slot: a },
                21 => Request::Pair { other: a },
                22 => Request::GetState,
                23 => Request::GetNodeIdentity { node: a },
                24 => Request::GetLinkName {
                    node: a,
                    bearer: b,
                    offset: c,
                },
                25 => Request::Await {
                    ready: Ready::from_bits_truncate(a),
                },
                26 => Request::Receive {
                    flags: SendFlags::empty(),
                    len: a,
                },
                27 => Request::MakeChannel { destination },
                28 => Request::SwitchToChannel { peer: a },
                29 => Request::Arm,
                30 => Request::Unblock,
                31 => Request::Restore {
                    id: pair(a, b),
                    payload: PayloadPlace {
                        offset: c % 4096,
                        len: a % 4096,
                    },
                },
                32 => Request::LeaveChannel {
                    peer: a,
                    at_once: flag,
                },
                33 => Request::PutBack {
                    source: SocketAddress { port: a, node: b },
                    envelope: Envelope {
                        importance: Importance::from_number(c % 4).unwrap_or_default(),
                        droppable: flag,
                        name: (b % 2 == 0).then_some(ServiceAddress {
                            type_: a,
                            instance: c,
                        }),
                    },
                    payload: PayloadPlace {
                        offset: c % 4096,
                        len: a % 4096,
                    },
                },
                _ => Request::Unknown { opcode: 200 },
            }
        },
    )
}

proptest! {
    #[test]
    fn a_submission_reads_as_it_was_written(tag: u64, socket: u32, request in request()) {
        let submission = Submission { tag, socket, request };
        prop_assert_eq!(Submission::decode(&submission.encode(), 8192), Ok(submission));
    }

    #[test]
    fn any_words_are_a_submission_with_its_payload_inside_the_arena_or_a_violation(
        mut words in any::<[u64; SUBMISSION_WORDS]>(), opcode in 0u64..56, arena in 0u32..100_000,
    ) {
        words[0] = words[0] & !0xff | opcode;
        if let Ok(Submission {
            request: Request::Send { payload, .. } | Request::Restore { payload, .. }
                | Request::PutBack { payload, .. },
            ..
        }) = Submission::decode(&words, arena)
        {
            prop_assert!(u64::from(payload.offset) + u64::from(payload.len) <= u64::from(arena));
        }
    }

    #[test]
    fn a_completion_reads_as_it_was_written(tag: u64, result: i32, values: [u64; 2]) {
        let completion = Completion { tag, result, values };
        prop_assert_eq!(Completion::decode(&completion.encode()), completion);
    }
}
