//! TIPC sockets with descriptors of the kernel (`docs/preload.md`), for `libxtipc_preload.so` and `libxtipc.so`.
//!
//! Both stand before the C library, by these functions without a mangled name, for everything that a descriptor of a TIPC socket can
//! be given to. For any other descriptor they call on, after one look into a table.

#![allow(
    unreachable_pub,
    reason = "functions without a mangled name are what the libraries are there for"
)]

pub mod calls;
mod description;
pub mod errno;
pub mod memory;
mod netlink;
mod process;
mod real;
mod sets;
mod table;

/// Called by the dynamic linker before the program begins.
extern "C" fn begin() {
    real::resolve_all();
    process::begin();
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;
