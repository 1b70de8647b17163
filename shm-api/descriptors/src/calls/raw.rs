//! `syscall`, for programs that make system calls by number.

use std::ffi::{c_int, c_long, c_uint, c_ulong};

use super::{data, life, options, passing, sockets, wait};
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
        libc::SYS_socketpair => {
            sockets::socketpair(fd, b as c_int, c as c_int, Out::new(d as *mut _)).into()
        }
        libc::SYS_accept => {
            sockets::accept(fd, Out::new(b as *mut _), InOut::new(c as *mut _)).into()
        }
        libc::SYS_getsockname => {
            sockets::getsockname(fd, Out::new(b as *mut _), InOut::new(c as *mut _)).into()
        }
        libc::SYS_getpeername => {
            sockets::getpeername(fd, Out::new(b as *mut _), InOut::new(c as *mut _)).into()
        }
        libc::SYS_shutdown => sockets::shutdown(fd, b as c_int).into(),
        libc::SYS_getsockopt => {
            let len = InOut::new(e as *mut _);
            options::getsockopt(fd, b as c_int, c as c_int, write(d), len).into()
        }
        libc::SYS_setsockopt => {
            options::setsockopt(fd, b as c_int, c as c_int, read(d), e as u32).into()
        }
        libc::SYS_ioctl => options::ioctl(fd, b as c_ulong, InOut::new(c as *mut _)).into(),
        libc::SYS_readv => data::readv(fd, In::new(b as *const _), c as c_int) as c_long,
        libc::SYS_writev => data::writev(fd, In::new(b as *const _), c as c_int) as c_long,
        libc::SYS_sendmmsg => {
            data::sendmmsg(fd, InOut::new(b as *mut _), c as c_uint, d as c_int).into()
        }
        libc::SYS_recvmmsg => {
            let (messages, timeout) = (InOut::new(b as *mut _), In::new(e as *const _));
            data::recvmmsg(fd, messages, c as c_uint, d as c_int, timeout).into()
        }
        libc::SYS_sendfile => data::sendfile(fd, b as c_int, InOut::new(c as *mut _), d) as c_long,
        libc::SYS_splice => {
            let (from, to) = (InOut::new(b as *mut _), InOut::new(d as *mut _));
            data::splice(fd, from, c as c_int, to, e, f as c_uint) as c_long
        }
        libc::SYS_pidfd_getfd => passing::pidfd_getfd(fd, b as c_int, c as c_uint).into(),
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
        libc::SYS_epoll_pwait => {
            let (events, mask) = (InOut::new(b as *mut _), In::new(e as *const _));
            wait::epoll_pwait(fd, events, c as c_int, d as c_int, mask).into()
        }
        libc::SYS_epoll_pwait2 => {
            let (events, limit) = (InOut::new(b as *mut _), In::new(d as *const _));
            wait::epoll_pwait2(fd, events, c as c_int, limit, In::new(e as *const _)).into()
        }
        libc::SYS_ppoll => {
            let (fds, limit) = (InOut::new(a as *mut _), In::new(c as *const _));
            wait::ppoll(fds, b as libc::nfds_t, limit, In::new(d as *const _)).into()
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => wait::poll(InOut::new(a as *mut _), b as libc::nfds_t, c as c_int).into(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => {
            let [b, c, d] = [b, c, d].map(|set| InOut::new(set as *mut _));
            wait::select(fd, b, c, d, InOut::new(e as *mut _)).into()
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2 => life::dup2(fd, b as c_int).into(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => {
            wait::epoll_wait(fd, InOut::new(b as *mut _), c as c_int, d as c_int).into()
        }
        _ => real::syscall(number, a, b, c, d, e, f),
    }
}
