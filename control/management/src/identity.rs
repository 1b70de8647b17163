//! The 128-bit node identity: its text form, its parser and the node address derived from it.
//!
//! Reference: `docs/protocol/discovery.md`, `docs/protocol/management.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A node identity. All zero means that none is set yet.
///
/// `Display` gives the text operators see; serde gives all 32 hex digits, which loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdentity(pub [u8; 16]);

/// A text that is no node identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid node identity \"{0}\": accepted are 1 to 16 characters of 0-9 A-Z a-z - _ . : @, or up to 32 hex digits"
)]
pub struct IdentityError(pub String);

impl NodeIdentity {
    /// Whether no identity was configured or derived yet.
    pub fn is_unset(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The node address this identity hashes to: its four big-endian words xor-ed, or or-ed where that gives 0.
    pub fn address(&self) -> u32 {
        let words = || {
            self.0
                .chunks_exact(4)
                .map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]))
        };
        match words().fold(0, |all, word| all ^ word) {
            0 => words().fold(0, |all, word| all | word),
            address => address,
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte)
}

impl From<[u8; 16]> for NodeIdentity {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// As text where all bytes up to the last non-zero one are of the name alphabet, else as lower-case hex digits
/// without trailing zeros. They are cut per digit, as Linux does: a last byte 0x10 loses its 0.
impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self
            .0
            .iter()
            .rposition(|&b| b != 0)
            .map_or(0, |last| last + 1);
        let named = &self.0[..used];
        let text: String = if named.iter().all(|&b| is_name_byte(b)) {
            named.iter().copied().map(char::from).collect()
        } else {
            full_hex(&self.0).trim_end_matches('0').to_owned()
        };
        f.pad(&text)
    }
}

fn full_hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what an operator types. A string of at most 16 hex digits is also a legal name and is stored as text.
impl FromStr for NodeIdentity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let invalid = || IdentityError(text.to_owned());
        let bytes = text.as_bytes();
        let mut identity = [0; 16];
        match bytes.len() {
            1..=16 if bytes.iter().all(|&b| is_name_byte(b)) => {
                identity[..bytes.len()].copy_from_slice(bytes)
            }
            17..=32 => {
                for (position, &digit) in bytes.iter().enumerate() {
                    let value = char::from(digit).to_digit(16).ok_or_else(invalid)?;
                    identity[position / 2] |=
                        (value as u8) << if position % 2 == 0 { 4 } else { 0 };
                }
            }
            _ => return Err(invalid()),
        }
        Ok(Self(identity))
    }
}

impl Serialize for NodeIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&full_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for NodeIdentity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 32 {
            return Err(de::Error::custom("a node identity is 32 hex digits"));
        }
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(bytes: &[u8]) -> NodeIdentity {
        let mut all = [0; 16];
        all[..bytes.len()].copy_from_slice(bytes);
        NodeIdentity(all)
    }

    #[test]
    fn a_name_is_shown_as_text_and_a_mac_as_hex_without_trailing_zeros() {
        assert_eq!(identity(b"node-3").to_string(), "node-3");
        assert_eq!(identity(&[0x0a, 0, 0, 0, 0, 1]).to_string(), "0a0000000001");
        assert_eq!(
            identity(&[0x0a, 0, 0x10]).to_string(),
            "0a001",
            "the last low nibble goes too"
        );
        assert_eq!(identity(&[]).to_string(), "");
        assert_eq!(
            identity(b"a\0b").to_string(),
            "610062",
            "a zero inside is not of the alphabet"
        );
        assert_eq!(format!("{:<8}|", identity(b"n1")), "n1      |");
    }

    #[test]
    fn addresses_are_those_of_the_reference() {
        let table: [(&[u8], u32); 4] = [
            (&[0x52, 0x54, 0, 0x12, 0x34, 0x56], 0x6602_0012),
            (&[0x52, 0x54, 0, 0xab, 0xcd, 0xef], 0x9fbb_00ab),
            (&[10, 1, 0, 1], 0x0a01_0001),
            (b"node1", 0x5f6f_6465),
        ];
        for (bytes, address) in table {
            assert_eq!(identity(bytes).address(), address);
        }
        assert_eq!(
            NodeIdentity([7; 16]).address(),
            0x0707_0707,
            "words that cancel out are or-ed"
        );
    }

    #[test]
    fn short_text_is_a_name_and_long_text_must_be_hex() {
        assert_eq!("0a0000000001".parse(), Ok(identity(b"0a0000000001")));
        assert_eq!(
            "0a000000000100000".parse(),
            Ok(identity(&[0x0a, 0, 0, 0, 0, 1]))
        );
        for wrong in [
            "",
            "a b",
            "sixteen-and-more!",
            "0a0000000001000000000000000000000",
            "é",
        ] {
            assert_eq!(
                wrong.parse::<NodeIdentity>(),
                Err(IdentityError(wrong.to_owned()))
            );
        }
    }

    #[test]
    fn json_keeps_every_bit() {
        let mac = identity(&[0x0a, 0, 0x10]);
        let json = serde_json::to_string(&mac).expect("a string");
        assert_eq!(json, "\"0a001000000000000000000000000000\"");
        assert_eq!(
            serde_json::from_str::<NodeIdentity>(&json).expect("same"),
            mac
        );
        assert!(serde_json::from_str::<NodeIdentity>("\"node-3\"").is_err());
    }
}
