//! Keys on their way from an operator to the daemon.
//!
//! Reference: `docs/protocol/management.md`, `docs/protocol/crypto.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest key, with its salt.
pub const KEY_MAX: usize = 36;

/// A key as operators write it: characters, or `0x` and hex digits. Wiped when dropped; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyText(String);

/// A text that is no key. It is not repeated here, as it may be most of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key: accepted are up to {KEY_MAX} characters, or 0x and up to {digits} hex digits, an even number", digits = 2 * KEY_MAX)]
pub struct KeyTextError;

impl KeyText {
    /// Takes what was written.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The bytes it stands for; whether they are as many as a key has is for the daemon to say.
    pub fn decode(&self) -> Result<KeyBytes, KeyTextError> {
        let bytes = match self.0.strip_prefix("0x") {
            Some(digits) if digits.len() % 2 == 0 && digits.is_ascii() => {
                let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16);
                let bytes: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(pair).collect();
                bytes.map_err(|_| KeyTextError)?
            }
            Some(_) => return Err(KeyTextError),
            None => self.0.as_bytes().to_vec(),
        };
        let bytes = KeyBytes(bytes);
        if bytes.0.is_empty() || bytes.0.len() > KEY_MAX {
            return Err(KeyTextError);
        }
        Ok(bytes)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText")
    }
}

impl Drop for KeyText {
    fn drop(&mut self) {
        wipe(&mut std::mem::take(&mut self.0).into_bytes());
    }
}

/// The bytes of a key. Wiped when dropped.
pub struct KeyBytes(Vec<u8>);

impl std::ops::Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({})", self.0.len())
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites a secret in a way that the compiler may not leave out.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

/// When the session key is replaced by a random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RekeyingTime {
    /// Never.
    Off,
    /// Each time so many minutes have passed.
    Minutes(u32),
    /// Once, now; what was set before stays.
    Now,
}

/// The keys in use, without what is secret in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysInfo {
    /// There is a master key.
    pub master: bool,
    /// The session key that is sent with.
    pub active: Option<SessionKeyInfo>,
    /// The one that is being introduced.
    pub pending: Option<SessionKeyInfo>,
    /// Peers whose frames a session key opens.
    pub peers: u32,
    /// Minutes between two replacements of the session key; 0 for never.
    pub rekeying_minutes: u32,
    /// Frames encrypted.
    pub sealed: u64,
    /// Frames decrypted.
    pub opened: u64,
    /// Changes of keys.
    pub switches: u64,
}

/// A session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKeyInfo {
    /// Its slot, 1 to 3.
    pub slot: u8,
    /// It is the cluster's, not only this node's.
    pub cluster: bool,
    /// 128, 192 or 256.
    pub bits: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Result<Vec<u8>, KeyTextError> {
        KeyText::new(text.into()).decode().map(|key| key.to_vec())
    }

    #[test]
    fn characters_and_hex_digits_are_keys() {
        assert_eq!(decoded("this_is_a_key"), Ok(b"this_is_a_key".to_vec()));
        assert_eq!(decoded("0x00fFa1"), Ok(vec![0, 255, 0xa1]));
        let longest = "0x".to_owned() + &"ab".repeat(KEY_MAX);
        assert_eq!(decoded(&longest), Ok(vec![0xab; KEY_MAX]));
        for wrong in ["", "0x", "0xabc", "0xzz", "0x\u{e9}", &"a".repeat(37)] {
            assert_eq!(decoded(wrong), Err(KeyTextError), "{wrong}");
        }
    }

    #[test]
    fn nothing_shows_the_key() {
        let key = KeyText::new("secret".into());
        assert_eq!(
            format!("{key:?}, {:?}", key.decode()),
            "KeyText, Ok(KeyBytes(6))"
        );
    }
}
