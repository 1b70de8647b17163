//! The words of xtipc: those of the tipc tool, and those added.

use crate::grammar::{GrammarError, Meaning, Typed, Word, resolve};
use crate::options::Options;

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    BearerList,
    LinkList,
    LinkGet(Property),
    LinkStatisticsShow,
    MediaList,
    MediaGet(Property),
    NametableShow,
    NodeList,
    NodeGetIdentity,
    NodeGetAddress,
    /// Net id is another word for the cluster id.
    NodeGetClusterId,
    SocketList,
    Status,
}

/// A property of a link or a media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    Priority,
    Tolerance,
    Window,
    Mtu,
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

const BEARERS_INSTEAD: &str =
    "bearers are set up with \"bearer\" in /etc/xtipc/xtipcd.toml or with xtipcd --bearer\n";
const LINKS_INSTEAD: &str = "links take priority, tolerance and window from their bearer: \
    \"bearer\" in /etc/xtipc/xtipcd.toml, such as \"eth:eth0,tolerance=800\"\n";
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

static ROOT: &[Word<Command>] = &[
    group(
        "bearer",
        "Show bearers",
        &[
            absent("add", BEARERS_INSTEAD),
            absent("enable", BEARERS_INSTEAD),
            absent("disable", BEARERS_INSTEAD),
            absent("set", BEARERS_INSTEAD),
            absent(
                "get",
                "xtipc -d bearer list shows the properties of all bearers\n",
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
        "Show links",
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
            absent("set", LINKS_INSTEAD),
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
            absent("monitor", ""),
        ],
    ),
    group(
        "media",
        "Show media",
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
            absent("set", LINKS_INSTEAD),
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
                ],
            ),
            group(
                "set",
                "",
                &[
                    absent("identity", IDENTITY_INSTEAD),
                    absent("address", IDENTITY_INSTEAD),
                    absent("netid", CLUSTER_ID_INSTEAD),
                    absent("clusterid", CLUSTER_ID_INSTEAD),
                    absent("key", ""),
                ],
            ),
            absent("flush", ""),
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
             statistics            - Show statistics\n"
        );
        assert_eq!(
            error("link stat -h show x y"),
            "Usage: xtipc link statistics show [ link { LINK | SUBSTRING | all } ]\n"
        );
    }

    #[test]
    fn unsupported_words_say_so_and_are_not_listed() {
        assert_eq!(
            error("bearer en media eth device eth0"),
            "error, \"bearer enable\" is not supported by this version of xtipc\n\
             bearers are set up with \"bearer\" in /etc/xtipc/xtipcd.toml or with xtipcd --bearer\n"
        );
        assert_eq!(
            error("peer remove"),
            "error, \"peer\" is not supported by this version of xtipc\n"
        );
        assert!(!error("bearer").contains("enable"));
        assert!(!error("").contains("peer") && !error("node").contains("set"));
        assert_eq!(
            error("node set"),
            "error, \"node set\" is not supported by this version of xtipc\n"
        );
        assert!(error("node set cl 9").ends_with("or with xtipcd --cluster-id\n"));
        assert!(error("link set tol 900 link x").contains("eth:eth0,tolerance=800"));
    }
}
