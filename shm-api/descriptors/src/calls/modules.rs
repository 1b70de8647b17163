//! `/proc/modules` with a line for TIPC in it, for programs that look there whether the kernel has TIPC. Only if `xtipc run
//! --module-listed` asks for it.

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsFd, IntoRawFd, RawFd};
use std::sync::OnceLock;

use libc::{FILE, mode_t};
use rustix::fs::{MemfdFlags, OFlags, SeekFrom};

use crate::errno::fail;
use crate::memory::In;
use crate::real;

/// Set by `xtipc run --module-listed`.
const LISTED: &str = "XTIPC_MODULE_LISTED";
const PATH: &CStr = c"/proc/modules";
const LINE: &[u8] = b"tipc 0 0 - Live 0x0000000000000000\n";

fn is_meant(path: In<c_char>) -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    let wanted = || std::env::var_os(LISTED).is_some();
    *WANTED.get_or_init(wanted) && path.string() == Some(PATH)
}

/// A file that reads as the kernel's, and has the line.
fn listed() -> rustix::io::Result<RawFd> {
    let modules = rustix::fs::open(
        PATH,
        OFlags::RDONLY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let file = rustix::fs::memfd_create("modules", MemfdFlags::CLOEXEC)?;
    let mut bytes = [0; 4096];
    // Without such a file there are no modules.
    if let Ok(modules) = modules {
        loop {
            match rustix::io::read(&modules, &mut bytes)? {
                0 => break,
                len => rustix::io::write(&file, &bytes[..len])?,
            };
        }
    }
    rustix::io::write(&file, LINE)?;
    rustix::fs::seek(file.as_fd(), SeekFrom::Start(0))?;
    Ok(file.into_raw_fd())
}

/// `open`
#[unsafe(no_mangle)]
pub extern "C" fn open(path: In<c_char>, flags: c_int, mode: mode_t) -> c_int {
    match is_meant(path) {
        true => listed().unwrap_or_else(|errno| fail(errno.raw_os_error())),
        false => real::open(path, flags, mode),
    }
}

/// `open`, by the name of programs with large files.
#[unsafe(no_mangle)]
pub extern "C" fn open64(path: In<c_char>, flags: c_int, mode: mode_t) -> c_int {
    open(path, flags | libc::O_LARGEFILE, mode)
}

/// `fopen`
#[unsafe(no_mangle)]
pub extern "C" fn fopen(path: In<c_char>, mode: In<c_char>) -> *mut FILE {
    if !is_meant(path) {
        return real::fopen(path, mode);
    }
    match listed() {
        // SAFETY: a descriptor that is open, and a mode that is a string.
        Ok(fd) => unsafe { libc::fdopen(fd, c"r".as_ptr()) },
        Err(errno) => {
            fail(errno.raw_os_error());
            std::ptr::null_mut()
        }
    }
}

/// `fopen`, by the name of programs with large files.
#[unsafe(no_mangle)]
pub extern "C" fn fopen64(path: In<c_char>, mode: In<c_char>) -> *mut FILE {
    fopen(path, mode)
}
