//! TIPC sockets over shared memory: the Rust API of xtipc.
