//! The words of `node set key`.
//!
//! Reference: `docs/protocol/management.md`.

use xtipc_management::{IdentityError, KeyText, RekeyingTime, Request};

use crate::commands::Command;
use crate::grammar::Typed;

/// What is wrong with the words that describe a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyWordsError {
    #[error("error, invalid key input\n")]
    Key,
    #[error("error, invalid algname\n")]
    Algorithm,
    #[error("error, per-node key cannot be master\n")]
    MasterOfNode,
    #[error("{0}\n")]
    Identity(#[from] IdentityError),
    #[error("error, invalid rekeying interval \"{0}\": minutes or now is accepted\n")]
    Rekeying(String),
}

/// Longest name of an algorithm.
const ALGORITHM_MAX: usize = 31;

/// What to ask the daemon.
pub(crate) fn request(typed: &Typed<Command>) -> Result<Request, KeyWordsError> {
    let key = typed.first.clone().map(KeyText::new);
    if key.as_ref().is_some_and(|key| key.decode().is_err()) {
        return Err(KeyWordsError::Key);
    }
    let algorithm = typed.value("algname").unwrap_or("gcm(aes)").to_owned();
    if algorithm.len() > ALGORITHM_MAX {
        return Err(KeyWordsError::Algorithm);
    }
    let node = typed.value("nodeid").map(str::parse).transpose()?;
    let master = typed.value("master").is_some();
    if master && node.is_some() {
        return Err(KeyWordsError::MasterOfNode);
    }
    let rekeying = typed.value("rekeying").map(rekeying).transpose()?;
    Ok(Request::KeySet {
        key,
        algorithm,
        node,
        master,
        rekeying,
    })
}

fn rekeying(text: &str) -> Result<RekeyingTime, KeyWordsError> {
    match (text, text.parse()) {
        ("now", _) => Ok(RekeyingTime::Now),
        (_, Ok(0)) => Ok(RekeyingTime::Off),
        (_, Ok(minutes)) => Ok(RekeyingTime::Minutes(minutes)),
        (_, Err(_)) => Err(KeyWordsError::Rekeying(text.to_owned())),
    }
}
