//! Waiting for sockets, for programs that load the library when they run.

use std::ffi::c_int;

use libc::{nfds_t, pollfd};
use xtipc_descriptors::calls::wait;
use xtipc_descriptors::memory::InOut;

/// `poll`, for programs that have found the C library's before they loaded this one. The loop of events of such a program is to call
/// it for a socket before it waits for its descriptor, and each time a call at it has failed with EAGAIN.
#[unsafe(no_mangle)]
pub extern "C" fn xtipc_poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    wait::poll(InOut::new(fds), count, timeout)
}
