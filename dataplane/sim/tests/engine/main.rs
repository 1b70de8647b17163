//! Whole engines against each other on a virtual segment: one file per part of the protocol.

mod batches;
mod broadcast;
mod connections;
mod datagrams;
mod discovery;
mod disorder;
mod encryption;
mod flow;
mod garbage;
mod groups;
mod hostile;
mod link;
mod monitoring;
mod mtu;
mod multicast_order;
mod names;
mod order;
mod parallel;
mod round_trip;
mod stall;
mod stopped;
mod topology;
mod tuning;
