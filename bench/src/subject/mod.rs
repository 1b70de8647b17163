//! What is measured. Each subject is two ends, in processes of their own.

pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod xdp;
pub(crate) mod xtipc;

use std::fmt;

use serde::{Deserialize, Serialize};

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// A daemon on each side, and an application of it.
    Xtipc,
    /// The kernel's.
    Tcp,
    /// The kernel's.
    Udp,
    /// AF_XDP sockets without any protocol: the limit.
    Xdp,
}

/// How an end waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    /// In a call that blocks.
    Sleeping,
    /// By asking again and again.
    Spinning,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Xtipc => "xtipc",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Xdp => "raw AF_XDP",
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sleeping => "sleeping",
            Self::Spinning => "spinning",
        })
    }
}

/// Port of the kernel's protocols.
const PORT: u16 = 7777;

/// Every message begins with its number.
const NUMBER_LEN: usize = 8;

/// Smallest message: it begins with its number.
pub(crate) const SIZE_MIN: usize = NUMBER_LEN;

fn put_number(message: &mut [u8], number: u64) {
    message[..NUMBER_LEN].copy_from_slice(&number.to_ne_bytes());
}

fn number_of(message: &[u8]) -> Option<u64> {
    message.first_chunk().copied().map(u64::from_ne_bytes)
}
