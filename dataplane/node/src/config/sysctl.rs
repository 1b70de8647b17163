//! The settings of the kernel's TIPC, `net.tipc.*`, as keys of the same names that take the same values. Those that have no meaning here
//! are checked and told of, so that what an operator had for the kernel can stay.

use super::resolve::Layers;
use super::value::{Given, number};
use super::{ConfigError, Settings, Value};

const RECEIVE_BUFFER: u32 = 2 * 1024 * 1024;
/// The largest number of the kernel's settings that are an int.
const INT_MAX: u32 = i32::MAX as u32;

/// A key without effect: its place, how many numbers it takes, the least, and why.
type Idle = (
    &'static str,
    fn(&Settings) -> &Option<Value>,
    usize,
    u32,
    &'static str,
);

const IDLE: [Idle; 3] = [
    (
        "named_timeout",
        |s| &s.named_timeout,
        1,
        0,
        "no update of a binding waits to be applied",
    ),
    (
        "max_tfms",
        |s| &s.max_tfms,
        1,
        1,
        "a key needs one cipher, and has it",
    ),
    (
        "sk_filter",
        |s| &s.sk_filter,
        5,
        0,
        "there are no trace points for sockets",
    ),
];

impl Layers<'_> {
    /// As in Linux, only the second of the three has an effect.
    pub(super) fn receive_buffer(&self) -> Result<u32, ConfigError> {
        let Some(given) = self.get("tipc_rmem", |s| &s.tipc_rmem) else {
            return Ok(RECEIVE_BUFFER);
        };
        let accepted = "three numbers from 1 on, the second from 4096 to 1073741824 (bytes)";
        match numbers(&given, 1)?[..] {
            [_, default @ 4096..=0x4000_0000, _] => Ok(default),
            [_, _, _] => Err(given.refuse_value("makes sockets of an impossible size", accepted)),
            _ => Err(given.refuse_value("is not three numbers", accepted)),
        }
    }

    pub(super) fn key_exchange(&self) -> Result<bool, ConfigError> {
        let key = "key_exchange_enabled";
        Ok(self.number(key, |s| &s.key_exchange_enabled, 1, 0..=1, "")? != 0)
    }

    pub(super) fn broadcast_repair_by_unicast(&self) -> Result<bool, ConfigError> {
        Ok(self.number("bc_retruni", |s| &s.bc_retruni, 0, 0..=u32::MAX, "")? != 0)
    }

    pub(super) fn without_effect(&self) -> Result<Vec<String>, ConfigError> {
        let mut told = Vec::new();
        for (key, field, count, least, why) in IDLE {
            let Some(given) = self.get(key, field) else {
                continue;
            };
            if numbers(&given, least)?.len() != count {
                let accepted = format!("{count}, from {least} on");
                return Err(given.refuse_value("is not as many numbers as it takes", accepted));
            }
            told.push(format!("{}: {key}: without effect: {why}", given.origin));
        }
        Ok(told)
    }
}

/// Numbers with blanks between them, as the kernel's files have them, or a list.
fn numbers(given: &Given<'_>, least: u32) -> Result<Vec<u32>, ConfigError> {
    let text = given.value.to_string();
    let words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    words
        .map(|word| {
            number(word, least..=INT_MAX)
                .map_err(|(why, range)| given.refuse(format!("`{word}` in `{text}` {why}"), range))
        })
        .collect()
}
