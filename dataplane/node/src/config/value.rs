//! One given value and the checks that keys have in common.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;

/// A value as it stood in the file or on the command line; its key decides what it means.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "a text, a whole number, true, false or a list of these is accepted"
)]
pub enum Value {
    /// A whole number of the file.
    Number(i64),
    /// True or false in the file.
    Bool(bool),
    /// Text of the file, or anything from the command line.
    Text(String),
    /// A list of the file.
    List(Vec<Value>),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Text(text) => f.write_str(text),
            Self::List(list) => {
                for (i, value) in list.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{value}")?;
                }
                Ok(())
            }
        }
    }
}

/// A value together with where it came from, so that each complaint can say so.
pub(super) struct Given<'a> {
    pub(super) origin: String,
    pub(super) key: &'static str,
    pub(super) value: &'a Value,
}

impl Given<'_> {
    pub(super) fn refuse(
        &self,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            origin: self.origin.clone(),
            key: self.key,
            problem: problem.into(),
            accepted: accepted.into(),
        }
    }

    /// The refusal of the value as a whole.
    pub(super) fn refuse_value(&self, why: &str, accepted: impl Into<String>) -> ConfigError {
        self.refuse(format!("`{}` {why}", self.value), accepted)
    }

    pub(super) fn number(
        &self,
        accepted: RangeInclusive<u32>,
        unit: &str,
    ) -> Result<u32, ConfigError> {
        let text = self.value.to_string();
        number(&text, accepted).map_err(|(why, range)| {
            self.refuse(format!("`{text}` {why}"), format!("{range}{unit}"))
        })
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.value.to_string();
        choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, choice)| *choice)
            .ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                self.refuse_value("is not known", names.join(", "))
            })
    }

    /// Absolute, since daemon and applications have different working directories.
    pub(super) fn absolute_path(&self) -> Result<PathBuf, ConfigError> {
        let path = PathBuf::from(self.value.to_string());
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(self.refuse_value("is not an absolute path", "a path that starts with /"))
        }
    }

    /// Permission bits. TOML's own octal numbers arrive as decimal ones, so a number is refused
    /// rather than misread.
    pub(super) fn mode(&self) -> Result<u32, ConfigError> {
        let accepted = "octal text of three digits, like \"0660\"";
        let Value::Text(text) = self.value else {
            return Err(self.refuse_value("is not text", accepted));
        };
        match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode) if mode <= 0o777 => Ok(mode),
            _ => Err(self.refuse_value("is not a set of permissions", accepted)),
        }
    }

    /// A group by number, or by its name in /etc/group.
    pub(super) fn group(&self) -> Result<u32, ConfigError> {
        let text = self.value.to_string();
        if let Ok(gid) = text.parse() {
            return Ok(gid);
        }
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        groups
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == text).then(|| fields.nth(1)?.parse().ok())?
            })
            .next()
            .ok_or_else(|| {
                self.refuse_value("is no group", "a group number or a name in /etc/group")
            })
    }
}

/// Parses a whole number; on refusal the reason and the accepted range as text.
pub(super) fn number(
    text: &str,
    accepted: RangeInclusive<u32>,
) -> Result<u32, (&'static str, String)> {
    let range = format!("{} to {}", accepted.start(), accepted.end());
    match text.parse::<i64>() {
        Err(_) => Err(("is not a whole number", range)),
        Ok(n) => match u32::try_from(n) {
            Ok(n) if accepted.contains(&n) => Ok(n),
            _ => Err(("is out of range", range)),
        },
    }
}

/// Parses `0,2-3` into ascending distinct numbers; `None` for anything else or beyond `max`.
pub(super) fn number_list(text: &str, max: usize) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok()?;
        if first > last || last > max {
            return None;
        }
        list.extend(first..=last);
    }
    list.sort_unstable();
    let given = list.len();
    list.dedup();
    (list.len() == given).then_some(list)
}
