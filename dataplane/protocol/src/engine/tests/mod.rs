//! Whole engines against each other: a virtual segment, virtual time, one seed.
//!
//! [`host`] is what an engine runs on here and counts every frame; [`segment`] is the Ethernet with
//! its faults; [`cluster`] holds the nodes and the clock. The other files are the tests, one per part
//! of the protocol. The same seed gives the same run, packet by packet.

mod broadcast;
mod cluster;
mod datagrams;
mod discovery;
mod flow;
mod garbage;
mod host;
mod hostile;
mod link;
mod names;
mod random;
mod rng;
mod segment;
