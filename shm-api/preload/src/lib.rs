//! `libxtipc_preload.so`: AF_TIPC sockets for programs that know nothing of xtipc (`docs/preload.md`). All it exports are the
//! functions of [`xtipc_descriptors`].

#![forbid(unsafe_code)]

extern crate xtipc_descriptors as _;
