//! The functions of the C library that this one stands before.

#![allow(
    non_snake_case,
    reason = "one function of the C library has a capital letter"
)]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{
    epoll_event, fd_set, gid_t, mmsghdr, mode_t, msghdr, nfds_t, off_t, pid_t, pollfd,
    posix_spawn_file_actions_t, posix_spawnattr_t, sigset_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec, timeval, uid_t,
};

use crate::memory::{In, InOut, Out};

/// Finds the next definition of a symbol behind this library.
fn find(name: &CStr) -> *mut c_void {
    // SAFETY: `name` is a string that ends with a zero.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// For each function one of the same name that calls the real one. They are looked up when the library is loaded, or, if
/// something calls before that, when they are called.
macro_rules! real {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty;)*) => {
        $(
            mod $name {
                use super::*;
                static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

                #[cold]
                pub(super) fn resolve() -> *mut c_void {
                    let name = concat!(stringify!($name), "\0");
                    let address = CStr::from_bytes_with_nul(name.as_bytes()).map_or(std::ptr::null_mut(), find);
                    ADDRESS.store(address, Ordering::Relaxed);
                    address
                }

                /// The first call, if it comes before the library is loaded. A function of its own, so that the others save
                /// nothing for it.
                #[cold]
                #[inline(never)]
                pub(super) fn first($($argument: $type),*) -> $result {
                    let address = resolve();
                    if address.is_null() {
                        return crate::errno::fail(libc::ENOSYS) as $result;
                    }
                    of(address)($($argument),*)
                }

                #[inline(always)]
                pub(super) fn of(address: *mut c_void) -> extern "C" fn($($type),*) -> $result {
                    // SAFETY: the C library's function of this name has this type.
                    unsafe { std::mem::transmute::<*mut c_void, extern "C" fn($($type),*) -> $result>(address) }
                }

                #[inline(always)]
                pub(super) fn address() -> *mut c_void {
                    ADDRESS.load(Ordering::Relaxed)
                }
            }

            #[inline(always)]
            pub(crate) fn $name($($argument: $type),*) -> $result {
                let address = $name::address();
                match address.is_null() {
                    true => $name::first($($argument),*),
                    false => $name::of(address)($($argument),*),
                }
            }
        )*

        /// Looks all of them up.
        pub(crate) fn resolve_all() {
            $($name::resolve();)*
        }
    };
}

/// The address of a real function that cannot be called from here.
pub(crate) fn behind(name: &CStr) -> *mut c_void {
    find(name)
}

real! {
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn socketpair(family: c_int, kind: c_int, protocol: c_int, fds: Out<[c_int; 2]>) -> c_int;
    fn accept(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int;
    fn accept4(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>, flags: c_int) -> c_int;
    fn bind(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int;
    fn connect(fd: c_int, address: In<sockaddr>, len: socklen_t) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn getsockname(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int;
    fn getpeername(fd: c_int, address: Out<sockaddr>, len: InOut<socklen_t>) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn send(fd: c_int, data: In<u8>, len: size_t, flags: c_int) -> ssize_t;
    fn sendto(fd: c_int, data: In<u8>, len: size_t, flags: c_int, address: In<sockaddr>, address_len: socklen_t) -> ssize_t;
    fn sendmsg(fd: c_int, message: In<msghdr>, flags: c_int) -> ssize_t;
    fn sendmmsg(fd: c_int, messages: InOut<mmsghdr>, count: c_uint, flags: c_int) -> c_int;
    fn recv(fd: c_int, data: Out<u8>, len: size_t, flags: c_int) -> ssize_t;
    fn recvfrom(fd: c_int, data: Out<u8>, len: size_t, flags: c_int, address: Out<sockaddr>, address_len: InOut<socklen_t>) -> ssize_t;
    fn recvmsg(fd: c_int, message: InOut<msghdr>, flags: c_int) -> ssize_t;
    fn recvmmsg(fd: c_int, messages: InOut<mmsghdr>, count: c_uint, flags: c_int, timeout: In<timespec>) -> c_int;
    fn read(fd: c_int, data: Out<u8>, len: size_t) -> ssize_t;
    fn write(fd: c_int, data: In<u8>, len: size_t) -> ssize_t;
    fn readv(fd: c_int, parts: In<libc::iovec>, count: c_int) -> ssize_t;
    fn writev(fd: c_int, parts: In<libc::iovec>, count: c_int) -> ssize_t;
    fn __read_chk(fd: c_int, data: Out<u8>, len: size_t, room: size_t) -> ssize_t;
    fn __recv_chk(fd: c_int, data: Out<u8>, len: size_t, room: size_t, flags: c_int) -> ssize_t;
    fn __recvfrom_chk(fd: c_int, data: Out<u8>, len: size_t, room: size_t, flags: c_int, address: Out<sockaddr>, address_len: InOut<socklen_t>) -> ssize_t;
    fn __poll_chk(fds: InOut<pollfd>, count: nfds_t, timeout: c_int, room: size_t) -> c_int;
    fn __ppoll_chk(fds: InOut<pollfd>, count: nfds_t, timeout: In<timespec>, mask: In<sigset_t>, room: size_t) -> c_int;
    fn sendfile(out: c_int, input: c_int, offset: InOut<off_t>, count: size_t) -> ssize_t;
    fn splice(input: c_int, from: InOut<off_t>, out: c_int, to: InOut<off_t>, len: size_t, flags: c_uint) -> ssize_t;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: Out<u8>, len: InOut<socklen_t>) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: In<u8>, len: socklen_t) -> c_int;
    fn ioctl(fd: c_int, request: std::ffi::c_ulong, argument: InOut<u8>) -> c_int;
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn fclose(stream: InOut<u8>) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn dup(fd: c_int) -> c_int;
    fn dup2(fd: c_int, to: c_int) -> c_int;
    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int;
    fn poll(fds: InOut<pollfd>, count: nfds_t, timeout: c_int) -> c_int;
    fn ppoll(fds: InOut<pollfd>, count: nfds_t, timeout: In<timespec>, mask: In<sigset_t>) -> c_int;
    fn select(count: c_int, read: InOut<fd_set>, write: InOut<fd_set>, except: InOut<fd_set>, timeout: InOut<timeval>) -> c_int;
    fn pselect(count: c_int, read: InOut<fd_set>, write: InOut<fd_set>, except: InOut<fd_set>, timeout: In<timespec>, mask: In<sigset_t>) -> c_int;
    fn epoll_ctl(set: c_int, operation: c_int, fd: c_int, event: InOut<epoll_event>) -> c_int;
    fn epoll_wait(set: c_int, events: InOut<epoll_event>, room: c_int, timeout: c_int) -> c_int;
    fn epoll_pwait(set: c_int, events: InOut<epoll_event>, room: c_int, timeout: c_int, mask: In<sigset_t>) -> c_int;
    fn epoll_pwait2(set: c_int, events: InOut<epoll_event>, room: c_int, timeout: In<timespec>, mask: In<sigset_t>) -> c_int;
    fn system(command: In<c_char>) -> c_int;
    fn popen(command: In<c_char>, kind: In<c_char>) -> *mut libc::FILE;
    fn posix_spawn(pid: Out<pid_t>, path: In<c_char>, actions: In<posix_spawn_file_actions_t>, attributes: In<posix_spawnattr_t>, arguments: In<In<c_char>>, environment: In<In<c_char>>) -> c_int;
    fn posix_spawnp(pid: Out<pid_t>, file: In<c_char>, actions: In<posix_spawn_file_actions_t>, attributes: In<posix_spawnattr_t>, arguments: In<In<c_char>>, environment: In<In<c_char>>) -> c_int;
    fn posix_spawn_file_actions_adddup2(actions: InOut<posix_spawn_file_actions_t>, fd: c_int, to: c_int) -> c_int;
    fn execv(path: In<c_char>, arguments: In<In<c_char>>) -> c_int;
    fn execve(path: In<c_char>, arguments: In<In<c_char>>, environment: In<In<c_char>>) -> c_int;
    fn execvp(file: In<c_char>, arguments: In<In<c_char>>) -> c_int;
    fn execvpe(file: In<c_char>, arguments: In<In<c_char>>, environment: In<In<c_char>>) -> c_int;
    fn fexecve(fd: c_int, arguments: In<In<c_char>>, environment: In<In<c_char>>) -> c_int;
    fn execveat(directory: c_int, path: In<c_char>, arguments: In<In<c_char>>, environment: In<In<c_char>>, flags: c_int) -> c_int;
    fn _Fork() -> pid_t;
    fn pidfd_getfd(process: c_int, fd: c_int, flags: c_uint) -> c_int;
    fn preadv2(fd: c_int, parts: In<libc::iovec>, count: c_int, offset: off_t, flags: c_int) -> ssize_t;
    fn pwritev2(fd: c_int, parts: In<libc::iovec>, count: c_int, offset: off_t, flags: c_int) -> ssize_t;
    fn sockatmark(fd: c_int) -> c_int;
    fn setuid(id: uid_t) -> c_int;
    fn seteuid(id: uid_t) -> c_int;
    fn setreuid(id: uid_t, effective: uid_t) -> c_int;
    fn setresuid(id: uid_t, effective: uid_t, saved: uid_t) -> c_int;
    fn setgid(id: gid_t) -> c_int;
    fn setegid(id: gid_t) -> c_int;
    fn setregid(id: gid_t, effective: gid_t) -> c_int;
    fn setresgid(id: gid_t, effective: gid_t, saved: gid_t) -> c_int;
    fn setgroups(count: size_t, ids: In<gid_t>) -> c_int;
    fn initgroups(user: In<c_char>, id: gid_t) -> c_int;
    fn chroot(path: In<c_char>) -> c_int;
    fn fopen(path: In<c_char>, mode: In<c_char>) -> *mut libc::FILE;
    fn open(path: In<c_char>, flags: c_int, mode: mode_t) -> c_int;
    fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long;
}
