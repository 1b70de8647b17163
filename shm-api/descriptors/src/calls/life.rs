//! Copying and closing descriptors.

use std::ffi::{c_int, c_uint};
use std::os::fd::RawFd;

use libc::FILE;
use xtipc::socket::Errno;

use crate::errno::{fail, made};
use crate::memory::InOut;
use crate::table::{self, Found, Open};
use crate::{netlink, process, real, sets};

/// A descriptor has become a copy of a socket's.
pub(super) fn copied(open: Open, copy: RawFd) -> Result<RawFd, Errno> {
    if !table::has_room(copy) {
        real::close(copy);
        return Err(Errno(libc::EMFILE));
    }
    if !process::is_borrowed() {
        table::install(copy, open);
    }
    Ok(copy)
}

/// `dup`
#[unsafe(no_mangle)]
pub extern "C" fn dup(fd: c_int) -> c_int {
    match table::is_known(fd) {
        true => copy_known(fd, || real::dup(fd)),
        false => real::dup(fd),
    }
}

/// Has a copy made of a descriptor that is known.
#[cold]
pub(super) fn copy_known(fd: RawFd, make: impl FnOnce() -> c_int) -> c_int {
    process::before_copy(fd);
    let open = table::socket(fd);
    let copy = make();
    match open {
        Some(open) if copy >= 0 => return made(copied(open, copy)),
        None if copy >= 0 => copied_mark(fd, copy),
        _ => {}
    }
    copy
}

/// A descriptor has become a copy of one that is no socket.
fn copied_mark(fd: RawFd, copy: RawFd) {
    if !process::is_borrowed() {
        netlink::copied(fd, copy);
        sets::copied(fd, copy);
    }
}

/// `dup2`
#[unsafe(no_mangle)]
pub extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    replace(fd, to, || real::dup2(fd, to))
}

/// `dup2`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __dup2(fd: c_int, to: c_int) -> c_int {
    dup2(fd, to)
}

/// `dup3`
#[unsafe(no_mangle)]
pub extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    replace(fd, to, || real::dup3(fd, to, flags))
}

/// Has `to` become a copy of `fd`, whatever either was.
fn replace(fd: RawFd, to: RawFd, make: impl FnOnce() -> c_int) -> c_int {
    if (!table::is_known(fd) && !table::is_known(to)) || fd == to {
        return make();
    }
    if process::is_borrowed() {
        process::before_copy(fd);
        return make();
    }
    if matches!(table::find(to), Found::Own) {
        // The program knows nothing of it and may want the number.
        return fail(libc::EBADF);
    }
    let open = table::socket(fd);
    keep_for_calls(to);
    let copy = make();
    if copy < 0 {
        return copy;
    }
    forget(to);
    match open {
        Some(open) => made(copied(open, copy)),
        None => {
            drop(table::remove(to));
            copied_mark(fd, copy);
            copy
        }
    }
}

/// As in the kernel, a call that waits in another thread goes on when the descriptor is closed.
fn keep_for_calls(fd: RawFd) {
    if let Some(open) = table::socket(fd)
        && open.is_at_work()
    {
        open.keep(fd);
    }
}

/// A descriptor that is known will not be what it was.
fn forget(fd: RawFd) {
    sets::forget(fd);
    if table::is_netlink(fd) {
        netlink::closed(fd);
    }
}

/// `close`
#[unsafe(no_mangle)]
pub extern "C" fn close(fd: c_int) -> c_int {
    match table::is_known(fd) {
        true => close_known(fd, || real::close(fd)),
        false => real::close(fd),
    }
}

#[cold]
fn close_known(fd: RawFd, close: impl FnOnce() -> c_int) -> c_int {
    if process::is_borrowed() {
        return close();
    }
    if matches!(table::find(fd), Found::Own) {
        // As far as the program knows it is not open.
        return fail(libc::EBADF);
    }
    forget(fd);
    keep_for_calls(fd);
    let open = table::remove(fd);
    let result = close();
    // After that, so that the daemon sees whether it was the last copy anywhere.
    drop(open);
    result
}

/// `close`, by the other name it has.
#[unsafe(no_mangle)]
pub extern "C" fn __close(fd: c_int) -> c_int {
    close(fd)
}

/// `fclose`, which closes the descriptor of a stream by itself.
#[unsafe(no_mangle)]
pub extern "C" fn fclose(stream: InOut<u8>) -> c_int {
    // SAFETY: the program hands over a stream that is open.
    let fd = unsafe { libc::fileno(stream.address() as *mut FILE) };
    match table::is_known(fd) {
        true => close_known(fd, || real::fclose(stream)),
        false => real::fclose(stream),
    }
}

/// `close_range`
#[unsafe(no_mangle)]
pub extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let only_marks = flags & libc::CLOSE_RANGE_CLOEXEC as c_int != 0;
    if first > last || only_marks || process::is_borrowed() {
        return real::close_range(first, last, flags);
    }
    let start = RawFd::try_from(first).unwrap_or(RawFd::MAX);
    let mut from = first;
    for fd in table::known(start).take_while(|fd| *fd as c_uint <= last) {
        if matches!(table::find(fd), Found::Own) {
            let number = fd as c_uint;
            if from < number && real::close_range(from, number - 1, flags) < 0 {
                return -1;
            }
            from = number + 1;
        } else {
            close_known(fd, || real::close(fd));
        }
    }
    match from > last {
        true => 0,
        false => real::close_range(from, last, flags),
    }
}

/// `closefrom`
#[unsafe(no_mangle)]
pub extern "C" fn closefrom(first: c_int) {
    close_range(first.max(0) as c_uint, c_uint::MAX, 0);
}
