//! Options of the command line, read as GNU getopt reads them: anywhere among the words, short ones combined, long
//! ones shortened to any unique prefix, nothing read as an option after `--`.
//!
//! Reference: `docs/protocol/management.md`.

use std::path::PathBuf;

use xtipc_management::{InstanceNameError, attach_socket, control_socket};

/// The word behind which all is a program's.
pub(crate) const RUN: &str = "run";

/// What the options ask for, and the words that are left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Print help instead of doing anything.
    pub(crate) help: bool,
    /// Print JSON.
    pub(crate) json: bool,
    /// Indent the JSON.
    pub(crate) pretty: bool,
    /// Print what the tipc tool does not.
    pub(crate) details: bool,
    /// The instance to ask.
    instance: Option<String>,
    /// The control socket to ask.
    socket: Option<PathBuf>,
    /// Command words, keys and values.
    pub(crate) words: Vec<String>,
}

/// What is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OptionError {
    #[error("invalid option -- '{0}'")]
    UnknownShort(char),
    #[error("unrecognized option '--{0}'")]
    UnknownLong(String),
    #[error("option '--{0}' is ambiguous")]
    Ambiguous(String),
    #[error("option '--{0}' doesn't allow an argument")]
    NeedlessArgument(&'static str),
    #[error("option '--{0}' requires an argument")]
    MissingArgument(&'static str),
    #[error("--instance and --socket both say which daemon to ask: give one of them")]
    TwoDaemons,
    #[error(transparent)]
    Instance(#[from] InstanceNameError),
}

#[derive(Clone, Copy)]
enum Known {
    Help,
    Json,
    Pretty,
    Details,
    Instance,
    Socket,
}

const LONG: [(&str, Known); 6] = [
    ("help", Known::Help),
    ("json", Known::Json),
    ("pretty", Known::Pretty),
    ("details", Known::Details),
    ("instance", Known::Instance),
    ("socket", Known::Socket),
];

impl Options {
    /// Reads the arguments after the program name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                options.words.extend(rest);
                break;
            } else if let Some(long) = argument.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let (name, known) = find_long(name)?;
                options.set_long(name, known, value, &mut rest)?;
            } else if argument.len() > 1 && argument.starts_with('-') {
                for letter in argument.chars().skip(1) {
                    options.set_flag(match letter {
                        'h' => Known::Help,
                        'j' => Known::Json,
                        'p' => Known::Pretty,
                        'd' => Known::Details,
                        _ => return Err(OptionError::UnknownShort(letter)),
                    });
                }
            } else if argument == RUN && options.words.is_empty() {
                options.words.push(argument);
                options.words.extend(rest);
                break;
            } else {
                options.words.push(argument);
            }
        }
        if options.instance.is_some() && options.socket.is_some() {
            return Err(OptionError::TwoDaemons);
        }
        Ok(options)
    }

    /// What follows `run`, from which no option is taken.
    pub(crate) fn words_to_run(&self) -> Option<&[String]> {
        let (first, rest) = self.words.split_first()?;
        (first == RUN).then_some(rest)
    }

    /// The attach socket of the daemon, if the options say which that is.
    pub(crate) fn attach_socket(&self) -> Result<Option<PathBuf>, OptionError> {
        Ok(match (&self.socket, &self.instance) {
            (None, None) => None,
            (Some(control), _) => Some(control.with_file_name("attach.sock")),
            (None, instance) => Some(attach_socket(instance.as_deref())?),
        })
    }

    /// The control socket of the daemon to ask.
    pub(crate) fn control_socket(&self) -> Result<PathBuf, OptionError> {
        match &self.socket {
            Some(path) => Ok(path.clone()),
            None => Ok(control_socket(self.instance.as_deref())?),
        }
    }

    fn set_long(
        &mut self,
        name: &'static str,
        known: Known,
        value: Option<String>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), OptionError> {
        let argument = |value: Option<String>, rest: &mut dyn Iterator<Item = String>| {
            value
                .or_else(|| rest.next())
                .ok_or(OptionError::MissingArgument(name))
        };
        match known {
            Known::Instance => self.instance = Some(argument(value, rest)?),
            Known::Socket => self.socket = Some(argument(value, rest)?.into()),
            Known::Help | Known::Json | Known::Pretty | Known::Details if value.is_some() => {
                return Err(OptionError::NeedlessArgument(name));
            }
            flag @ (Known::Help | Known::Json | Known::Pretty | Known::Details) => {
                self.set_flag(flag)
            }
        }
        Ok(())
    }

    fn set_flag(&mut self, flag: Known) {
        match flag {
            Known::Help => self.help = true,
            Known::Json => self.json = true,
            Known::Pretty => self.pretty = true,
            Known::Details => self.details = true,
            Known::Instance | Known::Socket => {}
        }
    }
}

fn find_long(name: &str) -> Result<(&'static str, Known), OptionError> {
    let mut matches = LONG.iter().filter(|(long, _)| long.starts_with(name));
    match (matches.next(), matches.next()) {
        (Some(&found), None) => Ok(found),
        (None, _) => Err(OptionError::UnknownLong(name.to_owned())),
        (Some(_), Some(_)) => Err(OptionError::Ambiguous(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionError> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_may_stand_anywhere_and_be_combined() {
        for line in [
            "-jp link list",
            "link -j list -p",
            "link list -pj",
            "--json link --pr list",
        ] {
            let options = parse(line).expect(line);
            assert!(options.json && options.pretty && !options.help, "{line}");
            assert_eq!(options.words, ["link", "list"], "{line}");
        }
    }

    #[test]
    fn after_two_dashes_everything_is_a_word() {
        assert_eq!(
            parse("link -- -j --x").expect("words").words,
            ["link", "-j", "--x"]
        );
        assert_eq!(
            parse("link -").expect("a single dash is a word").words,
            ["link", "-"]
        );
    }

    #[test]
    fn a_program_to_run_has_its_options_to_itself() {
        let options = parse("--instance blue run ls -l --json -- x").expect("words");
        let words = options.words_to_run().expect("a program");
        assert_eq!(words, ["ls", "-l", "--json", "--", "x"]);
        assert!(!options.json);
        assert_eq!(
            options.attach_socket(),
            Ok(Some("/run/xtipc/blue/attach.sock".into()))
        );
        assert_eq!(parse("link run -j").expect("words").words_to_run(), None);
    }

    #[test]
    fn the_daemon_is_named_by_instance_or_by_socket() {
        let socket = |line| parse(line).and_then(|options| options.control_socket());
        assert_eq!(socket(""), Ok("/run/xtipc/control.sock".into()));
        assert_eq!(
            socket("status --instance blue"),
            Ok("/run/xtipc/blue/control.sock".into())
        );
        assert_eq!(socket("--socket=/tmp/s status"), Ok("/tmp/s".into()));
        assert_eq!(
            socket("--instance a --socket b"),
            Err(OptionError::TwoDaemons)
        );
        assert!(matches!(
            socket("--instance ../x"),
            Err(OptionError::Instance(_))
        ));
    }

    #[test]
    fn wrong_options_are_named() {
        assert_eq!(parse("-jV"), Err(OptionError::UnknownShort('V')));
        assert_eq!(
            parse("--frob"),
            Err(OptionError::UnknownLong("frob".to_owned()))
        );
        assert_eq!(parse("--=x"), Err(OptionError::Ambiguous(String::new())));
        assert_eq!(
            parse("--json=x"),
            Err(OptionError::NeedlessArgument("json"))
        );
        assert_eq!(
            parse("link --socket"),
            Err(OptionError::MissingArgument("socket"))
        );
    }
}
