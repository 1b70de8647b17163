//! The XDP classifier that steers TIPC frames to xtipc, and its loader.
