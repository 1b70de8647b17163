//! What encryption adds to the wire: the header before the ciphertext, and MSG_CRYPTO, which
//! distributes session keys (`docs/protocol/wire.md`, encryption). No cryptography here.

use super::field as f;
use super::{Header, Msg, Route, User, WireError, size};
use crate::addr::{NodeAddr, NodeId};

/// Length of the tag behind the ciphertext.
pub const TAG_SIZE: usize = 16;

/// An encrypted packet: its header in clear, the rest as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted<'a> {
    /// LINK_CONFIG for discovery, LINK_PROTOCOL for STATE, else LOW.
    pub user: User,
    /// Encrypted for one node instead of the cluster.
    pub destined: bool,
    /// Slot of the key used; 0 is the master key.
    pub tx_key: u8,
    /// Slot of the addressee's key that the sender receives with.
    pub rx_key_active: u8,
    /// The packet inside is a probe or the answer to one.
    pub keepalive: bool,
    /// The sender has a master key.
    pub master_key: bool,
    /// The sender has no key for packets of the addressee.
    pub rx_nokey: bool,
    /// Packet counter, part of the nonce.
    pub seqno: u64,
    /// Who sent it.
    pub sender: EncryptedSender,
    /// Ciphertext and tag.
    pub ciphertext: &'a [u8],
}

/// How an encryption header names its sender; the user of the packet decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptedSender {
    /// By address.
    Address(NodeAddr),
    /// By identity: discovery.
    Identity(NodeId),
}

const ENCRYPTED_VERSION: u8 = 7;
const ADDRESS_AT: usize = 12;
const SHORT_HEADER: usize = ADDRESS_AT + 4;
const LONG_HEADER: usize = ADDRESS_AT + 16;

impl<'a> Encrypted<'a> {
    /// True if the bytes begin as an encrypted packet does.
    #[inline]
    pub fn is_at(frame: &[u8]) -> bool {
        frame
            .first()
            .is_some_and(|byte| byte >> 5 == ENCRYPTED_VERSION)
    }

    /// Parses an encrypted packet. Its end is the end of `frame`: it states no length.
    pub fn parse(frame: &'a [u8]) -> Result<Self, WireError> {
        let have = frame.len();
        let Some(&[first, second, reserved @ ..]) = frame.first_chunk::<4>() else {
            return Err(WireError::Truncated {
                need: SHORT_HEADER,
                have,
            });
        };
        if first >> 5 != ENCRYPTED_VERSION {
            return Err(WireError::BadVersion((first >> 5).into()));
        }
        let bits = u32::from_be_bytes([0, second & 1, reserved[0], reserved[1]]);
        if bits != 0 {
            return Err(WireError::Reserved { word: 0, bits });
        }
        let user = User::from_bits((first >> 1).into());
        let header = if user == User::LinkConfig {
            LONG_HEADER
        } else {
            SHORT_HEADER
        };
        // The smallest plaintext is not looked at: decryption and the message check are.
        if have <= header + TAG_SIZE {
            return Err(WireError::Truncated {
                need: header + TAG_SIZE + 1,
                have,
            });
        }
        let mut id = [0; 16];
        id[..header - ADDRESS_AT].copy_from_slice(&frame[ADDRESS_AT..header]);
        Ok(Self {
            user,
            destined: first & 1 != 0,
            tx_key: second >> 6,
            rx_key_active: second >> 4 & 3,
            keepalive: second & 8 != 0,
            master_key: second & 4 != 0,
            rx_nokey: second & 2 != 0,
            seqno: u64::from(f::word(frame, 1)) << 32 | u64::from(f::word(frame, 2)),
            sender: match user {
                User::LinkConfig => EncryptedSender::Identity(NodeId(id)),
                _ => EncryptedSender::Address(NodeAddr(f::word(frame, 3))),
            },
            ciphertext: &frame[header..],
        })
    }

    /// Length of the header in clear.
    pub fn header_len(&self) -> usize {
        match self.sender {
            EncryptedSender::Address(_) => SHORT_HEADER,
            EncryptedSender::Identity(_) => LONG_HEADER,
        }
    }

    /// Writes the header to the start of `out`.
    pub fn emit_header(&self, out: &mut [u8]) {
        out[0] = ENCRYPTED_VERSION << 5 | (self.user as u8) << 1 | u8::from(self.destined);
        out[1] = self.tx_key << 6
            | (self.rx_key_active & 3) << 4
            | u8::from(self.keepalive) << 3
            | u8::from(self.master_key) << 2
            | u8::from(self.rx_nokey) << 1;
        out[2..4].fill(0);
        out[4..ADDRESS_AT].copy_from_slice(&self.seqno.to_be_bytes());
        match self.sender {
            EncryptedSender::Address(addr) => f::set_word(out, ADDRESS_AT / 4, addr.0),
            EncryptedSender::Identity(id) => {
                out[ADDRESS_AT..LONG_HEADER].copy_from_slice(&id.0);
            }
        }
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.header_len(), 0);
        self.emit_header(&mut out[start..]);
        out.extend_from_slice(self.ciphertext);
    }
}

/// A message of user MSG_CRYPTO: a session key of the sender. To be believed only if the packet it
/// came in was itself encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MsgCrypto<'a> {
    /// Sequence and nodes.
    pub route: Route,
    /// Generation of the key.
    pub generation: u16,
    /// 1 for a cluster key, 2 for one per node.
    pub mode: u8,
    /// Name of the algorithm, zero padded.
    pub algorithm: &'a [u8; ALGORITHM_NAME],
    /// AES key and salt: 20, 28 or 36 bytes.
    pub key: &'a [u8],
}

impl std::fmt::Debug for MsgCrypto<'_> {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MsgCrypto")
            .field("route", &self.route)
            .field("generation", &self.generation)
            .field("mode", &self.mode)
            .field("key_len", &self.key.len())
            .finish_non_exhaustive()
    }
}

/// The only algorithm there is.
pub const GCM_AES: &[u8; ALGORITHM_NAME] =
    b"gcm(aes)\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Length of an algorithm's name in a key record.
pub const ALGORITHM_NAME: usize = 32;
/// Name and key length, before the key.
const KEY_RECORD_HEADER: usize = ALGORITHM_NAME + 4;
/// A key of 128, 192 or 256 bits and the salt.
const KEY_SIZES: [usize; 3] = [20, 28, 36];
const KEY_DISTR: u32 = 0;

impl<'a> MsgCrypto<'a> {
    /// Longest key record.
    pub const MAX_PAYLOAD: usize = KEY_RECORD_HEADER + KEY_SIZES[2];

    /// Parses a message of user MSG_CRYPTO. The key length is believed only if it is one that
    /// exists and the message ends where it says.
    pub fn parse(msg: Msg<'a>) -> Result<Self, WireError> {
        if msg.kind() != KEY_DISTR {
            return Err(WireError::Malformed("MSG_CRYPTO type"));
        }
        let payload = msg.payload();
        let Some((record, key)) = payload.split_first_chunk::<KEY_RECORD_HEADER>() else {
            return Err(WireError::Truncated {
                need: KEY_RECORD_HEADER,
                have: payload.len(),
            });
        };
        let stated = f::word(record, ALGORITHM_NAME / 4);
        if !KEY_SIZES.contains(&key.len()) || stated as usize != key.len() {
            return Err(WireError::Malformed("key length"));
        }
        let Some(algorithm) = payload.first_chunk() else {
            return Err(WireError::Malformed("algorithm name"));
        };
        Ok(Self {
            route: Route::parse(msg),
            generation: msg.get16(f::KEY_GENERATION),
            mode: msg.get(f::KEY_MODE) as u8,
            algorithm,
            key,
        })
    }

    pub(super) fn header(&self) -> Header {
        let mut h = Header::internal(User::MsgCrypto, KEY_DISTR, 0, 0);
        h.set(f::KEY_GENERATION, self.generation.into())
            .set(f::KEY_MODE, self.mode.into());
        self.route.emit(&mut h);
        h
    }

    /// Writes the whole message to the start of `out`; gives its length.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut header = self.header();
        header.set_payload_len(KEY_RECORD_HEADER + self.key.len());
        let (head, payload) = out.split_at_mut(header.len());
        head.copy_from_slice(header.as_bytes());
        header.len() + self.emit_payload(payload)
    }

    /// Writes the key record to the start of `out`; gives its length.
    pub(super) fn emit_payload(&self, out: &mut [u8]) -> usize {
        let end = KEY_RECORD_HEADER + self.key.len();
        out[..ALGORITHM_NAME].copy_from_slice(self.algorithm);
        f::set_word(out, ALGORITHM_NAME / 4, self.key.len() as u32);
        out[KEY_RECORD_HEADER..end].copy_from_slice(self.key);
        end
    }
}

const _: () = assert!(size::INT + MsgCrypto::MAX_PAYLOAD == 112);
