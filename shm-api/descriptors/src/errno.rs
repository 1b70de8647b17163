//! Results as C programs get them.

use xtipc::socket::Errno;

/// Sets `errno`; gives -1.
pub fn fail(errno: i32) -> i32 {
    // SAFETY: the C library gives each thread a valid place for it.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *place = errno };
    -1
}

/// `errno`.
pub(crate) fn last() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// What a call gives that has no other result than whether it succeeded.
pub(crate) fn done(result: Result<(), Errno>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(errno) => fail(errno.0),
    }
}

/// What a call gives that makes a descriptor.
pub(crate) fn made(result: Result<i32, Errno>) -> i32 {
    result.unwrap_or_else(|errno| fail(errno.0))
}

/// What a call gives that counts bytes.
pub(crate) fn counted(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(count) => count.cast_signed(),
        Err(errno) => fail(errno.0) as isize,
    }
}
