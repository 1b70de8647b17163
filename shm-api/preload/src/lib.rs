//! `libxtipc_preload.so`: AF_TIPC sockets for programs that know nothing of xtipc (`docs/preload.md`).
//!
//! The library stands before the C library, for the functions that a descriptor of a TIPC socket can be given to. For any other
//! descriptor it calls on, after one look into a table.

#![allow(
    unreachable_pub,
    reason = "functions without a mangled name are what the library is there for"
)]

mod calls;
mod description;
mod errno;
mod memory;
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
