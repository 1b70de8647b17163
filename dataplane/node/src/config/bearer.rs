//! The text form of a bearer: `eth:IFACE[,key=value]...`.

use super::ConfigError;
use super::value::{Given, Value, number, number_list};

const SYNTAX: &str = "eth:IFACE[,priority=0..31][,tolerance=50..30000][,window=50..8191]\
                      [,vlan=1..4094][,queues=LIST]";
/// Highest receive queue number a device can have that we would meet.
const QUEUE_MAX: usize = 1023;

/// One bearer of the configuration; the values it gives are defaults for the links made on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BearerSpec {
    /// Network interface, 1 to 15 bytes. Whether it exists is seen when the bearer is opened.
    pub interface: String,
    /// Link priority, 0..=31.
    pub priority: Option<u8>,
    /// Link tolerance in milliseconds, 50..=30000.
    pub tolerance_ms: Option<u32>,
    /// Largest send window in packets, 50..=8191.
    pub window_max: Option<u16>,
    /// VLAN id, 1..=4094.
    pub vlan: Option<u16>,
    /// Receive queues to use, ascending; empty means all.
    pub queues: Vec<usize>,
}

impl BearerSpec {
    /// The bearer's name as the tools print it. Link names use only the interface.
    pub fn name(&self) -> String {
        format!("eth:{}", self.interface)
    }

    /// The same for a bearer that an operator enables while the daemon runs.
    pub fn from_operator(text: &str) -> Result<Self, ConfigError> {
        let value = Value::from(text.to_owned());
        Self::parse(&Given {
            origin: "command".into(),
            key: "bearer",
            value: &value,
        })
    }

    pub(super) fn parse(given: &Given<'_>) -> Result<Self, ConfigError> {
        let text = given.value.to_string();
        let (name, options) = match text.split_once(',') {
            Some((name, options)) => (name, split_options(options)),
            None => (text.as_str(), Vec::new()),
        };
        let interface = match name.split_once(':') {
            Some(("eth", interface)) => interface,
            Some(("udp", _)) => {
                return Err(
                    given.refuse_value("names a UDP bearer, which is not in this version", SYNTAX)
                );
            }
            _ => return Err(given.refuse_value("does not start with a known media", SYNTAX)),
        };
        if !is_interface_name(interface) {
            return Err(given.refuse_value(
                "does not name a network interface",
                format!("{SYNTAX}, IFACE of 1 to 15 characters without / : and blanks"),
            ));
        }
        let mut bearer = Self {
            interface: interface.to_owned(),
            ..Self::default()
        };
        for (key, value) in options {
            bearer.set(given, key, &value)?;
        }
        Ok(bearer)
    }

    fn set(&mut self, given: &Given<'_>, key: &str, value: &str) -> Result<(), ConfigError> {
        let ranged = |accepted| {
            number(value, accepted).map_err(|(why, range)| {
                given.refuse(
                    format!("{key}=`{value}` in `{}` {why}", given.value),
                    format!("{key}={range}"),
                )
            })
        };
        let twice = match key {
            "priority" => replace(&mut self.priority, ranged(0..=31)?),
            "tolerance" => replace(&mut self.tolerance_ms, ranged(50..=30_000)?),
            "window" => replace(&mut self.window_max, ranged(50..=8191)?),
            "vlan" => replace(&mut self.vlan, ranged(1..=4094)?),
            "queues" => {
                let twice = !self.queues.is_empty();
                self.queues = number_list(value, QUEUE_MAX).ok_or_else(|| {
                    given.refuse(
                        format!("queues=`{value}` in `{}` is no list", given.value),
                        format!("queues= distinct numbers up to {QUEUE_MAX}, like 0,2-3"),
                    )
                })?;
                twice
            }
            _ => {
                return Err(
                    given.refuse(format!("`{key}` in `{}` is not known", given.value), SYNTAX)
                );
            }
        };
        if twice {
            return Err(given.refuse(format!("{key} is given twice in `{}`", given.value), SYNTAX));
        }
        Ok(())
    }
}

/// Stores a value that was checked against the range of its type; tells whether there was one before.
fn replace<T: TryFrom<u32>>(slot: &mut Option<T>, value: u32) -> bool {
    std::mem::replace(slot, T::try_from(value).ok()).is_some()
}

/// `a=1,queues=0,2-3,b=2` as pairs: a part without `=` goes on with the list before it.
fn split_options(options: &str) -> Vec<(&str, String)> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for part in options.split(',') {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((key, value)), _) => pairs.push((key, value.to_owned())),
            (None, Some((_, list))) => {
                list.push(',');
                list.push_str(part);
            }
            (None, None) => pairs.push((part, String::new())),
        }
    }
    pairs
}

/// What the kernel takes as the name of a device.
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}
