//! Whole clusters in one thread and virtual time: the engine of the daemon, an Ethernet with faults,
//! one seed.
//!
//! [`host`] is what an engine runs on here and counts every frame; [`segment`] is the Ethernet with
//! its faults; [`cluster`] holds the nodes and the clock, [`connections`] their connection sockets,
//! [`groups`] their members of groups. [`scenario`] makes a cluster live through what a seed says, and [`checks`] are what must hold
//! then, [`talks`] on connections, [`members`] in groups and [`tracking`] for subscribers. A further part of the protocol joins with a module of what it does in
//! [`scenario`], and one of what must hold beside these. The same seed gives the same run, packet
//! by packet. The tests of the engine's behaviour, one file per part of the protocol, are in
//! `tests/engine/`.
#![forbid(unsafe_code)]

pub mod alarms;
mod arrivals;
pub mod checks;
pub mod cluster;
pub mod connections;
pub mod groups;
pub mod host;
pub mod members;
pub mod questions;
pub mod rng;
pub mod scale;
pub mod scenario;
pub mod segment;
pub mod talks;
pub mod tracking;
