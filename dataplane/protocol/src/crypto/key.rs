//! Keys: their material, which nothing prints and which is wiped, and the cipher made from it
//! (`docs/protocol/crypto.md`, cipher).

use crate::addr::NodeAddr;
use crate::wire::TAG_SIZE;
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;

/// Bytes of the salt behind the AES key.
const SALT: usize = 4;
/// Longest key with its salt.
pub const KEY_MAX: usize = 32 + SALT;

/// An AES key of 128, 192 or 256 bits and its salt. Wiped when dropped; its `Debug` shows only the length.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMaterial {
    bytes: [u8; KEY_MAX],
    len: usize,
}

/// The bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key of {0} bytes; accepted: 20, 28 or 36 (AES key of 128, 192 or 256 bits, then 4 bytes of salt)"
)]
pub struct KeyLengthError(pub usize);

impl KeyMaterial {
    /// AES key and salt: 20, 28 or 36 bytes.
    pub fn new(key: &[u8]) -> Result<Self, KeyLengthError> {
        if ![20, 28, 36].contains(&key.len()) {
            return Err(KeyLengthError(key.len()));
        }
        let mut bytes = [0; KEY_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Ok(Self {
            bytes,
            len: key.len(),
        })
    }

    /// The bytes that [`Self::new`] was given.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for KeyMaterial {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Somebody might look: the compiler may not leave the writing out.
        std::hint::black_box(&self.bytes);
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({} bytes)", self.len)
    }
}

/// Whose frames a key encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMode {
    /// Those of every node that has it; the sender goes into the nonce.
    Cluster = 1,
    /// Those of one node; the receiver goes into the nonce.
    PerNode = 2,
}

impl KeyMode {
    /// The mode with this number on the wire.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Cluster),
            2 => Some(Self::PerNode),
            _ => None,
        }
    }
}

/// A key ready for use.
pub struct Key {
    cipher: LessSafeKey,
    material: KeyMaterial,
    /// Whose frames it encrypts.
    pub mode: KeyMode,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.mode, self.material)
    }
}

impl Key {
    /// Expands the key.
    pub fn new(material: KeyMaterial, mode: KeyMode) -> Self {
        let (key, _) = material.bytes().split_at(material.len - SALT);
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            _ => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).expect("the length is the algorithm's");
        Self {
            cipher: LessSafeKey::new(key),
            material,
            mode,
        }
    }

    /// What it was made from, to be given to those who are to receive with it.
    pub fn material(&self) -> &KeyMaterial {
        &self.material
    }

    /// Encrypts `plain` to the start of `out`, the tag behind it. `header` is authenticated; `node` and `seqno` are
    /// the nonce and may never come again with this key.
    ///
    /// # Panics
    /// If `out` has no room for `plain` and the tag.
    pub fn seal(&self, header: &[u8], node: NodeAddr, seqno: u64, plain: &[u8], out: &mut [u8]) {
        let (cipher_text, tag) = out[..plain.len() + TAG_SIZE].split_at_mut(plain.len());
        self.cipher
            .seal_out_of_place_scatter(
                self.nonce(node, seqno),
                Aad::from(header),
                plain,
                cipher_text,
                &[],
                tag,
            )
            .expect("lengths that fit and a message far below the limit of the mode");
    }

    /// Decrypts `sealed`, which ends in the tag, into `plain`. False if it was not sealed with this key, this header
    /// and this nonce; `plain` is of no use then.
    pub fn open(
        &self,
        header: &[u8],
        node: NodeAddr,
        seqno: u64,
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> bool {
        let Some((cipher_text, tag)) = sealed.split_last_chunk::<TAG_SIZE>() else {
            return false;
        };
        plain.resize(cipher_text.len(), 0);
        self.cipher
            .open_separate_gather(
                self.nonce(node, seqno),
                Aad::from(header),
                cipher_text,
                tag,
                plain,
            )
            .is_ok()
    }

    /// Salt and node address as a little-endian machine combines them, then the counter.
    fn nonce(&self, node: NodeAddr, seqno: u64) -> Nonce {
        let mut nonce = [0; 12];
        let salt = &self.material.bytes()[self.material.len - SALT..];
        for ((byte, salt), node) in nonce.iter_mut().zip(salt).zip(node.0.to_le_bytes()) {
            *byte = salt ^ node;
        }
        nonce[SALT..].copy_from_slice(&seqno.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(len: usize) -> KeyMaterial {
        let bytes: Vec<u8> = (0..len as u8).collect();
        KeyMaterial::new(&bytes).unwrap()
    }

    #[test]
    fn only_the_three_lengths_are_keys() {
        for len in 0..40 {
            let made = KeyMaterial::new(&vec![7; len]);
            assert_eq!(made.is_ok(), [20, 28, 36].contains(&len), "{len}");
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_the_key() {
        let key = Key::new(KeyMaterial::new(&[0xab; 20]).unwrap(), KeyMode::Cluster);
        assert_eq!(format!("{key:?}"), "Key(Cluster, KeyMaterial(20 bytes))");
    }

    #[test]
    fn every_length_seals_and_opens_and_the_header_counts() {
        for len in [20, 28, 36] {
            let key = Key::new(key(len), KeyMode::Cluster);
            let mut sealed = [0; 64];
            key.seal(&[1, 2], NodeAddr(9), 5, b"a message", &mut sealed);
            let sealed = &sealed[..9 + TAG_SIZE];
            let mut plain = Vec::new();
            assert!(key.open(&[1, 2], NodeAddr(9), 5, sealed, &mut plain));
            assert_eq!(plain, b"a message");
            assert!(!key.open(&[1, 3], NodeAddr(9), 5, sealed, &mut plain));
            assert!(!key.open(&[1, 2], NodeAddr(8), 5, sealed, &mut plain));
            assert!(!key.open(&[1, 2], NodeAddr(9), 6, sealed, &mut plain));
            assert!(!key.open(&[1, 2], NodeAddr(9), 5, &sealed[..10], &mut plain));
        }
    }

    /// Vectors that were computed from the rules by another implementation.
    #[test]
    fn the_nonce_is_salt_and_node_in_little_endian_order_and_the_counter() {
        let mut bytes: Vec<u8> = (0..16).collect();
        bytes.extend([0xa0, 0xa1, 0xa2, 0xa3]);
        let key = Key::new(KeyMaterial::new(&bytes).unwrap(), KeyMode::Cluster);
        let plain = hex("40c0001d00000000000500070100100111111111222222 2268656c6c6f000000");
        let table = [
            (
                "e160000000000000 0000000101001001",
                0x0100_1001,
                1,
                "095c846efac3c67b5820eba84ccbe6eb30e1f4fa3b2410a3aaeef25fbcec79d0bd509549a621ac73d13000ec4181d59d",
            ),
            (
                "e160000000000000 0000000101001001",
                0x0100_1002,
                1,
                "79f32906feb9a71d248766a08b533b13ddb6cd089b757a45b1cef05b1b05a8260845ae3803a3710535dc25a60af1b6fd",
            ),
            (
                "e060000000000000 0000000201001001",
                0,
                2,
                "e1e66660b146abc70da5bb319c029c085492403c19b598450b1a21c087a6b23c75899dc2305cf703354f8aa69a526f89",
            ),
        ];
        for (header, node, seqno, expected) in table {
            let mut out = [0; 48];
            key.seal(&hex(header), NodeAddr(node), seqno, &plain, &mut out);
            assert_eq!(out[..], hex(expected));
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
