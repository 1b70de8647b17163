//! What names a bearer on the command line, and what a new one is given.
//!
//! Reference: `docs/protocol/management.md`.

use crate::commands::Command;
use crate::grammar::Typed;

/// What is wrong with the words that describe a bearer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BearerWordsError {
    #[error("error, missing bearer media\n")]
    MissingMedia,
    #[error("error, missing bearer device\n")]
    MissingDevice,
    #[error("error, invalid media type {0}: eth is accepted\n")]
    UnknownMedia(String),
}

/// Keys that the daemon's text form of a bearer has, too.
const OPTIONS: [&str; 5] = ["priority", "tolerance", "window", "vlan", "queues"];

/// The bearer's name, such as `eth:eth0`.
pub(crate) fn name(typed: &Typed<Command>) -> Result<String, BearerWordsError> {
    let media = typed.value("media").ok_or(BearerWordsError::MissingMedia)?;
    if media != "eth" {
        return Err(BearerWordsError::UnknownMedia(media.to_owned()));
    }
    let device = typed
        .value("device")
        .ok_or(BearerWordsError::MissingDevice)?;
    Ok(format!("{media}:{device}"))
}

/// A new bearer in the text form of the daemon's configuration, such as `eth:eth0,priority=5`.
pub(crate) fn specification(typed: &Typed<Command>) -> Result<String, BearerWordsError> {
    let mut text = name(typed)?;
    for key in OPTIONS {
        if let Some(value) = typed.value(key) {
            text.push_str(&format!(",{key}={value}"));
        }
    }
    Ok(text)
}
