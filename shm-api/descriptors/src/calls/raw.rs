//! `syscall`, for programs that make system calls by number.

use std::ffi::{c_int, c_long, c_uint};

use super::{data, life, options, sockets, wait};
use crate::memory::{In, InOut, Out};
use crate::real;

/// `syscall`. Arguments that a call does not have are whatever is in their place.
#[unsafe(no_mangle)]
pub extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let fd = a as c_int;
    let read = |address: usize| In::new(address as *const u8);
    let write = |address: usize| Out::new(address as *mut u8);
    match number {
        libc::SYS_socket => sockets::socket(fd, b as c_int, c as c_int).into(),
        libc::SYS_close => life::close(fd).into(),
        libc::SYS_dup => life::dup(fd).into(),
        libc::SYS_dup3 => life::dup3(fd, b as c_int, c as c_int).into(),
        libc::SYS_close_range => life::close_range(a as c_uint, b as c_uint, c as c_int).into(),
        libc::SYS_fcntl => options::fcntl(fd, b as c_int, c).into(),
        libc::SYS_bind => sockets::bind(fd, In::new(b as *const _), c as u32).into(),
        libc::SYS_connect => sockets::connect(fd, In::new(b as *const _), c as u32).into(),
        libc::SYS_listen => sockets::listen(fd, b as c_int).into(),
        libc::SYS_accept4 => {
            let (address, len) = (Out::new(b as *mut _), InOut::new(c as *mut _));
            sockets::accept4(fd, address, len, d as c_int).into()
        }
        libc::SYS_read => data::read(fd, write(b), c) as c_long,
        libc::SYS_write => data::write(fd, read(b), c) as c_long,
        libc::SYS_sendto => {
            let address = In::new(e as *const _);
            data::sendto(fd, read(b), c, d as c_int, address, f as u32) as c_long
        }
        libc::SYS_recvfrom => {
            let (address, len) = (Out::new(e as *mut _), InOut::new(f as *mut _));
            data::recvfrom(fd, write(b), c, d as c_int, address, len) as c_long
        }
        libc::SYS_sendmsg => data::sendmsg(fd, In::new(b as *const _), c as c_int) as c_long,
        libc::SYS_recvmsg => data::recvmsg(fd, InOut::new(b as *mut _), c as c_int) as c_long,
        libc::SYS_epoll_ctl => {
            let event = InOut::new(d as *mut _);
            wait::epoll_ctl(fd, b as c_int, c as c_int, event).into()
        }
        _ => real::syscall(number, a, b, c, d, e, f),
    }
}
