//! `libxtipc`: the functions of libtipc (`include/xtipc/tipcc.h`, docs/man/libxtipc.3). A socket is a descriptor of the kernel, as in
//! `libxtipc_preload.so`: the library stands before the C library for the functions that a descriptor can be given to.
//!
//! The header is written from these sources (`tests/header.rs`).

#![allow(
    unreachable_pub,
    reason = "functions without a mangled name are what the library is there for"
)]
#![allow(
    non_camel_case_types,
    reason = "programs in C know the structures by these names"
)]

mod address;
mod direct;
mod kernel;
mod messages;
mod sockets;
mod topology;
mod waiting;

use xtipc_descriptors::memory::Out;

/// Gives one of several results, if it is wanted.
fn tell<T: Copy>(place: *mut T, value: T) {
    if !place.is_null() {
        let _ = Out::new(place).write(value);
    }
}
