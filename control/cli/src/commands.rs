//! The words of xtipc: those of the tipc tool, and those added.

use crate::grammar::{GrammarError, Meaning, Typed, Word, resolve};
use crate::options::Options;
use xtipc_management::Property;

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    BearerEnable,
    BearerDisable,
    BearerSet(Property),
    BearerGet(Property),
    /// Addresses of a UDP bearer.
    BearerGetUdp,
    BearerAdd,
    BearerRemove,
    BearerList,
    LinkList,
    LinkGet(Property),
    LinkSet(Property),
    LinkStatisticsShow,
    MediaList,
    MediaGet(Property),
    MediaSet(Property),
    NametableShow,
    NodeList,
    NodeGetIdentity,
    NodeGetAddress,
    /// Net id is another word for the cluster id.
    NodeGetClusterId,
    MonitorGetThreshold,
    MonitorSetThreshold,
    MonitorSummary,
    MonitorList,
    NodeGetKey,
    NodeSetKey,
    NodeFlushKey,
    SocketList,
    Status,
    Run,
}

/// Finds the command that the words of the line mean.
pub(crate) fn typed(options: &Options) -> Result<Typed<Command>, GrammarError> {
    resolve(ROOT, GENERAL_HELP, &options.words, options.help)
}

const GENERAL_HELP: &str = "\
Operate a TIPC node run by xtipcd
Usage: xtipc [OPTIONS] COMMAND [ARGS] ...

Options:
 -h, --help            Print help for the last given command
 -j, --json            Print JSON
 -p, --pretty          Indent the JSON
 -d, --details         Print more than the tipc tool does
     --instance NAME   Ask the daemon of this instance
     --socket PATH     Ask the daemon at this control socket

Commands:
";

const IDENTITY_INSTEAD: &str =
    "the identity is set with \"identity\" in /etc/xtipc/xtipcd.toml or with xtipcd --identity\n";
const CLUSTER_ID_INSTEAD: &str = "the cluster id is set with \"cluster_id\" in /etc/xtipc/xtipcd.toml or with xtipcd --cluster-id\n";

const fn group(
    name: &'static str,
    about: &'static str,
    words: &'static [Word<Command>],
) -> Word<Command> {
    Word {
        name,
        about,
        meaning: Meaning::Group(words),
    }
}

const fn command(name: &'static str, about: &'static str, command: Command) -> Word<Command> {
    with_keys(name, about, command, &[], "")
}

const fn with_keys(
    name: &'static str,
    about: &'static str,
    command: Command,
    keys: &'static [&'static str],
    usage: &'static str,
) -> Word<Command> {
    Word {
        name,
        about,
        meaning: Meaning::Command {
            command,
            keys,
            added: &[],
            usage,
        },
    }
}

const fn absent(name: &'static str, instead: &'static str) -> Word<Command> {
    Word {
        name,
        about: "",
        meaning: Meaning::Absent { instead },
    }
}

const fn link_get(name: &'static str, about: &'static str, property: Property) -> Word<Command> {
    with_keys(
        name,
        about,
        Command::LinkGet(property),
        &["link"],
        " link LINK",
    )
}

const fn media_get(name: &'static str, about: &'static str, property: Property) -> Word<Command> {
    with_keys(
        name,
        about,
        Command::MediaGet(property),
        &["media"],
        " media MEDIA",
    )
}

const fn set(
    name: &'static str,
    about: &'static str,
    command: Command,
    keys: &'static [&'static str],
    usage: &'static str,
) -> Word<Command> {
    Word {
        name,
        about,
        meaning: Meaning::Setting {
            command,
            keys,
            usage,
        },
    }
}

const fn bearer_set(name: &'static str, about: &'static str, property: Property) -> Word<Command> {
    set(
        name,
        about,
        Command::BearerSet(property),
        BEARER_KEYS,
        " VALUE media MEDIA { device DEVICE | name NAME }",
    )
}

const fn bearer_get(name: &'static str, about: &'static str, property: Property) -> Word<Command> {
    with_keys(
        name,
        about,
        Command::BearerGet(property),
        BEARER_KEYS,
        " media MEDIA { device DEVICE | name NAME }",
    )
}

const fn link_set(name: &'static str, about: &'static str, property: Property) -> Word<Command> {
    let command = Command::LinkSet(property);
    set(name, about, command, &["link"], " VALUE link LINK")
}

const fn media_set(name: &'static str, about: &'static str, property: Property) -> Word<Command> {
    let command = Command::MediaSet(property);
    set(name, about, command, &["media"], " VALUE media MEDIA")
}

/// What names a bearer.
const BEARER_KEYS: &[&str] = &["media", "device", "name"];
/// What names a peer of a UDP bearer.
const REMOTE_KEYS: &[&str] = &["media", "name", "remoteip", "remoteport"];
const REMOTE_USAGE: &str = " media udp name NAME remoteip IP [ remoteport PORT ]";
/// What a new bearer is given besides. `domain` has no effect, as on Linux.
const ENABLE_KEYS: &[&str] = &[
    "domain",
    "priority",
    "media",
    "device",
    "name",
    "localip",
    "localport",
    "remoteip",
    "remoteport",
];
const ENABLE_KEYS_ADDED: &[&str] = &["tolerance", "window", "mtu", "vlan", "queues", "dir"];

static ROOT: &[Word<Command>] = &[
    group(
        "bearer",
        "Show or modify bearers",
        &[
            with_keys(
                "add",
                "Add data to existing bearer",
                Command::BearerAdd,
                REMOTE_KEYS,
                REMOTE_USAGE,
            ),
            with_keys(
                "remove",
                "Remove data from existing bearer",
                Command::BearerRemove,
                REMOTE_KEYS,
                REMOTE_USAGE,
            ),
            Word {
                name: "enable",
                about: "Enable a bearer",
                meaning: Meaning::Command {
                    command: Command::BearerEnable,
                    keys: ENABLE_KEYS,
                    added: ENABLE_KEYS_ADDED,
                    usage: " [ domain DOMAIN ] [ priority PRIORITY ] [ tolerance TOLERANCE ] [ window WINDOW ]\n  \
                            media eth device DEVICE [ vlan VLAN ] [ queues LIST ]\n  \
                            media udp name NAME { localip IP | device DEVICE } [ localport PORT ] \
                            [ remoteip IP ] [ remoteport PORT ] [ mtu MTU ]\n  \
                            media ib device DEVICE\n  \
                            media shm name NAME [ dir PATH ]",
                },
            },
            with_keys(
                "disable",
                "Disable a bearer",
                Command::BearerDisable,
                BEARER_KEYS,
                " media MEDIA { device DEVICE | name NAME }",
            ),
            group(
                "set",
                "Set various bearer properties",
                &[
                    bearer_set("priority", "Set bearer link priority", Property::Priority),
                    bearer_set(
                        "tolerance",
                        "Set bearer link tolerance",
                        Property::Tolerance,
                    ),
                    bearer_set("window", "Set bearer link window", Property::Window),
                    bearer_set("mtu", "Set bearer link mtu", Property::Mtu),
                ],
            ),
            group(
                "get",
                "Get various bearer properties",
                &[
                    bearer_get("priority", "Get bearer link priority", Property::Priority),
                    bearer_get(
                        "tolerance",
                        "Get bearer link tolerance",
                        Property::Tolerance,
                    ),
                    bearer_get("window", "Get bearer link window", Property::Window),
                    bearer_get("mtu", "Get bearer link mtu", Property::Mtu),
                    Word {
                        name: "media",
                        about: "Get addresses of a UDP bearer",
                        meaning: Meaning::Valued {
                            command: Command::BearerGetUdp,
                            keys: &["name"],
                            flags: &["localip", "localport", "remoteip", "remoteport"],
                            usage: " udp name NAME { localip | localport | remoteip | remoteport }",
                        },
                    },
                ],
            ),
            command(
                "list",
                "List bearers, with -d also how they run and why",
                Command::BearerList,
            ),
        ],
    ),
    group(
        "link",
        "Show or modify links",
        &[
            command("list", "List links", Command::LinkList),
            group(
                "get",
                "Get various link properties",
                &[
                    link_get("tolerance", "Get link tolerance", Property::Tolerance),
                    link_get("priority", "Get link priority", Property::Priority),
                    link_get("window", "Get link window", Property::Window),
                    absent("broadcast", ""),
                ],
            ),
            group(
                "set",
                "Set various link properties",
                &[
                    link_set("tolerance", "Set link tolerance", Property::Tolerance),
                    link_set("priority", "Set link priority", Property::Priority),
                    link_set("window", "Set link window", Property::Window),
                    absent("broadcast", ""),
                ],
            ),
            group(
                "statistics",
                "Show statistics",
                &[
                    absent("reset", ""),
                    with_keys(
                        "show",
                        "Show link statistics",
                        Command::LinkStatisticsShow,
                        &["link"],
                        " [ link { LINK | SUBSTRING | all } ]",
                    ),
                ],
            ),
            group(
                "monitor",
                "Show or get/set link monitor properties",
                &[
                    group(
                        "set",
                        "Set monitor parameters",
                        &[Word {
                            name: "threshold",
                            about: "Set monitor activation threshold",
                            meaning: Meaning::Setting {
                                command: Command::MonitorSetThreshold,
                                keys: &[],
                                usage: " SIZE",
                            },
                        }],
                    ),
                    group(
                        "get",
                        "Get monitor parameters",
                        &[command(
                            "threshold",
                            "Get monitor activation threshold",
                            Command::MonitorGetThreshold,
                        )],
                    ),
                    command(
                        "summary",
                        "Show local node monitor summary",
                        Command::MonitorSummary,
                    ),
                    with_keys(
                        "list",
                        "Show links monitor",
                        Command::MonitorList,
                        &["media", "device", "name"],
                        " [ media MEDIA { device DEVICE | name NAME } ]",
                    ),
                ],
            ),
        ],
    ),
    group(
        "media",
        "Show or modify media",
        &[
            command("list", "List media types", Command::MediaList),
            group(
                "get",
                "Get various media properties",
                &[
                    media_get("tolerance", "Get media tolerance", Property::Tolerance),
                    media_get("priority", "Get media priority", Property::Priority),
                    media_get("window", "Get media window", Property::Window),
                    media_get("mtu", "Get media mtu", Property::Mtu),
                ],
            ),
            group(
                "set",
                "Set various media properties",
                &[
                    media_set("tolerance", "Set media tolerance", Property::Tolerance),
                    media_set("priority", "Set media priority", Property::Priority),
                    media_set("window", "Set media window", Property::Window),
                    media_set("mtu", "Set media mtu", Property::Mtu),
                ],
            ),
        ],
    ),
    group(
        "nametable",
        "Show nametable",
        &[command("show", "Show nametable", Command::NametableShow)],
    ),
    group(
        "node",
        "Show node related parameters",
        &[
            command("list", "List remote nodes", Command::NodeList),
            group(
                "get",
                "Get local node parameters",
                &[
                    command("identity", "Get node identity", Command::NodeGetIdentity),
                    command("address", "Get node address", Command::NodeGetAddress),
                    command("netid", "Get local cluster id", Command::NodeGetClusterId),
                    command(
                        "clusterid",
                        "Get local cluster id",
                        Command::NodeGetClusterId,
                    ),
                    Word {
                        name: "key",
                        about: "Get the keys in use, not their bytes",
                        meaning: Meaning::Added {
                            command: Command::NodeGetKey,
                        },
                    },
                ],
            ),
            group(
                "set",
                "Set node parameters",
                &[
                    absent("identity", IDENTITY_INSTEAD),
                    absent("address", IDENTITY_INSTEAD),
                    absent("netid", CLUSTER_ID_INSTEAD),
                    absent("clusterid", CLUSTER_ID_INSTEAD),
                    Word {
                        name: "key",
                        about: "Set key",
                        meaning: Meaning::Valued {
                            command: Command::NodeSetKey,
                            keys: &["algname", "nodeid", "rekeying"],
                            flags: &["master"],
                            usage: " KEY [algname ALGNAME] [master | nodeid NODEID] [rekeying { MINUTES | now }]\n       \
                                xtipc node set key rekeying { MINUTES | now }",
                        },
                    },
                ],
            ),
            group(
                "flush",
                "Remove node parameters",
                &[command("key", "Remove all keys", Command::NodeFlushKey)],
            ),
        ],
    ),
    absent("peer", ""),
    group(
        "socket",
        "Show sockets",
        &[command(
            "list",
            "List sockets (ports), with -d also their owners and what they wait for",
            Command::SocketList,
        )],
    ),
    Word {
        name: "run",
        about: "Run a program with AF_TIPC sockets of the node",
        meaning: Meaning::Added {
            command: Command::Run,
        },
    },
    Word {
        name: "status",
        about: "Show how the daemon runs",
        meaning: Meaning::Added {
            command: Command::Status,
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Typed<Command>, GrammarError> {
        let options = Options::parse(line.split_whitespace().map(str::to_owned))
            .expect("options of the test");
        typed(&options)
    }

    fn means(line: &str) -> Command {
        parse(line)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .command
    }

    fn error(line: &str) -> String {
        parse(line)
            .map(|typed| typed.command)
            .expect_err(line)
            .to_string()
    }

    #[test]
    fn words_may_be_shortened_to_a_unique_prefix() {
        let table = [
            ("l li", Command::LinkList),
            ("link stat sh", Command::LinkStatisticsShow),
            ("li g p link x", Command::LinkGet(Property::Priority)),
            ("no l", Command::NodeList),
            ("node get i", Command::NodeGetIdentity),
            ("node get n", Command::NodeGetClusterId),
            ("node get c", Command::NodeGetClusterId),
            ("na s", Command::NametableShow),
            ("b l", Command::BearerList),
            ("m g m media udp", Command::MediaGet(Property::Mtu)),
        ];
        for (line, command) in table {
            assert_eq!(means(line), command, "{line}");
        }
    }

    #[test]
    fn added_words_do_not_take_abbreviations_away() {
        assert_eq!(means("s l"), Command::SocketList);
        assert_eq!(means("st"), Command::Status);
        assert_eq!(means("status"), Command::Status);
        let typed = parse("bearer enable m udp n U mt 1400 de eth0").expect("keys");
        assert_eq!(
            ["media", "name", "mtu", "device"].map(|key| typed.value(key)),
            [Some("udp"), Some("U"), Some("1400"), Some("eth0")]
        );
        assert_eq!(
            error("bearer enable m udp d eth0"),
            "error, invalid option \"d\"\n",
            "domain or device, as in the tool"
        );
    }

    #[test]
    fn an_ambiguous_or_unknown_word_is_an_invalid_command() {
        for (line, word) in [
            ("n list", "n"),
            ("frob", "frob"),
            ("link s", "s"),
            ("link lists", "lists"),
        ] {
            let expected =
                format!("error, invalid command \"{word}\"\nuse --help for command help\n");
            assert_eq!(error(line), expected, "{line}");
        }
    }

    #[test]
    fn keys_come_shortened_and_the_last_value_wins() {
        let typed = parse("link stat show link a l b").expect("keys");
        assert_eq!(typed.value("link"), Some("b"));
        assert_eq!(parse("link stat show").expect("no key").value("link"), None);
        assert_eq!(
            error("link stat show frob x"),
            "error, invalid option \"frob\"\n"
        );
        assert_eq!(error("link stat show link"), "error, missing value\n");
    }

    #[test]
    fn what_follows_a_command_without_keys_is_ignored() {
        assert_eq!(means("link list whatever"), Command::LinkList);
    }

    #[test]
    fn help_is_about_the_last_command_that_could_be_read() {
        assert!(error("-h").starts_with("Operate a TIPC node"));
        assert!(error("").contains("\n status                - Show how the daemon runs\n"));
        assert_eq!(error("link frob -h"), error("link"));
        assert_eq!(
            error("link"),
            "Usage: xtipc link COMMAND [ARGS] ...\n\nCOMMANDS\n \
             list                  - List links\n \
             get                   - Get various link properties\n \
             set                   - Set various link properties\n \
             statistics            - Show statistics\n \
             monitor               - Show or get/set link monitor properties\n"
        );
        assert_eq!(
            error("link stat -h show x y"),
            "Usage: xtipc link statistics show [ link { LINK | SUBSTRING | all } ]\n"
        );
    }

    #[test]
    fn a_setting_has_its_number_right_behind_its_word() {
        let typed = parse("b se t 400 d eth0 m eth").expect("a setting");
        assert_eq!(typed.command, Command::BearerSet(Property::Tolerance));
        assert_eq!(
            (typed.number, typed.value("device")),
            (Some(400), Some("eth0"))
        );
        assert_eq!(
            means("li set p 3 link x"),
            Command::LinkSet(Property::Priority)
        );
        assert_eq!(means("m s w 60 m udp"), Command::MediaSet(Property::Window));
        assert_eq!(error("link set tolerance"), "error, missing value\n");
        assert_eq!(
            error("link set tolerance 1.5 link x"),
            "error, invalid value \"1.5\": a number is accepted\n"
        );
        assert_eq!(
            error("link set tolerance 80 frob x"),
            "error, invalid option \"frob\"\n"
        );
    }

    #[test]
    fn unsupported_words_say_so_and_are_not_listed() {
        assert_eq!(
            error("peer remove"),
            "error, \"peer\" is not supported by this version of xtipc\n"
        );
        assert!(!error("").contains("peer") && !error("node set").contains("netid"));
        assert!(error("node set cl 9").ends_with("or with xtipcd --cluster-id\n"));
    }
}
