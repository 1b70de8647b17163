//! What this process has used.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Settings of the C library.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Begins this program anew with its heap in large pages, unless it has such settings. What large clusters touch lies far
/// apart: a run then takes little more than half the time.
pub(crate) fn take_large_pages() {
    if env::var_os(TUNABLES).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        let mut anew = Command::new(program);
        anew.args(env::args_os().skip(1));
        // It returns only where that is impossible; then the pages are small ones.
        let _ = anew.env(TUNABLES, "glibc.malloc.hugetlb=1").exec();
    }
}

/// Time on a processor.
pub(crate) fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Resident memory in bytes: now, and at most.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) << 10
    };
    (of("VmRSS:"), of("VmHWM:"))
}
