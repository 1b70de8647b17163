//! TIPC, sans I/O: wire codec and protocol engine.
