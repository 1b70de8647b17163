//! The process: its attachment to the node, and what happens to it when it forks or becomes another program.
//!
//! What a child may use is shared before it is there: at fork all, before a program is started what that inherits. The child takes a socket
//! into use, by an attachment of its own, when it first calls for it. A child of vfork runs in the memory of its parent, and may
//! only exec: calls that would change what is known of descriptors leave that alone there, but share what they copy.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};
use xtipc::Node;
use xtipc::socket::{Errno, Socket};

use crate::description::{Description, is_inheritable, pause_adoption, share, share_one};
use crate::memory::{In, InOut, Out};
use crate::table::{self, Found, Open, borrow};
use crate::{netlink, real, sets};

/// Set by `xtipc run`, which wants to be told why there is no TIPC.
const TELL: &str = "XTIPC_RUN";
/// Descriptors of the library lie from here on if the limit allows it, else directly below that.
const OWN_FROM: RawFd = 900;

static PID: AtomicI32 = AtomicI32::new(0);
/// The attachments of this process and of those it descends from; the last one is in use. Older ones stay: their node is gone, or
/// they belong to a parent.
static NODES: Mutex<Vec<Node>> = Mutex::new(Vec::new());

/// The attachment of this process. Without a daemon it is as on a kernel without TIPC; a process at its limits is told so.
pub(crate) fn node() -> Result<Node, Errno> {
    let mut nodes = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(node) = nodes.last().filter(|node| node.is_usable()) {
        return Ok(node.clone());
    }
    match Node::builder().place_descriptors(place).attach() {
        Ok(node) => {
            nodes.push(node.clone());
            Ok(node)
        }
        Err(error) => {
            tell(&error);
            Err(Errno(match error.errno() {
                limit @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM) => limit,
                _ => libc::EAFNOSUPPORT,
            }))
        }
    }
}

/// Attaches a process that has sockets of another one, as long as it may.
pub(crate) fn attach_heir() {
    let is_inherited = |fd| table::socket(fd).is_some_and(|open| open.current().is_none());
    if !is_borrowed() && table::known(0).any(is_inherited) {
        // Where this fails the calls for these sockets will, too.
        let _ = node();
    }
}

/// Gives a descriptor of the library a number that no program counts on, and hides it.
fn place(fd: OwnedFd) -> io::Result<OwnedFd> {
    copy(fd.as_raw_fd())
}

/// A copy of a descriptor, for the library alone.
pub(crate) fn copy(fd: RawFd) -> io::Result<OwnedFd> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(RawFd::MAX, |limit| limit.min(1 << 20) as RawFd);
    let from = OWN_FROM.min(limit / 4 * 3);
    let placed = rustix::io::fcntl_dupfd_cloexec(borrow(fd), from)?;
    table::mark_own(placed.as_raw_fd());
    Ok(placed)
}

/// Closes such a copy, if it is one.
pub(crate) fn close_copy(fd: RawFd) {
    if matches!(table::find(fd), Found::Own) {
        table::remove(fd);
        // SAFETY: it belongs to this library, which names it no more.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// Says once why there is no TIPC, if `xtipc run` wants it said.
pub(crate) fn tell(error: &dyn std::fmt::Display) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if std::env::var_os(TELL).is_some() && !TOLD.swap(true, Ordering::Relaxed) {
        let _ = writeln!(io::stderr(), "xtipc: no TIPC sockets: {error}");
    }
}

/// Whether this is a child of vfork, in its parent's memory.
pub(crate) fn is_borrowed() -> bool {
    rustix::process::getpid().as_raw_nonzero().get() != PID.load(Ordering::Relaxed)
}

/// Called when the library is loaded.
pub(crate) fn begin() {
    PID.store(
        rustix::process::getpid().as_raw_nonzero().get(),
        Ordering::Relaxed,
    );
    // SAFETY: the handlers are functions of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    recognise_inherited();
}

/// Descriptors of TIPC that the program that became this one has left open.
fn recognise_inherited() {
    let Ok(directory) = rustix::fs::open(
        "/proc/self/fd",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) else {
        return;
    };
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = rustix::fs::RawDir::new(&directory, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let number = entry.file_name().to_str().ok().and_then(|n| n.parse().ok());
        if let Some(fd) = number {
            recognise(fd);
        }
    }
}

/// Takes note of a descriptor that came from another process, if it is of TIPC.
pub(crate) fn recognise(fd: RawFd) {
    if !table::has_room(fd) || !Socket::is_descriptor(borrow(fd)) {
        return;
    }
    let known = |other: &RawFd| *other != fd && is_same(*other, fd);
    let open = match table::known(0).find(known).and_then(table::socket) {
        Some(open) => open,
        None => Open::new(Description::inherited()),
    };
    table::install(fd, open);
}

fn is_same(one: RawFd, other: RawFd) -> bool {
    let id = |fd| rustix::fs::fstat(borrow(fd)).map(|about| (about.st_dev, about.st_ino));
    id(one).is_ok_and(|one| id(other) == Ok(one))
}

/// What a fork has to find free, held by the thread that forks.
struct Paused(UnsafeCell<Option<Locks>>);

struct Locks {
    _adoption: MutexGuard<'static, ()>,
    _nodes: MutexGuard<'static, Vec<Node>>,
    _sets: sets::Pause,
    _netlink: netlink::Pause,
}

// SAFETY: only the handlers use it, while they hold the locks.
unsafe impl Sync for Paused {}

static PAUSED: Paused = Paused(UnsafeCell::new(None));

fn pause(locks: Option<Locks>) {
    // SAFETY: see `Paused`.
    let before = unsafe { std::ptr::replace(PAUSED.0.get(), locks) };
    // Not before there is nothing left in the place, which whoever gets the locks uses next.
    drop(before);
}

extern "C" fn before_fork() {
    share(|_| true);
    pause(Some(Locks {
        _adoption: pause_adoption(),
        _nodes: NODES.lock().unwrap_or_else(PoisonError::into_inner),
        _sets: sets::pause(),
        _netlink: netlink::pause(),
    }));
}

extern "C" fn after_fork() {
    pause(None);
}

extern "C" fn in_child() {
    pause(None);
    PID.store(
        rustix::process::getpid().as_raw_nonzero().get(),
        Ordering::Relaxed,
    );
    // Copies of the parent's, by which it would seem to be attached for as long as this process lives.
    for fd in table::known(0) {
        // It belongs to an attachment that this process cannot use and never drops, or to a call of a thread that is not here.
        close_copy(fd);
    }
}

/// A descriptor is being copied, or made one that programs inherit. In a child of vfork that is for the program that it will become, of
/// which nothing was known when `before_program` was called.
pub(crate) fn before_copy(fd: RawFd) {
    if is_borrowed() {
        share_one(fd);
    }
}

/// A program is about to be started, or to take this one's place.
fn before_program() {
    if !is_borrowed() {
        share(is_inheritable);
    }
}

extern "C" fn before_jump() {
    before_program();
}

/// Functions that end with a jump to the real one, with all registers as they were: `vfork` returns twice, the first time in a child
/// on the same stack, where nothing may be left of them; the others have arguments without an end that could be told.
macro_rules! jump {
    ($($(#[$doc:meta])* fn $name:ident() -> $result:ty, $find:ident, $real:literal;)*) => {$(
        extern "C" fn $find() -> *mut std::ffi::c_void {
            real::behind($real)
        }

        $(#[$doc])*
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> $result {
            std::arch::naked_asm!(
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "push r8",
                "push r9",
                "push rax",
                "call {before}",
                "call {find}",
                "mov r11, rax",
                "pop rax",
                "pop r9",
                "pop r8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                "jmp r11",
                before = sym before_jump,
                find = sym $find,
            )
        }

        $(#[$doc])*
        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> $result {
            std::arch::naked_asm!(
                "stp x29, x30, [sp, #-80]!",
                "stp x0, x1, [sp, #16]",
                "stp x2, x3, [sp, #32]",
                "stp x4, x5, [sp, #48]",
                "stp x6, x7, [sp, #64]",
                "bl {before}",
                "bl {find}",
                "mov x16, x0",
                "ldp x0, x1, [sp, #16]",
                "ldp x2, x3, [sp, #32]",
                "ldp x4, x5, [sp, #48]",
                "ldp x6, x7, [sp, #64]",
                "ldp x29, x30, [sp], #80",
                "br x16",
                before = sym before_jump,
                find = sym $find,
            )
        }
    )*};
}

jump! {
    /// `vfork`
    fn vfork() -> pid_t, find_vfork, c"vfork";
    /// `vfork`, by the other name it has.
    fn __vfork() -> pid_t, find_other_vfork, c"__vfork";
    /// `execl`
    fn execl() -> c_int, find_execl, c"execl";
    /// `execlp`
    fn execlp() -> c_int, find_execlp, c"execlp";
    /// `execle`
    fn execle() -> c_int, find_execle, c"execle";
}

/// `_Fork`, which runs no handlers.
#[allow(non_snake_case, reason = "the name is the C library's")]
#[unsafe(no_mangle)]
pub extern "C" fn _Fork() -> pid_t {
    before_fork();
    let pid = real::_Fork();
    match pid {
        0 => in_child(),
        _ => after_fork(),
    }
    pid
}

/// `posix_spawn`
#[unsafe(no_mangle)]
pub extern "C" fn posix_spawn(
    pid: Out<pid_t>,
    path: In<c_char>,
    actions: In<posix_spawn_file_actions_t>,
    attributes: In<posix_spawnattr_t>,
    arguments: In<In<c_char>>,
    environment: In<In<c_char>>,
) -> c_int {
    before_program();
    real::posix_spawn(pid, path, actions, attributes, arguments, environment)
}

/// `posix_spawnp`
#[unsafe(no_mangle)]
pub extern "C" fn posix_spawnp(
    pid: Out<pid_t>,
    file: In<c_char>,
    actions: In<posix_spawn_file_actions_t>,
    attributes: In<posix_spawnattr_t>,
    arguments: In<In<c_char>>,
    environment: In<In<c_char>>,
) -> c_int {
    before_program();
    real::posix_spawnp(pid, file, actions, attributes, arguments, environment)
}

/// `posix_spawn_file_actions_adddup2`: the program that will be started has a copy.
#[unsafe(no_mangle)]
pub extern "C" fn posix_spawn_file_actions_adddup2(
    actions: InOut<posix_spawn_file_actions_t>,
    fd: c_int,
    to: c_int,
) -> c_int {
    share_one(fd);
    real::posix_spawn_file_actions_adddup2(actions, fd, to)
}

/// `system`
#[unsafe(no_mangle)]
pub extern "C" fn system(command: In<c_char>) -> c_int {
    before_program();
    real::system(command)
}

/// `popen`
#[unsafe(no_mangle)]
pub extern "C" fn popen(command: In<c_char>, kind: In<c_char>) -> *mut libc::FILE {
    before_program();
    real::popen(command, kind)
}

/// `execv`
#[unsafe(no_mangle)]
pub extern "C" fn execv(path: In<c_char>, arguments: In<In<c_char>>) -> c_int {
    before_program();
    real::execv(path, arguments)
}

/// `execve`
#[unsafe(no_mangle)]
pub extern "C" fn execve(
    path: In<c_char>,
    arguments: In<In<c_char>>,
    environment: In<In<c_char>>,
) -> c_int {
    before_program();
    real::execve(path, arguments, environment)
}

/// `execvp`
#[unsafe(no_mangle)]
pub extern "C" fn execvp(file: In<c_char>, arguments: In<In<c_char>>) -> c_int {
    before_program();
    real::execvp(file, arguments)
}

/// `execvpe`
#[unsafe(no_mangle)]
pub extern "C" fn execvpe(
    file: In<c_char>,
    arguments: In<In<c_char>>,
    environment: In<In<c_char>>,
) -> c_int {
    before_program();
    real::execvpe(file, arguments, environment)
}

/// `fexecve`
#[unsafe(no_mangle)]
pub extern "C" fn fexecve(
    fd: c_int,
    arguments: In<In<c_char>>,
    environment: In<In<c_char>>,
) -> c_int {
    before_program();
    real::fexecve(fd, arguments, environment)
}

/// `execveat`
#[unsafe(no_mangle)]
pub extern "C" fn execveat(
    directory: c_int,
    path: In<c_char>,
    arguments: In<In<c_char>>,
    environment: In<In<c_char>>,
    flags: c_int,
) -> c_int {
    before_program();
    real::execveat(directory, path, arguments, environment, flags)
}
