//! TIPC without I/O: the wire codec ([`wire`]) and the protocol engine ([`engine`]).
//!
//! The engine opens no socket, reads no clock and starts no thread. Time is an argument
//! ([`time::Instant`]), randomness is a seed, and everything it wants done goes through one
//! [`host::Host`]: the daemon implements it over AF_XDP and shared memory, tests over plain vectors.
//! Input from the wire is never trusted: bytes give an error and a counter, not a panic.
#![forbid(unsafe_code)]

pub mod addr;
pub mod broadcast;
pub mod connection;
pub mod crypto;
pub mod engine;
pub mod frame;
pub mod group;
pub mod host;
pub mod link;
pub mod monitor;
pub mod name;
pub mod node;
pub mod port;
pub mod reassembly;
pub mod seqno;
mod slab;
pub mod stats;
pub mod time;
pub mod timer;
pub mod topology;
pub mod wire;
