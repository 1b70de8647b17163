//! From words to a command: abbreviations, key/value pairs, help.
//!
//! A word may be shortened to any prefix that is unique among the words of the tipc tool at its level. Words of the
//! tool that xtipc does not have stay in that list, and words and keys that xtipc adds are tried only where none of the
//! tool's fits, so that every abbreviation means what it means there.
//!
//! Reference: `docs/protocol/management.md`.

use std::fmt::Write as _;

/// A word of the command line and what may follow it.
pub(crate) struct Word<C: 'static> {
    pub(crate) name: &'static str,
    /// One line for the help of the level above.
    pub(crate) about: &'static str,
    pub(crate) meaning: Meaning<C>,
}

/// What a word stands for.
pub(crate) enum Meaning<C: 'static> {
    /// One of these must follow.
    Group(&'static [Word<C>]),
    /// A command; `usage` shows the keys it takes. Those in `added` the tipc tool does not have.
    Command {
        command: C,
        keys: &'static [&'static str],
        added: &'static [&'static str],
        usage: &'static str,
    },
    /// As `Command`, with a number right behind the word.
    Setting {
        command: C,
        keys: &'static [&'static str],
        usage: &'static str,
    },
    /// As `Command`, with a value right behind the word unless one of `keys` or `flags` stands there. A flag has no
    /// value.
    Valued {
        command: C,
        keys: &'static [&'static str],
        flags: &'static [&'static str],
        usage: &'static str,
    },
    /// As `Command`, but not a word of the tipc tool.
    Added { command: C },
    /// A word of the tipc tool that is not supported; says what to do instead, if there is something.
    Absent { instead: &'static str },
}

/// The command that was typed, with its keys and values in the order of the line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed<C> {
    pub(crate) command: C,
    /// The number behind the word of a setting.
    pub(crate) number: Option<u32>,
    /// The value behind the word, where one may stand.
    pub(crate) first: Option<String>,
    values: Vec<(&'static str, String)>,
}

impl<C> Typed<C> {
    /// The value of a key; the last one counts.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values
            .iter()
            .rev()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Why the words are no command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrammarError {
    /// Not an error of the words: help was asked for, or a word is missing.
    #[error("{0}")]
    Help(String),
    #[error("error, invalid command \"{0}\"\nuse --help for command help\n")]
    InvalidCommand(String),
    #[error("error, invalid option \"{0}\"\n")]
    InvalidOption(String),
    #[error("error, missing value\n")]
    MissingValue,
    #[error("error, invalid value \"{0}\": a number is accepted\n")]
    NoNumber(String),
    #[error("error, \"{command}\" is not supported by this version of xtipc\n{instead}")]
    Absent {
        command: String,
        instead: &'static str,
    },
}

/// Finds the command that the words mean. `general` is the help of the program, before its list of commands.
pub(crate) fn resolve<C: Copy>(
    root: &'static [Word<C>],
    general: &str,
    words: &[String],
    help: bool,
) -> Result<Typed<C>, GrammarError> {
    let mut level = root;
    let mut path = String::new();
    let mut rest = words.iter();
    loop {
        let Some(typed) = rest.next() else {
            return Err(group_help(path, general, level));
        };
        let Some(word) = find(level, typed) else {
            return Err(if help {
                group_help(path, general, level)
            } else {
                GrammarError::InvalidCommand(typed.clone())
            });
        };
        if !path.is_empty() {
            path.push(' ');
        }
        path.push_str(word.name);
        let is_setting = matches!(word.meaning, Meaning::Setting { .. });
        let mut flags: Option<&'static [&'static str]> = None;
        let mut added: &'static [&'static str] = &[];
        let (command, keys, usage): (C, &'static [&'static str], _) = match &word.meaning {
            Meaning::Group(words) => {
                level = words;
                continue;
            }
            Meaning::Absent { instead } => {
                return Err(GrammarError::Absent {
                    command: path,
                    instead,
                });
            }
            Meaning::Command {
                command,
                keys,
                added: not_of_the_tool,
                usage,
            } => {
                added = not_of_the_tool;
                (*command, keys, *usage)
            }
            Meaning::Setting {
                command,
                keys,
                usage,
            } => (*command, keys, *usage),
            Meaning::Valued {
                command,
                keys,
                flags: without_value,
                usage,
            } => {
                flags = Some(without_value);
                (*command, keys, *usage)
            }
            Meaning::Added { command } => (*command, &[], ""),
        };
        if help {
            return Err(GrammarError::Help(format!("Usage: xtipc {path}{usage}\n")));
        }
        let number = if is_setting {
            Some(number(rest.next())?)
        } else {
            None
        };
        let mut rest = rest.peekable();
        let mut first = None;
        if let Some(flags) = flags {
            let typed = *rest.peek().ok_or(GrammarError::MissingValue)?;
            if !keys.iter().chain(flags).any(|key| key.starts_with(typed)) {
                first = rest.next().cloned();
            }
        }
        return Ok(Typed {
            command,
            number,
            first,
            values: pairs(keys, added, flags.unwrap_or_default(), rest)?,
        });
    }
}

fn number(typed: Option<&String>) -> Result<u32, GrammarError> {
    let typed = typed.ok_or(GrammarError::MissingValue)?;
    typed
        .parse()
        .map_err(|_| GrammarError::NoNumber(typed.clone()))
}

/// The key/value pairs. A command without keys ignores what follows it, as the tipc tool does.
fn pairs<'a>(
    keys: &'static [&'static str],
    added: &'static [&'static str],
    flags: &'static [&'static str],
    mut words: impl Iterator<Item = &'a String>,
) -> Result<Vec<(&'static str, String)>, GrammarError> {
    let mut values = Vec::new();
    if keys.is_empty() {
        return Ok(values);
    }
    while let Some(typed) = words.next() {
        let fits = |key: &&'static str| key.starts_with(typed.as_str());
        let of_the_tool = || keys.iter().chain(flags).copied().filter(fits);
        let key = match of_the_tool().next() {
            Some(_) => only(of_the_tool()),
            None => only(added.iter().copied().filter(fits)),
        };
        let key = key.ok_or_else(|| GrammarError::InvalidOption(typed.clone()))?;
        let value = if flags.contains(&key) {
            String::new()
        } else {
            words.next().ok_or(GrammarError::MissingValue)?.clone()
        };
        values.push((key, value));
    }
    Ok(values)
}

fn find<C>(level: &'static [Word<C>], typed: &str) -> Option<&'static Word<C>> {
    let is_added = |word: &&Word<C>| matches!(word.meaning, Meaning::Added { .. });
    let fits = |word: &&Word<C>| word.name.starts_with(typed);
    if level
        .iter()
        .filter(|word| !is_added(word))
        .any(|word| fits(&word))
    {
        return only(level.iter().filter(|word| !is_added(word)).filter(fits));
    }
    only(level.iter().filter(is_added).filter(fits))
}

/// The single item, if there is exactly one. The tipc tool knows no precedence of an exact word either.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next();
    if items.next().is_some() { None } else { first }
}

/// What to say where one of the words of `level` is missing; `path` are those before it.
fn group_help<C>(path: String, general: &str, level: &[Word<C>]) -> GrammarError {
    if path.is_empty() {
        GrammarError::Help(list(general, level))
    } else if level.iter().any(is_supported) {
        let usage = format!("Usage: xtipc {path} COMMAND [ARGS] ...\n\nCOMMANDS\n");
        GrammarError::Help(list(&usage, level))
    } else {
        GrammarError::Absent {
            command: path,
            instead: "",
        }
    }
}

fn list<C>(heading: &str, level: &[Word<C>]) -> String {
    let mut text = heading.to_owned();
    for word in level.iter().filter(|word| is_supported(word)) {
        writeln!(text, " {:<22}- {}", word.name, word.about).expect("a String takes all");
    }
    text
}

fn is_supported<C>(word: &Word<C>) -> bool {
    match &word.meaning {
        Meaning::Group(words) => words.iter().any(is_supported),
        Meaning::Command { .. }
        | Meaning::Setting { .. }
        | Meaning::Valued { .. }
        | Meaning::Added { .. } => true,
        Meaning::Absent { .. } => false,
    }
}
